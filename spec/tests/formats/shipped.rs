//! The recipes, VM descriptions, locks and pins that this repository ships are accepted.

use std::fs;
use std::path::Path;

use spec::lock::Lock;
use spec::recipe::{Kind, Link, Recipe, RecipeFile, flatten};
use spec::vm::Vm;

/// All files of a folder of the repository whose names end with `suffix`, with their text.
pub(crate) fn shipped(folder: &str, suffix: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut found: Vec<(String, String)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| name.ends_with(suffix))
        .map(|(name, path)| (name, fs::read_to_string(path).expect("a text file")))
        .collect();
    found.sort();
    found
}

/// A shipped recipe with its whole chain.
pub(crate) fn chain(name: &str) -> Vec<Link> {
    let all = shipped("image-recipes", ".toml");
    let mut chain: Vec<Link> = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(name) = next {
        let (_, text) = all.iter().find(|(file, _)| *file == name).expect("the recipe");
        let recipe = RecipeFile::parse(&name, text).expect("a recipe");
        next = recipe.extends.clone();
        chain.push((name, text.clone(), recipe));
    }
    chain
}

pub(crate) fn flattened(name: &str) -> Recipe {
    flatten(&chain(name)).expect("a recipe that flattens")
}

#[test]
fn every_recipe_flattens() {
    let recipes = shipped("image-recipes", ".toml");
    assert!(recipes.len() >= 3);
    for (file, _) in recipes {
        let recipe = flattened(&file);
        assert_eq!(format!("{}.toml", recipe.name), file);
        assert_eq!(recipe.image.is_some(), recipe.kind == Kind::Image);
    }
}

#[test]
fn the_minimal_recipe_says_what_it_says() {
    let recipe = flattened("minimal.toml");
    assert!(!recipe.dependencies, "the list is the whole truth");
    let names: Vec<&str> = recipe.packages.iter().map(|package| package.name.as_str()).collect();
    assert!(names.is_sorted() && names.contains(&"libc6"), "{names:?}");
    let image = recipe.image.expect("an image");
    assert_eq!(image.salt_bytes().len(), 32);
    assert!(image.firmware.snp.is_some() && image.firmware.tdx.is_some());
}

#[test]
fn every_lock_belongs_to_its_recipe_and_keeps_its_text() {
    for (file, text) in shipped("image-recipes", ".lock") {
        let lock = Lock::parse(&file, &text).expect("a lock");
        assert_eq!(format!("{}.lock", lock.recipe), file);
        let recipe = flattened(&format!("{}.toml", lock.recipe));
        assert_eq!(lock.recipe_sha256, recipe.lock_digest(), "{file} was made for another recipe");
        assert_eq!(lock.to_text().expect("text"), text, "{file} is not as `bullion lock` writes it");
    }
}

#[test]
fn every_example_is_a_vm_description() {
    let examples = shipped("examples", ".vm.toml");
    assert!(!examples.is_empty());
    for (file, text) in examples {
        let vm = Vm::parse(&file, &text).expect("a VM description");
        assert!(!vm.cpu_model().is_empty());
        assert!(vm.guest.canonical_bytes().is_ok());
    }
}

#[test]
fn the_pins_are_accepted() {
    for (file, text) in shipped("firmware", "pins.toml") {
        let pins = spec::pins::Pins::parse(&file, &text).expect("pins");
        for firmware in &pins.firmware {
            assert_eq!(pins.find(&firmware.sha256).map(|found| &found.name), Some(&firmware.name));
        }
    }
}
