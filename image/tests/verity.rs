//! The hash tree against `veritysetup`.

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bytes of counters")]

mod support;

use std::process::Command;

use image::verity::{BLOCK, Tree};
use support::{run, tool};

const SALT: [u8; 32] = [0x5a; 32];
const UUID: &str = "6f2d9e57-3c81-4b0a-9d64-0e7a51c8b2f3";

fn data(blocks: usize) -> Vec<u8> {
    // A simple generator: what matters is that no two blocks are the same.
    (0..blocks * BLOCK).map(|index| (index * 31 + index / BLOCK * 7 + index / 997) as u8).collect()
}

fn uuid() -> [u8; 16] {
    spec::digest::decode_hex(&UUID.replace('-', "")).unwrap().try_into().unwrap()
}

fn area(data: &[u8]) -> (Tree, Vec<u8>) {
    let tree = Tree::of_bytes(data, &SALT).unwrap();
    let mut area = Vec::new();
    tree.write_to(&mut area, &uuid()).unwrap();
    (tree, area)
}

/// Numbers of blocks on both sides of each change in the shape of the tree (128 hashes fit into a block).
const SIZES: [usize; 9] = [1, 2, 127, 128, 129, 300, 16_383, 16_384, 16_385];

#[test]
fn the_whole_area_is_the_one_that_veritysetup_writes() {
    let Some(veritysetup) = tool("veritysetup") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    for blocks in SIZES {
        let data = data(blocks);
        std::fs::write(&path, &data).unwrap();
        let hash_offset = format!("--hash-offset={}", data.len());
        let output = run(Command::new(&veritysetup)
            .args(["format", "--data-block-size=4096", "--hash-block-size=4096", "--hash=sha256"])
            .args([&format!("--data-blocks={blocks}"), &hash_offset])
            .args([format!("--salt={}", spec::digest::encode_hex(&SALT)), format!("--uuid={UUID}")])
            .args([&path, &path]));
        let (tree, area) = area(&data);
        assert_eq!(std::fs::read(&path).unwrap()[data.len()..], area, "{blocks} blocks");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&tree.root_hash.to_string()), "{said}");

        std::fs::write(&path, [data, area].concat()).unwrap();
        let verify = |root: &str| {
            Command::new(&veritysetup)
                .args(["verify", &hash_offset])
                .args([&path, &path])
                .arg(root)
                .output()
                .unwrap()
                .status
        };
        assert!(verify(&tree.root_hash.to_string()).success());
        assert!(!verify(&"0".repeat(64)).success());
    }
}

#[test]
fn known_root_hashes() {
    // Printed by veritysetup 2.7.5 for the same data, salt and block size.
    for (blocks, root) in KNOWN {
        assert_eq!(area(&data(blocks)).0.root_hash.to_string(), root, "{blocks} blocks");
    }
}

const KNOWN: [(usize, &str); 3] = [
    (1, "d20dd85cac31c18e90a00d9f36274a488e1d3b4166283dc06df03359ecec49a7"),
    (129, "88396495f30df977057f36244533ccf44e313b6f0ca7b7313d6b23ec9eb2da79"),
    (16_385, "3edff75ef12c555b51ccd285dda93a7e88099b84bae078f957354e7af262d614"),
];

#[test]
fn a_file_gives_the_same_tree_as_memory_with_any_number_of_threads() {
    let data = data(1000);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, &data).unwrap();
    let expected = Tree::of_bytes(&data, &SALT).unwrap();
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let file = std::fs::File::open(&path).unwrap();
        assert_eq!(pool.install(|| Tree::of_file(&file, 1000, &SALT)).unwrap(), expected);
    }
}

#[test]
fn data_that_is_not_whole_blocks_is_refused() {
    assert!(Tree::of_bytes(&[], &SALT).is_err());
    assert!(Tree::of_bytes(&[0; 4095], &SALT).is_err());
    assert!(Tree::of_bytes(&[0; 4096], &[0; 257]).unwrap().write_to(&mut Vec::new(), &uuid()).is_err());
}
