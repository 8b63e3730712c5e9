//! Every attack ends as it is declared to.
#![allow(missing_docs, clippy::panic, clippy::print_stderr)]

use std::time::Instant;

use hostile::attack::Attacker;
use hostile::attacks::FAMILIES;
use hostile::guests::bench;

/// Carries out the attacks of the family that names this test. Every one is tried before the test fails.
#[track_caller]
fn carry_out(test: &str) {
    let Some(bench) = bench() else { return };
    let family = FAMILIES.iter().find(|family| family.test == test).unwrap_or_else(|| panic!("no family names {test}"));
    let only = std::env::var("BULLION_TEST_ATTACK").unwrap_or_default();
    let mut attacker = Attacker::new(bench);
    let mut failures = Vec::new();
    for attack in family.attacks.iter().filter(|attack| attack.name.contains(&only) && bench.has(attack.guest)) {
        let start = Instant::now();
        let verdict = attacker.carry_out(attack);
        eprintln!(
            "{:28} {:5.1} s  {}",
            attack.name,
            start.elapsed().as_secs_f32(),
            if verdict.is_ok() { "ok" } else { "FAILED" }
        );
        failures.extend(verdict.err().map(|why| format!("{}: {why}", attack.name)));
    }
    assert!(failures.is_empty(), "{} of {} attacks:\n{}", failures.len(), family.attacks.len(), failures.join("\n"));
}

#[test]
fn tables_that_the_host_wrote() {
    carry_out("tables_that_the_host_wrote");
}

#[test]
fn another_kernel_initrd_or_command_line() {
    carry_out("another_kernel_initrd_or_command_line");
}

#[test]
fn a_root_disk_that_is_not_the_image() {
    carry_out("a_root_disk_that_is_not_the_image");
}

#[test]
fn configurations_that_nobody_meant() {
    carry_out("configurations_that_nobody_meant");
}

#[test]
fn devices_that_nobody_declared() {
    carry_out("devices_that_nobody_declared");
}

#[test]
fn whatever_comes_through_a_port() {
    carry_out("whatever_comes_through_a_port");
}

#[test]
fn another_clock_memory_or_processor() {
    carry_out("another_clock_memory_or_processor");
}

#[test]
fn tricks_of_the_monitor() {
    carry_out("tricks_of_the_monitor");
}
