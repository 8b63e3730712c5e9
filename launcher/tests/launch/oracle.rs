//! ACPI tables asked of QEMU, against tables that live TDX guests had.
//!
//! The machines are those of `virtee/tdx-measure`'s fixtures; the guest of the first ran on TDX with QEMU 10.2.1. Tables of
//! QEMU 10.0 to 10.2 are the same, so the judge is a tree of QEMU 10.0 (`image-recipes/older-vmm.toml`), which
//! `BULLION_TEST_OLDER_QEMU_TREE` names. Vectors are in `BULLION_VECTORS`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use launcher::QemuProgram;
use launcher::qemu::oracle::{self, Answer, Question};
use measure::shape::{Shape, TdxShape, TeeShape};

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

fn tree(variable: &str) -> Option<QemuProgram> {
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
    Shape { tee: TeeShape::Tdx(tdx), vcpus, cpu_model: "host".to_owned(), memory_mib }
}

#[test]
fn a_shape_is_asked_about_once() {
    let (Some(firmware), Some(program)) = (vector(TDX_FIRMWARE), tree("BULLION_TEST_QEMU_TREE")) else { return };
    let cache = tempfile::tempdir().unwrap();
    let ask = |vcpus, memory_mib| {
        let shape = shape(vcpus, memory_mib);
        let begun = Instant::now();
        let question = Question { program: &program, firmware: &firmware, shape: &shape };
        (oracle::ask(&question, cache.path()).unwrap(), begun.elapsed())
    };
    let acpi = |found: &Answer| found.fw_cfg.acpi().unwrap();
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
