//! What firmware leaves in a machine's memory: its log, its variables, its SMBIOS tables.

use measure::eventlog::{EventLog, EventType};

/// The last event of firmware.
pub(crate) const BOOTED: &[u8] = b"Exit Boot Services Returned with Success";

/// In the data of a log's first event.
pub(crate) const SIGNATURE: &[u8] = b"Spec ID Event03\0";

/// The complete log in memory: what Linux copies before it leaves firmware is shorter.
pub(crate) fn log(memory: &[u8]) -> Option<EventLog<'_>> {
    // The signature is in the event data, 32 bytes into the log.
    let starts = memchr(memory, SIGNATURE).filter_map(|position| position.checked_sub(32));
    let logs = starts.filter_map(|start| Some(EventLog::parse_lenient(memory.get(start..)?).ok()?.0));
    let is_complete = |log: &EventLog<'_>| log.events.iter().any(|event| event.data == BOOTED);
    logs.filter(is_complete).map(until_booted).next()
}

/// Without what follows the log in memory, or the kernel adds to it.
pub(crate) fn until_booted(mut log: EventLog<'_>) -> EventLog<'_> {
    let last = log.events.iter().position(|event| event.data == BOOTED).unwrap();
    log.events.truncate(last + 1);
    log
}

/// Where the pattern is, which starts with no zero: most of the memory is, and passed over page by page.
pub(crate) fn memchr<'a>(memory: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    const PAGE: usize = 4096;
    const ZERO: [u8; PAGE] = [0; PAGE];
    let first = pattern[0];
    let pages = memory.chunks(PAGE).enumerate().filter(|(_, page)| **page != ZERO[..page.len()]);
    let candidates = pages.flat_map(move |(number, page)| {
        let bytes = page.iter().enumerate().filter(move |(_, byte)| **byte == first);
        bytes.map(move |(position, _)| number * PAGE + position)
    });
    candidates.filter(move |position| memory[*position..].starts_with(pattern))
}

/// The value of a variable in a store of firmware (edk2 `VariableFormat.h`, AUTHENTICATED_VARIABLE_HEADER).
pub(crate) fn variable(memory: &[u8], name: &str) -> Option<Vec<u8>> {
    const HEADER: usize = 60;
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let number = |at: usize| Some(u32::from_le_bytes(memory.get(at..at + 4)?.try_into().ok()?) as usize);
    memchr(memory, &name).filter_map(|position| position.checked_sub(HEADER)).find_map(|start| {
        // Start mark, and the state of a variable that is not deleted.
        let is_set = memory[start..].starts_with(&[0xaa, 0x55, 0x3f]) && number(start + 36)? == name.len();
        let value = start + HEADER + name.len();
        memory.get(value..value + number(start + 40)?).filter(|_| is_set).map(<[u8]>::to_vec)
    })
}

/// The table that the SMBIOS 2 entry point in memory leads to.
pub(crate) fn smbios_table(memory: &[u8]) -> Option<Vec<u8>> {
    memchr(memory, b"_SM_").find_map(|at| {
        let entry = memory.get(at..at + 31).filter(|entry| &entry[16..21] == b"_DMI_")?;
        let length = usize::from(u16::from_le_bytes(entry[22..24].try_into().ok()?));
        let address = u32::from_le_bytes(entry[24..28].try_into().ok()?) as usize;
        memory.get(address..address + length).filter(|table| !table.is_empty()).map(<[u8]>::to_vec)
    })
}

/// The log of a TPM of version 1.2: where the ACPI table TCPA says that it is (TCG ACPI Specification 1.2, section 7.1),
/// once SeaBIOS has ended its measurements and looks for something to boot.
pub(crate) fn bios_log(memory: &[u8]) -> Option<&[u8]> {
    let tables = memchr(memory, b"TCPA\x32\0\0\0").filter_map(|at| memory.get(at..at + 50));
    let areas = tables.filter(|table| table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0);
    let mut areas = areas.filter_map(|table| {
        let size = u32::from_le_bytes(table[38..42].try_into().unwrap());
        let start = usize::try_from(u64::from_le_bytes(table[42..].try_into().unwrap())).unwrap();
        memory.get(start..start + usize::try_from(size).unwrap())
    });
    let is_complete = |area: &&[u8]| {
        let log = EventLog::parse_lenient(area).ok().map(|(log, _)| log);
        let ended =
            |log: EventLog<'_>| log.events.iter().any(|e| (e.index, e.event_type) == (7, EventType::EV_SEPARATOR));
        log.is_some_and(ended)
    };
    areas.find(is_complete)
}
