//! What one module exports, needs and says about itself (kmod 34, libkmod/libkmod-elf.c).

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::kernel::modinfo::{self, Modinfo};
use crate::kernel::{decompressed, module_name};

/// A module, without its code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Module {
    /// Its path below the kernel's directory, compressed where it is.
    pub(super) path: String,
    /// Its name, with `_` for `-`.
    pub(super) name: String,
    pub(super) info: Modinfo,
    /// The symbols that it gives to others.
    pub(super) exports: Vec<String>,
    /// The symbols that it takes from others or from the kernel, in the order of its symbol table.
    pub(super) needs: Vec<String>,
}

impl Module {
    pub(super) fn read(path: &str, packed: &[u8]) -> Result<Self, String> {
        let elf = decompressed(path, packed)?;
        let info = modinfo::read(&elf)?;
        let file: ElfFile64<'_> = ElfFile64::parse(elf.as_slice()).map_err(|_| "it is no ELF file of 64 bits")?;
        let name = module_name(path).unwrap_or_default();
        Ok(Self { path: path.to_owned(), name, info, exports: exports(&file), needs: needs(&file) })
    }

    /// The name of the device node that this module stands behind, and its number as `modules.devname` has it.
    pub(super) fn device_node(&self) -> Option<(&str, String)> {
        let (mut name, mut device) = (None, None);
        for alias in &self.info.aliases {
            if let Some(found) = alias.strip_prefix("devname:") {
                name = Some(found);
            } else if let Some(number) = alias.strip_prefix("char-major-").and_then(numbers) {
                device = Some(format!("c{number}"));
            } else if let Some(number) = alias.strip_prefix("block-major-").and_then(numbers) {
                device = Some(format!("b{number}"));
            }
            if name.is_some() && device.is_some() {
                break;
            }
        }
        Some((name?, device?))
    }
}

/// `10-223` to `10:223`; what follows the second number does not matter (scanf's `%u-%u`).
fn numbers(text: &str) -> Option<String> {
    let (major, rest) = text.split_once('-')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(format!("{}:{}", major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
}

/// The symbols with a checksum (`__crc_NAME`); without any, the names that exported symbols have.
fn exports(file: &ElfFile64<'_>) -> Vec<String> {
    let names = file.symbols().filter_map(|symbol| symbol.name().ok());
    let checked: Vec<String> = names.filter_map(|name| name.strip_prefix("__crc_").map(str::to_owned)).collect();
    if !checked.is_empty() {
        return checked;
    }
    let strings = file.section_by_name("__ksymtab_strings").and_then(|section| section.data().ok()).unwrap_or_default();
    texts(strings.split(|byte| *byte == 0)).collect()
}

/// The undefined symbols, then those that only the table of checksums names.
fn needs(file: &ElfFile64<'_>) -> Vec<String> {
    /// struct modversion_info of Linux: a checksum of 8 bytes, and a name of at most 56.
    const ENTRY: usize = 64;
    let symbols = file.symbols().filter(|symbol| symbol.is_undefined());
    let undefined = symbols.filter_map(|symbol| symbol.name().ok()).filter(|name| !name.is_empty());
    let versions = file.section_by_name("__versions").and_then(|section| section.data().ok()).unwrap_or_default();
    let names = versions.chunks_exact(ENTRY).filter_map(|entry| entry.get(8..)?.split(|byte| *byte == 0).next());
    undefined.map(str::to_owned).chain(texts(names)).collect()
}

fn texts<'a>(strings: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = String> {
    strings.filter_map(|text| std::str::from_utf8(text).ok()).filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_node_needs_a_name_and_a_number() {
        let node = |aliases: &[&str]| {
            let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
            let module = Module { info: Modinfo { aliases, ..Modinfo::default() }, ..Module::default() };
            module.device_node().map(|(name, device)| format!("{name} {device}"))
        };
        assert_eq!(node(&["devname:fuse", "char-major-10-229"]).as_deref(), Some("fuse c10:229"));
        assert_eq!(
            node(&["block-major-7-*", "devname:loop-control", "char-major-10-237x"]).as_deref(),
            Some("loop-control c10:237")
        );
        assert_eq!(node(&["devname:net/tun"]), None);
        assert_eq!(node(&["char-major-10-200"]), None);
    }
}
