//! What a chain of recipes means: override, add, drop, replace; and whose line an error names.

use spec::recipe::{Kind, Recipe, RecipeFile, flatten};
use spec::{Diagnostic as _, SyntaxError};

const BASE: &str = r#"
schema = 1
name = "base"
[suites.trixie]
[packages]
add = ["libc6", "tzdata", "bash"]
dependencies = false
[kernel]
package = "linux-image-cloud-amd64"
boot_modules = ["virtio_pci", "erofs"]
command_line = ["quiet"]
[rootfs]
verity_salt = "b5c1f0a34e7d2986cf1b0e8d5a47639210fd8ce4b76a5392187e4dc0a9f6b3e1"
uuid = "6f2d9e57-3c81-4b0a-9d64-0e7a51c8b2f3"
drop = ["/usr/share/doc/**"]
[[rootfs.file]]
path = "/etc/motd"
content = "base"
[[rootfs.file]]
path = "/etc/issue"
content = "base"
[references]
vcpus = [1, 2]
snp_cpus = ["EPYC-v4"]
"#;

/// Flattens `leaf` over `BASE`; the leaf's own first lines are given here.
fn over_base(leaf: &str) -> Result<Recipe, SyntaxError> {
    let leaf = format!("schema = 1\nname = \"leaf\"\nextends = \"base.toml\"\n{leaf}");
    let link = |file: &str, text: &str| Ok((file.to_owned(), text.to_owned(), RecipeFile::parse(file, text)?));
    flatten(&[link("leaf.toml", &leaf)?, link("base.toml", BASE)?])
}

fn packages(recipe: &Recipe) -> Vec<String> {
    recipe.packages.iter().map(ToString::to_string).collect()
}

#[test]
fn a_leaf_that_says_nothing_is_its_base_under_another_name() {
    let leaf = over_base("").unwrap();
    let base = flatten(&[("base.toml".into(), BASE.into(), RecipeFile::parse("base.toml", BASE).unwrap())]).unwrap();
    assert_eq!(leaf.lock_digest(), base.lock_digest(), "the same inputs, so the same lock");
    assert_eq!(Recipe { name: "base".to_owned(), ..leaf }, base);
    assert_eq!((base.kind, base.architecture.as_str()), (Kind::Image, "amd64"));
}

#[test]
fn values_override_and_lists_add() {
    let recipe = over_base(
        r#"
        [packages]
        add = ["tzdata", "ca-certificates"]
        dependencies = true
        [kernel]
        package = "linux-image-amd64"
        boot_modules = ["erofs", "nvme"]
        root_modules = ["overlay"]
        command_line = ["panic=-1"]
        [rootfs]
        drop = ["/usr/share/man/**"]
        "#,
    )
    .unwrap();
    assert_eq!(packages(&recipe), ["bash", "ca-certificates", "libc6", "tzdata"]);
    assert!(recipe.dependencies);
    let image = recipe.image.unwrap();
    assert_eq!(image.kernel.to_string(), "linux-image-amd64");
    assert_eq!(image.boot_modules, ["virtio_pci", "erofs", "nvme"], "inherited first, nothing twice");
    assert_eq!(image.root_modules, ["overlay"]);
    assert_eq!(image.command_line, ["quiet", "panic=-1"]);
    assert_eq!(image.drop, ["/usr/share/doc/**", "/usr/share/man/**"]);
}

#[test]
fn references_are_one_value_and_replaced_as_a_whole() {
    let image = over_base("[references]\nvcpus = [4]\n").unwrap().image.unwrap();
    assert_eq!(image.references.vcpus, [4]);
    assert!(image.references.snp_cpus.is_empty());
}

#[test]
fn an_inherited_package_can_be_dropped_or_asked_for_in_another_way() {
    let recipe = over_base("[packages]\ndrop = [\"bash\"]\nadd = [\"libc6=2.41-12\"]\n").unwrap();
    assert_eq!(packages(&recipe), ["libc6=2.41-12", "tzdata"]);
    let again = over_base("[packages]\ndrop = [\"bash\"]\nadd = [\"bash/trixie\"]\n").unwrap();
    assert_eq!(packages(&again), ["bash/trixie", "libc6", "tzdata"]);
}

#[test]
fn only_what_is_inherited_can_be_dropped() {
    let error = over_base("[packages]\ndrop = [\"tzdat\"]\n").unwrap_err();
    assert_eq!(error.to_string(), "leaf.toml:5: packages.drop names \"tzdat\", which is not inherited");
    assert_eq!(error.hint().as_deref(), Some("did you mean \"tzdata\"?"));
    // A package's own file cannot drop what it adds itself.
    assert!(over_base("[packages]\nadd = [\"nano\"]\ndrop = [\"nano\"]\n").is_err());
}

#[test]
fn one_package_in_two_ways_is_a_contradiction_within_a_file_only() {
    let error = over_base("[packages]\nadd = [\"zstd\", \"zstd/trixie\"]\n").unwrap_err();
    assert_eq!(error.to_string(), "leaf.toml:5: package \"zstd\" is asked for in two ways");
    assert!(over_base("[packages]\nadd = [\"zstd\", \"zstd\"]\n").is_ok(), "said twice in the same way");
}

#[test]
fn an_entry_replaces_an_inherited_one_of_whatever_sort() {
    let leaf = "[[rootfs.file]]\npath = \"/etc/motd\"\ncontent = \"leaf\"\n\
                [[rootfs.link]]\npath = \"/etc/issue\"\ntarget = \"motd\"\n";
    let image = over_base(leaf).unwrap().image.unwrap();
    let files: Vec<_> = image.files.iter().map(|file| (file.path.as_str(), file.content.as_deref())).collect();
    assert_eq!(files, [("/etc/motd", Some("leaf"))]);
    assert_eq!(image.links.len(), 1);
}

#[test]
fn an_error_names_the_file_of_the_chain_that_wrote_the_setting() {
    let error = over_base("[suites.trixie]\n[packages]\nadd = [\"nano/sid\"]\n").unwrap_err();
    assert_eq!(error.to_string(), "leaf.toml:6: \"nano/sid\" names suite \"sid\", which the recipe does not have");
    // The leaf turns the recipe into a tree; the kernel that a tree cannot have is in the base, on its line 8.
    let error = over_base("kind = \"tree\"\n").unwrap_err();
    assert_eq!(error.to_string(), "base.toml:8: a recipe of kind \"tree\" cannot have [kernel]");
}

#[test]
fn the_lock_digest_moves_with_inputs_only() {
    let base = over_base("").unwrap().lock_digest();
    for same in ["[kernel]\ncommand_line = [\"debug\"]\n", "[[rootfs.link]]\npath = \"/x\"\ntarget = \"y\"\n"] {
        assert_eq!(over_base(same).unwrap().lock_digest(), base, "{same}");
    }
    for other in [
        "[packages]\nadd = [\"nano\"]\n",
        "[packages]\ndrop = [\"bash\"]\n",
        "[packages]\ndependencies = true\n",
        "[packages]\nassume = [\"perl-base\"]\n",
        "[kernel]\npackage = \"linux-image-amd64\"\n",
        "[suites.sid]\n",
        "[firmware.snp]\npackage = \"ovmf-amdsev\"\npath = \"/OVMF.fd\"\n",
    ] {
        assert_ne!(over_base(other).unwrap().lock_digest(), base, "{other}");
    }
}

#[test]
fn an_empty_chain_is_an_error() {
    assert_eq!(flatten(&[]).unwrap_err().to_string(), ": there is no recipe");
}
