//! The reader of initrds behind `diff`: any bytes, any archive in a frame of zstd, and an archive of our own with bytes changed.
#![no_main]

use image::compare::initrd_paths;
use image::cpio::{Entry, write_newc};
use libfuzzer_sys::fuzz_target;

/// A frame with one segment and blocks that are not compressed (RFC 8878, section 3.1.1): what is inside is all the fuzzer's.
fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend((content.len() as u32).to_le_bytes());
    let blocks: Vec<&[u8]> = content.chunks(1 << 16).collect();
    for (number, block) in blocks.iter().enumerate() {
        let last = u32::from(number + 1 == blocks.len());
        frame.extend(&((block.len() as u32) << 3 | last).to_le_bytes()[..3]);
        frame.extend(*block);
    }
    if blocks.is_empty() {
        frame.extend([1, 0, 0]);
    }
    frame
}

/// Two files, the second with the fuzzer's content.
fn archive(content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    let entry = |path, content| Entry { path, mode: 0o100_644, device: (0, 0), content };
    write_newc(&mut archive, [entry("etc/a", b"first".as_slice()), entry("init", content)]).expect("an archive in memory");
    archive
}

fuzz_target!(init: assert_eq!(initrd_paths(&frame(&archive(b"x"))).expect("it is one"), ["etc/a", "init"]), |bytes: &[u8]| {
    let _ = initrd_paths(bytes);
    let _ = initrd_paths(&frame(bytes));
    let mut changed = archive(bytes);
    for change in bytes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = changed.get_mut(at) {
            *byte = change[2];
        }
    }
    let _ = initrd_paths(&frame(&changed));
});
