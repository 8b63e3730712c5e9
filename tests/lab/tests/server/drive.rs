//! A guest's scratch on an NVMe drive that is passed by VFIO: taken from the server's own driver, made by the guest's, and given back as noise.

use base64ct::{Base64, Encoding as _};
use e2e::cipher::{self, assert_hidden};
use e2e::container::Archive;
use lab::Server;

use crate::guest;

const MARKER: &str = "the container of this test was here";
/// The drive's number among the devices of its shelf.
const DEVICE: usize = 2;

pub(crate) fn scratch_on_a_passed_drive_holds_nothing_that_the_server_can_read(server: &mut Server<'_>) {
    let drive = guest::addresses(server, "1b36:0010").remove(0);
    let app = Archive::new(MARKER, 0);
    let decode = format!("base64 -d >/run/lab-app.tar <<'END'\n{}\nEND", Base64::encode_string(&app.bytes));
    server.run(&decode).expect(0);
    describe(server, &drive, &app);
    let check = "/opt/bullion host check --for /run/lab-drive.toml";
    let prepare = "/opt/bullion host prepare --for /run/lab-drive.toml --yes";
    // What somebody may miss is neither prepared nor lost.
    let disk = guest::disk(server, &drive);
    server.run(&format!("mkfs.ext4 -q -F {disk}")).expect(0);
    let held = format!("{} holds an ext2, ext3 or ext4 file system", disk.trim_start_matches("/dev/"));
    server.run(check).expect(3).says(&[&drive, &held]);
    server.run(prepare).expect(3).says(&[&held, "dangerously_overwrite"]);
    assert!(holds(server, "lost+found"), "the search finds what is there in the clear");
    server.run(&format!("wipefs -qa {disk} && dd if=/dev/zero of={disk} bs=1M count=64 conv=fsync")).expect(0);
    assert!(!holds(server, "lost+found"));
    server.run(prepare).expect(0);
    server.run(check).expect(0);
    guest::launch_to_the_end(server, "drive").expect(0).says(&["nobody can see what the NVMe drive", "exit code 0"]);
    server.run("/opt/bullion logs drive --workload").expect(0).says(&[MARKER]);
    guest::forget(server, "drive");
    server.run("/opt/bullion host restore && rm /run/lab-app.tar").expect(0);
    let disk = guest::disk(server, &drive);
    // By the server's own driver, and from outside of it.
    let seen = format!("tr '\\000' '\\n' <{disk} | grep -acF -e '{MARKER}' -e lost+found");
    server.run(&seen).expect(1).says(&["0"]);
    assert_hidden(&server.drive(DEVICE), &[MARKER, "lost+found"]);
}

/// Whether the drive's bytes have `text` among them.
fn holds(server: &Server<'_>, text: &str) -> bool {
    cipher::holds(&server.drive(DEVICE), text)
}

/// A VM that runs the container, with its storage on the drive.
fn describe(server: &mut Server<'_>, drive: &str, app: &Archive) {
    let text = format!(
        "schema = 1\nname = \"drive\"\nimage = \"/opt/networked\"\ntee = \"none\"\nmemory = \"768MiB\"\n\
         [host]\naccelerator = \"kvm\"\nready_timeout_s = 600\n[[host.pci]]\naddress = \"{drive}\"\nvolume = \"tmp\"\n{}\
         [[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\non = \"nvme\"\nmount = \"/var/lib/containers\"\n",
        app.description("lab-app.tar")
    );
    server.run(&format!("cat >/run/lab-drive.toml <<'END'\n{text}END")).expect(0);
}
