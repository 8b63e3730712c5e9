//! The cpio writer and the initrd against GNU cpio.

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use image::cpio::{Entry, write_newc};
use image::initrd::{self, InitrdFile};
use image::kernel::Wanted;
use support::{image_world, tool};

#[test]
fn gnu_cpio_lists_what_was_written() {
    let Some(cpio) = tool("cpio") else {
        return;
    };
    let entry = |path, mode, device, content| Entry { path, mode, device, content };
    let mut archive = Vec::new();
    let entries = [
        entry("dir", 0o040_755, (0, 0), b"".as_slice()),
        entry("dir/console", 0o020_600, (5, 1), b""),
        entry("init", 0o100_755, (0, 0), b"12345"),
        entry("link", 0o120_777, (0, 0), b"init"),
    ];
    write_newc(&mut archive, entries).unwrap();
    let said = list(&cpio, &archive);
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert_eq!((lines[0][0], *lines[0].last().unwrap()), ("drwxr-xr-x", "dir"));
    assert_eq!((lines[1][0], lines[1][4], lines[1][5]), ("crw-------", "5,", "1"));
    assert_eq!((lines[2][0], lines[2][2], lines[2][4]), ("-rwxr-xr-x", "root", "5"));
    assert!(said.contains("link -> init"), "{said}");
    assert!(lines.iter().all(|line| line.contains(&"1970")), "{said}");
}

fn list(cpio: &std::path::Path, archive: &[u8]) -> String {
    let mut child = Command::new(cpio)
        .args(["--list", "--verbose", "--quiet"])
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_archive_holds_what_the_guest_expects() {
    let Some(cpio) = tool("cpio") else {
        return;
    };
    let world = image_world();
    let linux = world.lock.package.iter().find(|package| package.name == "linux").unwrap();
    let package = image::deb::read(&world.store.read(&linux.sha256, linux.size).unwrap()).unwrap();
    let kernel = {
        let wanted = Wanted { boot: &["dm_c".to_owned()], device: &["wisher".to_owned()], root: &[] };
        image::kernel::find(&[&package], [], &wanted).unwrap()
    };
    let file = |path: &str| InitrdFile { path: path.to_owned(), mode: 0o640, content: b"1234567".to_vec().into() };
    let more = [file("etc/own"), file("lib/firmware/a/b.bin")];
    let archive = initrd::archive(b"the guest", &kernel, &more).unwrap();
    let listed = list(&cpio, &archive);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    for wanted in [
        "dev",
        "proc",
        "sys",
        "run",
        "sysroot",
        "modules",
        "etc",
        "dev/console",
        "init",
        "etc/bullion/modules",
        "modules/dm_c.ko",
        "etc/own",
        "lib",
        "lib/firmware/a",
        "lib/firmware/a/b.bin",
    ] {
        assert!(names.contains(&wanted), "{wanted}: {listed}");
    }
    assert_eq!(names.iter().filter(|name| **name == "etc").count(), 1, "{listed}");
    assert!(
        listed.lines().any(|line| line.starts_with("-rw-r-----") && line.ends_with("lib/firmware/a/b.bin")),
        "{listed}"
    );
    assert_eq!(zstd::decode_all(initrd::compress(&archive).unwrap().as_slice()).unwrap(), archive);
}
