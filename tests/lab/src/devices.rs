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
}

impl Device {
    /// A modelled device without a fault.
    pub fn gpu(name: &str) -> Self {
        Self::Gpu(vec![name.to_owned()])
    }
}

/// Adds the devices to QEMU's command line; gives the processes behind those that have one.
pub(crate) fn add(qemu: &mut Command, parts: &Parts, directory: &Path, devices: &[Device]) -> Vec<Model> {
    let mut models = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        qemu.args(["-device", &format!("pcie-root-port,id=rp{index},chassis={index},slot={index}")]);
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
            Device::Gpu(words) => {
                let model = Model::start(&parts.fakegpu, directory, models.len(), words);
                let socket = json!({ "type": "unix", "path": model.socket.to_str().unwrap() });
                let device = json!({ "driver": "vfio-user-pci", "bus": format!("rp{index}"), "socket": socket });
                qemu.args(["-device", &device.to_string()]);
                models.push(model);
            }
        }
    }
    models
}
