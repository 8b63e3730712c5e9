//! `bullion explain`: which input is not as expected when a SEV-SNP launch digest is not.

use std::path::Path;

use evidence::snp::AttestationReport;
use launcher::Image;
use measure::firmware::SevLayout;
use measure::snp::explain::{Candidate, Difference, Expected, Kernel, explain};
use measure::snp::{LaunchInputs, profile, seed::firmware_digest};
use measure::{Digest256, Digest384};
use serde::Serialize;
use serde_json::json;
use spec::manifest::{Manifest, artifact};
use spec::{Outcome, Tee};

use crate::args::Explain;
use crate::failure::Failure;
use crate::firmware::FirmwareFile;
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::{self, SnpSubject, unusable};

#[derive(Serialize)]
struct Answer {
    found: String,
    /// Where the digest came from was not verified.
    authenticity_verified: bool,
    expected: Wanted,
    matches: bool,
    differences: Vec<serde_json::Value>,
}

#[derive(Serialize)]
struct Wanted {
    launch_digest: String,
    vcpus: u32,
    cpu: String,
    cpu_signature: u32,
    sev_features: u64,
}

pub(crate) fn run(verb: &Explain, printer: &Printer) -> Result<u8, Failure> {
    let found = found(verb, printer)?;
    let (directory, vm) = weigh::image_or_vm(&verb.against)?;
    if let Some(vm) = vm.as_ref().filter(|vm| vm.tee != Tee::Snp) {
        return Err(Failure::new(Outcome::Usage, format!("{} is no SEV-SNP guest", vm.name)).with_hint(
            "only SEV-SNP launch digests are explained; a TDX guest has an event log: bullion eventlog show",
        ));
    }
    let manifest = Image::open(&directory)?.manifest;
    store::verify(&directory, &manifest)?;
    let vcpus = verb.vcpus.or(vm.as_ref().map(|vm| vm.vcpus)).unwrap_or(1);
    weigh::check_vcpus(&[vcpus])?;
    let cpu = verb.cpu.clone().or(vm.as_ref().map(|vm| vm.cpu_model().to_owned())).unwrap_or("EPYC-v4".to_owned());

    let firmware = firmware(&directory, &manifest, verb)?;
    let [own, ..] = &firmware[..] else {
        return Err(Failure::new(Outcome::Internal, "there is no firmware to explain with"));
    };
    let parsed = own.file.parse()?;
    let subject =
        SnpSubject { path: &own.file.path, firmware: &parsed, kernel_hashes: Some(weigh::kernel_hashes(&manifest)?) };
    let mut inputs = subject.inputs(&cpu, verb.cpu_signature, verb.sev_features)?;
    inputs.vcpus = vcpus;
    let digest = inputs.digest().map_err(|error| unusable(&own.file.path, &error))?;
    let wanted = Wanted {
        launch_digest: digest.to_string(),
        vcpus,
        cpu: if verb.cpu_signature.is_some() { "-".to_owned() } else { cpu },
        cpu_signature: inputs.vcpu.signature.0,
        sev_features: verb.sev_features,
    };
    tell(found, search(found, &firmware, &manifest, &inputs)?, wanted, printer)
}

/// The digest that was found: given, or in a report.
fn found(verb: &Explain, printer: &Printer) -> Result<Digest384, Failure> {
    let path = match (&verb.digest, &verb.report) {
        (Some(digest), _) => return Ok(Digest384(digest.0)),
        (None, Some(path)) => path,
        (None, None) => {
            return Err(Failure::new(Outcome::Usage, "there is no digest to explain: give --digest or --report"));
        }
    };
    let bytes = std::fs::read(path).map_err(|error| Failure::file("reading", path, &error))?;
    let report = AttestationReport::parse(&bytes).map_err(|error| unusable(path, &error))?;
    printer.warning(format_args!(
        "the signature of {} was NOT verified: whoever wrote it chose the digest",
        path.display()
    ));
    Ok(Digest384(report.measurement))
}

/// A firmware that may have been launched.
struct Weighed {
    name: String,
    file: FirmwareFile,
    digest: Digest384,
    layout: SevLayout,
}

/// The image's own firmware first, then those that were named.
fn firmware(directory: &Path, manifest: &Manifest, verb: &Explain) -> Result<Vec<Weighed>, Failure> {
    let pins = inputs::pins()?;
    let mut files = vec![weigh::image_firmware(directory, manifest, artifact::FIRMWARE_SNP)?];
    for path in &verb.firmware {
        files.push(FirmwareFile::read(path)?);
    }
    let mut all = Vec::new();
    for file in files {
        let name = pins.find(&file.sha256).map_or_else(|| file.path.display().to_string(), |pin| pin.name.clone());
        let firmware = file.parse()?;
        let digest = firmware_digest(&firmware).map_err(|error| unusable(&file.path, &error))?;
        let layout = firmware.sev_layout().map_err(|error| unusable(&file.path, &error))?;
        all.push(Weighed { name, digest, layout, file });
    }
    Ok(all)
}

fn search(
    found: Digest384,
    firmware: &[Weighed],
    manifest: &Manifest,
    inputs: &LaunchInputs<'_>,
) -> Result<Option<Vec<Difference>>, Failure> {
    let sha256 = |name: &str| manifest.artifacts.get(name).map(|artifact| Digest256(artifact.sha256.0));
    let missing = || Failure::new(Outcome::InputMismatch, format!("the manifest of {} has no kernel", manifest.name));
    let candidates: Vec<Candidate<'_>> = firmware
        .iter()
        .map(|weighed| Candidate { name: &weighed.name, digest: weighed.digest, layout: &weighed.layout })
        .collect();
    let expected = Expected {
        firmware: &candidates,
        kernel: Some(Kernel {
            kernel: sha256(artifact::KERNEL).ok_or_else(missing)?,
            initrd: sha256(artifact::INITRD),
            command_line: manifest.command_line.as_bytes(),
        }),
        vcpu: inputs.vcpu,
        vcpus: inputs.vcpus,
        profile: &profile::QEMU_KVM,
        max_vcpus: spec::vm::MAX_VCPUS,
    };
    Ok(explain(found, &expected))
}

fn tell(
    found: Digest384,
    explained: Option<Vec<Difference>>,
    wanted: Wanted,
    printer: &Printer,
) -> Result<u8, Failure> {
    let Some(differences) = explained else {
        return Err(Failure::new(
            Outcome::Refused,
            format!("no neighbour matches: {found} is not {}", wanted.launch_digest),
        )
        .with_hint("another kernel, initrd or root file system, or firmware that was not given with --firmware"));
    };
    let vcpus = wanted.vcpus;
    printer.line(format_args!(
        "expected  {}  ({vcpus} vCPUs, {} ({:#x}), sev_features {:#x})",
        wanted.launch_digest, wanted.cpu, wanted.cpu_signature, wanted.sev_features
    ));
    printer.line(format_args!("found     {found}"));
    if differences.is_empty() {
        printer.line("as expected");
    }
    for difference in &differences {
        printer.line(format_args!("because   {difference}"));
    }
    printer.value(&Answer {
        found: found.to_string(),
        authenticity_verified: false,
        expected: wanted,
        matches: differences.is_empty(),
        differences: differences.iter().map(value).collect(),
    });
    Ok(0)
}

/// A difference for machines: the input, what it was, and the words for people.
fn value(difference: &Difference) -> serde_json::Value {
    let (input, found) = match difference {
        Difference::Firmware(name) => ("firmware", json!(name)),
        Difference::KernelHashesOff => ("kernel_hashes", json!(false)),
        Difference::NoInitrd => ("initrd", json!(null)),
        Difference::CommandLine { found, .. } => ("cmdline", json!(String::from_utf8_lossy(found))),
        Difference::Profile(name) => ("profile", json!(name)),
        Difference::SevFeatures(features) => ("sev_features", json!(features)),
        Difference::Cpu { signature, .. } => ("cpu_signature", json!(signature.0)),
        Difference::Vcpus(count) => ("vcpus", json!(count)),
    };
    json!({ "input": input, "found": found, "text": difference.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_keys_that_machines_can_rely_on() {
        assert_eq!(value(&Difference::Vcpus(4)), json!({ "input": "vcpus", "found": 4, "text": "there are 4 vCPUs" }));
        let line = Difference::CommandLine { how: "with a newline at its end", found: b"quiet\n".to_vec() };
        assert_eq!(value(&line)["input"], "cmdline");
        assert_eq!(value(&line)["found"], "quiet\n");
    }
}
