//! A unit of `vm install` under the server's own systemd: started, killed, held to its limits, stopped.

use lab::Server;

use crate::guest::{self, ALL, QEMU};

const UNIT: &str = "bullion@unit.service";
const GROUP: &str = "/sys/fs/cgroup/$(systemctl show --value -p ControlGroup bullion@unit.service)";

pub(crate) fn a_unit_is_ready_with_its_guest_and_ends_with_it_whoever_is_killed(server: &mut Server<'_>) {
    guest::describe(server, "unit", "limits = { memory = \"1GiB\", cpu_percent = 150, threads = 70 }\n");
    server.run("/opt/bullion vm install unit /run/lab-unit.toml").expect(0);
    server.run("systemctl daemon-reload").expect(0);
    start(server);
    let state = format!("systemctl show {UNIT} -p ActiveState -p SubState -p StatusText -p NRestarts");
    server.run(&state).expect(0).says(&["ActiveState=active", "SubState=running", "StatusText=the guest is ready"]);
    server.run("/opt/bullion ps").expect(0).says(&["unit", "ready"]);
    // The kernel says what it holds QEMU to, and who is in the group: beside QEMU, which is shut in, the process that waits for it.
    let limits = format!(
        "cd {GROUP}/qemu && cat memory.max cpu.max pids.max ../memory.max ../supervisor/cgroup.procs
         systemctl show --value -p MainPID {UNIT}; qemu=$(pgrep -f {QEMU}); tr '\\0' ' ' </proc/$qemu/cmdline; echo
         for process in $(ps -o ppid= $qemu) $qemu; do grep -cx $process cgroup.procs; done; grep '^Uid' /proc/$qemu/status"
    );
    let found = server.run(&limits).expect(0).stdout;
    let lines: Vec<&str> = found.lines().collect();
    let [memory, cpu, threads, of_unit, supervisor, main, qemu, waits, is_there, user] = lines[..] else {
        panic!("{found}")
    };
    assert_eq!([memory, cpu, threads, of_unit], ["1073741824", "150000 100000", "70", "1140850688"]);
    assert_eq!(supervisor, main);
    assert!(qemu.starts_with('/') && qemu.contains("/bullion/trees/"), "{qemu}");
    assert_eq!((waits, is_there), ("1", "1"), "{found}");
    assert!(user.contains("65532"), "{user}");
    // The one that systemd knows, of a guest that is ready.
    let gone = gone();
    server.run(&format!("group={GROUP}; kill -KILL $(systemctl show --value -p MainPID {UNIT}); {gone}")).expect(0);
    has_failed(server);
    // QEMU, of one that is on its way.
    begin(server, "kill -KILL $(cat $group/qemu/cgroup.procs)");
    has_failed(server);
    // What takes more memory than it may is ended, and the last record says why.
    begin(server, "echo 64M >$group/qemu/memory.max; while [ -e $group/qemu ]; do sleep 0.5; done");
    has_failed(server);
    server
        .run("/opt/bullion --json ps")
        .says(&["the kernel has ended QEMU or what works for it, which needed more than limits.memory, 1GiB"]);
    start(server);
    server.run_for(300, &format!("group={GROUP}; systemctl stop {UNIT}; {gone}")).expect(0);
    server.run(&state).says(&["ActiveState=inactive"]);
    server.run("/opt/bullion --json ps").says(&["stopped by SIGTERM: the guest powered off"]);
    server.run("/opt/bullion vm uninstall unit && systemctl daemon-reload").expect(0);
    guest::forget(server, "unit");
}

/// A script that fails unless nothing of it is there: no process, no unit that runs, no control group.
fn gone() -> String {
    format!(
        "for i in $(seq 50); do [ -e \"$group\" ] || break; sleep 0.2; done
         pgrep -af {ALL} && exit 1
         [ ! -e \"$group\" ] || exit 2
         systemctl is-active {UNIT} && exit 3; true"
    )
}

/// Its start job is done when the guest is ready.
fn start(server: &mut Server<'_>) {
    let script =
        format!("systemctl start {UNIT} || {{ systemctl status {UNIT}; journalctl -u {UNIT} -n 40; exit 1; }}");
    server.run_for(900, &script).expect(0);
}

/// Starts it, does something to it once there is a QEMU, and sees that nothing is left.
fn begin(server: &mut Server<'_>, then: &str) {
    let gone = gone();
    let script = format!(
        "systemctl start --no-block {UNIT}
         while group={GROUP}; ! grep -q . $group/qemu/cgroup.procs 2>/dev/null; do sleep 0.2; done
         {then}; {gone}"
    );
    server.run_for(600, &script).expect(0);
}

/// Its start or its run has failed, which it forgets.
fn has_failed(server: &mut Server<'_>) {
    server.run(&format!("systemctl is-failed {UNIT}; systemctl reset-failed {UNIT}")).expect(0).says(&["failed"]);
}

/// In a unit with passed functions it is seen what any process has open; in another, that other users' processes have something open, and
/// not what. The server has no bus, by which `systemd-run` would wait: a unit of the test's own looks with the rights of the VM's.
pub(crate) fn a_unit_with_devices_sees_who_has_one_open(server: &mut Server<'_>) {
    let device = guest::addresses(server, "1234:11e8").remove(0);
    let seen = |server: &mut Server<'_>, more: &str| {
        guest::describe(server, "sees", more);
        let script = r#"/opt/bullion vm install sees /run/lab-sees.toml --print >/run/lab-sees.unit || exit 9
            rights=$(grep -E '^(CapabilityBoundingSet|ProtectProc|NoNewPrivileges)=' /run/lab-sees.unit) || exit 8
            setpriv --reuid=65534 --clear-groups sleep 600 </etc/os-release & holder=$!
            until [ $(stat -c %u /proc/$holder) = 65534 ]; do sleep 0.1; done
            unit=/run/systemd/system/lab-sees.service; rm -f /run/lab-sees.fds; mkdir -p ${unit%/*}
            printf '[Service]\nType=oneshot\n%s\nStandardOutput=file:/run/lab-sees.fds\nStandardError=file:/run/lab-sees.fds\nExecStart=/bin/ls -l /proc/%s/fd\n' \
              "$rights" $holder >$unit
            systemctl daemon-reload && systemctl start lab-sees.service; echo "started: $?"
            kill $holder; systemctl reset-failed lab-sees.service 2>/dev/null; rm $unit; systemctl daemon-reload
            cat /run/lab-sees.fds"#;
        server.run(script).stdout
    };
    let with = seen(server, &guest::pci(&[&device]));
    assert!(with.contains("started: 0") && with.contains("os-release"), "{with}");
    let without = seen(server, "");
    let denied =
        |text: &str| text.matches("ls: cannot read symbolic link").count() > 2 && text.contains("Permission denied");
    assert!(denied(&without) && !without.contains("os-release") && !denied(&with), "{without}");
    server.run("rm /run/lab-sees.*").expect(0);
}
