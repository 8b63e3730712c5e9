//! The minimal image of class release, with the compiled kernel, where the cache has that: to compile it takes many minutes.
//!
//! The guest's binary is the one that is there, handed out by a component of this module's own: a component is what a release asks for.
//! The end-to-end tests do the same; no crate below `tests` depends on another.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Runs `bullion` with these words; what it printed, or what it says against them.
pub type Run<'a> = &'a dyn Fn(&[&Path]) -> Result<String, String>;

/// Makes the image below `directory`; why it cannot be had.
pub fn make(recipe: &Path, directory: &Path, run: Run<'_>) -> Result<PathBuf, String> {
    if std::env::var("BULLION_TEST_UNPUBLISHED").is_ok_and(|value| value == "yes") {
        return Err("the lock is unpublished".to_owned());
    }
    let binary = std::env::var_os("BULLION_GUEST").ok_or("BULLION_GUEST is not set")?;
    let name = recipe.file_name().ok_or("the recipe has no name")?;
    copy(recipe.parent().unwrap_or(Path::new(".")), directory);
    let components = directory.join("components");
    let guest = components.join("guest.toml");
    let text = fs::read_to_string(&guest).unwrap();
    let (packages, _) = text.split_once("\n[component]").unwrap();
    let quick = "outputs = [\"bullion-guest\"]\nfiles = [\"binary\"]\nscript = \"cp binary out/bullion-guest\"";
    fs::write(&guest, format!("{packages}\n[component]\n{quick}\n")).unwrap();
    fs::copy(binary, components.join("binary")).unwrap();
    let words = [Path::new("component"), Path::new("list"), Path::new("--json"), &components];
    let listed: Value = serde_json::from_str(&run(&words)?).map_err(|error| error.to_string())?;
    let is_kernel = |one: &Value| one["name"] == "kernel" && one["cached"] == true;
    if !listed.as_array().is_some_and(|all| all.iter().any(is_kernel)) {
        return Err("its kernel is not compiled: `bullion component build kernel` takes many minutes".to_owned());
    }
    let image = directory.join("image");
    run(&[Path::new("build"), Path::new("--release"), Path::new("--output"), &image, &directory.join(name)])?;
    Ok(image)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
