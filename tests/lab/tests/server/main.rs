//! Scenarios of an operator's server, in the order in which they are listed, each of which must leave the host as it found it.
//!
//! One server runs all scenarios of a shelf: a boot costs more than most of them. After one that failed and did not leave the host as
//! it was, the next gets another server. Words on the command line choose scenarios by parts of their names.
//! With `BULLION_TEST_SERVER_S`, none begins later than that.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, clippy::expect_used, missing_docs)]

mod board_guest;
mod check;
mod drive;
mod gpu;
mod gpu_guest;
mod guest;
mod kills;
mod net;
mod nodes;
mod prepare;
mod refusals;
mod simulated;
mod unit;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::{Device, HostState, Kernel, Parts, Server};

/// A scenario by its name.
type Scenario = (&'static str, fn(&mut Server<'_>));

/// Scenarios and the server that they need.
struct Shelf {
    devices: Vec<Device>,
    kernel: Kernel,
    /// Whether guests have a network, and so another image.
    networked: bool,
    scenarios: Vec<Scenario>,
}

/// The names of functions, and the functions.
macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => { vec![$((stringify!($name), $module::$name as fn(&mut Server<'_>))),*] };
}

fn shelves() -> Vec<Shelf> {
    let several = |count: usize, name: &str| vec![Device::gpu(name); count];
    vec![
        Shelf {
            devices: vec![Device::Nvme, Device::Nvme, Device::Edu, Device::Pair],
            kernel: Kernel::Debian,
            networked: false,
            scenarios: scenarios![
                check::host_check_sees_what_the_server_has,
                simulated::simulated_launches_in_the_lab_measure_what_was_planned,
                refusals::a_mounted_drive_is_refused_and_stays_mounted,
                refusals::a_peer_in_the_iommu_group_is_named,
                refusals::missing_huge_pages_are_refused,
                nodes::a_guest_of_two_nodes_has_memory_and_processors_of_both,
                prepare::from_check_to_restore_a_guest_sees_a_drive_and_a_device,
                kills::a_launch_that_is_killed_before_it_started_qemu_leaves_nothing,
                kills::of_two_vms_that_race_for_a_drive_one_gets_it,
                unit::a_unit_is_ready_with_its_guest_and_ends_with_it_whoever_is_killed,
                unit::a_unit_with_devices_sees_who_has_one_open,
                prepare::prepare_killed_at_any_moment_is_undone,
                prepare::what_is_prepared_for_good_is_there_after_a_start,
                prepare::a_power_cut_with_a_guest_running_leaves_nothing_but_the_journal,
                kills::whoever_is_killed_as_the_guest_starts_nothing_is_left,
                kills::whoever_is_killed_while_the_guest_is_ready_nothing_is_left,
                kills::whoever_is_killed_as_the_guest_stops_nothing_is_left,
            ],
        },
        Shelf {
            devices: vec![Device::Nvme, Device::Edu],
            kernel: Kernel::Own,
            networked: false,
            scenarios: scenarios![
                check::host_check_sees_what_the_server_has,
                simulated::simulated_launches_in_the_lab_measure_what_was_planned,
                prepare::from_check_to_restore_a_guest_sees_a_drive_and_a_device,
            ],
        },
        Shelf {
            // BARs small enough that the emulated IOMMU maps them for a guest in a second.
            devices: vec![Device::gpu("h100 --memory-bar 64"), Device::gpu_in_company("h100")],
            kernel: Kernel::Debian,
            networked: false,
            scenarios: scenarios![
                gpu::a_gpu_is_listed_and_switched_and_back,
                gpu::what_selftest_records_is_told_again_without_the_device,
                gpu_guest::a_guest_sees_the_gpu_that_it_was_given,
                gpu_guest::a_gpu_of_a_guest_that_was_killed_goes_clean_to_the_next,
                gpu_guest::a_gpu_asleep_is_woken_for_its_guest,
                gpu_guest::a_gpu_that_a_tool_left_in_mode_two_is_mended,
                gpu_guest::a_security_processor_that_does_not_answer_is_restarted,
                gpu_guest::a_launch_and_a_change_of_mode_do_not_meet,
                gpu_guest::a_bus_reset_that_would_reach_a_stranger_is_refused,
                gpu_guest::a_gpu_keeps_its_mode_when_the_server_starts_again,
            ],
        },
        Shelf {
            devices: [several(8, "h100"), several(4, "nvswitch")].concat(),
            kernel: Kernel::Debian,
            networked: false,
            scenarios: scenarios![
                gpu::a_board_is_planned_whole_and_refused_in_part,
                gpu::eight_gpus_and_four_switches_go_into_protected_pcie_together,
            ],
        },
        Shelf {
            // Whatever is behind a port is mapped anew with each change of its windows.
            devices: [several(8, "h100 --memory-bar 1"), several(4, "nvswitch")].concat(),
            kernel: Kernel::Debian,
            networked: false,
            scenarios: scenarios![board_guest::a_guest_gets_the_whole_board_and_counts_it],
        },
        Shelf {
            devices: several(2, "b200"),
            kernel: Kernel::Debian,
            networked: false,
            scenarios: scenarios![
                gpu::two_b200_are_planned_together,
                gpu::two_b200_go_into_confidential_mode_together,
                gpu::what_selftest_records_is_told_again_without_the_device,
            ],
        },
        Shelf {
            devices: [several(2, "b200 --memory-bar 64"), vec![Device::Nvme]].concat(),
            kernel: Kernel::Debian,
            networked: true,
            scenarios: scenarios![
                drive::scratch_on_a_passed_drive_holds_nothing_that_the_server_can_read,
                net::tap_vhost_and_vsock_are_there_for_a_guest_and_go_with_it,
                gpu_guest::a_guest_sees_the_two_b200_that_it_was_given,
            ],
        },
    ]
}

fn main() -> ExitCode {
    // What `cargo test` passes on to other harnesses is not for this one.
    let mut words = std::env::args().skip(1).collect::<Vec<_>>();
    if let Some(at) = words.iter().position(|word| word == "--test-threads") {
        words.drain(at..(at + 2).min(words.len()));
    }
    words.retain(|word| !word.starts_with("--"));
    let names: Vec<&str> = shelves().iter().flat_map(|shelf| shelf.scenarios.iter().map(|(name, _)| *name)).collect();
    // A scenario that is called otherwise than somebody believes would never run.
    if let Some(word) = words.iter().find(|word| !names.iter().any(|name| name.contains(word.as_str()))) {
        eprintln!("no scenario has \"{word}\" in its name; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut shelves = shelves();
    shelves.iter_mut().for_each(|shelf| shelf.scenarios.retain(|(name, _)| is_chosen(name)));
    shelves.retain(|shelf| !shelf.scenarios.is_empty());
    if shelves.is_empty() {
        return ExitCode::SUCCESS;
    }
    let networked = shelves.iter().any(|shelf| shelf.networked);
    let began = Instant::now();
    let Some(parts) = Parts::build(networked) else { return ExitCode::SUCCESS };
    let last_begin = last_begin(began);
    let failed: Vec<(&str, String)> = shelves.iter().flat_map(|shelf| run(shelf, &parts, last_begin)).collect();
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    // Once more at the end: a backtrace is longer than what is kept of some logs.
    for (name, why) in failed {
        eprintln!("failed: {name}: {why}");
    }
    ExitCode::FAILURE
}

/// After that no scenario begins: `BULLION_TEST_SERVER_S` after `began`, where that is a number.
fn last_begin(began: Instant) -> Option<Instant> {
    let seconds: i64 = std::env::var("BULLION_TEST_SERVER_S").ok()?.parse().ok()?;
    Some(began + Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

/// Runs the scenarios of a shelf; gives the names of those that failed, and why.
fn run(shelf: &Shelf, parts: &Parts, last_begin: Option<Instant>) -> Vec<(&'static str, String)> {
    if shelf.kernel == Kernel::Own && std::env::var_os("BULLION_TEST_LONG").is_none() {
        eprintln!("skipped: a server with iommufd: set BULLION_TEST_LONG=1");
        return Vec::new();
    }
    if !parts.has(shelf.kernel) {
        eprintln!(
            "skipped: a server with iommufd: its kernel is not compiled, which takes many minutes: bullion component build lab-kernel"
        );
        return Vec::new();
    }
    let mut failed = Vec::new();
    let mut server = None;
    for (name, scenario) in &shelf.scenarios {
        let start = Instant::now();
        if last_begin.is_some_and(|last| last < start) {
            eprintln!("skipped: {name}: too little time is left");
            continue;
        }
        let mut before = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let server = server.get_or_insert_with(|| boot(parts, shelf));
            let before = before.insert(HostState::of(server));
            scenario(server);
            before.expect_same(&HostState::of(server));
        }));
        let seconds = start.elapsed().as_secs();
        eprintln!("test {name} ... {} ({seconds} s)", if outcome.is_ok() { "ok" } else { "FAILED" });
        if let Err(panic) = outcome {
            failed.push((*name, message(panic.as_ref())));
            let is_as_before = |server: &mut Server<'_>| before == Some(HostState::of(server));
            let usable = catch_unwind(AssertUnwindSafe(|| server.as_mut().is_some_and(is_as_before)));
            if !usable.unwrap_or(false) {
                server = None;
            }
        }
    }
    failed
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

fn boot<'a>(parts: &'a Parts, shelf: &Shelf) -> Server<'a> {
    let start = Instant::now();
    let server = Server::boot(parts, shelf.kernel, &shelf.devices);
    let mut server = server.unwrap_or_else(|error| panic!("the server does not boot: {error}"));
    eprintln!("the server is up after {} s", start.elapsed().as_secs());
    server.run("modprobe -a kvm_amd vfio-pci").expect(0);
    server
}
