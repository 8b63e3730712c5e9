//! A .deb file: the outer `ar`, its members in every compression, and tar entries whose checksums are right, so that the
//! fuzzer gets at paths, links and sizes.
#![no_main]

use image::deb::{EntryKind, read};
use libfuzzer_sys::fuzz_target;

fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len());
    let padding: &[u8] = if content.len() % 2 == 1 { b"\n" } else { b"" };
    [header.as_bytes(), content, padding].concat()
}

fn deb(data_name: &str, data: &[u8]) -> Vec<u8> {
    let control = b"Package: a\nVersion: 1\nArchitecture: all\n";
    let control = [&header(b"./control", b"", b'0', control.len())[..], control, &[0; 512 + 512 + 472]].concat();
    let members =
        [member("debian-binary", b"2.0\n"), member("control.tar", &control), member(data_name, data)].concat();
    [b"!<arch>\n", &members[..]].concat()
}

/// A ustar header with a right checksum.
fn header(path: &[u8], link: &[u8], kind: u8, size: usize) -> [u8; 512] {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, limit: usize, bytes: &[u8]| {
        let length = bytes.len().min(limit);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, 100, path);
    put(100, 8, b"0000644\0");
    put(108, 8, b"0000000\0");
    put(116, 8, b"0000000\0");
    put(124, 12, format!("{size:011o}\0").as_bytes());
    put(136, 12, b"00000000000\0");
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Lines of `KIND PATH TAB LINK` to a tar archive.
fn tar(text: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((kind, rest)) = line.split_first() else { continue };
        let mut parts = rest.splitn(2, |byte| *byte == b'\t');
        let (path, link) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let content: &[u8] = if *kind == b'0' { link } else { b"" };
        archive.extend(header(path, link, *kind, content.len()));
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// The frame is right: what is refused below is refused for what the fuzzer put into it.
fn frame_is_accepted() -> bool {
    read(&deb("data.tar", &tar(b"5./\n5./a\n0./a/b\tcontent\n2./c\ta/b\n1./d\t./a/b")))
        .is_ok_and(|p| p.entries.len() == 5)
}

fuzz_target!(init: assert!(frame_is_accepted()), |bytes: &[u8]| {
    let _ = read(bytes);
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let package = match mode % 4 {
        0 => read(&deb("data.tar.xz", bytes)),
        1 => read(&deb("data.tar.zst", bytes)),
        2 => read(&deb("data.tar.gz", bytes)),
        _ => read(&deb("data.tar", &tar(bytes))),
    };
    let Ok(package) = package else { return };
    for entry in package.entries {
        let clean = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        assert!(entry.path.is_empty() || clean(&entry.path), "{}", entry.path);
        if let EntryKind::HardLink(target) = &entry.kind {
            assert!(clean(target), "{target}");
        }
    }
});
