//! Which components the second build of an image takes from the first.

use std::fs;

use tempfile::TempDir;

use super::*;

const IMAGE: &str = r#"
schema = 1
name = "twins"
[suites.test]
[packages]
add = ["base-files"]
[kernel]
package = "linux"
[rootfs]
verity_salt = "b5c1f0a34e7d2986cf1b0e8d5a47639210fd8ce4b76a5392187e4dc0a9f6b3e1"
uuid = "6f2d9e57-3c81-4b0a-9d64-0e7a51c8b2f3"
"#;

/// An image of files from two components of one name, whose recipes have one name too and lie in two directories.
fn twins() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut image = IMAGE.to_owned();
    for place in ["one", "two"] {
        fs::create_dir(path(place)).unwrap();
        let recipe = format!(
            "schema = 1\nname = \"driver\"\nkind = \"component\"\n[suites.test]\n[packages]\nadd = [\"make\"]\n\
             [component]\noutputs = [\"file\"]\nscript = \"echo {place} > file\"\n"
        );
        fs::write(path(place).join("driver.toml"), recipe).unwrap();
        write_lock(&path(place).join("driver.toml"), "published");
        image += &format!(
            "[[rootfs.component]]\nrecipe = \"{place}/driver.toml\"\noutput = \"file\"\npath = \"/usr/share/{place}\"\n"
        );
    }
    let recipe = path("twins.toml");
    fs::write(&recipe, image).unwrap();
    (directory, recipe)
}

fn write_lock(recipe: &Path, standing: &str) {
    let digest = inputs::recipe(recipe).unwrap().recipe.lock_digest();
    let none = "00".repeat(32);
    let lock = format!(
        "schema = 1\nrecipe = \"driver\"\nrecipe_sha256 = \"{digest}\"\nstanding = \"{standing}\"\n\
         [[release]]\nsuite = \"test\"\ndate = \"x\"\nsha256 = \"{none}\"\nsigned_by = []\n\
         [[package]]\nname = \"make\"\nversion = \"1\"\narchitecture = \"amd64\"\nsuite = \"test\"\nuses = [\"tree\"]\n\
         path = \"pool/make.deb\"\nsize = 1\nsha256 = \"{none}\"\n"
    );
    fs::write(inputs::lock_path(recipe), lock).unwrap();
}

/// What was compiled by the recipe.
fn made(recipe: &Path) -> Component {
    let own = component::load(recipe).unwrap();
    let described = own.describe().unwrap();
    Component {
        key: described.key(),
        lock_sha256: Sha256Digest::of(own.lock.text.as_bytes()),
        standing: own.lock.lock.standing,
        inputs: described.inputs().clone(),
        outputs: BTreeMap::new(),
    }
}

#[test]
fn components_of_one_name_in_two_directories_are_told_apart() {
    let (directory, recipe) = twins();
    let [one, two] = ["one", "two"].map(|place| directory.path().join(place).join("driver.toml"));
    let given = |components: &[&Component]| Given {
        components: components.iter().map(|component| (*component).clone()).collect(),
        acpi: None,
    };
    let (first, second) = (made(&one), made(&two));
    assert_ne!(first.key, second.key);
    check_given(&given(&[&first, &second]), &recipe).unwrap();
    check_given(&given(&[&second]), &recipe).unwrap();

    let refused = |component: &Component| {
        let error = check_given(&given(&[&first, component]), &recipe).unwrap_err();
        assert_eq!(error.outcome, Outcome::Refused);
        error.messages.concat()
    };
    let mut other = second.clone();
    other.inputs.script = "echo three > file".to_owned();
    assert!(refused(&other).contains("another key"), "its inputs are not those of its key");
    other.key = other.inputs.key().unwrap();
    assert!(refused(&other).contains("another key"));
    other.inputs.name = "rider".to_owned();
    assert!(refused(&other).contains("none of this recipe"));
    write_lock(&two, "unpublished");
    assert!(refused(&second).contains("another lock"));
}
