//! The AMD secure processor's own words, by `/dev/sev` (include/uapi/linux/psp-sev.h): its firmware and TCB versions.
#![allow(unsafe_code, reason = "SEV_ISSUE_CMD takes a pointer to a structure that holds another")]

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// SNP_PLATFORM_STATUS.
const SNP_PLATFORM_STATUS: u32 = 9;

/// `struct sev_user_data_snp_status` (SEV-SNP firmware ABI, document 56860, SNP_PLATFORM_STATUS).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformStatus {
    /// The API version, major and minor.
    pub api: (u8, u8),
    /// 0 UNINIT, 1 INIT.
    pub state: u8,
    /// Whether the reverse map table is initialised.
    pub rmp_initialised: bool,
    /// The build.
    pub build: u32,
    /// How many guests it has.
    pub guests: u32,
    /// TCB_VERSION of what runs.
    pub current_tcb: u64,
    /// TCB_VERSION that reports show.
    pub reported_tcb: u64,
}

/// `struct sev_issue_cmd`, which is packed.
#[repr(C, packed)]
struct Command {
    cmd: u32,
    data: u64,
    error: u32,
}
const _: () = assert!(size_of::<Command>() == 16);

const STATUS_BYTES: usize = 32;

nix::ioctl_readwrite!(sev_issue_cmd, b'S', 0, Command);

/// Asks the secure processor.
pub(super) fn status() -> Result<PlatformStatus, String> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/sev").map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no /dev/sev".to_owned(),
        _ => format!("/dev/sev cannot be opened: {error}"),
    })?;
    let mut status = [0_u8; STATUS_BYTES];
    let data = status.as_mut_ptr().expose_provenance() as u64;
    let mut command = Command { cmd: SNP_PLATFORM_STATUS, data, error: 0 };
    // SAFETY: the command is live for the call, and points at as many bytes as the kernel writes for this command.
    match unsafe { sev_issue_cmd(file.as_raw_fd(), &raw mut command) } {
        Ok(_) => Ok(PlatformStatus::of(&status)),
        Err(error) => {
            let firmware = command.error;
            Err(match error {
                Errno::EIO => format!("SNP_PLATFORM_STATUS failed with firmware error {firmware:#x}"),
                error => format!("SNP_PLATFORM_STATUS failed: {}", error.desc()),
            })
        }
    }
}

impl PlatformStatus {
    /// Reads the structure.
    fn of(bytes: &[u8; STATUS_BYTES]) -> Self {
        let [major, minor, state, rmp, b0, b1, b2, b3, _, _, _, _, g0, g1, g2, g3, tcb @ ..] = *bytes;
        let half = |skip: usize| {
            let mut word = [0; 8];
            word.iter_mut().zip(tcb.iter().skip(skip)).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        };
        Self {
            api: (major, minor),
            state,
            rmp_initialised: rmp & 1 == 1,
            build: u32::from_le_bytes([b0, b1, b2, b3]),
            guests: u32::from_le_bytes([g0, g1, g2, g3]),
            current_tcb: half(0),
            reported_tcb: half(8),
        }
    }
}

#[cfg(test)]
mod tests {
    use sev::parser::ByteParser as _;

    use super::*;

    #[test]
    fn the_status_is_read_as_the_sev_crate_reads_it() {
        let bytes: [u8; STATUS_BYTES] = std::array::from_fn(|index| u8::try_from(index * 7 % 251).unwrap());
        let ours = PlatformStatus::of(&bytes);
        let theirs = sev::firmware::host::SnpPlatformStatus::from_bytes_with(&bytes, sev::Generation::Genoa).unwrap();
        assert_eq!(ours.api, theirs.version);
        assert_eq!(ours.state, theirs.state);
        assert_eq!(ours.build, theirs.build_id);
        assert_eq!(ours.guests, theirs.guest_count);
        let bootloader = |tcb: u64| tcb.to_le_bytes()[0];
        let microcode = |tcb: u64| tcb.to_le_bytes()[7];
        assert_eq!(bootloader(ours.current_tcb), theirs.platform_tcb_version.bootloader);
        assert_eq!(microcode(ours.reported_tcb), theirs.reported_tcb_version.microcode);
    }
}
