use std::os::unix::fs::symlink;

use super::*;

/// A sysfs with these functions: address, vendor, device, class, driver.
pub(super) fn sysfs(functions: &[(&str, &str, &str, &str, Option<&str>)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for bus in BUSES {
        let bus = directory.path().join("bus").join(bus);
        fs::create_dir_all(bus.join("devices")).unwrap();
        fs::write(bus.join("drivers_autoprobe"), "1\n").unwrap();
        fs::write(bus.join("drivers_probe"), "").unwrap();
    }
    for (address, vendor, device, class, driver) in functions {
        let function = directory.path().join("bus/pci/devices").join(address);
        fs::create_dir(&function).unwrap();
        for (name, value) in [("vendor", vendor), ("device", device), ("class", class)] {
            fs::write(function.join(name), format!("0x{value}\n")).unwrap();
        }
        fs::write(function.join("subsystem_device"), "0x0001\n").unwrap();
        if let Some(driver) = driver {
            let driver = directory.path().join("bus/pci/drivers").join(driver);
            fs::create_dir_all(&driver).unwrap();
            fs::write(driver.join("unbind"), "").unwrap();
            symlink(&driver, function.join("driver")).unwrap();
        }
    }
    directory
}

/// The q35 machine of a guest with a root disk and the agent's ports.
pub(super) const MACHINE: [(&str, &str, &str, &str, Option<&str>); 6] = [
    ("0000:00:00.0", "8086", "29c0", "060000", None),
    ("0000:00:02.0", "1af4", "1042", "018000", Some("virtio-pci")),
    ("0000:00:04.0", "1af4", "1043", "078000", Some("virtio-pci")),
    ("0000:00:1f.0", "8086", "2918", "060100", None),
    ("0000:00:1f.2", "8086", "2922", "010601", None),
    ("0000:00:1f.3", "8086", "2930", "0c0500", None),
];

pub(super) fn text(directory: &tempfile::TempDir, path: &str) -> String {
    fs::read_to_string(directory.path().join(path)).unwrap()
}

fn addresses(devices: &[Device]) -> Vec<&str> {
    devices.iter().map(|device| device.address.as_str()).collect()
}

#[test]
fn nothing_of_an_ordinary_machine_is_refused_and_nothing_binds_by_itself() {
    let directory = sysfs(&MACHINE);
    assert_eq!(Buses(directory.path()).close().unwrap(), []);
    for bus in BUSES {
        assert_eq!(text(&directory, &format!("bus/{bus}/drivers_autoprobe")), "0");
    }
    assert_eq!(text(&directory, "bus/pci/drivers/virtio-pci/unbind"), "");
    assert_eq!(Buses(Path::new("/no-such-sysfs")).close().unwrap(), []);
}

#[test]
fn devices_bind_by_themselves_while_the_driver_of_gpus_is_loaded_and_no_longer() {
    let directory = sysfs(&[]);
    let probing = || text(&directory, "bus/pci/drivers_autoprobe");
    let buses = Buses(directory.path());
    buses.close().unwrap();
    for fails in [false, true] {
        let loaded = buses.while_probing(|| {
            assert_eq!((probing().as_str(), text(&directory, "bus/virtio/drivers_autoprobe").as_str()), ("1", "0"));
            if fails { Err(Failure::new(Stage::Modules, "no GPU")) } else { Ok(()) }
        });
        assert_eq!((loaded.is_err(), probing().as_str()), (fails, "0"));
    }
}

#[test]
fn foreign_devices_are_taken_from_their_drivers() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:00:05.0", "1b36", "0002", "070002", Some("serial")));
    functions.push(("0000:00:06.0", "8086", "10d3", "020000", None));
    // Entropy, and a virtio device of a number that nobody knows.
    functions.push(("0000:00:07.0", "1af4", "1044", "00ff00", None));
    functions.push(("0000:00:08.0", "1af4", "ffff", "010800", None));
    let directory = sysfs(&functions);
    let refused = Buses(directory.path()).close().unwrap();
    assert_eq!(addresses(&refused), ["0000:00:05.0", "0000:00:06.0", "0000:00:07.0", "0000:00:08.0"]);
    assert_eq!(refused[1].to_string(), "0000:00:06.0 8086:10d3 class 020000");
    assert_eq!(text(&directory, "bus/pci/drivers/serial/unbind"), "0000:00:05.0");
}

#[test]
fn what_says_that_it_is_a_part_of_the_machine_has_no_driver_but_that_of_ports() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:00:05.0", "1b36", "000c", "060400", Some("pcieport")));
    functions.push(("0000:00:06.0", "1b36", "0002", "060400", Some("serial")));
    functions.push(("0000:00:07.0", "8086", "2930", "070002", Some("serial")));
    let directory = sysfs(&functions);
    assert_eq!(addresses(&Buses(directory.path()).close().unwrap()), ["0000:00:06.0", "0000:00:07.0"]);
    assert_eq!(text(&directory, "bus/pci/drivers/pcieport/unbind"), "");
    assert_eq!(text(&directory, "bus/pci/drivers/serial/unbind"), "0000:00:07.0");
}

#[test]
fn a_network_card_is_for_a_configuration_with_a_network() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:02:00.0", "1af4", "1041", "020000", Some("second")));
    functions.push(("0000:01:00.0", "1af4", "1000", "020000", Some("first")));
    let directory = sysfs(&functions);
    let buses = Buses(directory.path());
    assert_eq!(buses.close().unwrap(), []);
    assert_eq!(
        addresses(&buses.settle(&Declared { network: true, ..Declared::default() }, &[]).unwrap()),
        ["0000:02:00.0"]
    );
    assert_eq!(text(&directory, "bus/pci/drivers/first/unbind"), "");
    assert_eq!(addresses(&buses.settle(&Declared::default(), &[]).unwrap()), ["0000:01:00.0", "0000:02:00.0"]);
    assert_eq!(text(&directory, "bus/pci/drivers/first/unbind"), "0000:01:00.0");
}

#[test]
fn gpus_are_for_a_configuration_with_gpus() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:01:00.0", "10de", "2330", "030200", None));
    functions.push(("0000:02:00.0", "10de", "22a3", "068000", None));
    functions.push(("0000:03:00.0", "1002", "740f", "030200", None));
    let directory = sysfs(&functions);
    let buses = Buses(directory.path());
    assert_eq!(addresses(&buses.close().unwrap()), ["0000:03:00.0"]);
    assert_eq!(buses.settle(&Declared { gpus: true, ..Declared::default() }, &[]).unwrap(), []);
    assert_eq!(addresses(&buses.settle(&Declared::default(), &[]).unwrap()), ["0000:01:00.0", "0000:02:00.0"]);
}

/// Puts a block device at `place` in sysfs.
pub(super) fn block_device(directory: &tempfile::TempDir, place: &str) {
    let device = directory.path().join(place);
    fs::create_dir_all(&device).unwrap();
    fs::create_dir_all(directory.path().join("class/block")).unwrap();
    symlink(&device, directory.path().join("class/block").join(device.file_name().unwrap())).unwrap();
}

#[test]
fn non_volatile_memory_is_for_the_root_file_system_on_it() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:01:00.0", "1b36", "0010", "010802", Some("nvme")));
    functions.push(("0000:02:00.0", "1b36", "0010", "010802", Some("other")));
    // The numbers of a virtio disk, and of a part of the chipset, which no driver has yet: Linux goes by the class.
    functions.push(("0000:03:00.0", "1af4", "1042", "010802", Some("third")));
    functions.push(("0000:04:00.0", "8086", "2922", "010802", None));
    let directory = sysfs(&functions);
    block_device(&directory, "bus/pci/devices/0000:01:00.0/nvme/nvme0/nvme0n1/nvme0n1p2");
    block_device(&directory, "bus/pci/devices/0000:00:02.0/virtio0/block/vda");
    let subsystem = "devices/virtual/nvme-subsystem/nvme-subsys1";
    block_device(&directory, &format!("{subsystem}/nvme1n1/nvme1n1p2"));
    let controller = directory.path().join("bus/pci/devices/0000:02:00.0/nvme/nvme1");
    fs::create_dir_all(&controller).unwrap();
    symlink(controller, directory.path().join(subsystem).join("nvme1")).unwrap();
    let buses = Buses(directory.path());
    assert_eq!(buses.close().unwrap(), []);
    let settled = |name: &str| {
        let declared = Declared { root: vec![name.to_owned()], ..Declared::default() };
        let refused = buses.settle(&declared, &[]).unwrap();
        addresses(&refused).join(" ")
    };
    assert_eq!(settled("nvme0n1p2"), "0000:02:00.0 0000:03:00.0 0000:04:00.0");
    assert_eq!(text(&directory, "bus/pci/drivers/nvme/unbind"), "");
    for driver in ["other", "third"] {
        assert_ne!(text(&directory, &format!("bus/pci/drivers/{driver}/unbind")), "", "{driver}");
    }
    assert_eq!(settled("nvme1n1p2"), "0000:01:00.0 0000:03:00.0 0000:04:00.0");
    assert_eq!(text(&directory, "bus/pci/drivers/nvme/unbind"), "0000:01:00.0");
    assert_eq!(settled("vda"), "0000:01:00.0 0000:02:00.0 0000:03:00.0 0000:04:00.0");
    let declared = |root: &str, drives| Declared { root: vec![root.to_owned()], drives, ..Declared::default() };
    let drives = buses.drives(1, &["vda".to_owned()]).unwrap_err().to_string();
    assert!(drives.contains("there are 4 NVMe controllers"), "{drives}");
    for (address, path) in [("0000:03:00.0", "third"), ("0000:04:00.0", "nvme")] {
        fs::remove_dir_all(directory.path().join("bus/pci/devices").join(address)).unwrap();
        fs::write(directory.path().join("bus/pci/drivers").join(path).join("unbind"), "").unwrap();
    }
    let one = directory.path().join("bus/pci/devices/0000:02:00.0/driver");
    fs::remove_file(&one).unwrap();
    symlink(directory.path().join("bus/pci/drivers/nvme"), &one).unwrap();
    let drives = buses.drives(1, &["nvme0n1p2".to_owned()]).unwrap();
    assert_eq!(buses.settle(&declared("nvme0n1p2", drives.clone()), &[]).unwrap(), []);
    assert_eq!(text(&directory, "bus/pci/drivers/nvme/unbind"), "", "the root's and the volume's keep theirs");
    assert_eq!(addresses(&buses.settle(&declared("vda", drives), &[]).unwrap()), ["0000:01:00.0"]);
    let nowhere = Declared { root: vec!["nvme9n1".to_owned()], ..Declared::default() };
    assert!(buses.settle(&nowhere, &[]).is_err());
}

#[test]
fn a_disk_that_nobody_declared_is_taken_away() {
    let directory = sysfs(&MACHINE);
    block_device(&directory, "bus/pci/devices/0000:00:02.0/virtio0/block/vda");
    let buses = Buses(directory.path());
    assert_eq!(addresses(&buses.settle(&Declared::default(), &["vda".to_owned()]).unwrap()), ["0000:00:02.0"]);
    assert_eq!(text(&directory, "bus/pci/drivers/virtio-pci/unbind"), "0000:00:02.0");
    assert!(buses.settle(&Declared::default(), &["vdz".to_owned()]).is_err());
}

#[test]
fn only_wanted_devices_are_offered_to_drivers() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:01:00.0", "1af4", "1041", "020000", None));
    let directory = sysfs(&functions);
    fs::create_dir(directory.path().join("bus/pci/devices/0000:01:00.0/virtio2")).unwrap();
    let buses = Buses(directory.path());
    buses.bind(|part| part == Part::Needed).unwrap();
    // The last that was offered.
    assert_eq!(text(&directory, "bus/pci/drivers_probe"), "0000:00:04.0");
    assert_eq!(text(&directory, "bus/virtio/drivers_probe"), "");
    buses.bind(|part| part == Part::Network).unwrap();
    assert_eq!(text(&directory, "bus/pci/drivers_probe"), "0000:01:00.0");
    assert_eq!(text(&directory, "bus/virtio/drivers_probe"), "virtio2");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let directory = sysfs(&[("0000:00:00.0", "8086", "x", "060000", None)]);
    let error = Buses(directory.path()).close().unwrap_err();
    assert!(error.to_string().contains("0000:00:00.0/device"), "{error}");
}

#[test]
fn a_transitional_device_is_what_its_subsystem_says() {
    let mut functions = MACHINE.to_vec();
    // The number of a disk, the subsystem of a network card: Linux takes it for a network card.
    functions.push(("0000:01:00.0", "1af4", "1001", "010000", Some("first")));
    functions.push(("0000:02:00.0", "1af4", "1001", "010000", Some("second")));
    let directory = sysfs(&functions);
    let subsystem = |text| fs::write(directory.path().join("bus/pci/devices/0000:02:00.0/subsystem_device"), text);
    let refused = |declared: Declared| Buses(directory.path()).settle(&declared, &[]).unwrap();
    subsystem("0x0002\n").unwrap();
    assert_eq!(addresses(&refused(Declared::default())), ["0000:01:00.0"]);
    assert_eq!(addresses(&refused(Declared { network: true, ..Declared::default() })), [""; 0]);
    // A vsock is nothing that a configuration can speak of.
    subsystem("0x0013\n").unwrap();
    assert_eq!(addresses(&Buses(directory.path()).close().unwrap()), ["0000:02:00.0"]);
}

#[test]
fn a_watchdog_and_a_pvpanic_device_are_for_a_configuration_that_names_them() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:00:19.0", "1b36", "0011", "ff0000", Some("pvpanic-pci")));
    functions.push(("0000:00:18.0", "8086", "25ab", "088000", None));
    functions.push(("0000:01:00.0", "8086", "25ab", "088000", Some("second")));
    let directory = sysfs(&functions);
    let buses = Buses(directory.path());
    assert_eq!(buses.close().unwrap(), [], "the configuration is not known yet");
    let named = |signs: &[Sign]| Declared { signs: signs.to_vec(), ..Declared::default() };
    let both = buses.settle(&named(&[Sign::Pvpanic, Sign::Watchdog]), &[]).unwrap();
    assert_eq!(
        (addresses(&both), text(&directory, "bus/pci/drivers/second/unbind")),
        (vec!["0000:01:00.0"], "0000:01:00.0".to_owned())
    );
    assert_eq!(text(&directory, "bus/pci/drivers/pvpanic-pci/unbind"), "");
    let watchdog = buses.settle(&named(&[Sign::Watchdog]), &[]).unwrap();
    assert_eq!(addresses(&watchdog), ["0000:00:19.0", "0000:01:00.0"]);
    assert_eq!(text(&directory, "bus/pci/drivers/pvpanic-pci/unbind"), "0000:00:19.0");
    let none = buses.settle(&Declared::default(), &[]).unwrap();
    assert_eq!(addresses(&none), ["0000:00:18.0", "0000:00:19.0", "0000:01:00.0"]);

    let of = |sign| buses.bind_first(sign).unwrap();
    assert_eq!((of(Sign::Pvpanic), of(Sign::Watchdog)), (Bound::Driven, Bound::NoDriver));
    assert_eq!(text(&directory, "bus/pci/drivers_probe"), "0000:00:18.0", "the first one is offered, and no other");
    assert_eq!(Buses(Path::new("/no-such-sysfs")).bind_first(Sign::Watchdog).unwrap(), Bound::NoDevice);
}

#[test]
fn a_device_that_another_driver_takes_by_its_class_is_taken_from_it() {
    let mut functions = MACHINE.to_vec();
    functions.push(("0000:00:19.0", "1b36", "0011", "010802", Some("nvme")));
    let directory = sysfs(&functions);
    assert_eq!(Buses(directory.path()).bind_first(Sign::Pvpanic).unwrap(), Bound::NoDriver);
    assert_eq!(text(&directory, "bus/pci/drivers/nvme/unbind"), "0000:00:19.0");
}
