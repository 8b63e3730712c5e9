//! What system calls say about a host: the part of the facts that no file holds.
//!
//! The answers are data with a JSON form, so that those of a known host can be kept beside its files and asked again in a
//! test. Asking changes nothing: VMs are created and thrown away, devices are opened and closed, a port is bound and let go.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, bind, socket};
use serde::{Deserialize, Serialize};

use super::kvm::{KvmAnswers, TdxCapabilities};
use super::sev::PlatformStatus;

/// Devices that a launch may open. Whether one can be is asked by opening it.
pub const DEVICES: [&str; 7] =
    ["/dev/kvm", "/dev/sev", "/dev/iommu", "/dev/vfio/vfio", "/dev/vhost-vsock", "/dev/vhost-net", "/dev/net/tun"];
/// Where Intel's quote generation service listens (tdx-qgs package; Kata Containers 2b38d9f45e).
pub const QGS_SOCKET: &str = "/var/run/tdx-qgs/qgs.socket";
/// The vsock port it listens on where it is not set up for the socket above.
pub const QGS_PORT: u32 = 4050;
/// Where TDX guests get their quotes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteService {
    /// From `QGS_SOCKET`.
    Unix,
    /// From `QGS_PORT`.
    Vsock,
}

impl QuoteService {
    /// The service of a host: the socket first, which newer releases of the service listen on alone.
    pub fn of(facts: &super::HostFacts) -> Option<Self> {
        match (facts.answers.qgs_socket, facts.answers.qgs_vsock) {
            (true, _) => Some(Self::Unix),
            (false, true) => Some(Self::Vsock),
            (false, false) => None,
        }
    }
}

/// CPUID leaves that are asked, with their subleaf (AMD APM volume 3 appendix E, Intel SDM volume 2A CPUID).
const LEAVES: [u32; 7] = [0, 1, 0x8000_0000, 0x8000_0001, 0x8000_0008, 0x8000_001f, 0x4000_0000];
/// SYSCFG, RMP_BASE and RMP_END (AMD APM volume 2, sections 15.34 and 15.36).
const MSRS: [u32; 3] = [0xc001_0010, 0xc001_0132, 0xc001_0133];

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answers {
    /// KVM.
    pub kvm: KvmAnswers,
    /// KVM_TDX_CAPABILITIES of a throw-away TDX VM.
    pub tdx: Option<TdxCapabilities>,
    /// The AMD secure processor, where `/dev/sev` answers.
    pub sev: Option<PlatformStatus>,
    /// Why it does not.
    pub sev_error: Option<String>,
    /// CPUID: the leaf in hex, and EAX, EBX, ECX, EDX.
    pub cpuid: BTreeMap<String, [u32; 4]>,
    /// Model-specific registers of the first CPU: the number in hex, and the value. Root and the module `msr` only.
    pub msr: BTreeMap<String, u64>,
    /// The devices of `DEVICES`: none where it can be opened, else why not.
    pub devices: BTreeMap<String, Option<String>>,
    /// RLIMIT_MEMLOCK in bytes; none where there is no limit.
    pub memlock_bytes: Option<u64>,
    /// Whether something answers at `QGS_SOCKET`.
    pub qgs_socket: bool,
    /// Who may connect to it.
    pub qgs_access: Option<Access>,
    /// Whether something listens on vsock port `QGS_PORT`.
    pub qgs_vsock: bool,
    /// Whether the kernel's clock is kept by a time service (adjtimex(2), STA_UNSYNC is not set); none if it was not asked.
    pub clock_synchronised: Option<bool>,
}

/// Who may use a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The permission bits.
    pub mode: u32,
    /// The number of its group.
    pub group: u32,
}

impl Access {
    fn of(path: &str) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { mode: found.mode() & 0o777, group: found.gid() })
    }

    /// Whether everybody may write to it, which is what connecting to a socket needs (unix(7)).
    pub(crate) fn lets_everybody_write(self) -> bool {
        self.mode & 0o002 != 0
    }

    /// The group whose members may; never root's.
    pub(crate) fn writing_group(self) -> Option<u32> {
        (self.mode & 0o020 != 0 && self.group != 0).then_some(self.group)
    }
}

impl Answers {
    /// Asks.
    pub fn ask() -> Self {
        let (kvm, tdx) = KvmAnswers::ask();
        let (sev, sev_error) = match super::sev::status() {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            kvm,
            tdx,
            sev,
            sev_error,
            cpuid: LEAVES.iter().filter_map(|leaf| Some((format!("{leaf:#x}"), cpuid(*leaf)?))).collect(),
            msr: registers(),
            devices: DEVICES.iter().map(|path| ((*path).to_owned(), cannot_open(path))).collect(),
            memlock_bytes: getrlimit(Resource::RLIMIT_MEMLOCK)
                .ok()
                .map(|(soft, _)| soft)
                .filter(|soft| *soft != RLIM_INFINITY),
            qgs_socket: UnixStream::connect(QGS_SOCKET).is_ok(),
            qgs_access: Access::of(QGS_SOCKET),
            qgs_vsock: vsock_port_is_taken(QGS_PORT),
            clock_synchronised: super::clock::clock_is_kept(),
        }
    }

    /// Whether the device can be opened; the error says why not.
    pub fn opens(&self, device: &str) -> Result<(), String> {
        match self.devices.get(device) {
            Some(None) => Ok(()),
            Some(Some(reason)) => Err(reason.clone()),
            None => Err(format!("{device} was not looked at")),
        }
    }
}

/// One leaf of CPUID, where the CPU has it.
fn cpuid(leaf: u32) -> Option<[u32; 4]> {
    use core::arch::x86_64::__cpuid;
    // A hypervisor's leaves are there only where bit 31 of leaf 1 ECX says so; the highest is in EAX of their first.
    let has_hypervisor = __cpuid(1).ecx >> 31 == 1;
    let highest = match leaf & 0xf000_0000 {
        0x4000_0000 if !has_hypervisor => return None,
        base => __cpuid(base).eax,
    };
    (leaf <= highest).then(|| __cpuid(leaf)).map(|found| [found.eax, found.ebx, found.ecx, found.edx])
}

fn registers() -> BTreeMap<String, u64> {
    let Ok(file) = OpenOptions::new().read(true).open("/dev/cpu/0/msr") else { return BTreeMap::new() };
    let read = |number: u32| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, number.into()).ok()?;
        Some((format!("{number:#x}"), u64::from_le_bytes(bytes)))
    };
    MSRS.into_iter().filter_map(read).collect()
}

/// Why the device cannot be opened for reading and writing; none where it can.
fn cannot_open(path: &str) -> Option<String> {
    let error = OpenOptions::new().read(true).write(true).open(path).err()?;
    Some(match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => format!("there is no {path}"),
        Some(Errno::EACCES | Errno::EPERM) => format!("no permission to open {path}"),
        _ => format!("{path} cannot be opened: {error}"),
    })
}

/// A port that cannot be bound is somebody's.
fn vsock_port_is_taken(port: u32) -> bool {
    let Ok(fd) = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None) else { return false };
    bind(fd.as_raw_fd(), &VsockAddr::new(nix::libc::VMADDR_CID_ANY, port)) == Err(Errno::EADDRINUSE)
}
