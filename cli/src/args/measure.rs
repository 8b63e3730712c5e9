//! `bullion measure`: of an image or VM, or of files by themselves.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use measure::shape::SnpShape;
use measure::snp::profile::{self, Profile};
use measure::uefi::load_option::PciSlot;

use super::{QemuChoice, TeeWord, parse_pci_slot, parse_sha256, parse_u32, parse_u64};

const USAGE: &str = "\
bullion measure [OPTIONS] <IMAGE_OR_VM>
       bullion measure snp --firmware <FILE> [OPTIONS]
       bullion measure tdx --firmware <FILE> [OPTIONS]
       bullion measure tpm --firmware <FILE> --kernel|--disk <FILE> [OPTIONS]";

const OF_FILES: &str = "\
`measure snp` and `measure tdx` need no image: they take firmware, kernel and initrd as files or by hash.
An image directory that is called snp or tdx is named ./snp or ./tdx.";

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, override_usage = USAGE, after_help = OF_FILES)]
pub(crate) struct Measure {
    /// An image directory or a vm.toml
    #[arg(required = true, value_name = "IMAGE_OR_VM")]
    pub(crate) subject: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shapes: Shapes,
    /// Predict the shapes of the recipe and of the manifest again, with this QEMU and what is known today, write them into the
    /// manifest, and show what moved. With --vcpus and --memory, TDX shapes of these are added
    #[arg(long, conflicts_with_all = ["tee", "cpu", "cpu_signature", "sev_features"])]
    pub(crate) write: bool,
    #[command(subcommand)]
    pub(crate) files: Option<MeasureFiles>,
}

// Which shapes of an image or a VM.
#[derive(Debug, Args)]
pub(crate) struct Shapes {
    /// The TEE to measure for [default: both, or the one of the vm.toml]
    #[arg(long)]
    pub(crate) tee: Option<TeeWord>,
    /// vCPU counts [default: those of the recipe or the vm.toml]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) vcpus: Vec<u32>,
    /// Memory sizes of TDX guests, such as 2GiB,16GiB [default: those of the recipe or the vm.toml]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) memory: Vec<spec::size::Size>,
    #[command(flatten)]
    pub(crate) qemu: QemuChoice,
    /// CPU models as QEMU names them [default: EPYC-v4, or the one of the vm.toml]
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    pub(crate) cpu: Vec<String>,
    /// A CPU signature (CPUID Fn0000_0001 EAX) instead of a model, such as 0xa10f11
    #[arg(long, value_name = "HEX", value_parser = parse_u32, conflicts_with = "cpu")]
    pub(crate) cpu_signature: Option<u32>,
    /// SEV_FEATURES of the VMSA [default: 0x1]
    #[arg(long, value_name = "HEX", value_parser = parse_u64)]
    pub(crate) sev_features: Option<u64>,
}

impl Shapes {
    /// The first option that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--tee", self.tee.is_some()),
            ("--vcpus", !self.vcpus.is_empty()),
            ("--memory", !self.memory.is_empty()),
            ("--qemu", self.qemu.qemu.is_some()),
            ("--vmm", self.qemu.vmm.is_some()),
            ("--cpu", !self.cpu.is_empty()),
            ("--cpu-signature", self.cpu_signature.is_some()),
            ("--sev-features", self.sev_features.is_some()),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum MeasureFiles {
    /// SEV-SNP launch digests of firmware and kernel files, as QEMU launches them on KVM
    ///
    /// With --firmware alone, prints what depends on nothing else: the sections, and the digest before the first vCPU. Without
    /// a kernel, kernel-hashes=off is measured: such a guest starts whatever kernel the host gives it.
    ///
    /// Whether the firmware compares kernel, initrd and command line with the measured hashes is not in its bytes: the line
    /// "pin" says what is known about it.
    Snp(MeasureSnp),
    /// MRTD and RTMRs of firmware and kernel files, as Bullion launches them
    ///
    /// MRTD depends on the firmware and on the order in which the VMM adds its pages, and on nothing else. RTMR1 and RTMR2 come
    /// from the kernel, its command line and the initrd; RTMR0 from the machine: QEMU is asked which tables it gives to firmware,
    /// which takes a second or two the first time. Each is printed where its inputs are given.
    ///
    /// RTMRs depend on which events the firmware measures, so they are predicted for pinned firmware only, and never guessed.
    Tdx(MeasureTdx),
    /// PCR 0 to 15 of a boot with an emulated TPM: a test of the prediction, not reference values
    ///
    /// The SHA-384 bank, from the same events as RTMRs, without PCR 10, which belongs to the kernel's IMA at run time. A TPM that QEMU emulates belongs to the host, which can put anything into
    /// it: these values show that predictions and firmware agree, and say nothing about a guest.
    ///
    /// Only for firmware whose pin is judged by an emulated log, and for Linux 6.9 and later.
    Tpm(MeasureTpm),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("a-kernel").args(["kernel", "kernel_sha256"]))]
pub(crate) struct MeasureSnp {
    /// The firmware image, code and variables in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: PathBuf,
    /// The kernel, as QEMU's -kernel gets it
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The SHA-256 of the kernel, instead of the file
    #[arg(long, value_name = "HEX", value_parser = parse_sha256)]
    pub(crate) kernel_sha256: Option<spec::Sha256Digest>,
    /// The initrd, as QEMU's -initrd gets it
    #[arg(long, value_name = "FILE", conflicts_with = "initrd_sha256", requires = "a-kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// The SHA-256 of the initrd, instead of the file
    #[arg(long, value_name = "HEX", value_parser = parse_sha256, requires = "a-kernel")]
    pub(crate) initrd_sha256: Option<spec::Sha256Digest>,
    /// The kernel command line, to the byte: a blank or newline at its end is measured [default: empty]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "a-kernel")]
    pub(crate) cmdline: Option<String>,
    /// vCPU counts, such as 1,2,4
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) vcpus: Vec<u32>,
    /// CPU models as QEMU names them [default: EPYC-v4]
    #[arg(long, value_name = "MODEL", value_delimiter = ',', requires = "vcpus")]
    pub(crate) cpu: Vec<String>,
    /// A CPU signature (CPUID Fn0000_0001 EAX) instead of a model, such as 0xa10f11
    #[arg(long, value_name = "HEX", value_parser = parse_u32, conflicts_with = "cpu", requires = "vcpus")]
    pub(crate) cpu_signature: Option<u32>,
    /// SEV_FEATURES of the VMSA; those of SEV-ES guests are zero [default: 0x1]
    #[arg(long, value_name = "HEX", value_parser = parse_u64)]
    pub(crate) sev_features: Option<u64>,
    /// The VMM and its generation: what it does with the first state of vCPUs, and with the firmware's sections [default: qemu-kvm, of sev-es
    /// qemu-kvm-no-fpu-sync, which is the VM type that QEMU has for it]
    #[arg(long, value_name = "NAME", value_parser = parse_vmm)]
    pub(crate) vmm: Option<&'static Profile>,
    /// What kind of guest: those of sev and sev-es are not launched by Bullion
    #[arg(long, value_enum, default_value = "snp")]
    pub(crate) mode: SevMode,
    /// Print every launched range of pages with the digest after it
    #[arg(long, requires = "vcpus")]
    pub(crate) steps: bool,
}

/// A kind of guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SevMode {
    /// SEV-SNP: a chain of SHA-384 over pages
    Snp,
    /// SEV-ES: SHA-256 over firmware, kernel hashes and vCPUs
    SevEs,
    /// SEV: SHA-256 over firmware and kernel hashes
    Sev,
}

impl MeasureSnp {
    /// The CPU models.
    pub(crate) fn cpus(&self) -> Vec<String> {
        if self.cpu.is_empty() { vec!["EPYC-v4".to_owned()] } else { self.cpu.clone() }
    }

    /// SEV_FEATURES of an SNP guest.
    pub(crate) fn features(&self) -> u64 {
        self.sev_features.unwrap_or(SnpShape::SNP_ACTIVE)
    }

    /// What the VMM does.
    pub(crate) fn profile(&self) -> &'static Profile {
        let default = if self.mode == SevMode::SevEs { &profile::QEMU_KVM_NO_FPU_SYNC } else { &profile::QEMU_KVM };
        self.vmm.unwrap_or(default)
    }
}

fn parse_vmm(name: &str) -> Result<&'static Profile, String> {
    Profile::named(name).ok_or_else(|| {
        let names: Vec<_> = profile::ALL.iter().map(|profile| profile.name).collect();
        format!("\"{name}\" is none of {}", names.join(", "))
    })
}

#[derive(Debug, Args)]
pub(crate) struct MeasureTdx {
    /// The firmware image, code and variables in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: PathBuf,
    /// All pages of a section are added, then all are measured, as Canonical's and Intel's QEMU trees around 8.2 do. Without
    /// it, each page is added and measured: QEMU since 10.1 on Linux since 6.16
    #[arg(long)]
    pub(crate) two_pass: bool,
    /// The kernel, a bzImage: predict RTMR1 and RTMR2
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// A disk with a unified kernel image around systemd-stub 257, which firmware starts instead: predict RTMR1 and RTMR2, and RTMR0
    /// as `boot = "disk"` launches it
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    pub(crate) disk: Option<PathBuf>,
    /// Where the disk, a virtio disk, is on PCI bus 0, such as 05.0, where the tables that are given with --acpi are of a machine
    /// with this disk alone and no boot order [default: what QEMU has firmware start]
    #[arg(long, value_name = "DEVICE.FUNCTION", value_parser = parse_pci_slot, requires_all = ["disk", "acpi"])]
    pub(crate) disk_at: Option<PciSlot>,
    /// The initrd
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel command line, to the byte [default: empty]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "kernel")]
    pub(crate) cmdline: Option<String>,
    /// How much memory the guest has, such as 2GiB: predict RTMR0
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<spec::size::Size>,
    /// How many vCPUs the guest has [default: 1]
    #[arg(long, value_name = "N", requires = "memory")]
    pub(crate) vcpus: Option<u32>,
    #[command(flatten)]
    pub(crate) qemu: QemuChoice,
    /// Tables that firmware got, instead of asking QEMU: a directory like a running guest's
    /// /sys/firmware/qemu_fw_cfg/by_name
    #[arg(long, value_name = "DIR", requires = "memory", conflicts_with_all = ["vcpus", "qemu", "vmm"])]
    pub(crate) acpi: Option<PathBuf>,
    /// Print every section with what MRTD would be if nothing followed, and every event
    #[arg(long)]
    pub(crate) steps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MeasureTpm {
    /// The firmware's code, as QEMU's first pflash gets it
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: PathBuf,
    /// The variables that it starts with, as QEMU's second pflash gets them
    #[arg(long, value_name = "FILE")]
    pub(crate) variables: PathBuf,
    /// What QEMU gives the firmware: the files of fw_cfg, each at its name or at NAME/raw
    #[arg(long, value_name = "DIR")]
    pub(crate) fw_cfg: PathBuf,
    /// The kernel, as QEMU's -kernel gets it: a bzImage, or a unified kernel image around systemd-stub 257
    #[arg(long, value_name = "FILE", required_unless_present = "disk")]
    pub(crate) kernel: Option<PathBuf>,
    /// A disk with such a unified kernel image, which firmware starts instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "cmdline"], requires = "disk_at")]
    pub(crate) disk: Option<PathBuf>,
    /// Where the disk, a virtio disk, is on PCI bus 0, such as 05.0
    #[arg(long, value_name = "DEVICE.FUNCTION", value_parser = parse_pci_slot, requires = "disk")]
    pub(crate) disk_at: Option<PciSlot>,
    /// The initrd, as QEMU's -initrd gets it
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel command line, to the byte [default: empty]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,
    /// Print every event
    #[arg(long)]
    pub(crate) steps: bool,
}
