//! `bullion build`: locked inputs to an image directory, then the expected measurements into its manifest.

mod admission;
pub(super) mod compiled;

use std::path::Path;
use std::time::Instant;

use compiled::{Compiled, Given};
use image::BuildRequest;
use launcher::qemu::oracle::Devices;
use serde_json::json;
use spec::Outcome;
use spec::lock::Standing;
use spec::manifest::{Class, FILE_NAME, Manifest, artifact};

use super::diff;
use super::rebuild::{self, Again};
use super::unchanged::Unchanged;
use crate::args::{Arguments, Build};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::{Printer, size};
use crate::weigh::{self, machine::Machine};

pub(crate) fn run(arguments: &Arguments, verb: &Build, printer: &Printer) -> Result<u8, Failure> {
    with_components(arguments, verb, &Given::default(), printer)
}

/// Builds; the guest binary that was read, and the kernel in the store, are said to be what the components in `given` made. Nobody
/// knows that here, so the image is of class dev then.
pub(super) fn with_components(
    arguments: &Arguments,
    verb: &Build,
    given: &Given,
    printer: &Printer,
) -> Result<u8, Failure> {
    let begun = Instant::now();
    let loaded = inputs::recipe(&verb.recipe)?;
    let lock_path = verb.lock.clone().unwrap_or_else(|| inputs::lock_path(&verb.recipe));
    let lock = inputs::lock(&lock_path, &verb.recipe, &loaded.recipe)?;
    // A build fills no store: one that is not there is a slip of the pen, and an empty one would not help.
    if let Some(missing) = arguments.cache_dir.as_deref().filter(|directory| !directory.exists()) {
        return Err(Failure::new(Outcome::Usage, format!("there is no store at {}", missing.display()))
            .with_hint("make one with: bullion vendor RECIPE --output DIR"));
    }
    let store = inputs::open_store(arguments)?;
    let compiled = match verb.release {
        true => Compiled::release(arguments, verb, &loaded, &lock.lock, &store, printer)?,
        false => Compiled::given(arguments, verb, &loaded, given, &store, printer)?,
    };
    let request = BuildRequest {
        recipe: &loaded.recipe,
        recipe_dir: &loaded.directory,
        lock: &lock.lock,
        lock_text: &lock.text,
        guest: compiled.guest(),
        kernel: compiled.kernel(),
        parts: compiled.parts(),
        output: &verb.output,
        jobs: inputs::jobs(verb.jobs),
        replace: verb.replace,
        // As with the results of components.
        believe_cache: !verb.release && arguments.cache_dir.is_none(),
    };
    let unchanged = Unchanged::of(arguments, verb, &request, &store);
    if let Some(manifest) = unchanged.as_ref().and_then(|unchanged| unchanged.image(verb)) {
        report(&verb.output, &manifest, &[], printer);
        printer.note(format_args!("nothing has changed: looked through in {:.2} s", begun.elapsed().as_secs_f64()));
        say_unpublished(&manifest, printer);
        printer.value(&manifest);
        return Ok(0);
    }
    let mut staged = image::build(&request, &store)?;
    if !given.components.is_empty() {
        staged.manifest.class = Class::Dev;
    }
    if verb.release {
        refuse_open(verb, &staged.open_origins)?;
    }
    if !verb.no_references {
        let machine = Machine { qemu: &verb.qemu, store: &store, printer, devices: Devices::default() };
        let references = weigh::references(staged.directory(), &staged.manifest, &machine, &[])?;
        staged.manifest.references = references;
    }
    if verb.verify {
        let again = rebuild::again(verb, &request, &staged, &store)?;
        if !again.differences.is_empty() {
            return Ok(not_reproducible(&again, printer));
        }
        printer.note(format_args!("built twice, the same to the byte; varied: {}", again.varied));
    }
    let open_origins = std::mem::take(&mut staged.open_origins);
    let manifest = staged.commit()?;
    if let Some(unchanged) = unchanged {
        unchanged.keep(verb);
    }
    report(&verb.output, &manifest, &open_origins, printer);
    printer.note(format_args!("built in {:.2} s", begun.elapsed().as_secs_f64()));
    say_unpublished(&manifest, printer);
    printer.value(&manifest);
    Ok(0)
}

fn say_unpublished(manifest: &Manifest, printer: &Printer) {
    if manifest.standing == Standing::Unpublished {
        printer.warning("UNPUBLISHED: this image comes from a lock that was made on the spot; it is not golden");
    }
}

/// Shows what two builds of one lock differ in. There is no image then.
fn not_reproducible(again: &Again, printer: &Printer) -> u8 {
    // Whatever else differs, the disk holds it.
    let has_disk = again.differences.iter().any(|file| file.artifact == artifact::DISK);
    diff::show_files(&again.differences, has_disk, printer);
    let files = diff::files_as_json(&again.differences, has_disk);
    printer.value(&json!({ "same": false, "varied": again.varied, "files": files }));
    let message = format!(
        "a second build is another in {} places, and no image was made; varied: {}",
        again.differences.len(),
        again.varied
    );
    let hint = "build without --verify to a directory of its own, twice, and look with `bullion diff`";
    let failure = Failure::new(Outcome::Refused, message).with_hint(hint);
    printer.text_failure(&failure);
    failure.outcome.code()
}

fn report(output: &Path, manifest: &Manifest, open: &[String], printer: &Printer) {
    let why = if open.is_empty() { String::new() } else { format!(": {}", open.join("; ")) };
    printer.line(format_args!("{} (class {}{why})", output.display(), manifest.class));
    for (name, artifact) in &manifest.artifacts {
        printer.line(format_args!("  {name:<16} {:>9}  sha256 {}", size(artifact.size), artifact.sha256));
    }
    printer.line(format_args!("  verity root hash  {}", manifest.verity.root_hash));
    printer.line(format_args!("  {} locked packages, kernel {}", manifest.inputs.len(), manifest.kernel_version));
    printer.line(format_args!(
        "  {FILE_NAME} has {} expected SNP launch digests and {} MRTD",
        manifest.references.snp.len(),
        manifest.references.tdx.len()
    ));
}

/// Refuses a release that would have something in it that nobody stands for.
fn refuse_open(verb: &Build, open: &[String]) -> Result<(), Failure> {
    if open.is_empty() {
        return Ok(());
    }
    let message = format!("{} cannot be of class release: {}", verb.recipe.display(), open.join("; "));
    Err(Failure::new(Outcome::Refused, message))
}
