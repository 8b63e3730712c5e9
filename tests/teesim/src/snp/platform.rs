//! `/dev/sev`: the platform commands that a VMM asks before it launches (`include/uapi/linux/psp-sev.h`).

use nix::errno::Errno;

use crate::abi::SevIssueCmd;
use crate::user_memory;

/// The version of the firmware ABI that the simulated secure processor has.
pub(super) const API: (u8, u8) = (1, 58);
const BUILD: u8 = 1;

const PLATFORM_STATUS: u32 = 1;
const SNP_PLATFORM_STATUS: u32 = 9;
/// SEV_RET_UNSUPPORTED.
const UNSUPPORTED: u32 = 0x15;

/// What KVM accepts in KVM_SEV_INIT2: DebugSwap and SecureTSC.
pub(crate) const VMSA_FEATURES: u64 = 1 << 5 | 1 << 9;
/// `KVM_SNP_POLICY_MASK_VALID`: ABI version, SMT, the bit that must be one, DEBUG, SINGLE_SOCKET, CXL_ALLOW,
/// MEM_AES_256_XTS, RAPL_DIS, CIPHERTEXT_HIDING_DRAM, PAGE_SWAP_DISABLE. Not MIGRATE_MA.
pub(crate) const POLICY_BITS: u64 = 0x3ff_ffff & !(1 << 18);

/// SEV_ISSUE_CMD on the simulated device.
pub(crate) fn issue(argument: u64) -> Result<i32, Errno> {
    let mut command: SevIssueCmd = user_memory::read(argument)?;
    let data = u64::from_le_bytes(command.data);
    let (major, minor) = API;
    command.error = 0;
    let outcome = match command.cmd {
        PLATFORM_STATUS => {
            // struct sev_user_data_status, packed: API, state INIT, flags (bit 8: SEV-ES), build, guest count.
            let mut status = [0_u8; 12];
            (status[0], status[1], status[2], status[4], status[7]) = (major, minor, 1, 1, BUILD);
            user_memory::write_bytes(data, &status)
        }
        SNP_PLATFORM_STATUS => {
            // struct sev_user_data_snp_status, packed: API, state INIT, RMP initialised, build, ...
            let mut status = [0_u8; 32];
            (status[0], status[1], status[2], status[3], status[4]) = (major, minor, 1, 1, BUILD);
            user_memory::write_bytes(data, &status)
        }
        _ => {
            command.error = UNSUPPORTED;
            Err(Errno::EIO)
        }
    };
    user_memory::write(argument, &command)?;
    outcome.map(|()| 0)
}

/// An attribute of `KVM_X86_GRP_SEV` on the system descriptor.
pub(crate) fn attribute(attribute: u64) -> Result<u64, Errno> {
    match attribute {
        0 => Ok(VMSA_FEATURES),
        1 => Ok(POLICY_BITS),
        _ => Err(Errno::ENXIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_status_has_the_version_where_the_header_has_it() {
        let mut status = [0xff_u8; 12];
        let address = status.as_mut_ptr() as u64;
        let mut command = SevIssueCmd { cmd: PLATFORM_STATUS, data: address.to_le_bytes(), error: 7 };
        assert_eq!(issue((&raw mut command) as u64), Ok(0));
        assert_eq!(status, [1, 58, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(command.error, 0);
        command.cmd = 77;
        assert_eq!(issue((&raw mut command) as u64), Err(Errno::EIO));
        assert_eq!(command.error, UNSUPPORTED);
    }
}
