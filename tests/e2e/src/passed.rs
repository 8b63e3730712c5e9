//! A host with an NVMe drive to pass, where there is none: a PCI function that only sysfs shows, and a QEMU that makes emulated drives of
//! what it is told to pass. The description, the checks, the plan and the guest with its kernel's own driver are real; VFIO is not there, and is
//! `tests/lab`'s to try.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Bench, Run, run, skipped};

/// Where the function is said to be.
pub const ADDRESS: &str = "0000:c1:00.0";

/// Gives the words behind it a sysfs with the functions in `$1`, and no others.
const WITH_FUNCTIONS: &str = "mount --bind \"$1\" /sys/bus/pci/devices && shift && exec \"$@\"";

/// QEMU, behind a shell that looks through its words: what would be passed is another device.
const WRAPPER: &str = r#"#!/bin/sh
tree=TREE
for word do
  shift
  case $word in
    vfio-pci,*) more=yes; id=${word#vfio-pci,}; id=${id%%,host=*}; word=INSTEAD ;;
  esac
  set -- "$@" "$word"
done
[ -z "$more" ] || set -- "$@" MORE
export QEMU_MODULE_DIR="$tree/usr/lib/x86_64-linux-gnu/qemu"
exec "$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tree/usr/lib/x86_64-linux-gnu" \
  "$tree/usr/bin/qemu-system-x86_64" -L "$tree/usr/share/qemu" -L "$tree/usr/share/seabios" "$@"
"#;

/// The host.
#[derive(Debug)]
pub struct PassedDrive {
    tree: PathBuf,
    directory: TempDir,
}

impl PassedDrive {
    /// `None` (and a word why) where QEMU's tree is not named, or this user can mount nothing.
    pub fn find() -> Option<Self> {
        let tree = std::env::var_os("BULLION_TEST_QEMU_TREE").map(PathBuf::from).filter(|tree| tree.exists());
        let Some(tree) = tree else {
            skipped("a drive that is passed: BULLION_TEST_QEMU_TREE is set by scripts/test only");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let function = directory.path().join("devices").join(ADDRESS);
        std::fs::create_dir_all(&function).unwrap();
        for (name, value) in [("vendor", "0x1b36"), ("device", "0x0010"), ("class", "0x010802"), ("numa_node", "-1")] {
            std::fs::write(function.join(name), format!("{value}\n")).unwrap();
        }
        symlink("../../../bus/pci/drivers/vfio-pci", function.join("driver")).unwrap();
        symlink("../../../../kernel/iommu_groups/193", function.join("iommu_group")).unwrap();
        let host = Self { tree, directory };
        if !host.within(&["true".as_ref()]).status().is_ok_and(|status| status.success()) {
            skipped("a drive that is passed: this user cannot show another sysfs");
            return None;
        }
        Some(host)
    }

    /// Runs `launch` there for a VM that is given the function, with further words. The guest finds `drives` NVMe drives, the first of them on
    /// `disk`.
    pub fn launch(&self, bench: &Bench, vm: &Path, (disk, drives): (&Path, usize), words: &[&str]) -> Run {
        let qemu = self.directory.path().join(format!("qemu-{drives}"));
        std::fs::write(&qemu, self.wrapper(disk, drives)).unwrap();
        std::fs::set_permissions(&qemu, std::fs::Permissions::from_mode(0o755)).unwrap();
        let launch = ["timeout".as_ref(), "500".as_ref(), bench.bullion.as_os_str(), "launch".as_ref(), vm.as_os_str()];
        let mut command = self.within(&launch);
        command.arg("--qemu").arg(&qemu).args(words);
        run(bench.at_home(&mut command))
    }

    fn within(&self, words: &[&std::ffi::OsStr]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", WITH_FUNCTIONS, "sh"])
            .arg(self.directory.path().join("devices"))
            .args(words);
        command
    }

    fn wrapper(&self, disk: &Path, drives: usize) -> String {
        let instead = if drives == 0 { "pci-testdev,$id" } else { "nvme,$id,serial=first,drive=first" };
        let first = format!("-drive 'if=none,id=first,format=raw,file={}'", disk.display());
        let other = |number| {
            format!(
                " -drive if=none,id=other{number},format=raw,file=null-co:// -device nvme,serial=other{number},drive=other{number}"
            )
        };
        let more: String = (1..drives).map(other).collect();
        let wrapper = WRAPPER.replace("TREE", &self.tree.display().to_string());
        wrapper.replace("INSTEAD", instead).replace("MORE", &format!("{first}{more}"))
    }
}
