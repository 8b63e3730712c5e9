//! A container runs to completion in the guest, from an archive of the host that is what the configuration says, or not at
//! all; and what a scratch volume holds afterwards tells the host nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::{Path, PathBuf};

use e2e::cipher::{assert_hidden, holds};
use e2e::container::{Archive, configuration};
use e2e::{Bench, bench};

const MARKER: &str = "the container of this test was here";

fn describe(bench: &Bench, directory: &Path, name: &str, more: &str) -> Option<PathBuf> {
    Some(bench.container_vm(directory, name, bench.container()?, more))
}

#[test]
fn a_container_runs_to_completion_and_its_exit_code_is_the_guests() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    for exit_code in [0, 7] {
        let archive = Archive::new(MARKER, exit_code);
        std::fs::write(directory.path().join("app.tar"), &archive.bytes).unwrap();
        let name = format!("t-workload-{exit_code}");
        let Some(vm) = describe(&bench, directory.path(), &name, &archive.description("app.tar")) else { return };
        let run = bench.launch(&vm, &["--json"]);
        let expected = if exit_code == 0 { 0 } else { 7 };
        let answer = run.expect(expected, &[]).json();
        assert_eq!(answer["workload"]["state"], "ended", "{answer}");
        assert_eq!(answer["workload"]["exit_code"], exit_code, "{answer}");
        let digest = configuration(&std::fs::read_to_string(&vm).unwrap()).unwrap();
        assert_eq!(answer["identity"]["configuration"]["digest"], digest.to_string());
        let printed = bench.run(["logs", &name, "--workload"]).expect(0, &[]);
        assert_eq!(printed.stdout, format!("{MARKER}\n"));
        let console = bench.run(["logs", &name]).expect(0, &[]);
        assert!(!console.stdout.contains(MARKER), "the console is for start-up only: {}", console.stdout);
    }
}

#[test]
fn output_that_is_not_for_the_host_stays_in_the_guest() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::new(MARKER, 0);
    std::fs::write(directory.path().join("app.tar"), &archive.bytes).unwrap();
    let more = archive.description("app.tar").replace("output = \"to-host\"\n", "");
    let Some(vm) = describe(&bench, directory.path(), "t-silent", &more) else { return };
    let run = bench.launch(&vm, &[]).expect(0, &["exit code 0"]);
    assert!(!run.stdout.contains(MARKER) && !run.stderr.contains(MARKER), "{run:?}");
    assert_eq!(bench.run(["logs", "t-silent", "--workload"]).expect(0, &[]).stdout, "");
}

#[test]
fn an_archive_that_is_not_the_one_of_the_configuration_is_refused_before_podman_sees_it() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::new(MARKER, 0);
    let mut other = archive.bytes.clone();
    let at = other.windows(MARKER.len()).position(|window| window == MARKER.as_bytes()).unwrap();
    other[at] ^= 1;
    std::fs::write(directory.path().join("app.tar"), &other).unwrap();
    let Some(vm) = describe(&bench, directory.path(), "t-other", &archive.description("app.tar")) else { return };
    let run = bench.launch(&vm, &[]).expect(7, &["volume \"app\" has SHA-256", &archive.sha256.to_string()]);
    assert!(!run.stderr.contains("the workload runs"), "{run:?}");
}

#[test]
fn a_workload_needs_an_image_that_can_run_one() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let vm = bench.vm(directory.path(), "t-no-podman", "none", 1, bench.image());
    let text = std::fs::read_to_string(&vm).unwrap();
    std::fs::write(&vm, format!("{text}[guest.workload]\nimage = \"sha256:{}\"\n", "ab".repeat(32))).unwrap();
    bench.launch(&vm, &[]).expect(7, &["the image has no /usr/bin/podman"]);
}

#[test]
fn a_scratch_volume_holds_nothing_that_the_host_can_read() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::new(MARKER, 0);
    let disk = directory.path().join("tmp.img");
    std::fs::write(directory.path().join("app.tar"), &archive.bytes).unwrap();
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(256 << 20).unwrap();
    // Images, containers and the copy of the archive are all kept on the scratch volume.
    let more = format!(
        "{}[[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n[[host.volume]]\nname = \"tmp\"\npath = \"tmp.img\"\n",
        archive.description("app.tar")
    );
    let Some(vm) = describe(&bench, directory.path(), "t-scratch", &more) else { return };
    let mut boots = Vec::new();
    for _ in 0..2 {
        bench.launch(&vm, &[]).expect(0, &[MARKER, "exit code 0"]);
        let bytes = std::fs::read(&disk).unwrap();
        assert_hidden(&bytes, &[MARKER]);
        // ext4's magic number (Linux Documentation/filesystems/ext4/super.rst) is on no disk that is encrypted from its start.
        assert_ne!(bytes[1080..1082], [0x53, 0xef]);
        boots.push(bytes[..4096].to_vec());
    }
    // The second boot takes the noise of the first for what it is, and has another key.
    assert_ne!(boots[0], boots[1]);
    // What the search would find in the clear it finds in the archive, which is on a disk of the same guest.
    assert!(holds(&std::fs::read(directory.path().join("app.tar")).unwrap(), MARKER));
}
