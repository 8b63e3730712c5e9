//! The kernel that is compiled with NVIDIA's modules takes those that the measured command line names, and no other.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;

use e2e::{Bench, bench};
use image::cpio::{Entry, write_newc};
use spec::Sha256Digest;
use spec::manifest::Manifest;
use spec::recipe::kernel_output;
use store::Store;

const MODULE: &str = "nvidia.ko";
const WORD: &str = " bullion.modules=";

/// An initrd whose guest loads this file before it does anything else: what comes later in an initrd takes the place of what was there.
fn loading(initrd: &[u8], module: &[u8]) -> Vec<u8> {
    let file = |path: &'static str, content| Entry { path, mode: 0o100_644, device: (0, 0), content };
    let mut bytes = initrd.to_vec();
    bytes.resize(initrd.len().next_multiple_of(4), 0);
    write_newc(&mut bytes, [file("etc/bullion/modules", b"boot nvidia\n"), file("modules/nvidia.ko", module)]).unwrap();
    bytes
}

/// What a machine without a GPU says where its first process loads `module`, and its command line says `line`.
fn console(bench: &Bench, image: &Path, module: &[u8], line: impl Fn(&str) -> String) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let initrd = scratch.path().join("initrd");
    std::fs::write(&initrd, loading(&std::fs::read(image.join("initrd")).unwrap(), module)).unwrap();
    let vm = bench.vm(scratch.path(), "t-module", "none", 2, image);
    bench.emulate(&vm, image, Some("FAILED modules"), |words| {
        let word = words.iter_mut().find(|word| word.starts_with("-initrd ")).unwrap();
        *word = format!("-initrd {}", initrd.display());
        let append = words.iter_mut().find(|word| word.starts_with("-append ")).unwrap();
        *append = line(&append.replace(" quiet ", " "));
    })
}

#[test]
fn a_release_loads_the_modules_that_its_command_line_names_and_no_others() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.release("gpu-580") else { return };
    let manifest = Manifest::parse("manifest.json", &std::fs::read(image.join("manifest.json")).unwrap()).unwrap();
    let kernel = manifest.components.iter().find(|one| one.outputs.contains_key(kernel_output::KERNEL)).unwrap();
    let store = Store::open(&Store::default_dir().unwrap()).unwrap();
    let module = image::component::output(&kernel.outputs[MODULE], &store).unwrap();
    let digest = Sha256Digest::of(&module).to_string();
    let (_, named) = manifest.command_line.split_once(WORD).unwrap();
    let named = named.split(' ').next().unwrap().to_owned();
    assert!(named.split(',').any(|word| word == digest), "{named} lacks {digest}");

    let found = console(&bench, &image, &module, str::to_owned);
    assert!(found.contains("NVRM: No NVIDIA GPU found") && !found.contains("module refused"), "{found}");

    // The same code, but for a byte that nobody reads.
    let mut other = module.clone();
    other.push(0);
    let refused = |digest: &str| format!("bullion: module refused: no bullion.modules= names {digest}");
    let found = console(&bench, &image, &other, str::to_owned);
    assert!(found.contains(&refused(&Sha256Digest::of(&other).to_string())), "{found}");
    assert!(!found.contains("NVRM"), "{found}");

    // One that the command line does not name, and a list that is none: nothing of it counts.
    for list in [String::new(), format!("{WORD}{}", "00".repeat(32)), format!("{WORD}{digest},{}", &digest[..63])] {
        let found = console(&bench, &image, &module, |line| line.replace(&format!("{WORD}{named}"), &list));
        assert!(found.contains(&refused(&digest)) && !found.contains("NVRM"), "{list}: {found}");
    }
}
