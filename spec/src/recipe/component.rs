//! What a recipe of kind "component" compiles: sources of this repository and a script, in the tree of its locked packages.

use serde::{Deserialize, Serialize};

use super::check::Origin;
use super::{ComponentFile, ImageRecipe};
use crate::digest::Sha256Digest;
use crate::text::SyntaxError;

/// `[component]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ComponentRecipe {
    /// What `/bin/sh` of the tree runs, in `/build` and without a network. It leaves its results in `/build/out`.
    pub script: String,
    /// The names of the files in `/build/out` that are the result.
    pub outputs: Vec<String>,
    /// Files and directories beside the recipe, relative to it, that the script finds under the same names in `/build`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Files that no package has and that somebody else publishes; the script finds them in `/build`, under the names in which their addresses
    /// end.
    #[serde(default, rename = "source", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceFile>,
    /// A program of a Cargo workspace that the script finds in `/build/src`, with its crates in `/build/vendor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cargo: Option<CargoSource>,
}

/// `[[component.source]]`. Nothing vouches for such a file but its digest here: there is no signature and no index behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Where it is published: http or https.
    pub url: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// Its terms, as an SPDX licence expression: `MIT`, `LicenseRef-NVIDIA`.
    pub licence: String,
}

impl SourceFile {
    /// The name in which its address ends.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// What is wrong with it: the same in a recipe and in a manifest.
    pub(crate) fn fault(&self) -> Option<String> {
        let Self { url, size, licence, .. } = self;
        let is_address = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\"<>\\".contains(&byte));
        let segments = url.split('/').skip(2);
        let name = self.name();
        if !is_address
            || !is_plain
            || !is_file_name(name)
            || segments.clone().count() < 2
            || segments.clone().any(str::is_empty)
        {
            return Some(format!("\"{url}\" is not an address over http or https that ends in the name of a file"));
        }
        if TAKEN.contains(&name) {
            return Some(format!("\"{url}\" ends in a name that the builder makes itself: {}", TAKEN.join(", ")));
        }
        if *size == 0 {
            return Some(format!("{name} has a size of 0 bytes"));
        }
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b" .-+():".contains(&byte);
        (licence.trim().is_empty() || !licence.bytes().all(is_word))
            .then(|| format!("\"{licence}\" is not an SPDX licence expression"))
    }
}

/// `[component.cargo]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CargoSource {
    /// The directory with the workspace's `Cargo.toml` and `Cargo.lock`, relative to the recipe; it may be above it.
    pub workspace: String,
    /// The package that is compiled; what it needs of the workspace comes with it, the rest stays out.
    pub package: String,
}

/// `[guest]`: the program that is the guest's first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GuestRecipe {
    /// The recipe of kind "component" that it is compiled by in release images, relative to this recipe. Its output is
    /// `bullion-guest`.
    pub component: String,
}

impl ImageRecipe {
    /// The recipes of components that make files of the root file system or, where its kernel is the package's, modules, each once.
    pub fn parts(&self, kernel_is_compiled: bool) -> Vec<&str> {
        let files = self.component_files.iter().map(|file| file.recipe.as_str());
        let modules = self.module_components.iter().map(String::as_str).filter(|_| !kernel_is_compiled);
        let mut parts: Vec<&str> = Vec::new();
        for path in modules.chain(files) {
            if !parts.contains(&path) {
                parts.push(path);
            }
        }
        parts
    }
}

/// The output of a guest component.
pub const GUEST_OUTPUT: &str = "bullion-guest";

/// The outputs of a kernel component.
pub mod kernel_output {
    /// What a boot loader starts.
    pub const KERNEL: &str = "bzImage";
    /// The version, as the directory of its modules would be named: one line.
    pub const RELEASE: &str = "kernel.release";
    /// Which modules are built in, as Kbuild writes it.
    pub const BUILT_IN: &str = "modules.builtin";
    /// The configuration as it was built.
    pub const CONFIGURATION: &str = "config";
    /// What the configuration must say.
    pub const HARDENING: &str = "hardening.toml";
    /// All that every kernel has.
    pub const ALL: [&str; 5] = [KERNEL, RELEASE, BUILT_IN, CONFIGURATION, HARDENING];

    /// Whether an output of any component is a module of a kernel.
    pub fn is_module(name: &str) -> bool {
        name.ends_with(".ko")
    }
}

/// Names in `/build` that the builder makes itself.
const TAKEN: [&str; 6] = ["script", "src", "vendor", "cargo", "out", "home"];

pub(super) fn check(component: &ComponentRecipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    if component.outputs.is_empty() {
        return Err(origin.refuse("outputs", "component.outputs is empty: a component without a result is none"));
    }
    for (index, name) in component.outputs.iter().enumerate() {
        if !is_file_name(name) {
            return Err(origin.refuse(name, format!("\"{name}\" is not the name of a file in /build/out")));
        }
        if component.outputs.iter().take(index).any(|other| other == name) {
            return Err(origin.refuse(name, format!("component.outputs names \"{name}\" twice")));
        }
    }
    for (index, path) in component.files.iter().enumerate() {
        let first = path.split('/').next().unwrap_or_default();
        if !is_inside(path) || TAKEN.contains(&first) {
            let message = format!(
                "component.files names \"{path}\": use a path below the recipe's directory that starts with none of {}",
                TAKEN.join(", ")
            );
            return Err(origin.refuse(path, message));
        }
        let nested = |other: &String| path == other || path.starts_with(&format!("{other}/"));
        if component.files.iter().enumerate().any(|(at, other)| at != index && nested(other)) {
            return Err(origin.refuse(path, format!("component.files names \"{path}\" twice")));
        }
    }
    for (index, source) in component.sources.iter().enumerate() {
        let name = source.name();
        let files = component.files.iter().map(|path| path.split('/').next().unwrap_or_default());
        let mut others = component.sources.iter().take(index).map(SourceFile::name).chain(files);
        let twice = || others.any(|other| other == name).then(|| format!("two files would be /build/{name}"));
        if let Some(message) = source.fault().or_else(twice) {
            return Err(origin.refuse(&source.url, message));
        }
    }
    if let Some(cargo) = &component.cargo
        && !is_relative(&cargo.workspace)
    {
        let message = format!("\"{}\" is not a path relative to the recipe", cargo.workspace);
        return Err(origin.refuse(&cargo.workspace, message));
    }
    Ok(())
}

/// A file of the root file system that a component makes.
pub(super) fn check_file(entry: &ComponentFile, origin: Origin<'_>) -> Result<(), SyntaxError> {
    let ComponentFile { recipe, output, path, .. } = entry;
    if !is_relative(recipe) || !recipe.ends_with(".toml") {
        let message = format!(
            "\"{path}\" is of the component \"{recipe}\": name a recipe relative to this one, such as components/guest.toml"
        );
        return Err(origin.refuse(path, message));
    }
    if !is_file_name(output) {
        let message = format!("\"{path}\" is the output \"{output}\", which is not the name of a file in /build/out");
        return Err(origin.refuse(path, message));
    }
    Ok(())
}

/// A component that an image names in `key`.
pub(super) fn check_path(key: &str, path: &str, origin: Origin<'_>) -> Result<(), SyntaxError> {
    if is_relative(path) && path.ends_with(".toml") {
        return Ok(());
    }
    let example = key.split('.').next().unwrap_or_default();
    let message = format!("{key} is \"{path}\": name a recipe relative to this one, such as components/{example}.toml");
    Err(origin.refuse(key.rsplit('.').next().unwrap_or(key), message))
}

fn is_file_name(name: &str) -> bool {
    !name.starts_with('.')
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte))
}

/// A relative path that stays below where it starts.
fn is_inside(path: &str) -> bool {
    is_relative(path) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_relative(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && !path.contains(char::is_control)
}
