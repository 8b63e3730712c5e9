//! What the committed lock gives, to the bit. A change here is a change of what users have published: it needs a line
//! marked **Measured:** in CHANGELOG.md.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use e2e::{bench, skipped};

#[test]
fn the_committed_lock_gives_the_published_bits() {
    let Some(bench) = bench() else { return };
    if bench.unpublished {
        return skipped("golden values: inputs gone (the committed lock's packages are no longer on the mirror)");
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.image().join("manifest.json")).unwrap()).unwrap();
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/minimal.json")).unwrap();
    let found = serde_json::json!({
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
