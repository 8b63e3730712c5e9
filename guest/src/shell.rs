//! A shell on the serial line, for images that are developed.
//!
//! Only the verified root can ask for one, by a file that names the program; the builder never calls an image with that file a
//! release, and a guest of a release does not look for it. The host is at the other end of the line: whoever has the host has such a guest.

use std::io::ErrorKind;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::children::{Children, Program};
use crate::failure::{Failure, OrFail as _, Stage};

/// A word a line: the program and its arguments. The builder knows it by the same name (`image/src/inspect.rs`).
const FILE: &str = "/usr/lib/bullion/shell";
const TERMINAL: &str = "/dev/ttyS0";
/// A shell that ends at once is not started over and over without a pause.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the shell that the root names, and again whenever it has ended. Nothing happens where the root names none.
pub(crate) fn begin(children: &Arc<Children>) -> Result<(), Failure> {
    let text = match std::fs::read_to_string(FILE) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.or_fail_doing(Stage::Start, FILE)?,
    };
    let program = Program::new(text.lines());
    let children = Arc::clone(children);
    let serve = move || loop {
        if let Ok(pid) = children.start_on(TERMINAL, &program) {
            children.wait(pid);
        }
        thread::sleep(PAUSE);
    };
    thread::Builder::new().name("shell".to_owned()).spawn(serve).or_fail_doing(Stage::Start, "starting a thread")?;
    Ok(())
}
