//! What a unified kernel image measures of itself when it is started (UAPI Unified Kernel Image; systemd `src/boot/stub.c`):
//! PCR 11, which is RTMR2, for its sections, then the kernel in it, as one that firmware loads.
//!
//! The stub of systemd 257 is known. Others do it differently: since 258 the stub loads the kernel without asking firmware.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::event::{Input, Pcr, PredictedEvent};
use super::image::{BootEvents, StubInputs, application, kernel_started};
use crate::authenticode::{self, NamedSection, PeError, named_sections};
use crate::digest::Digest384;
use crate::eventlog::EventType;
use crate::linux;

/// An image whose events are not predicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnifiedError {
    /// It cannot be read, or the kernel in it cannot.
    #[error(transparent)]
    Pe(#[from] PeError),
    /// It has no section that it must have.
    #[error("this is not a unified kernel image that is known: it has no section {0}")]
    Missing(&'static str),
    /// A section is there twice.
    #[error("the unified kernel image has the section {0} twice: profiles are not predicted")]
    Twice(&'static str),
    /// It has a section whose effect was never seen.
    #[error("what the section {0} of a unified kernel image changes is not known: its registers are not predicted")]
    Section(String),
    /// It is shim.
    #[error("this is shim: what it measures of its own certificates and of MokList is not predicted")]
    Shim,
    /// It was made around another stub.
    #[error("what \"{0}\" measures is not known: systemd-stub 257 is")]
    Stub(String),
    /// The stub would change the command line.
    #[error(
        "the command line in the unified kernel image has blanks at an end, or characters that are not printable ASCII"
    )]
    CommandLine,
    /// The kernel's own stub does not measure, or is not known to.
    #[error("what the stub of the kernel in the unified kernel image measures is not known: Linux 6.9 and later is")]
    Kernel,
}

/// How firmware comes to start it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// QEMU's `-kernel`, without `-append`: a command line from there would be taken instead of the image's own.
    Kernel,
    /// `\EFI\BOOT\BOOTX64.EFI` of a disk.
    Disk {
        /// The digest of its partition table ([`crate::uefi::gpt`]).
        table: Digest384,
        /// Whether the kernel leaves firmware at the second attempt only ([`super::profile::DiskBoot`]).
        first_exit_fails: bool,
    },
}

/// Sections that the stub measures, in its order, of those that were seen.
const MEASURED: [&str; 6] = [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"];
/// Parts of the stub itself.
const STUB: [&str; 5] = [".text", ".rodata", ".data", ".sdmagic", ".reloc"];
const KNOWN_STUB: &str = "#### LoaderInfo: systemd-stub 257";

/// Everything that RTMR1 and RTMR2 depend on, by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnifiedImage {
    /// The Authenticode digest of the whole file.
    pub image: Digest384,
    /// The sections that the stub measures, in its order.
    pub sections: Vec<(&'static str, Digest384)>,
    /// The Authenticode digest of the kernel in it.
    pub kernel: Digest384,
    /// What the kernel's own stub measures.
    pub stub: Option<StubInputs>,
}

impl UnifiedImage {
    /// Of an image around a stub that is known, without anything whose effect was never seen.
    pub fn read(image: &[u8]) -> Result<Self, UnifiedError> {
        let sections = named_sections(image)?;
        check(&sections)?;
        let get = |name| sections.iter().find(|section| is(section, name)).map(|section| section.content);
        let need = |name: &'static str| get(name).ok_or(UnifiedError::Missing(name));
        let (kernel, initrd, os_release) = (need(".linux")?, need(".initrd")?, need(".osrel")?);
        let line = command_line(need(".cmdline")?)?;
        if linux::version(kernel).ok().and_then(linux::stub_measures) != Some(true) {
            return Err(UnifiedError::Kernel);
        }
        let load_options: Vec<u8> = line.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let initrd = Digest384::of(&with_extra(initrd, os_release));
        let measured = MEASURED.into_iter().filter_map(|name| Some((name, Digest384::of(get(name)?))));
        Ok(Self {
            image: authenticode::sha384(image)?,
            sections: measured.collect(),
            kernel: authenticode::sha384(kernel)?,
            stub: Some(StubInputs { load_options: Digest384::of(&load_options), initrd: Some(initrd) }),
        })
    }

    /// The events. Where firmware verifies what it starts (`secure_boot`), the stub answers for the kernel in it, and firmware does not
    /// measure that again (systemd `src/boot/linux.c`, `install_security_override`).
    pub fn boot_events(&self, start: Start, secure_boot: bool) -> BootEvents {
        let image = application(Input::UnifiedImage, self.image);
        let mut boot = BootEvents::default();
        match start {
            Start::Kernel => boot.before.push(image),
            Start::Disk { table: digest, .. } => {
                let event_type = EventType::EV_EFI_GPT_EVENT;
                let table = PredictedEvent { register: Pcr(5), event_type, input: Input::PartitionTable, digest };
                boot.after.extend([table, image]);
            }
        }
        let section = |name, digest| PredictedEvent {
            register: Pcr(11),
            event_type: EventType::EV_IPL,
            input: Input::UnifiedSection(name),
            digest,
        };
        for (name, digest) in &self.sections {
            boot.after.push(section(name, Digest384::of_parts(&[name.as_bytes(), &[0]])));
            boot.after.push(section(name, *digest));
        }
        boot.after.extend((!secure_boot).then(|| application(Input::Kernel, self.kernel)));
        let first_exit_fails = matches!(start, Start::Disk { first_exit_fails: true, .. });
        boot.after.extend(kernel_started(self.stub.as_ref(), first_exit_fails));
        boot
    }
}

/// The command line where the stub passes it on as it is.
fn command_line(section: &[u8]) -> Result<&str, UnifiedError> {
    let line = core::str::from_utf8(section).map_err(|_| UnifiedError::CommandLine)?;
    let is_kept = line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && line == line.trim();
    is_kept.then_some(line).ok_or(UnifiedError::CommandLine)
}

fn is(section: &NamedSection<'_>, name: &str) -> bool {
    let (text, padding) = section.name.split_at_checked(name.len()).unwrap_or((&section.name, &[1]));
    text == name.as_bytes() && padding.iter().all(|byte| *byte == 0)
}

/// Refuses images with anything that was not seen.
fn check(sections: &[NamedSection<'_>]) -> Result<(), UnifiedError> {
    // Its component's name in SBAT (shim `SBAT.md`).
    let names_shim = |section: &NamedSection<'_>| {
        section.content.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"shim,"))
    };
    if sections.iter().any(|section| is(section, ".sbat") && names_shim(section)) {
        return Err(UnifiedError::Shim);
    }
    for name in MEASURED {
        if sections.iter().filter(|section| is(section, name)).count() > 1 {
            return Err(UnifiedError::Twice(name));
        }
    }
    let known = |section: &NamedSection<'_>| MEASURED.iter().chain(&STUB).any(|name| is(section, name));
    if let Some(section) = sections.iter().find(|section| !known(section)) {
        return Err(UnifiedError::Section(String::from_utf8_lossy(&section.name).trim_end_matches('\0').into()));
    }
    let magic = sections.iter().find(|section| is(section, ".sdmagic")).ok_or(UnifiedError::Missing(".sdmagic"))?;
    let magic = String::from_utf8_lossy(magic.content);
    let is_known = magic.strip_prefix(KNOWN_STUB).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    if is_known { Ok(()) } else { Err(UnifiedError::Stub(magic.trim_end_matches('\0').into())) }
}

/// The initrd as the stub hands it over: padded, and followed by an archive with what the stub adds, `/.extra/os-release`.
fn with_extra(initrd: &[u8], os_release: &[u8]) -> Vec<u8> {
    const DIRECTORY_MODE: u32 = 0o40_555;
    const FILE_MODE: u32 = 0o100_444;
    let mut out = initrd.to_vec();
    pad(&mut out);
    member(&mut out, (1, DIRECTORY_MODE), ".extra", b"");
    member(&mut out, (2, FILE_MODE), ".extra/os-release", os_release);
    out.extend(format!("070701{0:032}{1:08}{0:048}0000000B{0:08}TRAILER!!!\0", 0, 1).bytes());
    pad(&mut out);
    out
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A member of a cpio archive in the "newc" format (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
fn member(out: &mut Vec<u8>, (inode, mode): (u32, u32), name: &str, content: &[u8]) {
    let (size, name_size) = (content.len(), name.len().saturating_add(1));
    out.extend(format!("070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}", 0, 1).bytes());
    out.extend(format!("{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}", 0).bytes());
    out.extend(name.bytes().chain([0]));
    pad(out);
    out.extend(content);
    pad(out);
}
