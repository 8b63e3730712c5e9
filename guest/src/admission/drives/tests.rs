use super::super::tests::{MACHINE, block_device, sysfs};
use super::*;

const FIRST: (&str, &str, &str, &str, Option<&str>) = ("0000:01:00.0", "144d", "a824", "010802", Some("nvme"));
const SECOND: (&str, &str, &str, &str, Option<&str>) = ("0000:0a:00.0", "1b36", "0010", "010802", Some("nvme"));

fn with(functions: &[(&str, &str, &str, &str, Option<&str>)]) -> tempfile::TempDir {
    let directory = sysfs(&[&MACHINE, functions].concat());
    block_device(&directory, "bus/pci/devices/0000:00:02.0/virtio0/block/vda");
    directory
}

fn drives(directory: &tempfile::TempDir, count: usize) -> Result<Vec<String>, String> {
    let drives = Buses(directory.path()).drives(count, &["vda".to_owned()]).map_err(|error| error.to_string())?;
    Ok(drives.into_iter().map(|drive| drive.address).collect())
}

#[test]
fn drives_are_those_of_the_class_in_the_order_of_their_addresses() {
    let directory = with(&[SECOND, FIRST]);
    assert_eq!(drives(&directory, 2).unwrap(), ["0000:01:00.0", "0000:0a:00.0"]);
    // Whoever names a maker and a model is not asked: Linux's driver goes by the class.
    let directory = with(&[FIRST, ("0000:02:00.0", "1af4", "1042", "010802", Some("nvme"))]);
    assert_eq!(drives(&directory, 2).unwrap(), ["0000:01:00.0", "0000:02:00.0"]);
}

#[test]
fn one_drive_more_or_less_is_refused() {
    let none = "there are 0 NVMe controllers beside those of the root file system, the configuration has volumes on 1";
    assert_eq!(drives(&with(&[]), 1).unwrap_err(), none);
    let two = "there are 2 NVMe controllers beside those of the root file system (0000:01:00.0, 0000:0a:00.0), \
               the configuration has volumes on 1";
    assert_eq!(drives(&with(&[FIRST, SECOND]), 1).unwrap_err(), two);
    // Non-volatile memory of another interface is no drive.
    let other = ("0000:02:00.0", "144d", "a824", "010801", None);
    assert_eq!(drives(&with(&[FIRST, other]), 1).unwrap(), ["0000:01:00.0"]);
    assert!(drives(&with(&[other]), 1).is_err());
}

#[test]
fn a_drive_has_the_kernels_driver_and_no_other() {
    for (driver, words) in [(None, "has no driver, expected \"nvme\""), (Some("other"), "has the driver \"other\"")] {
        let error = drives(&with(&[(FIRST.0, FIRST.1, FIRST.2, FIRST.3, driver)]), 1).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_drives_of_the_root_are_no_volumes() {
    let directory = with(&[FIRST, SECOND]);
    block_device(&directory, "bus/pci/devices/0000:01:00.0/nvme/nvme0/nvme0n1/nvme0n1p2");
    let found = Buses(directory.path()).drives(1, &["nvme0n1p2".to_owned()]).unwrap();
    assert_eq!(found, [Drive { address: "0000:0a:00.0".to_owned() }]);
    assert!(Buses(directory.path()).drives(1, &["nvme9n1".to_owned()]).is_err(), "a root that is nowhere");
}

/// Gives the block device at `place` a size in sectors.
fn sized(directory: &tempfile::TempDir, place: &str, sectors: &str) {
    block_device(directory, place);
    fs::write(directory.path().join(place).join("size"), sectors).unwrap();
}

#[test]
fn a_drive_has_one_namespace() {
    let directory = with(&[FIRST, SECOND]);
    let [first, second] = [FIRST, SECOND].map(|function| Drive { address: function.0.to_owned() });
    let namespace = |drive| Buses(directory.path()).namespace(drive);
    assert_eq!(namespace(&first).unwrap(), None);
    sized(&directory, "bus/pci/devices/0000:0a:00.0/nvme/nvme0/nvme0n1", "0\n");
    assert_eq!(namespace(&second).unwrap(), None, "its size is not known yet");
    fs::write(directory.path().join("class/block/nvme0n1/size"), "131072\n").unwrap();
    assert_eq!(namespace(&second).unwrap(), Some(Disk { name: "nvme0n1".to_owned(), bytes: 64 << 20 }));
    assert_eq!(namespace(&first).unwrap(), None, "it is the other's");
    // What the host left on it is no namespace.
    sized(&directory, "bus/pci/devices/0000:0a:00.0/nvme/nvme0/nvme0n1/nvme0n1p1", "8\n");
    fs::write(directory.path().join("class/block/nvme0n1p1/partition"), "1\n").unwrap();
    assert!(namespace(&second).unwrap().is_some());
    sized(&directory, "bus/pci/devices/0000:0a:00.0/nvme/nvme0/nvme0n2", "8\n");
    let error = namespace(&second).unwrap_err().to_string();
    assert_eq!(error, "the NVMe controller 0000:0a:00.0 has the namespaces nvme0n1, nvme0n2, expected one");
}

#[test]
fn a_namespace_with_several_ways_to_it_is_found_by_its_controller() {
    let directory = with(&[FIRST]);
    let subsystem = "devices/virtual/nvme-subsystem/nvme-subsys0";
    sized(&directory, &format!("{subsystem}/nvme0n1"), "131072\n");
    let controller = directory.path().join("bus/pci/devices/0000:01:00.0/nvme/nvme0");
    fs::create_dir_all(&controller).unwrap();
    std::os::unix::fs::symlink(&controller, directory.path().join(subsystem).join("nvme0")).unwrap();
    sized(&directory, "bus/pci/devices/0000:01:00.0/nvme/nvme0/nvme0c0n1", "131072\n");
    fs::write(directory.path().join("class/block/nvme0c0n1/hidden"), "1\n").unwrap();
    let drive = Drive { address: FIRST.0.to_owned() };
    let found = Buses(directory.path()).namespace(&drive).unwrap();
    assert_eq!(found.map(|disk| disk.name), Some("nvme0n1".to_owned()));
    // A way by a second controller: two volumes would be on one disk.
    let directory = with(&[FIRST, SECOND]);
    sized(&directory, &format!("{subsystem}/nvme0n1"), "131072\n");
    for (address, name) in [(FIRST.0, "nvme0"), (SECOND.0, "nvme1")] {
        let controller = directory.path().join("bus/pci/devices").join(address).join("nvme").join(name);
        fs::create_dir_all(&controller).unwrap();
        std::os::unix::fs::symlink(&controller, directory.path().join(subsystem).join(name)).unwrap();
    }
    let error = Buses(directory.path()).namespace(&drive).unwrap_err().to_string();
    assert!(error.contains("nvme0n1") && error.contains("another controller's too"), "{error}");
}
