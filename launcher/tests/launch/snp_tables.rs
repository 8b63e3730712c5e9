//! ACPI tables of SNP guests with passed functions, whose digests a compiled kernel admits: asked of stand-ins, and made by the
//! launch's own words with devices that have the BARs of real ones. The firmware is `OVMF.amdsev.fd` in `BULLION_TEST_FIRMWARE`.

use std::path::Path;

use launcher::qemu::oracle::{self, Devices, Question};

use crate::golden::{Situation, on};
use crate::oracle::{emulated, inherited, tree};

/// The prefetchable BARs of a function: MiB of one, and GiB of another.
#[derive(Clone, Copy, Debug)]
struct Bars(u64, u64);

/// Most drives have none.
const DRIVE: Bars = Bars(0, 0);
const SMALL: Bars = Bars(64, 8);
const H100: Bars = Bars(32, 128);
/// A B200 that keeps its size has them too.
const H200: Bars = Bars(32, 256);

impl Bars {
    /// A device of QEMU that has them, and a small one that is not prefetchable.
    fn device(self, index: usize) -> String {
        match self {
            Self(0, 0) => format!("nvme,serial={index}"),
            Self(mib, _) => format!("nvme,serial={index},cmb_size_mb={mib},pmrdev=bar{index}"),
        }
    }

    /// What is behind the larger one: of no size until somebody writes there.
    fn memory(self, index: usize) -> Option<[String; 2]> {
        let Self(_, gib) = self;
        let memory = format!("memory-backend-memfd,id=bar{index},share=on,size={gib}G,prealloc=off,reserve=off");
        (gib > 0).then(|| ["-object".to_owned(), memory])
    }
}

/// These functions, which are no GPUs, on a host with SNP.
fn passing(functions: &[Bars]) -> Situation {
    let addresses: Vec<_> = (0..functions.len()).map(|index| format!("0000:c{}:00.0", index + 1)).collect();
    let pci: Vec<_> = addresses.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
    let mut situation = on("genoa", "snp", &format!("pci = [{}]\n", pci.join(", ")));
    let gpu = situation.facts.device("0000:c1:00.0").unwrap().clone();
    situation.facts.devices.retain(|device| !addresses.contains(&device.address));
    for ((index, address), Bars(mib, gib)) in addresses.into_iter().enumerate().zip(functions) {
        let mut function = gpu.clone();
        (function.address, function.cdev) = (address, Some(format!("vfio{index}")));
        (function.id, function.class) = ("1b36:0010".to_owned(), 0x12_0000);
        function.group = Some(100 + u32::try_from(index).unwrap());
        function.prefetchable_bars = [mib << 20, gib << 30].into_iter().filter(|size| *size > 0).collect();
        situation.facts.devices.push(function);
    }
    situation
}

/// What is so of the smallest and of the largest BARs that have room is what a recipe's author has to know of them: how many
/// functions, and whether `large_bars`.
#[test]
fn the_tables_of_an_snp_guest_depend_on_no_bar() {
    let firmware = std::env::var_os("BULLION_TEST_FIRMWARE")
        .and_then(|directory| std::fs::read(Path::new(&directory).join("OVMF.amdsev.fd")).ok());
    let (Some(firmware), Some(program)) = (firmware, tree("BULLION_TEST_QEMU_TREE")) else {
        eprintln!("skipped: BULLION_TEST_FIRMWARE or BULLION_TEST_QEMU_TREE is not set");
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let digest = |functions: &[Bars], leave_out: &str| {
        let situation = passing(functions);
        let plan = situation.plan().unwrap();
        let devices: Vec<_> = functions.iter().enumerate().map(|(index, bars)| bars.device(index)).collect();
        let mut words = emulated(&plan, &devices.iter().map(String::as_str).collect::<Vec<_>>());
        if let Some(at) = words.iter().position(|word| !leave_out.is_empty() && word.starts_with(leave_out)) {
            words.drain(at - 1..=at);
        }
        let memory = functions.iter().enumerate().filter_map(|(index, bars)| bars.memory(index));
        // Before the devices that name it, wherever it is said.
        words.extend(memory.flatten());
        let (inherited, _peers) = inherited(&plan, &firmware);
        oracle::watch(&program, words, inherited).unwrap().fw_cfg.admission().unwrap()
    };
    let cases: [(&[Bars], bool); 7] = [
        (&[DRIVE], false),
        (&[SMALL], false),
        (&[DRIVE, SMALL], false),
        (&[H100], true),
        (&[H200], true),
        (&[H100, DRIVE], true),
        (&[H100, H100, SMALL], true),
    ];
    let mut admitted = Vec::new();
    for (functions, large_bars) in cases {
        let situation = passing(functions);
        let shape = situation.plan().unwrap().shape;
        let devices = Devices::on(&situation.fixture.vm, shape.memory_mib, &situation.facts).unwrap();
        assert_eq!(devices, Devices { pci: functions.len(), large_bars, ..Devices::default() }, "{functions:?}");
        let question = Question { program: &program, firmware: &firmware, shape: &shape, devices };
        let asked = oracle::ask(&question, cache.path()).unwrap().fw_cfg.admission().unwrap();
        assert_eq!(digest(functions, ""), asked, "{functions:?}");
        if let Some((other, _)) = admitted.iter().find(|(_, digest)| *digest == asked) {
            assert_eq!(*other, devices, "{functions:?}");
        }
        admitted.push((devices, asked));
    }
    // Without the window that QEMU is told, they do.
    let window = "q35-pcihost.pci-hole64-size=";
    assert_ne!(digest(&[H100], window), digest(&[H200], window));
}

#[test]
fn it_is_said_why_tables_are_not_foreseen() {
    let situation = passing(&[H100]);
    let vm = &situation.fixture.vm;
    let foreseen = |memory_mib| Devices::on(vm, memory_mib, &situation.facts);
    assert!(foreseen(498 << 10).unwrap().large_bars);
    assert!(foreseen(499 << 10).unwrap_err().contains("beside so much memory"));
    let none = Devices::on(vm, 512, &launcher::HostFacts::default()).unwrap_err();
    assert_eq!(none, "there is no function 0000:c1:00.0");
    let many = passing(&[H200, H200]);
    let none = Devices::on(&many.fixture.vm, 512, &many.facts).unwrap_err();
    assert!(none.contains("BARs need 770 GiB of room"), "{none}");
    let plain = on("genoa", "none", "pci = [{ address = \"0000:c1:00.0\" }]\n");
    assert!(Devices::on(&plain.fixture.vm, 512, &plain.facts).unwrap_err().starts_with("SeaBIOS"));
}
