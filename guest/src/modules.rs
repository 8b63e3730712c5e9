//! Loads kernel modules: from the initrd those of every boot, and those whose device or TEE is there; from the verified root
//! those that a workload needs.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use spec::Tee;

use crate::admission;
use crate::failure::{Failure, OrFail as _, Stage};
use crate::module_list::{self, ModuleList};

/// Where the initrd keeps the modules, decompressed, as `NAME.ko`.
const DIRECTORY: &str = "/modules";

/// Where the verified root keeps modules in the same form, with their list.
const ROOT_DIRECTORY: &str = "/usr/lib/bullion/modules";

/// The drivers of the TEEs answer ENODEV outside theirs, which is no failure: what lacks a report is told later. So does the
/// AES driver on a processor without AES, where the kernel's own takes its place.
const MAY_LACK_DEVICE: [&str; 3] = ["sev_guest", "tdx_guest", "aesni_intel"];

/// Loads the modules of every boot, then those for the devices and the TEE that are there.
pub(crate) fn load_all(tee: Tee) -> Result<(), Failure> {
    let text = std::fs::read_to_string(module_list::PATH).or_fail_doing(Stage::Modules, module_list::PATH)?;
    let list = module_list::parse(&text).or_fail(Stage::Modules)?;
    for name in load_order(&list, tee, &pci_classes()) {
        load(DIRECTORY, name)?;
    }
    Ok(())
}

/// Loads the module `name` for a device of the configuration, with what it needs. Where the list does not have it, it is built into the
/// kernel or missing, which shows when the device gets no driver.
pub(crate) fn load_for_device(name: &str) -> Result<(), Failure> {
    let text = std::fs::read_to_string(module_list::PATH).or_fail_doing(Stage::Modules, module_list::PATH)?;
    let list = module_list::parse(&text).or_fail(Stage::Modules)?;
    let of_device = list.device.iter().filter(|module| module.name == name);
    of_device.flat_map(|module| &module.load).try_for_each(|name| load(DIRECTORY, name))
}

/// The names of modules that drive GPUs begin so. Without a GPU the first of them fails, and the others with it.
const OF_GPUS: &str = "nvidia";

/// Loads what the root file system has for workloads, in the order of its list; what drives GPUs, where the configuration names some.
/// An image need not have any.
pub(crate) fn load_from_root(gpus: bool) -> Result<(), Failure> {
    let path = format!("{ROOT_DIRECTORY}/list");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.or_fail_doing(Stage::Modules, &path)?,
    };
    let list = module_list::parse(&text).or_fail_doing(Stage::Modules, &path)?;
    list.boot.iter().try_for_each(|name| match (name.starts_with(OF_GPUS), gpus) {
        (false, _) => load(ROOT_DIRECTORY, name),
        (true, true) => admission::while_probing(|| load(ROOT_DIRECTORY, name)),
        (true, false) => Ok(()),
    })
}

/// Closes the kernel to modules until the next boot. The kernel loads none by itself in this guest, which has no modprobe. One
/// that was made without modules has nothing to close.
pub(crate) fn load_no_more() -> Result<(), Failure> {
    let path = "/proc/sys/kernel/modules_disabled";
    match std::fs::write(path, "1") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !Path::new("/proc/modules").exists() => Ok(()),
        written => written.or_fail_doing(Stage::Modules, path),
    }
}

/// Everything to load, in order, each once.
fn load_order<'a>(list: &'a ModuleList, tee: Tee, pci_classes: &[u32]) -> Vec<&'a str> {
    let wanted = list.device.iter().filter(|module| is_wanted(&module.name, tee, pci_classes));
    let mut order: Vec<&str> = Vec::new();
    for name in list.boot.iter().chain(wanted.flat_map(|module| &module.load)) {
        if !order.contains(&name.as_str()) {
            order.push(name);
        }
    }
    order
}

/// Whether a device module has work to do. What is not named here waits for the code that needs it: `dm_crypt` for
/// volumes, `i6300esb` and `pvpanic_pci` for a configuration that names their devices.
fn is_wanted(name: &str, tee: Tee, pci_classes: &[u32]) -> bool {
    match name {
        // PCI Code and ID Assignment Specification: base class 01h, sub-class 08h, non-volatile memory.
        "nvme" => pci_classes.iter().any(|class| class >> 8 == 0x01_08),
        "sev_guest" => tee == Tee::Snp,
        "tdx_guest" => tee == Tee::Tdx,
        _ => false,
    }
}

/// The class codes (24 bits: base class, sub-class, interface) of all PCI devices. What cannot be read counts as not there.
fn pci_classes() -> Vec<u32> {
    std::fs::read_dir("/sys/bus/pci/devices")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|device| parse_class(&std::fs::read_to_string(device.path().join("class")).ok()?))
        .collect()
}

/// sysfs writes `0x010802\n`.
fn parse_class(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim_end().strip_prefix("0x")?, 16).ok()
}

fn load(directory: &str, name: &str) -> Result<(), Failure> {
    let path = Path::new(directory).join(format!("{name}.ko"));
    let file = File::open(&path).or_fail_doing(Stage::Modules, path.display())?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(Errno::ENODEV) if MAY_LACK_DEVICE.contains(&name) => Ok(()),
        Err(error) => Err(Failure::new(Stage::Modules, format_args!("loading {name}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> ModuleList {
        module_list::parse(
            "boot dm_mod\nboot erofs\ndevice nvme nvme_core,nvme\ndevice dm_crypt dm_mod,dm_crypt\n\
             device sev_guest configfs,tsm_report,sev_guest\ndevice tdx_guest configfs,tsm_report,tdx_guest\n",
        )
        .unwrap()
    }

    #[test]
    fn device_modules_come_with_their_device_or_tee_only() {
        let list = list();
        assert_eq!(load_order(&list, Tee::None, &[0x060000, 0x010000]), ["dm_mod", "erofs"]);
        assert_eq!(load_order(&list, Tee::None, &[0x010802]), ["dm_mod", "erofs", "nvme_core", "nvme"]);
        assert_eq!(load_order(&list, Tee::Snp, &[]), ["dm_mod", "erofs", "configfs", "tsm_report", "sev_guest"]);
        assert_eq!(load_order(&list, Tee::Tdx, &[]), ["dm_mod", "erofs", "configfs", "tsm_report", "tdx_guest"]);
    }

    #[test]
    fn shared_dependencies_are_loaded_once() {
        let list =
            module_list::parse("boot dm_mod\nboot configfs\ndevice sev_guest dm_mod,configfs,sev_guest\n").unwrap();
        assert_eq!(load_order(&list, Tee::Snp, &[]), ["dm_mod", "configfs", "sev_guest"]);
    }

    #[test]
    fn a_class_is_what_sysfs_writes() {
        assert_eq!(parse_class("0x010802\n"), Some(0x010802));
        for bad in ["", "010802\n", "0x\n", "0xzz\n"] {
            assert_eq!(parse_class(bad), None, "{bad}");
        }
    }
}
