//! `[[rootfs.capabilities]]`: capabilities that a program gives to whoever runs it (capabilities(7), "File capabilities").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `[[rootfs.capabilities]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CapabilitiesEntry {
    /// Absolute path of a regular file in the image, whoever brings it.
    pub path: String,
    /// What `setcap` would be told: `"cap_net_raw=ep"`.
    pub set: FileCapabilities,
}

/// Capabilities of a file, as one clause of cap_from_text(3): names, `=` or `+`, and which sets they are in (`e`, `i`, `p`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct FileCapabilities {
    /// One bit for each capability, by its number.
    capabilities: u64,
    permitted: bool,
    inheritable: bool,
    effective: bool,
}

/// By number (include/uapi/linux/capability.h of Linux 6.12).
const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

/// VFS_CAP_REVISION_2 and VFS_CAP_FLAGS_EFFECTIVE (the same file).
const REVISION_2: u32 = 0x0200_0000;
const EFFECTIVE: u32 = 1;

impl FileCapabilities {
    /// The value of the extended attribute `security.capability`: `struct vfs_cap_data`, revision 2.
    pub fn to_xattr(self) -> Vec<u8> {
        let in_set = |is_in: bool| if is_in { self.capabilities } else { 0 };
        let (permitted, inheritable) = (in_set(self.permitted), in_set(self.inheritable));
        let mut out = (REVISION_2 | if self.effective { EFFECTIVE } else { 0 }).to_le_bytes().to_vec();
        for shift in [0, 32] {
            for set in [permitted, inheritable] {
                out.extend(set.to_le_bytes().get(shift / 8..shift / 8 + 4).unwrap_or_default());
            }
        }
        out
    }
}

impl FromStr for FileCapabilities {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not_any = |what: String| format!("{what}: write capabilities as in \"cap_net_raw,cap_net_admin=ep\"");
        let (names, flags) =
            text.split_once(['=', '+']).ok_or_else(|| not_any(format!("\"{text}\" sets no capability")))?;
        let mut capabilities = 0;
        for name in names.split(',') {
            let number = NAMES.iter().position(|known| *known == name);
            capabilities |= 1 << number.ok_or_else(|| not_any(format!("\"{name}\" is no capability")))?;
        }
        let has = |flag: char| flags.contains(flag);
        let known = flags.chars().all(|flag| "eip".contains(flag)) && (has('p') || has('i'));
        if !known {
            return Err(not_any(format!("\"{flags}\" names no set of capabilities that a file can have")));
        }
        Ok(Self { capabilities, permitted: has('p'), inheritable: has('i'), effective: has('e') })
    }
}

impl fmt::Display for FileCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().enumerate().filter(|(number, _)| self.capabilities >> number & 1 == 1);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        write!(f, "{}=", names.join(","))?;
        let flags = [(self.effective, "e"), (self.inheritable, "i"), (self.permitted, "p")];
        flags.into_iter().filter(|(is_set, _)| *is_set).try_for_each(|(_, flag)| f.write_str(flag))
    }
}

impl TryFrom<String> for FileCapabilities {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FileCapabilities> for String {
    fn from(value: FileCapabilities) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_is_the_one_that_setcap_writes() {
        // What `getfattr -e hex -n security.capability` says after `setcap` of libcap 2.66.
        for (text, written) in [
            ("cap_net_raw+ep", "0100000200200000000000000000000000000000"),
            ("cap_net_raw=p", "0000000200200000000000000000000000000000"),
            ("cap_bpf,cap_net_admin,cap_chown=eip", "0100000201100000011000008000000080000000"),
        ] {
            let set: FileCapabilities = text.parse().unwrap();
            assert_eq!(crate::digest::encode_hex(&set.to_xattr()), written, "{text}");
            assert_eq!(set.to_string().parse(), Ok(set));
        }
    }

    #[test]
    fn what_setcap_would_not_take_is_refused() {
        for bad in [
            "",
            "cap_net_raw",
            "=ep",
            "cap_none=ep",
            "cap_net_raw=",
            "cap_net_raw=e",
            "cap_net_raw=px",
            "cap_a=p cap_b=p",
        ] {
            assert!(bad.parse::<FileCapabilities>().is_err(), "{bad}");
        }
    }
}
