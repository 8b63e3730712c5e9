//! `bullion explain`: which input is not as expected when a measurement is not. One file here a kind of evidence; this one
//! finds out what there is to compare.

mod answer;
mod log;
mod snp;
mod tdx;
mod text;

use std::path::{Path, PathBuf};

use measure::Digest384;
use spec::Outcome;
use spec::manifest::Manifest;
use spec::vm::Vm;
use store::Image;

use crate::args::{Arguments, Explain};
use crate::evidence_file::{Content, EvidenceFile, MAX_BYTES};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;
use crate::weigh;

use answer::{Answer, Subject};

/// What the evidence is compared with.
enum Against {
    /// What an image measures.
    Image(Box<Expected>),
    /// Evidence of another launch, which the caller trusts.
    Evidence(EvidenceFile),
}

/// An image, and the VM description that names it, if one does.
struct Expected {
    /// Where the artifacts are; of a manifest alone, some or all may be missing.
    directory: PathBuf,
    manifest: Manifest,
    vm: Option<Vm>,
}

pub(crate) fn run(arguments: &Arguments, verb: &Explain, printer: &Printer) -> Result<u8, Failure> {
    let against = against(&verb.against)?;
    let evidence = match (&verb.evidence, verb.digest) {
        (Some(path), _) => EvidenceFile::read(path)?,
        (None, Some(digest)) => return snp_digest(verb, Digest384(digest.0), against, printer),
        (None, None) => return Err(Failure::new(Outcome::Usage, "there is nothing to explain: name a file")),
    };
    if !matches!(evidence.content, Content::EventLog(_)) {
        let file = evidence.path.display();
        printer.warning(format_args!("the signature of {file} was NOT verified: whoever wrote it chose its values"));
    }
    if verb.eventlog.is_some() && !matches!(evidence.content, Content::Tdx(_)) {
        return Err(Failure::new(
            Outcome::Usage,
            "--eventlog goes with a TDX quote: it is the log behind its registers",
        ));
    }
    let subject = Subject { file: Some(evidence.path.clone()), kind: evidence.kind() };
    match (&evidence.content, against) {
        (Content::EventLog(bytes), Against::Image(expected)) => {
            let store = inputs::open_store(arguments)?;
            let mut context = tdx::Context::new(verb, &expected, &store, printer)?;
            tdx::log(&mut context, &evidence.path, bytes, Answer::new(subject, verb), printer)
        }
        (Content::Tdx(measurement), Against::Image(expected)) => {
            let store = inputs::open_store(arguments)?;
            let mut context = tdx::Context::new(verb, &expected, &store, printer)?;
            tdx::quote(&mut context, measurement, &expected, Answer::new(subject, verb), printer)
        }
        (Content::Snp(report), Against::Image(expected)) => {
            let found = snp::Found { digest: Digest384(report.measurement), report: Some(report) };
            snp::explain(verb, &found, &expected, subject, printer)
        }
        (_, Against::Evidence(other)) => log::compare(&evidence, &other, Answer::new(subject, verb), printer),
    }
}

fn snp_digest(verb: &Explain, digest: Digest384, against: Against, printer: &Printer) -> Result<u8, Failure> {
    let Against::Image(expected) = against else {
        return Err(Failure::new(Outcome::Usage, "a launch digest is explained against an image, a VM or a manifest"));
    };
    let subject = Subject { file: None, kind: "SNP launch digest" };
    snp::explain(verb, &snp::Found { digest, report: None }, &expected, subject, printer)
}

/// An image directory is checked against its manifest; of a manifest alone, only what is used of the files beside it.
fn against(path: &Path) -> Result<Against, Failure> {
    if path.is_dir() {
        return image(path.to_owned(), None);
    }
    if let Ok(evidence) = EvidenceFile::read(path) {
        return Ok(Against::Evidence(evidence));
    }
    let bytes = inputs::read_file(path, MAX_BYTES, "a manifest")?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        let manifest = Manifest::parse(&path.display().to_string(), &bytes)?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok(Against::Image(Box::new(Expected { directory, manifest, vm: None })));
    }
    let (vm, directory) = inputs::vm(path)?;
    image(directory, Some(vm))
}

fn image(directory: PathBuf, vm: Option<Vm>) -> Result<Against, Failure> {
    let manifest = Image::open(&directory)?.manifest;
    store::verify(&directory, &manifest)?;
    Ok(Against::Image(Box::new(Expected { directory, manifest, vm })))
}

/// Larger than any kernel, initial RAM disk or firmware that is compared.
const MAX_CANDIDATE_BYTES: u64 = 1 << 30;

/// A file that may have been launched instead of the expected one.
struct Candidate {
    name: String,
    bytes: Vec<u8>,
}

fn candidates(paths: &[PathBuf]) -> Result<Vec<Candidate>, Failure> {
    let read = |path: &PathBuf| {
        let bytes = inputs::read_file(path, MAX_CANDIDATE_BYTES, "what is launched")?;
        Ok(Candidate { name: path.display().to_string(), bytes })
    };
    paths.iter().map(read).collect()
}

/// Refuses a TEE that the VM description does not have.
fn check_tee(expected: &Expected, wanted: spec::Tee, what: &str) -> Result<(), Failure> {
    match expected.vm.as_ref().filter(|vm| vm.tee != wanted) {
        Some(vm) => {
            Err(Failure::new(Outcome::Usage, format!("{} is launched with tee = \"{}\": {what}", vm.name, vm.tee)))
        }
        None => Ok(()),
    }
}

/// The number of vCPUs that is expected, where one is.
fn vcpus(verb: &Explain, expected: &Expected) -> Result<Option<u32>, Failure> {
    let vcpus = verb.vcpus.or(expected.vm.as_ref().map(|vm| vm.vcpus));
    vcpus.map_or(Ok(()), |vcpus| weigh::check_vcpus(&[vcpus]))?;
    Ok(vcpus)
}
