//! What a QEMU can do, asked of the program itself over QMP, once, and remembered.
//!
//! Asking takes a tenth of a second and more, which is more than a launch may spend. The answer is kept in the cache
//! under the identity of the file (path, size, inode and times): a pinned tree never changes in place, and a package
//! manager's upgrade changes all of these.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spec::{Diagnostic, Outcome, Sha256Digest};

use super::arguments::{Arguments, Properties};
use super::{QemuProgram, descriptor};
use crate::child::{self, Child};
use crate::qmp::{Message, Qmp};
use crate::state::write_atomically;

/// The oldest QEMU that is launched: the first with TDX, and with VFIO for guests that share and unshare memory.
pub const FLOOR: [u64; 3] = [10, 1, 0];

/// How long QEMU may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A new number whenever what is remembered changes.
const SCHEMA: u32 = 4;

/// What a QEMU can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    schema: u32,
    /// Its version.
    pub version: [u64; 3],
    /// The QOM types it has, as far as a launch may need them.
    pub types: BTreeSet<String>,
    /// Whether it was built with `-sandbox`.
    pub sandbox: bool,
}

/// A QEMU that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// It cannot be started, or not be talked to.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended or fell silent before it had answered.
    #[error("{program} did not answer over QMP: {found}")]
    NoAnswer {
        /// The program.
        program: PathBuf,
        /// What it did instead.
        found: String,
    },
}

impl Diagnostic for FeatureError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }
    fn hint(&self) -> Option<String> {
        Some("name another QEMU with `--qemu PATH`, or leave the option out to run the pinned one".to_owned())
    }
}

impl Features {
    /// What `program` can do, from the directory `verdicts` of `cache` where it was asked before.
    pub fn of(program: &QemuProgram, cache: &Path) -> Result<Self, FeatureError> {
        if let Some(known) = Self::known(program, cache)? {
            return Ok(known);
        }
        let found = ask(program)?;
        let path = Self::place(program, cache)?;
        // A cache that cannot be written costs time, nothing else.
        let _ = serde_json::to_vec(&found).map_err(io::Error::other).and_then(|bytes| {
            fs::create_dir_all(cache.join("verdicts"))?;
            write_atomically(&path, &bytes)
        });
        Ok(found)
    }

    /// What `program` was seen to be able to do.
    pub fn known(program: &QemuProgram, cache: &Path) -> Result<Option<Self>, FeatureError> {
        let kept = fs::read(Self::place(program, cache)?).ok();
        let known = kept.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        Ok(known.filter(|known| known.schema == SCHEMA))
    }

    /// Where it is remembered.
    fn place(program: &QemuProgram, cache: &Path) -> Result<PathBuf, FeatureError> {
        let run = |source| FeatureError::Run { program: program.binary.clone(), source };
        Ok(cache.join("verdicts").join(format!("qemu-{}.json", identity(program).map_err(run)?.short())))
    }

    /// Features made up for a test.
    #[doc(hidden)]
    pub fn assumed(version: [u64; 3], types: impl IntoIterator<Item = String>) -> Self {
        Self { schema: SCHEMA, version, types: types.into_iter().collect(), sandbox: true }
    }

    /// The version as text.
    pub fn version_text(&self) -> String {
        self.version.map(|number| number.to_string()).join(".")
    }
}

/// What tells this QEMU from another: its file, by size, inode and times, and how it is started.
pub(super) fn identity(program: &QemuProgram) -> io::Result<Sha256Digest> {
    let file = fs::metadata(&program.binary)?;
    let parts = (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    Ok(Sha256Digest::of(format!("{parts:?} {:?} {:?} {:?}", program.command, program.data, program.env).as_bytes()))
}

/// Starts QEMU without a machine, asks, and stops it.
fn ask(program: &QemuProgram) -> Result<Features, FeatureError> {
    let run = |source| FeatureError::Run { program: program.binary.clone(), source };
    let mut arguments = Arguments::default();
    for flag in ["-nodefaults", "-no-user-config", "-S"] {
        arguments.flag(flag);
    }
    arguments.option("-machine", Properties::of("none"));
    arguments.value("-display", "none");
    let channel = Properties::of("socket").with("id", "qmp").with("fd", &descriptor::QMP.to_string());
    arguments.option("-chardev", channel);
    arguments.value("-qmp", "chardev:qmp");

    let (mut qmp, theirs) = Qmp::pair().map_err(run)?;
    qmp.execute("qmp_capabilities", None);
    // Accelerators are modules in some builds: a question about one type loads it, a list of all does not.
    qmp.execute("qom-list-types", Some(json!({ "implements": "accel" })));
    qmp.execute("qom-list-types", Some(json!({ "abstract": false })));
    qmp.execute("query-command-line-options", None);
    qmp.execute("quit", None);
    let argv = program.argv(arguments.into_vec());
    let mut child = child::spawn(&argv, &program.env, vec![(descriptor::QMP, theirs)]).map_err(run)?;
    let answers = listen(&mut qmp, Instant::now() + TIMEOUT).map_err(run)?;
    evaluate(&answers)
        .ok_or_else(|| FeatureError::NoAnswer { program: program.binary.clone(), found: stderr_of(&mut child) })
}

fn listen(qmp: &mut Qmp, deadline: Instant) -> io::Result<Vec<Message>> {
    let mut all = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, qmp.has_unsent());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(qmp.as_fd(), events)], timeout)? == 0 {
            return Ok(all);
        }
        qmp.flush();
        match qmp.receive()? {
            Some(messages) => all.extend(messages),
            None => return Ok(all),
        }
    }
}

fn evaluate(answers: &[Message]) -> Option<Features> {
    let version = answers.iter().find_map(|message| match message {
        Message::Greeting { version } => Some(*version),
        _ => None,
    })?;
    let values = |wanted: &'static str| {
        answers.iter().filter_map(move |message| match message {
            Message::Reply { command, result: Ok(value) } if *command == wanted => value.as_array(),
            _ => None,
        })
    };
    let types: BTreeSet<String> = values("qom-list-types")
        .flatten()
        .filter_map(|entry| entry.get("name").and_then(Value::as_str))
        .filter(|name| is_needed(name))
        .map(str::to_owned)
        .collect();
    let sandbox = values("query-command-line-options")
        .flatten()
        .any(|entry| entry.get("option").and_then(Value::as_str) == Some("sandbox"));
    (!types.is_empty()).then_some(Features { schema: SCHEMA, version, types, sandbox })
}

/// Whether a launch may ask for the type: a hundredth of all types are worth keeping.
fn is_needed(name: &str) -> bool {
    let endings = ["-accel", "-x86_64-cpu", "-machine", "-guest"];
    let devices = ["pcie-root-port", "vfio-pci", "iommufd", "vhost-vsock-pci", "i6300esb", "pvpanic-pci"];
    devices.contains(&name)
        || name.starts_with("virt")
        || name.starts_with("memory-backend-")
        || endings.iter().any(|ending| name.ends_with(ending))
}

fn stderr_of(child: &mut Child) -> String {
    use std::io::Read;
    child.kill();
    let mut text = Vec::new();
    if let Some(stderr) = child.take_stderr() {
        let _ = stderr.take(2000).read_to_end(&mut text);
    }
    let text = crate::agent::one_line(&String::from_utf8_lossy(&text).replace('\n', " "));
    if text.trim().is_empty() { "it said nothing".to_owned() } else { format!("it said \"{}\"", text.trim()) }
}
