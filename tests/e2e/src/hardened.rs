//! Images of class release with the compiled kernel, and machines that give it other ACPI tables than a launch would.
//!
//! `scripts/release-images` makes the images, once for all tests; where it did not, tests say "skipped".

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use launcher::qemu::WAIT;

use crate::{Bench, skipped};

/// A kernel that has to stop by itself, under TCG on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(240);

impl Bench {
    /// The image `name` (`minimal`, `container`, `gpu-580`) of class release with its compiled kernel. Never change it.
    pub fn release(&self, name: &str) -> Option<PathBuf> {
        let made = std::env::var_os("BULLION_TEST_RELEASE").map(|directory| Path::new(&directory).join(name));
        let image = made.filter(|image| image.join("manifest.json").exists());
        if image.is_none() {
            skipped(&format!(
                "BULLION_TEST_RELEASE names no image \"{name}\": scripts/release-images makes it, where its kernel is compiled"
            ));
        }
        image
    }

    /// Starts the machine that `launch` plans for `vm`, without its TEE and under TCG, with `change` made to its words, until its
    /// kernel stops or has written a line with `last` on the serial line; what it wrote. A kernel for TDX does not get far without one: the
    /// machine has no timer.
    pub fn emulate(&self, vm: &Path, image: &Path, last: Option<&str>, change: impl Fn(&mut Vec<String>)) -> String {
        let has_tee = !std::fs::read_to_string(vm).unwrap().contains("tee = \"none\"");
        let words: &[&str] = if has_tee { &["--plan", "--simulate"] } else { &["--plan"] };
        let plan = self.launch(vm, words).expect(0, &[]).stdout;
        let (_, command) = plan.split_once("\ncommand\n").unwrap();
        let mut words: Vec<String> =
            command.lines().skip(1).map_while(|line| line.strip_prefix("    ")).map(str::to_owned).collect();
        let loader = command.lines().next().unwrap().trim().to_owned();
        if let Some(at) = words.iter().position(|word| word.starts_with("--preload ")) {
            words.remove(at);
        }
        // In place of the configuration: the machine ends before anybody reads it.
        let zeroes = tempfile::NamedTempFile::new().unwrap();
        zeroes.as_file().set_len(4096).unwrap();
        for line in plan.lines().filter_map(|line| line.strip_prefix("descriptor")) {
            let (number, file) = line.trim().split_once(' ').unwrap();
            let path = if image.join(file).exists() { image.join(file) } else { zeroes.path().to_owned() };
            let (from, to) = (format!("/proc/self/fd/{number}"), path.display().to_string());
            words.iter_mut().for_each(|word| replace_whole(word, &from, &to));
        }
        plain(&mut words);
        change(&mut words);
        let environment = plan.lines().filter_map(|line| line.strip_prefix("environment  QEMU_MODULE_DIR="));
        let mut qemu = Command::new(loader);
        qemu.args(words.iter().flat_map(|word| word.splitn(2, ' ').map(str::to_owned).collect::<Vec<_>>()));
        qemu.env("QEMU_MODULE_DIR", environment.into_iter().next().unwrap());
        let console = tempfile::NamedTempFile::new().unwrap();
        let mut child = qemu.stdin(Stdio::null()).stdout(console.reopen().unwrap()).spawn().unwrap();
        let deadline = Instant::now() + TIMEOUT;
        let written = || String::from_utf8_lossy(&std::fs::read(console.path()).unwrap()).into_owned();
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline || last.is_some_and(|last| has_line(&written(), last)) {
                let _ = child.kill();
                let _ = child.wait();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        written()
    }
}

fn has_line(text: &str, part: &str) -> bool {
    text.split_once(part).is_some_and(|(_, rest)| rest.contains('\n'))
}

/// `/proc/self/fd/1` is not the beginning of `/proc/self/fd/10`.
fn replace_whole(word: &mut String, from: &str, to: &str) {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
    if let Some(at) = word.find(from).filter(|at| ends(&word[at + from.len()..])) {
        word.replace_range(at..at + from.len(), to);
    }
}

/// The machine without what only the real host has, and with its serial line on standard output.
fn plain(words: &mut Vec<String>) {
    let starts = ["-object tdx-guest", "-object sev-snp-guest", "-qmp ", "-chardev socket,id=qmp", "-sandbox "];
    // Nobody is there to let it go on.
    words.retain(|word| !WAIT.contains(&word.as_str()) && !starts.iter().any(|start| word.starts_with(start)));
    for word in words.iter_mut() {
        if word.starts_with("-machine ") {
            *word = word.replace(",confidential-guest-support=tee", "");
        } else if word.starts_with("-accel ") {
            *word = "-accel tcg,thread=multi".to_owned();
        } else if word.starts_with("-cpu ") {
            // What OVMF has of physical address bits on servers with a TEE.
            *word = "-cpu max,phys-bits=46,pmu=off".to_owned();
        } else if word.starts_with("-chardev socket,id=console") {
            *word = "-chardev stdio,id=console".to_owned();
        } else if word.starts_with("-chardev socket,id=agent") {
            *word = "-chardev null,id=agent".to_owned();
        }
    }
}
