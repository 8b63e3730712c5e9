//! What must be refused before a guest starts, and must stay as it is.

use lab::Server;

use crate::guest;

pub(crate) fn a_mounted_drive_is_refused_and_stays_mounted(server: &mut Server<'_>) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    let disk = guest::disk(server, &drive);
    let mount = format!(
        "mkfs.ext4 -q {disk} && mkdir -p /run/lab-mnt && mount {disk} /run/lab-mnt && echo kept >/run/lab-mnt/file"
    );
    server.run(&mount).expect(0);
    guest::describe(server, "mounted", &guest::pci(&[&drive]));
    guest::launch_to_the_end(server, "mounted").expect(3).says(&[&drive, "driven by nvme"]);
    server.run("/opt/bullion host prepare --for /run/lab-mounted.toml --yes").expect(3).says(&[&drive, "mounted"]);
    server.run("cat /run/lab-mnt/file && findmnt /run/lab-mnt").expect(0).says(&["kept", &disk]);
    server
        .run(&format!("umount /run/lab-mnt && rmdir /run/lab-mnt && wipefs -qa {disk} && rm /run/lab-mounted.*"))
        .expect(0);
}

pub(crate) fn a_peer_in_the_iommu_group_is_named(server: &mut Server<'_>) {
    let device = guest::addresses(server, "1b36:0005").remove(0);
    let peer = server.run(&format!(
        "cd /sys/bus/pci/devices/{device}/iommu_group/devices; for f in *; do readlink -f $f/driver | grep -q virtio-pci && echo $f; done; true"
    ));
    let peer = peer.stdout.trim().to_owned();
    assert!(!peer.is_empty(), "nothing with a driver shares the group of {device}");
    guest::bind(server, &device);
    guest::describe(server, "peer", &guest::pci(&[&device]));
    let refused = guest::launch_to_the_end(server, "peer").expect(3);
    refused.says(&[&format!("with {peer}, which virtio-pci drives"), "not viable"]);
    guest::give_back(server, &device);
    server.run("rm /run/lab-peer.*").expect(0);
}

pub(crate) fn missing_huge_pages_are_refused(server: &mut Server<'_>) {
    guest::describe(server, "huge", "huge_pages = \"2MiB\"\n");
    guest::launch_to_the_end(server, "huge").expect(3).says(&["0 huge pages of 2 MiB are free"]);
    server.run("rm /run/lab-huge.*").expect(0);
}
