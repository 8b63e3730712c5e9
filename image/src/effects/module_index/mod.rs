//! The indexes of kernel modules that `modprobe` and udev read: what `depmod` writes into `/usr/lib/modules/VERSION` (kmod 34,
//! tools/depmod.c), to the byte, from the modules that are there.
//!
//! `module` reads a module, `order` finds what depends on what and in which order all is listed, `trie` writes the binary
//! indexes. Not followed: `depmod.d` (overrides and search paths), because every module name is there once.

mod builtin;
mod hash;
mod kept;
mod module;
mod order;
mod trie;

use rayon::prelude::*;
use store::Store;

use super::{EffectError, replace_file};
use crate::content::Content;
use crate::kernel::module_name;
use crate::tree::{Kind, Tree};
use module::Module;
use order::Modules;
use trie::Trie;

const EFFECT: &str = "the module-index effect";
const DIRECTORY: &str = "usr/lib/modules";
/// What the kernel's build says, besides the modules.
const ORDER: &str = "modules.order";
const BUILTIN: &str = "modules.builtin";
const BUILTIN_MODINFO: &str = "modules.builtin.modinfo";
/// Longer aliases are cut by depmod (PATH_MAX), and by nobody made.
const MAX_KEY: usize = 4095;

pub(super) fn apply(
    tree: &mut Tree,
    is_left_out: impl Fn(&str) -> bool,
    cache: Option<&Store>,
) -> Result<(), EffectError> {
    let kernels: Vec<String> = tree
        .children(DIRECTORY)
        .filter(|(_, node)| node.is_directory())
        .map(|(version, _)| format!("{DIRECTORY}/{version}"))
        .collect();
    for directory in kernels {
        let inputs = inputs(tree, &directory);
        if inputs.is_empty() {
            continue;
        }
        for (name, content) in kept::or_made(cache, tree, &directory, &inputs, || indexes(tree, &directory, &inputs))? {
            let path = format!("{directory}/{name}");
            if !is_left_out(&path) {
                replace_file(tree, &path, 0o644, content, EFFECT);
            }
        }
    }
    Ok(())
}

/// Every file that depmod writes for the kernel in `directory`.
fn indexes(tree: &Tree, directory: &str, inputs: &Inputs<'_>) -> Result<Files, EffectError> {
    let at = |path: &str, reason: String| EffectError { effect: "module-index", path: format!("/{path}"), reason };
    let text = |name: &str| tree.file(&format!("{directory}/{name}"));
    let modules = Modules::sorted(modules(directory, inputs)?, text(ORDER).unwrap_or_default())
        .map_err(|reason| at(directory, reason))?;
    files(&modules, text(BUILTIN), text(BUILTIN_MODINFO))
        .map_err(|(file, reason)| at(&format!("{directory}/{file}"), reason))
}

/// The files of modules by their path in the kernel's directory.
type Inputs<'a> = Vec<(&'a str, &'a Content)>;

/// The modules below a kernel's directory, in the order of their paths. `build` and `source` are no part of it.
fn inputs<'a>(tree: &'a Tree, directory: &str) -> Inputs<'a> {
    let skip = directory.len() + 1;
    tree.below(directory)
        .filter_map(|(path, node)| match &node.kind {
            Kind::File { content, .. } => Some((path.get(skip..)?, content)),
            _ => None,
        })
        .filter(|(path, _)| module_name(path).is_some() && !path.starts_with("build/") && !path.starts_with("source/"))
        .collect()
}

fn modules(directory: &str, inputs: &Inputs<'_>) -> Result<Vec<Module>, EffectError> {
    let read = |(path, content): &(&str, &Content)| {
        Module::read(path, content.bytes()).map_err(|reason| EffectError {
            effect: "module-index",
            path: format!("/{directory}/{path}"),
            reason,
        })
    };
    inputs.par_iter().map(read).collect()
}

/// Names and contents.
type Files = Vec<(String, Vec<u8>)>;

/// Every file that depmod writes; the error names the file.
fn files(
    modules: &Modules,
    builtin: Option<&[u8]>,
    builtin_modinfo: Option<&[u8]>,
) -> Result<Files, (&'static str, String)> {
    let binary = |name: &'static str, trie: Result<Trie, String>| {
        let bytes = trie.and_then(|trie| trie.to_bytes()).map_err(|reason| (name, reason))?;
        Ok((name, bytes))
    };
    // Where the kernel's build says nothing, depmod leaves the file empty.
    let described = |name: &'static str, trie: Option<Result<Trie, String>>| match trie {
        Some(trie) => binary(name, trie),
        None => Ok((name, Vec::new())),
    };
    let files = vec![
        ("modules.dep", dependencies(modules).into_bytes()),
        binary("modules.dep.bin", dependency_index(modules))?,
        ("modules.alias", aliases(modules).into_bytes()),
        binary("modules.alias.bin", alias_index(modules))?,
        ("modules.softdep", listed(modules, "# Soft", "softdep", |module| &module.info.soft_dependencies).into_bytes()),
        ("modules.weakdep", listed(modules, "# Weak", "weakdep", |module| &module.info.weak_dependencies).into_bytes()),
        ("modules.symbols", symbols(modules).into_bytes()),
        binary("modules.symbols.bin", symbol_index(modules))?,
        described("modules.builtin.bin", builtin.map(builtin::names))?,
        described("modules.builtin.alias.bin", builtin_modinfo.map(builtin::aliases))?,
        ("modules.devname", device_names(modules).into_bytes()),
    ];
    Ok(files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect())
}

fn dependencies(modules: &Modules) -> String {
    (0..modules.len()).map(|module| modules.dependency_line(module) + "\n").collect()
}

fn dependency_index(modules: &Modules) -> Result<Trie, String> {
    let mut trie = Trie::default();
    for (index, module) in modules.iter().enumerate() {
        trie.insert(&module.name, &modules.dependency_line(index), priority(index))?;
    }
    Ok(trie)
}

fn aliases(modules: &Modules) -> String {
    let mut text = "# Aliases extracted from modules themselves.\n".to_owned();
    for module in modules.iter() {
        module.info.aliases.iter().for_each(|alias| text += &format!("alias {alias} {}\n", module.name));
    }
    text
}

fn alias_index(modules: &Modules) -> Result<Trie, String> {
    let mut trie = Trie::default();
    for (index, module) in modules.iter().enumerate() {
        for alias in module.info.aliases.iter().filter_map(|alias| normalised_alias(alias)) {
            trie.insert(&alias, &module.name, priority(index))?;
        }
    }
    Ok(trie)
}

/// `-` is `_` in an alias, except between brackets; `None` where a bracket is not matched (alias_normalize in shared/util.c).
fn normalised_alias(alias: &str) -> Option<String> {
    let mut inside = false;
    let mut out = String::with_capacity(alias.len());
    for c in alias.chars() {
        match c {
            ']' if !inside => return None,
            ']' => inside = false,
            '[' => inside = true,
            _ => {}
        }
        out.push(if c == '-' && !inside { '_' } else { c });
    }
    (!inside).then_some(out)
}

fn listed(modules: &Modules, what: &str, word: &str, values: impl Fn(&Module) -> &Vec<String>) -> String {
    let mut text = format!("{what} dependencies extracted from modules themselves.\n");
    for module in modules.iter() {
        values(module).iter().for_each(|value| text += &format!("{word} {} {value}\n", module.name));
    }
    text
}

fn symbols(modules: &Modules) -> String {
    let mut text = "# Aliases for symbols, used by symbol_request().\n".to_owned();
    for (symbol, owner) in modules.symbols() {
        text += &format!("alias symbol:{symbol} {}\n", modules.name(owner));
    }
    text
}

fn symbol_index(modules: &Modules) -> Result<Trie, String> {
    let mut trie = Trie::default();
    for (symbol, owner) in modules.symbols() {
        trie.insert(&format!("symbol:{symbol}"), modules.name(owner), priority(owner))?;
    }
    Ok(trie)
}

/// The device nodes whose opening loads a module: those with an alias `devname:` and one for the device's number.
fn device_names(modules: &Modules) -> String {
    let mut text = String::new();
    for module in modules.iter() {
        let Some((name, device)) = module.device_node() else {
            continue;
        };
        if text.is_empty() {
            text += "# Device nodes to trigger on-demand module loading.\n";
        }
        text += &format!("{} {name} {device}\n", module.name);
    }
    text
}

/// depmod takes no more than 65534 modules, and neither does `Modules`.
fn priority(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Module::read("a.ko", &[b"\x7fELF\x02\x01\x01".as_slice(), &bytes].concat());
            let module = Module { path: "a.ko".to_owned(), name: "a".to_owned(), ..Module::default() };
            let modules = Modules::sorted(vec![module], &bytes).unwrap();
            let _ = files(&modules, Some(&bytes), Some(&bytes));
        }
    }

    #[test]
    fn hyphens_stay_between_brackets_only() {
        assert_eq!(normalised_alias("a-b[0-9]-c").as_deref(), Some("a_b[0-9]_c"));
        assert_eq!(normalised_alias("a]"), None);
        assert_eq!(normalised_alias("a[b"), None);
    }

    #[test]
    fn without_modules_there_is_no_index() {
        let mut tree = Tree::default();
        apply(&mut tree, |_| false, None).unwrap();
        assert_eq!(tree.len(), 1);
    }
}
