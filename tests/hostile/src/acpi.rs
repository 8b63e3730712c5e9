//! ACPI tables made by hand (ACPI Specification 6.5, 5.2.6 and 20): with code that the kernel runs when it loads them.

/// What the code writes.
pub const PATTERN: u32 = 0x1337_b0b0;
/// Where it writes it: memory of the guest that its firmware says is free, and that its kernel leaves alone because of what
/// firmware does there (the first 64 KiB).
pub const ADDRESS: u32 = 0x5000;

/// A table of the kind `signature` whose code writes the pattern into the guest's memory.
pub fn table_that_writes(signature: [u8; 4]) -> Vec<u8> {
    let (address, pattern) = (ADDRESS.to_le_bytes(), PATTERN.to_le_bytes());
    // OperationRegion (EVIL, SystemMemory, ADDRESS, 4)
    let region = [b"\x5b\x80EVIL\x00\x0c".as_slice(), &address, b"\x0a\x04"].concat();
    // Field (EVIL, DWordAcc, NoLock, Preserve) { MARK, 32 }
    let field = b"\x5b\x81\x0bEVIL\x03MARK\x20".to_vec();
    // Store (PATTERN, MARK)
    let store = [b"\x70\x0c".as_slice(), &pattern, b"MARK"].concat();
    table(signature, &[region, field, store].concat())
}

/// A table with this body.
pub fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(36 + body.len()).unwrap();
    let mut table =
        [&signature[..], &length.to_le_bytes(), &[2, 0], b"HOSTILHOSTILHO", &[1, 0, 0, 0], b"TEST", &[1, 0, 0, 0]]
            .concat();
    table.extend_from_slice(body);
    table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_length_and_sums_to_zero() {
        let table = table_that_writes(*b"SSDT");
        assert_eq!(table[4..8], u32::try_from(table.len()).unwrap().to_le_bytes());
        assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}
