//! A SEV-SNP launch digest: there is one value and no log, so the inputs that people get wrong are varied, and what gives
//! the value that was found is named.

mod beside;

use evidence::snp::AttestationReport;
use measure::firmware::SevLayout;
use measure::snp::explain::{Alternatives, Candidate, Difference, Expected as Wanted, Kernel, explain as search};
use measure::snp::{CpuSignature, Seed, Vcpu, cpu, profile, seed::firmware_digest};
use measure::{Digest256, Digest384};
use serde_json::json;
use spec::manifest::{Manifest, SnpReference, artifact};
use spec::{Outcome, Sha256Digest, Tee};

use super::answer::{Answer, Register, Row, Subject};
use super::{Expected, candidates, check_tee, text, vcpus};
use crate::args::Explain;
use crate::failure::Failure;
use crate::firmware::{FirmwareFile, parts};
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::{self, unusable};

/// A digest, and the report that holds it, if one does.
pub(super) struct Found<'a> {
    pub(super) digest: Digest384,
    pub(super) report: Option<&'a AttestationReport>,
}

/// The shape that is expected.
struct Shape {
    vcpus: u32,
    vcpu: Vcpu,
}

pub(super) fn explain(
    verb: &Explain,
    found: &Found<'_>,
    expected: &Expected,
    subject: Subject,
    printer: &Printer,
) -> Result<u8, Failure> {
    check_tee(expected, Tee::Snp, "its measurements are those of no SEV-SNP guest")?;
    let mut answer = Answer::new(subject, verb);
    let shape = shape(verb, found.digest, expected)?;
    let firmware = firmware(expected, verb)?;
    let wanted = own_digest(&firmware, &shape, &expected.manifest)?;
    let wanted = wanted.or_else(|| reference(&shape, &expected.manifest).map(|known| Digest384(known.launch_digest.0)));
    let name = "MEASUREMENT";
    answer.registers.push(Register::new(name, found.digest.to_string(), wanted.map(|wanted| wanted.to_string())));
    if wanted != Some(found.digest) {
        neighbours(verb, found.digest, (&firmware, &shape), expected, &mut answer)?;
    }
    beside::firmware(&expected.manifest, &inputs::pins()?, &mut answer);
    let reference = reference(&shape, &expected.manifest);
    match found.report {
        Some(report) => {
            beside::guest(report, expected, &mut answer)?;
            beside::id_block(report, reference, &expected.manifest, &mut answer)?;
        }
        None => {
            answer.not_compared = vec!["POLICY", "HOST_DATA"];
            let is_signed = reference.is_some_and(|known| known.id_block.is_some());
            answer.not_compared.extend(is_signed.then_some(beside::OF_AN_ID_BLOCK).into_iter().flatten());
        }
    }
    let Shape { vcpus, vcpu } = shape;
    let (signature, features) = (vcpu.signature, vcpu.sev_features);
    printer.note(format_args!("expected: {vcpus} vCPUs, CPU signature {signature}, SEV_FEATURES {features:#x}"));
    answer.tell(printer)
}

/// The shape that was named; where none was, the one in the manifest that has this digest, else the first there.
fn shape(verb: &Explain, found: Digest384, expected: &Expected) -> Result<Shape, Failure> {
    let references = &expected.manifest.references.snp;
    let is_free = verb.cpu.is_none() && verb.cpu_signature.is_none() && expected.vm.is_none();
    let vcpus = vcpus(verb, expected)?;
    let known = references.iter().find(|known| known.launch_digest.0 == found.0).or(references.first());
    if let Some(known) = known.filter(|_| is_free && vcpus.is_none()) {
        let vcpu = Vcpu { signature: CpuSignature(known.cpu_signature), sev_features: known.sev_features };
        return Ok(Shape { vcpus: known.vcpus, vcpu });
    }
    let model = verb.cpu.clone().or(expected.vm.as_ref().map(|vm| vm.cpu_model().to_owned()));
    let signature = cpu::signature(model.as_deref().unwrap_or("EPYC-v4"), verb.cpu_signature.map(CpuSignature));
    let signature = signature.map_err(|error| {
        Failure::new(Outcome::Usage, error.to_string())
            .with_hint("name a model with --cpu, as QEMU names it, or a signature with --cpu-signature 0x...")
    })?;
    Ok(Shape { vcpus: vcpus.unwrap_or(1), vcpu: Vcpu { signature, sev_features: verb.sev_features } })
}

fn reference<'a>(shape: &Shape, manifest: &'a Manifest) -> Option<&'a SnpReference> {
    manifest.references.snp.iter().find(|known| {
        known.vcpus == shape.vcpus
            && known.cpu_signature == shape.vcpu.signature.0
            && known.sev_features == shape.vcpu.sev_features
    })
}

/// A firmware that may have been launched.
struct Weighed {
    name: String,
    digest: Digest384,
    layout: SevLayout,
    is_own: bool,
    is_named: bool,
}

/// The image's own firmware first, if it is there or pinned, then those that were named, then the others that are pinned.
fn firmware(expected: &Expected, verb: &Explain) -> Result<Vec<Weighed>, Failure> {
    let pins = inputs::pins()?;
    let own = expected.manifest.artifacts.get(artifact::FIRMWARE_SNP).map(|artifact| artifact.sha256);
    let mut files = Vec::new();
    if expected.directory.join(artifact::FIRMWARE_SNP).exists() {
        files.push(weigh::image_firmware(&expected.directory, &expected.manifest, artifact::FIRMWARE_SNP)?);
    }
    for path in &verb.firmware {
        files.push(FirmwareFile::read(path)?);
    }
    let mut all: Vec<Weighed> = Vec::new();
    for file in files {
        let name = pins.find(&file.sha256).map_or_else(|| file.path.display().to_string(), |pin| pin.name.clone());
        let firmware = file.parse()?;
        let digest = firmware_digest(&firmware).map_err(|error| unusable(&file.path, &error))?;
        let layout = firmware.sev_layout().map_err(|error| unusable(&file.path, &error))?;
        all.push(Weighed { name, digest, layout, is_own: own == Some(file.sha256), is_named: true });
    }
    for (pin, part) in pins.firmware.iter().filter_map(|pin| Some((pin, pin.snp.as_ref()?))) {
        let digest = Digest384(part.firmware_digest.0);
        if all.iter().any(|weighed| weighed.digest == digest) {
            continue;
        }
        let is_own = own == Some(pin.sha256);
        let layout = parts::layout(part);
        all.push(Weighed { name: pin.name.clone(), digest, layout, is_own, is_named: is_own });
    }
    all.sort_by_key(|weighed| !weighed.is_own);
    Ok(all)
}

/// The digest that the image's own firmware leads to; `None` where that is not there.
fn own_digest(firmware: &[Weighed], shape: &Shape, manifest: &Manifest) -> Result<Option<Digest384>, Failure> {
    let Some(own) = firmware.first().filter(|weighed| weighed.is_own) else { return Ok(None) };
    let hashes = weigh::kernel_hashes(manifest)?;
    let failed = |error: measure::snp::SeedError| Failure::new(Outcome::InputMismatch, error.to_string());
    let seed = Seed::new(own.digest, &own.layout, Some(&hashes), &profile::QEMU_KVM).map_err(failed)?;
    seed.digest(&shape.vcpu, shape.vcpus).map(Some).map_err(failed)
}

/// Searches, and says what was found, or that nothing was.
fn neighbours(
    verb: &Explain,
    found: Digest384,
    (firmware, shape): (&[Weighed], &Shape),
    expected: &Expected,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let manifest = &expected.manifest;
    if let Some(known) = manifest.references.snp.iter().find(|known| known.launch_digest.0 == found.0) {
        answer.differences.extend(shape_rows(shape, known));
        return Ok(());
    }
    if !firmware.iter().any(|weighed| weighed.is_own) {
        let reason =
            "the image's firmware is not there and not pinned, so no neighbours were searched: name it with --firmware";
        answer.reasons.push(reason.to_owned());
        return Ok(());
    }
    let found = searched(verb, found, (firmware, shape), manifest)?;
    let Some(differences) = found else {
        answer.reasons.push(
            "no neighbour matches: another kernel, initrd or root file system, or firmware that is not pinned; \
             name what may have been launched with --kernel, --initrd, --cmdline and --firmware"
                .to_owned(),
        );
        return Ok(());
    };
    answer.differences.extend(differences.iter().map(|difference| row(difference, &manifest.command_line)));
    Ok(())
}

/// What the manifest itself says about another shape.
fn shape_rows(shape: &Shape, known: &SnpReference) -> Vec<Row> {
    let mut differences = Vec::new();
    differences.extend((known.vcpus != shape.vcpus).then_some(Difference::Vcpus(known.vcpus)));
    let signature = CpuSignature(known.cpu_signature);
    let model = cpu::known().find(|(_, other)| *other == signature).map(|(name, _)| name);
    let other_cpu = signature != shape.vcpu.signature;
    differences.extend(other_cpu.then_some(Difference::Cpu { model, signature }));
    let other_features = known.sev_features != shape.vcpu.sev_features;
    differences.extend(other_features.then_some(Difference::SevFeatures(known.sev_features)));
    differences.iter().map(|difference| row(difference, "")).collect()
}

fn searched(
    verb: &Explain,
    found: Digest384,
    (firmware, shape): (&[Weighed], &Shape),
    manifest: &Manifest,
) -> Result<Option<Vec<Difference>>, Failure> {
    let sha256 = |name: &str| manifest.artifacts.get(name).map(|artifact| Digest256(artifact.sha256.0));
    let missing = || Failure::new(Outcome::InputMismatch, format!("the manifest of {} has no kernel", manifest.name));
    let firmware: Vec<Candidate<'_>> = firmware
        .iter()
        .map(|weighed| Candidate {
            name: &weighed.name,
            digest: weighed.digest,
            layout: &weighed.layout,
            is_named: weighed.is_named,
        })
        .collect();
    let (kernels, initrds) = (candidates(&verb.kernel)?, candidates(&verb.initrd)?);
    let hashed = |files: &'_ [super::Candidate]| -> Vec<Digest256> {
        files.iter().map(|file| Digest256(Sha256Digest::of(&file.bytes).0)).collect()
    };
    let named = |files: &'_ [super::Candidate]| files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    let (kernel_names, initrd_names) = (named(&kernels), named(&initrds));
    let pair = |names: &'_ [String], digests: Vec<Digest256>| names.iter().cloned().zip(digests).collect::<Vec<_>>();
    let (kernels, initrds) = (pair(&kernel_names, hashed(&kernels)), pair(&initrd_names, hashed(&initrds)));
    let kernels: Vec<_> = kernels.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
    let initrds: Vec<_> = initrds.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
    let lines: Vec<&[u8]> = verb.cmdline.iter().map(|line| line.as_bytes()).collect();
    let wanted = Wanted {
        firmware: &firmware,
        kernel: Some(Kernel {
            kernel: sha256(artifact::KERNEL).ok_or_else(missing)?,
            initrd: sha256(artifact::INITRD),
            command_line: manifest.command_line.as_bytes(),
        }),
        alternatives: Alternatives { kernels: &kernels, initrds: &initrds, command_lines: &lines },
        vcpu: shape.vcpu,
        vcpus: shape.vcpus,
        profile: &profile::QEMU_KVM,
        max_vcpus: spec::vm::MAX_VCPUS,
    };
    Ok(search(found, &wanted))
}

/// A difference for machines: the input, what it was, and the words for people.
fn row(difference: &Difference, command_line: &str) -> Row {
    let (input, found) = match difference {
        Difference::Firmware(name) => ("firmware", json!(name)),
        Difference::KernelHashesOff => ("kernel_hashes", json!(false)),
        Difference::Kernel(name) => ("kernel", json!(name)),
        Difference::Initrd(name) => ("initrd", json!(name)),
        Difference::NoInitrd => ("initrd", json!(null)),
        Difference::CommandLine { found, .. } => ("cmdline", json!(String::from_utf8_lossy(found))),
        Difference::Profile(name) => ("profile", json!(name)),
        Difference::SevFeatures(features) => ("sev_features", json!(features)),
        Difference::Cpu { signature, .. } => ("cpu_signature", json!(signature.0)),
        Difference::Vcpus(count) => ("vcpus", json!(count)),
    };
    let details = match difference {
        Difference::CommandLine { found, .. } => text::difference(command_line, &String::from_utf8_lossy(found)),
        _ => Vec::new(),
    };
    Row {
        input: input.to_owned(),
        kind: "differs",
        value: Some(found),
        text: difference.to_string(),
        details,
        ..Row::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_keys_that_machines_can_rely_on() {
        let vcpus = row(&Difference::Vcpus(4), "");
        assert_eq!(
            (vcpus.input.as_str(), vcpus.value, vcpus.text.as_str()),
            ("vcpus", Some(json!(4)), "there are 4 vCPUs")
        );
        let line = Difference::CommandLine { how: "with a newline at its end", found: b"quiet\n".to_vec() };
        let line = row(&line, "quiet");
        assert_eq!((line.input.as_str(), line.value), ("cmdline", Some(json!("quiet\n"))));
        assert_eq!(line.details.last().map(String::as_str), Some("only blanks differ"));
    }
}
