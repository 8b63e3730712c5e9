//! Inheritance: a chain of recipe files becomes one checked recipe.
//!
//! Rules: a later value overrides, a later list adds, `packages.drop` takes inherited packages out again, and an entry
//! for a path replaces an inherited entry for it, of whatever sort. What contradicts itself is an error with the line;
//! the rules about values are in `check`.

use super::check::{self, Origin};
use super::{ImageRecipe, Kind, PackageRequest, Recipe, RecipeFile, RootfsFile};
use crate::text::SyntaxError;

/// Longest chain of `extends`.
pub const MAX_CHAIN: usize = 16;

/// One file of a chain: its name as the user gave it, its text, its content.
pub type Link = (String, String, RecipeFile);

/// Flattens a chain; `chain` starts with the file the user named and ends with the one that extends nothing.
pub fn flatten(chain: &[Link]) -> Result<Recipe, SyntaxError> {
    let Some((file, _, named)) = chain.first() else {
        return Err(SyntaxError::whole("", "there is no recipe"));
    };
    let mut merged = RecipeFile::default();
    for link in chain.iter().rev() {
        merge(&mut merged, link)?;
    }
    let origin = Origin(chain);
    let name =
        named.name.clone().ok_or_else(|| SyntaxError::whole(file, "the recipe has no name: add name = \"...\""))?;
    let kind = merged.kind.unwrap_or(Kind::Image);
    let image = match kind {
        Kind::Image => Some(image_part(&merged, origin)?),
        Kind::Tree | Kind::Component => {
            check::no_image_parts(&merged, kind, origin)?;
            None
        }
    };
    check::component_where_it_belongs(&merged, kind, origin)?;
    let mut packages = merged.packages.unwrap_or_default();
    packages.add.sort();
    let recipe = Recipe {
        name,
        kind,
        architecture: merged.architecture.unwrap_or_else(|| "amd64".to_owned()),
        suites: merged.suites,
        packages: packages.add,
        dependencies: packages.dependencies.unwrap_or(true),
        assume: packages.assume,
        choose: packages.choose,
        scripts: merged.scripts,
        component: merged.component,
        image,
        programs: merged.programs,
    };
    check::recipe(&recipe, origin)?;
    Ok(recipe)
}

/// A later value overrides.
fn set<T: Clone>(into: &mut Option<T>, next: Option<&T>) {
    if let Some(value) = next {
        *into = Some(value.clone());
    }
}

/// A later list adds what is not there yet.
fn extend<T: Clone + PartialEq>(into: &mut Vec<T>, next: &[T]) {
    for item in next {
        if !into.contains(item) {
            into.push(item.clone());
        }
    }
}

fn merge(into: &mut RecipeFile, link: &Link) -> Result<(), SyntaxError> {
    let (_, _, next) = link;
    into.schema = next.schema;
    set(&mut into.name, next.name.as_ref());
    set(&mut into.kind, next.kind.as_ref());
    set(&mut into.architecture, next.architecture.as_ref());
    into.suites.extend(next.suites.clone());
    into.programs.extend(next.programs.clone());
    into.scripts.extend(next.scripts.clone());
    for user in &next.user {
        into.user.retain(|old| old.name != user.name);
    }
    extend(&mut into.user, &next.user);
    merge_packages(into, link)?;
    if let Some(next) = &next.kernel {
        let kernel = into.kernel.get_or_insert_default();
        for word in &next.drop_command_line {
            if !kernel.command_line.contains(word) {
                let (file, text, _) = link;
                let message = format!("kernel.drop_command_line names \"{word}\", which is not inherited");
                return Err(SyntaxError::at(file, text, word, message));
            }
            kernel.command_line.retain(|old| old != word);
        }
        set(&mut kernel.package, next.package.as_ref());
        set(&mut kernel.component, next.component.as_ref());
        extend(&mut kernel.module_components, &next.module_components);
        extend(&mut kernel.admit, &next.admit);
        extend(&mut kernel.boot_modules, &next.boot_modules);
        extend(&mut kernel.device_modules, &next.device_modules);
        extend(&mut kernel.root_modules, &next.root_modules);
        extend(&mut kernel.command_line, &next.command_line);
    }
    if let Some(next) = &next.rootfs {
        check::no_double_entries(next, Origin(std::slice::from_ref(link)))?;
        merge_rootfs(into.rootfs.get_or_insert_default(), next);
    }
    if let Some(next) = &next.initrd {
        let initrd = into.initrd.get_or_insert_default();
        for entry in &next.file {
            initrd.file.retain(|old| old.path != entry.path);
        }
        initrd.file.extend_from_slice(&next.file);
    }
    if let Some(next) = &next.firmware {
        let firmware = into.firmware.get_or_insert_default();
        set(&mut firmware.snp, next.snp.as_ref());
        set(&mut firmware.tdx, next.tdx.as_ref());
    }
    set(&mut into.uki, next.uki.as_ref());
    set(&mut into.disk, next.disk.as_ref());
    set(&mut into.guest, next.guest.as_ref());
    set(&mut into.references, next.references.as_ref());
    set(&mut into.component, next.component.as_ref());
    Ok(())
}

fn merge_packages(into: &mut RecipeFile, (file, text, next): &Link) -> Result<(), SyntaxError> {
    let Some(next) = &next.packages else {
        return Ok(());
    };
    let packages = into.packages.get_or_insert_default();
    for name in &next.drop {
        let is_wanted = |package: &PackageRequest| package.name == *name;
        if !packages.add.iter().any(is_wanted) {
            let message = format!("packages.drop names \"{name}\", which is not inherited");
            let known: Vec<&str> = packages.add.iter().map(|package| package.name.as_str()).collect();
            return Err(SyntaxError::at(file, text, name, message).suggesting(name, known));
        }
        packages.add.retain(|package| !is_wanted(package));
    }
    for package in &next.add {
        packages.add.retain(|old| old.name != package.name);
    }
    extend(&mut packages.add, &next.add);
    extend(&mut packages.assume, &next.assume);
    packages.choose.extend(next.choose.clone());
    set(&mut packages.dependencies, next.dependencies.as_ref());
    Ok(())
}

fn merge_rootfs(rootfs: &mut RootfsFile, next: &RootfsFile) {
    set(&mut rootfs.verity_salt, next.verity_salt.as_ref());
    set(&mut rootfs.uuid, next.uuid.as_ref());
    set(&mut rootfs.compression, next.compression.as_ref());
    extend(&mut rootfs.drop, &next.drop);
    extend(&mut rootfs.keep, &next.keep);
    for path in next.declared_paths() {
        rootfs.file.retain(|old| old.path != path);
        rootfs.directory.retain(|old| old.path != path);
        rootfs.link.retain(|old| old.path != path);
        rootfs.component.retain(|old| old.path != path);
    }
    rootfs.file.extend_from_slice(&next.file);
    rootfs.directory.extend_from_slice(&next.directory);
    rootfs.link.extend_from_slice(&next.link);
    rootfs.component.extend_from_slice(&next.component);
    for entry in &next.capabilities {
        rootfs.capabilities.retain(|old| old.path != entry.path);
    }
    rootfs.capabilities.extend_from_slice(&next.capabilities);
}

fn image_part(merged: &RecipeFile, origin: Origin<'_>) -> Result<ImageRecipe, SyntaxError> {
    if !merged.programs.is_empty() {
        return Err(origin.refuse("programs", "only a recipe of kind \"tree\" can have [programs]"));
    }
    let missing = |key: &str| origin.whole(format!("an image needs {key}"));
    let kernel = merged.kernel.clone().unwrap_or_default();
    let rootfs = merged.rootfs.clone().unwrap_or_default();
    Ok(ImageRecipe {
        kernel: kernel.package.ok_or_else(|| missing("kernel.package"))?,
        kernel_component: kernel.component,
        module_components: kernel.module_components,
        admit: kernel.admit,
        boot_modules: kernel.boot_modules,
        device_modules: kernel.device_modules,
        root_modules: kernel.root_modules,
        command_line: kernel.command_line,
        verity_salt: rootfs.verity_salt.ok_or_else(|| missing("rootfs.verity_salt"))?,
        uuid: rootfs.uuid.ok_or_else(|| missing("rootfs.uuid"))?,
        compression: rootfs.compression.unwrap_or_default(),
        drop: rootfs.drop,
        keep: rootfs.keep,
        users: merged.user.clone(),
        files: rootfs.file,
        component_files: rootfs.component,
        directories: rootfs.directory,
        links: rootfs.link,
        capabilities: rootfs.capabilities,
        initrd_files: merged.initrd.clone().unwrap_or_default().file,
        firmware: merged.firmware.clone().unwrap_or_default(),
        uki: merged.uki.clone(),
        disk: merged.disk,
        guest: merged.guest.clone(),
        references: merged.references.clone().unwrap_or_default(),
    })
}
