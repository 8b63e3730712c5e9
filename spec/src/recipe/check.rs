//! What a flattened recipe must not say: values that no builder could use, and paths or words that would reach further
//! than they seem to (out of a tree, into the builder's own kernel parameters).
//!
//! Every refusal names the file of the chain that wrote the setting, and the line.

use std::collections::BTreeSet;

use super::flatten::Link;
use super::user::is_account;
use super::{CapabilitiesEntry, FileEntry, ImageRecipe, Kind, PackageRequest, Recipe, RecipeFile, RootfsFile};
use super::{admit, component, initrd};
use crate::digest::decode_hex;
use crate::size::Size;
use crate::text::{SyntaxError, line_of};
use crate::vm::{MAX_VCPUS, is_name};

/// Finds where a setting was written: in the first file of the chain, from the one the user named, that mentions it.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a>(pub(super) &'a [Link]);

impl Origin<'_> {
    /// An error about the recipe as a whole, under the name the user gave.
    pub(super) fn whole(self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::whole(self.0.first().map_or("", |(file, _, _)| file), message)
    }

    /// An error about the setting that `needle` names.
    pub(super) fn refuse(self, needle: &str, message: impl Into<String>) -> SyntaxError {
        let line = |(file, text, _): &Link| line_of(text, needle).map(|line| (file.clone(), line));
        match self.0.iter().find_map(line) {
            Some((file, line)) => SyntaxError { line: Some(line), ..SyntaxError::whole(&file, message) },
            None => self.whole(message),
        }
    }
}

/// One file may declare a path once only.
pub(super) fn no_double_entries(rootfs: &RootfsFile, origin: Origin<'_>) -> Result<(), SyntaxError> {
    let mut seen = BTreeSet::new();
    if let Some(path) = rootfs.declared_paths().find(|path| !seen.insert(*path)) {
        return Err(origin.refuse(path, format!("\"{path}\" is declared twice")));
    }
    let mut seen = BTreeSet::new();
    match rootfs.capabilities.iter().find(|entry| !seen.insert(&entry.path)) {
        Some(CapabilitiesEntry { path, .. }) => {
            Err(origin.refuse(path, format!("\"{path}\" is given capabilities twice")))
        }
        None => Ok(()),
    }
}

/// A tree and a component have no parts of an image.
pub(super) fn no_image_parts(merged: &RecipeFile, kind: Kind, origin: Origin<'_>) -> Result<(), SyntaxError> {
    for (name, there) in [
        ("kernel", merged.kernel.is_some()),
        ("rootfs", merged.rootfs.is_some()),
        ("initrd", merged.initrd.is_some()),
        ("firmware", merged.firmware.is_some()),
        ("uki", merged.uki.is_some()),
        ("disk", merged.disk.is_some()),
        ("guest", merged.guest.is_some()),
        ("references", merged.references.is_some()),
        ("[user]", !merged.user.is_empty()),
    ] {
        if there {
            return Err(origin.refuse(name, format!("a recipe of kind \"{}\" cannot have [{name}]", word(kind))));
        }
    }
    Ok(())
}

/// What is compiled belongs to components, programs that `exec` runs belong to trees.
pub(super) fn component_where_it_belongs(
    merged: &RecipeFile,
    kind: Kind,
    origin: Origin<'_>,
) -> Result<(), SyntaxError> {
    match (kind, merged.component.is_some()) {
        (Kind::Component, false) => Err(origin.whole("a recipe of kind \"component\" needs [component]")),
        (Kind::Component, true) if !merged.programs.is_empty() => {
            Err(origin.refuse("programs", "only a recipe of kind \"tree\" can have [programs]"))
        }
        (Kind::Image | Kind::Tree, true) => {
            let message = format!("a recipe of kind \"{}\" cannot have [component]", word(kind));
            Err(origin.refuse("component", message))
        }
        _ => Ok(()),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "image",
        Kind::Tree => "tree",
        Kind::Component => "component",
    }
}

/// Everything else.
pub(super) fn recipe(recipe: &Recipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    if !is_name(&recipe.name) {
        let message = format!(
            "\"{}\" cannot name a recipe: use up to 48 lower-case letters, digits and hyphens, starting with a letter",
            recipe.name
        );
        return Err(origin.refuse("name", message));
    }
    if recipe.architecture != "amd64" {
        let message = format!("architecture \"{}\" is not supported: use \"amd64\"", recipe.architecture);
        return Err(origin.refuse("architecture", message));
    }
    suites(recipe, origin)?;
    packages(recipe, origin)?;
    for (program, path) in &recipe.programs {
        if !is_clean_path(path) {
            return Err(origin.refuse(program, not_a_path(path)));
        }
    }
    recipe.component.as_ref().map_or(Ok(()), |part| component::check(part, origin))?;
    recipe.image.as_ref().map_or(Ok(()), |part| image(part, origin))
}

fn suites(recipe: &Recipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    let is_word = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
    };
    if recipe.suites.is_empty() {
        return Err(origin.whole("the recipe names no suite: add [suites.trixie] or another"));
    }
    for (name, suite) in &recipe.suites {
        if !is_word(name) {
            return Err(origin.refuse(name, format!("\"{name}\" is not the name of a suite")));
        }
        if let Some(component) = suite.components.iter().find(|component| !component.split('/').all(is_word)) {
            return Err(origin.refuse("components", format!("\"{component}\" is not the name of a component")));
        }
    }
    Ok(())
}

fn packages(recipe: &Recipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    let double = recipe.packages.windows(2).find_map(|pair| match pair {
        [a, b] if a.name == b.name => Some(a.name.as_str()),
        _ => None,
    });
    if let Some(double) = double {
        return Err(origin.refuse(double, format!("package \"{double}\" is asked for in two ways")));
    }
    let firmware = recipe.image.iter().flat_map(|image| [&image.firmware.snp, &image.firmware.tdx]).flatten();
    let requests: Vec<&PackageRequest> = recipe
        .packages
        .iter()
        .chain(recipe.image.iter().map(|image| &image.kernel))
        .chain(firmware.map(|source| &source.package))
        .chain(recipe.image.iter().filter_map(|image| image.uki.as_ref()).map(|uki| &uki.package))
        .collect();
    for request in requests {
        if let Some(suite) = request.suite.as_deref().filter(|suite| !recipe.suites.contains_key(*suite)) {
            let message = format!("\"{request}\" names suite \"{suite}\", which the recipe does not have");
            let known = recipe.suites.keys().map(String::as_str);
            return Err(origin.refuse(&request.to_string(), message).suggesting(suite, known));
        }
    }
    Ok(())
}

fn image(image: &ImageRecipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    let salt_ok = image.verity_salt.len() == 64 && image.verity_salt.bytes().all(|c| !c.is_ascii_uppercase());
    if !salt_ok || decode_hex(&image.verity_salt).is_none() {
        return Err(origin.refuse("verity_salt", "verity_salt must be 64 lower-case hex digits"));
    }
    let groups: Vec<usize> = image.uuid.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] || decode_hex(&image.uuid.replace('-', "")).is_none() {
        return Err(origin.refuse("uuid", format!("\"{}\" is not a UUID", image.uuid)));
    }
    kernel(image, origin)?;
    image.admit.iter().try_for_each(|machines| admit::check(machines, origin))?;
    entries(image, origin)?;
    contradictions(image, origin)?;
    disk(image, origin)?;
    initrd::check(&image.initrd_files, origin)?;
    users(image, origin)?;
    let guest = image.guest.as_ref().map(|guest| &guest.component);
    for (key, path) in [("guest.component", guest), ("kernel.component", image.kernel_component.as_ref())] {
        path.map_or(Ok(()), |path| component::check_path(key, path, origin))?;
    }
    for path in &image.module_components {
        component::check_path("kernel.module_components", path, origin)?;
    }
    image.component_files.iter().try_for_each(|entry| component::check_file(entry, origin))?;
    let firmware = [&image.firmware.snp, &image.firmware.tdx].into_iter().flatten().map(|source| &source.path);
    for path in firmware.chain(image.uki.as_ref().map(|uki| &uki.path)) {
        if !is_clean_path(path) {
            return Err(origin.refuse(path, not_a_path(path)));
        }
    }
    if let Some(vcpus) = image.references.vcpus.iter().find(|vcpus| !(1..=MAX_VCPUS).contains(*vcpus)) {
        return Err(origin.refuse("vcpus", format!("references.vcpus names {vcpus}: use 1 to {MAX_VCPUS}")));
    }
    let references = &image.references;
    if let Some(vcpus) = references.tdx_vcpus.iter().find(|vcpus| !(1..=MAX_VCPUS).contains(*vcpus)) {
        return Err(origin.refuse("tdx_vcpus", format!("references.tdx_vcpus names {vcpus}: use 1 to {MAX_VCPUS}")));
    }
    if let Some(size) = references.memory.iter().find(|size| size.whole_mib().is_none_or(|mib| mib < 128)) {
        let message = format!("references.memory names {size}: use whole numbers of MiB, at least 128MiB");
        return Err(origin.refuse("memory", message));
    }
    if references.tdx_vcpus.is_empty() != references.memory.is_empty() {
        let message = "references has one of tdx_vcpus and memory: RTMR0 depends on both".to_owned();
        return Err(origin.refuse("references", message));
    }
    Ok(())
}

fn kernel(image: &ImageRecipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    for module in image.boot_modules.iter().chain(&image.device_modules).chain(&image.root_modules) {
        if module.is_empty() || !module.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)) {
            return Err(origin.refuse(module, format!("\"{module}\" is not the name of a kernel module")));
        }
    }
    for word in &image.command_line {
        // The kernel takes 0xa0 for a blank, which is a part of many letters.
        if word.is_empty() || !word.bytes().all(|c| c.is_ascii_graphic() && c != b'"') {
            let message = format!("\"{word}\" is not one word of a kernel command line: use printable ASCII");
            return Err(origin.refuse("command_line", message));
        }
        if ["bullion.", "root=", "init=", "rdinit="].iter().any(|own| word.starts_with(own)) {
            return Err(origin.refuse(word, format!("\"{word}\" is set by the builder: leave it out")));
        }
    }
    Ok(())
}

/// What one part of a recipe takes back of another: it would depend on an order that nobody sees.
fn contradictions(image: &ImageRecipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    if let Some(path) = image.keep.iter().find(|path| image.drop.contains(path)) {
        return Err(origin.refuse(path, format!("\"{path}\" is in rootfs.drop and in rootfs.keep")));
    }
    if let Some(module) = image.device_modules.iter().find(|module| image.boot_modules.contains(module)) {
        let message = format!("the module \"{module}\" is in kernel.boot_modules and in kernel.device_modules");
        return Err(origin.refuse(module, message));
    }
    Ok(())
}

/// Sizes that no disk has, whatever is put on it, and a disk that firmware could not start.
fn disk(image: &ImageRecipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    /// FAT32 has at least 65525 clusters, and two tables.
    const MIN_ESP: Size = Size::from_mib(34);
    /// A root file system, its tree and both copies of the partition table.
    const OTHERS: Size = Size::from_mib(4);
    /// What both file systems and the partition table can address, and more than anybody keeps there.
    const MAX: Size = Size::from_mib(1 << 20);
    let Some(disk) = &image.disk else { return Ok(()) };
    if image.uki.is_none() {
        return Err(origin.refuse("[disk]", "a disk starts a unified kernel image: add [uki]"));
    }
    let esp_size = disk.esp_size.unwrap_or(MIN_ESP);
    let least = Size { bytes: esp_size.bytes.saturating_add(OTHERS.bytes) };
    for (key, size, least) in [("esp_size", disk.esp_size, MIN_ESP), ("size", disk.size, least)] {
        if let Some(size) = size.filter(|size| size.whole_mib().is_none() || !(least..=MAX).contains(size)) {
            let message = format!("disk.{key} is {size}: use a whole number of MiB from {least} to {MAX}");
            return Err(origin.refuse(key, message));
        }
    }
    Ok(())
}

fn users(image: &ImageRecipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    for (index, user) in image.users.iter().enumerate() {
        let names = [&user.name].into_iter().chain(&user.group).chain(&user.groups);
        if let Some(name) = names.into_iter().find(|name| !is_account(name)) {
            return Err(origin.refuse(name, format!("\"{name}\" cannot name a user or group")));
        }
        let paths = [&user.home].into_iter().chain(&user.shell);
        if let Some(path) = paths.into_iter().find(|path| !is_clean_path(path) || path.contains(':')) {
            return Err(origin.refuse(path, not_a_path(path)));
        }
        let twin = image.users.iter().take(index).find(|twin| twin.uid == user.uid);
        if let Some(twin) = twin {
            let message = format!("the users \"{}\" and \"{}\" both have uid {}", twin.name, user.name, user.uid);
            return Err(origin.refuse(&user.name, message));
        }
    }
    Ok(())
}

fn entries(image: &ImageRecipe, origin: Origin<'_>) -> Result<(), SyntaxError> {
    let files = || image.files.iter().chain(&image.initrd_files);
    let paths = files().map(|e| (&e.path, Some(&e.mode)));
    let paths = paths.chain(image.component_files.iter().map(|e| (&e.path, Some(&e.mode))));
    let paths = paths.chain(image.directories.iter().map(|e| (&e.path, Some(&e.mode))));
    let paths = paths.chain(image.links.iter().map(|e| (&e.path, None)));
    for (path, mode) in paths.chain(image.capabilities.iter().map(|e| (&e.path, None))) {
        if !is_clean_path(path) {
            return Err(origin.refuse(path, not_a_path(path)));
        }
        let is_octal =
            |mode: &String| (1..=4).contains(&mode.len()) && mode.bytes().all(|c| (b'0'..=b'7').contains(&c));
        if !mode.is_none_or(is_octal) {
            let message = format!("the mode of \"{path}\" is not octal permissions such as \"0644\"");
            return Err(origin.refuse(path, message));
        }
    }
    for link in &image.links {
        if link.target.is_empty() || link.target.contains(char::is_control) {
            return Err(origin.refuse(&link.path, format!("the link \"{}\" points to no path", link.path)));
        }
    }
    files().try_for_each(|entry| file(entry, origin))
}

fn file(entry: &FileEntry, origin: Origin<'_>) -> Result<(), SyntaxError> {
    let message = match (&entry.content, &entry.source, &entry.sha256) {
        (Some(_), None, None) | (None, Some(_), Some(_)) => return Ok(()),
        (None, Some(_), None) => format!("\"{}\" is copied from a file: add its sha256", entry.path),
        (Some(_), None, Some(_)) => format!("\"{}\" has content, so a sha256 says nothing: leave it out", entry.path),
        _ => format!("\"{}\" needs exactly one of content and source", entry.path),
    };
    Err(origin.refuse(&entry.path, message))
}

fn is_clean_path(path: &str) -> bool {
    path.starts_with('/')
        && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains(char::is_control)
}

fn not_a_path(path: &str) -> String {
    format!("\"{path}\" is not an absolute path without \".\" and \"..\"")
}
