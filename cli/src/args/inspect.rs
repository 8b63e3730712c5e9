//! The verbs that look into what others made: firmware, event logs, digests and reports.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::{QemuChoice, parse_sha384, parse_u32, parse_u64};

#[derive(Debug, Args)]
pub(crate) struct EventLog {
    #[command(subcommand)]
    pub(crate) action: EventLogAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventLogAction {
    /// List the events of a log
    ///
    /// A log is a claim: it counts only where it replays to registers that hardware signed, and the data of an event only where
    /// its digest is that of the data. Neither the registers nor a signature are looked at here.
    Show(LogFile),
    /// Compute the registers that a log leads to: RTMRs of a TDX guest's log, PCRs of a TPM's
    ///
    /// A log is a claim: what counts is that it leads to registers that hardware signed. With --quote the values are compared
    /// with those in a quote, whose own signature is not looked at here. Exit code 6 where a register differs.
    Replay(ReplayLog),
}

#[derive(Debug, Args)]
pub(crate) struct ReplayLog {
    #[command(flatten)]
    pub(crate) log: LogFile,
    /// Compare with the RTMRs of this TDX quote or TDREPORT of the same guest
    #[arg(long, value_name = "QUOTE")]
    pub(crate) quote: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LogFile {
    /// The log as firmware keeps it, such as /sys/firmware/acpi/tables/data/CCEL or
    /// /sys/kernel/security/tpm0/binary_bios_measurements
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Refuse what is otherwise read over and reported: damage, missing digests, more separators than firmware makes
    #[arg(long)]
    pub(crate) strict: bool,
    /// The log is of firmware of before edk2 202411, which makes two separators in RTMR0
    #[arg(long)]
    pub(crate) edk2_before_202411: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Firmware {
    #[command(subcommand)]
    pub(crate) action: FirmwareAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FirmwareAction {
    /// Print what a firmware image says to a VMM, its variables, and what is known about it
    Show {
        /// The firmware image
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print what an entry of firmware/pins.toml has of the image, in the words of that file, and nothing else
        #[arg(long, conflicts_with = "json")]
        pin: bool,
    },
    /// Make a firmware image of another one, with the same result everywhere
    ///
    /// The variable store is rewritten and everything else stays as it is. MRTD is the same where the store is not measured
    /// into it, as in every edk2 build so far; RTMR0 and SNP launch digests change.
    Derive(Derive),
}

#[derive(Debug, Args)]
pub(crate) struct Derive {
    /// The firmware image
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where the new image is written
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// Leave PK, KEK, db and dbx out of the variable store: Secure Boot then starts any kernel
    #[arg(long, required = true)]
    pub(crate) without_keys: bool,
    /// Replace a file that is already there
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("found").args(["evidence", "digest"]).required(true))]
pub(crate) struct Explain {
    /// What was found: a TD's event log (CCEL), TDX quote or TDREPORT, or an SNP attestation report; binary, or in hex. Which
    /// it is, is seen from its content. No signature is verified
    #[arg(value_name = "EVIDENCE")]
    pub(crate) evidence: Option<PathBuf>,
    /// An SNP launch digest instead of a report
    #[arg(long, value_name = "HEX", value_parser = parse_sha384)]
    pub(crate) digest: Option<spec::Sha384Digest>,
    /// What was meant to be launched: an image directory, vm.toml or manifest.json; or the log or quote of a boot that is
    /// trusted
    #[arg(long, value_name = "IMAGE_OR_VM_OR_MANIFEST")]
    pub(crate) against: PathBuf,
    /// The event log behind a quote: it names the event, where it replays to the quote's registers
    #[arg(long, value_name = "FILE")]
    pub(crate) eventlog: Option<PathBuf>,
    /// The expected number of vCPUs [default: that of the vm.toml, else the manifest's]
    #[arg(long, value_name = "N")]
    pub(crate) vcpus: Option<u32>,
    /// The expected CPU model (SNP) [default: that of the vm.toml, else the manifest's]
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// The expected CPU signature instead of a model (SNP)
    #[arg(long, value_name = "HEX", value_parser = parse_u32, conflicts_with = "cpu")]
    pub(crate) cpu_signature: Option<u32>,
    /// The expected SEV_FEATURES (SNP)
    #[arg(long, value_name = "HEX", value_parser = parse_u64, default_value = "0x1")]
    pub(crate) sev_features: u64,
    /// The expected memory size, such as 2GiB (TDX) [default: that of the vm.toml]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<spec::size::Size>,
    // For RTMR0.
    #[command(flatten)]
    pub(crate) qemu: QemuChoice,
    /// Tables that firmware should have got (TDX), instead of asking QEMU: a directory like a running guest's
    /// /sys/firmware/qemu_fw_cfg/by_name
    #[arg(long, value_name = "DIR", conflicts_with_all = ["qemu", "vmm"])]
    pub(crate) acpi: Option<PathBuf>,
    /// Firmware that may have been launched instead of the image's; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: Vec<PathBuf>,
    /// A kernel that may have been launched instead of the image's; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Vec<PathBuf>,
    /// An initrd that may have been launched instead of the image's; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Vec<PathBuf>,
    /// A command line that may have been launched instead of the image's, such as /proc/cmdline of the guest says; may be
    /// repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: Vec<String>,
}
