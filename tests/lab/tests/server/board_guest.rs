//! A guest with a whole board: eight modelled GPUs and four NVSwitches, taken out of protected PCIe for a guest without a TEE, and
//! counted by it.
//!
//! It takes minutes: with each write of the guest's kernel to the windows of one of twelve root ports, and each time that it turns
//! the decoding of a function off and on, QEMU takes the memory behind them from KVM and the IOMMU and gives it back, all emulated.

use std::time::Instant;

use lab::Server;
use serde_json::Value;

use crate::guest;

/// How long the guest may take, in seconds, on a machine that has other things to do too.
const PATIENCE_S: u64 = 2700;

pub(crate) fn a_guest_gets_the_whole_board_and_counts_it(server: &mut Server<'_>) {
    let (gpus, switches) = (guest::addresses(server, "10de:2330"), guest::addresses(server, "10de:22a3"));
    let board: Vec<&str> = gpus.iter().chain(&switches).map(String::as_str).collect();
    let start = Instant::now();
    let passed = |what: &str| eprintln!("the board: {what} after {} s", start.elapsed().as_secs());
    server.run_for(600, "/opt/bullion gpu set-mode ppcie --all").expect(0);
    passed("in the mode ppcie");
    let resets = |server: &Server<'_>| (0..board.len()).map(|index| bus_resets(server, index)).collect::<Vec<_>>();
    let before = resets(server);
    board.iter().for_each(|function| guest::bind(server, function));
    // What the guest counts before anything else is not what the plan has counted: it reads its own sysfs.
    let counted = "[guest.gpus]\ncount = 8\nswitches = 4\n";
    guest::describe_slow(server, "board", PATIENCE_S, &format!("{}{counted}", guest::pci(&board)));
    guest::launch(server, "board");
    guest::wait_long_for(server, PATIENCE_S, "board", "QEMU started");
    passed("out of it, reset, and QEMU started");
    guest::wait_long_for(server, PATIENCE_S, "board", "the guest is ready");
    passed("the guest is ready");
    let console = server.run("/opt/bullion logs board").expect(0).stdout;
    let seen = |text: &str| console.matches(text).count();
    assert_eq!((seen("[10de:2330] type 00"), seen("[10de:22a3] type 00")), (8, 4), "{console}");
    let listed = server.run("/opt/bullion --json gpu list").expect(0).json();
    let devices = listed["devices"].as_array().unwrap();
    assert!(devices.len() == 12 && devices.iter().all(|device| device["vm"] == "board"), "{listed:#}");
    for (index, before) in before.iter().enumerate() {
        let state = server.model(index, "show");
        assert_eq!((&state["active"], &state["session"]), (&Value::from(0), &Value::from(false)), "{state}");
        assert_eq!(state["violations"], Value::Array(Vec::new()), "{state}");
        assert!(bus_resets(server, index) > *before, "{index}: {state}");
    }
    guest::stop(server, "board");
    passed("stopped");
    board.iter().for_each(|function| guest::give_back(server, function));
}

/// How many bus resets have reached the modelled device number `index`.
fn bus_resets(server: &Server<'_>, index: usize) -> usize {
    let state = server.model(index, "show");
    state["resets"].as_array().unwrap().iter().filter(|kind| **kind == "bus").count()
}
