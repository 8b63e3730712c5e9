//! What a guest has of the server's networks: a tap device on a bridge, with the kernel's own back end, and a vsock.
//!
//! Of these the guest uses the NIC: its kernel answers for the address that its configuration gives it, whoever asks. It has no driver
//! for vsocks; that one is there for it, and gone after it, the server's kernel says.

use lab::Server;

use crate::guest;

const BUSYBOX: &str = "/usr/local/sbin/busybox";
const HOST: &str = "nic = [{ bridge = \"labbr\" }]\nvsock = { cid = 77 }\n";
const PORTS: &str = "ls /sys/class/net/labbr/brif";

pub(crate) fn tap_vhost_and_vsock_are_there_for_a_guest_and_go_with_it(server: &mut Server<'_>) {
    let bridge = format!(
        "modprobe -a tun bridge vhost_net vhost_vsock && {BUSYBOX} brctl addbr labbr &&
         {BUSYBOX} ip addr add 10.9.0.1/24 dev labbr && {BUSYBOX} ip link set labbr up"
    );
    server.run(&bridge).expect(0);
    describe(server, "twin", "/opt/image", "");
    for ends_by_itself in [true, false] {
        describe(server, "net", "/opt/networked", "[guest.network]\naddress = \"10.9.0.2/24\"\n");
        guest::launch(server, "net");
        guest::wait_for(server, "net", if ends_by_itself { "the guest is ready" } else { "QEMU started" });
        let port = server.run(PORTS).expect(0).stdout;
        assert_eq!(port.lines().count(), 1, "{port}");
        let qemu = format!("$(pgrep -f {})", guest::QEMU);
        let open = format!("ls -l /proc/{qemu}/fd; cat /proc/{qemu}/task/*/comm; ps -eo comm");
        server.run(&open).says(&["/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "vhost-"]);
        if ends_by_itself {
            answers_for_its_address(server);
            // The kernel gives a context identifier to one guest.
            guest::launch_to_the_end(server, "twin").expect(3).says(&["77"]);
            assert_eq!(server.run(PORTS).stdout, port, "what was refused leaves no tap device");
            guest::stop(server, "net");
        } else {
            server.run("pkill -KILL -o -f ^/opt/bullion").expect(0);
            assert_ne!(guest::exit_code(server, "net"), 0);
            server.run("sleep 1; /opt/bullion ps").expect(0);
            guest::forget(server, "net");
        }
        assert_eq!(server.run(PORTS).stdout, "");
    }
    server.run("/opt/bullion rm twin; rm -f /run/lab-twin.*");
    server.run(&format!("{BUSYBOX} ip link set labbr down && {BUSYBOX} brctl delbr labbr")).expect(0);
}

/// The guest lets nothing in but answers, so that its kernel answers ARP, and no ping.
fn answers_for_its_address(server: &mut Server<'_>) {
    server.run(&format!("{BUSYBOX} arping -c 200 -w 200 -f -I labbr 10.9.0.2")).expect(0).says(&["from 10.9.0.2"]);
    server.run(&format!("{BUSYBOX} ping -c 3 -W 2 10.9.0.2")).expect(1).says(&["100% packet loss"]);
    // The kernel's back end has moved what came from the guest.
    let moved = server.run("cat /sys/class/net/bul*/statistics/rx_packets").expect(0);
    assert!(moved.stdout.trim().parse::<u32>().unwrap() > 0, "{moved:?}");
}

fn describe(server: &mut Server<'_>, name: &str, image: &str, guest: &str) {
    let text = format!(
        "schema = 1\nname = \"{name}\"\nimage = \"{image}\"\ntee = \"none\"\nmemory = \"512MiB\"\n{guest}[host]\naccelerator = \"kvm\"\nready_timeout_s = 600\n{HOST}"
    );
    server.run(&format!("cat >/run/lab-{name}.toml <<'END'\n{text}END")).expect(0);
}
