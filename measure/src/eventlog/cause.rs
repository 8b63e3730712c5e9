//! Which input stands behind an event of a log, told from the event alone: for logs that are compared with other logs, and
//! for events that no prediction has.

use alloc::format;
use alloc::string::{String, ToString};

use super::{Event, EventType};
use crate::uefi::variable::GLOBAL;

/// The input behind an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The input by a short name for machines.
    pub key: &'static str,
    /// The same for people, with the name of a variable or file where the event has one.
    pub text: String,
}

/// The tags under which Linux's EFI stub measures (Linux `drivers/firmware/efi/libstub/efistub.h`).
const TAG_INITRD: u32 = 0x8f3b_22ec;
const TAG_LOAD_OPTIONS: u32 = 0x8f3b_22ed;

impl Event<'_> {
    /// The input behind the event, as far as its type and what it says of itself tell. Nothing vouches for the latter.
    pub fn cause(&self) -> Cause {
        let cause = |key, text: &str| Cause { key, text: text.to_string() };
        match self.event_type {
            EventType::EV_EFI_HANDOFF_TABLES2 => cause("memory", "memory size (TD HOB)"),
            EventType::EV_EFI_HANDOFF_TABLES => cause("smbios", "SMBIOS tables"),
            EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB | EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2 => {
                cause("variable_store", "firmware variable store")
            }
            EventType::EV_EFI_VARIABLE_DRIVER_CONFIG | EventType::EV_EFI_VARIABLE_AUTHORITY => {
                Cause { key: "secure_boot", text: self.variable_text("a variable of Secure Boot") }
            }
            EventType::EV_EFI_VARIABLE_BOOT | EventType::EV_EFI_VARIABLE_BOOT2 => {
                Cause { key: "boot_entry", text: self.variable_text("a boot entry") }
            }
            EventType::EV_PLATFORM_CONFIG_FLAGS => self.configuration(),
            EventType::EV_EFI_BOOT_SERVICES_APPLICATION => cause("kernel", "kernel or boot loader"),
            EventType::EV_EFI_BOOT_SERVICES_DRIVER | EventType::EV_EFI_RUNTIME_SERVICES_DRIVER => {
                cause("driver", "a driver, such as a device's option ROM")
            }
            EventType::EV_EFI_GPT_EVENT | EventType::EV_EFI_GPT_EVENT2 => cause("partitions", "partition table"),
            EventType::EV_EVENT_TAG => match self.tag() {
                Some((TAG_LOAD_OPTIONS, _)) => cause("cmdline", "kernel command line"),
                Some((TAG_INITRD, _)) => cause("initrd", "initrd"),
                _ => cause("tag", &self.description()),
            },
            EventType::EV_IPL => Cause { key: "boot_loader", text: format!("boot loader: {}", self.description()) },
            EventType::EV_SEPARATOR => cause("separator", "separator"),
            EventType::EV_ACTION | EventType::EV_EFI_ACTION => {
                Cause { key: "action", text: format!("action \"{}\"", self.description()) }
            }
            EventType::EV_S_CRTM_VERSION | EventType::EV_S_CRTM_CONTENTS | EventType::EV_POST_CODE => {
                cause("firmware", "firmware")
            }
            other => Cause { key: "other", text: other.to_string() },
        }
    }

    fn variable_text(&self, otherwise: &str) -> String {
        match self.variable() {
            Some((GLOBAL, name, _)) => format!("variable {name}"),
            Some((vendor, name, _)) => format!("variable {name} of {vendor}"),
            None => otherwise.to_string(),
        }
    }

    /// What QEMU hands to firmware: ACPI tables, or a file of fw_cfg by name.
    fn configuration(&self) -> Cause {
        match self.data.strip_prefix(b"QEMU FW CFG\0") {
            Some(name) => {
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                Cause { key: "fw_cfg", text: format!("fw_cfg file {}", String::from_utf8_lossy(name)) }
            }
            None if self.data.starts_with(b"ACPI") => {
                Cause { key: "acpi", text: "ACPI tables: vCPUs, devices, QEMU's version".to_string() }
            }
            None => Cause { key: "configuration", text: "platform configuration".to_string() },
        }
    }
}
