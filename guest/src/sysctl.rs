//! Kernel settings that keep what the host and workloads can reach small, made before anything else happens.
//!
//! They are of this program and not of the command line, so that each stands beside its reason. What a kernel does not have
//! needs no closing: a setting that is not there is passed over, one that cannot be made stops the boot.

use std::io::ErrorKind;
use std::path::Path;

use crate::failure::{Failure, OrFail as _, Stage};

const DIRECTORY: &str = "/proc/sys";

/// Path below `/proc/sys`, value, and why (Linux Documentation/admin-guide/sysctl).
const SETTINGS: [(&str, &str, &str); 17] = [
    ("kernel/sysrq", "0", "a break on the serial line and a key are orders of the host"),
    ("kernel/kexec_load_disabled", "1", "another kernel would not be the measured one"),
    ("kernel/modprobe", "", "nothing loads a module because somebody asked for what it does"),
    (
        "kernel/core_pattern",
        "/dev/null",
        "memory of a process that died is on no disk, and no helper is started for it",
    ),
    ("kernel/kptr_restrict", "2", "the kernel's addresses are in no file"),
    ("kernel/dmesg_restrict", "1", "the kernel's messages are for the first process"),
    ("kernel/perf_event_paranoid", "3", "counters of the processor tell of others' secrets"),
    ("kernel/unprivileged_bpf_disabled", "1", "a verifier is no border between a workload and the kernel"),
    ("net/core/bpf_jit_harden", "2", "what workloads write in BPF programs is not code of the kernel's as it stands"),
    ("kernel/yama/ptrace_scope", "2", "a process does not read its neighbours"),
    ("vm/unprivileged_userfaultfd", "0", "it stops the kernel where a race is won"),
    ("dev/tty/ldisc_autoload", "0", "line disciplines are old code that a workload could call up"),
    ("dev/tty/legacy_tiocsti", "0", "nobody types on another's terminal"),
    ("fs/suid_dumpable", "0", "programs with more rights than their caller leave no memory behind"),
    ("fs/protected_fifos", "2", "a file of another in a shared directory is not what it seems"),
    ("fs/protected_regular", "2", "the same"),
    ("fs/protected_symlinks", "1", "the same"),
];

/// Makes all settings that this kernel has.
pub(crate) fn harden() -> Result<(), Failure> {
    harden_in(Path::new(DIRECTORY))
}

fn harden_in(directory: &Path) -> Result<(), Failure> {
    for (name, value, _) in SETTINGS {
        // Opened for writing and not created: a path that is not there is not made where this is tried out.
        match std::fs::OpenOptions::new().write(true).open(directory.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            file => file
                .and_then(|mut file| std::io::Write::write_all(&mut file, format!("{value}\n").as_bytes()))
                .or_fail_doing(Stage::Start, format_args!("setting {name}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_set_and_what_is_not_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("kernel")).unwrap();
        let file = directory.path().join("kernel/sysrq");
        std::fs::write(&file, "").unwrap();
        harden_in(directory.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "0\n");
        assert!(!directory.path().join("kernel/kptr_restrict").exists());
    }

    #[test]
    fn a_setting_that_cannot_be_made_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("kernel/sysrq")).unwrap();
        let failure = harden_in(directory.path()).unwrap_err();
        assert!(failure.reason.starts_with("setting kernel/sysrq: "), "{failure}");
    }
}
