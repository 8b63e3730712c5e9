//! The soname of a shared library for x86-64 (ELF gABI, "Dynamic Section").

use object::LittleEndian;
use object::elf::{DT_SONAME, DT_STRTAB, EM_X86_64, ET_DYN, FileHeader64, PT_LOAD};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

type Header = FileHeader64<LittleEndian>;

/// `None` where the bytes are no shared library for x86-64; `Some(None)` where the library has no soname.
pub(super) fn of(elf: &[u8]) -> Option<Option<String>> {
    let header = Header::parse(elf).ok()?;
    let endian = header.endian().ok()?;
    if header.e_machine(endian) != EM_X86_64 || header.e_type(endian) != ET_DYN {
        return None;
    }
    let segments = header.program_headers(endian, elf).ok()?;
    let entries = segments.iter().find_map(|segment| segment.dynamic(endian, elf).ok().flatten())?;
    let value = |tag| entries.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.d_val(endian));
    let (Some(offset), Some(table)) = (value(DT_SONAME), value(DT_STRTAB)) else {
        return Some(None);
    };
    // DT_STRTAB is an address; the segment that is loaded there says where it is in the file.
    let at = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD).find_map(|segment| {
        let inside = table.checked_sub(segment.p_vaddr(endian))?;
        (inside < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(inside))?
    });
    let start = usize::try_from(at?.checked_add(offset)?).ok()?;
    let text = elf.get(start..)?.split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty() && !text.contains('/'));
    Some(text.map(str::to_owned))
}
