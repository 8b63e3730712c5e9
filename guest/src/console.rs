//! What the guest writes on the console: a line for each device that it refuses, and one when it is ready, or when it fails.
//! Nothing else, ever; of an image of class release nothing at all once it is ready, the kernel's own messages included.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use spec::agent::{CONSOLE_FAILED, CONSOLE_READY, CONSOLE_REFUSED, Identity};

use crate::failure::{Failure, OrFail as _, Stage};

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

/// Says that a device gets no driver.
pub(crate) fn refused(device: &impl Display) {
    write_line(&format!("{CONSOLE_REFUSED}{device}"));
}

/// Takes the console away from the kernel, for good: what it says of a guest that works (registers of a process that died, what
/// an interrupt found) is not for the host. The agent's port still says why a guest fails.
pub(crate) fn close() -> Result<(), Failure> {
    // What was written before is still to leave the serial port.
    if let Ok(console) = OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(CONSOLE) {
        let _ = nix::sys::termios::tcdrain(&console);
    }
    close_in(Path::new("/sys/class/tty")).and_then(|()| let_go()).or_fail_doing(Stage::Supervise, "closing the console")
}

/// The kernel opened the console for the first process, and its line would go on echoing what the host types.
fn let_go() -> io::Result<()> {
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    Ok(())
}

/// Linux Documentation/ABI/testing/sysfs-tty: `active` names the consoles, and `console` of a serial port is one's switch.
fn close_in(class: &Path) -> io::Result<()> {
    let active = class.join("console/active");
    for name in std::fs::read_to_string(&active)?.split_ascii_whitespace() {
        std::fs::write(class.join(name).join("console"), "N")?;
    }
    match std::fs::read_to_string(&active)?.trim_end() {
        "" => Ok(()),
        left => Err(io::Error::other(format!("{left} is still one"))),
    }
}

/// Says why the guest stops. Returns when the line has left the serial port: power-off does not wait for it.
pub(crate) fn failed(failure: &Failure) {
    if let Some(console) = write_line(&format!("{CONSOLE_FAILED}{failure}")) {
        let _ = nix::sys::termios::tcdrain(&console);
    }
}

/// Says that this program is not for running by hand.
pub(crate) fn refuse_to_run() {
    let _ = io::stderr().write_all(b"bullion-guest runs only as the first process of a guest\n");
}

/// There is nobody left to tell when even this fails, so errors are dropped.
fn write_line(line: &str) -> Option<File> {
    let mut console = OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(CONSOLE).ok()?;
    // One write, so that a line of the kernel does not come between.
    console.write_all(format!("{line}\n").as_bytes()).ok()?;
    Some(console)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_console_is_switched_off_and_one_that_stays_is_an_error() {
        let class = tempfile::tempdir().unwrap();
        for name in ["console", "ttyS0", "ttyS1"] {
            std::fs::create_dir(class.path().join(name)).unwrap();
        }
        std::fs::write(class.path().join("console/active"), "ttyS0 ttyS1\n").unwrap();
        // A file does not change by itself as the kernel's does.
        assert!(close_in(class.path()).unwrap_err().to_string().contains("ttyS0 ttyS1 is still one"));
        for name in ["ttyS0", "ttyS1"] {
            assert_eq!(std::fs::read_to_string(class.path().join(name).join("console")).unwrap(), "N");
        }
        std::fs::write(class.path().join("console/active"), "\n").unwrap();
        close_in(class.path()).unwrap();
    }
}
