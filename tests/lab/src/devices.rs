//! The PCI devices of a server, each behind a root port of its own and so in an IOMMU group of its own, but for those that share
//! a bridge.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::model::Model;
use crate::parts::Parts;

/// A device of a server.
#[derive(Clone, Debug)]
pub enum Device {
    /// An NVMe drive of 64 MiB, empty at first.
    Nvme,
    /// QEMU's device for driver exercises, 1234:11e8.
    Edu,
    /// Its test device (1b36:0005) and a virtio random number generator, which has a driver, behind one conventional bridge: one
    /// IOMMU group.
    Pair,
    /// A modelled GPU or NVSwitch: what `fakegpu` is started with, without the socket.
    Gpu(Vec<String>),
    /// The same, and behind the same port, so that a bus reset reaches it too, a function that is none of its own: an `Edu`.
    GpuInCompany(Vec<String>),
}

impl Device {
    /// A modelled device: its name, and further words for `fakegpu`.
    pub fn gpu(words: &str) -> Self {
        Self::Gpu(words.split(' ').map(str::to_owned).collect())
    }

    /// A modelled device without a fault that has company behind its port.
    pub fn gpu_in_company(name: &str) -> Self {
        Self::GpuInCompany(vec![name.to_owned()])
    }

    /// The model's words, where it is one.
    fn model(&self) -> Option<&[String]> {
        match self {
            Self::Gpu(words) | Self::GpuInCompany(words) => Some(words),
            Self::Nvme | Self::Edu | Self::Pair => None,
        }
    }
}

/// Starts the processes behind the devices that have one.
pub(crate) fn start(parts: &Parts, directory: &Path, devices: &[Device]) -> Vec<Model> {
    let words = devices.iter().filter_map(Device::model).enumerate();
    words.map(|(index, words)| Model::start(&parts.fakegpu, directory, index, words)).collect()
}

/// Adds the devices to QEMU's command line; `models` are those that were started for them.
pub(crate) fn add(qemu: &mut Command, directory: &Path, devices: &[Device], models: &[Model]) {
    let mut models = models.iter();
    for (index, device) in devices.iter().enumerate() {
        // Of a faster port the kernel awaits an active link after a reset, which QEMU does not show for models.
        let speed = if device.model().is_some() { "x-speed=2_5," } else { "" };
        qemu.args(["-device", &format!("pcie-root-port,{speed}id=rp{index},chassis={index},slot={index}")]);
        match device {
            Device::Nvme => {
                let disk = directory.join(format!("nvme{index}"));
                if !disk.exists() {
                    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
                }
                qemu.args(["-drive", &format!("if=none,id=nvme{index},format=raw,file={}", disk.display())]);
                qemu.args(["-device", &format!("nvme,drive=nvme{index},serial=lab-nvme-{index},bus=rp{index}")]);
            }
            Device::Edu => {
                qemu.args(["-device", &format!("edu,bus=rp{index}")]);
            }
            Device::Pair => {
                qemu.args(["-device", &format!("pcie-pci-bridge,id=bridge{index},bus=rp{index}")]);
                qemu.args(["-device", &format!("pci-testdev,bus=bridge{index},addr=1")]);
                qemu.args(["-device", &format!("virtio-rng-pci,bus=bridge{index},addr=2")]);
            }
            Device::Gpu(_) | Device::GpuInCompany(_) => {
                let has_company = matches!(device, Device::GpuInCompany(_));
                if let Some(model) = models.next() {
                    let socket = json!({ "type": "unix", "path": model.socket.to_str().unwrap() });
                    let port = format!("rp{index}");
                    let gpu = json!({
                        "driver": "vfio-user-pci", "bus": port, "addr": "0x0.0", "multifunction": has_company, "socket": socket
                    });
                    qemu.args(["-device", &gpu.to_string()]);
                }
                if has_company {
                    qemu.args(["-device", &format!("edu,bus=rp{index},addr=0x0.1")]);
                }
            }
        }
    }
}
