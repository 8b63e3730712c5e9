//! ACPI tables asked of QEMU, against tables that live TDX guests had.
//!
//! The machines are those of `virtee/tdx-measure`'s fixtures; the guest of the first ran on TDX with QEMU 10.2.1. Tables of
//! QEMU 10.0 to 10.2 are the same, so the judge is a tree of QEMU 10.0 (`image-recipes/older-vmm.toml`), which
//! `BULLION_TEST_OLDER_QEMU_TREE` names. Vectors are in `BULLION_VECTORS`.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use launcher::plan::Role;
use launcher::qemu::WAIT;
use launcher::qemu::oracle::{self, Answer, Devices, Question};
use launcher::{Plan, QemuProgram};
use measure::shape::{Boot, Shape, TdxShape, TeeShape};
use measure::tdx::platform::AcpiDigests;
use spec::vm::Topology;

/// Firmware that ships without a TEE's sections in the way: any OVMF places the devices alike.
const FIRMWARE: &str = "tdx/firmware/ubuntu-25.04_ovmf_2025.02-3ubuntu2_OVMF.fd.xz";
const TDX_FIRMWARE: &str = "tdx/firmware/ubuntu-25.10_ovmf-inteltdx_2025.02-8ubuntu3_OVMF.inteltdx.fd.xz";

fn vector(path: &str) -> Option<Vec<u8>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let path = std::env::var_os("BULLION_VECTORS").map_or_else(|| PathBuf::from(default), PathBuf::from).join(path);
    let Ok(packed) = std::fs::read(&path) else {
        eprintln!("skipped: there are no vectors at {}", path.display());
        return None;
    };
    let mut bytes = Vec::new();
    if path.extension().is_some_and(|extension| extension == "xz") {
        liblzma::read::XzDecoder::new(&*packed).read_to_end(&mut bytes).unwrap();
    } else {
        bytes = packed;
    }
    Some(bytes)
}

pub(crate) fn tree(variable: &str) -> Option<QemuProgram> {
    let found = std::env::var_os(variable).and_then(|root| QemuProgram::from_tree(Path::new(&root)).ok());
    if found.is_none() {
        eprintln!("skipped: {variable} names no tree with QEMU");
    }
    found
}

/// QEMU's own arguments for a machine of the fixtures.
fn fixture(firmware: &Path, memory: &str, devices: &str) -> Vec<String> {
    let words = format!(
        "-nodefaults -display none -accel tcg -cpu max,phys-bits=46 -smp 8 -m {memory} -bios {} \
         -machine q35,kernel_irqchip=split,memory-backend=mem0,smm=off,pic=off \
         -global q35-pcihost.pci-hole64-size=4096G -object memory-backend-ram,id=mem0,size={memory},reserve=off {devices}",
        firmware.display()
    );
    words.split_whitespace().map(str::to_owned).collect()
}

/// `vhost-vsock-pci`, which needs a kernel module, is played by a device that looks the same to ACPI.
const LIVE: &str = "-netdev hubport,id=net0,hubid=0 -device e1000,netdev=net0,bus=pcie.0,addr=0x2,romfile= \
    -device pci-testdev -device virtio-scsi-pci,disable-legacy=on,iommu_platform=true \
    -device virtio-scsi-pci,disable-legacy=on,iommu_platform=true \
    -device virtio-scsi-pci,disable-legacy=on,iommu_platform=true";
const WITH_HPET: &str = "-device virtio-rng-pci -device virtio-balloon-pci -device virtio-scsi-pci,id=scsi0";

#[test]
fn tables_are_those_of_live_guests() {
    let (Some(firmware), Some(qemu)) = (vector(FIRMWARE), tree("BULLION_TEST_OLDER_QEMU_TREE")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("OVMF.fd");
    std::fs::write(&path, firmware).unwrap();
    for (name, memory, devices) in [("runtime-capture", "16384M", LIVE), ("q35-with-hpet", "4096M", WITH_HPET)] {
        let found = oracle::watch(&qemu, fixture(&path, memory, devices), vec![]).unwrap();
        let captured = vector(&format!("tdx/platform/tdx-measure/{name}/acpi_tables.bin")).unwrap();
        assert!(found.fw_cfg.get("etc/acpi/tables") == Some(&*captured), "{name}: the tables differ");
        for file in ["etc/acpi/rsdp", "etc/table-loader"] {
            let known = vector(&format!("tdx/platform/tcg-dumps/{name}/{}", file.replace('/', "_"))).unwrap();
            assert!(found.fw_cfg.get(file) == Some(&*known), "{name}: {file} differs");
        }
        assert_eq!((found.qemu_version.unwrap()[0], found.fw_cfg.get("BootMenu")), (10, Some(&[0, 0][..])), "{name}");
    }
}

fn shape(vcpus: u32, memory_mib: u64) -> Shape {
    let tdx = TdxShape { attributes: TdxShape::SEPT_VE_DISABLE, mrconfigid: [0; 48] };
    Shape { tee: TeeShape::Tdx(tdx), boot: Boot::Kernel, vcpus, cpu_model: "host".to_owned(), memory_mib }
}

fn acpi(found: &Answer) -> AcpiDigests {
    found.fw_cfg.acpi().unwrap()
}

#[test]
fn a_shape_is_asked_about_once() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let cache = tempfile::tempdir().unwrap();
    let ask = |vcpus, memory_mib| {
        let shape = shape(vcpus, memory_mib);
        let begun = Instant::now();
        let question = Question { program: &program, firmware: &firmware, shape: &shape, devices: Devices::default() };
        (oracle::ask(&question, cache.path()).unwrap(), begun.elapsed())
    };
    let (one, cold) = ask(1, 2048);
    let (again, warm) = ask(1, 2048);
    assert_eq!(again, one);
    assert!(warm * 5 < cold, "{warm:?} and {cold:?}");
    let (four, _) = ask(4, 2048);
    assert_ne!(acpi(&four).tables, acpi(&one).tables, "vCPUs are in the tables");
    let (large, _) = ask(4, 65536);
    assert_eq!(acpi(&large), acpi(&four), "memory above 2.75 GiB is not");
    assert_ne!(large.fw_cfg.smbios_tables(), four.fw_cfg.smbios_tables());
    assert_eq!(one.fw_cfg.get("bootorder"), Some(&b"/rom@genroms/linuxboot_dma.bin\0"[..]));
}

/// A machine that stands still, placed as firmware placed one with other vCPUs, against machines in which firmware ran; and a
/// QEMU that is too old to be launched, which has other tables.
#[test]
fn neighbours_are_told_without_firmware() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let cache = tempfile::tempdir().unwrap();
    let one = shape(1, 2048);
    fn question<'a>(program: &'a QemuProgram, firmware: &'a [u8], shape: &'a Shape) -> Question<'a> {
        Question { program, firmware, shape, devices: Devices { nics: 1, ..Devices::default() } }
    }
    let told = oracle::ask(&question(&program, &firmware, &one), cache.path()).unwrap();
    for vcpus in [1, 5] {
        let shape = shape(vcpus, 2048);
        let placed = oracle::ask_placed(&question(&program, &firmware, &shape), &told.placement, cache.path()).unwrap();
        let told = oracle::ask(&question(&program, &firmware, &shape), cache.path()).unwrap();
        assert!(placed.fw_cfg == told.fw_cfg, "{vcpus} vCPUs");
    }
    let Some(older) = tree("BULLION_TEST_OLDER_QEMU_TREE") else { return };
    assert!(oracle::ask(&question(&older, &firmware, &one), cache.path()).is_err());
    let other = oracle::ask_older(&question(&older, &firmware, &one), cache.path()).unwrap();
    assert_eq!(other.qemu_version.map(|[major, minor, _]| (major, minor)), Some((10, 0)));
    assert_ne!(acpi(&other).tables, acpi(&told).tables);
}

/// What a VM has beyond the devices of every guest, under the words of its own launch: real networks and volumes, and in the place
/// of the passed function two devices with other BARs than the oracle's stand-in has.
#[test]
fn tables_of_a_vm_with_devices_are_those_that_its_own_words_give() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let more = "pci = [{ address = \"0000:c1:00.0\" }]\n\
        nic = [{ no_outbound = true }, { mac = \"52:54:00:12:34:56\" }]\nvsock = {}\n\
        [[host.volume]]\nname = \"tmp\"\npath = \"/images/tmp\"\n\
        [[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n";
    let situation = crate::golden::on("emerald-rapids", "tdx", more);
    let plan = situation.plan().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let devices = Devices::of(&situation.fixture.vm);
    assert_eq!(devices, Devices { nics: 2, pci: 1, volumes: 1, vsock: true, ..Devices::default() });
    let ask = |devices| {
        let question = Question { program: &program, firmware: &firmware, shape: &plan.shape, devices };
        oracle::ask(&question, cache.path()).unwrap()
    };
    let told = ask(devices);
    let two_bars = "nvme,serial=x,cmb_size_mb=64,pmrdev=pmr";
    for function in [two_bars, "pci-testdev,membar=128G"] {
        let (inherited, _peers) = inherited(&plan, &firmware);
        let watched = oracle::watch(&program, emulated(&plan, &[function]), inherited).unwrap();
        assert!(watched.fw_cfg == told.fw_cfg, "{function}: fw_cfg differs");
    }
    let without_vsock = Devices { vsock: false, ..devices };
    let others = [Devices { nics: 1, ..devices }, Devices { pci: 0, ..devices }, Devices { volumes: 0, ..devices }];
    for other in others.into_iter().chain([without_vsock]) {
        assert_ne!(ask(other).fw_cfg.acpi().unwrap().tables, told.fw_cfg.acpi().unwrap().tables, "{other:?}");
    }
}

/// A watchdog and pvpanic are in the tables that QEMU gives for the launch's own words, each by itself.
#[test]
fn tables_tell_of_a_watchdog_and_of_pvpanic() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let situation = crate::golden::with_signs("tdx");
    let plan = situation.plan().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let both = Devices::of(&situation.fixture.vm);
    assert_eq!(both, Devices { watchdog: true, pvpanic: true, ..Devices::default() });
    let tables = |devices| {
        let question = Question { program: &program, firmware: &firmware, shape: &plan.shape, devices };
        oracle::ask(&question, cache.path()).unwrap().fw_cfg.acpi().unwrap().tables
    };
    let (inherited, _peers) = inherited(&plan, &firmware);
    let watched = oracle::watch(&program, emulated(&plan, &[]), inherited).unwrap();
    assert_eq!(tables(both), watched.fw_cfg.acpi().unwrap().tables);
    let all = [(false, false), (true, false), (false, true), (true, true)];
    let all = all.map(|(watchdog, pvpanic)| tables(Devices { watchdog, pvpanic, ..Devices::default() }));
    for (index, one) in all.iter().enumerate() {
        assert!(all.iter().skip(index + 1).all(|other| other != one), "{index}");
    }
}

/// What room the tables of a TD name for BARs moves no memory: its processor is Intel's, wherever it is asked about.
#[test]
fn memory_of_a_td_lies_alike_beside_passed_functions() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let cache = tempfile::tempdir().unwrap();
    let memory = |pci| {
        let (shape, devices) = (shape(1, 8192), Devices { pci, ..Devices::default() });
        let question = Question { program: &program, firmware: &firmware, shape: &shape, devices };
        oracle::ask(&question, cache.path()).unwrap().fw_cfg.smbios_tables().unwrap().to_vec()
    };
    assert_eq!(memory(1), memory(0));
}

/// Of a topology the processors' SMBIOS tables tell, and where the numbers of vCPUs have gaps, the ACPI tables as well.
#[test]
fn a_topology_is_in_the_tables() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let cache = tempfile::tempdir().unwrap();
    let ask = |sockets, threads| {
        let devices = Devices { topology: Topology { sockets, threads }, ..Devices::default() };
        let shape = shape(6, 2048);
        let question = Question { program: &program, firmware: &firmware, shape: &shape, devices };
        oracle::ask(&question, cache.path()).unwrap()
    };
    let (flat, sockets) = (ask(1, 1), ask(2, 1));
    assert_ne!(sockets.fw_cfg.smbios_tables(), flat.fw_cfg.smbios_tables());
    // Three cores of a socket take two bits: the second socket begins at 4.
    assert_ne!(sockets.fw_cfg.acpi().unwrap().tables, flat.fw_cfg.acpi().unwrap().tables);
}

/// Memory and vCPUs of several nodes are in a table of their own (ACPI 6.5, 5.2.16), whatever the host's nodes are.
#[test]
fn numa_nodes_are_in_the_tables() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let situation = crate::golden::on("emerald-rapids", "tdx", "numa_nodes = [1, 0]");
    let plan = situation.plan().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let ask = |devices| {
        let question = Question { program: &program, firmware: &firmware, shape: &plan.shape, devices };
        oracle::ask(&question, cache.path()).unwrap().fw_cfg
    };
    let devices = Devices::of(&situation.fixture.vm);
    assert_eq!(devices, Devices { nodes: 2, topology: Topology { sockets: 2, threads: 1 }, ..Devices::default() });
    let told = ask(devices);
    let flat = ask(Devices { nodes: 0, ..devices });
    assert_ne!(told.acpi().unwrap().tables, flat.acpi().unwrap().tables);
    let (inherited, _peers) = inherited(&plan, &firmware);
    let watched = oracle::watch(&program, emulated(&plan, &[]), inherited).unwrap();
    assert!(watched.fw_cfg == told, "fw_cfg differs");
}

/// Why passed functions are near no node of the guest: behind a host bridge of a node, the tables name their BARs.
#[test]
fn the_tables_of_a_host_bridge_of_a_node_depend_on_bars() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let plan = crate::golden::on("emerald-rapids", "tdx", "numa_nodes = [0, 1]").plan().unwrap();
    let tables = |function: &str| {
        let mut words = emulated(&plan, &[]);
        let devices = [
            "pxb-pcie,id=node1,bus=pcie.0,addr=0xd,bus_nr=32,numa_node=1",
            "pcie-root-port,id=below,bus=node1,chassis=9",
            function,
        ];
        words.extend(devices.iter().flat_map(|device| ["-device".to_owned(), (*device).to_owned()]));
        words.extend(["-global".to_owned(), "q35-pcihost.pci-hole64-size=8T".to_owned()]);
        let (inherited, _peers) = inherited(&plan, &firmware);
        oracle::watch(&program, words, inherited).unwrap().fw_cfg.acpi().unwrap().tables
    };
    assert_ne!(tables("pci-testdev,bus=below,membar=16G"), tables("pci-testdev,bus=below,membar=128G"));
}

/// The plan's own words, without the TEE and its host's CPU, and with these devices in the places of what is passed.
pub(crate) fn emulated(plan: &Plan, functions: &[&str]) -> Vec<String> {
    let start = plan.argv.iter().position(|word| word == "-name").unwrap();
    let mut words: Vec<String> = plan.argv[start..].to_vec();
    for gone in ["tdx-guest,", "sev-snp-guest,", "iommufd,"] {
        let is_gone =
            |word: &String| word.starts_with(gone) || word.contains(&format!("\"{}\"", gone.trim_end_matches(',')));
        if let Some(at) = words.iter().position(is_gone) {
            words.drain(at - 1..=at);
        }
    }
    // Nobody is there to let it run.
    words.retain(|word| !WAIT.contains(&word.as_str()));
    for word in &mut words {
        *word = word.replace(",confidential-guest-support=tee", "");
        *word = word.replace("host,pmu=off", "max,phys-bits=46,pmu=off,vendor=GenuineIntel");
        *word = word.replace("EPYC-v4,", "max,");
        // There is no second NUMA node here, and no function to pass.
        if let Some((memory, _)) = word.split_once(",host-nodes=") {
            *word = memory.to_owned();
        }
        if word == "kvm" {
            "tcg,thread=multi".clone_into(word);
        } else if word.starts_with("vhost-vsock-pci,") {
            // This host has no vsock: another virtio device of the same place.
            *word = "virtio-balloon-pci,id=vsock,bus=pcie.0,addr=0xf,disable-legacy=on,iommu_platform=on".to_owned();
        } else if let Some(rest) = word.strip_prefix("vfio-pci,id=pci") {
            let (index, _) = rest.split_once(',').unwrap();
            *word = format!("{},bus=port-pci{index}", functions[index.parse::<usize>().unwrap()]);
        }
    }
    words.extend(["-object".into(), "memory-backend-memfd,id=pmr,share=on,size=4G,prealloc=off".into()]);
    words
}

/// Something for each descriptor of the plan, and our ends of those that are sockets.
pub(crate) fn inherited(plan: &Plan, firmware: &[u8]) -> (Vec<(i32, OwnedFd)>, Vec<UnixStream>) {
    let mut peers = Vec::new();
    let file = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        OwnedFd::from(file)
    };
    let mut of = |role: &Role| match role {
        Role::Qmp | Role::Console | Role::Agent => {
            let (ours, theirs) = UnixStream::pair().unwrap();
            peers.push(ours);
            OwnedFd::from(theirs)
        }
        Role::Artifact("firmware-tdx.fd" | "firmware-snp.fd") => file(firmware),
        Role::Artifact("vmlinuz") => file(&bz_image()),
        _ => file(&[0; 1 << 20]),
    };
    let needed = plan.descriptors.iter().filter(|descriptor| !matches!(descriptor.role, Role::Device(_)));
    (needed.map(|descriptor| (descriptor.number, of(&descriptor.role))).collect(), peers)
}

/// What QEMU takes for a bzImage (Documentation/arch/x86/boot.rst).
fn bz_image() -> Vec<u8> {
    let mut kernel = vec![0; 1 << 16];
    kernel[0x1f1] = 4;
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    kernel[0x211] = 1;
    kernel[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    kernel
}

#[test]
fn captured_files_are_taken_as_linux_shows_them() {
    let (Some(tables), Some(rsdp), Some(loader)) = (
        vector("tdx/platform/tdx-measure/runtime-capture/acpi_tables.bin"),
        vector("tdx/platform/tcg-dumps/runtime-capture/etc_acpi_rsdp"),
        vector("tdx/platform/tcg-dumps/runtime-capture/etc_table-loader"),
    ) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let import = || Answer::import(directory.path()).map_err(|error| error.to_string());
    write("etc/acpi/tables/raw", &tables);
    write("etc/acpi/rsdp", &rsdp);
    assert!(import().unwrap_err().ends_with("etc/table-loader"));
    write("etc/table-loader/raw", &loader);
    let found = import().unwrap();
    assert_eq!((found.qemu_version, found.fw_cfg.get("bootorder")), (None, None));
    assert_eq!(found.fw_cfg.get("etc/acpi/tables"), Some(&*tables));
    write("etc/acpi/tables/raw", &tables[..9671]);
    assert!(import().unwrap_err().contains("it lost the padding"));
}
