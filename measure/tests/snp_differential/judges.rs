//! The two programs of others, each as a function from a case to a digest.

use std::io::{BufRead as _, BufReader, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ::sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use ::sev::measurement::vcpu_types::CpuType;
use ::sev::measurement::vmsa::{GuestFeatures, VMMType};

use super::generator::Case;
use super::shelf;

/// The VMMs that sev-snp-measure knows.
pub(crate) const VMMS: [&str; 3] = ["QEMU", "ec2", "gce"];

/// Signatures that crate `sev` can express, one for each of its kinds of CPU.
pub(crate) const SIGNATURES: [(u32, CpuType); 5] = [
    (0x80_0f12, CpuType::EpycV4),
    (0x83_0f10, CpuType::EpycRomeV2),
    (0xa0_0f11, CpuType::EpycMilanV2),
    (0xa1_0f10, CpuType::EpycGenoaV1),
    (0xb0_0f00, CpuType::EpycTurin),
];

/// Writes what both programs want as files.
pub(crate) fn write_files(case: &Case, image: &[u8], folder: &Path) {
    std::fs::write(folder.join("firmware"), image).unwrap();
    if let Some((kernel, initrd, _)) = &case.kernel {
        std::fs::write(folder.join("kernel"), kernel).unwrap();
        std::fs::write(folder.join("initrd"), initrd.as_deref().unwrap_or_default()).unwrap();
    }
}

/// By crate `sev` 8.0.0. Its panics are errors here.
pub(crate) fn crate_sev(case: &Case, folder: &Path) -> String {
    let with_initrd = case.kernel.as_ref().is_some_and(|(_, initrd, _)| initrd.is_some());
    let (_, vcpu_type) = SIGNATURES.into_iter().find(|(signature, _)| *signature == case.signature).unwrap();
    let digest = catch_unwind(AssertUnwindSafe(|| {
        snp_calc_launch_digest(SnpMeasurementArgs {
            vcpus: case.vcpus,
            vcpu_type,
            ovmf_file: folder.join("firmware"),
            guest_features: GuestFeatures(case.sev_features),
            kernel_file: case.kernel.as_ref().map(|_| folder.join("kernel")),
            initrd_file: with_initrd.then(|| folder.join("initrd")),
            append: case.kernel.as_ref().map(|(_, _, line)| line.as_str()),
            ovmf_hash_str: None,
            vmm_type: Some(if case.vmm == 0 { VMMType::QEMU } else { VMMType::EC2 }),
        })
    }));
    match digest {
        Ok(Ok(digest)) => digest.get_hex_ld(),
        Ok(Err(error)) => format!("error: {error}"),
        Err(_) => "error: it panicked".to_owned(),
    }
}

/// `sev-snp-measure` 0.0.13, in one process for all cases.
pub(crate) struct SevSnpMeasure {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl SevSnpMeasure {
    /// `None` (and a word why) where the tool is not there.
    pub(crate) fn start() -> Option<Self> {
        let program = shelf::tool("judge-python")?;
        let mut child = Command::new(program)
            .args(["-c", include_str!("batch.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, questions, answers })
    }

    /// The digest of a case whose files are in `folder`; `mode` is `snp`, `seves` or `sev`.
    pub(crate) fn ask(&mut self, mode: &str, case: &Case, folder: &Path) -> String {
        let path = |name: &str| folder.join(name).display().to_string();
        let (kernel, initrd, append) = match &case.kernel {
            Some((_, initrd, line)) => {
                (Some(path("kernel")), initrd.as_ref().map(|_| path("initrd")), Some(line.as_str()))
            }
            None => (None, None, None),
        };
        let question = serde_json::json!({
            "mode": mode, "vmm": VMMS[case.vmm], "vcpus": case.vcpus, "signature": case.signature,
            "sev_features": case.sev_features, "firmware": path("firmware"),
            "kernel": kernel, "initrd": initrd, "append": append,
        });
        writeln!(self.questions, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Drop for SevSnpMeasure {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
