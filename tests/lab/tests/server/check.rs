//! What `host check` says of a server about which the server's own tools say the same.

use lab::Server;

use crate::guest;

pub(crate) fn host_check_sees_what_the_server_has(server: &mut Server<'_>) {
    let checked = server.run("/opt/bullion --json host check").json();
    let facts = &checked["facts"];
    assert!(facts["kvm"]["usable"]["vm_types"].is_u64(), "{facts:#}");
    assert_eq!(facts["kernel_release"], server.run("uname -r").stdout.trim());
    let count = server.run("ls /sys/bus/pci/devices | wc -l").stdout;
    assert_eq!(facts["devices"].as_array().unwrap().len(), count.trim().parse::<usize>().unwrap());
    // systemd's own view of whether this is a virtual machine and a container is what it is: QEMU, and none.
    assert_eq!(server.run("systemd-detect-virt --vm").stdout.trim(), "qemu");
    let lines = checked["lines"].as_array().unwrap();
    let line =
        |name: &str| lines.iter().find(|line| line["topic"] == name).unwrap_or_else(|| panic!("{name}: {lines:#?}"));
    assert_eq!(line("iommu")["status"], "ok");
    assert_eq!(line("iommufd")["status"] == "ok", guest::has_iommufd(server));
}
