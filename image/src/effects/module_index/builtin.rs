//! The indexes of what is built into the kernel, from the two files in which its build describes that (kmod 34,
//! tools/depmod.c: output_builtin_bin, output_builtin_alias_bin).

use super::normalised_alias;
use super::trie::Trie;

/// From `modules.builtin`: a path a line.
pub(super) fn names(text: &[u8]) -> Result<Trie, String> {
    let mut trie = Trie::default();
    let text = std::str::from_utf8(text).map_err(|_| "modules.builtin is not text")?;
    for line in text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic())) {
        let file = line.rsplit('/').next().unwrap_or_default();
        let name = file.split('.').next().unwrap_or_default();
        trie.insert(&name.replace('-', "_"), "", 0)?;
    }
    Ok(trie)
}

/// From `modules.builtin.modinfo`: `NAME.KEY=VALUE`, each ended by a zero byte.
pub(super) fn aliases(bytes: &[u8]) -> Result<Trie, String> {
    let mut trie = Trie::default();
    let text = std::str::from_utf8(bytes).map_err(|_| "modules.builtin.modinfo is not text")?;
    for record in text.split_inclusive('\0').filter_map(|record| record.strip_suffix('\0')) {
        let alias = record.split_once('.').and_then(|(module, rest)| {
            let value = rest.strip_prefix("alias=").filter(|value| !value.is_empty() && !module.is_empty())?;
            Some((normalised_alias(value)?, module))
        });
        if let Some((alias, module)) = alias {
            trie.insert(&alias, module, 0)?;
        }
    }
    Ok(trie)
}
