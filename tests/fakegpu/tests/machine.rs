//! The program itself in a machine with modelled devices: sysfs, mapped registers and resets of a stock kernel.

mod server;

use server::{Parts, run};

#[test]
fn the_program_lists_and_switches_devices_of_a_machine() {
    let Some(parts) = Parts::find() else { return };
    let list = "/bullion gpu list";
    let plan = "/bullion gpu set-mode on --all --plan";
    let set = "/bullion gpu set-mode on --all";
    let again = "/bullion --quiet gpu set-mode on --all";
    let json = "/bullion --json gpu list";
    let labels = "/bullion gpu labels";
    let test = "/bullion selftest gpu --trace /tmp/traces";
    let replay = "/bullion selftest gpu --replay /tmp/traces/0000:02:00.0.jsonl";
    let off = "/bullion gpu set-mode off 0000:01:00.0";
    let metrics = "/bullion metrics --gpus";
    let commands = [list, plan, set, again, json, labels, test, replay, off, metrics];
    let ran = run(&parts, &[&["h100"], &["b200"], &["nvswitch"]], &commands);
    let (text, code) = ran.of(list);
    assert_eq!(code, 0, "{}", ran.console);
    for words in ["H100 SXM", "B200", "NVSwitch LS10", "well"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let (text, code) = ran.of(plan);
    assert_eq!(code, 0);
    assert_eq!(text.matches("write 1 to CCM").count(), 2, "{text}");
    let (text, code) = ran.of(set);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("mode on: set and verified"), "{text}");
    assert_eq!(ran.of(again).0.trim(), "mode on: already set");
    let (text, _) = ran.of(json);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let modes: Vec<_> = value["devices"].as_array().unwrap().iter().map(|device| device["mode"].as_str()).collect();
    assert_eq!(modes, [Some("on"), Some("on"), Some("off")]);
    assert_eq!(ran.devices[0].matches("reset: Function").count(), 2, "{:?}", ran.devices);
    assert!(ran.of(labels).0.contains("nvidia.com/cc.mode.state=on"), "{}", ran.of(labels).0);
    let (text, code) = ran.of(test);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("0000:01:00.0: to off: write 0 to BAR0_DECOUPLER; write 0 to CCM; secondary-bus reset"),
        "{text}"
    );
    // Without the device, the same is told of what was recorded of it.
    let (again, code) = ran.of(replay);
    assert_eq!(code, 0, "{again}");
    // What one run has counted, the next goes on with.
    let (metered, code) = ran.of(metrics);
    assert_eq!(code, 0, "{metered}");
    for (family, labels, count) in [
        ("cc_mode_transitions_total", "from=\"off\",to=\"on\",result=\"success\"", 1),
        ("cc_mode_transitions_total", "from=\"on\",to=\"off\",result=\"success\"", 1),
        ("resets_total", "kind=\"function\",result=\"success\"", 2),
    ] {
        let start = format!("bullion_gpu_{family}{{pci_bus_id=\"0000:01:00.0\",");
        let is_it = |line: &str| line.starts_with(&start) && line.ends_with(&format!("{labels}}} {count}"));
        assert!(metered.lines().any(is_it), "{family} {labels} {count}: {metered}");
    }
    let of_b200 =
        |text: &str| text.lines().filter(|line| line.contains("0000:02:00.0")).map(str::to_owned).collect::<Vec<_>>();
    assert!(of_b200(&again).len() > 3 && of_b200(&text) == of_b200(&again), "{text}\n{again}");
}

#[test]
fn a_mode_that_needs_a_bus_reset_gets_one_and_a_broken_device_is_told() {
    let Some(parts) = Parts::find() else { return };
    let devices = "/bullion gpu list";
    let set = "/bullion gpu set-mode ppcie 0000:01:00.0";
    let broken = "/bullion gpu set-mode on 0000:02:00.0";
    let recover = "/bullion gpu recover 0000:02:00.0";
    let ran =
        run(&parts, &[&["h100", "function-reset-keeps-mode"], &["h200", "recovery"]], &[devices, set, broken, recover]);
    let (text, code) = ran.of(set);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("mode ppcie: set and verified"), "{text}");
    // One bus reset is the machine's own start.
    let (_, after) = ran.devices[0].split_once("reset: Function").unwrap();
    assert!(after.contains("reset: Bus"), "{:?}", ran.devices);
    let (text, code) = ran.of(broken);
    assert_eq!(code, 3);
    assert!(text.contains("0000:02:00.0 (H200 SXM): is in recovery mode"), "{text}");
    let (text, code) = ran.of(recover);
    assert_eq!(code, 3);
    for rung in ["wake", "function-level reset", "secondary-bus reset", "remove and rescan"] {
        assert!(text.contains(rung), "{rung} in {text}");
    }
}
