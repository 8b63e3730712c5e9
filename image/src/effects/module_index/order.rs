//! In which order modules are listed, and what each needs, itself and through others (kmod 34, tools/depmod.c:
//! depmod_modules_sort, depmod_load_dependencies, depmod_calculate_dependencies).

use std::collections::{BTreeMap, BTreeSet};

use super::hash;
use super::module::Module;
use crate::kernel::uncompressed;

/// depmod keeps the number of a module in 16 bits.
const MAX_MODULES: usize = 65534;

/// All modules of one kernel, in the order in which the indexes list them.
#[derive(Debug, Default)]
pub(super) struct Modules {
    modules: Vec<Module>,
    /// Bucket and name of each exported symbol, with its module: the order of depmod's hash table.
    symbols: BTreeMap<(u32, String), usize>,
    /// What each module needs, itself and through others, in the order in which `modprobe` removes them.
    needs: Vec<Vec<usize>>,
}

impl Modules {
    /// Sorts `modules` as `order` (`modules.order`, one path a line) has them; those it does not name come last.
    pub(super) fn sorted(mut modules: Vec<Module>, order: &[u8]) -> Result<Self, String> {
        if modules.len() > MAX_MODULES {
            return Err(format!("there are {} modules, at most {MAX_MODULES} are indexed", modules.len()));
        }
        let mut ranks: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (rank, line) in order.split(|byte| *byte == b'\n').enumerate() {
            ranks.entry(line).or_insert(rank);
        }
        modules.sort_by_cached_key(|module| {
            let rank = ranks.get(uncompressed(&module.path).as_bytes()).copied().unwrap_or(usize::MAX);
            (rank, hash::bucket(&module.name, hash::MODULES), module.name.clone())
        });
        if let Some([one, other]) = modules.array_windows().find(|[one, other]| one.name == other.name) {
            return Err(format!("the module \"{}\" is there twice: {} and {}", one.name, one.path, other.path));
        }
        let mut symbols = BTreeMap::new();
        for (index, module) in modules.iter().enumerate() {
            for symbol in &module.exports {
                // Of two modules with one symbol, the later one has it.
                symbols.insert((hash::bucket(symbol, hash::SYMBOLS), symbol.clone()), index);
            }
        }
        let direct: Vec<Vec<usize>> = modules.iter().map(|module| owners(module, &symbols)).collect();
        let ranks = topological(&direct).map_err(|index| {
            let name = modules.get(index).map_or("", |module| &module.name);
            format!("the module \"{name}\" needs itself, through what it depends on")
        })?;
        let needs = (0..direct.len()).map(|index| all(index, &direct, &ranks)).collect();
        Ok(Self { modules, symbols, needs })
    }

    pub(super) fn len(&self) -> usize {
        self.modules.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter()
    }

    pub(super) fn name(&self, index: usize) -> &str {
        self.modules.get(index).map_or("", |module| &module.name)
    }

    /// Exported symbols with their modules, in depmod's order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = (&str, usize)> {
        self.symbols.iter().map(|((_, symbol), owner)| (symbol.as_str(), *owner))
    }

    /// `PATH: PATH...`: a module, and what has to be loaded for it, the last one first.
    pub(super) fn dependency_line(&self, index: usize) -> String {
        let path = |index: usize| self.modules.get(index).map_or("", |module| &module.path);
        let mut line = format!("{}:", path(index));
        for needed in self.needs.get(index).into_iter().flatten() {
            line.push(' ');
            line += path(*needed);
        }
        line
    }
}

/// The modules whose symbols `module` needs, each once, in the order in which it names them. What no module has is the kernel's.
fn owners(module: &Module, symbols: &BTreeMap<(u32, String), usize>) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    for symbol in &module.needs {
        let symbol = symbol.strip_prefix('.').unwrap_or(symbol);
        let owner = symbols.get(&(hash::bucket(symbol, hash::SYMBOLS), symbol.to_owned()));
        if let Some(owner) = owner.filter(|owner| !found.contains(owner)) {
            found.push(*owner);
        }
    }
    found
}

/// The place of each module in a topological order, users first; the error is a module that is part of a cycle, or above one.
fn topological(direct: &[Vec<usize>]) -> Result<Vec<usize>, usize> {
    let mut users = vec![0usize; direct.len()];
    for needed in direct.iter().flatten() {
        if let Some(count) = users.get_mut(*needed) {
            *count += 1;
        }
    }
    // A stack, as depmod has it: the order depends on it.
    let mut open: Vec<usize> =
        users.iter().enumerate().filter(|(_, count)| **count == 0).map(|(index, _)| index).collect();
    let mut ranks = vec![usize::MAX; direct.len()];
    let mut rank = 0;
    while let Some(index) = open.pop() {
        if let Some(place) = ranks.get_mut(index) {
            *place = rank;
        }
        rank += 1;
        for needed in direct.get(index).into_iter().flatten() {
            if let Some(count) = users.get_mut(*needed) {
                *count -= 1;
                if *count == 0 {
                    open.push(*needed);
                }
            }
        }
    }
    match ranks.iter().position(|place| *place == usize::MAX) {
        Some(index) => Err(index),
        None => Ok(ranks),
    }
}

/// Everything that `index` needs, sorted by rank.
fn all(index: usize, direct: &[Vec<usize>], ranks: &[usize]) -> Vec<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = direct.get(index).cloned().unwrap_or_default();
    while let Some(needed) = open.pop() {
        if found.insert((ranks.get(needed).copied(), needed)) {
            open.extend(direct.get(needed).into_iter().flatten());
        }
    }
    found.into_iter().map(|(_, needed)| needed).collect()
}
