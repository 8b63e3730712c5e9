//! The order of an SNP launch: each command out of turn fails as `sev_mem_enc_ioctl` fails, and the launch itself goes through.

use nix::errno::Errno;
use zerocopy::{FromZeros, IntoBytes};

use super::{Environment, Guest, status};
use crate::abi::{MemoryAttributes, MemoryRegion2, SevCmd, SevInit, SnpLaunchFinish, SnpLaunchStart, SnpLaunchUpdate};
use crate::guest_memory::{ATTRIBUTE_PRIVATE, GuestMemory, MEM_GUEST_MEMFD};
use crate::pages::PageRun;

/// A page that a launch can take.
#[repr(align(4096))]
struct Source([u8; 8192]);

/// A guest without vCPUs, whose slot has pages 0 to 15, and of these 0 to 7 private.
struct Launch {
    guest: Guest,
    memory: GuestMemory,
    pages: Vec<PageRun>,
    last_status: u32,
}

const SEV_FD: i32 = 7;

impl Launch {
    fn new() -> Self {
        let mut memory = GuestMemory::default();
        memory.set_region(&MemoryRegion2 { flags: MEM_GUEST_MEMFD, memory_size: 0x1_0000, ..FromZeros::new_zeroed() });
        let attributes = MemoryAttributes { address: 0, size: 0x8000, attributes: ATTRIBUTE_PRIVATE, flags: 0 };
        memory.set_attributes(&attributes).unwrap();
        Self { guest: Guest::new(), memory, pages: Vec::new(), last_status: 0 }
    }

    fn issue<T: IntoBytes>(&mut self, id: u32, data: &mut T) -> Result<(), Errno> {
        let data = data.as_mut_bytes_address();
        let mut command = SevCmd { id, pad0: 0, data, error: 99, sev_fd: SEV_FD };
        let argument = (&raw mut command) as u64;
        let is_sev_device = |fd| fd == SEV_FD;
        let mut environment =
            Environment { memory: &mut self.memory, vcpus: &[], pages: &mut self.pages, is_sev_device: &is_sev_device };
        let outcome = self.guest.command(argument, &mut environment).map_err(|refusal| refusal.errno);
        self.last_status = command.error;
        outcome
    }

    fn init2(&mut self, vmsa_features: u64) -> Result<(), Errno> {
        self.issue(22, &mut SevInit { vmsa_features, ..FromZeros::new_zeroed() })
    }

    fn start(&mut self, policy: u64) -> Result<(), Errno> {
        self.issue(100, &mut SnpLaunchStart { policy, ..FromZeros::new_zeroed() })
    }

    fn update(&mut self, update: &mut SnpLaunchUpdate) -> Result<(), Errno> {
        self.issue(101, update)
    }

    fn finish(&mut self) -> Result<(), Errno> {
        self.issue(102, &mut SnpLaunchFinish { host_data: [5; 32], ..FromZeros::new_zeroed() })
    }
}

trait Address {
    fn as_mut_bytes_address(&mut self) -> u64;
}

impl<T> Address for T {
    fn as_mut_bytes_address(&mut self) -> u64 {
        (&raw mut *self) as u64
    }
}

fn run(gfn_start: u64, source: &Source, len: u64, page_type: u8) -> SnpLaunchUpdate {
    let uaddr = (&raw const source.0) as u64;
    SnpLaunchUpdate { gfn_start, uaddr, len, page_type, ..FromZeros::new_zeroed() }
}

#[test]
fn commands_out_of_order_fail_as_in_the_kernel() {
    let source = Source([0; 8192]);
    let mut launch = Launch::new();
    assert_eq!(launch.start(0x3_0000), Err(Errno::ENOTTY));
    assert_eq!(launch.update(&mut run(0, &source, 4096, 1)), Err(Errno::EINVAL));
    assert_eq!(launch.finish(), Err(Errno::ENOTTY));
    launch.init2(0).unwrap();
    assert_eq!(launch.init2(0), Err(Errno::EPERM));
    assert_eq!(launch.update(&mut run(0, &source, 4096, 1)), Err(Errno::EINVAL));
    assert_eq!(launch.finish(), Err(Errno::EINVAL));
    launch.start(0x3_0000).unwrap();
    assert_eq!(launch.start(0x3_0000), Err(Errno::EINVAL));
    assert_eq!(launch.issue(7, &mut 0_u64), Err(Errno::EPERM), "a command of SEV");
    launch.finish().unwrap();
    assert!(launch.guest.is_finished());
    assert_eq!(launch.update(&mut run(0, &source, 4096, 1)), Err(Errno::EIO));
    assert_eq!(u64::from(launch.last_status), status::INVALID_GUEST_STATE);
    assert_eq!(launch.finish(), Err(Errno::EIO));
}

#[test]
fn init2_and_start_refuse_what_the_kernel_and_the_firmware_refuse() {
    let mut launch = Launch::new();
    assert_eq!(launch.init2(1), Err(Errno::EINVAL), "SNPActive is the kernel's to set");
    launch.init2(1 << 5).unwrap();
    assert_eq!(launch.guest.facts().sev_features, 0x21);
    for policy in [0x1_0000, 0x7_0000, 1 << 40 | 0x3_0000] {
        assert_eq!(launch.start(policy), Err(Errno::EINVAL), "{policy:#x}");
    }
    for policy in [0x2_0000, 0x3_ff00] {
        assert_eq!(launch.start(policy), Err(Errno::EIO), "{policy:#x}");
        assert_eq!(u64::from(launch.last_status), status::POLICY_FAILURE);
    }
    assert_eq!(launch.start(0xb_0000), Ok(()), "DEBUG is a policy like another");
    assert_eq!(launch.last_status, 0);
}

#[test]
fn an_update_advances_as_far_as_it_came() {
    let source = Source([1; 8192]);
    let mut launch = Launch::new();
    launch.init2(0).unwrap();
    launch.start(0x3_0000).unwrap();
    let mut two = run(6, &source, 8192, 1);
    launch.update(&mut two).unwrap();
    assert_eq!((two.gfn_start, two.len, two.uaddr - (&raw const source.0) as u64), (8, 0, 8192));
    let mut zero = run(0, &source, 8192, 3);
    let uaddr = zero.uaddr;
    launch.update(&mut zero).unwrap();
    assert_eq!((zero.gfn_start, zero.len, zero.uaddr), (2, 0, uaddr), "a zero page takes no content");
    let mut partly = run(5, &source, 8192, 1);
    launch.update(&mut partly).unwrap();
    assert_eq!((partly.gfn_start, partly.len), (6, 4096), "page 6 has content already");
    assert_eq!(launch.update(&mut partly), Err(Errno::EIO));
    assert_eq!(launch.update(&mut run(8, &source, 4096, 1)), Err(Errno::EIO), "shared");
    assert_eq!(launch.update(&mut run(16, &source, 4096, 1)), Err(Errno::EINVAL), "no slot");
    assert_eq!(launch.pages.iter().map(|run| run.len).sum::<u64>(), 5 * 4096);
}

#[test]
fn an_update_refuses_lengths_types_and_addresses() {
    let source = Source([0; 8192]);
    let mut launch = Launch::new();
    launch.init2(0).unwrap();
    launch.start(0x3_0000).unwrap();
    for (len, page_type) in [(0, 1), (4095, 1), (4096, 0), (4096, 2), (4096, 7)] {
        assert_eq!(launch.update(&mut run(0, &source, len, page_type)), Err(Errno::EINVAL), "{len} {page_type}");
    }
    let mut unaligned = run(0, &source, 4096, 1);
    unaligned.uaddr += 8;
    assert_eq!(launch.update(&mut unaligned), Err(Errno::EINVAL));
    let mut nowhere = run(0, &source, 4096, 1);
    nowhere.uaddr = 4096;
    assert_eq!(launch.update(&mut nowhere), Err(Errno::EIO));
    let before = launch.guest.facts().launch_digest;
    let mut full = Source([0xff; 8192]);
    full.0[..4].copy_from_slice(&65_u32.to_le_bytes());
    assert_eq!(launch.update(&mut run(0, &full, 4096, 6)), Err(Errno::EIO));
    assert_eq!(u64::from(launch.last_status), status::INVALID_PARAM);
    assert_eq!(launch.guest.facts().launch_digest, before);
    assert!(launch.pages.is_empty());
}
