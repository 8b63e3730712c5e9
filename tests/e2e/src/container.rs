//! Container images made by hand: one layer, as `docker save` writes it. Nothing of them comes from Bullion or from a registry,
//! so podman alone decides whether they are images.

use std::path::Path;

use serde_json::json;
use spec::Sha256Digest;
use spec::guest_config::GuestConfig;

/// An archive with one image.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The tar file.
    pub bytes: Vec<u8>,
    /// Its SHA-256.
    pub sha256: Sha256Digest,
    /// The image's digest: of its configuration.
    pub image: String,
}

impl Archive {
    /// An image `localhost/app:1` whose program prints `marker`, writes it to a file that it syncs, and ends with `exit_code`.
    pub fn new(marker: &str, exit_code: u8) -> Self {
        Self::of("localhost/app:1", &["/app"], tar_of(&[("app", &program(marker, exit_code), 0o755)]))
    }

    /// An image `localhost/busybox:1` with Debian's busybox, which is its own shell; `None` (and a word why) where
    /// `scripts/test-tools` did not provide it.
    pub fn busybox() -> Option<Self> {
        let path = Path::new(&std::env::var_os("BULLION_TOOLS").unwrap_or_default()).join("../share/busybox");
        let Ok(program) = std::fs::read(&path) else {
            crate::skipped("busybox is not beside BULLION_TOOLS");
            return None;
        };
        Some(Self::of_files("localhost/busybox:1", &[("bin/busybox", &program, 0o755)]))
    }

    /// An image of these files: path, content, mode.
    pub fn of_files(name: &str, files: &[(&str, &[u8], u32)]) -> Self {
        Self::of(name, &[], tar_of(files))
    }

    fn of(name: &str, entry_point: &[&str], layer: Vec<u8>) -> Self {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Entrypoint": entry_point, "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", Sha256Digest::of(&layer))] },
            "history": [{ "created_by": "a test" }],
        });
        let config = config.to_string().into_bytes();
        let digest = Sha256Digest::of(&config);
        let file = format!("{digest}.json");
        let manifest = json!([{ "Config": file, "RepoTags": [name], "Layers": ["layer.tar"] }]).to_string();
        let files: [(&str, &[u8], u32); 3] =
            [(&file, &config, 0o644), ("layer.tar", &layer, 0o644), ("manifest.json", manifest.as_bytes(), 0o644)];
        let bytes = tar_of(&files);
        Self { sha256: Sha256Digest::of(&bytes), image: format!("sha256:{digest}"), bytes }
    }

    /// The parts of a VM description that run the image from the file `path`.
    pub fn description(&self, path: &str) -> String {
        format!("[guest.workload]\nimage = \"{}\"\noutput = \"to-host\"\n{}", self.image, self.volume("app", path))
    }

    /// The parts of a VM description that give the guest the file `path` as the archive volume `name`.
    pub fn volume(&self, name: &str, path: &str) -> String {
        format!(
            "[[guest.volume]]\nname = \"{name}\"\nuse = \"archive\"\nsha256 = \"{}\"\nsize_bytes = {}\n[[host.volume]]\nname = \"{name}\"\npath = \"{path}\"\n",
            self.sha256,
            self.bytes.len()
        )
    }
}

/// The digest of a description's `[guest]` part, as HOST_DATA has it.
pub fn configuration(description: &str) -> Option<Sha256Digest> {
    let vm = spec::vm::Vm::parse("", description).ok()?;
    GuestConfig::host_data(&vm.guest).ok()
}

fn tar_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
const ELF_HEADERS: u64 = 120;

/// A static ELF program of a few system calls (ELF gABI; x86-64 psABI): write(1, marker), creat("/marker"), write, fsync,
/// exit.
fn program(marker: &str, exit_code: u8) -> Vec<u8> {
    let message = format!("{marker}\n").into_bytes();
    let length = u32::try_from(message.len()).unwrap();
    let code_length = code(0, 0, length, exit_code).len();
    let text =
        [code(code_length, code_length + message.len(), length, exit_code), message, b"/marker\0".to_vec()].concat();
    let size = ELF_HEADERS + text.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2u16, 62].map(u16::to_le_bytes).concat());
    elf.extend(1u32.to_le_bytes());
    elf.extend([BASE + ELF_HEADERS, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend([1u32, 5].map(u32::to_le_bytes).concat());
    elf.extend([0, BASE, BASE, size, size, 4096].map(u64::to_le_bytes).concat());
    elf.extend(text);
    elf
}

/// The instructions; `message` and `path` are the offsets of the texts behind them.
fn code(message: usize, path: usize, length: u32, exit_code: u8) -> Vec<u8> {
    const MOV_EAX: u8 = 0xb8;
    const MOV_EDX: u8 = 0xba;
    const MOV_ESI: u8 = 0xbe;
    const MOV_EDI: u8 = 0xbf;
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    const LEA_RSI: [u8; 3] = [0x48, 0x8d, 0x35];
    const LEA_RDI: [u8; 3] = [0x48, 0x8d, 0x3d];
    let set = |register: u8, value: u32| [&[register][..], &value.to_le_bytes()].concat();
    let mut code: Vec<u8> = Vec::new();
    let address = |code: &mut Vec<u8>, lea: [u8; 3], to: usize| {
        let distance = i32::try_from(to).unwrap() - i32::try_from(code.len() + 7).unwrap();
        code.extend([&lea[..], &distance.to_le_bytes()].concat());
    };
    let call = |code: &mut Vec<u8>, number: u32| code.extend([set(MOV_EAX, number), SYSCALL.to_vec()].concat());
    code.extend(set(MOV_EDI, 1));
    address(&mut code, LEA_RSI, message);
    code.extend(set(MOV_EDX, length));
    call(&mut code, 1); // write
    address(&mut code, LEA_RDI, path);
    code.extend([set(MOV_ESI, 0o101), set(MOV_EDX, 0o600)].concat());
    call(&mut code, 2); // open, O_CREAT and O_WRONLY
    code.extend([0x89, 0xc3, 0x89, 0xc7]); // mov ebx, eax; mov edi, eax
    address(&mut code, LEA_RSI, message);
    code.extend(set(MOV_EDX, length));
    call(&mut code, 1); // write
    code.extend([0x89, 0xdf]); // mov edi, ebx
    call(&mut code, 74); // fsync
    code.extend(set(MOV_EDI, exit_code.into()));
    call(&mut code, 60); // exit
    code
}
