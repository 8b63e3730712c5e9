//! What is found and written, on a tree of files.

use super::*;
use std::os::unix::fs::symlink;

/// A host with an H100 on `vfio-pci` that a QEMU has open, an NVSwitch, a PCI bridge of NVIDIA's, and a network card.
fn host() -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    let device = |address: &str, class: &str, vendor: &str, id: &str| {
        let directory = host.path().join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&directory).unwrap();
        let files = [("class", class), ("vendor", vendor), ("device", id), ("numa_node", "-1"), ("power_state", "D0")];
        for (name, text) in files {
            fs::write(directory.join(name), format!("{text}\n")).unwrap();
        }
        directory
    };
    let gpu = device("0000:41:00.0", "0x030200", "0x10de", "0x2330");
    symlink("../../../../bus/pci/drivers/vfio-pci", gpu.join("driver")).unwrap();
    symlink("../../../../kernel/iommu_groups/17", gpu.join("iommu_group")).unwrap();
    fs::create_dir_all(gpu.join("vfio-dev/vfio3")).unwrap();
    fs::write(gpu.join("numa_node"), "1\n").unwrap();
    device("0000:42:00.0", "0x068000", "0x10de", "0x22a3");
    device("0000:42:01.0", "0x060400", "0x10de", "0x1234");
    device("0000:01:00.0", "0x020000", "0x8086", "0x1521");
    let process = host.path().join("proc/4711");
    fs::create_dir_all(process.join("fd")).unwrap();
    fs::write(process.join("comm"), "qemu-system-x86\n").unwrap();
    host
}

fn find_in(host: &tempfile::TempDir) -> Vec<Found> {
    find(&host.path().join("sys"), &host.path().join("proc")).unwrap()
}

#[test]
fn gpus_and_switches_are_found_and_nothing_else() {
    let found = find_in(&host());
    let names: Vec<_> = found.iter().map(|found| found.product.unwrap().name).collect();
    assert_eq!(names, ["H100 SXM", "NVSwitch LS10"]);
    assert_eq!(
        (found[0].numa_node, found[0].iommu_group, found[0].driver.as_deref()),
        (Some(1), Some(17), Some("vfio-pci"))
    );
    assert_eq!((found[1].numa_node, found[1].iommu_group, &found[1].driver), (None, None, &None));
}

#[test]
fn a_board_that_hangs_on_its_cpu_is_known_by_its_subsystem_number() {
    let host = host();
    let gpu = host.path().join("sys/bus/pci/devices/0000:41:00.0");
    fs::write(gpu.join("device"), "0x31c2\n").unwrap();
    for (subsystem, on_its_cpu) in [("0x21f1\n", true), ("0x20e6\n", false), ("", true)] {
        fs::write(gpu.join("subsystem_device"), subsystem).unwrap();
        assert_eq!(find_in(&host)[0].product.unwrap().chip_to_chip, on_its_cpu, "{subsystem}");
    }
}

#[test]
fn a_device_is_held_by_who_has_its_vfio_device_or_group_open() {
    for file in ["/dev/vfio/devices/vfio3", "/dev/vfio/17"] {
        let host = host();
        assert_eq!(find_in(&host)[0].held_by, None);
        symlink(file, host.path().join("proc/4711/fd/9")).unwrap();
        assert_eq!(find_in(&host)[0].held_by.as_deref(), Some("process 4711 (qemu-system-x86)"), "{file}");
    }
}

#[test]
fn a_device_is_claimed_once() {
    let host = host();
    let (sysfs, address) = (host.path().join("sys"), "0000:41:00.0".parse().unwrap());
    let claim = Claim::take(&sysfs, address).unwrap();
    assert!(matches!(Claim::take(&sysfs, address), Err(ClaimError::Taken { .. })));
    drop(claim);
    assert!(Claim::take(&sysfs, address).is_ok());
}

/// The files that the kernel reads, and the order in which they are written, by a kernel that does nothing.
#[test]
fn a_bar_is_resized_between_its_driver_and_its_driver() {
    let host = host();
    let sysfs = host.path().join("sys");
    let (directory, driver) = (sysfs.join("bus/pci/devices/0000:41:00.0"), sysfs.join("bus/pci/drivers/vfio-pci"));
    fs::create_dir_all(&driver).unwrap();
    for file in ["unbind", "bind"] {
        fs::write(driver.join(file), "").unwrap();
    }
    let resize = directory.join("resource2_resize");
    let mut function = SysfsFunction::open(&sysfs, "0000:41:00.0".parse().unwrap());
    // Where the kernel refuses the size, the driver has the device back all the same.
    fs::create_dir(&resize).unwrap();
    let error = function.resize_bar(2, BarSize(13)).unwrap_err();
    assert!(error.to_string().contains("cannot write \"13\" to ") && error.to_string().contains("resource2_resize"));
    let written = |file: &str| fs::read_to_string(driver.join(file)).unwrap();
    assert_eq!([written("unbind"), written("bind")], ["0000:41:00.0"; 2]);
    fs::remove_dir(&resize).unwrap();
    function.resize_bar(2, BarSize(13)).unwrap();
    assert_eq!(fs::read_to_string(&resize).unwrap(), "13");
    let time = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    assert!(time(driver.join("unbind")) <= time(resize.clone()) && time(resize) <= time(driver.join("bind")));
    // Without a driver it stays without one.
    fs::remove_file(directory.join("driver")).unwrap();
    fs::write(driver.join("bind"), "").unwrap();
    function.resize_bar(2, BarSize(18)).unwrap();
    assert_eq!(
        (written("bind"), fs::read_to_string(directory.join("resource2_resize")).unwrap()),
        (String::new(), "18".to_owned())
    );
}

#[test]
fn a_reset_leaves_the_choice_of_methods_as_it_was() {
    let host = host();
    let sysfs = host.path().join("sys");
    let directory = sysfs.join("bus/pci/devices/0000:41:00.0");
    fs::write(directory.join("reset_method"), "flr bus\n").unwrap();
    let mut function = SysfsFunction::open(&sysfs, "0000:41:00.0".parse().unwrap());
    function.reset(ResetKind::Bus).unwrap();
    assert_eq!(fs::read_to_string(directory.join("reset")).unwrap(), "1");
    assert_eq!(fs::read_to_string(directory.join("reset_method")).unwrap(), "flr bus");
    assert_eq!(function.bus_peers(), []);
}
