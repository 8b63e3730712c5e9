//! Which functions volumes may be on: NVMe controllers, and none whose disks say that they belong to something else.
//!
//! What a disk holds can be seen for as long as the host's own driver has the controller. Once it is vfio-pci's, nobody looks.

use spec::vm::PciDevice;

use super::{Line, Needs, Scope};
use crate::host::PciFunction;

/// A function that a volume is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// Its address.
    pub address: String,
    /// The volume's name.
    pub volume: String,
    /// Whether what its disks hold may be lost whatever it is.
    pub overwrite: bool,
}

impl Drive {
    /// What a description asks for, where a volume is on it.
    pub fn of(device: &PciDevice) -> Option<Self> {
        let volume = device.volume.clone()?;
        Some(Self { address: device.address.clone(), volume, overwrite: device.dangerously_overwrite })
    }

    /// What keeps its volume from being on `device`.
    fn refusal(&self, device: &PciFunction) -> Option<Line> {
        let volume = &self.volume;
        let refused = |found: String| Line::missing("volume", true, found);
        if !device.is_nvme() {
            let found =
                format!("{} [{}] is no NVMe controller (class {:06x})", device.address, device.id, device.class);
            let line = refused(found).because(format!("volume \"{volume}\" is to be on it"));
            return Some(line.remedy("name the function of an NVMe drive: class 010802 in `lspci -Dn`"));
        }
        if self.overwrite || device.labels.is_empty() {
            return None;
        }
        let found = format!("{} [{}]: {}", device.address, device.id, device.labels.join("; "));
        let line = refused(found).because(format!("scratch would destroy it: volume \"{volume}\" is to be on it"));
        Some(line.remedy("if it may be lost, say dangerously_overwrite = true in its [[host.pci]]"))
    }
}

/// What keeps a volume from being on the function, if one is to be.
pub(in crate::host) fn unfit(drives: &[Drive], device: &PciFunction) -> Option<Line> {
    drives.iter().find(|drive| drive.address == device.address)?.refusal(device)
}

/// A line for each function that a volume cannot be on, and for one that the guest would take for another volume's.
pub(super) fn lines(scope: &Scope<'_>, needs: &Needs) -> Vec<Line> {
    let passed: Vec<_> = needs.pci.iter().filter_map(|address| scope.facts.device(address)).collect();
    let mut lines: Vec<_> = passed.iter().filter_map(|device| unfit(&needs.drives, device)).collect();
    let is_of_volume = |device: &PciFunction| needs.drives.iter().any(|drive| drive.address == device.address);
    let other = passed.iter().find(|device| device.is_nvme() && !is_of_volume(device));
    lines.extend(other.filter(|_| !needs.drives.is_empty()).map(|device| {
        Line::missing(
            "volume",
            true,
            format!("{} [{}] is an NVMe controller that no volume is on", device.address, device.id),
        )
        .because("the guest takes every NVMe drive for that of a volume, and stops where there are more")
        .remedy("say which volume is on it, or leave it out")
    }));
    lines
}
