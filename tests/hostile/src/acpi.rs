//! ACPI tables made by hand (ACPI Specification 6.5, 5.2.6 and 20): with code that the kernel runs when it loads them.

/// What the code writes.
pub const PATTERN: u32 = 0x1337_b0b0;
/// Where it writes it: memory of the guest that its firmware says is free, and that its kernel leaves alone because of what
/// firmware does there (the first 64 KiB).
pub const ADDRESS: u32 = 0x5000;

/// A table of the kind `signature` whose code writes the pattern into the guest's memory.
pub fn table_that_writes(signature: [u8; 4]) -> Vec<u8> {
    table(signature, &code_that_writes())
}

/// The code by itself.
pub fn code_that_writes() -> Vec<u8> {
    let (address, pattern) = (ADDRESS.to_le_bytes(), PATTERN.to_le_bytes());
    // OperationRegion (EVIL, SystemMemory, ADDRESS, 4)
    let region = [b"\x5b\x80EVIL\x00\x0c".as_slice(), &address, b"\x0a\x04"].concat();
    // Field (EVIL, DWordAcc, NoLock, Preserve) { MARK, 32 }
    let field = b"\x5b\x81\x0bEVIL\x03MARK\x20".to_vec();
    // Store (PATTERN, MARK)
    let store = [b"\x70\x0c".as_slice(), &pattern, b"MARK"].concat();
    [region, field, store].concat()
}

/// A table with this body.
pub fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let head = [&signature[..], &[0; 4], &[2, 0], b"HOSTILHOSTILHO", &[1, 0, 0, 0], b"TEST", &[1, 0, 0, 0]].concat();
    with_length_and_sum([&head, body].concat())
}

/// The table with its length, and a checksum that is right.
pub fn with_length_and_sum(mut table: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(table.len()).unwrap();
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[9] = 0;
    table[9] = sum(&table).wrapping_neg();
    table
}

/// A table of the kind `signature` in memory: one whose checksum is right.
pub fn find(memory: &[u8], signature: [u8; 4]) -> Option<&[u8]> {
    let starts = memory.windows(8).enumerate().filter(|(_, head)| head[..4] == signature);
    starts
        .filter_map(|(at, head)| {
            let length = usize::try_from(u32::from_le_bytes(head[4..].try_into().ok()?)).ok()?;
            memory.get(at..at.checked_add(length)?).filter(|table| table.len() > 36 && sum(table) == 0)
        })
        .next()
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_length_and_sums_to_zero() {
        let table = table_that_writes(*b"SSDT");
        assert_eq!(table[4..8], u32::try_from(table.len()).unwrap().to_le_bytes());
        assert_eq!(sum(&table), 0);
        let memory = [b"xSSDT".as_slice(), &[0xff; 40], &table].concat();
        assert_eq!(find(&memory, *b"SSDT"), Some(table.as_slice()));
        assert_eq!(find(&memory, *b"DSDT"), None);
    }
}
