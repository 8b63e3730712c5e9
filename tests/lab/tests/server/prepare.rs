//! `host prepare` and `host restore` with real drivers, killed half-way, and with a server that loses power between them.

use lab::Server;

use crate::guest;

/// Enough for the guest's 256 MiB.
const HUGE: &str = "huge_pages = \"2MiB\"\n";
const JOURNAL: &str = "/var/lib/bullion/host-changes.json";

pub(crate) fn from_check_to_restore_a_guest_sees_a_drive_and_a_device(server: &mut Server<'_>) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    let device = guest::addresses(server, "1234:11e8").remove(0);
    guest::describe(server, "sees", &format!("{HUGE}{}", guest::pci(&[&drive, &device])));
    let check = "/opt/bullion host check --for /run/lab-sees.toml";
    server.run(check).expect(3).says(&[&format!("{drive} [1b36:0010] driven by nvme")]);
    server.run("/opt/bullion host prepare --for /run/lab-sees.toml").expect(0).says(&[&drive, &device]);
    server.run(&format!("readlink /sys/bus/pci/devices/{drive}/driver; ls {JOURNAL}")).says(&["/nvme", "No such file"]);
    server.run("/opt/bullion host prepare --for /run/lab-sees.toml --yes").expect(0);
    server.run(check).expect(0);
    guest::launch(server, "sees");
    guest::wait_for(server, "sees", "the guest is ready");
    let qemu = confined_qemu(server);
    // The guest's kernel says what it finds; the host's, who has the devices open and where the guest's memory is.
    let console = server.run("/opt/bullion logs sees").expect(0);
    console.says(&["[1b36:0010] type 00 class 0x010802", "[1234:11e8] type 00", "nvme nvme0: pci function"]);
    let open = format!("ls -l /proc/{qemu}/fd | grep -oE '/dev/(vfio/([0-9]|devices/)|iommu)' | sort");
    let open = server.run(&open).expect(0).stdout;
    match guest::has_iommufd(server) {
        true => assert_eq!(open, "/dev/iommu\n/dev/vfio/devices/\n/dev/vfio/devices/\n", "one iommufd for both"),
        false => assert_eq!(open.lines().count(), 2, "one group for each: {open}"),
    }
    let free = server.run("cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").stdout;
    assert!(free.trim().parse::<u32>().unwrap() < 128, "the guest's memory is not in huge pages: {free} are free");
    server.run("/opt/bullion ps").expect(0).says(&["sees", "ready", "kvm"]);
    // What a guest has is not taken from it.
    server.run("/opt/bullion host restore").expect(3);
    server.run("/opt/bullion ps").expect(0).says(&["sees", "ready"]);
    guest::stop(server, "sees");
    restore(server, &drive);
}

/// The process of the one QEMU that runs, after the kernel has said that it is shut in: another user without a right, a network and
/// processes of its own, no file of the host's but its own and the devices it was given.
fn confined_qemu(server: &mut Server<'_>) -> u64 {
    let listed = server.run("/opt/bullion --json ps").expect(0).json();
    let qemu = listed["vms"][0]["qemu_pid"].as_u64().unwrap_or_else(|| panic!("{listed}"));
    let status = server.run(&format!("cat /proc/{qemu}/status")).expect(0).stdout.replace('\t', " ");
    for line in
        ["Uid: 65532 65532", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    let spaces = format!(
        "cd /proc; for ns in mnt net pid ipc uts; do [ $(readlink {qemu}/ns/$ns) != $(readlink self/ns/$ns) ] || echo $ns; done"
    );
    assert_eq!(server.run(&spaces).expect(0).stdout, "", "namespaces of the host");
    let root = server.run(&format!("ls /proc/{qemu}/root; ls /proc/{qemu}/root/root/.cache/bullion")).expect(0).stdout;
    let root: Vec<&str> = root.lines().collect();
    assert!(root.contains(&"dev") && root.contains(&"trees"), "{root:?}");
    assert!(!["etc", "run", "usr", "var", "opt", "verdicts"].iter().any(|name| root.contains(name)), "{root:?}");
    qemu
}

pub(crate) fn prepare_killed_at_any_moment_is_undone(server: &mut Server<'_>) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    guest::describe(server, "cut", &format!("{HUGE}{}", guest::pci(&[&drive])));
    // Ever later, until one is through before its time.
    let script = r#"
        for tenths in 1 3 5 8 12 18 27 40 80 160; do
          timeout -s KILL $((tenths / 10)).$((tenths % 10)) /opt/bullion --quiet host prepare --for /run/lab-cut.toml --yes
          code=$?; echo "ended with $code"
          [ $code = 0 ] && exit 0
          [ $code = 137 ] || exit 1
          /opt/bullion --quiet host restore || exit 2
          for i in $(seq 100); do [ -e /sys/bus/pci/devices/DRIVE/driver ] && break; sleep 0.1; done
          echo "$(readlink /sys/bus/pci/devices/DRIVE/driver) $(cat /proc/sys/vm/nr_hugepages)" | grep -q '/nvme 0$' || exit 4
        done
        exit 3"#;
    server.run_for(900, &script.replace("DRIVE", &drive)).expect(0).says(&["ended with 137"]);
    restore(server, &drive);
    server.run("rm /run/lab-cut.toml").expect(0);
}

pub(crate) fn a_power_cut_with_a_guest_running_leaves_nothing_but_the_journal(server: &mut Server<'_>) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    guest::describe(server, "power", &format!("{HUGE}{}", guest::pci(&[&drive])));
    server.run("/opt/bullion host prepare --for /run/lab-power.toml --yes").expect(0);
    guest::launch(server, "power");
    guest::wait_for(server, "power", "QEMU started");
    server.cut_power();
    server.power_on().unwrap_or_else(|error| panic!("after the power cut: {error}"));
    server.run("modprobe -a kvm_amd vfio-pci").expect(0);
    // The kernel has forgotten what it was told, the disk has not.
    server.run(&format!("ls {JOURNAL}")).expect(0);
    let listed = server.run("/opt/bullion --json ps").expect(0).json();
    assert_eq!(listed["vms"].as_array().map(Vec::len), Some(0), "{listed}");
    restore(server, &drive);
    // The name and the drive are free, for a QEMU that the user names too.
    guest::describe(server, "power", &guest::pci(&[&drive]));
    server.run("/opt/bullion host prepare --for /run/lab-power.toml --yes").expect(0);
    guest::launch_unconfined(server, "power");
    guest::wait_for(server, "power", "the guest is ready");
    guest::stop(server, "power");
    restore(server, &drive);
}

pub(crate) fn what_is_prepared_for_good_is_there_after_a_start(server: &mut Server<'_>) {
    const FILES: &str = "etc/modules-load.d/bullion.conf etc/udev/rules.d/70-bullion.rules etc/tmpfiles.d/bullion.conf";
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    guest::describe(server, "good", &format!("{HUGE}{}", guest::pci(&[&drive])));
    server.run("/opt/bullion host prepare --for /run/lab-good.toml --persist --yes").expect(0);
    // The root of this server is in memory: what a disk would keep is carried over.
    server.run(&format!("cd / && cp -a --parents {FILES} /var/lib/bullion && sync")).expect(0);
    server.cut_power();
    server.power_on().unwrap_or_else(|error| panic!("after the start: {error}"));
    // By systemd, udev and modprobe alone: nobody has run the program.
    let as_prepared = format!(
        "udevadm settle; readlink /sys/bus/pci/devices/{drive}/driver; cat /proc/sys/vm/nr_hugepages; ls /dev/vfio"
    );
    let found = server.run(&as_prepared).expect(0);
    assert!(found.stdout.contains("/vfio-pci\n"), "{found:#?}");
    assert!(found.stdout.lines().nth(1).is_some_and(|pages| pages.parse::<u32>().unwrap() >= 128), "{found:#?}");
    server.run("modprobe -a kvm_amd vfio-pci").expect(0);
    restore(server, &drive);
    server
        .run(&format!("cd / && for f in {FILES}; do [ -e $f ] && exit 1; done; rm -r /var/lib/bullion/etc; sync"))
        .expect(0);
}

/// Undoes everything, and sees that the drive is the host's again and the journal empty.
fn restore(server: &mut Server<'_>, drive: &str) {
    server.run("/opt/bullion host restore").expect(0);
    guest::disk(server, drive);
    let script = format!("readlink /sys/bus/pci/devices/{drive}/driver; cat /proc/sys/vm/nr_hugepages");
    server.run(&script).expect(0).says(&["/nvme\n0\n"]);
}
