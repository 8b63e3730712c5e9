//! What makes work on an image quick, and never reaches a release: a shell on the serial line, and builds that take up what
//! earlier ones left.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use e2e::{Bench, bench, run, skipped};

/// The overlay of the minimal image, with its recipe.
fn overlay(bench: &Bench) -> Option<(PathBuf, &'static Path)> {
    static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let Some(recipe) = std::env::var_os("BULLION_TEST_DEV").map(PathBuf::from) else {
        skipped("BULLION_TEST_DEV is not set");
        return None;
    };
    let (_, path) = IMAGE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("minimal-dev");
        bench.run([OsStr::new("build"), recipe.as_os_str(), OsStr::new("-o"), path.as_os_str()]).expect(0, &[]);
        (directory, path)
    });
    Some((recipe, path))
}

#[test]
fn whoever_has_the_serial_line_of_an_overlay_has_a_shell() {
    let Some(bench) = bench() else { return };
    let Some((_, image)) = overlay(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-shell", "none", 1, image);
    let text = std::fs::read_to_string(&vm).unwrap();
    std::fs::write(&vm, format!("{text}[host]\nready_timeout_s = 180\n")).unwrap();
    let mut command = bench.launching(&vm, &["--console"]);
    let mut launch = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut keyboard = launch.stdin.take().unwrap();
    let (mut asked, mut answered) = (false, false);
    for line in BufReader::new(launch.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // Its tty tells a shell with job control from a program that merely reads.
        if !asked && line.contains(spec::agent::CONSOLE_READY) {
            asked = true;
            std::thread::sleep(std::time::Duration::from_secs(3));
            keyboard.write_all(b"echo answer $((6 * 7)) $(tty) pid $$\n").unwrap();
        }
        if line.contains("answer 42 /dev/ttyS0") {
            answered = true;
            bench.run(["stop", "t-shell"]).expect(0, &[]);
        }
    }
    launch.wait().unwrap();
    assert!(asked && answered, "asked: {asked}");
}

/// A launch in the background, by whose console the test waits.
fn launched(bench: &Bench, directory: &Path, name: &str, image: &Path) -> Child {
    let vm = bench.vm(directory, name, "none", 1, image);
    let text = std::fs::read_to_string(&vm).unwrap();
    std::fs::write(&vm, format!("{text}[host]\nready_timeout_s = 180\n")).unwrap();
    bench.launching(&vm, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Reads until `text` has come.
fn read_until(source: &mut impl Read, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut some = [0; 4096];
        let length = source.read(&mut some).unwrap();
        assert!(length > 0, "\"{text}\" did not come: {seen}");
        seen.push_str(&String::from_utf8_lossy(&some[..length]));
    }
    seen
}

/// The child's exit code and standard error.
fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_vm_that_runs_is_typed_to_from_elsewhere_again_and_again() {
    let Some(bench) = bench() else { return };
    let Some((_, image)) = overlay(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut launch = launched(&bench, scratch.path(), "t-typed", image);
    let mut words = launch.stdout.take().unwrap();
    read_until(&mut words, spec::agent::CONSOLE_READY);
    // Nobody is kept waiting by a terminal that shows nothing.
    let shown = std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
    std::thread::sleep(std::time::Duration::from_secs(3));
    let attach = || {
        let mut command = bench.command(["console", "t-typed"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };

    // By a pipe: what is typed, and what is not shown while it is typed.
    let mut console = attach();
    let mut output = console.stdout.take().unwrap();
    let keyboard = console.stdin.as_mut().unwrap();
    assert!(read_until(&mut output, spec::agent::CONSOLE_READY).contains('\n'), "the last lines");
    keyboard.write_all(b"echo answer $((6 * 7)) $(tty)\n").unwrap();
    read_until(&mut output, "answer 42 /dev/ttyS0");
    keyboard.write_all(b"read -s word; echo it has ${#word}\n").unwrap();
    read_until(&mut output, "${#word}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    keyboard.write_all(b"opensesame\n").unwrap();
    read_until(&mut output, "it has 10");
    kill(Pid::from_raw(console.id().cast_signed()), Signal::SIGTERM).unwrap();
    let (code, told) = ended(console);
    assert!(code == Some(0) && told.contains("left by SIGTERM"), "{code:?} {told}");

    // At a terminal: Ctrl-C is the guest's, Ctrl-] gives it back as it was.
    let pty = nix::pty::openpty(None, None).unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let mut command = bench.command(["console", "t-typed"]);
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let console = command.stdin(slave()).stdout(slave()).stderr(Stdio::piped()).spawn().unwrap();
    let mut person = std::fs::File::from(pty.master);
    read_until(&mut person, "it has 10");
    person.write_all(b"sleep 1000\r").unwrap();
    read_until(&mut person, "sleep 1000");
    std::thread::sleep(std::time::Duration::from_secs(1));
    person.write_all(b"\x03echo interrupted $((5 + 4))\r").unwrap();
    read_until(&mut person, "interrupted 9");
    let who = format!("process {} of user", console.id());
    bench.run(["console", "t-typed"]).expect(3, &["somebody types to \"t-typed\" already", &who, "Ctrl-]"]);
    person.write_all(&[0x1d]).unwrap();
    let (code, told) = ended(console);
    assert!(code == Some(0) && told.contains("\"t-typed\" goes on"), "{code:?} {told}");
    assert_eq!(nix::sys::termios::tcgetattr(&pty.slave).unwrap(), before);

    // One that is killed is no hindrance, and one that stays hears the guest's last words and how it ended.
    let mut killed = attach();
    read_until(&mut killed.stdout.take().unwrap(), "interrupted 9");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut console = attach();
    let mut output = console.stdout.take().unwrap();
    console.stdin.as_mut().unwrap().write_all(b"echo again $((3 * 3))\n").unwrap();
    read_until(&mut output, "again 9");
    let rest = std::thread::spawn(move || std::io::read_to_string(output).unwrap());
    bench.run(["stop", "t-typed"]).expect(0, &[]);
    let (code, told) = ended(console);
    assert!(code == Some(0) && told.contains("\"t-typed\" has ended: "), "{code:?} {told}");
    assert!(rest.join().unwrap().contains("Power down"), "the last words");
    launch.wait().unwrap();
    shown.join().unwrap().unwrap();
    bench.run(["console", "t-typed"]).expect(2, &["no VM named \"t-typed\" is running"]);
    let log = bench.run(["logs", "t-typed"]).expect(0, &[]).stdout;
    assert!(log.contains("it has 10") && !log.contains("opensesame"));
}

#[test]
fn a_console_outlives_no_supervisor() {
    let Some(bench) = bench() else { return };
    let Some((_, image)) = overlay(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut launch = launched(&bench, scratch.path(), "t-orphan", image);
    let mut words = launch.stdout.take().unwrap();
    words.read_exact(&mut [0]).unwrap();
    let mut command = bench.command(["console", "t-orphan"]);
    let mut console = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    console.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    launch.kill().unwrap();
    launch.wait().unwrap();
    let (code, told) = ended(console);
    assert!(code == Some(0) && told.contains("the supervisor was killed, and QEMU with it"), "{code:?} {told}");
}

#[test]
fn an_image_with_a_shell_says_so_and_is_never_released() {
    let Some(bench) = bench() else { return };
    let Some((recipe, image)) = overlay(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let described = bench.run([OsStr::new("describe"), image.as_os_str(), OsStr::new("--json")]).expect(0, &[]).json();
    assert_eq!((described["shell"].as_str(), described["class"].as_str()), (Some("/usr/bin/busybox sh"), Some("dev")));
    let plain = bench.run([OsStr::new("describe"), bench.image().as_os_str(), OsStr::new("--json")]).expect(0, &[]);
    assert!(plain.json()["shell"].is_null());
    let told = bench.run([OsStr::new("describe"), image.as_os_str()]).expect(0, &[]).stdout;
    assert!(told.contains("shell on console   YES: /usr/bin/busybox sh"), "{told}");

    let built = bench.run([
        OsStr::new("build"),
        recipe.as_os_str(),
        OsStr::new("-o"),
        scratch.path().join("again").as_os_str(),
    ]);
    assert!(built.stdout.contains("it has a shell on its serial line"), "{built:?}");
    let at = |name: &str| scratch.path().join(name).display().to_string();
    bench.run(["keygen", "-o", &at("key")]).expect(0, &[]);
    let image = image.display().to_string();
    bench
        .run(["publish", &image, "--key", &at("key"), "-o", &at("bundle")])
        .expect(6, &["has a shell on its serial line (/usr/bin/busybox sh)"]);
    assert!(!scratch.path().join("bundle").exists());
}

#[test]
fn what_has_not_changed_is_not_built_and_what_has_is() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    std::fs::copy(bench.recipe.with_extension("lock"), recipe.with_extension("lock")).unwrap();
    let output = scratch.path().join("image");
    let build = || {
        let mut command = bench.command(["build", "minimal.toml", "-o", "image", "--replace"]);
        let run = run(command.current_dir(scratch.path())).expect(0, &[]);
        run.stderr.contains("nothing has changed")
    };
    build();
    let manifest = std::fs::read(output.join("manifest.json")).unwrap();
    assert!(build(), "the same inputs");
    assert_eq!(std::fs::read(output.join("manifest.json")).unwrap(), manifest);
    // Whatever is not as it was built is built again, to the same bits.
    for spoil in ["rootfs", "cmdline", "sbom.spdx.json"] {
        std::fs::write(output.join(spoil), "spoilt").unwrap();
        assert!(!build(), "{spoil} was spoilt");
        assert!(build());
    }
    std::fs::write(output.join("stray"), "").unwrap();
    assert!(!build() && !output.join("stray").exists());
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, format!("{text}\n[[rootfs.file]]\npath = \"/etc/changed\"\ncontent = \"x\"\n")).unwrap();
    assert!(!build(), "the recipe has changed");
    assert_ne!(std::fs::read(output.join("manifest.json")).unwrap(), manifest);
}
