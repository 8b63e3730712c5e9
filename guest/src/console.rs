//! What the guest writes on the console: one line when it is ready, or one when it fails. Nothing else, ever.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::OFlag;
use spec::agent::{CONSOLE_FAILED, CONSOLE_READY, Identity};

use crate::failure::Failure;

/// The initrd has this node; devtmpfs brings its own.
const CONSOLE: &str = "/dev/console";

/// Says that the guest is ready.
pub(crate) fn ready(identity: &Identity) {
    write_line(&format!(
        "{CONSOLE_READY}root={} tee={} uptime_ms={}",
        identity.root_hash.short(),
        identity.tee,
        identity.uptime_ms
    ));
}

/// Says why the guest stops. Returns when the line has left the serial port: power-off does not wait for it.
pub(crate) fn failed(failure: &Failure) {
    if let Some(console) = write_line(&format!("{CONSOLE_FAILED}{failure}")) {
        let _ = nix::sys::termios::tcdrain(&console);
    }
}

/// Says that this program is not for running by hand.
pub(crate) fn refuse_to_run() {
    let _ = std::io::stderr().write_all(b"bullion-guest runs only as the first process of a guest\n");
}

/// There is nobody left to tell when even this fails, so errors are dropped.
fn write_line(line: &str) -> Option<File> {
    let mut console = OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(CONSOLE).ok()?;
    // One write, so that a line of the kernel does not come between.
    console.write_all(format!("{line}\n").as_bytes()).ok()?;
    Some(console)
}
