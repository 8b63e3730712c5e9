//! What a server is for: its devices in a guest, and back.

use lab::Server;

use crate::guest;

pub(crate) fn a_guest_sees_a_passed_drive_and_device(server: &mut Server<'_>) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    let device = guest::addresses(server, "1234:11e8").remove(0);
    guest::describe(server, "sees", &guest::pci(&[&drive, &device]));
    let check = "/opt/bullion host check --for /run/lab-sees.toml --qemu /usr/bin/qemu-system-x86_64";
    server.run(check).expect(3).says(&[&format!("{drive} [1b36:0010] driven by nvme")]);
    for address in [&drive, &device] {
        guest::bind(server, address);
    }
    server.run(check).expect(0);
    guest::launch(server, "sees");
    guest::wait_for(server, "sees", "the guest is ready");
    // The guest's kernel says what it finds; the host's, who has the devices open.
    let console = server.run("/opt/bullion logs sees").expect(0);
    console.says(&["[1b36:0010] type 00 class 0x010802", "[1234:11e8] type 00", "nvme nvme0: pci function"]);
    let open = server.run("ls -l /proc/$(pgrep -f ^/usr/bin/qemu-system)/fd | grep -c '/dev/vfio/[0-9]'").stdout;
    assert_eq!(open.trim(), "2", "one group for each");
    server.run("/opt/bullion ps").expect(0).says(&["sees", "ready", "kvm"]);
    guest::stop(server, "sees");
    for address in [&drive, &device] {
        guest::give_back(server, address);
    }
    let script =
        format!("while [ ! -b /dev/nvme0n1 ]; do sleep 0.2; done; readlink /sys/bus/pci/devices/{drive}/driver");
    server.run(&script).expect(0).says(&["/nvme"]);
}
