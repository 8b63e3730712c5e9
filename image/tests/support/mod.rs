//! Hand-made packages, kernel modules and recipes, and the way to tools that judge what we write.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

mod elf;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{BuildRequest, Guest};
use spec::Sha256Digest;
use spec::lock::{Lock, Package, Standing, Use};
use spec::recipe::{Recipe, RecipeFile, flatten};
use tar::{EntryType, Header};

pub(crate) use elf::elf;

/// A package in the making.
pub struct Deb {
    name: String,
    version: String,
    tar: tar::Builder<Vec<u8>>,
}

impl Deb {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), version: "1.0-1".to_owned(), tar: tar::Builder::new(Vec::new()) }.directory("./")
    }

    pub fn directory(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, 0o755, None, b"")
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(path, EntryType::Regular, 0o644, None, content.as_ref())
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, 0o777, Some(target), b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, 0o644, Some(target), b"")
    }

    /// Any entry; nothing is checked, so that bad ones can be made.
    pub fn entry(mut self, path: &str, kind: EntryType, mode: u32, target: Option<&str>, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        put(&mut header.as_old_mut().name, path, &mut self.tar, b'L');
        put(&mut header.as_old_mut().linkname, target.unwrap_or_default(), &mut self.tar, b'K');
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.tar.append(&header, content).unwrap();
        self
    }

    /// Extended attributes of the next entry, as GNU tar and star write them.
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.tar.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)]).unwrap();
        self
    }

    /// The .deb with a data archive of this kind: `""`, `.xz`, `.zst`, `.gz`.
    pub fn build_as(self, ending: &str) -> Vec<u8> {
        let control = format!("Package: {}\nVersion: {}\nArchitecture: amd64\n", self.name, self.version);
        let data = self.tar.into_inner().unwrap();
        deb_of(&control, &format!("data.tar{ending}"), &pack(&data, ending))
    }

    pub fn build(self) -> Vec<u8> {
        self.build_as(".xz")
    }
}

/// A name in its header field, or in a GNU long-name entry before it.
fn put(field: &mut [u8; 100], text: &str, tar: &mut tar::Builder<Vec<u8>>, long: u8) {
    if let Some(place) = field.get_mut(..text.len()) {
        place.copy_from_slice(text.as_bytes());
        return;
    }
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
    header.set_entry_type(EntryType::new(long));
    header.set_size(text.len() as u64 + 1);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    tar.append(&header, [text.as_bytes(), &[0]].concat().as_slice()).unwrap();
    field.copy_from_slice(&text.as_bytes()[..100]);
}

pub fn pack(data: &[u8], ending: &str) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let mut out = Vec::new();
    match ending {
        ".xz" => drop(liblzma::read::XzEncoder::new(data, 0).read_to_end(&mut out).unwrap()),
        ".zst" => out = zstd::encode_all(data, 1).unwrap(),
        ".gz" => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap();
        }
        _ => out = data.to_vec(),
    }
    out
}

/// A .deb of this control file and this data member.
pub fn deb_of(control: &str, data_name: &str, data: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(control.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, "control", control.as_bytes()).unwrap();
    let control = pack(&tar.into_inner().unwrap(), ".gz");
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control), (data_name, data)])
}

pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", bytes.len()).bytes());
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// The least that counts as a static program for x86-64: an ELF header and one empty segment to load.
pub const STATIC_PROGRAM: [u8; 64 + 56] = {
    let mut elf = [0; 64 + 56];
    let fields: [(usize, &[u8]); 10] = [
        (0, b"\x7fELF\x02\x01\x01"),
        (16, &[2]),           // ET_EXEC
        (18, &[62]),          // EM_X86_64
        (20, &[1]),           // EV_CURRENT
        (24, &[0, 0x10, 64]), // e_entry
        (32, &[64]),          // e_phoff
        (52, &[64]),          // e_ehsize
        (54, &[56]),          // e_phentsize
        (56, &[1]),           // e_phnum
        (64, &[1]),           // PT_LOAD
    ];
    let mut field = 0;
    while field < fields.len() {
        let (at, bytes) = fields[field];
        let mut byte = 0;
        while byte < bytes.len() {
            elf[at + byte] = bytes[byte];
            byte += 1;
        }
        field += 1;
    }
    elf
};

pub const KERNEL: &str = "7.3.4-test";

/// An ELF file with nothing but a `.modinfo` section.
pub fn module(name: &str, depends: &str, extra: &[&str]) -> Vec<u8> {
    module_for(KERNEL, name, depends, extra)
}

pub fn module_for(kernel: &str, name: &str, depends: &str, extra: &[&str]) -> Vec<u8> {
    let mut modinfo = format!("license=GPL\0depends={depends}\0name={name}\0vermagic={kernel} SMP mod_unload \0");
    extra.iter().for_each(|item| modinfo += &format!("{item}\0"));
    elf(".modinfo", modinfo.as_bytes())
}

/// A recipe whose packages are hand-made, with its store and lock.
pub struct World {
    pub directory: tempfile::TempDir,
    pub store: store::Store,
    pub recipe: Recipe,
    pub lock: Lock,
    pub lock_text: String,
}

impl World {
    pub fn new(recipe: &str, packages: &[(&str, &[Use], Vec<u8>)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = store::Store::open(&directory.path().join("cache")).unwrap();
        let file = RecipeFile::parse("test.toml", recipe).unwrap();
        let recipe = flatten(&[("test.toml".to_owned(), recipe.to_owned(), file)]).unwrap();
        let package = packages.iter().map(|(name, uses, deb)| locked(name, uses, deb, &store)).collect();
        let lock = Lock {
            schema: 1,
            recipe: recipe.name.clone(),
            recipe_sha256: recipe.lock_digest(),
            standing: Standing::Unpublished,
            release: Vec::new(),
            package,
        };
        let lock_text = lock.to_text().unwrap();
        Self { directory, store, recipe, lock, lock_text }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What is asked for of it: an image at `output` with [`STATIC_PROGRAM`] as its guest, and nothing that a component made.
    pub fn request<'a>(&'a self, output: &'a Path) -> BuildRequest<'a> {
        BuildRequest {
            recipe: &self.recipe,
            recipe_dir: self.directory.path(),
            lock: &self.lock,
            lock_text: &self.lock_text,
            guest: Guest { bytes: &STATIC_PROGRAM, component: None },
            kernel: None,
            parts: &[],
            output,
            jobs: 2,
            replace: false,
            believe_cache: false,
        }
    }

    pub fn lock_sha256(&self) -> Sha256Digest {
        Sha256Digest::of(self.lock_text.as_bytes())
    }
}

fn locked(name: &str, uses: &[Use], deb: &[u8], store: &store::Store) -> Package {
    Package {
        name: name.to_owned(),
        version: "1.0-1".to_owned(),
        architecture: "amd64".to_owned(),
        suite: "test".to_owned(),
        uses: uses.to_vec(),
        path: format!("pool/{name}.deb"),
        size: deb.len() as u64,
        sha256: store.insert_bytes(deb).unwrap(),
        scripts: Vec::new(),
    }
}

/// A small image: two packages for the root, one kernel, one firmware.
pub fn image_world() -> World {
    image_world_with(IMAGE_RECIPE)
}

pub fn image_world_with(recipe: &str) -> World {
    let base = Deb::new("base-files")
        .directory("./usr/")
        .directory("./usr/bin/")
        .link("./bin", "usr/bin")
        .directory("./tmp/")
        .file("./usr/bin/tool", vec![7; 10_000])
        .hard_link("./usr/bin/same", "./usr/bin/tool")
        .file("./usr/share/doc/base/copyright", "words");
    let other = Deb::new("other").file("./usr/share/ca-certificates/a.crt", "CERTIFICATE").file("./etc/other", "x");
    let kernel = kernel_package(Deb::new("linux"));
    let firmware = Deb::new("ovmf").file("./usr/share/ovmf/OVMF.fd", vec![0xea; 4096]);
    World::new(
        recipe,
        &[
            ("base-files", &[Use::Tree], base.build()),
            ("linux", &[Use::Kernel], kernel.build()),
            ("other", &[Use::Tree], other.build_as(".zst")),
            ("ovmf", &[Use::Firmware], firmware.build_as(".gz")),
        ],
    )
}

/// `c` needs `b` needs `a`; `wisher` wants `a` where it exists; `virtio_pci` is built in.
pub fn kernel_package(deb: Deb) -> Deb {
    let directory = format!("./usr/lib/modules/{KERNEL}");
    let at = |name: &str| format!("{directory}/kernel/{name}");
    deb.file(&format!("{directory}/vmlinuz"), b"a bzImage")
        .file(&format!("{directory}/modules.builtin"), "kernel/drivers/virtio/virtio_pci.ko\n")
        .file(&at("a.ko"), module("a", "", &[]))
        .file(&at("b.ko.xz"), pack(&module("b", "a,virtio-pci", &[]), ".xz"))
        .file(&at("dm-c.ko.zst"), pack(&module("dm_c", "b", &[]), ".zst"))
        .file(&at("wisher.ko"), module("wisher", "", &["softdep=pre: nothing a"]))
}

pub const IMAGE_RECIPE: &str = r#"
schema = 1
name = "test"
[suites.test]
[packages]
dependencies = false
add = ["base-files", "other"]
[kernel]
package = "linux"
boot_modules = ["virtio_pci", "dm_c"]
device_modules = ["wisher"]
command_line = ["console=ttyS0"]
[rootfs]
verity_salt = "b5c1f0a34e7d2986cf1b0e8d5a47639210fd8ce4b76a5392187e4dc0a9f6b3e1"
uuid = "6f2d9e57-3c81-4b0a-9d64-0e7a51c8b2f3"
drop = ["/usr/share/doc/**"]
[[rootfs.file]]
path = "/etc/motd"
content = "hello\n"
mode = "0600"
[[rootfs.link]]
path = "/etc/localtime"
target = "../usr/share/zoneinfo/UTC"
[firmware.snp]
package = "ovmf"
path = "/usr/share/ovmf/OVMF.fd"
"#;

/// A tool that we did not write; `None`, with a word on stderr, where it is not installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("BULLION_TOOLS").map(PathBuf::from).or_else(|| {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
        Some(cache.join("bullion/tools/bin"))
    });
    let path = directory.map(|directory| directory.join(name)).filter(|path| path.is_file());
    if path.is_none() {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: there is no {name} in BULLION_TOOLS");
    }
    path
}

/// A file beside the tools, such as the EFI stub that ukify is given.
pub fn shared_file(name: &str) -> Option<PathBuf> {
    tool(&format!("../share/{name}"))
}

/// Runs a tool that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}
