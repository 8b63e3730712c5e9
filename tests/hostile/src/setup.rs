//! A machine before it starts: the planned arguments and the files behind them, for an attack to change.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use launcher::qemu::WAIT;
use tempfile::TempDir;

use crate::nbd::{Answer, Server};
use crate::vhost_user::Backend;

/// An option of QEMU with its value.
pub type Argument = (String, Option<String>);

/// A machine that can be started.
#[derive(Debug)]
pub struct Setup {
    /// The program, and what makes it run.
    pub program: Vec<String>,
    /// The environment of the program.
    pub environment: Vec<(String, String)>,
    /// The arguments.
    pub arguments: Vec<Argument>,
    image: PathBuf,
    directory: TempDir,
    server: Option<Server>,
    backend: Option<Backend>,
}

impl Setup {
    /// From a plan's words and the image they are about. Files that are not the image's are made by whoever knows them.
    pub(crate) fn new(image: &Path, argv: &[String], environment: Vec<(String, String)>) -> Self {
        let first = argv.iter().position(|word| word == "-name").unwrap();
        let mut arguments: Vec<Argument> = Vec::new();
        for word in &argv[first..] {
            match arguments.last_mut() {
                Some((_, value @ None)) if !word.starts_with('-') => *value = Some(word.clone()),
                _ => arguments.push((word.clone(), None)),
            }
        }
        // What a supervisor lets run, runs at once where there is none.
        arguments.retain(|(option, _)| !WAIT.contains(&option.as_str()));
        let directory = tempfile::tempdir().unwrap();
        let program = argv[..first].to_vec();
        Self { program, environment, arguments, image: image.to_owned(), directory, server: None, backend: None }
    }

    /// A file in the machine's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The image that the guest starts from, never to be changed.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Adds an argument.
    pub fn add(&mut self, option: &str, value: &str) {
        self.arguments.push((option.to_owned(), Some(value.to_owned())));
    }

    /// Adds devices, one a word of `values`.
    pub fn add_devices(&mut self, values: &[&str]) {
        values.iter().for_each(|value| self.add("-device", value));
    }

    /// The value of the first argument with this option and `part` in its value.
    pub fn value(&mut self, option: &str, part: &str) -> &mut String {
        let found = self.arguments.iter_mut().find_map(|(name, value)| {
            let value = value.as_mut()?;
            (name == option && value.contains(part)).then_some(value)
        });
        found.unwrap_or_else(|| panic!("there is no {option} with \"{part}\""))
    }

    /// Replaces a part of an argument's value, which must be there.
    pub fn replace(&mut self, option: &str, part: &str, by: &str) {
        let value = self.value(option, part);
        *value = value.replace(part, by);
    }

    /// Sets the value of an argument.
    pub fn set(&mut self, option: &str, value: &str) {
        value.clone_into(self.value(option, ""));
    }

    /// Takes away the arguments whose value has `part`.
    pub fn remove(&mut self, option: &str, part: &str) {
        let before = self.arguments.len();
        self.arguments.retain(|(name, value)| name != option || !value.as_deref().unwrap_or_default().contains(part));
        assert!(self.arguments.len() < before, "there is no {option} with \"{part}\"");
    }

    /// Gives the machine a copy of an artifact, changed. Returns the copy's path.
    pub fn change(&mut self, artifact: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut bytes = fs::read(self.image.join(artifact)).unwrap();
        change(&mut bytes);
        self.file(artifact, &bytes)
    }

    /// Gives the machine a file of this content, in the place of the image's where it has one of that name.
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        let (old, new) = (self.image.join(name).display().to_string(), path.display().to_string());
        for (_, value) in &mut self.arguments {
            if let Some(value) = value {
                *value = value.replace(&old, &new);
            }
        }
        path
    }

    /// A new sparse file of so many bytes.
    pub fn sparse(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    /// The configuration disk, to change what is on it.
    pub fn configuration(&mut self) -> PathBuf {
        self.path("configuration")
    }

    /// Serves the root file system over NBD, with answers that `answer` may change.
    pub fn serve_root(&mut self, answer: Answer) {
        self.serve("rootfs", &self.image.join("rootfs"), answer);
    }

    /// The same with the configuration's disk.
    pub fn serve_configuration(&mut self, answer: Answer) {
        self.serve("configuration", &self.path("configuration"), answer);
    }

    fn serve(&mut self, node: &str, file: &Path, answer: Answer) {
        let socket = self.path("nbd.sock");
        self.server = Some(Server::start(&socket, File::open(file).unwrap(), answer));
        let value = self.value("-blockdev", &format!("node-name={node}"));
        *value = format!(
            "driver=nbd,node-name={node},server.type=unix,server.path={},export=disk,read-only=on",
            socket.display()
        );
    }

    /// Adds a device for sockets between host and guest, behind a socket of this process.
    pub fn add_vsock(&mut self) {
        let socket = self.path("vsock.sock");
        self.backend = Some(Backend::start(&socket));
        self.add("-chardev", &format!("socket,id=vsock,path={}", socket.display()));
        self.add_devices(&["vhost-user-vsock-pci,chardev=vsock"]);
    }

    /// Whether a driver in the guest has set up a queue of that device.
    pub fn vsock_has_queue(&self) -> bool {
        self.backend.as_ref().is_some_and(Backend::has_queue)
    }

    /// Flips a bit of a file.
    pub fn flip(path: &Path, offset: u64) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }
}
