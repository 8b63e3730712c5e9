//! Processes that end when nobody expects it, and two that want the same.

use lab::Server;

use crate::guest::{self, ALL};

/// Who is killed: the launch, which is the supervisor, without the process between it and QEMU; QEMU; or all.
const VICTIMS: [(&str, &str); 3] = [("the supervisor", "-o ^/opt/bullion"), ("QEMU", guest::QEMU), ("all", ALL)];

/// At which phase.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// QEMU was started, its guest is on its way.
    Started,
    /// The guest is ready.
    Ready,
    /// It was asked to stop.
    Stopping,
}

pub(crate) fn whoever_is_killed_as_the_guest_starts_nothing_is_left(server: &mut Server<'_>) {
    nothing_is_left(server, When::Started);
}

pub(crate) fn whoever_is_killed_while_the_guest_is_ready_nothing_is_left(server: &mut Server<'_>) {
    nothing_is_left(server, When::Ready);
}

pub(crate) fn whoever_is_killed_as_the_guest_stops_nothing_is_left(server: &mut Server<'_>) {
    nothing_is_left(server, When::Stopping);
}

fn nothing_is_left(server: &mut Server<'_>, when: When) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    guest::bind(server, &drive);
    for (victim, which) in VICTIMS {
        guest::describe(server, "killed", &guest::pci(&[&drive]));
        guest::launch(server, "killed");
        let said = if when == When::Started { "QEMU started" } else { "the guest is ready" };
        guest::wait_for(server, "killed", said);
        if when == When::Stopping {
            // A guest that hangs is being stopped until somebody is killed.
            server.run(&format!("pkill -STOP -f {} && pkill -TERM -o -f ^/opt/bullion", guest::QEMU)).expect(0);
            guest::wait_for(server, "killed", "stopping the guest");
        }
        server.run(&format!("pgrep -af {ALL} && pkill -KILL -f {which}")).expect(0);
        let code = guest::exit_code(server, "killed");
        // Who asked for an end has it, however QEMU came to it.
        let is_well = victim == "QEMU" && when == When::Stopping;
        assert!(code != 0 || is_well, "{victim} was killed, {when:?}");
        // QEMU goes when its supervisor goes, and not when its guest is done.
        let gone = format!(
            "for second in $(seq 20); do pgrep -f {ALL} >/dev/null || exit 0; sleep 1; done; pgrep -af {ALL}; exit 1"
        );
        assert_eq!(server.run(&gone).stdout, "", "{victim} was killed, {when:?}");
        server.run("/opt/bullion ps").expect(0);
        guest::forget(server, "killed");
    }
    give_back(server, &drive);
}

/// Before there is a QEMU, there is a supervisor to kill: at ever later moments, until one comes too late.
pub(crate) fn a_launch_that_is_killed_before_it_started_qemu_leaves_nothing(server: &mut Server<'_>) {
    guest::describe(server, "early", "");
    let script = format!(
        "for tenths in 1 2 3 5 8 12 18 27 40 60 90 180 600; do
           timeout -s KILL $((tenths / 10)).$((tenths % 10)) /opt/bullion launch /run/lab-early.toml 2>/run/lab-early.err >&2
           sleep 1; pgrep -af {ALL} && exit 1
           /opt/bullion --json ps >/run/lab-early.ps || exit 5
           grep -q '\"running\": *true' /run/lab-early.ps && exit 2
           [ -z \"$(ls -A /run/bullion | grep -v '\\.lock$')\" ] || exit 3
           grep -q 'QEMU started' /run/lab-early.err && exit 0
         done; exit 4"
    );
    server.run_for(600, &script).expect(0);
    guest::forget(server, "early");
}

pub(crate) fn of_two_vms_that_race_for_a_drive_one_gets_it(server: &mut Server<'_>) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    guest::bind(server, &drive);
    for name in ["first", "second"] {
        guest::describe(server, name, &guest::pci(&[&drive]));
    }
    for name in ["first", "second"] {
        guest::launch(server, name);
    }
    let one = "while ! ls /run/lab-first.code /run/lab-second.code 2>/dev/null | grep .; do sleep 0.5; done";
    let ended = server.run_for(900, one).stdout;
    let (winner, loser) = if ended.contains("first") { ("second", "first") } else { ("first", "second") };
    assert_ne!(guest::exit_code(server, loser), 0);
    guest::wait_for(server, winner, "the guest is ready");
    guest::stop(server, winner);
    server.run(&format!("/opt/bullion rm {loser}; rm -f /run/lab-{loser}.*"));
    give_back(server, &drive);
}

/// Gives the drive back, and waits until it is a block device of the host again.
fn give_back(server: &mut Server<'_>, drive: &str) {
    guest::give_back(server, drive);
    guest::disk(server, drive);
}
