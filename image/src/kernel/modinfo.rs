//! The `.modinfo` section of a kernel module: `key=value` strings, each ended by a zero byte (include/linux/moduleparam.h).

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

/// What a module says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modinfo {
    pub(crate) name: String,
    pub(crate) vermagic: String,
    /// The module's own version; modules of the kernel's source seldom have one.
    pub(crate) version: Option<String>,
    /// Modules whose symbols it uses.
    pub(crate) depends: Vec<String>,
    /// Modules it wants to have been loaded before, where they exist (`softdep=pre: ...`).
    pub(crate) wants: Vec<String>,
    /// The values of `alias`, `softdep` and `weakdep`, each in the order of the module.
    pub(crate) aliases: Vec<String>,
    pub(crate) soft_dependencies: Vec<String>,
    pub(crate) weak_dependencies: Vec<String>,
}

pub(crate) fn read(elf: &[u8]) -> Result<Modinfo, &'static str> {
    let file: ElfFile64<'_> = ElfFile64::parse(elf).map_err(|_| "it is no ELF file of 64 bits")?;
    let section = file.section_by_name(".modinfo").ok_or("it has no .modinfo section")?;
    let data = section.data().map_err(|_| "its .modinfo section is outside the file")?;
    let mut info = Modinfo::default();
    for item in data.split(|byte| *byte == 0) {
        let Some((key, value)) = std::str::from_utf8(item).ok().and_then(|text| text.split_once('=')) else {
            continue;
        };
        match key {
            "name" => value.clone_into(&mut info.name),
            "vermagic" => value.clone_into(&mut info.vermagic),
            "version" => info.version = Some(value.to_owned()),
            "depends" => info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned)),
            "softdep" => {
                info.wants.extend(before(value));
                info.soft_dependencies.push(value.to_owned());
            }
            "alias" => info.aliases.push(value.to_owned()),
            "weakdep" => info.weak_dependencies.push(value.to_owned()),
            _ => {}
        }
    }
    Ok(info)
}

/// The names after `pre:` and before `post:` (modprobe.d(5), softdep).
fn before(value: &str) -> impl Iterator<Item = String> + '_ {
    let (_, rest) = value.split_once("pre:").unwrap_or(("", ""));
    let names = rest.split_once("post:").map_or(rest, |(names, _)| names);
    names.split_whitespace().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn softdep_has_a_part_before_and_a_part_after() {
        assert_eq!(before("pre: a b post: c").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(before("post: c pre: a").collect::<Vec<_>>(), ["a"]);
        assert_eq!(before("a").count(), 0);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = read(&bytes);
            let _ = read(&[b"\x7fELF\x02\x01\x01".as_slice(), &bytes].concat());
        }
    }
}
