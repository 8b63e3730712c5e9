//! `bullion measure snp`: launch digests of files that no image holds together.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use measure::Digest256;
use measure::firmware::SevSection;
use measure::snp::{KernelHashes, Seed, Step, profile, seed::firmware_step, sev};
use serde::Serialize;
use spec::pins::Pins;
use spec::{Outcome, Sha256Digest};

use crate::args::{MeasureSnp, SevMode};
use crate::failure::Failure;
use crate::firmware::{FirmwareFile, FirmwareInput};
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::{self, SnpSubject, unusable};

#[derive(Serialize)]
struct Answer<'a> {
    inputs: Inputs<'a>,
    /// The launch digest after the firmware's pages.
    firmware_digest: String,
    sections: Vec<Section>,
    /// The launch digest before the first vCPU.
    seed: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snp: Vec<Digest>,
}

#[derive(Serialize)]
struct Inputs<'a> {
    firmware: FirmwareInput<'a>,
    kernel_hashes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<&'a Hashed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<&'a Hashed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<&'a str>,
    /// What the VMM does differently from others, by name.
    profile: &'static str,
}

/// A kernel or initrd: a file that was hashed, or a hash that was given.
#[derive(Serialize)]
struct Hashed {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    sha256: Sha256Digest,
}

#[derive(Serialize)]
struct Section {
    name: String,
    gpa: u32,
    size: u32,
}

#[derive(Serialize)]
struct Digest {
    vcpus: u32,
    cpu: String,
    cpu_signature: u32,
    sev_features: u64,
    launch_digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepRow>,
}

#[derive(Serialize)]
struct StepRow {
    name: String,
    gpa: u64,
    size: u64,
    page_type: String,
    digest: String,
}

pub(super) fn run(verb: &MeasureSnp, printer: &Printer) -> Result<u8, Failure> {
    weigh::check_vcpus(&verb.vcpus)?;
    let profile = verb.profile();
    let Read { file, first, pins, kernel, initrd } = read(verb)?;
    let firmware = file.parse()?;
    let kernel_hashes = kernel.as_ref().map(|kernel| hashes(kernel, initrd.as_ref(), verb)).transpose()?;
    let subject = SnpSubject { path: &file.path, firmware: &firmware, kernel_hashes };
    let inputs = Inputs {
        firmware: file.input(&pins),
        kernel_hashes: kernel_hashes.is_some(),
        kernel: kernel.as_ref(),
        initrd: initrd.as_ref(),
        cmdline: kernel.as_ref().map(|_| verb.cmdline.as_deref().unwrap_or_default()),
        profile: profile.name,
    };
    if verb.mode != SevMode::Snp {
        return older(&subject, inputs, verb, printer);
    }
    let layout = firmware.sev_layout().map_err(|error| unusable(&file.path, &error))?;
    let seed = Seed::new(first.digest, &layout, kernel_hashes.as_ref(), profile)
        .map_err(|error| unusable(&file.path, &error))?;
    let answer = Answer {
        inputs,
        firmware_digest: first.digest.to_string(),
        sections: layout.sections.iter().map(section).collect(),
        seed: seed.digest_before_vcpus().to_string(),
        snp: digests(&subject, first, &seed, verb)?,
    };
    show(&answer, printer);
    printer.value(&answer);
    Ok(0)
}

/// Launch digests of SEV and SEV-ES guests.
#[derive(Serialize)]
struct OlderAnswer<'a> {
    inputs: Inputs<'a>,
    sev: Vec<OlderDigest>,
}

#[derive(Serialize)]
struct OlderDigest {
    mode: &'static str,
    /// Of SEV-ES.
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_signature: Option<u32>,
    /// SHA-256.
    launch_digest: String,
}

fn older(subject: &SnpSubject<'_>, inputs: Inputs<'_>, verb: &MeasureSnp, printer: &Printer) -> Result<u8, Failure> {
    if verb.steps {
        return Err(Failure::new(Outcome::Usage, "--steps is for SEV-SNP: the digests of older guests have none"));
    }
    let of_vcpus = !verb.vcpus.is_empty() || verb.vmm.is_some();
    if verb.sev_features.is_some() || (verb.mode == SevMode::Sev && of_vcpus) {
        let why = "SEV measures no vCPU (--vcpus, --cpu, --vmm), and SEV_FEATURES of SEV-ES guests are zero";
        return Err(Failure::new(Outcome::Usage, why));
    }
    let unusable = |error: sev::SevError| unusable(subject.path, &error);
    let hashes = subject.kernel_hashes.as_ref();
    let mut digests = Vec::new();
    if verb.mode == SevMode::Sev {
        let digest = sev::launch_digest(subject.firmware, hashes).map_err(unusable)?;
        digests.push(OlderDigest { mode: "sev", vcpus: None, cpu_signature: None, launch_digest: digest.to_string() });
    }
    for cpu in verb.cpus().iter().filter(|_| verb.mode == SevMode::SevEs) {
        let vcpu = subject.inputs(cpu, verb.cpu_signature, 0)?.vcpu;
        for vcpus in &verb.vcpus {
            let digest = sev::es_launch_digest(subject.firmware, hashes, &vcpu, *vcpus, verb.profile());
            digests.push(OlderDigest {
                mode: "sev-es",
                vcpus: Some(*vcpus),
                cpu_signature: Some(vcpu.signature.0),
                launch_digest: digest.map_err(unusable)?.to_string(),
            });
        }
    }
    if digests.is_empty() {
        return Err(Failure::new(Outcome::Usage, "a SEV-ES guest is measured with its vCPUs: name them with --vcpus"));
    }
    show_inputs(&inputs, printer);
    for OlderDigest { mode, vcpus, launch_digest, .. } in &digests {
        let shape = vcpus.map(|vcpus| format!("  {vcpus:>3} vCPUs")).unwrap_or_default();
        printer.line(format_args!("{mode}{shape}  launch digest {launch_digest}"));
    }
    printer.value(&OlderAnswer { inputs, sev: digests });
    Ok(0)
}

/// What takes time, done.
struct Read {
    file: FirmwareFile,
    /// The firmware's pages.
    first: Step,
    pins: Pins,
    kernel: Option<Hashed>,
    initrd: Option<Hashed>,
}

/// Hashes firmware, kernel and initrd, all at the same time.
fn read(verb: &MeasureSnp) -> Result<Read, Failure> {
    thread::scope(|scope| {
        let kernel = scope.spawn(|| hashed(verb.kernel.as_deref(), verb.kernel_sha256));
        let initrd = scope.spawn(|| hashed(verb.initrd.as_deref(), verb.initrd_sha256));
        let pages = |file: FirmwareFile| {
            let first = firmware_step(&file.parse()?).map_err(|error| unusable(&file.path, &error))?;
            Ok::<_, Failure>((file, first))
        };
        let firmware = FirmwareFile::read(&verb.firmware).and_then(pages);
        let pins = inputs::pins();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Option<Hashed>, Failure>>| {
            thread.join().unwrap_or_else(|_| Err(Failure::new(Outcome::Internal, "a thread that hashes files failed")))
        };
        let (kernel, initrd) = (join(kernel), join(initrd));
        let (file, first) = firmware?;
        Ok(Read { file, first, pins: pins?, kernel: kernel?, initrd: initrd? })
    })
}

fn hashed(file: Option<&Path>, sha256: Option<Sha256Digest>) -> Result<Option<Hashed>, Failure> {
    let Some(path) = file else { return Ok(sha256.map(|sha256| Hashed { file: None, size: None, sha256 })) };
    let (size, sha256) = store::hash_file(path).map_err(|error: io::Error| Failure::file("reading", path, &error))?;
    Ok(Some(Hashed { file: Some(path.to_owned()), size: Some(size), sha256 }))
}

fn hashes(kernel: &Hashed, initrd: Option<&Hashed>, verb: &MeasureSnp) -> Result<KernelHashes, Failure> {
    let line = verb.cmdline.as_deref().unwrap_or_default();
    let initrd = initrd.map(|initrd| Digest256(initrd.sha256.0));
    KernelHashes::new(Digest256(kernel.sha256.0), initrd, line.as_bytes())
        .map_err(|error| Failure::new(Outcome::Usage, error.to_string()))
}

fn digests(subject: &SnpSubject<'_>, first: Step, seed: &Seed, verb: &MeasureSnp) -> Result<Vec<Digest>, Failure> {
    let mut digests = Vec::new();
    for cpu in &verb.cpus() {
        let vcpu = subject.inputs(cpu, verb.cpu_signature, verb.features())?.vcpu;
        let of_counts =
            weigh::launch_digests(seed, &vcpu, &verb.vcpus).map_err(|error| unusable(subject.path, &error))?;
        for (vcpus, digest) in verb.vcpus.iter().zip(of_counts) {
            let steps = if verb.steps {
                rows(first, seed.steps(&vcpu, *vcpus).map_err(|error| unusable(subject.path, &error))?)
            } else {
                Vec::new()
            };
            digests.push(Digest {
                vcpus: *vcpus,
                cpu: if verb.cpu_signature.is_some() { "-".to_owned() } else { cpu.clone() },
                cpu_signature: vcpu.signature.0,
                sev_features: verb.features(),
                launch_digest: digest.to_string(),
                steps,
            });
        }
    }
    Ok(digests)
}

fn rows(first: Step, steps: Vec<Step>) -> Vec<StepRow> {
    let row = |step: Step| StepRow {
        name: step.name.to_string(),
        gpa: step.gpa,
        size: step.size,
        page_type: step.page_type.to_string(),
        digest: step.digest.to_string(),
    };
    std::iter::once(first).chain(steps).map(row).collect()
}

fn section(section: &SevSection) -> Section {
    Section { name: section.section_type.to_string(), gpa: section.gpa, size: section.size }
}

fn show(answer: &Answer<'_>, printer: &Printer) {
    show_inputs(&answer.inputs, printer);
    show_digests(answer, printer);
}

fn show_inputs(inputs: &Inputs<'_>, printer: &Printer) {
    inputs.firmware.lines().iter().for_each(|line| printer.line(line));
    match (inputs.kernel, inputs.cmdline) {
        (Some(kernel), Some(line)) => {
            printer.line(format_args!("kernel    sha256 {}", kernel.sha256));
            let initrd = inputs.initrd.map_or("none".to_owned(), |initrd| format!("sha256 {}", initrd.sha256));
            printer.line(format_args!("initrd    {initrd}"));
            printer.line(format_args!("cmdline   {line:?}"));
        }
        _ => printer
            .line("kernel    not measured (kernel-hashes=off): the guest starts whatever kernel the host gives it"),
    }
    if inputs.profile != profile::QEMU_KVM.name {
        printer.line(format_args!("vmm       {}", inputs.profile));
    }
}

fn show_digests(answer: &Answer<'_>, printer: &Printer) {
    if answer.snp.is_empty() {
        for section in &answer.sections {
            printer.line(format_args!("section   {:#010x}  {:#8x} bytes  {}", section.gpa, section.size, section.name));
        }
        printer.line(format_args!("seed      {}  (launch digest before the first vCPU)", answer.seed));
    }
    for digest in &answer.snp {
        for step in &digest.steps {
            printer.line(format_args!(
                "  {:#014x}  {:#8x} bytes  {:<8}  {}  {}",
                step.gpa, step.size, step.page_type, step.digest, step.name
            ));
        }
        printer.line(format_args!(
            "snp  {:>3} vCPUs  {:<10} ({:#x})  sev_features {:#x}  launch digest {}",
            digest.vcpus, digest.cpu, digest.cpu_signature, digest.sev_features, digest.launch_digest
        ));
    }
}
