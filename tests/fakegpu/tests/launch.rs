//! `bullion launch` in a machine with a modelled GPU behind an IOMMU: VFIO, resets and power management of a stock kernel. The
//! guest's QEMU is a stand-in: what happens until it starts is what is tested.

mod server;

use server::{Extra, Files, Parts, run_with, vfio_modules};
use spec::Sha256Digest;

const GPU: &str = "0000:01:00.0";
const OTHER: &str = "0000:01:00.1";

/// An image directory and a VM description for each set of functions.
fn image(files: &mut Files, vms: &[(&str, &[&str])]) {
    let command_line = "console=ttyS0 quiet";
    let artifacts = [("vmlinuz", "kernel"), ("initrd", "initrd"), ("rootfs", "rootfs"), ("cmdline", command_line)];
    let mut entries = serde_json::Map::new();
    for (name, content) in artifacts {
        files.insert(format!("image/{name}"), content.as_bytes().to_vec());
        let sha256 = Sha256Digest::of(content.as_bytes()).to_string();
        entries.insert(name.to_owned(), serde_json::json!({ "size": content.len(), "sha256": sha256 }));
    }
    let digest = "00".repeat(32);
    let manifest = serde_json::json!({
        "schema": 1, "name": "minimal", "class": "dev", "standing": "published", "format_epoch": 1,
        "artifacts": entries,
        "verity": {"algorithm": "sha256", "block_size": 4096, "data_blocks": 1, "hash_offset": 4096, "salt": "", "root_hash": digest},
        "kernel_version": "7.3.4", "command_line": command_line,
        "recipe": {"name": "minimal", "kind": "tree", "architecture": "amd64", "suites": {}, "packages": [], "dependencies": false, "assume": []},
        "lock_sha256": digest, "inputs": [],
        "guest": {"sha256": digest, "size": 1, "origin": "host"},
        "references": {}
    });
    files.insert("image/manifest.json".to_owned(), manifest.to_string().into_bytes());
    for (name, functions) in vms {
        let pci: Vec<_> = functions.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
        let text = format!(
            "schema = 1\nname = \"{name}\"\nimage = \"image\"\ntee = \"none\"\nmemory = \"128MiB\"\n[host]\npci = [{}]\n",
            pci.join(", ")
        );
        files.insert(format!("{name}.toml"), text.into_bytes());
    }
}

fn bind(address: &str) -> [String; 2] {
    let path = format!("/sys/bus/pci/devices/{address}/driver_override");
    [format!("write {path} vfio-pci"), format!("write /sys/bus/pci/drivers_probe {address}")]
}

#[test]
fn a_launch_brings_its_gpu_into_its_mode_and_through_a_bus_reset_by_vfio() {
    let (Some(parts), Some(mut files)) = (Parts::find(), vfio_modules()) else { return };
    image(&mut files, &[("vm", &[GPU])]);
    let set = format!("/bullion gpu set-mode on {GPU}");
    let plan = "/bullion vm plan vm.toml --qemu /lab-qemu";
    let launch = "/bullion launch vm.toml --qemu /lab-qemu";
    let json = "/bullion --json gpu list";
    let mut commands = bind(GPU).to_vec();
    commands.extend([set.as_str(), plan, launch, json].map(str::to_owned));
    let words: Vec<_> = commands.iter().map(String::as_str).collect();
    let extra = Extra { iommu: true, files, ..Extra::default() };
    let ran = run_with(&parts, &[&["h100"]], &words, &extra);
    // Bound to vfio-pci, and asleep: it is woken, and its memory enabled, without taking it from the driver.
    assert_eq!(ran.of(&set).1, 0, "{}", ran.console);
    let (text, _) = ran.of(plan);
    assert!(text.contains("gpu          0000:01:00.0 H100 SXM: kept awake, mode off set where it differs"), "{text}");
    let (text, _) = ran.of(launch);
    for step in ["write 0 to CCM", "secondary-bus reset, keep awake", "verify that the mode is off"] {
        assert!(text.contains(&format!("gpu {GPU}: ")) && text.contains(step), "{step}: {}", ran.console);
    }
    assert!(text.contains("QEMU started"), "{}", ran.console);
    // What the kernel says comes by the same line: the answer is the first value.
    let (text, _) = ran.of(json);
    let value = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>().next().unwrap().unwrap();
    assert_eq!(value["devices"][0]["mode"], "off");
    // The launch opens the device by VFIO, which resets the function, then the bus; closing resets the function again.
    let (_, after) = ran.devices[0].split_once("reset: Function").unwrap();
    let resets: Vec<_> = after.lines().filter_map(|line| line.split_once("reset: ")).map(|(_, kind)| kind).collect();
    let bus = resets.iter().position(|kind| *kind == "Bus").unwrap_or_else(|| panic!("{resets:?}"));
    assert!(resets[..bus].contains(&"Function") && resets[bus..].contains(&"Function"), "{resets:?}");
}

#[test]
fn a_launch_whose_reset_would_reach_another_function_is_refused_unless_that_is_passed_too() {
    let (Some(parts), Some(mut files)) = (Parts::find(), vfio_modules()) else { return };
    image(&mut files, &[("alone", &[GPU]), ("both", &[GPU, OTHER])]);
    let alone = "/bullion launch alone.toml --qemu /lab-qemu";
    let both = "/bullion launch both.toml --qemu /lab-qemu";
    let mut commands = [bind(GPU), bind(OTHER)].concat();
    commands.extend([alone, both].map(str::to_owned));
    let words: Vec<_> = commands.iter().map(String::as_str).collect();
    let extra = Extra { iommu: true, devices: vec!["edu,bus=gpu-port0,addr=0x0.1"], files };
    let ran = run_with(&parts, &[&["h100"]], &words, &extra);
    let (text, code) = ran.of(alone);
    assert_eq!(code, 3, "{}", ran.console);
    assert!(text.contains("a secondary-bus reset would also reset 0000:01:00.1"), "{text}");
    let (text, _) = ran.of(both);
    assert!(text.contains("QEMU started"), "{}", ran.console);
}
