//! ID block and authentication information, against the files of virtee/sev's tests, whose signatures verify.

mod shelf;

use measure::Digest384;
use measure::snp::id_block::{IdAuth, IdBlock, IdBlockError, IdBlockMismatch};
use proptest::prelude::*;

#[test]
fn blocks_are_read_and_written() {
    let Some(bytes) = shelf::bytes("snp/idblock/test_id_block.bin") else { return };
    let block = IdBlock::parse(&bytes).unwrap();
    assert!(block.launch_digest.to_string().starts_with("a14d6383"));
    assert_eq!(block.policy, 0x3_0000);
    assert_eq!(block.to_bytes()[..], bytes);
    assert_eq!(block.check(block.launch_digest, 0x3_0000), Ok(()));
    assert!(matches!(block.check(block.launch_digest, 0xb_0000), Err(IdBlockMismatch::Policy { .. })));
    assert!(matches!(block.check(Digest384::ZERO, 0x3_0000), Err(IdBlockMismatch::LaunchDigest { .. })));
}

#[test]
fn authentication_information_is_read_and_written() {
    let Some(bytes) = shelf::bytes("snp/idblock/test_auth_block.bin") else { return };
    let auth = IdAuth::parse(&bytes).unwrap();
    assert!(auth.to_bytes()[..] == bytes);
    let (author_key, author_signature) = auth.author.unwrap();
    // Published in base64: WfssaG36T+9J84M5qndckAUcKNVzg93DuvO160sUlt87DbvcuuX+J2d6ZEggdz/i and 7tgRafsMteDs...
    let expected = "59fb2c686dfa4fef49f38339aa775c90051c28d57383ddc3baf3b5eb4b1496df3b0dbbdcbae5fe27677a644820773fe2";
    assert_eq!(auth.id_key.digest().to_string(), expected);
    assert!(author_key.digest().to_string().starts_with("eed81169fb0cb5e0ec"));
    assert!(auth.block_signature.to_bytes()[..] == shelf::bytes("snp/idblock/test_id_sig.bin").unwrap());
    assert!(author_signature.to_bytes()[..] == shelf::bytes("snp/idblock/test_auth_sig.bin").unwrap());
    let alone = IdAuth { author: None, ..auth };
    assert_eq!(IdAuth::parse(&alone.to_bytes()), Ok(alone));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_is_written(offset in 0..4096_usize, byte: u8, length in 0..4200_usize) {
        let Some(mut bytes) = shelf::bytes("snp/idblock/test_auth_block.bin") else { return Ok(()) };
        bytes[offset] = byte;
        if let Ok(auth) = IdAuth::parse(&bytes) {
            // Without an author key its place is not looked at.
            prop_assert!(auth.author.is_none() || auth.to_bytes()[..] == bytes);
        }
        bytes.resize(length, 0);
        let size = matches!(IdAuth::parse(&bytes), Err(IdBlockError::Size { .. } | IdBlockError::Field { .. }));
        prop_assert!(size || length == 4096);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(block) = IdBlock::parse(&bytes) {
            prop_assert_eq!(&block.to_bytes()[..], &bytes[..]);
        }
    }
}
