//! The GPUs that the configuration names: counted before anything else is done, so that a relying party who knows the
//! configuration knows how many there are. Whether they are genuine, and in which mode, only their own reports can say.

use std::fs;
use std::path::Path;

use spec::gpus::Gpus;

/// NVIDIA's PCI vendor number, as sysfs writes it.
const NVIDIA: &str = "0x10de";

/// Compares what is on the PCI bus with what the configuration names. `sysfs` is where sysfs is mounted.
pub(crate) fn check(expected: &Gpus, sysfs: &Path) -> Result<(), String> {
    let (gpus, switches) = count(&sysfs.join("bus/pci/devices")).map_err(|error| format!("PCI devices: {error}"))?;
    if (gpus, switches) == (expected.count, expected.switches) {
        return Ok(());
    }
    Err(format!(
        "there are {gpus} GPUs and {switches} NVSwitches, the configuration names {} and {}",
        expected.count, expected.switches
    ))
}

/// How many GPUs (VGA and 3D controllers) and NVSwitches (bridges of the subclass "other") NVIDIA has on the bus.
fn count(devices: &Path) -> std::io::Result<(u32, u32)> {
    let (mut gpus, mut switches) = (0, 0);
    for entry in fs::read_dir(devices)? {
        let path = entry?.path();
        if fs::read_to_string(path.join("vendor"))?.trim() != NVIDIA {
            continue;
        }
        match fs::read_to_string(path.join("class"))?.trim().get(..6) {
            Some("0x0300" | "0x0302") => gpus += 1,
            Some("0x0680") => switches += 1,
            _ => {}
        }
    }
    Ok((gpus, switches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_bus_is_what_the_configuration_names() {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().join("bus/pci/devices");
        fs::create_dir_all(&devices).unwrap();
        let expected = |count, switches| Gpus { count, switches, ..Gpus::default() };
        let add = |name: &str, vendor: &str, class: &str| {
            fs::create_dir(devices.join(name)).unwrap();
            fs::write(devices.join(name).join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(devices.join(name).join("class"), format!("{class}\n")).unwrap();
        };
        assert!(check(&expected(1, 0), root.path()).unwrap_err().starts_with("there are 0 GPUs and 0 NVSwitches"));
        add("0000:01:00.0", "0x10de", "0x030200");
        add("0000:01:00.1", "0x10de", "0x040300");
        add("0000:02:00.0", "0x10de", "0x060400");
        add("0000:03:00.0", "0x1af4", "0x030000");
        assert_eq!(check(&expected(1, 0), root.path()), Ok(()));
        add("0000:04:00.0", "0x10de", "0x068000");
        let text = "there are 1 GPUs and 1 NVSwitches, the configuration names 1 and 0";
        assert_eq!(check(&expected(1, 0), root.path()), Err(text.to_owned()));
    }
}
