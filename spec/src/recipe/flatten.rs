//! Inheritance: a chain of recipe files becomes one checked recipe.
//!
//! Rules: a later value overrides, a later list adds, `packages.drop` takes inherited packages out again, and an entry
//! for a path replaces an inherited entry for it. What contradicts itself is an error with the line.

use std::collections::BTreeMap;

use super::{FileEntry, ImageRecipe, Kind, PackageRequest, Recipe, RecipeFile};
use crate::digest::decode_hex;
use crate::text::SyntaxError;
use crate::vm::is_name;

/// Longest chain of `extends`.
pub const MAX_CHAIN: usize = 16;

/// One file of a chain: its name as the user gave it, its text, its content.
pub type Link = (String, String, RecipeFile);

/// Flattens a chain; `chain` starts with the file the user named and ends with the one that extends nothing.
pub fn flatten(chain: &[Link]) -> Result<Recipe, SyntaxError> {
    let Some((file, text, named)) = chain.first() else {
        return Err(SyntaxError::whole("", "there is no recipe"));
    };
    let mut merged = RecipeFile::default();
    for (file, text, next) in chain.iter().rev() {
        merge(&mut merged, next, file, text)?;
    }
    let name =
        named.name.clone().ok_or_else(|| SyntaxError::whole(file, "the recipe has no name: add name = \"...\""))?;
    if !is_name(&name) {
        let message = format!(
            "\"{name}\" cannot name a recipe: use up to 48 lower-case letters, digits and hyphens, starting with a letter"
        );
        return Err(SyntaxError::at(file, text, "name", message));
    }
    let architecture = merged.architecture.clone().unwrap_or_else(|| "amd64".to_owned());
    if architecture != "amd64" {
        return Err(SyntaxError::at(
            file,
            text,
            "architecture",
            format!("architecture \"{architecture}\" is not supported: use \"amd64\""),
        ));
    }
    if merged.suites.is_empty() {
        return Err(SyntaxError::whole(file, "the recipe names no suite: add [suites.trixie] or another"));
    }
    let kind = merged.kind.unwrap_or(Kind::Image);
    let packages = merged.packages.clone().unwrap_or_default();
    let mut add = packages.add;
    add.sort();
    if let Some(double) = add.windows(2).find_map(|pair| match pair {
        [a, b] if a.name == b.name => Some(a.name.clone()),
        _ => None,
    }) {
        return Err(SyntaxError::at(file, text, &double, format!("package \"{double}\" is asked for in two ways")));
    }
    let image = match kind {
        Kind::Image => Some(image_part(&merged, file, text)?),
        Kind::Tree => {
            refuse_image_parts(&merged, file, text)?;
            None
        }
    };
    let recipe = Recipe {
        name,
        kind,
        architecture,
        suites: merged.suites,
        packages: add,
        dependencies: packages.dependencies.unwrap_or(true),
        assume: packages.assume,
        image,
        programs: merged.programs,
    };
    check_suites(&recipe, file, text)?;
    Ok(recipe)
}

fn merge(into: &mut RecipeFile, next: &RecipeFile, file: &str, text: &str) -> Result<(), SyntaxError> {
    fn set<T: Clone>(into: &mut Option<T>, next: Option<&T>) {
        if let Some(value) = next {
            *into = Some(value.clone());
        }
    }
    fn extend<T: Clone + PartialEq>(into: &mut Vec<T>, next: &[T]) {
        for item in next {
            if !into.contains(item) {
                into.push(item.clone());
            }
        }
    }
    fn replace<T: Clone>(into: &mut Vec<T>, next: &[T], path: impl Fn(&T) -> &str) {
        for item in next {
            into.retain(|old| path(old) != path(item));
            into.push(item.clone());
        }
    }
    into.schema = next.schema;
    set(&mut into.name, next.name.as_ref());
    set(&mut into.kind, next.kind.as_ref());
    set(&mut into.architecture, next.architecture.as_ref());
    into.suites.extend(next.suites.clone());
    into.programs.extend(next.programs.clone());
    if let Some(next) = &next.packages {
        let packages = into.packages.get_or_insert_default();
        for name in &next.drop {
            let before = packages.add.len();
            packages.add.retain(|package| package.name != *name);
            if packages.add.len() == before {
                let message = format!("packages.drop names \"{name}\", which is not inherited");
                let known: Vec<&str> = packages.add.iter().map(|package| package.name.as_str()).collect();
                return Err(SyntaxError::at(file, text, name, message).suggesting(name, known));
            }
        }
        for package in &next.add {
            packages.add.retain(|old| old.name != package.name);
        }
        extend(&mut packages.add, &next.add);
        extend(&mut packages.assume, &next.assume);
        set(&mut packages.dependencies, next.dependencies.as_ref());
    }
    if let Some(next) = &next.kernel {
        let kernel = into.kernel.get_or_insert_default();
        set(&mut kernel.package, next.package.as_ref());
        extend(&mut kernel.boot_modules, &next.boot_modules);
        extend(&mut kernel.device_modules, &next.device_modules);
        extend(&mut kernel.command_line, &next.command_line);
    }
    if let Some(next) = &next.rootfs {
        let rootfs = into.rootfs.get_or_insert_default();
        set(&mut rootfs.verity_salt, next.verity_salt.as_ref());
        set(&mut rootfs.uuid, next.uuid.as_ref());
        extend(&mut rootfs.drop, &next.drop);
        replace(&mut rootfs.file, &next.file, |entry| &entry.path);
        replace(&mut rootfs.directory, &next.directory, |entry| &entry.path);
        replace(&mut rootfs.link, &next.link, |entry| &entry.path);
    }
    if let Some(next) = &next.firmware {
        let firmware = into.firmware.get_or_insert_default();
        set(&mut firmware.snp, next.snp.as_ref());
        set(&mut firmware.tdx, next.tdx.as_ref());
    }
    set(&mut into.references, next.references.as_ref());
    Ok(())
}

fn refuse_image_parts(merged: &RecipeFile, file: &str, text: &str) -> Result<(), SyntaxError> {
    for (name, there) in [
        ("kernel", merged.kernel.is_some()),
        ("rootfs", merged.rootfs.is_some()),
        ("firmware", merged.firmware.is_some()),
        ("references", merged.references.is_some()),
    ] {
        if there {
            return Err(SyntaxError::at(file, text, name, format!("a recipe of kind \"tree\" cannot have [{name}]")));
        }
    }
    Ok(())
}

fn image_part(merged: &RecipeFile, file: &str, text: &str) -> Result<ImageRecipe, SyntaxError> {
    if !merged.programs.is_empty() {
        return Err(SyntaxError::at(file, text, "programs", "only a recipe of kind \"tree\" can have [programs]"));
    }
    let missing = |key: &str| SyntaxError::whole(file, format!("an image needs {key}"));
    let kernel = merged.kernel.clone().unwrap_or_default();
    let rootfs = merged.rootfs.clone().unwrap_or_default();
    let image = ImageRecipe {
        kernel: kernel.package.ok_or_else(|| missing("kernel.package"))?,
        boot_modules: kernel.boot_modules,
        device_modules: kernel.device_modules,
        command_line: kernel.command_line,
        verity_salt: rootfs.verity_salt.ok_or_else(|| missing("rootfs.verity_salt"))?,
        uuid: rootfs.uuid.ok_or_else(|| missing("rootfs.uuid"))?,
        drop: rootfs.drop,
        files: rootfs.file,
        directories: rootfs.directory,
        links: rootfs.link,
        firmware: merged.firmware.clone().unwrap_or_default(),
        references: merged.references.clone().unwrap_or_default(),
    };
    check_image(&image, file, text)?;
    Ok(image)
}

fn check_image(image: &ImageRecipe, file: &str, text: &str) -> Result<(), SyntaxError> {
    let refuse = |needle: &str, message: String| Err(SyntaxError::at(file, text, needle, message));
    let salt_ok = image.verity_salt.len() == 64 && image.verity_salt.bytes().all(|c| !c.is_ascii_uppercase());
    if !salt_ok || decode_hex(&image.verity_salt).is_none() {
        return refuse("verity_salt", "verity_salt must be 64 lower-case hex digits".to_owned());
    }
    let groups: Vec<usize> = image.uuid.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] || decode_hex(&image.uuid.replace('-', "")).is_none() {
        return refuse("uuid", format!("\"{}\" is not a UUID", image.uuid));
    }
    for word in &image.command_line {
        if word.is_empty() || word.bytes().any(|c| c.is_ascii_whitespace() || c.is_ascii_control() || c == b'"') {
            return refuse("command_line", format!("\"{word}\" is not one word of a kernel command line"));
        }
        if word.starts_with("bullion.") || word.starts_with("root=") || word.starts_with("init=") {
            return refuse(word, format!("\"{word}\" is set by the builder: leave it out"));
        }
    }
    let paths = image.files.iter().map(|e| (&e.path, Some(&e.mode)));
    let paths = paths.chain(image.directories.iter().map(|e| (&e.path, Some(&e.mode))));
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for (path, mode) in paths.chain(image.links.iter().map(|e| (&e.path, None))) {
        let clean = path.starts_with('/') && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !clean {
            return refuse(path, format!("\"{path}\" is not an absolute path without \".\" and \"..\""));
        }
        if mode.is_some_and(|mode| u32::from_str_radix(mode, 8).map_or(true, |bits| bits > 0o7777)) {
            return refuse(path, format!("the mode of \"{path}\" is not octal permissions such as \"0644\""));
        }
        let count = kinds.entry(path).or_default();
        *count += 1;
        if *count > 1 {
            return refuse(path, format!("\"{path}\" is declared as two different things"));
        }
    }
    for entry in &image.files {
        check_file(entry, file, text)?;
    }
    if let Some(vcpus) = image.references.vcpus.iter().find(|vcpus| !(1..=crate::vm::MAX_VCPUS).contains(*vcpus)) {
        return refuse("vcpus", format!("references.vcpus names {vcpus}: use 1 to {}", crate::vm::MAX_VCPUS));
    }
    Ok(())
}

fn check_file(entry: &FileEntry, file: &str, text: &str) -> Result<(), SyntaxError> {
    let message = match (&entry.content, &entry.source, &entry.sha256) {
        (Some(_), None, None) | (None, Some(_), Some(_)) => return Ok(()),
        (None, Some(_), None) => format!("\"{}\" is copied from a file: add its sha256", entry.path),
        (Some(_), None, Some(_)) => format!("\"{}\" has content, so a sha256 says nothing: leave it out", entry.path),
        _ => format!("\"{}\" needs exactly one of content and source", entry.path),
    };
    Err(SyntaxError::at(file, text, &entry.path, message))
}

fn check_suites(recipe: &Recipe, file: &str, text: &str) -> Result<(), SyntaxError> {
    let firmware = recipe.image.iter().flat_map(|image| [&image.firmware.snp, &image.firmware.tdx]).flatten();
    let requests: Vec<&PackageRequest> = recipe
        .packages
        .iter()
        .chain(recipe.image.iter().map(|image| &image.kernel))
        .chain(firmware.map(|source| &source.package))
        .collect();
    for request in requests {
        if let Some(suite) = request.suite.as_deref().filter(|suite| !recipe.suites.contains_key(*suite)) {
            let message = format!("\"{request}\" names suite \"{suite}\", which the recipe does not have");
            let known = recipe.suites.keys().map(String::as_str);
            return Err(SyntaxError::at(file, text, &request.to_string(), message).suggesting(suite, known));
        }
    }
    Ok(())
}
