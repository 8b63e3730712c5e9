//! The `.modinfo` section of a kernel module, and the ELF file around it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the module is private in its crate and taken from image/src/kernel as it is")]
#[rustfmt::skip]
#[path = "../../image/src/kernel/modinfo.rs"]
mod modinfo;

/// The smallest ELF64 file with `content` as its `.modinfo`: header, names, content, three section headers.
fn module(content: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
    let (names_at, content_at) = (64, 64 + NAMES.len());
    let sections_at = content_at + content.len();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([1, 0, 0x3e, 0, 1, 0, 0, 0]);
    elf.resize(40, 0);
    elf.extend((sections_at as u64).to_le_bytes());
    elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    elf.resize(64, 0);
    elf.extend(NAMES);
    elf.extend(content);
    elf.extend([0; 64]);
    for (name, kind, offset, size) in [(1_u32, 1_u32, content_at, content.len()), (10, 3, names_at, NAMES.len())] {
        elf.extend([name.to_le_bytes(), kind.to_le_bytes()].concat());
        elf.extend([0; 16]);
        elf.extend([(offset as u64).to_le_bytes(), (size as u64).to_le_bytes()].concat());
        elf.extend([0; 24]);
    }
    elf
}

fuzz_target!(|bytes: &[u8]| {
    let _ = modinfo::read(bytes);
    let info = modinfo::read(&module(bytes)).expect("a module");
    assert!(info.depends.iter().all(|name| !name.is_empty() && !name.contains(',')));
});
