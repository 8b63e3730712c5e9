//! Guests with a modelled GPU: the server's kernel and its VFIO pass it to a guest under the server's KVM, in whatever state it was found.
//!
//! The guest has no TEE, so that its GPU is brought into the mode `off`; what a guest's driver would do to the GPU is told to the
//! model, which says what reached it.

use lab::Server;
use serde_json::Value;

use crate::guest;

/// Of the model that is the server's first one.
const FIRST: usize = 0;

fn gpus(server: &mut Server<'_>) -> Vec<String> {
    guest::addresses(server, "10de:2330")
}

/// The resets that reached the model since it had `before` of them.
fn resets_since(server: &Server<'_>, before: usize) -> Vec<String> {
    let all = resets(server);
    all.get(before..).unwrap_or_default().to_vec()
}

fn resets(server: &Server<'_>) -> Vec<String> {
    let state = server.model(FIRST, "show");
    let names = state["resets"].as_array().unwrap().iter().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

/// Starts a guest with the first GPU, waits until it is ready, and asserts that a bus reset came first.
fn start(server: &mut Server<'_>, name: &str, gpu: &str) {
    let before = resets(server).len();
    guest::describe(server, name, &guest::pci(&[gpu]));
    guest::launch(server, name);
    guest::wait_for(server, name, "the guest is ready");
    let resets = resets_since(server, before);
    assert!(resets.iter().any(|kind| kind == "bus"), "{resets:?}");
    let state = server.model(FIRST, "show");
    assert_eq!((&state["active"], &state["session"]), (&Value::from(0), &Value::from(false)), "{state}");
    assert_eq!(state["violations"], Value::Array(Vec::new()), "{state}");
}

pub(crate) fn a_guest_sees_the_gpu_that_it_was_given(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(0);
    server.run(&format!("/opt/bullion gpu set-mode on {gpu}")).expect(0);
    guest::bind(server, &gpu);
    start(server, "sees-gpu", &gpu);
    let console = server.run("/opt/bullion logs sees-gpu").expect(0);
    console.says(&["[10de:2330] type 00 class 0x030200"]);
    let said = server.run("cat /run/lab-sees-gpu.err").stdout;
    for step in ["write 0 to CCM", "secondary-bus reset, keep awake, wait for boot", "verify that the mode is off"] {
        assert!(said.contains(&format!("gpu {gpu}: {step}")), "{step}: {said}");
    }
    // What a guest has is shown, and not changed.
    let listed = server.run("/opt/bullion --json gpu list").expect(0).json();
    assert_eq!(listed["devices"][0]["vm"], "sees-gpu");
    assert_eq!(listed["devices"][0]["mode"], "off");
    let before = resets(server).len();
    let refused = server.run(&format!("/opt/bullion gpu set-mode on {gpu}")).expect(3);
    refused.says(&["is in use or being changed by another process of bullion"]);
    assert_eq!(resets(server).len(), before);
    let metrics = server.run("/opt/bullion metrics --gpus").expect(0);
    metrics.says(&[&format!("bullion_gpu_in_use{{pci_bus_id=\"{gpu}\"}} 1")]);
    guest::stop(server, "sees-gpu");
    guest::give_back(server, &gpu);
}

pub(crate) fn a_gpu_of_a_guest_that_was_killed_goes_clean_to_the_next(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(0);
    guest::bind(server, &gpu);
    guest::describe(server, "killed-gpu", &guest::pci(&[&gpu]));
    guest::launch(server, "killed-gpu");
    guest::wait_for(server, "killed-gpu", "QEMU started");
    server.model(FIRST, "session");
    server.run(&format!("pkill -KILL -f {}", guest::QEMU)).expect(0);
    assert_ne!(guest::exit_code(server, "killed-gpu"), 0);
    guest::forget(server, "killed-gpu");
    // VFIO resets the function when the last one closes it, which is not enough.
    assert_eq!(server.model(FIRST, "show")["session"], true, "what killed guests leave");
    start(server, "killed-gpu", &gpu);
    guest::stop(server, "killed-gpu");
    guest::give_back(server, &gpu);
}

pub(crate) fn a_gpu_asleep_is_woken_for_its_guest(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(0);
    guest::bind(server, &gpu);
    // Earlier scenarios have kept it awake.
    let sleep = format!(
        "cd /sys/bus/pci/devices/{gpu}; echo auto >power/control
         for i in $(seq 2000); do [ $(cat power_state) = D3hot ] && break; sleep 0.1; done; cat power_state"
    );
    server.run(&sleep).expect(0).says(&["D3hot"]);
    start(server, "asleep", &gpu);
    let power = format!("cd /sys/bus/pci/devices/{gpu}; cat power/control power_state");
    assert_eq!(server.run(&power).expect(0).stdout, "on\nD0\n");
    guest::stop(server, "asleep");
    assert_eq!(server.run(&power).expect(0).stdout, "on\nD0\n", "it is left awake");
    guest::give_back(server, &gpu);
}

pub(crate) fn a_gpu_that_a_tool_left_in_mode_two_is_mended(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(0);
    guest::bind(server, &gpu);
    server.model(FIRST, "invalid-mode");
    let listed = server.run("/opt/bullion --json gpu list").expect(0).json();
    assert_eq!(listed["devices"][0]["mode"], "invalid");
    start(server, "mode-two", &gpu);
    guest::stop(server, "mode-two");
    guest::give_back(server, &gpu);
}

pub(crate) fn a_security_processor_that_does_not_answer_is_restarted(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(0);
    guest::bind(server, &gpu);
    server.model(FIRST, "break silent-fsp");
    let listed = server.run("/opt/bullion gpu list").expect(0);
    listed.says(&["the security processor has not answered within 5 s"]);
    // By a change of mode, which restarts it with the gentlest reset that does,
    let before = resets(server).len();
    server.run(&format!("/opt/bullion gpu set-mode off {gpu}")).expect(0).says(&["set and verified"]);
    assert_eq!(resets_since(server, before), ["function"]);
    // and by a launch, whose resets are bus resets.
    server.model(FIRST, "break silent-fsp");
    start(server, "silent", &gpu);
    guest::stop(server, "silent");
    guest::give_back(server, &gpu);
}

pub(crate) fn a_launch_and_a_change_of_mode_do_not_meet(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(0);
    guest::bind(server, &gpu);
    guest::describe(server, "meets", &guest::pci(&[&gpu]));
    // The change of mode is stopped in its middle, and goes on once the launch has been refused.
    let script = format!(
        "/opt/bullion gpu set-mode on {gpu} >/run/lab-set.out 2>&1 & set=$!
         while [ ! -s /run/lab-set.out ]; do sleep 0.01; done; kill -STOP $set
         /opt/bullion launch /run/lab-meets.toml; echo \"launch: $?\"
         kill -CONT $set; wait $set; echo \"set-mode: $?\"; cat /run/lab-set.out; rm /run/lab-set.out"
    );
    let told = server.run_for(600, &script).expect(0);
    told.says(&[
        "launch: 3",
        "is in use or being changed by another process of bullion",
        "set-mode: 0",
        "set and verified",
    ]);
    // The other way round: the launch has the GPU before its first step.
    guest::launch(server, "meets");
    guest::wait_for(server, "meets", &format!("gpu {gpu}: "));
    server.run(&format!("/opt/bullion gpu set-mode on {gpu}")).expect(3).says(&["another process of bullion"]);
    guest::wait_for(server, "meets", "the guest is ready");
    assert_eq!(server.model(FIRST, "show")["active"], 0);
    guest::stop(server, "meets");
    guest::give_back(server, &gpu);
}

pub(crate) fn a_gpu_keeps_its_mode_when_the_server_starts_again(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(0);
    server.run(&format!("/opt/bullion gpu set-mode on {gpu}")).expect(0);
    let before = resets(server).len();
    server.cut_power();
    server.power_on().unwrap_or_else(|error| panic!("after the power cut: {error}"));
    server.run("modprobe -a kvm_amd vfio-pci").expect(0);
    assert!(resets_since(server, before).contains(&"power".to_owned()));
    let listed = server.run("/opt/bullion --json gpu list").expect(0).json();
    assert_eq!(listed["devices"][0]["mode"], "on");
    assert_eq!(listed["devices"][0]["pending_mode"], "on");
    server.run(&format!("/opt/bullion gpu set-mode on {gpu}")).expect(0).says(&["mode on: already set"]);
    server.run(&format!("/opt/bullion gpu set-mode off {gpu}")).expect(0);
}

pub(crate) fn a_bus_reset_that_would_reach_a_stranger_is_refused(server: &mut Server<'_>) {
    let gpu = gpus(server).remove(1);
    let stranger = guest::addresses(server, "1234:11e8").remove(0);
    for function in [&gpu, &stranger] {
        guest::bind(server, function);
    }
    guest::describe(server, "strange", &guest::pci(&[&gpu]));
    let refused = guest::launch_to_the_end(server, "strange").expect(3);
    refused.says(&[&format!("a secondary-bus reset would also reset {stranger}")]);
    // A function-level reset reaches nobody else, whatever the kernel thinks of bus resets by now.
    for mode in ["on", "off"] {
        server.run(&format!("/opt/bullion gpu set-mode {mode} {gpu}")).expect(0).says(&["set and verified"]);
    }
    let recover = format!("/opt/bullion gpu recover {gpu}");
    server.run(&recover).expect(0).says(&["wake", "well"]);
    server.run("rm -f /run/lab-strange.*").expect(0);
    for function in [&gpu, &stranger] {
        guest::give_back(server, function);
    }
}

pub(crate) fn a_guest_sees_the_two_b200_that_it_was_given(server: &mut Server<'_>) {
    let gpus = guest::addresses(server, "10de:2901");
    server.run_for(600, "/opt/bullion gpu set-mode on --all").expect(0);
    gpus.iter().for_each(|gpu| guest::bind(server, gpu));
    guest::describe(server, "pair", &guest::pci(&gpus.iter().map(String::as_str).collect::<Vec<_>>()));
    guest::launch(server, "pair");
    guest::wait_for(server, "pair", "the guest is ready");
    let console = server.run("/opt/bullion logs pair").expect(0).stdout;
    assert_eq!(console.matches("[10de:2901] type 00 class 0x030200").count(), gpus.len(), "{console}");
    for index in 0..gpus.len() {
        let state = server.model(index, "show");
        assert_eq!((&state["active"], &state["session"]), (&Value::from(0), &Value::from(false)), "{state}");
        assert_eq!(state["violations"], Value::Array(Vec::new()), "{state}");
        assert!(state["resets"].as_array().unwrap().contains(&Value::from("bus")), "{state}");
    }
    guest::stop(server, "pair");
    gpus.iter().for_each(|gpu| guest::give_back(server, gpu));
}
