//! Whole lives of a VM whose QEMU is a shell script: what it does on QMP, console and agent port is the test's to say.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use launcher::host::HostFacts;
use launcher::state::{Phase, Which, list, logs};
use launcher::{Ending, LaunchError, QemuProgram};
use serde_json::json;
use spec::{Diagnostic, Outcome, Sha256Digest, Tee};

use crate::fixture::{Fixture, Known, ROOT_HASH};
use crate::golden::features;

/// Answers the questions that are asked before a launch, and then follows `script`. The script can `say` on QMP, and
/// `$ACCEL` is the accelerator it was given.
pub(crate) fn program(fixture: &Fixture, script: &str) -> QemuProgram {
    let types: Vec<_> = features().types.iter().map(|name| json!({"name": name})).collect();
    let text = format!(
        r#"#!/bin/sh
say() {{ echo "$1" >&3; }}
say '{{"QMP": {{"version": {{"qemu": {{"micro": 3, "minor": 1, "major": 11}}, "package": ""}}, "capabilities": []}}}}'
say '{{"return": {{}}, "id": 1}}'
case " $* " in
*"-machine none"*)
  say '{{"return": {types}, "id": 2}}'
  say '{{"return": [], "id": 3}}'
  say '{{"return": [{{"option": "sandbox", "parameters": []}}], "id": 4}}'
  exit 0;;
*tcg*) ACCEL=tcg;;
*) ACCEL=kvm;;
esac
ready() {{ echo '{ready}' >&5; }}
shutdown() {{ say '{{"event": "SHUTDOWN", "data": {{"guest": true, "reason": "'$1'"}}}}'; exit 0; }}
{script}
"#,
        types = serde_json::to_string(&types).unwrap(),
        ready = ready(fixture),
    );
    let path = fixture.path("toy-qemu");
    // Written under another name first: a script that is still open for writing cannot be run.
    fs::write(fixture.path("toy-qemu.new"), text).unwrap();
    fs::set_permissions(fixture.path("toy-qemu.new"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fixture.path("toy-qemu.new"), &path).unwrap();
    QemuProgram::at(&path).unwrap()
}

/// What a guest says that is the one that was meant.
fn ready(fixture: &Fixture) -> String {
    json!({"event": "ready", "identity": {
        "guest_version": "0.1.0", "kernel_release": "7.3.4", "root_hash": Sha256Digest(ROOT_HASH), "tee": Tee::None,
        "hostname": "minimal", "uptime_ms": 2700,
        "configuration": {"binding": "unattested", "digest": fixture.vm.guest.host_data().unwrap()}
    }})
    .to_string()
}

fn tcg() -> Fixture {
    Fixture::new("none", "accelerator = \"tcg\"\nready_timeout_s = 20")
}

fn ending(fixture: &Fixture, script: &str) -> Ending {
    fixture.launch(&program(fixture, script)).0.unwrap().ending
}

/// A named QEMU is not confined, and each launch says so.
fn but_for_confinement(mut told: Vec<String>) -> Vec<String> {
    told.retain(|line| !line.contains("it runs unconfined"));
    told
}

#[test]
fn a_guest_that_becomes_ready_and_powers_off() {
    let fixture = tcg();
    let script = "
        echo booting >&4
        ready
        read request <&5
        echo '{\"id\":1,\"result\":{\"tee\":\"none\",\"registers\":{\"MEASUREMENT\":\"00\"}}}' >&5
        sleep 0.1; printf 'bye' >&4; shutdown guest-shutdown";
    let (report, told) = fixture.launch(&program(&fixture, script));
    let report = report.unwrap();
    assert_eq!(report.ending, Ending::GuestPoweredOff);
    assert_eq!(report.last_words, ["booting", "bye"]);
    assert_eq!(report.identity.unwrap().hostname, "minimal");
    assert_eq!(report.measurements.unwrap().registers["MEASUREMENT"], "00");
    assert!(report.ready_ms.is_some());
    let told = but_for_confinement(told);
    let order: Vec<_> = told.iter().map(|line| line.split([' ', '(', '{']).next().unwrap()).collect();
    assert_eq!(order, ["Started", "Ready", "Measured"], "{told:?}");

    // Nothing is left but what is kept.
    let directories = fixture.directories();
    assert_eq!(fs::read_dir(&directories.run).unwrap().count(), 0);
    assert_eq!(list(&directories, false).unwrap(), []);
    let last = &list(&directories, true).unwrap()[0];
    let record = last.record.as_ref().unwrap();
    assert!(!last.running && record.phase == Phase::Exited);
    let exit = record.exit.as_ref().unwrap();
    assert_eq!((exit.code, exit.summary.as_str()), (0, "the guest powered off"));
    let mut console = Vec::new();
    logs(&directories, "vm", Which::Console, true, &mut console).unwrap();
    assert_eq!(console, b"booting\nbye");
    assert!(logs(&directories, "../vm", Which::Console, false, &mut console).is_err());
}

#[test]
fn guests_that_fail() {
    let fixture = tcg();
    let failed = |stage: &str, reason: &str| Ending::GuestFailed { stage: stage.to_owned(), reason: reason.to_owned() };
    let by_agent = "echo '{\"event\":\"failed\",\"stage\":\"verity\",\"reason\":\"no\"}' >&5; shutdown guest-shutdown";
    assert_eq!(ending(&fixture, by_agent), failed("verity", "no"));
    let by_console = "echo 'bullion-guest: FAILED root-device: none' >&4; shutdown guest-shutdown";
    assert_eq!(ending(&fixture, by_console), failed("root-device", "none"));
    let panic = "echo '[ 2.1] Kernel panic - not syncing: dm-verity device has I/O error' >&4; shutdown guest-reset";
    let ending_of_panic = ending(&fixture, panic);
    assert_eq!(ending_of_panic, Ending::GuestPanicked { panic: "dm-verity device has I/O error".to_owned() });
    assert_eq!(ending_of_panic.outcome(), Some(Outcome::GuestFailed));
    assert_eq!(ending(&fixture, "ready; shutdown guest-reset"), Ending::GuestReset);
    let silent = "shutdown guest-shutdown";
    assert_eq!(ending(&fixture, silent), failed("boot", "the guest powered off before it was ready"));
    let exit = list(&fixture.directories(), true).unwrap().remove(0).record.unwrap().exit.unwrap();
    assert_eq!(exit.code, 7);
}

#[test]
fn a_guest_that_is_another_one() {
    let mut fixture = tcg();
    let program = program(&fixture, "ready; exec sleep 100");
    fixture.vm.guest.hostname = Some("other".to_owned());
    let report = fixture.launch(&program).0.unwrap();
    assert!(
        matches!(report.ending, Ending::GuestFailed { ref stage, .. } if stage == "identity"),
        "{:?}",
        report.ending
    );
}

#[test]
fn a_guest_that_is_late() {
    let fixture = Fixture::new("none", "accelerator = \"tcg\"\nready_timeout_s = 1");
    // The first line is the handshake, the second lets QEMU make the machine, the third lets the guest run, the fourth is the question about
    // the status, the fifth the order to quit.
    let script = "expect() { read line <&3; case $line in *$1*) ;; *) exit 9;; esac; }
        read hand <&3; expect x-exit-preconfig; expect cont; expect query-status; expect quit; exit 0";
    assert_eq!(ending(&fixture, script), Ending::NotReadyInTime { seconds: 1 });
    assert_eq!(ending(&fixture, "exec sleep 100"), Ending::NotReadyInTime { seconds: 1 });
}

#[test]
fn a_qemu_that_dies() {
    let fixture = tcg();
    let script = "echo 'qemu: cannot set up guest memory' >&2; exit 1";
    let Ending::QemuDied { status, stderr } = ending(&fixture, script) else { panic!() };
    assert_eq!(
        (status.as_str(), &stderr[..]),
        ("exit status: 1", &["qemu: cannot set up guest memory".to_owned()][..])
    );
    let kept = fs::read_to_string(fixture.path("state/vm/qemu.log")).unwrap();
    assert_eq!(kept, "qemu: cannot set up guest memory\n");
    let (report, _) = fixture.launch(&QemuProgram::at("/bin/true".as_ref()).unwrap());
    let error = report.unwrap_err();
    assert!(matches!(error, LaunchError::Features(_)) && error.outcome() == Outcome::HostCannot, "{error}");
    assert_eq!(fs::read_dir(fixture.directories().run).unwrap().count(), 0, "nothing is left of a launch that failed");
}

#[test]
fn kvm_that_stops_the_guest_makes_way_for_tcg() {
    if HostFacts::probe().supports(Tee::None).is_err() {
        eprintln!("skipped: there is no usable /dev/kvm");
        return;
    }
    let fixture = Fixture::new("none", "ready_timeout_s = 20");
    let script = "
        if [ $ACCEL = tcg ]; then ready; shutdown guest-shutdown; fi
        read a <&3; read b <&3; read b <&3; say '{\"return\": {\"status\": \"running\"}, \"id\": 3}'
        say '{\"event\": \"STOP\"}'; read c <&3
        say '{\"return\": {\"status\": \"internal-error\"}, \"id\": 4}'; exec sleep 100";
    let toy = program(&fixture, script);
    let (report, told) = fixture.launch(&toy);
    assert_eq!(report.unwrap().ending, Ending::GuestPoweredOff);
    let told = but_for_confinement(told);
    assert!(told[1].contains("cannot run this kernel"), "{told:?}");
    // The next launch knows.
    let told = but_for_confinement(fixture.launch(&toy).1);
    assert!(told[0].contains("has stopped this kernel before") && told[1].contains("Tcg"), "{told:?}");

    let fixture = Fixture::new("none", "accelerator = \"kvm\"");
    let report = fixture.launch(&program(&fixture, script)).0.unwrap();
    assert_eq!((report.ending.outcome(), report.ending), (Some(Outcome::HostCannot), Ending::KvmCannotRun));
}

#[test]
fn a_simulated_launch_is_compared_with_the_prediction() {
    if HostFacts::probe().supports(Tee::None).is_err() {
        eprintln!("skipped: there is no usable /dev/kvm");
        return;
    }
    let launch = |tee: &str, register: &str, report: &str| {
        let mut fixture = Fixture::new(tee, "ready_timeout_s = 20");
        fixture.simulate();
        fixture.expect(register, "aa", if tee == "tdx" { Known::Before } else { Known::Later });
        let toy = program(&fixture, &format!("echo '{report}' > $TEESIM_REPORT; exit 0"));
        let ending = fixture.launch(&toy).0.unwrap().ending;
        let exit = list(&fixture.directories(), true).unwrap().remove(0).record.unwrap().exit.unwrap();
        // What `ps` says is what `launch` says.
        assert_eq!(exit.code, ending.outcome().map_or(0, Outcome::code));
        assert!(exit.summary == ending.to_string() && exit.summary.contains("SIMULATED"), "{}", exit.summary);
        assert_eq!(ending.simulation().unwrap().path, fixture.path("state/vm/simulation.json"));
        (exit.code, ending)
    };
    for (tee, register, key) in [("snp", "MEASUREMENT", "launch_digest"), ("tdx", "MRTD", "mrtd")] {
        assert_eq!(launch(tee, register, &format!(r#"{{"{key}": "aa"}}"#)).0, 0);
        let (code, ending) = launch(tee, register, &format!(r#"{{"{key}": "ab"}}"#));
        assert_eq!(code, 6);
        assert_eq!(ending.to_string(), format!("SIMULATED: {register} is ab, expected aa"));
        assert!(ending.hint().unwrap().contains("simulation.json"));
        assert_eq!(launch(tee, register, &format!(r#"{{"{key}": "aa", "failed": "policy"}}"#)).0, 6);
        assert_eq!(launch(tee, register, "{}").0, 1);
    }
}

#[test]
fn peers_that_send_garbage() {
    let fixture = tcg();
    let script = "
        head -c 300000 /dev/zero | tr '\\0' 'x' >&5; echo >&5
        head -c 3000000 /dev/urandom >&3; echo >&3
        head -c 300000 /dev/urandom >&4; echo >&4
        head -c 300000 /dev/urandom >&2
        ready; shutdown guest-shutdown";
    let (report, told) = fixture.launch(&program(&fixture, script));
    assert_eq!(report.unwrap().ending, Ending::GuestPoweredOff, "{}", told.len());
    assert!(told.iter().all(|line| !line.contains('\u{1b}') && line.len() < 5000));
}

#[test]
fn an_image_that_does_not_match_is_not_started() {
    let fixture = tcg();
    // Firmware for other guests is none of this one's files.
    fs::write(fixture.path("image/firmware-tdx.fd"), "TDX firmware").unwrap();
    fixture.launch(&program(&fixture, "shutdown guest-shutdown")).0.unwrap();
    fs::write(fixture.path("image/initrd"), "INITRD").unwrap();
    let error = fixture.launch(&program(&fixture, "touch $0.started")).0.unwrap_err();
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    assert!(!fixture.path("toy-qemu.started").exists());
    let mut fixture = fixture;
    fixture.options.dangerously_skip_artifact_verification = true;
    let _ = fixture.launch(&program(&fixture, "cat /proc/self/fd/8 >&4; shutdown guest-shutdown")).0.unwrap();
    assert_eq!(fs::read(fixture.path("state/vm/console.log")).unwrap(), b"INITRD");
}

#[test]
fn firmware_of_the_guests_tee_has_to_match() {
    for (tee, file) in [("snp", "image/firmware-snp.fd"), ("tdx", "image/firmware-tdx.fd")] {
        let mut fixture = Fixture::new(tee, "ready_timeout_s = 20");
        fixture.simulate();
        fs::write(fixture.path(file), "Firmware").unwrap();
        let error = fixture.launch(&program(&fixture, "touch $0.started")).0.unwrap_err();
        assert_eq!(error.outcome(), Outcome::InputMismatch);
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[test]
fn qemu_is_given_the_files_that_were_hashed() {
    let fixture = tcg();
    // The kernel is replaced between the check and the use: what QEMU opens is still what was checked.
    let script = "echo evil > $(dirname $0)/image/new; mv $(dirname $0)/image/new $(dirname $0)/image/vmlinuz
        cat /proc/self/fd/7 >&4; head -c 8 /proc/self/fd/6 >&4; echo x > /proc/self/fd/6 2>/dev/null && echo WRITABLE >&4
        shutdown guest-shutdown";
    let _ = ending(&fixture, script);
    assert_eq!(fs::read(fixture.path("state/vm/console.log")).unwrap(), b"kernelBULLIONC");
}

/// Counts its lives in a file beside itself: `$LIFE` is 0 in the first.
const COUNT: &str =
    "LIFE=$(cat $0.lives 2>/dev/null || echo 0); echo $((LIFE + 1)) > $0.lives; echo life $LIFE >&4; ready;";

#[test]
fn a_guest_that_fails_is_started_again_as_often_as_the_description_says() {
    let settings = |limit: u32| {
        format!("accelerator = \"tcg\"\nrestart = {{ policy = \"on-failure\", delay_s = 0, limit = {limit} }}")
    };
    let fixture = Fixture::new("none", &settings(5));
    let script = format!("{COUNT} if [ $LIFE -lt 2 ]; then shutdown guest-reset; fi; shutdown guest-shutdown");
    let (report, told) = fixture.launch(&program(&fixture, &script));
    assert_eq!(report.unwrap().ending, Ending::GuestPoweredOff);
    assert_eq!(told.iter().filter(|line| line.starts_with("Restarting")).count(), 2, "{told:?}");
    let record = list(&fixture.directories(), true).unwrap().remove(0).record.unwrap();
    assert_eq!((record.restarts, record.before.unwrap().summary.as_str()), (2, "the guest reset itself"));
    let mut console = Vec::new();
    logs(&fixture.directories(), "vm", Which::Console, false, &mut console).unwrap();
    let expected =
        "life 0\n\n[bullion: started again, restart 1]\nlife 1\n\n[bullion: started again, restart 2]\nlife 2\n";
    assert_eq!(String::from_utf8(console).unwrap(), expected);

    let fixture = Fixture::new("none", &settings(3));
    let (report, told) = fixture.launch(&program(&fixture, &format!("{COUNT} shutdown guest-reset")));
    assert_eq!(report.unwrap().ending, Ending::GuestReset);
    assert!(told.last().unwrap().contains("3 times in a row"), "{told:?}");
    assert_eq!(fs::read_to_string(fixture.path("toy-qemu.lives")).unwrap(), "4\n");
    assert_eq!(fs::read_dir(fixture.directories().run).unwrap().count(), 0);
}

#[test]
fn a_guest_that_is_another_one_is_not_started_again() {
    let mut fixture = Fixture::new("none", "accelerator = \"tcg\"\nrestart = { policy = \"always\", delay_s = 0 }");
    let toy = program(&fixture, &format!("{COUNT} exec sleep 100"));
    fixture.vm.guest.hostname = Some("other".to_owned());
    let ending = fixture.launch(&toy).0.unwrap().ending;
    assert!(matches!(ending, Ending::GuestFailed { ref stage, .. } if stage == "identity"), "{ending:?}");
    assert_eq!(fs::read_to_string(fixture.path("toy-qemu.lives")).unwrap(), "1\n");
}

const RESTARTED: &str = "accelerator = \"tcg\"\nrestart = { policy = \"always\", delay_s = 0 }";

#[test]
fn a_file_that_was_written_to_while_its_guest_ran_is_not_started_again() {
    let fixture = Fixture::new("none", RESTARTED);
    let toy = program(&fixture, &format!("{COUNT} echo INITRD > $(dirname $0)/image/initrd; shutdown guest-reset"));
    let error = fixture.launch(&toy).0.unwrap_err();
    assert!(matches!(error, LaunchError::Verify(_)) && error.outcome() == Outcome::InputMismatch, "{error}");
    assert!(error.to_string().contains("image/initrd does not match the manifest"), "{error}");
    assert_eq!(fs::read_to_string(fixture.path("toy-qemu.lives")).unwrap(), "1\n");
    assert_eq!(fs::read_dir(fixture.directories().run).unwrap().count(), 0);
    let exit = list(&fixture.directories(), true).unwrap().remove(0).record.unwrap().exit.unwrap();
    assert!(exit.code == 4 && exit.summary.starts_with("it was not started again: "), "{exit:?}");

    // What is renamed into place is another image: the one that was accepted goes on.
    let fixture = Fixture::new("none", RESTARTED);
    let replace = "echo evil > $(dirname $0)/image/new; mv $(dirname $0)/image/new $(dirname $0)/image/vmlinuz";
    let script =
        format!("{COUNT} {replace}; cat /proc/self/fd/7 >&4; if [ $LIFE = 1 ]; then exit 1; fi; shutdown guest-reset");
    let mut again = program(&fixture, &script);
    let report = fixture.launch(&again).0;
    assert!(report.is_ok(), "{report:?}");
    let console = fs::read_to_string(fixture.path("state/vm/console.log")).unwrap();
    assert!(console.matches("kernel").count() > 1 && !console.contains("evil"), "{console}");
    again = program(&fixture, "shutdown guest-shutdown");
    assert!(matches!(fixture.launch(&again).0.unwrap_err(), LaunchError::Verify(_)));
}

#[test]
fn a_guest_is_not_started_again_once_its_release_has_expired() {
    let lives = |clock: fn() -> Option<spec::time::Timestamp>| {
        let fixture = Fixture::new("none", &RESTARTED.replace("delay", "limit = 1, delay"));
        let script = format!("{COUNT} if [ $LIFE = 1 ]; then shutdown guest-panic; fi; shutdown guest-reset");
        let ended = fixture.launch_release(&program(&fixture, &script), Some(&fixture.release()), clock).0;
        (ended, fs::read_to_string(fixture.path("toy-qemu.lives")).unwrap())
    };
    let (ended, count) = lives(|| "2026-12-31T23:59:59Z".parse().ok());
    assert_eq!((ended.unwrap().ending.outcome(), count.as_str()), (Some(Outcome::GuestFailed), "2\n"));
    let (ended, count) = lives(|| "2027-01-01T00:00:00Z".parse().ok());
    let error = ended.unwrap_err();
    assert!(error.to_string().contains("expired at 2027-01-01T00:00:00Z"), "{error}");
    assert_eq!((error.outcome(), count.as_str()), (Outcome::SignatureInvalid, "1\n"));
    let (ended, count) = lives(|| None);
    assert!(ended.unwrap_err().to_string().contains("cannot read the clock"));
    assert_eq!(count, "1\n");
}

#[test]
fn a_guest_that_measures_otherwise_is_never_ready() {
    let ended = |register: &str, known: Known| {
        let mut fixture = tcg();
        fixture.expect("MEASUREMENT", "aa", known);
        let script = format!(
            "ready; read request <&5; echo '{{\"id\":1,\"result\":{{\"tee\":\"none\",\"registers\":{{{register}}}}}}}' >&5
            read a <&3; read b <&3; read b <&3; read c <&3; case $c in *quit*) exit 0;; esac; shutdown guest-shutdown"
        );
        let (report, told) = fixture.launch(&program(&fixture, &script));
        (report.unwrap(), told)
    };
    for known in [Known::Before, Known::Later] {
        let (report, told) = ended("\"MEASUREMENT\":\"ab\"", known);
        assert!(matches!(report.ending, Ending::MeasuredOtherwise { .. }), "{known:?}: {:?}", report.ending);
        assert!(report.ready_ms.is_none() && report.identity.is_none());
        assert!(!told.iter().any(|line| line.starts_with("Ready")), "{told:?}");
    }
}

/// What is foreseen late is compared with what each life of the guest measures.
#[test]
fn a_guest_that_measures_otherwise_when_it_is_started_again_is_never_ready() {
    for known in [Known::Before, Known::Later] {
        let mut fixture = Fixture::new("none", RESTARTED);
        fixture.expect("MEASUREMENT", "aa", known);
        let script = format!(
            "{COUNT} read request <&5; value=aa; [ $LIFE = 0 ] || value=ab
            echo '{{\"id\":1,\"result\":{{\"tee\":\"none\",\"registers\":{{\"MEASUREMENT\":\"'$value'\"}}}}}}' >&5
            if [ $LIFE = 0 ]; then sleep 0.5; shutdown guest-reset; fi
            read a <&3; read b <&3; read b <&3; read c <&3; case $c in *quit*) exit 0;; esac; shutdown guest-shutdown"
        );
        let (report, told) = fixture.launch(&program(&fixture, &script));
        let report = report.unwrap();
        assert!(matches!(report.ending, Ending::MeasuredOtherwise { .. }), "{known:?}: {:?} {told:?}", report.ending);
        assert_eq!(told.iter().filter(|line| line.starts_with("Ready")).count(), 1, "{told:?}");
    }
}

#[test]
fn one_disk_is_never_of_two_guests() {
    let volume = "[[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/tmp\"\n";
    let disk = |path: &std::path::Path| format!("[[host.volume]]\nname = \"tmp\"\npath = \"{}\"\n", path.display());
    let first = tcg();
    let path = first.path("tmp.img");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let with_disk = |fixture: &mut Fixture, name: &str| {
        let text = format!(
            "schema = 1\nname = \"{name}\"\nimage = \"image\"\ntee = \"none\"\nmemory = \"512MiB\"\n[host]\naccelerator = \"tcg\"\n{volume}{}",
            disk(&path)
        );
        fixture.vm = spec::vm::Vm::parse("vm.toml", &text).unwrap();
    };
    let (mut first, mut second) = (first, tcg());
    with_disk(&mut first, "one");
    with_disk(&mut second, "two");
    let toy = program(
        &first,
        "ready; echo up >&4; read a <&5; while [ ! -e $0.done ]; do sleep 0.05; done; shutdown guest-shutdown",
    );
    let other = program(&second, "touch $0.started; shutdown guest-shutdown");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| first.launch(&toy).0.unwrap().ending);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while fs::read(first.path("state/one/console.log")).unwrap_or_default() != b"up\n" {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let error = second.launch(&other).0.unwrap_err();
        fs::write(first.path("toy-qemu.done"), "").unwrap();
        assert!(matches!(error, LaunchError::Volume(_)) && error.to_string().contains("in use"), "{error}");
        assert_eq!(running.join().unwrap(), Ending::GuestPoweredOff);
    });
    assert!(!second.path("toy-qemu.started").exists());
    assert_eq!(second.launch(&other).0.unwrap().ending.outcome(), Some(Outcome::GuestFailed), "the disk is free again");
}
