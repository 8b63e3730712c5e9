//! An ELF file with nothing but one section, as modules and firmware have it: a file of its own, because tests of other crates make them too.

/// For x86-64, relocatable (ET_REL).
pub(crate) fn elf(section: &str, data: &[u8]) -> Vec<u8> {
    let names = format!("\0{section}\0.shstrtab\0");
    let (data_at, names_at) = (64, 64 + data.len());
    let table_at = (names_at + names.len()).next_multiple_of(8);
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([1, 0, 62, 0, 1, 0, 0, 0]); // ET_REL, EM_X86_64
    [0, 0, table_at as u64].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    elf.extend([0; 4]);
    [64_u16, 0, 0, 64, 3, 2].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend(data);
    elf.extend(names.bytes());
    elf.resize(table_at, 0);
    let sections = [(0, 0_u32, 0, 0), (1, 1, data_at, data.len()), (section.len() + 2, 3, names_at, names.len())];
    for (name, kind, at, size) in sections {
        elf.extend(u32::try_from(name).unwrap().to_le_bytes());
        elf.extend(kind.to_le_bytes());
        // sh_flags, sh_addr, sh_offset, sh_size, sh_link with sh_info, sh_addralign, sh_entsize.
        [0, 0, at as u64, size as u64, 0, 1, 0].iter().for_each(|word: &u64| elf.extend(word.to_le_bytes()));
    }
    elf
}
