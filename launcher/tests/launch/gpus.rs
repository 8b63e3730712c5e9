//! Plans of guests with GPUs that are more than passed: BARs that get another size, boards that are told apart by their subsystem, and
//! a board that goes whole to one guest.

use launcher::gpu::resizable::{BarSize, CONFIDENTIAL, ResizableBar};
use spec::gpus::Gpus;

use crate::golden::{agrees, on};

/// These functions, of the shelf's host with B200 and GB300, in a guest of this kind.
fn planned(tee: &str, addresses: &[&str], change: impl FnOnce(&mut launcher::HostFacts)) -> Result<String, String> {
    let pci: Vec<_> = addresses.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
    let mut situation = on("genoa-b200", tee, &format!("pci = [{}]\n", pci.join(", ")));
    change(&mut situation.facts);
    situation.plan().map(|plan| plan.to_string()).map_err(|error| error.to_string())
}

const BOTH: [&str; 2] = ["0000:c1:00.0", "0000:c2:00.0"];
const RESIZED: &str = "B200: BAR 2 resized from 256 GiB to 8 GiB while no driver has it, kept awake";

#[test]
fn b200_have_room_in_a_guest_because_their_memory_bars_are_resized() {
    let text = planned("snp", &BOTH, |_| {}).unwrap();
    for address in BOTH {
        assert!(text.contains(&format!("gpu          {address} {RESIZED}, mode on set")), "{text}");
    }
    assert!(!text.contains("X-PciMmio64Mb") && !text.contains("keeps its size"), "{text}");
    // One alone has room as it is, and needs none of it.
    assert!(planned("snp", &BOTH[..1], |_| {}).unwrap().contains(RESIZED));
    // What is in the clear may use all of it.
    let plain = planned("none", &BOTH, |_| {}).unwrap();
    assert!(!plain.contains("resized") && plain.contains("mode off set"), "{plain}");
}

#[test]
fn memory_that_leaves_firmware_no_room_for_large_bars_is_refused() {
    let planned = |tee: &str, gib: u64| {
        let mut situation = on("genoa-b200", tee, "pci = [{ address = \"0000:c1:00.0\" }]\n");
        situation.facts.devices.iter_mut().for_each(|device| device.resizable_bars.clear());
        situation.facts.memory.available_mib = 2 << 20;
        situation.fixture.vm.memory = format!("{gib}GiB").parse().unwrap();
        situation.plan().map(|plan| plan.to_string()).map_err(|error| error.to_string())
    };
    assert!(planned("snp", 510).unwrap().contains("X-PciMmio64Mb,string=524288"));
    let refused = planned("snp", 511).unwrap_err();
    assert!(refused.contains("512 GiB of room behind 523264 MiB of memory"), "{refused}");
    assert!(planned("none", 511).is_ok());
}

#[test]
fn what_the_kernel_does_not_offer_is_told_and_counted_as_it_is() {
    let without = |facts: &mut launcher::HostFacts| {
        facts.devices.iter_mut().for_each(|device| device.resizable_bars.clear());
    };
    let other = |facts: &mut launcher::HostFacts| {
        facts.devices.iter_mut().flat_map(|device| &mut device.resizable_bars).for_each(|bar| bar.offered = 1 << 18);
    };
    let refused = planned("snp", &BOTH, without).unwrap_err();
    assert!(refused.contains("the functions' BARs need 770 GiB of room"), "{refused}");
    assert_eq!(planned("snp", &BOTH, other).unwrap_err(), refused);
    let text = planned("snp", &BOTH[..1], without).unwrap();
    assert!(text.contains("keeps its size: the kernel has no resource2_resize for it"), "{text}");
    assert!(text.contains("X-PciMmio64Mb,string=524288"), "{text}");
    let text = planned("snp", &BOTH[..1], other).unwrap();
    assert!(text.contains("keeps its size: the kernel does not offer 8 GiB in resource2_resize"), "{text}");
    // A BAR that has the size already, as after an earlier launch.
    let done = |facts: &mut launcher::HostFacts| {
        for device in &mut facts.devices {
            device.prefetchable_bars = vec![16 << 20, 8 << 30];
            device.resizable_bars.iter_mut().for_each(|bar| bar.size = CONFIDENTIAL);
        }
    };
    let text = planned("snp", &BOTH, done).unwrap();
    assert!(!text.contains("resized") && !text.contains("keeps its size") && !text.contains("X-PciMmio64Mb"), "{text}");
}

/// RTMR0 has the window for BARs that QEMU's tables name, and nothing of the BARs themselves.
#[test]
fn a_td_has_the_same_command_line_whatever_size_its_bars_get() {
    let argv = |size: Option<BarSize>| {
        let mut situation = on("emerald-rapids", "tdx", "pci = [{ address = \"0000:c1:00.0\" }]\n");
        for device in situation.facts.devices.iter_mut().filter(|device| device.address == "0000:c1:00.0") {
            device.id = "10de:2901".to_owned();
            device.prefetchable_bars = vec![16 << 20, 256 << 30, 32 << 20];
            let bar = |offered: BarSize| ResizableBar { bar: 2, size: BarSize(18), offered: 1 << 18 | 1 << offered.0 };
            device.resizable_bars = size.map(bar).into_iter().collect();
        }
        let plan = situation.plan().unwrap();
        let resized = plan.gpus.unwrap().resizes.len();
        let text = plan.argv.join("\n").replace(situation.fixture.root.to_str().unwrap(), "");
        (text, resized)
    };
    let (resized, as_it_is) = (argv(Some(CONFIDENTIAL)), argv(None));
    assert_eq!((resized.1, as_it_is.1), (1, 0));
    assert_eq!(resized.0, as_it_is.0);
    assert!(as_it_is.0.contains("pci-hole64-size=8T"), "{}", as_it_is.0);
}

#[test]
fn a_board_that_hangs_on_its_cpu_is_refused_by_its_subsystem_number() {
    let refused = planned("snp", &["0000:d1:00.0"], |_| {}).unwrap_err();
    assert!(refused.contains("0000:d1:00.0 is a GB300") && refused.contains("NVLink-C2C"), "{refused}");
    assert!(planned("snp", &["0000:d2:00.0"], |_| {}).unwrap().contains("0000:d2:00.0 GB300: kept awake, mode on set"));
}

/// An HGX H100 behind iommufd, all of it for one TD.
#[test]
fn a_whole_board_goes_to_one_guest() {
    let addresses: Vec<String> = (0..12).map(|index| format!("0000:{:02x}:00.0", 0xc1 + index)).collect();
    let pci: Vec<_> = addresses.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
    let mut board = on("emerald-rapids", "tdx", &format!("pci = [{}]\n", pci.join(", ")));
    board.fixture.vm.guest.gpus = Some(Gpus { count: 8, switches: 4, ..Gpus::default() });
    let gpu = board.facts.device("0000:c1:00.0").unwrap().clone();
    board.facts.devices.retain(|device| !addresses.contains(&device.address));
    for (index, address) in addresses.iter().enumerate() {
        let mut function = gpu.clone();
        (function.address, function.cdev) = (address.clone(), Some(format!("vfio{index}")));
        function.group = Some(100 + u32::try_from(index).unwrap());
        function.prefetchable_bars = vec![16 << 20, 128 << 30, 32 << 20];
        if index >= 8 {
            (function.id, function.class) = ("10de:22a3".to_owned(), 0x06_8000);
            function.prefetchable_bars = vec![32 << 20];
        }
        board.facts.devices.push(function);
    }
    agrees("tdx-board", &board.text());
}
