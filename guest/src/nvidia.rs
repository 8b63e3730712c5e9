//! NVIDIA's driver, from the moment its modules are loaded until containers can have its GPUs.
//!
//! The driver makes no device nodes, and nobody else does here: no udev, no `nvidia-modprobe`. In a confidential mode a GPU is initialised once
//! for each reset, so `nvidia-persistenced` opens it first and keeps it open; who comes later would find it closed for good. What the GPUs
//! say of themselves is not asked here. Numbers: open-gpu-kernel-modules 550.163.01, `nv-chardev-numbers.h`, `uvm_common.h`, `nv-procfs.c`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use crate::children::{Children, Program};
use crate::failure::{Failure, OrFail as _, Stage};

/// Where the driver says what it has.
const PROC: &str = "/proc/driver/nvidia/gpus";
const DEVICES: &str = "/proc/devices";
/// Major number of GPUs and of the control device, and the latter's minor number.
const MAJOR: u64 = 195;
const CONTROL_MINOR: u64 = 255;
/// Its major number is given when it is loaded.
const UVM: &str = "nvidia-uvm";
/// Keeps the GPUs initialised. Its mode for unified memory is for one confidential GPU; on others, it says that it is not supported and goes on.
const PERSISTENCE: [&str; 2] = ["/usr/bin/nvidia-persistenced", "--uvm-persistence-mode"];
/// What of the driver's files goes into containers, by the image.
const TEMPLATE: &str = "/usr/lib/bullion/cdi.json";
/// Where podman looks for what it gives to containers (containers.conf(5), `cdi_spec_dirs`).
const DESCRIPTIONS: &str = "/etc/cdi";
/// The name that workloads give to all GPUs.
pub(crate) const ALL: &str = "nvidia.com/gpu=all";

/// A character device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    path: String,
    major: u64,
    minor: u64,
}

/// Makes the driver's GPUs usable, which must be `expected` ones. False where the image has no such driver: then the GPUs are not for
/// containers. Needs a writable `/etc`.
pub(crate) fn begin(expected: u32, children: &Children) -> Result<bool, Failure> {
    if !Path::new(PROC).is_dir() {
        // A workload that was to have GPUs would run without, and say what it likes of itself.
        return match Path::new(TEMPLATE).exists() {
            true => Err(Failure::new(Stage::Gpus, "NVIDIA's driver is in the image, and is not loaded")),
            false => Ok(false),
        };
    }
    let minors = minors(Path::new(PROC)).or_fail_doing(Stage::Gpus, PROC)?;
    if u32::try_from(minors.len()) != Ok(expected) {
        let reason = format_args!("NVIDIA's driver has {} GPUs, the configuration names {expected}", minors.len());
        return Err(Failure::new(Stage::Gpus, reason));
    }
    let table = fs::read_to_string(DEVICES).or_fail_doing(Stage::Gpus, DEVICES)?;
    let (shared, gpus) = (shared(uvm_major(&table)), gpus(&minors));
    for node in shared.iter().chain(&gpus) {
        make(node).or_fail_doing(Stage::Gpus, format_args!("making {}", node.path))?;
    }
    children.run(&Program::new(PERSISTENCE)).or_fail(Stage::Gpus)?;
    let template = fs::read_to_string(TEMPLATE).or_fail_doing(Stage::Gpus, TEMPLATE)?;
    let description = describe(&template, &shared, &gpus).or_fail_doing(Stage::Gpus, TEMPLATE)?;
    let path = format!("{DESCRIPTIONS}/nvidia.json");
    fs::create_dir_all(DESCRIPTIONS).and_then(|()| fs::write(&path, description)).or_fail_doing(Stage::Gpus, &path)?;
    Ok(true)
}

/// The minor numbers of the driver's GPUs, in the order of their addresses.
fn minors(directory: &Path) -> io::Result<Vec<u64>> {
    let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let minor = |text: &str| text.lines().find_map(|line| line.strip_prefix("Device Minor:")?.trim().parse().ok());
    let of = |path: &std::path::PathBuf| {
        let path = path.join("information");
        let missing = || io::Error::other(format!("{} names no minor number", path.display()));
        minor(&fs::read_to_string(&path)?).filter(|minor| *minor < CONTROL_MINOR).ok_or_else(missing)
    };
    paths.iter().map(of).collect()
}

/// The major number of unified memory in the kernel's table of devices; `None` where its module is not there.
fn uvm_major(table: &str) -> Option<u64> {
    let (characters, _) = table.split_once("Block devices:").unwrap_or((table, ""));
    characters.lines().find_map(|line| line.trim_start().strip_suffix(UVM)?.strip_suffix(' ')?.parse().ok())
}

/// The nodes that all GPUs share.
fn shared(uvm: Option<u64>) -> Vec<Node> {
    let node = |name: &str, major, minor| Node { path: format!("/dev/{name}"), major, minor };
    let mut nodes = vec![node("nvidiactl", MAJOR, CONTROL_MINOR)];
    nodes.extend(uvm.into_iter().flat_map(|major| [node(UVM, major, 0), node("nvidia-uvm-tools", major, 1)]));
    nodes
}

fn gpus(minors: &[u64]) -> Vec<Node> {
    minors.iter().map(|minor| Node { path: format!("/dev/nvidia{minor}"), major: MAJOR, minor: *minor }).collect()
}

/// For everybody, as NVIDIA's own tools make them: a workload's user is whom its image names.
fn make(node: &Node) -> io::Result<()> {
    mknod(node.path.as_str(), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(node.major, node.minor))?;
    // Whatever the mask of this process.
    fs::set_permissions(&node.path, fs::Permissions::from_mode(0o666))
}

/// The description that podman reads: the image's, with the nodes that all containers get, and each GPU and all of them by name.
fn describe(template: &str, shared: &[Node], gpus: &[Node]) -> Result<String, String> {
    let mut description: Value = serde_json::from_str(template).map_err(|error| error.to_string())?;
    let nodes = |nodes: &[Node]| nodes.iter().map(|node| json!({ "path": node.path })).collect::<Vec<_>>();
    let device = |name: &str, of: &[Node]| json!({ "name": name, "containerEdits": { "deviceNodes": nodes(of) } });
    let mut devices: Vec<Value> =
        gpus.iter().zip(0..).map(|(node, n)| device(&format!("{n}"), std::slice::from_ref(node))).collect();
    devices.push(device("all", gpus));
    let edits =
        description.get_mut("containerEdits").and_then(Value::as_object_mut).ok_or("it has no containerEdits")?;
    edits.insert("deviceNodes".to_owned(), nodes(shared).into());
    let whole = description.as_object_mut().ok_or("it is no object")?;
    whole.insert("devices".to_owned(), devices.into());
    Ok(description.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the driver writes it (`nv_procfs_read_gpu_info`).
    const INFORMATION: &str = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 34\nVideo BIOS: \t 96.00.74.00.0d\nBus Type: \t PCIe\n\
        DMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 0\nGPU Excluded:\t No\n";

    #[test]
    fn minor_numbers_are_the_drivers() {
        let root = tempfile::tempdir().unwrap();
        let add = |address: &str, text: &str| {
            fs::create_dir(root.path().join(address)).unwrap();
            fs::write(root.path().join(address).join("information"), text).unwrap();
        };
        assert_eq!(minors(root.path()).unwrap(), [0_u64; 0]);
        add("0000:01:00.0", INFORMATION);
        add("0000:0a:00.0", &INFORMATION.replace("Minor: \t 0", "Minor: \t 7"));
        assert_eq!(minors(root.path()).unwrap(), [0, 7]);
        add("0000:0b:00.0", &INFORMATION.replace("Minor: \t 0", "Minor: \t 255"));
        assert!(
            minors(root.path()).unwrap_err().to_string().ends_with("0000:0b:00.0/information names no minor number")
        );
    }

    #[test]
    fn unified_memory_has_the_number_of_the_kernels_table() {
        let table = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n509 nvidia-caps\n510 nvidia-uvm\n\nBlock devices:\n259 blkext\n";
        assert_eq!(uvm_major(table), Some(510));
        assert_eq!(uvm_major(&table.replace("nvidia-uvm", "other")), None);
        assert_eq!(uvm_major("Character devices:\n  1 mem\nBlock devices:\n510 nvidia-uvm\n"), None);
    }

    #[test]
    fn containers_get_the_nodes_that_are_there() {
        let template = include_str!("../../image-recipes/gpu/cdi.json");
        let text = describe(template, &shared(Some(510)), &gpus(&[0, 7])).unwrap();
        let made: Value = serde_json::from_str(&text).unwrap();
        let paths = |value: &Value| {
            let nodes = value["containerEdits"]["deviceNodes"].as_array().unwrap();
            nodes.iter().map(|node| node["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((&made["kind"], &made["cdiVersion"]), (&json!("nvidia.com/gpu"), &json!("0.6.0")));
        assert_eq!(paths(&made), ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]);
        let devices = made["devices"].as_array().unwrap();
        let named: Vec<_> = devices.iter().map(|device| (device["name"].as_str().unwrap(), paths(device))).collect();
        let (first, second) = ("/dev/nvidia0".to_owned(), "/dev/nvidia7".to_owned());
        let expected = [("0", vec![first.clone()]), ("1", vec![second.clone()]), ("all", vec![first, second])];
        assert_eq!(named, expected);
        assert!(made["containerEdits"]["mounts"].as_array().is_some_and(|mounts| !mounts.is_empty()));
        assert!(describe("[]", &[], &[]).is_err() && describe("{", &[], &[]).is_err());
    }
}
