//! `bullion measure`: what a TEE will measure when an image is launched; of files without an image in `snp` and `tdx`.

mod snp;
mod tdx;
pub(super) mod tpm;
mod write;

use std::path::Path;

use launcher::Image;
use launcher::qemu::oracle::Devices;
use measure::Digest384;
use measure::digest::encode_hex;
use measure::shape::{SnpShape, TeeShape};
use serde::Serialize;
use spec::manifest::{Manifest, SnpReference, TdxReference, artifact};
use spec::{Outcome, Tee};

use crate::args::{Arguments, Measure, MeasureFiles, Shapes};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::machine::Machine;
use crate::weigh::{self, SnpWanted, reference};

#[derive(Default, Serialize)]
struct Answer {
    /// What a report of this VM says beside the measurements.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<Beside>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snp: Vec<SnpReference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tdx: Vec<TdxReference>,
}

/// Fields of a report that are no measurement of what was started, and without which one says little.
#[derive(Serialize)]
#[serde(untagged)]
enum Beside {
    Snp {
        policy: u64,
        host_data: String,
    },
    /// XFAM follows from the host's processor and is not here.
    Tdx {
        attributes: u64,
        mrconfigid: String,
        mrowner: String,
        mrownerconfig: String,
    },
}

impl Beside {
    fn of(vm: &spec::vm::Vm, tee: Option<Tee>) -> Result<Option<Self>, Failure> {
        let is_wanted = tee == Some(vm.tee);
        Ok(match launcher::plan::shape(vm)?.tee {
            TeeShape::Snp(snp) if is_wanted => {
                Some(Self::Snp { policy: snp.policy, host_data: encode_hex(&snp.host_data) })
            }
            TeeShape::Tdx(tdx) if is_wanted => {
                let zero = Digest384::ZERO.to_string();
                let mrconfigid = encode_hex(&tdx.mrconfigid);
                Some(Self::Tdx { attributes: tdx.attributes, mrconfigid, mrowner: zero.clone(), mrownerconfig: zero })
            }
            _ => None,
        })
    }

    fn show(&self, printer: &Printer) {
        match self {
            Self::Snp { policy, host_data } => {
                printer.line(format_args!("snp  POLICY {policy:#x}"));
                printer.line(format_args!("snp  HOST_DATA {host_data}"));
            }
            Self::Tdx { attributes, mrconfigid, .. } => {
                printer.line(format_args!("tdx  ATTRIBUTES {attributes:#x}, MROWNER and MROWNERCONFIG zero"));
                printer.line(format_args!("tdx  MRCONFIGID {mrconfigid}"));
            }
        }
    }
}

pub(crate) fn run(arguments: &Arguments, verb: &Measure, printer: &Printer) -> Result<u8, Failure> {
    let shapes = &verb.shapes;
    let subject = match (&verb.files, &verb.subject) {
        (None, Some(subject)) => subject,
        (Some(files), None) if shapes.given().is_none() => {
            return match files {
                MeasureFiles::Snp(files) => snp::run(files, printer),
                MeasureFiles::Tpm(files) => tpm::run(files, printer),
                MeasureFiles::Tdx(files) => tdx::run(arguments, files, printer),
            };
        }
        _ => return Err(misplaced(shapes)),
    };
    let (directory, vm) = weigh::image_or_vm(subject)?;
    let manifest = Image::open(&directory)?.manifest;
    store::verify(&directory, &manifest)?;
    let tee = shapes.tee.map(Tee::from).or(vm.as_ref().map(|vm| vm.tee));
    if tee == Some(Tee::None) {
        return Err(Failure::new(Outcome::Usage, "a guest without a TEE measures nothing")
            .with_hint("name one with --tee snp or --tee tdx"));
    }
    without_effect(shapes, tee).into_iter().for_each(|note| printer.note(note));
    let wants = |this, firmware| tee == Some(this) || (tee.is_none() && manifest.artifacts.contains_key(firmware));
    let store = inputs::open_store(arguments)?;
    let devices = vm.as_ref().map(Devices::of).unwrap_or_default();
    let machine = Machine { qemu: &shapes.qemu, store: &store, printer, devices };
    if verb.write {
        return write::run(&directory, manifest, &machine, &added_shapes(shapes)?);
    }
    let beside = vm.as_ref().map(|vm| Beside::of(vm, tee)).transpose()?.flatten();
    let mut answer = Answer { beside, ..Answer::default() };
    if wants(Tee::Snp, artifact::FIRMWARE_SNP) {
        answer.snp = of_image(shapes, vm.as_ref(), &directory, &manifest)?;
    }
    if wants(Tee::Tdx, artifact::FIRMWARE_TDX) {
        let wanted = tdx_shapes(shapes, vm.as_ref(), &manifest)?;
        if wanted.is_empty() && tee == Some(Tee::Tdx) && !shapes.vcpus.is_empty() {
            printer.note("RTMR0 depends on vCPUs and memory together: name sizes with --memory");
        }
        answer.tdx = vec![reference::tdx(&directory, &manifest, &wanted, &machine)?];
    }
    show(&answer, printer);
    answer.beside.iter().for_each(|beside| beside.show(printer));
    printer.value(&answer);
    Ok(0)
}

/// What was typed and changes no value of this TEE.
fn without_effect(shapes: &Shapes, tee: Option<Tee>) -> Option<&'static str> {
    let has_cpu = !shapes.cpu.is_empty() || shapes.cpu_signature.is_some();
    match tee {
        Some(Tee::Snp) if !shapes.memory.is_empty() => {
            Some("--memory changes nothing: SEV-SNP measures no memory size")
        }
        Some(Tee::Tdx) if has_cpu => Some("the CPU model changes nothing: TDX measures none"),
        _ => None,
    }
}

/// The TDX shapes that `--write` adds.
fn added_shapes(verb: &Shapes) -> Result<Vec<(u32, u64)>, Failure> {
    if verb.memory.is_empty() && !verb.vcpus.is_empty() {
        return Err(Failure::new(Outcome::Usage, "--write adds shapes of TDX guests, which have a memory size")
            .with_hint("give --memory too, such as --memory 2GiB"));
    }
    let vcpus = if verb.vcpus.is_empty() { &[1][..] } else { &verb.vcpus };
    reference::shapes(vcpus, &verb.memory)
}

/// A word or option before `snp` or `tdx`, where it would mean nothing.
fn misplaced(shapes: &Shapes) -> Failure {
    let what = shapes.given().unwrap_or("an image");
    Failure::new(Outcome::Usage, format!("{what} cannot stand before the words snp, tdx and tpm"))
        .with_hint("write options after that word, or name an image directory of that name as ./snp or ./tdx")
}

/// What was typed, else the VM's, else the recipe's. A list of vCPUs alone is for SNP.
fn tdx_shapes(verb: &Shapes, vm: Option<&spec::vm::Vm>, manifest: &Manifest) -> Result<Vec<(u32, u64)>, Failure> {
    let recipe = manifest.recipe.image.as_ref().map(|image| image.references.clone()).unwrap_or_default();
    let or = |typed: &[u32], vm: Option<u32>, recipe: Vec<u32>| match (typed.is_empty(), vm) {
        (false, _) => typed.to_vec(),
        (true, Some(vcpus)) => vec![vcpus],
        (true, None) => recipe,
    };
    let memory = match (verb.memory.is_empty(), vm) {
        (false, _) => verb.memory.clone(),
        (true, Some(vm)) => vec![vm.memory],
        (true, None) => recipe.memory,
    };
    let vcpus = or(&verb.vcpus, vm.map(|vm| vm.vcpus), recipe.tdx_vcpus);
    let vcpus = if vcpus.is_empty() && !verb.memory.is_empty() { vec![1] } else { vcpus };
    reference::shapes(&vcpus, &memory)
}

fn of_image(
    verb: &Shapes,
    vm: Option<&spec::vm::Vm>,
    directory: &Path,
    manifest: &Manifest,
) -> Result<Vec<SnpReference>, Failure> {
    let recipe =
        manifest.recipe.image.as_ref().map(|image| image.references.vcpus.clone()).filter(|counts| !counts.is_empty());
    let vcpus = match (verb.vcpus.is_empty(), vm) {
        (false, _) => verb.vcpus.clone(),
        (true, Some(vm)) => vec![vm.vcpus],
        (true, None) => recipe.unwrap_or_else(|| vec![1]),
    };
    weigh::check_vcpus(&vcpus)?;
    let default_cpu = vm.filter(|vm| vm.tee == Tee::Snp).map_or("EPYC-v4", |vm| vm.cpu_model());
    let cpus = if verb.cpu.is_empty() { vec![default_cpu.to_owned()] } else { verb.cpu.clone() };
    let wanted = SnpWanted {
        vcpus: &vcpus,
        cpus: &cpus,
        signature: verb.cpu_signature,
        sev_features: verb.sev_features.unwrap_or(SnpShape::SNP_ACTIVE),
    };
    weigh::snp(directory, manifest, &wanted)
}

fn show(answer: &Answer, printer: &Printer) {
    for snp in &answer.snp {
        printer.line(format_args!(
            "snp  {:>3} vCPUs  {:<10} ({:#x})  sev_features {:#x}  launch digest {}",
            snp.vcpus, snp.cpu, snp.cpu_signature, snp.sev_features, snp.launch_digest
        ));
    }
    for tdx in &answer.tdx {
        printer.line(format_args!("tdx  MRTD  {}  (firmware {})", tdx.mrtd, tdx.firmware_sha256.short()));
        for shape in tdx.platform.iter().flat_map(|platform| &platform.rtmr0) {
            let (vcpus, memory) = (shape.vcpus, spec::size::Size::from_mib(shape.memory_mib));
            printer.line(format_args!("tdx  RTMR0 {}  ({vcpus} vCPUs, {memory})", shape.rtmr0));
        }
        if let Some(disk) = &tdx.disk {
            for shape in disk.platform.iter().flat_map(|platform| &platform.rtmr0) {
                let (vcpus, memory) = (shape.vcpus, spec::size::Size::from_mib(shape.memory_mib));
                printer.line(format_args!("tdx  RTMR0 {}  ({vcpus} vCPUs, {memory}, from disk)", shape.rtmr0));
            }
            for rtmr1 in &disk.rtmr1_one_of {
                let one_of = if disk.rtmr1_one_of.len() > 1 { ", one of these" } else { "" };
                printer.line(format_args!("tdx  RTMR1 {rtmr1}  (from disk{one_of})"));
            }
            printer.line(format_args!("tdx  RTMR2 {}  (from disk)", disk.rtmr2));
        }
        if let Some(image) = &tdx.image {
            printer.line(format_args!("tdx  RTMR1 {}", image.rtmr1));
            printer.line(format_args!("tdx  RTMR2 {}", image.rtmr2));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Verb;

    #[test]
    fn options_that_change_nothing_are_named() {
        let said = |tee: Tee, words: &[&str]| {
            let arguments = Arguments::try_parse_from([&["bullion", "measure", "image"], words].concat()).unwrap();
            let Verb::Measure(measure) = arguments.verb else { panic!("{arguments:?}") };
            without_effect(&measure.shapes, Some(tee)).map(|note| note.split(' ').next().unwrap().to_owned())
        };
        assert_eq!(said(Tee::Snp, &["--memory", "2GiB"]).as_deref(), Some("--memory"));
        assert_eq!(said(Tee::Tdx, &["--cpu", "EPYC-v4", "--memory", "2GiB"]).as_deref(), Some("the"));
        assert_eq!(said(Tee::Tdx, &["--memory", "2GiB", "--vcpus", "2"]), None);
        assert_eq!(said(Tee::Snp, &["--cpu", "EPYC-v4", "--vcpus", "2"]), None);
    }
}
