//! What an event says, in words. Descriptions come from event data, which nothing vouches for unless its digest does.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Event, EventType};
use crate::guid::Guid;
use crate::read::Reader;
use crate::uefi::Name;

impl Event<'_> {
    /// A short description for people: the name of a variable, an action, a tag; else the size of the data.
    pub fn description(&self) -> String {
        let described = match self.event_type {
            EventType::EV_EFI_VARIABLE_DRIVER_CONFIG
            | EventType::EV_EFI_VARIABLE_BOOT
            | EventType::EV_EFI_VARIABLE_BOOT2
            | EventType::EV_EFI_VARIABLE_AUTHORITY => {
                self.variable().map(|(vendor, name, data)| format!("variable {vendor} {name}, {} bytes", data.len()))
            }
            EventType::EV_EFI_HANDOFF_TABLES2 | EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2 => self.blob_name(),
            EventType::EV_EVENT_TAG => self.tag().map(|(id, text)| format!("tag {id:#x} {}", printable(text))),
            _ => Some(printable(self.data)).filter(|text| !text.is_empty()),
        };
        described.unwrap_or_else(|| format!("{} bytes", self.data.len()))
    }

    /// UEFI_VARIABLE_DATA: vendor, name, value.
    pub fn variable(&self) -> Option<(Guid, Name, &[u8])> {
        let mut reader = Reader::new(self.data);
        let vendor = reader.guid()?;
        let (name_units, data_length) = (reader.u64()?, reader.u64()?);
        let name_bytes = usize::try_from(name_units).ok()?.checked_mul(2)?;
        let (units, _) = reader.bytes(name_bytes)?.as_chunks::<2>();
        let name: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let data = reader.bytes(usize::try_from(data_length).ok()?)?;
        Some((vendor, Name::from_units(name), data))
    }

    /// TCG_PCClientTaggedEvent: id and data.
    pub fn tag(&self) -> Option<(u32, &[u8])> {
        let mut reader = Reader::new(self.data);
        let (id, length) = (reader.u32()?, reader.u32()?);
        Some((id, reader.bytes(usize::try_from(length).ok()?)?))
    }

    /// The name that starts UEFI_HANDOFF_TABLE_POINTERS2 and UEFI_PLATFORM_FIRMWARE_BLOB2.
    fn blob_name(&self) -> Option<String> {
        let mut reader = Reader::new(self.data);
        let length = usize::from(reader.u8()?);
        reader.bytes(length).map(printable)
    }
}

/// The text that `bytes` start with, up to a NUL; empty where they do not start with any.
fn printable(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_text = text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    if is_text { String::from_utf8_lossy(text).to_string() } else { String::new() }
}
