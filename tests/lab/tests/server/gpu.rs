//! Modelled GPUs beside the server: their modes.

use lab::Server;

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

pub(crate) fn two_b200_go_into_confidential_mode_together(server: &mut Server<'_>) {
    server.run("/opt/bullion gpu list").expect(0).says(&["B200"]);
    server.run_for(600, "/opt/bullion gpu set-mode on --all").expect(0).says(&["mode on: set and verified"]);
    let listed = server.run("/opt/bullion --json gpu list").json();
    let modes: Vec<_> = listed["devices"].as_array().unwrap().iter().map(|device| &device["mode"]).collect();
    assert_eq!(modes, ["on", "on"]);
    server.run_for(600, "/opt/bullion gpu set-mode off --all").expect(0);
}
