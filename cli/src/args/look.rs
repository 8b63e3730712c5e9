//! Words of the verbs that look into images.

use std::path::PathBuf;

use clap::Args;
use measure::uefi::load_option::PciSlot;

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The image directory
    pub(crate) image: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// An image directory
    pub(crate) before: PathBuf,
    /// Another one
    pub(crate) after: PathBuf,
    #[command(flatten)]
    pub(crate) tpm: DiffTpm,
    // For the RTMR0 of shapes that one of the manifests does not have.
    #[command(flatten)]
    pub(crate) qemu: super::QemuChoice,
}

/// The machine whose PCRs are compared, which is no part of an image.
#[derive(Debug, Args)]
pub(crate) struct DiffTpm {
    /// Compare PCRs, too, of a machine with this firmware code and an emulated TPM, as `measure tpm` predicts them
    #[arg(long, value_name = "FILE", requires_all = ["tpm_variables", "tpm_fw_cfg"])]
    pub(crate) tpm_firmware: Option<PathBuf>,
    /// The variables that the firmware starts with
    #[arg(long, value_name = "FILE", requires = "tpm_firmware")]
    pub(crate) tpm_variables: Option<PathBuf>,
    /// What QEMU gives the firmware: the files of fw_cfg, each at its name or at NAME/raw
    #[arg(long, value_name = "DIR", requires = "tpm_firmware")]
    pub(crate) tpm_fw_cfg: Option<PathBuf>,
    /// The firmware starts the images' disks, a virtio disk at this place on PCI bus 0, such as 05.0 [default: their kernels, directly]
    #[arg(long, value_name = "DEVICE.FUNCTION", value_parser = super::parse_pci_slot, requires = "tpm_firmware")]
    pub(crate) tpm_disk_at: Option<PciSlot>,
}

/// `bullion build --verify` runs this as another process.
#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// The number that the user has in the build's user namespace
    #[arg(long)]
    pub(crate) uid: u32,
    /// The host name in its UTS namespace
    #[arg(long)]
    pub(crate) host_name: String,
    /// The component that made the guest binary, as the manifest has it
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) build: super::Build,
}
