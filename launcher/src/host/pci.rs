//! PCI functions as sysfs shows them: who they are, who drives them, and with whom they share an IOMMU group.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;

use super::usage::Usage;
use super::{names, read_trimmed};
use crate::gpu::product::{NVIDIA, Product, product};
use crate::gpu::resizable::{BarSize, ResizableBar};
use crate::volume::label;

/// One function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PciFunction {
    /// `0000:c1:00.0`.
    pub address: String,
    /// Vendor and device number, `10de:2330`.
    pub id: String,
    /// The subsystem's number, which tells boards of one chip apart.
    pub subsystem_id: Option<u16>,
    /// The class code, 24 bits.
    pub class: u32,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Its IOMMU group; none without an IOMMU.
    pub group: Option<u32>,
    /// The other functions of the group that are not bridges: whoever gets one of them gets all.
    pub peers: Vec<String>,
    /// The character device that iommufd knows it by, below `/dev/vfio/devices`.
    pub cdev: Option<String>,
    /// The NUMA node it is near.
    pub numa_node: Option<u32>,
    /// The sizes of its prefetchable 64-bit BARs, in bytes: those for which firmware needs room above 4 GiB.
    pub prefetchable_bars: Vec<u64>,
    /// The BARs that can have other sizes, with those.
    pub resizable_bars: Vec<ResizableBar>,
    /// How the kernel can reset it; empty where it cannot.
    pub reset_methods: String,
    /// The block devices behind it, without their partitions.
    pub disks: Vec<String>,
    /// What the disks behind an NVMe controller say they hold, a phrase each, where this user may look: file systems, partition tables.
    pub labels: Vec<String>,
    /// What the host uses it for, a phrase each: mounted disks, swap, addresses.
    pub uses: Vec<String>,
    /// The process that has it open by VFIO, as far as this user sees.
    pub held_by: Option<String>,
}

impl PciFunction {
    /// Whether this is a bridge, which is never passed to a guest. Bridges of the subclass "other" are devices: NVSwitches
    /// are of it (0x068000, which is not 0x0604).
    pub fn is_bridge(&self) -> bool {
        self.class >> 16 == 0x06 && self.class >> 8 != 0x0680
    }

    /// Whether it is an NVMe controller, as a guest's kernel takes it (PCI Code and ID Assignment Specification, 01h 08h 02h).
    pub fn is_nvme(&self) -> bool {
        self.class == 0x01_08_02
    }

    /// What it is among NVIDIA's devices that have confidential modes, whatever its class says.
    pub fn product(&self) -> Option<Product> {
        let (vendor, device) = self.id.split_once(':')?;
        let number = |text: &str| u16::from_str_radix(text, 16).ok();
        product(number(device)?, self.subsystem_id).filter(|_| number(vendor) == Some(NVIDIA))
    }
}

/// All functions below `root`, by address.
pub(super) fn read(root: &Path) -> Vec<PciFunction> {
    let directory = root.join("sys/bus/pci/devices");
    let usage = Usage::read(root);
    let mut functions: Vec<_> = names(&directory).into_iter().map(|name| function(&directory, &usage, name)).collect();
    for function in functions.iter_mut().filter(|function| function.is_nvme()) {
        function.labels = function.disks.iter().filter_map(|disk| label_of(root, disk)).collect();
    }
    let mut groups: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for function in functions.iter().filter(|function| !function.is_bridge()) {
        if let Some(group) = function.group {
            groups.entry(group).or_default().push(function.address.clone());
        }
    }
    for function in &mut functions {
        function.held_by = holder(root, function);
        let peers = function.group.and_then(|group| groups.get(&group)).into_iter().flatten();
        function.peers = peers.filter(|peer| **peer != function.address).cloned().collect();
    }
    functions
}

/// What a disk says it holds. One that cannot be read may hold anything.
fn label_of(root: &Path, disk: &str) -> Option<String> {
    let node =
        std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(root.join("dev").join(disk));
    match node.and_then(|node| label::find(&node)) {
        Ok(label) => label.map(|label| format!("{disk} holds {label}")),
        Err(error) => Some(format!("{disk} may hold anything, for it cannot be read: {error}")),
    }
}

/// Only what vfio-pci has is opened so; then all processes are looked at.
fn holder(root: &Path, function: &PciFunction) -> Option<String> {
    function.driver.as_deref().filter(|driver| *driver == "vfio-pci")?;
    let (sysfs, procfs) = (root.join("sys/bus/pci/devices").join(&function.address), root.join("proc"));
    crate::gpu::sysfs::holder(&sysfs, &procfs, function.driver.as_deref(), function.group)
}

fn function(directory: &Path, usage: &Usage, address: String) -> PciFunction {
    let path = directory.join(&address);
    let text = |name: &str| read_trimmed(&path.join(name)).unwrap_or_default();
    let number = |name: &str| u32::from_str_radix(text(name).trim_start_matches("0x"), 16).unwrap_or(0);
    let link = |name: &str| {
        let target = std::fs::read_link(path.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    PciFunction {
        id: format!("{:04x}:{:04x}", number("vendor"), number("device")),
        subsystem_id: u16::from_str_radix(text("subsystem_device").trim_start_matches("0x"), 16).ok(),
        class: number("class"),
        driver: link("driver"),
        group: link("iommu_group").and_then(|group| group.parse().ok()),
        peers: Vec::new(),
        cdev: names(&path.join("vfio-dev")).into_iter().next(),
        numa_node: text("numa_node").parse().ok(),
        prefetchable_bars: prefetchable_bars(&text("resource")),
        resizable_bars: resizable_bars(&text),
        reset_methods: text("reset_method"),
        disks: usage.disks_of(&address),
        labels: Vec::new(),
        uses: usage.of(&address),
        held_by: None,
        address,
    }
}

/// Sizes of BARs from `resource`: lines of start, end and flags, the first six of them BARs.
fn prefetchable_bars(text: &str) -> Vec<u64> {
    text.lines().take(6).filter_map(prefetchable_bar).collect()
}

fn prefetchable_bar(line: &str) -> Option<u64> {
    /// IORESOURCE_MEM_64, IORESOURCE_PREFETCH and IORESOURCE_MEM (Linux `include/linux/ioport.h`).
    const FLAGS: u64 = 0x10_2200;
    let mut words = line.split_whitespace().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    let (start, end, flags) = (words.next()??, words.next()??, words.next()??);
    let size = end.checked_sub(start)?.checked_add(1)?;
    (flags & FLAGS == FLAGS).then_some(size)
}

/// The prefetchable BARs with a file `resourceN_resize`, which holds a bit for each size (Linux
/// Documentation/ABI/testing/sysfs-bus-pci).
fn resizable_bars(text: &dyn Fn(&str) -> String) -> Vec<ResizableBar> {
    let resource = text("resource");
    let bar = |(bar, line): (u8, &str)| {
        let offered = u64::from_str_radix(&text(&format!("resource{bar}_resize")), 16).ok()?;
        Some(ResizableBar { bar, size: BarSize::of(prefetchable_bar(line)?)?, offered })
    };
    (0..6).zip(resource.lines()).filter_map(bar).collect()
}
