//! GUIDs as firmware stores them: the first three fields little-endian (UEFI 2.11, appendix A).

use core::fmt;

/// A GUID in its stored byte order. Any 16 bytes are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID written `time_low-time_mid-time_high-node[0..2]-node[2..8]`.
    pub const fn new(time_low: u32, time_mid: u16, time_high: u16, node: [u8; 8]) -> Self {
        let [a0, a1, a2, a3] = time_low.to_le_bytes();
        let [b0, b1] = time_mid.to_le_bytes();
        let [c0, c1] = time_high.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = node;
        Self([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7])
    }

    /// The GUID whose bytes are `bytes` where it is written: each field's most significant byte first (RFC 9562).
    pub const fn from_text_order(bytes: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7] = bytes;
        Self([a3, a2, a1, a0, b1, b0, c1, c0, d0, d1, d2, d3, d4, d5, d6, d7])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, node @ ..] = self.0;
        let (a, b, c) =
            (u32::from_le_bytes([a0, a1, a2, a3]), u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d0:02x}{d1:02x}-")?;
        node.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn first_fields_are_stored_little_endian() {
        let guid = Guid::new(0x96b582de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
        assert_eq!(guid.to_string(), "96b582de-1fb2-45f7-baea-a366c55a082d");
        assert_eq!(guid.0[..8], [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45]);
        let written = 0x96b582de_1fb2_45f7_baea_a366c55a082d_u128;
        assert_eq!(Guid::from_text_order(written.to_be_bytes()), guid);
    }
}
