//! Every attack ends as it is declared to.
//!
//! As many guests run at once as there are processors (`BULLION_TEST_GUESTS` says otherwise). `BULLION_TEST_ATTACK` picks attacks by
//! parts of their names, separated by commas, and `BULLION_TEST_GUEST` by the guest that they are tried on, as in `Compiled`.
#![allow(missing_docs, clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hostile::attack::{Attacker, Trial};
use hostile::attacks::FAMILIES;
use hostile::guests::{Bench, Guest, bench};

/// How many of the slowest are named.
const SLOWEST: usize = 3;

/// What came of a trial.
struct Done {
    name: String,
    time: Duration,
    verdict: Result<(), String>,
}

/// Carries out the attacks of the family that names this test. Every one is tried before the test fails.
#[track_caller]
fn carry_out(test: &str) {
    let Some(bench) = bench() else { return };
    let family = FAMILIES.iter().find(|family| family.test == test).unwrap_or_else(|| panic!("no family names {test}"));
    let only = std::env::var("BULLION_TEST_ATTACK").unwrap_or_default();
    let is_wanted = |name: &str| only.split(',').any(|part| name.contains(part));
    let wanted = family.attacks.iter().filter(|attack| is_wanted(attack.name));
    // Guest by guest: attacks on one that runs share it.
    let kind = std::env::var("BULLION_TEST_GUEST").unwrap_or_default();
    let of_kind = |trial: &Trial| format!("{:?}", trial.guest).contains(&kind);
    let mut trials: Vec<Trial> = wanted.flat_map(|attack| attack.trials()).filter(of_kind).collect();
    trials.sort_by_key(|trial| trial.guest);
    let todo = Mutex::new(VecDeque::from(trials));
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once() {
            scope.spawn(|| work(bench, &todo, &done));
        }
    });
    let mut done = done.into_inner().unwrap();
    let failures: Vec<String> =
        done.iter().filter_map(|done| Some(format!("{}: {}", done.name, done.verdict.as_ref().err()?))).collect();
    done.sort_by_key(|done| std::cmp::Reverse(done.time));
    let slowest: Vec<String> =
        done.iter().take(SLOWEST).map(|done| format!("{} {:.1} s", done.name, done.time.as_secs_f32())).collect();
    eprintln!("slowest of {} in {test}: {}", done.len(), slowest.join(", "));
    assert!(failures.is_empty(), "{} of {} attacks:\n{}", failures.len(), done.len(), failures.join("\n"));
}

/// One attacker, for as long as there is something to do.
fn work(bench: &Bench, todo: &Mutex<VecDeque<Trial>>, done: &Mutex<Vec<Done>>) {
    let mut attacker = Attacker::new(bench);
    let next = || todo.lock().unwrap().pop_front();
    while let Some(trial) = next() {
        let _turn = Turn::take();
        if !bench.has(trial.guest) {
            continue;
        }
        let start = Instant::now();
        let name = match trial.guest {
            Guest::Compiled => format!("{} (compiled kernel)", trial.name),
            _ => trial.name.to_owned(),
        };
        // A machine that cannot be set up is this attack's failure, and not that of the others.
        let verdict = catch_unwind(AssertUnwindSafe(|| attacker.carry_out(&trial)));
        let verdict = verdict.unwrap_or_else(|_| {
            attacker = Attacker::new(bench);
            Err("it could not be carried out".to_owned())
        });
        let verdict = verdict.and_then(|said| match said {
            // The kernel of a release tells all that changes tables by their digest, which is the same for what is in the same place.
            Some(said) if trial.guest != Guest::Compiled => is_its_own(&name, said),
            _ => Ok(()),
        });
        let time = start.elapsed();
        let word = verdict.as_ref().map_or_else(|why| format!("FAILED: {why}"), |()| "ok".to_owned());
        eprintln!("{name:46} {:5.1} s  {word}", time.as_secs_f32());
        done.lock().unwrap().push(Done { name, time, verdict });
    }
}

/// Whoever reads the console can tell which attack it was: no two end in the same words.
fn is_its_own(name: &str, said: String) -> Result<(), String> {
    static SAID: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    match SAID.lock().unwrap().insert(said.clone(), name.to_owned()) {
        Some(other) if other != name => Err(format!("\"{said}\" is what {other} ends in too")),
        _ => Ok(()),
    }
}

fn at_once() -> usize {
    static AT_ONCE: LazyLock<usize> = LazyLock::new(|| {
        let asked = std::env::var("BULLION_TEST_GUESTS").ok().and_then(|text| text.parse().ok());
        asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    });
    *AT_ONCE
}

/// The right to have a guest that does something, among all tests of this program.
struct Turn;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let mut running = ENDED.wait_while(RUNNING.lock().unwrap(), |running| *running >= at_once()).unwrap();
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= 1;
        ENDED.notify_one();
    }
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
