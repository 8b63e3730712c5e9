//! Why a launch command was refused: what QEMU is told, and what the report says.

use nix::errno::Errno;

/// A refused command.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// What the ioctl fails with.
    pub(crate) errno: Errno,
    /// The status of the AMD secure processor or the TDX module, where it was that which refused.
    pub(crate) firmware: Option<u64>,
    /// The reason, for the report.
    pub(crate) reason: String,
}

impl Refusal {
    /// A refusal by the kernel.
    pub(crate) fn new(errno: Errno, reason: impl Into<String>) -> Self {
        Self { errno, firmware: None, reason: reason.into() }
    }

    /// A refusal by the firmware behind the kernel.
    pub(crate) fn by_firmware(errno: Errno, status: u64, reason: impl Into<String>) -> Self {
        Self { errno, firmware: Some(status), reason: reason.into() }
    }

    /// Whether the caller is expected to try again, so that the launch has not failed.
    pub(crate) fn is_retried(&self) -> bool {
        matches!(self.errno, Errno::EAGAIN | Errno::E2BIG | Errno::EINTR)
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::new(errno, errno.desc())
    }
}
