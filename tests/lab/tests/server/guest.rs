//! Guests of the server, started and ended as an operator would, and devices bound by hand.

use lab::{Run, Server};

/// What the command line of a QEMU is like, for `pgrep -f`: the locked one's, which its own loader starts, and the server's own.
pub(crate) const QEMU: &str = "'^(/usr/bin|/[^ ]*/bullion/trees/.*)/qemu-system-x86_64'";
/// Those of all that a VM is: the launch, which is its supervisor, the process between it and a confined QEMU, and QEMU.
pub(crate) const ALL: &str = "'^(/opt/bullion|(/usr/bin|/[^ ]*/bullion/trees/.*)/qemu-system-x86_64)'";

/// The addresses of the functions with this ID, in order.
pub(crate) fn addresses(server: &mut Server<'_>, id: &str) -> Vec<String> {
    let (vendor, device) = id.split_once(':').unwrap();
    let script = format!(
        "cd /sys/bus/pci/devices; for f in *; do [ $(cat $f/vendor)$(cat $f/device) = 0x{vendor}0x{device} ] && echo $f; done; true"
    );
    server.run(&script).expect(0).stdout.lines().map(str::to_owned).collect()
}

/// The block device of an NVMe drive that the server's own driver has, once it is there. Which of several gets which number is for
/// the kernel to say, at each start.
pub(crate) fn disk(server: &mut Server<'_>, address: &str) -> String {
    let script = format!(
        "for i in $(seq 300); do
           for disk in /sys/bus/pci/devices/{address}/nvme/*/nvme*n1; do
             disk=/dev/${{disk##*/}}; [ -b \"$disk\" ] && echo \"$disk\" && exit
           done; sleep 0.2
         done; exit 1"
    );
    server.run(&script).expect(0).stdout.trim().to_owned()
}

/// Whether the server's kernel passes functions by iommufd and device nodes, as component `lab-kernel` does; Debian's know groups only.
pub(crate) fn has_iommufd(server: &mut Server<'_>) -> bool {
    server.run("test -c /dev/iommu").code == 0
}

/// Gives a function to vfio-pci.
pub(crate) fn bind(server: &mut Server<'_>, address: &str) {
    let script = format!(
        "cd /sys/bus/pci/devices/{address}; echo vfio-pci >driver_override
         if [ -e driver ]; then echo {address} >driver/unbind; fi
         echo {address} >/sys/bus/pci/drivers_probe; readlink driver"
    );
    server.run(&script).expect(0).says(&["/vfio-pci"]);
}

/// Gives it back to whom it belongs.
pub(crate) fn give_back(server: &mut Server<'_>, address: &str) {
    let script = format!(
        "cd /sys/bus/pci/devices/{address}; echo >driver_override
         echo {address} >driver/unbind; echo {address} >/sys/bus/pci/drivers_probe; true"
    );
    server.run(&script).expect(0);
}

/// Writes a description of a VM, `/run/lab-NAME.toml`, with `more` in its `[host]` part.
pub(crate) fn describe(server: &mut Server<'_>, name: &str, more: &str) {
    describe_slow(server, name, 600, more);
}

/// The same of a guest that is given `ready_timeout_s` to be ready.
pub(crate) fn describe_slow(server: &mut Server<'_>, name: &str, ready_timeout_s: u64, more: &str) {
    let text = format!(
        "schema = 1\nname = \"{name}\"\nimage = \"/opt/image\"\ntee = \"none\"\nmemory = \"256MiB\"\n[host]\naccelerator = \"kvm\"\nready_timeout_s = {ready_timeout_s}\n{more}"
    );
    server.run(&format!("cat >/run/lab-{name}.toml <<'END'\n{text}END")).expect(0);
}

/// `[[host.pci]]` of these functions.
pub(crate) fn pci(addresses: &[&str]) -> String {
    addresses.iter().map(|address| format!("[[host.pci]]\naddress = \"{address}\"\n")).collect()
}

/// Starts a launch that goes on beside the test.
pub(crate) fn launch(server: &mut Server<'_>, name: &str) {
    start(server, name, "");
}

/// The same with the server's own QEMU, which is not confined: nobody knows what it needs.
pub(crate) fn launch_unconfined(server: &mut Server<'_>, name: &str) {
    start(server, name, "--qemu /usr/bin/qemu-system-x86_64");
}

fn start(server: &mut Server<'_>, name: &str, qemu: &str) {
    let script = format!(
        "rm -f /run/lab-{name}.code
         setsid bash -c '/opt/bullion launch {qemu} /run/lab-{name}.toml; echo $? >/run/lab-{name}.code' >/run/lab-{name}.out 2>/run/lab-{name}.err &"
    );
    server.run(&script).expect(0);
}

/// Runs a launch to its end.
pub(crate) fn launch_to_the_end(server: &mut Server<'_>, name: &str) -> Run {
    server.run_for(900, &format!("/opt/bullion launch /run/lab-{name}.toml"))
}

/// Waits until a launch has said `text`, which it must before it ends.
pub(crate) fn wait_for(server: &mut Server<'_>, name: &str, text: &str) {
    wait_long_for(server, 900, name, text);
}

/// The same for `limit_s` seconds.
pub(crate) fn wait_long_for(server: &mut Server<'_>, limit_s: u64, name: &str, text: &str) {
    let script = format!(
        "while ! grep -qF '{text}' /run/lab-{name}.err; do
           [ -e /run/lab-{name}.code ] && break; sleep 0.5
         done
         cat /run/lab-{name}.err; tail -n 15 /run/lab-{name}.out; grep -qF '{text}' /run/lab-{name}.err"
    );
    server.run_for(limit_s, &script).expect(0);
}

/// The exit code of a launch, once it has ended.
pub(crate) fn exit_code(server: &mut Server<'_>, name: &str) -> i32 {
    let script = format!("while [ ! -e /run/lab-{name}.code ]; do sleep 0.5; done; cat /run/lab-{name}.code");
    server.run_for(300, &script).expect(0).stdout.trim().parse().unwrap()
}

/// Stops a VM, and forgets it.
pub(crate) fn stop(server: &mut Server<'_>, name: &str) {
    server.run_for(300, &format!("/opt/bullion stop {name}")).expect(0);
    assert_eq!(exit_code(server, name), 0);
    forget(server, name);
}

/// Forgets a VM that has ended.
pub(crate) fn forget(server: &mut Server<'_>, name: &str) {
    server.run(&format!("/opt/bullion rm {name} && rm -f /run/lab-{name}.*")).expect(0);
}
