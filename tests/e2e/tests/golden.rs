//! What the committed lock gives, to the bit. A change here is a change of what users have published: it needs a line
//! marked **Measured:** in CHANGELOG.md.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;

use e2e::{bench, skipped};
use serde_json::{Value, json};

fn manifest(image: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap()
}

/// The root file system of a larger image, one way or the other of writing it: plain, or with LZ4.
fn root_is(image: &Path, golden: &str) {
    let manifest = manifest(image);
    if manifest["standing"] != "published" {
        return skipped("golden values: inputs gone (the committed lock's packages are no longer on the mirror)");
    }
    let golden: Value = serde_json::from_str(golden).unwrap();
    let found = json!({
        "format_epoch": manifest["format_epoch"],
        "rootfs": manifest["artifacts"]["rootfs"]["sha256"],
        "root_hash": manifest["verity"]["root_hash"],
    });
    assert_eq!(found, golden, "if this change is meant, say why in CHANGELOG.md");
}

#[test]
fn effects_and_a_plain_file_system_give_the_published_bits() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.container() else { return };
    root_is(image, include_str!("../golden/container.json"));
}

#[test]
fn a_compressed_file_system_has_the_published_bits() {
    let Some(bench) = bench() else { return };
    let Some(recipe) = std::env::var_os("BULLION_TEST_DISK_RECIPE") else {
        return skipped("BULLION_TEST_DISK_RECIPE is set by scripts/test only");
    };
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("image");
    bench
        .run(["build".as_ref(), recipe.as_os_str(), "--no-references".as_ref(), "-o".as_ref(), output.as_os_str()])
        .expect(0, &[]);
    root_is(&output, include_str!("../golden/minimal-disk.json"));
}

#[test]
fn the_committed_lock_gives_the_published_bits() {
    let Some(bench) = bench() else { return };
    if bench.unpublished {
        return skipped("golden values: inputs gone (the committed lock's packages are no longer on the mirror)");
    }
    let manifest = manifest(bench.image());
    let golden: Value = serde_json::from_str(include_str!("../golden/minimal.json")).unwrap();
    let found = json!({
        "format_epoch": manifest["format_epoch"],
        "vmlinuz": manifest["artifacts"]["vmlinuz"]["sha256"],
        "rootfs": manifest["artifacts"]["rootfs"]["sha256"],
        "root_hash": manifest["verity"]["root_hash"],
        "command_line": manifest["command_line"],
        "firmware-snp.fd": manifest["artifacts"]["firmware-snp.fd"]["sha256"],
        "mrtd": manifest["references"]["tdx"][0]["mrtd"],
    });
    assert_eq!(
        found, golden,
        "if this change is meant, say why in CHANGELOG.md and put these values into the golden file"
    );
}
