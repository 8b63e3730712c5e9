//! What this process may do and leave behind, set before anything of the host's is read.

use nix::sys::prctl::set_dumpable;
use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use crate::failure::{Failure, OrFail as _, Stage};

/// No core dumps, here or in any child; Ctrl-Alt-Del, which the host can send, does nothing (the kernel would reboot);
/// SIGCHLD is held back for the supervisor, which reads it from a descriptor.
pub(crate) fn harden() -> Result<(), Failure> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).or_fail_doing(Stage::Start, "switching core dumps off")?;
    set_dumpable(false).or_fail_doing(Stage::Start, "switching core dumps off")?;
    set_cad_enabled(false).or_fail_doing(Stage::Start, "switching Ctrl-Alt-Del off")?;
    child_signals().thread_block().or_fail_doing(Stage::Start, "blocking SIGCHLD")
}

/// The signals that the supervisor reads.
pub(crate) fn child_signals() -> SigSet {
    SigSet::from(Signal::SIGCHLD)
}
