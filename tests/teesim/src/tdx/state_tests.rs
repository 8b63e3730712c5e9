//! The order of a TDX launch: each command out of turn fails as `tdx_vm_ioctl` and `tdx_vcpu_ioctl` fail.
//!
//! What needs the host's CPUID (KVM_TDX_CAPABILITIES, KVM_TDX_INIT_VM) needs `/dev/kvm` and is skipped without it.

use nix::errno::Errno;
use zerocopy::FromZeros;

use super::{Environment, Guest};
use crate::abi::{MemoryAttributes, MemoryRegion2, TdxCapabilities, TdxCmd, TdxInitMemRegion, TdxInitVm};
use crate::guest_memory::{ATTRIBUTE_PRIVATE, GuestMemory, MEM_GUEST_MEMFD};
use crate::pages::PageRun;
use crate::vcpu::Vcpu;

#[repr(align(4096))]
struct Source([u8; 8192]);

/// INIT_VM with one CPUID entry.
#[repr(C)]
struct InitVm {
    head: TdxInitVm,
    entry: kvm_bindings::kvm_cpuid_entry2,
}

struct Launch {
    guest: Guest,
    memory: GuestMemory,
    pages: Vec<PageRun>,
}

impl Launch {
    fn new() -> Self {
        let mut memory = GuestMemory::default();
        memory.set_region(&MemoryRegion2 { flags: MEM_GUEST_MEMFD, memory_size: 0x1_0000, ..FromZeros::new_zeroed() });
        let attributes = MemoryAttributes { address: 0, size: 0x8000, attributes: ATTRIBUTE_PRIVATE, flags: 0 };
        memory.set_attributes(&attributes).unwrap();
        Self { guest: Guest::new(), memory, pages: Vec::new() }
    }

    fn vm<T>(&mut self, id: u32, data: &mut T) -> Result<(), Errno> {
        let mut command = TdxCmd { id, flags: 0, data: (&raw mut *data) as u64, hw_error: 0 };
        let argument = (&raw mut command) as u64;
        let mut environment = Environment { memory: &mut self.memory, vcpus: &[], pages: &mut self.pages };
        self.guest.vm_command(argument, &mut environment).map_err(|refusal| refusal.errno)
    }

    fn vcpu(&mut self, id: u32, flags: u32, data: u64) -> Result<(), Errno> {
        let mut command = TdxCmd { id, flags, data, hw_error: 0 };
        let argument = (&raw mut command) as u64;
        let mut environment = Environment { memory: &mut self.memory, vcpus: &[], pages: &mut self.pages };
        // Not a descriptor of anything: its registers are never asked for.
        let vcpu = Vcpu::new(-1, 0);
        self.guest.vcpu_command(&vcpu, argument, &mut environment).map_err(|refusal| refusal.errno)
    }

    fn init_vm(&mut self, attributes: u64, xfam: u64, width: u32) -> Result<(), Errno> {
        self.init_vm_with(attributes, xfam, width << 16)
    }

    /// INIT_VM with this EAX of the leaf with widths of addresses.
    fn init_vm_with(&mut self, attributes: u64, xfam: u64, eax: u32) -> Result<(), Errno> {
        let mut init = InitVm {
            head: TdxInitVm { attributes, xfam, nent: 1, mrconfigid: [9; 48], ..FromZeros::new_zeroed() },
            entry: kvm_bindings::kvm_cpuid_entry2 { function: 0x8000_0008, eax, ..Default::default() },
        };
        self.vm(1, &mut init)
    }
}

#[allow(clippy::print_stderr, reason = "says that a test was skipped")]
fn has_kvm() -> bool {
    let there = std::fs::File::open("/dev/kvm").is_ok();
    if !there {
        eprintln!("skipped: /dev/kvm cannot be opened");
    }
    there
}

#[test]
fn vcpu_commands_need_an_initialised_td() {
    let mut launch = Launch::new();
    assert_eq!(launch.guest.may_create_vcpu().unwrap_err().errno, Errno::EIO);
    for command in [2, 3, 5] {
        assert_eq!(launch.vcpu(command, 0, 0), Err(Errno::EINVAL));
    }
    assert_eq!(launch.vm(4, &mut 0_u64), Err(Errno::EINVAL));
    assert_eq!(launch.vm(9, &mut 0_u64), Err(Errno::EINVAL));
}

#[test]
fn capabilities_ask_for_room_before_they_are_given() {
    if !has_kvm() {
        return;
    }
    #[repr(C)]
    struct Room {
        head: TdxCapabilities,
        entries: [kvm_bindings::kvm_cpuid_entry2; 256],
    }
    let mut launch = Launch::new();
    let mut room = Room { head: FromZeros::new_zeroed(), entries: [Default::default(); 256] };
    room.head.nent = 1;
    assert_eq!(launch.vm(0, &mut room), Err(Errno::E2BIG));
    assert_eq!((room.head.nent, room.head.supported_attrs), (1, 0), "nothing is written");
    room.head.nent = 256;
    launch.vm(0, &mut room).unwrap();
    assert!(room.head.nent > 1 && room.head.nent < 256);
    assert_eq!(room.head.supported_attrs, 1 << 28);
    assert_eq!(room.head.supported_xfam & 3, 3);
}

#[test]
fn init_vm_refuses_what_kvm_does_not_support() {
    if !has_kvm() {
        return;
    }
    let mut launch = Launch::new();
    assert_eq!(launch.init_vm(1, 3, 48), Err(Errno::EINVAL), "DEBUG");
    assert_eq!(launch.init_vm(1 << 28, 1 << 63, 48), Err(Errno::EINVAL), "XFAM");
    for width in [0, 46] {
        assert_eq!(launch.init_vm(1 << 28, 3, width), Err(Errno::EINVAL), "width");
    }
    let mut narrow = Launch::new();
    narrow.init_vm_with(1 << 28, 3, 46 << 16 | 46).unwrap();
    assert_eq!(narrow.guest.facts().gpaw, 48, "all that a processor has which is none of a server's");
    launch.init_vm(1 << 28, 3, 52).unwrap();
    assert_eq!((launch.guest.facts().gpaw, launch.guest.facts().mrconfigid), (52, [9; 48]));
    assert_eq!(launch.init_vm(1 << 28, 3, 52), Err(Errno::EINVAL), "twice");
}

#[test]
fn memory_regions_are_measured_only_where_they_are_marked() {
    if !has_kvm() {
        return;
    }
    let source = Source([3; 8192]);
    let address = (&raw const source.0) as u64;
    let mut launch = Launch::new();
    launch.init_vm(1 << 28, 3, 48).unwrap();
    let mut region = TdxInitMemRegion { source_addr: address, gpa: 0x2000, nr_pages: 2 };
    let data = (&raw mut region) as u64;
    assert_eq!(launch.vcpu(3, 1, data), Err(Errno::EINVAL), "the vCPU is not initialised");
    launch.vcpu(2, 0, 0x80_9000).unwrap();
    assert_eq!(launch.vcpu(2, 0, 0), Err(Errno::EINVAL), "twice");
    assert_eq!(launch.vcpu(3, 2, data), Err(Errno::EINVAL), "flags");
    launch.vcpu(3, 1, data).unwrap();
    assert_eq!((region.source_addr - address, region.gpa, region.nr_pages), (8192, 0x4000, 0));

    for (gpa, errno) in [(0x2000, Errno::EEXIST), (0x8000, Errno::EINVAL), (1 << 47, Errno::EINVAL), (8, Errno::EINVAL)]
    {
        let mut region = TdxInitMemRegion { source_addr: address, gpa, nr_pages: 1 };
        assert_eq!(launch.vcpu(3, 0, (&raw mut region) as u64), Err(errno), "{gpa:#x}");
    }
    let mut plain = TdxInitMemRegion { source_addr: address, gpa: 0x5000, nr_pages: 1 };
    launch.vcpu(3, 0, (&raw mut plain) as u64).unwrap();
    launch.vm(4, &mut 0_u64).unwrap();
    assert!(launch.guest.is_finished());
    assert_eq!(launch.vcpu(5, 0, 0), Err(Errno::EINVAL), "after FINALIZE_VM");
    let measured: Vec<_> = launch.pages.iter().map(|run| (run.gpa, run.len, run.measured)).collect();
    assert_eq!(measured, [(0x2000, 8192, true), (0x5000, 4096, false)]);
}
