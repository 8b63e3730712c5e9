//! `bullion build`: locked inputs to an image directory, then the expected measurements into its manifest.

use std::path::{Path, PathBuf};
use std::time::Instant;

use image::{BuildRequest, Guest};
use launcher::qemu::oracle::Devices;
use spec::Outcome;
use spec::lock::Standing;
use spec::manifest::{FILE_NAME, Manifest};

use crate::args::{Arguments, Build};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::{Printer, size};
use crate::weigh::{self, machine::Machine};

pub(crate) fn run(arguments: &Arguments, verb: &Build, printer: &Printer) -> Result<u8, Failure> {
    let begun = Instant::now();
    let loaded = inputs::recipe(&verb.recipe)?;
    let lock_path = verb.lock.clone().unwrap_or_else(|| inputs::lock_path(&verb.recipe));
    let lock = inputs::lock(&lock_path, &verb.recipe, &loaded.recipe)?;
    let guest = read_guest(verb.guest.as_deref())?;
    // A build fills no store: one that is not there is a slip of the pen, and an empty one would not help.
    if let Some(missing) = arguments.cache_dir.as_deref().filter(|directory| !directory.exists()) {
        return Err(Failure::new(Outcome::Usage, format!("there is no store at {}", missing.display()))
            .with_hint("make one with: bullion vendor RECIPE --output DIR"));
    }
    let store = inputs::open_store(arguments)?;
    let request = BuildRequest {
        recipe: &loaded.recipe,
        recipe_dir: &loaded.directory,
        lock: &lock.lock,
        lock_text: &lock.text,
        guest: Guest { bytes: &guest, origin: "host" },
        output: &verb.output,
        jobs: verb
            .jobs
            .map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from),
        replace: verb.replace,
    };
    let mut staged = image::build(&request, &store)?;
    if !verb.no_references {
        let machine = Machine { qemu: &verb.qemu, store: &store, printer, devices: Devices::default() };
        let references = weigh::references(staged.directory(), &staged.manifest, &machine)?;
        staged.manifest.references = references;
    }
    let manifest = staged.commit()?;
    report(&verb.output, &manifest, printer);
    printer.note(format_args!("built in {:.2} s", begun.elapsed().as_secs_f64()));
    if manifest.standing == Standing::Unpublished {
        printer.warning("UNPUBLISHED: this image comes from a lock that was made on the spot; it is not golden");
    }
    printer.value(&manifest);
    Ok(0)
}

fn report(output: &Path, manifest: &Manifest, printer: &Printer) {
    printer.line(format_args!("{} (class dev: the guest binary has no locked origin)", output.display()));
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

/// Finds and reads the guest binary: where the caller says, where `scripts/build-guest` puts it, else beside this program.
fn read_guest(given: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let variable = std::env::var_os("BULLION_GUEST").filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory =
        std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf)).unwrap_or_default();
    let built = directory.join("../guest/bullion-guest");
    let path = given
        .map(Path::to_path_buf)
        .or(variable)
        .or_else(|| built.is_file().then_some(built))
        .unwrap_or_else(|| directory.join("bullion-guest"));
    std::fs::read(&path).map_err(|error| {
        Failure::new(Outcome::HostCannot, format!("reading the guest binary {}: {error}", path.display()))
            .with_hint("build it with scripts/build-guest, or name one with --guest FILE")
    })
}
