//! Which function a VM gets that asks for one of a kind: the same facts give the same answer, and a launch gives the one that
//! was prepared for it.
//!
//! Free is what is isolated and neither the host nor a running guest uses. Of those the VM's NUMA nodes come first, then what
//! vfio-pci has already, then the lower address.

use spec::vm::{PciDevice, PciKind, Vm};

use super::check::{Drive, Line, obstacle, unfit};
use super::{HostFacts, PciFunction};
use crate::gpu::product::{GPU_CLASSES, NVIDIA, NVSWITCH_CLASS};

/// Classes by their upper 16 bits (PCI Code and ID Assignment Specification).
const NETWORK_CLASS: u32 = 0x02;

/// The VM with an address for each function that it asks for by kind. The error says of which there is none.
pub fn chosen(vm: &Vm, facts: &HostFacts) -> Result<Vm, Box<Line>> {
    let mut vm = vm.clone();
    for index in 0..vm.host.pci.len() {
        let taken: Vec<_> =
            vm.host.pci.iter().map(|device| device.address.clone()).filter(|address| !address.is_empty()).collect();
        let Some(wanted) = vm.host.pci.get(index).filter(|device| device.address.is_empty()) else { continue };
        let address = find(wanted, &taken, &vm.host.nodes(), facts)?;
        if let Some(device) = vm.host.pci.get_mut(index) {
            device.address = address;
        }
    }
    Ok(vm)
}

fn find(wanted: &PciDevice, taken: &[String], nodes: &[u32], facts: &HostFacts) -> Result<String, Box<Line>> {
    let of_kind: Vec<_> = facts.devices.iter().filter(|device| is(device, wanted)).collect();
    let mut free: Vec<_> = of_kind.iter().filter(|device| why_not(device, wanted, taken, facts).is_none()).collect();
    free.sort_by_key(|device| {
        let elsewhere = !nodes.is_empty() && device.numa_node.is_none_or(|node| !nodes.contains(&node));
        (elsewhere, device.driver.as_deref() != Some("vfio-pci"), device.address.clone())
    });
    if let Some(first) = free.first() {
        return Ok(first.address.clone());
    }
    let line = Line::missing("pci", true, format!("there is no free function for {}", wanted.label()));
    let reasons: Vec<_> = of_kind
        .iter()
        .filter_map(|device| Some(format!("{}: {}", device.address, why_not(device, wanted, taken, facts)?)))
        .collect();
    Err(Box::new(if reasons.is_empty() { line } else { line.because(reasons.join("; ")) }))
}

fn is(device: &PciFunction, wanted: &PciDevice) -> bool {
    let class = device.class >> 8;
    let nvidia = device.id.starts_with(&format!("{NVIDIA:04x}:"));
    match wanted.kind {
        Some(PciKind::Nvme) => device.is_nvme(),
        Some(PciKind::Network) => class >> 8 == NETWORK_CLASS,
        Some(PciKind::Nvswitch) => nvidia && class == u32::from(NVSWITCH_CLASS),
        Some(PciKind::Gpu) => {
            let name = device.product().map_or("", |product| product.name);
            let is_gpu = nvidia && GPU_CLASSES.iter().any(|listed| u32::from(*listed) == class);
            is_gpu && wanted.model.as_deref().is_none_or(|model| starts_with_words(name, model))
        }
        None => false,
    }
}

/// `H100` is a beginning of `H100 SXM`, and none of `H1000`.
fn starts_with_words(name: &str, beginning: &str) -> bool {
    name.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn why_not(device: &PciFunction, wanted: &PciDevice, taken: &[String], facts: &HostFacts) -> Option<String> {
    if taken.contains(&device.address) {
        return Some("this VM has it already".to_owned());
    }
    if let Some(holder) = &device.held_by {
        return Some(format!("{holder} has it"));
    }
    if !device.uses.is_empty() {
        return Some(device.uses.join(", "));
    }
    let drive = Drive::of(wanted).map(|drive| Drive { address: device.address.clone(), ..drive });
    if unfit(drive.as_slice(), device).is_some() {
        return Some(device.labels.join("; "));
    }
    let passed: Vec<_> = taken.iter().cloned().chain([device.address.clone()]).collect();
    obstacle(facts, &passed, &device.address).map(|line| line.cause.unwrap_or(line.found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(address: &str, id: &str, class: u32, change: impl FnOnce(&mut PciFunction)) -> PciFunction {
        let mut function =
            PciFunction { address: address.to_owned(), id: id.to_owned(), class, ..PciFunction::default() };
        function.group = u32::from_str_radix(&address[5..7], 16).ok();
        change(&mut function);
        function
    }

    fn facts() -> HostFacts {
        let nvme = |address: &str, change: fn(&mut PciFunction)| function(address, "144d:a824", 0x010802, change);
        let devices = vec![
            nvme("0000:41:00.0", |disk| disk.uses = vec!["nvme0n1 is mounted on /".to_owned()]),
            nvme("0000:42:00.0", |disk| disk.held_by = Some("process 7 (qemu)".to_owned())),
            nvme("0000:43:00.0", |disk| disk.numa_node = Some(0)),
            nvme("0000:44:00.0", |disk| (disk.numa_node, disk.driver) = (Some(1), Some("vfio-pci".to_owned()))),
            function("0000:c1:00.0", "10de:2330", 0x030200, |_| {}),
            function("0000:c2:00.0", "10de:22a3", 0x068000, |_| {}),
            function("0000:c3:00.0", "10de:2901", 0x030200, |_| {}),
        ];
        HostFacts { devices, ..HostFacts::default() }
    }

    fn chosen_of(more: &str) -> Result<Vec<String>, String> {
        let text =
            format!("schema = 1\nname = \"vm\"\nimage = \"i\"\ntee = \"none\"\nmemory = \"512MiB\"\n[host]\n{more}");
        let vm = Vm::parse("vm.toml", &text).unwrap();
        let vm = chosen(&vm, &facts()).map_err(|line| line.to_string())?;
        Ok(vm.host.pci.into_iter().map(|device| device.address).collect())
    }

    #[test]
    fn the_first_free_function_of_a_kind_is_taken() {
        let nvme = |more: &str| chosen_of(&format!("pci = [{{ kind = \"nvme\" }}]\n{more}")).unwrap();
        assert_eq!(nvme(""), ["0000:44:00.0"], "what is prepared comes first");
        assert_eq!(nvme("numa_node = 0"), ["0000:43:00.0"]);
        assert_eq!(
            chosen_of("pci = [{ kind = \"nvme\" }, { kind = \"nvme\" }, { address = \"0000:c1:00.0\" }]").unwrap(),
            ["0000:44:00.0", "0000:43:00.0", "0000:c1:00.0"]
        );
        let text = chosen_of("pci = [{ kind = \"nvme\" }, { kind = \"nvme\" }, { kind = \"nvme\" }]").unwrap_err();
        for reason in
            ["0000:41:00.0: nvme0n1 is mounted on /", "0000:42:00.0: process 7 (qemu) has it", "0000:43:00.0: this VM"]
        {
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn a_drive_that_holds_something_is_not_taken_for_a_volume() {
        let mut facts = facts();
        let volumes = |overwrite: &str| {
            let text = format!(
                "schema = 1\nname = \"vm\"\nimage = \"i\"\ntee = \"none\"\nmemory = \"512MiB\"\n[[guest.volume]]\nname = \"tmp\"\n\
                 use = \"scratch\"\non = \"nvme\"\nmount = \"/var/tmp\"\n[host]\npci = [{{ kind = \"nvme\", volume = \"tmp\"{overwrite} }}]\n"
            );
            Vm::parse("vm.toml", &text).unwrap()
        };
        let address = |vm: &Vm, facts: &HostFacts| chosen(vm, facts).map(|vm| vm.host.pci[0].address.clone());
        assert_eq!(address(&volumes(""), &facts).unwrap(), "0000:44:00.0");
        facts.devices[3].labels = vec!["nvme3n1 holds a partition table".to_owned()];
        assert_eq!(address(&volumes(""), &facts).unwrap(), "0000:43:00.0");
        assert_eq!(address(&volumes(", dangerously_overwrite = true"), &facts).unwrap(), "0000:44:00.0");
        // Not for a volume, it is the guest's business.
        assert_eq!(chosen(&plain(), &facts).unwrap().host.pci[0].address, "0000:44:00.0");
        facts.devices[2].labels = vec!["nvme2n1 holds an XFS file system".to_owned()];
        let text = address(&volumes(""), &facts).unwrap_err().to_string();
        assert!(text.contains("0000:43:00.0: nvme2n1 holds an XFS file system"), "{text}");
        facts.devices[2].class = 0x010801;
        let text = address(&volumes(""), &facts).unwrap_err().to_string();
        assert!(!text.contains("0000:43:00.0"), "of another interface: {text}");
    }

    fn plain() -> Vm {
        let text = "schema = 1\nname = \"vm\"\nimage = \"i\"\ntee = \"none\"\nmemory = \"512MiB\"\nhost.pci = [{ kind = \"nvme\" }]\n";
        Vm::parse("vm.toml", text).unwrap()
    }

    #[test]
    fn gpus_are_told_apart_by_product() {
        let gpu = |model: &str| chosen_of(&format!("pci = [{{ kind = \"gpu\", model = \"{model}\" }}]"));
        assert_eq!(gpu("H100").unwrap(), ["0000:c1:00.0"]);
        assert_eq!(gpu("B200").unwrap(), ["0000:c3:00.0"]);
        assert!(gpu("H10").unwrap_err().contains("no free function for one gpu H10"));
        assert_eq!(chosen_of("pci = [{ kind = \"nvswitch\" }]").unwrap(), ["0000:c2:00.0"]);
    }
}
