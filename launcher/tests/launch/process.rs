//! What one process does to another: stopping, killing, racing. The supervisor is this test program, started again.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use launcher::state::{Phase, Record, StateError, Stopped, Which, list, logs, stop};
use launcher::{LaunchError, QemuProgram};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use spec::{Diagnostic, Outcome};

use crate::fixture::{COMMAND_LINE, Fixture, artifacts, write_image};
use crate::toy::program;

const ROOT: &str = "BULLION_TEST_SUPERVISOR";
/// Another name than `vm`.
const NAME: &str = "BULLION_TEST_NAME";
/// More of `[host]`.
const MORE: &str = "BULLION_TEST_SETTINGS";
const SETTINGS: &str = "accelerator = \"tcg\"\nready_timeout_s = 20\nstop_timeout_s = 5";

/// A guest that powers off when it is asked to.
const OBEDIENT: &str = "echo booting >&4; ready; read a <&5; read b <&5; case $b in *power-off*) echo bye >&4; shutdown guest-shutdown;; esac";
/// A guest, and a QEMU, that hear nothing.
const DEAF: &str = "ready; exec sleep 100";

/// Not a test of its own: the supervisor that the tests below start.
#[test]
#[ignore = "started by the tests of this file"]
fn supervisor() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let more = std::env::var(MORE).unwrap_or_default();
    let mut fixture = Fixture::at(Path::new(&root), "none", &format!("{SETTINGS}\n{more}"));
    if let Ok(name) = std::env::var(NAME) {
        fixture.vm.name = name;
    }
    let (report, told) = fixture.launch(&QemuProgram::at(&fixture.path("toy-qemu")).unwrap());
    match report {
        Ok(report) => eprintln!("ENDED {}", report.ending),
        Err(error) => eprintln!("REFUSED {} {error}", error.outcome().code()),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let busy = (usage.user_time() + usage.system_time()).num_milliseconds();
    eprintln!(
        "{}\nBUSY {busy} ms\n{}",
        status.lines().find(|line| line.starts_with("VmHWM")).unwrap(),
        told.join("\n")
    );
}

fn start(fixture: &Fixture) -> Child {
    start_with(fixture, "")
}

fn start_with(fixture: &Fixture, more: &str) -> Child {
    supervisor_of(fixture, more).spawn().unwrap()
}

fn supervisor_of(fixture: &Fixture, more: &str) -> Command {
    // The test harness has threads of its own, in which the signals must be blocked too: the mask is inherited.
    let mut command = Command::new("env");
    command.arg("--block-signal=TERM").arg(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "process::supervisor", "--nocapture"]);
    command.env(ROOT, &fixture.root).env(MORE, more).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn words(mut child: Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

fn wait_until_ready(fixture: &Fixture) -> Record {
    wait_until(fixture, Phase::Ready)
}

fn wait_until(fixture: &Fixture, phase: Phase) -> Record {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let record = list(&fixture.directories(), false).unwrap().pop().and_then(|listed| listed.record);
        if let Some(record) = record.filter(|record| record.phase == phase) {
            return record;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the toy did not come so far: {phase:?}");
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn prepared(script: &str) -> Fixture {
    let fixture = Fixture::new("none", SETTINGS);
    program(&fixture, script);
    fixture
}

#[test]
fn a_vm_is_seen_stopped_and_gone() {
    let fixture = prepared(OBEDIENT);
    let directories = fixture.directories();
    assert!(matches!(stop(&directories, "vm", None), Err(StateError::NotRunning { .. })));
    let supervisor = start(&fixture);
    let record = wait_until_ready(&fixture);
    assert_eq!(record.supervisor.pid, i32::try_from(supervisor.id()).unwrap());
    assert!(lives(record.qemu_pid.unwrap()));

    let follow = fixture.directories();
    let followed = thread::spawn(move || {
        let mut seen = Vec::new();
        logs(&follow, "vm", Which::Console, true, &mut seen).unwrap();
        String::from_utf8(seen).unwrap()
    });
    let second = fixture.launch(&QemuProgram::at(&fixture.path("toy-qemu")).unwrap()).0.unwrap_err();
    assert_eq!(second.outcome(), Outcome::HostCannot);
    assert_eq!(
        second.to_string(),
        format!("a VM named \"vm\" runs already, supervised by process {}", supervisor.id())
    );

    assert_eq!(stop(&directories, "vm", None).unwrap(), Stopped::InTime);
    assert_eq!(list(&directories, false).unwrap(), []);
    assert!(!lives(record.qemu_pid.unwrap()));
    assert_eq!(followed.join().unwrap(), "booting\nbye\n");
    let words = words(supervisor);
    assert!(words.contains("ENDED stopped by SIGTERM: the guest powered off"), "{words}");
}

#[test]
fn a_time_that_never_ends_is_waited_for() {
    let fixture = prepared(OBEDIENT);
    let supervisor = start(&fixture);
    let mut record = wait_until_ready(&fixture);
    // A record says how long its guest may take, and a file can say anything.
    record.stop_timeout_s = u64::MAX;
    let path = fixture.directories().run.join("vm/state.json");
    std::fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
    assert_eq!(stop(&fixture.directories(), "vm", None).unwrap(), Stopped::InTime);
    words(supervisor);
    let supervisor = start(&fixture);
    wait_until_ready(&fixture);
    assert_eq!(stop(&fixture.directories(), "vm", Some(Duration::MAX)).unwrap(), Stopped::InTime);
    words(supervisor);
}

#[test]
fn a_vm_that_hears_nothing_is_stopped_all_the_same() {
    let fixture = prepared(DEAF);
    let supervisor = start(&fixture);
    let record = wait_until_ready(&fixture);
    let stopped = stop(&fixture.directories(), "vm", Some(Duration::from_millis(200))).unwrap();
    assert_eq!(stopped, Stopped::Hurried);
    assert!(!lives(record.qemu_pid.unwrap()));
    let words = words(supervisor);
    assert!(words.contains("ENDED stopped by SIGTERM: QEMU was killed"), "{words}");
}

#[test]
fn a_killed_supervisor_takes_its_qemu_along_and_leaves_nothing() {
    let fixture = prepared(DEAF);
    let directories = fixture.directories();
    let mut supervisor = start(&fixture);
    let qemu = wait_until_ready(&fixture).qemu_pid.unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while lives(qemu) {
        assert!(Instant::now() < deadline, "QEMU outlives its supervisor");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(directories.run.join("vm").exists(), "what a killed supervisor leaves is still there");
    std::fs::write(directories.state.join("vm/.last.json.1.new"), "half").unwrap();
    assert_eq!(list(&directories, false).unwrap(), []);
    assert_eq!(std::fs::read_dir(&directories.run).unwrap().count(), 0);
    assert!(!directories.state.join("vm/.last.json.1.new").exists());
    let exit = list(&directories, true).unwrap().remove(0).record.unwrap().exit.unwrap();
    assert!(exit.summary.contains("was killed"), "{exit:?}");
    // The name is free again.
    let fixture_report = fixture.launch(&program(&fixture, "ready; shutdown guest-shutdown")).0.unwrap();
    assert_eq!(fixture_report.ending.outcome(), None);
}

#[test]
fn of_two_launches_of_one_name_one_runs() {
    for _ in 0..3 {
        let fixture = prepared(OBEDIENT);
        let mut both = [start(&fixture), start(&fixture)];
        wait_until_ready(&fixture);
        // The one that comes too late must have come before the other one is stopped.
        let deadline = Instant::now() + Duration::from_secs(20);
        while both.iter_mut().all(|child| child.try_wait().unwrap().is_none()) {
            assert!(Instant::now() < deadline, "both launches of one name run");
            thread::sleep(Duration::from_millis(10));
        }
        let running = stop(&fixture.directories(), "vm", None);
        let words = both.map(words);
        assert_eq!(words.iter().filter(|words| words.contains("ENDED stopped by SIGTERM")).count(), 1, "{words:?}");
        assert_eq!(
            words.iter().filter(|words| words.contains("REFUSED 3 a VM named \"vm\" runs already")).count(),
            1,
            "{words:?}"
        );
        assert_eq!(running.unwrap(), Stopped::InTime);
    }
}

#[test]
fn a_supervisor_is_small_and_quick_with_a_large_image() {
    let fixture = prepared("head -c 1000000 /dev/urandom | base64 >&4; ready; read a <&5; shutdown guest-shutdown");
    let mut large = artifacts();
    large.insert("rootfs", vec![7; 48 << 20]);
    large.insert("initrd", vec![9; 16 << 20]);
    write_image(&fixture.path("image"), &large, COMMAND_LINE);
    let words = words(start(&fixture));
    let number =
        |key: &str| -> u64 { words.split(key).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap() };
    let (peak, busy) = (number("VmHWM:"), number("BUSY"));
    let after = words.split("after: ").nth(1).unwrap().split([' ', '\n']).next().unwrap();
    eprintln!("peak {peak} KiB, busy for {busy} ms, QEMU started after {after}");
    assert!(peak <= 20 << 10, "the supervisor's peak memory is {peak} KiB");
    // The budget is 150 ms until QEMU starts. On a machine that is busy with something else only the supervisor's own
    // time can be held to it; that includes a MiB of console.
    assert!(busy <= 150, "the supervisor was busy for {busy} ms");
}

#[test]
fn a_launch_that_cannot_keep_state_says_so() {
    let fixture = prepared(OBEDIENT);
    std::fs::write(fixture.path("run"), "in the way").unwrap();
    let error = fixture.launch(&QemuProgram::at(&fixture.path("toy-qemu")).unwrap()).0.unwrap_err();
    assert!(matches!(error, LaunchError::State(StateError::NotPrivate { .. })), "{error}");
}

#[test]
fn a_vm_that_waits_to_be_started_again_is_seen_and_stopped() {
    let fixture = prepared("ready; shutdown guest-reset");
    let supervisor = start_with(&fixture, "restart = { policy = \"always\", delay_s = 100 }");
    let record = wait_until(&fixture, Phase::Waiting);
    assert_eq!((record.restarts, record.qemu_pid), (1, None));
    assert_eq!(record.before.unwrap().code, 7);
    assert_eq!(stop(&fixture.directories(), "vm", None).unwrap(), Stopped::InTime);
    let words = words(supervisor);
    assert!(words.contains("ENDED stopped by SIGTERM: it was waiting to be started again"), "{words}");
}

/// How many descriptors a process keeps open: a record that is being written has one for a moment.
fn descriptors(pid: i32) -> usize {
    let count = |_| {
        thread::sleep(Duration::from_millis(10));
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    (0..20).map(count).min().unwrap()
}

#[test]
fn twenty_vms_come_are_listed_and_go_and_leave_nothing() {
    let fixture = prepared(OBEDIENT);
    let directories = fixture.directories();
    let started: Vec<Child> = (0..20)
        .map(|number| supervisor_of(&fixture, "").env(NAME, format!("vm-{number:02}")).spawn().unwrap())
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let ready = loop {
        let listed = list(&directories, false).unwrap();
        let ready: Vec<_> = listed.into_iter().filter_map(|listed| listed.record).collect();
        if ready.iter().filter(|record| record.phase == Phase::Ready).count() == 20 {
            break ready;
        }
        assert!(Instant::now() < deadline, "{} of 20 are there", ready.len());
        thread::sleep(Duration::from_millis(20));
    };
    let names: Vec<_> = ready.iter().map(|record| record.name.clone()).collect();
    assert_eq!(names, (0..20).map(|number| format!("vm-{number:02}")).collect::<Vec<_>>());
    // They are alike: none has more open than the others.
    let open: Vec<_> = ready.iter().map(|record| descriptors(record.supervisor.pid)).collect();
    assert!(open.iter().all(|count| *count == open[0]), "{open:?}");
    for name in &names {
        assert_eq!(stop(&directories, name, None).unwrap(), Stopped::InTime);
    }
    for child in started {
        let words = words(child);
        assert!(words.contains("ENDED stopped by SIGTERM: the guest powered off"), "{words}");
    }
    assert!(ready.iter().all(|record| !lives(record.qemu_pid.unwrap())));
    assert_eq!(std::fs::read_dir(&directories.run).unwrap().count(), 0);
    assert_eq!(list(&directories, false).unwrap(), []);
    assert_eq!(list(&directories, true).unwrap().len(), 20);
}

#[test]
fn a_supervisor_that_starts_its_guest_again_and_again_keeps_no_descriptor() {
    let lives = "LIFE=$(cat $0.lives 2>/dev/null || echo 0); echo $((LIFE + 1)) > $0.lives; ready;";
    let fixture = prepared(&format!(
        "{lives} if [ $LIFE = 0 -o $LIFE = 12 ]; then read a <&5; read b <&5; fi; shutdown guest-reset"
    ));
    let supervisor = start_with(&fixture, "restart = { policy = \"always\", delay_s = 0, limit = 100 }");
    let first = wait_until_ready(&fixture);
    let open = descriptors(first.supervisor.pid);
    // The first life ends when its QEMU does.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(first.qemu_pid.unwrap()).unwrap()),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let last = loop {
        let record = wait_until_ready(&fixture);
        if record.restarts == 12 {
            break record;
        }
        assert!(Instant::now() < deadline, "{record:?}");
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(descriptors(last.supervisor.pid), open);
    assert_eq!(stop(&fixture.directories(), "vm", None).unwrap(), Stopped::InTime);
    words(supervisor);
}
