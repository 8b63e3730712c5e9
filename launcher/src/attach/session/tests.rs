use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::pty::openpty;
use nix::sys::termios::tcgetattr;
use serde_json::json;

use super::super::visitors::Visitors;
use super::*;
use crate::keyboard::LEAVE;
use crate::state::Lock;

/// A VM without a guest: what is typed comes back in brackets.
struct Vm {
    root: tempfile::TempDir,
    directories: Directories,
    record: serde_json::Value,
    lock: Lock,
}

impl Vm {
    fn new(class: &str, phase: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { run: root.path().join("run"), state: root.path().join("state") };
        directories.prepare().unwrap();
        let lock = Lock::take(&directories, "vm").unwrap();
        fs::create_dir(directories.running("vm")).unwrap();
        fs::create_dir(directories.kept("vm")).unwrap();
        let record = json!({
            "schema": 1, "name": "vm", "supervisor": { "pid": 7, "start_time": 9 }, "qemu_pid": null, "started_at": 1,
            "phase": phase, "tee": "none", "simulated": false, "image": "/image", "manifest_sha256": "11".repeat(32),
            "class": class, "accelerator": null, "ready_ms": null, "identity": null, "measurements": null,
            "stop_timeout_s": 1, "console_log": "/log", "exit": null,
        });
        let vm = Self { root, directories, record, lock };
        fs::write(vm.directories.running("vm").join("state.json"), vm.record.to_string()).unwrap();
        vm
    }

    fn serve(&self, mut visitors: Visitors, until: impl Fn(&[u8]) -> bool) {
        let mut all = Vec::new();
        while !until(&all) {
            visitors.let_in(false).unwrap();
            let typed = visitors.serve(true);
            if !typed.is_empty() {
                visitors.show(&[b"<", typed.as_slice(), b">"].concat());
                all.extend_from_slice(&typed);
            }
            thread::sleep(Duration::from_millis(2));
        }
        if let Some(screen) = visitors.unseen() {
            screen.finish(Instant::now() + Duration::from_secs(5));
        }
    }

    fn ends(mut self) -> tempfile::TempDir {
        self.record["exit"] = json!({ "code": 0, "summary": "gone", "last_words": [], "ended_at": 2 });
        fs::write(self.directories.kept("vm").join("last.json"), self.record.to_string()).unwrap();
        fs::remove_dir_all(self.directories.running("vm")).unwrap();
        drop(self.lock);
        self.root
    }
}

fn screen(output: &impl AsFd, input: &impl AsFd) -> Screen {
    Screen::new(output).unwrap().with_keyboard(Keyboard::new(input).unwrap())
}

fn attach(directories: &Directories) -> Result<Session<'_>, AttachError> {
    Session::attach(directories, "vm", &mut |_| {})
}

#[test]
fn a_terminal_is_given_back_and_not_driven_by_what_was_written_before() {
    let vm = Vm::new("dev", "ready");
    let mut visitors = Visitors::expect(&vm.directories.running("vm")).unwrap();
    visitors.show(b"before \x1b[6n\n");
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let mut person = fs::File::from(pty.master);
    let directories = vm.directories.clone();
    let end = thread::scope(|scope| {
        scope.spawn(|| vm.serve(visitors, |typed| typed.ends_with(b"\x03ls\r")));
        let talk = scope.spawn(|| attach(&directories).unwrap().talk(|| Ok(screen(&pty.slave, &pty.slave))).unwrap());
        let mut seen = Vec::new();
        let mut see = |person: &mut fs::File, text: &str| {
            while !String::from_utf8_lossy(&seen).contains(text) {
                let mut some = [0; 100];
                let length = person.read(&mut some).unwrap();
                seen.extend_from_slice(&some[..length]);
            }
            String::from_utf8_lossy(&seen).into_owned()
        };
        // It is raw by the time the first words are shown.
        assert!(!see(&mut person, "before").contains('\x1b'));
        person.write_all(b"\x03ls\r").unwrap();
        see(&mut person, "\r>");
        person.write_all(&[LEAVE]).unwrap();
        talk.join().unwrap()
    });
    assert!(matches!(end, End::Left(None) | End::HungUp), "{end:?}");
    assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
}

#[test]
fn a_pipe_is_typed_whole_and_hears_how_the_vm_ended() {
    let vm = Vm::new("dev", "ready");
    let visitors = Visitors::expect(&vm.directories.running("vm")).unwrap();
    let (input, mut typist) = io::pipe().unwrap();
    let (mut reader, output) = io::pipe().unwrap();
    let text: Vec<u8> = (0..60_000_u32).map(|index| b'a' + (index % 26) as u8).collect();
    let directories = vm.directories.clone();
    let (end, seen) = thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let end = attach(&directories).unwrap().talk(|| Ok(screen(&output, &input))).unwrap();
            drop((input, output));
            end
        });
        scope.spawn(|| {
            typist.write_all(&text).unwrap();
            drop(typist);
        });
        let seen = scope.spawn(move || {
            let mut seen = Vec::new();
            reader.read_to_end(&mut seen).unwrap();
            seen
        });
        vm.serve(visitors, |typed| typed.len() == text.len());
        let root = vm.ends();
        let ended = (talk.join().unwrap(), seen.join().unwrap());
        drop(root);
        ended
    });
    let End::Ended(Some(exit)) = end else { panic!("{end:?}") };
    assert_eq!(exit.summary, "gone");
    let seen: Vec<u8> = seen.into_iter().filter(|byte| !b"<>".contains(byte)).collect();
    assert!(seen == text, "{} of {}", seen.len(), text.len());
}

#[test]
fn who_reads_no_more_leaves() {
    let vm = Vm::new("dev", "ready");
    let visitors = Visitors::expect(&vm.directories.running("vm")).unwrap();
    let (reader, output) = io::pipe().unwrap();
    let (input, typist) = io::pipe().unwrap();
    let end = thread::scope(|scope| {
        let talk = scope.spawn(|| attach(&vm.directories).unwrap().talk(|| Ok(screen(&output, &input))).unwrap());
        drop(reader);
        vm.serve(visitors, |_| talk.is_finished());
        talk.join().unwrap()
    });
    drop(typist);
    assert_eq!(end, End::Left(None));
}

#[test]
fn who_cannot_be_typed_to_is_said_to_be_so() {
    let refused = |vm: &Vm| attach(&vm.directories).unwrap_err().to_string();
    assert!(refused(&Vm::new("release", "ready")).contains("release"));
    assert!(refused(&Vm::new("dev", "ready")).contains("does not listen"));
    let vm = Vm::new("dev", "ready");
    let root = vm.directories.clone();
    let kept = vm.ends();
    assert!(matches!(attach(&root), Err(AttachError::State(StateError::NotRunning { .. }))));
    assert!(matches!(
        Session::attach(&root, "../vm", &mut |_| {}),
        Err(AttachError::State(StateError::NotRunning { .. }))
    ));
    drop(kept);
}
