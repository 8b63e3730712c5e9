//! `bullion component`: what is compiled for images, from what, and whether it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use spec::component::{ComponentInputs, NamedInput};
use spec::{Outcome, Sha256Digest};

use crate::args::{
    Arguments, BuildComponent, Component, ComponentAction, ComponentName, ExplainComponent, ListComponents,
};
use crate::component::{self, LoadedComponent};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::{Printer, size};

pub(crate) fn run(arguments: &Arguments, verb: &Component, printer: &Printer) -> Result<u8, Failure> {
    match &verb.action {
        ComponentAction::Build(verb) => build(arguments, verb, printer),
        ComponentAction::List(verb) => list(arguments, verb, printer),
        ComponentAction::Explain(verb) => explain(arguments, verb, printer),
    }
}

/// The recipe of a component that was named: a path, or a name in the directory.
fn load(name: &ComponentName) -> Result<LoadedComponent, Failure> {
    let is_path = name.name.extension().is_some() || name.name.components().count() > 1;
    let path = if is_path { name.name.clone() } else { name.directory.join(&name.name).with_extension("toml") };
    if !is_path && !path.exists() {
        let message = format!("there is no component \"{}\" in {}", name.name.display(), name.directory.display());
        return Err(Failure::new(Outcome::Usage, message).with_hint("`bullion component list` says which there are"));
    }
    component::load(&path)
}

fn build(arguments: &Arguments, verb: &BuildComponent, printer: &Printer) -> Result<u8, Failure> {
    let loaded = load(&verb.component)?;
    let store = inputs::open_store(arguments)?;
    let described = loaded.describe()?;
    let jobs = inputs::jobs(verb.jobs);
    let built = loaded.build(&described, jobs, verb.verify, arguments, &store, printer)?;
    printer.line(format_args!("{} {}", built.inputs.name, built.key));
    for (name, output) in &built.outputs {
        printer.line(format_args!("  {name:<16} {:>9}  sha256 {}", size(output.size), output.sha256));
        if let Some(directory) = &verb.output {
            std::fs::create_dir_all(directory).map_err(|error| Failure::file("creating", directory, &error))?;
            store::write_atomically(&directory.join(name), &image::component::output(output, &store)?)?;
        }
    }
    printer.value(&built);
    Ok(0)
}

#[derive(Serialize)]
struct Row {
    name: String,
    key: Sha256Digest,
    cached: bool,
    recipe: PathBuf,
}

fn list(arguments: &Arguments, verb: &ListComponents, printer: &Printer) -> Result<u8, Failure> {
    let store = inputs::open_store(arguments)?;
    let unreadable = |error: std::io::Error| Failure::file("listing", &verb.directory, &error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&verb.directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        paths.extend(Some(path).filter(|path| path.extension().is_some_and(|extension| extension == "toml")));
    }
    paths.sort();
    let mut rows = Vec::new();
    for recipe in paths {
        let loaded = component::load(&recipe)?;
        let described = loaded.describe()?;
        let (name, cached) = (loaded.loaded.recipe.name.clone(), described.cached(&store).is_some());
        let word = if cached { "cached" } else { "not compiled" };
        printer.line(format_args!("{name:<16} {}  {word}", described.key()));
        rows.push(Row { name, key: described.key(), cached, recipe });
    }
    printer.value(&rows);
    Ok(0)
}

#[derive(Serialize)]
struct Explanation<'a> {
    key: Sha256Digest,
    inputs: &'a ComponentInputs,
    outputs: BTreeMap<String, spec::manifest::Artifact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<Vec<String>>,
}

fn explain(arguments: &Arguments, verb: &ExplainComponent, printer: &Printer) -> Result<u8, Failure> {
    let loaded = load(&verb.component)?;
    let store = inputs::open_store(arguments)?;
    let described = loaded.describe()?;
    let inputs = described.inputs();
    printer.line(format_args!("{} {}", inputs.name, described.key()));
    printer.line(format_args!("  script           sha256 {}", Sha256Digest::of(inputs.script.as_bytes())));
    printer.line(format_args!(
        "  {} packages, {} crates, {} published files, {} source files",
        inputs.packages.len(),
        inputs.crates.len(),
        inputs.sources.len(),
        inputs.files.len()
    ));
    for (what, named) in [("package", &inputs.packages), ("crate", &inputs.crates)] {
        for one in named {
            printer.line(format_args!("  {what:<8} {} {}  sha256 {}", one.name, one.version, one.sha256));
        }
    }
    for one in &inputs.sources {
        printer.line(format_args!("  published {} {}  sha256 {}", one.url, one.licence, one.sha256));
    }
    for (path, sha256) in &inputs.files {
        printer.line(format_args!("  file     {path}  sha256 {sha256}"));
    }
    let outputs = described.cached(&store).map(|found| found.outputs).unwrap_or_default();
    for (name, output) in &outputs {
        printer.line(format_args!("  made     {name} {}  sha256 {}", size(output.size), output.sha256));
    }
    let changed = verb.image.as_deref().map(|image| changes(image, inputs)).transpose()?;
    for change in changed.iter().flatten() {
        printer.line(format_args!("  changed  {change}"));
    }
    let same = changed.as_ref().is_none_or(Vec::is_empty);
    printer.value(&Explanation { key: described.key(), inputs, outputs, changed });
    Ok(if same { 0 } else { Outcome::Refused.code() })
}

/// What is different between the inputs now and those that the image's component had.
fn changes(image: &Path, now: &ComponentInputs) -> Result<Vec<String>, Failure> {
    let image = store::Image::open(image)?;
    let found = image.manifest.components.iter().find(|component| component.inputs.name == now.name);
    let then = &found
        .ok_or_else(|| {
            Failure::new(Outcome::Usage, format!("the image was built without the component \"{}\"", now.name))
        })?
        .inputs;
    let mut changed = Vec::new();
    if then.sandbox != now.sandbox {
        changed.push(format!("sandbox: version {} is now {}", then.sandbox, now.sandbox));
    }
    if (&then.script, &then.outputs) != (&now.script, &now.outputs) {
        changed.push("the script or the names of its outputs".to_owned());
    }
    changed.extend(differences("package", &by_name(&then.packages), &by_name(&now.packages)));
    changed.extend(differences("crate", &by_name(&then.crates), &by_name(&now.crates)));
    let published = |inputs: &ComponentInputs| -> BTreeMap<String, String> {
        inputs.sources.iter().map(|one| (one.url.clone(), one.sha256.to_string())).collect()
    };
    changed.extend(differences("published file", &published(then), &published(now)));
    let files = |inputs: &ComponentInputs| -> BTreeMap<String, String> {
        inputs.files.iter().map(|(path, sha256)| (path.clone(), sha256.to_string())).collect()
    };
    changed.extend(differences("file", &files(then), &files(now)));
    Ok(changed)
}

/// Versions with digests, by name; several versions of one crate together.
fn by_name(named: &[NamedInput]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for one in named {
        let text = found.entry(one.name.clone()).or_default();
        let separator = if text.is_empty() { "" } else { ", " };
        text.push_str(&format!("{separator}{} ({})", one.version, one.sha256.short()));
    }
    found
}

fn differences(what: &str, then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let describe = |name: &&String| match (then.get(*name), now.get(*name)) {
        (Some(then), Some(now)) if then == now => None,
        (Some(then), Some(now)) => Some(format!("{what} {name}: {then} is now {now}")),
        (Some(_), None) => Some(format!("{what} {name}: is gone")),
        (None, _) => Some(format!("{what} {name}: is new")),
    };
    names.iter().filter_map(describe).collect()
}
