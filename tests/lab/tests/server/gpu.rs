//! Modelled GPUs beside the server: their modes, and what the program tells of them.

use lab::{Run, Server};

use crate::guest;

/// How often the model was reset.
fn resets(server: &Server<'_>, index: usize) -> usize {
    server.model_log(index).matches("reset: ").count()
}

pub(crate) fn a_gpu_is_listed_and_switched_and_back(server: &mut Server<'_>) {
    let gpu = guest::addresses(server, "10de:2330").remove(0);
    server.run("/opt/bullion gpu list").expect(0).says(&[&gpu, "H100 SXM", "well"]);
    let before = resets(server, 0);
    server.run(&format!("/opt/bullion gpu set-mode on {gpu}")).expect(0).says(&["mode on: set and verified"]);
    assert!(resets(server, 0) > before, "{}", server.model_log(0));
    let listed = server.run("/opt/bullion --json gpu list").json();
    assert_eq!(listed["devices"][0]["mode"], "on");
    let before = resets(server, 0);
    server.run(&format!("/opt/bullion gpu set-mode on {gpu}")).expect(0).says(&["mode on: already set"]);
    assert_eq!(resets(server, 0), before, "nothing was to be done");
    server.run(&format!("/opt/bullion gpu set-mode off {gpu}")).expect(0).says(&["mode off: set and verified"]);
    let metrics = server.run("/opt/bullion metrics --gpus").expect(0);
    metrics.says(&["from=\"off\",to=\"on\",result=\"success\"} 1", "from=\"on\",to=\"off\",result=\"success\"} 1"]);
}

pub(crate) fn what_selftest_records_is_told_again_without_the_device(server: &mut Server<'_>) {
    let listed = server.run("/opt/bullion --json gpu list").json();
    let device = &listed["devices"][0];
    let (address, name) = (device["address"].as_str().unwrap(), device["device_id"].as_str().unwrap());
    let test = format!("/opt/bullion selftest gpu {address} --change-modes --trace /run/lab-traces");
    server.run_for(600, &test).expect(0).says(&["changed to on, and verified", "changed to off, and verified"]);
    let file = format!("/run/lab-traces/{address}.jsonl");
    server.run(&format!("/opt/bullion selftest gpu --replay {file}")).expect(0).says(&["mode off"]);
    let trace = server.run(&format!("cat {file} && rm -r /run/lab-traces")).expect(0).stdout;
    // Whether the model answers so is for the shelf's own test to say.
    let count =
        |operation: &str| trace.lines().filter(|line| line.contains(&format!("\"op\":\"{operation}\""))).count();
    assert_eq!((count("device"), count("reset"), count("failed")), (1, 2, 0), "{trace}");
    // A new one for the shelf, where somebody asks for it.
    if let Some(shelf) = std::env::var_os("BULLION_WRITE_TRACES") {
        std::fs::write(std::path::Path::new(&shelf).join(format!("model-{name}.jsonl")), trace).unwrap();
    }
}

pub(crate) fn eight_gpus_and_four_switches_go_into_protected_pcie_together(server: &mut Server<'_>) {
    let listed = server.run("/opt/bullion --json gpu list").json();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 12);
    server.run_for(600, "/opt/bullion gpu set-mode ppcie --all").expect(0);
    let listed = server.run("/opt/bullion --json gpu list").json();
    let modes: Vec<_> = listed["devices"].as_array().unwrap().iter().map(|device| &device["mode"]).collect();
    assert!(modes.iter().all(|mode| **mode == "ppcie"), "{modes:?}");
    server.run_for(600, "/opt/bullion gpu set-mode off --all").expect(0);
}

/// What `host check` says of a guest in `tee` that has these functions and was promised `gpus` and `switches`. This server has no TEE, which is
/// among what is missing.
fn check(server: &mut Server<'_>, tee: &str, (gpus, switches): (usize, usize), functions: &[String]) -> Run {
    let passed: Vec<_> = functions.iter().map(String::as_str).collect();
    let text = format!(
        "schema = 1\nname = \"board\"\nimage = \"/opt/image\"\ntee = \"{tee}\"\nmemory = \"32GiB\"\n\
         [guest.gpus]\ncount = {gpus}\nswitches = {switches}\n[host]\n{}",
        guest::pci(&passed)
    );
    let script = format!(
        "cat >/run/lab-board.toml <<'END'\n{text}END\n/opt/bullion host check --for /run/lab-board.toml; code=$?
         rm /run/lab-board.toml; exit $code"
    );
    server.run(&script).expect(3)
}

/// The plan of a guest without a TEE that has these functions.
fn plan(server: &mut Server<'_>, functions: &[String]) -> String {
    functions.iter().for_each(|function| guest::bind(server, function));
    let passed: Vec<_> = functions.iter().map(String::as_str).collect();
    guest::describe(server, "board", &guest::pci(&passed));
    let plan = server.run("/opt/bullion vm plan /run/lab-board.toml").expect(0);
    functions.iter().for_each(|function| guest::give_back(server, function));
    server.run("rm /run/lab-board.toml").expect(0);
    plan.stdout
}

pub(crate) fn a_board_is_planned_whole_and_refused_in_part(server: &mut Server<'_>) {
    let (gpus, switches) = (guest::addresses(server, "10de:2330"), guest::addresses(server, "10de:22a3"));
    let board = [gpus.as_slice(), &switches].concat();
    let checked = check(server, "tdx", (8, 4), &board).says(&["8 H100 SXM, 4 NVSwitch LS10 in the mode \"ppcie\""]);
    assert!(!checked.stdout.contains("large bars"), "{}", checked.stdout);
    check(server, "snp", (8, 4), &board).says(&["large bars", "40 address bits", "pass at most 2"]);
    check(server, "tdx", (7, 4), &board[1..])
        .says(&["7 H100 SXM, 4 NVSwitch LS10", "a guest has 8 Hopper GPUs and 4 NVSwitches"]);
    check(server, "tdx", (8, 4), &board[..11])
        .says(&["8 GPUs and 3 NVSwitches are passed", "says 8 GPUs and 4 NVSwitches"]);
    check(server, "tdx", (2, 0), &gpus[..2]).says(&["2 H100 SXM", "a guest has 1 Hopper GPU"]);
    let planned = plan(server, &board);
    for function in &board {
        assert!(
            planned.contains(&format!("{function} ")) && planned.contains("mode off set where it differs"),
            "{planned}"
        );
    }
    assert_eq!(planned.matches("secondary-bus reset by VFIO").count(), 12, "{planned}");
}

pub(crate) fn two_b200_are_planned_together(server: &mut Server<'_>) {
    let gpus = guest::addresses(server, "10de:2901");
    check(server, "tdx", (2, 0), &gpus).says(&["2 B200 in the mode \"on\""]);
    check(server, "snp", (2, 0), &gpus).says(&["2 B200 in the mode \"on\"", "large bars", "pass one of them"]);
    assert_eq!(plan(server, &gpus).matches("secondary-bus reset by VFIO").count(), 2);
    // The kernel reads the capability of the model as the specification has it. QEMU shows what it passes with one size, the present:
    // no other is offered here, and the plans above count the BARs as they are.
    let offered = format!("cat /sys/bus/pci/devices/{}/resource2_resize", gpus[0]);
    assert_eq!(server.run(&offered).expect(0).stdout.trim(), "0000000000040000", "256 GiB, and nothing else");
}

pub(crate) fn two_b200_go_into_confidential_mode_together(server: &mut Server<'_>) {
    server.run("/opt/bullion gpu list").expect(0).says(&["B200"]);
    server.run_for(600, "/opt/bullion gpu set-mode on --all").expect(0).says(&["mode on: set and verified"]);
    let listed = server.run("/opt/bullion --json gpu list").json();
    let modes: Vec<_> = listed["devices"].as_array().unwrap().iter().map(|device| &device["mode"]).collect();
    assert_eq!(modes, ["on", "on"]);
    server.run_for(600, "/opt/bullion gpu set-mode off --all").expect(0);
}
