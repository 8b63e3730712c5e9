//! The order in which modules are loaded: what a module depends on comes before it.

use std::collections::BTreeMap;

use super::{KernelError, Modinfo, Shelf, normalised};

/// What a recipe asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Modules loaded at boot.
    pub boot: &'a [String],
    /// Modules loaded when their device is there.
    pub device: &'a [String],
    /// Modules loaded from the root file system.
    pub root: &'a [String],
}

/// What the guest loads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Modules loaded at boot, in order. What is built into the kernel is not among them.
    pub boot: Vec<String>,
    /// Modules loaded when their device is there.
    pub device: Vec<DeviceModule>,
    /// Modules loaded from the root file system, in order; none of them is loaded at boot already.
    pub root: Vec<String>,
}

/// A module that is loaded when its device is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceModule {
    /// The module.
    pub name: String,
    /// What is loaded for it and not at boot already, in order, ending with the module itself.
    pub order: Vec<String>,
}

/// Reads each needed module once.
pub(super) struct Loader<'a> {
    shelf: &'a Shelf,
    read: BTreeMap<String, (Vec<u8>, Modinfo)>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(shelf: &'a Shelf) -> Self {
        Self { shelf, read: BTreeMap::new() }
    }

    pub(super) fn plan(&mut self, wanted: &Wanted<'_>) -> Result<Plan, KernelError> {
        let mut plan = Plan::default();
        for name in wanted.boot {
            self.add(&normalised(name), None, &mut plan.boot, &mut Vec::new())?;
        }
        for name in wanted.device {
            let name = normalised(name);
            let mut order = plan.boot.clone();
            self.add(&name, None, &mut order, &mut Vec::new())?;
            let order = order.split_off(plan.boot.len());
            let known = plan.device.iter().any(|device| device.name == name);
            // Built in, or loaded at boot anyway.
            if !order.is_empty() && !known {
                plan.device.push(DeviceModule { name, order });
            }
        }
        let mut order = plan.boot.clone();
        for name in wanted.root {
            self.add(&normalised(name), None, &mut order, &mut Vec::new())?;
        }
        plan.root = order.split_off(plan.boot.len());
        Ok(plan)
    }

    /// The modules `names`, each of which a plan of this loader has.
    pub(super) fn modules<'n>(&self, names: impl Iterator<Item = &'n String>) -> BTreeMap<String, Vec<u8>> {
        names.filter_map(|name| Some((name.clone(), self.read.get(name)?.0.clone()))).collect()
    }

    /// Adds `name` to `order`, after what it needs. `above` holds the modules that are being added, against cycles.
    fn add(
        &mut self,
        name: &str,
        needed_by: Option<&str>,
        order: &mut Vec<String>,
        above: &mut Vec<String>,
    ) -> Result<(), KernelError> {
        if order.iter().any(|known| known == name) {
            return Ok(());
        }
        let Some(file) = self.shelf.files.get(name) else {
            return if self.shelf.builtin.contains(name) { Ok(()) } else { Err(self.missing(name, needed_by)) };
        };
        if above.iter().any(|known| known == name) {
            return Err(KernelError::Cycle(name.to_owned()));
        }
        if !self.read.contains_key(name) {
            let read = file.read(name, &self.shelf.version)?;
            self.read.insert(name.to_owned(), read);
        }
        let info = self.read.get(name).map(|(_, info)| info.clone()).unwrap_or_default();
        above.push(name.to_owned());
        for wanted in info.wants.iter().map(|wanted| normalised(wanted)) {
            // A wish can name an alias or something built in: then there is nothing to load.
            if self.shelf.files.contains_key(&wanted) && !above.contains(&wanted) {
                self.add(&wanted, Some(name), order, above)?;
            }
        }
        for needed in info.depends.iter().map(|needed| normalised(needed)) {
            self.add(&needed, Some(name), order, above)?;
        }
        above.pop();
        order.push(name.to_owned());
        Ok(())
    }

    fn missing(&self, name: &str, needed_by: Option<&str>) -> KernelError {
        let mut near: Vec<(f64, &String)> = self
            .shelf
            .files
            .keys()
            .chain(&self.shelf.builtin)
            .map(|known| (strsim::jaro_winkler(name, known), known))
            .filter(|(likeness, _)| *likeness > 0.85)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        KernelError::NoModule {
            name: name.to_owned(),
            version: self.shelf.version.clone(),
            needed_by: needed_by.map(str::to_owned),
            near: near.into_iter().take(3).map(|(_, name)| name.clone()).collect(),
            builtin_known: !self.shelf.builtin.is_empty(),
        }
    }
}
