//! Which ioctl is answered by the simulator, and which goes on to the real KVM.
//!
//! Everything that is known lies in one table behind one lock. `None` always means: not ours, call the C library. Only VMs
//! of a TEE's type are known here; a plain VM of the same process goes past untouched.

use std::collections::BTreeMap;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvm_bindings::kvm_cpuid_entry2;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::unistd::ftruncate;

use crate::abi::*;
use crate::guest_memory::{MEM_GUEST_MEMFD, PAGE_SIZE};
use crate::machine::{Launch, Machine, Run};
use crate::snp::platform;
use crate::{real, snp, tdx, user_memory};

type Answer = Option<Result<i32, Errno>>;

/// The simulated VMs and the descriptors that belong to them.
struct Registry {
    machines: BTreeMap<RawFd, Machine>,
    /// vCPU descriptors, and the VM of each.
    vcpus: BTreeMap<RawFd, RawFd>,
    /// Descriptors that stand for a guest_memfd, and their sizes.
    guest_memfds: BTreeMap<RawFd, u64>,
    /// Inodes that stand for `/dev/sev`.
    sev_devices: Vec<(u64, u64)>,
    launches: u32,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    machines: BTreeMap::new(),
    vcpus: BTreeMap::new(),
    guest_memfds: BTreeMap::new(),
    sev_devices: Vec::new(),
    launches: 0,
});

fn registry() -> MutexGuard<'static, Registry> {
    // A panic is turned into EIO at the border; the table is still the best knowledge there is.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a request can be ours; the others never reach the lock.
pub(crate) fn is_of_interest(request: u32) -> bool {
    matches!(
        request,
        SEV_ISSUE_CMD
            | KVM_CREATE_VM
            | KVM_CHECK_EXTENSION
            | KVM_GET_SUPPORTED_CPUID
            | KVM_CREATE_VCPU
            | KVM_SET_USER_MEMORY_REGION2
            | KVM_RUN
            | KVM_ENABLE_CAP
            | KVM_MEMORY_ENCRYPT_OP
            | KVM_MEMORY_ENCRYPT_REG_REGION
            | KVM_MEMORY_ENCRYPT_UNREG_REGION
            | KVM_SET_MEMORY_ATTRIBUTES
            | KVM_CREATE_GUEST_MEMFD
            | KVM_GET_DEVICE_ATTR
            | KVM_HAS_DEVICE_ATTR
    )
}

/// The answer to an ioctl, where it is ours.
pub(crate) fn ioctl(fd: RawFd, request: u32, argument: u64) -> Answer {
    match request {
        SEV_ISSUE_CMD => registry().is_sev_device(fd).then(|| platform::issue(argument)),
        KVM_CREATE_VM => create_vm(fd, argument),
        KVM_CHECK_EXTENSION => check_extension(fd, argument),
        KVM_GET_SUPPORTED_CPUID => supported_cpuid(fd, argument),
        KVM_GET_DEVICE_ATTR | KVM_HAS_DEVICE_ATTR => device_attribute(fd, request, argument),
        KVM_RUN => run(fd),
        _ => registry().vm_or_vcpu_ioctl(fd, request, argument),
    }
}

/// `open("/dev/sev")`: an empty file that is recognised by its inode.
pub(crate) fn open_sev() -> Result<i32, Errno> {
    let device = memfd_create(c"teesim-sev", MFdFlags::MFD_CLOEXEC)?;
    let stat = fstat(&device)?;
    registry().sev_devices.push((stat.st_dev, stat.st_ino));
    Ok(device.into_raw_fd())
}

impl Registry {
    fn is_sev_device(&self, fd: RawFd) -> bool {
        real::stat(fd).is_ok_and(|stat| self.sev_devices.contains(&(stat.st_dev, stat.st_ino)))
    }

    /// A descriptor that KVM has just returned cannot be what it stood for before.
    fn forget(&mut self, fd: RawFd) {
        self.machines.remove(&fd);
        self.vcpus.remove(&fd);
        self.guest_memfds.remove(&fd);
    }

    fn vm_or_vcpu_ioctl(&mut self, fd: RawFd, request: u32, argument: u64) -> Answer {
        if let Some(vm) = self.vcpus.get(&fd).copied() {
            return match request {
                KVM_MEMORY_ENCRYPT_OP => self.machines.get_mut(&vm).map(|machine| machine.vcpu_command(fd, argument)),
                _ => None,
            };
        }
        if !self.machines.contains_key(&fd) {
            return None;
        }
        Some(match request {
            KVM_CREATE_VCPU => self.create_vcpu(fd, argument),
            KVM_SET_USER_MEMORY_REGION2 => self.set_memory_region(fd, argument),
            KVM_CREATE_GUEST_MEMFD => self.create_guest_memfd(argument),
            KVM_ENABLE_CAP => enable_capability(fd, argument),
            KVM_SET_MEMORY_ATTRIBUTES => user_memory::read(argument)
                .and_then(|attributes| self.machine(fd)?.memory.set_attributes(&attributes))
                .map(|()| 0),
            KVM_MEMORY_ENCRYPT_OP => self.vm_command(fd, argument),
            // Pinning is for guests whose private memory is QEMU's own; here it is a guest_memfd.
            KVM_MEMORY_ENCRYPT_REG_REGION | KVM_MEMORY_ENCRYPT_UNREG_REGION => Ok(0),
            _ => return None,
        })
    }

    fn machine(&mut self, vm: RawFd) -> Result<&mut Machine, Errno> {
        self.machines.get_mut(&vm).ok_or(Errno::EBADF)
    }

    fn vm_command(&mut self, vm: RawFd, argument: u64) -> Result<i32, Errno> {
        let devices = std::mem::take(&mut self.sev_devices);
        let is_sev_device = |fd: i32| real::stat(fd).is_ok_and(|stat| devices.contains(&(stat.st_dev, stat.st_ino)));
        let answer = self.machine(vm).and_then(|machine| machine.vm_command(argument, &is_sev_device));
        self.sev_devices = devices;
        answer
    }

    fn create_vcpu(&mut self, vm: RawFd, id: u64) -> Result<i32, Errno> {
        let fd = self.machine(vm)?.create_vcpu(id, || real::ioctl_number(vm, KVM_CREATE_VCPU, id))?;
        self.guest_memfds.remove(&fd);
        self.vcpus.insert(fd, vm);
        Ok(fd)
    }

    /// A slot with a guest_memfd becomes a plain one for the real KVM, which the launch never runs on.
    fn set_memory_region(&mut self, vm: RawFd, argument: u64) -> Result<i32, Errno> {
        let region: MemoryRegion2 = user_memory::read(argument)?;
        let size = RawFd::try_from(region.guest_memfd).ok().and_then(|fd| self.guest_memfds.get(&fd)).copied();
        let machine = self.machine(vm)?;
        machine.memory.check_region(&region, size)?;
        let plain = MemoryRegion {
            slot: region.slot,
            flags: region.flags & !MEM_GUEST_MEMFD,
            guest_phys_addr: region.guest_phys_addr,
            memory_size: region.memory_size,
            userspace_addr: region.userspace_addr,
        };
        let answer = real::set_memory_region(vm, &plain)?;
        machine.memory.set_region(&region);
        Ok(answer)
    }

    fn create_guest_memfd(&mut self, argument: u64) -> Result<i32, Errno> {
        let request: CreateGuestMemfd = user_memory::read(argument)?;
        let size = i64::try_from(request.size).map_err(|_| Errno::EINVAL)?;
        if request.flags != 0 || size == 0 || !request.size.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let file = memfd_create(c"teesim-guest-memfd", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, size)?;
        let fd = file.into_raw_fd();
        self.forget(fd);
        self.guest_memfds.insert(fd, request.size);
        Ok(fd)
    }
}

/// KVM_CREATE_VM: for a TEE's type, the real VM is a plain one.
fn create_vm(fd: RawFd, vm_type: u64) -> Answer {
    const SNP_VM: u64 = 4;
    const TDX_VM: u64 = 5;
    let launch = match vm_type {
        SNP_VM => Launch::Snp(snp::Guest::new()),
        TDX_VM => Launch::Tdx(tdx::Guest::new()),
        _ => return None,
    };
    if !is_system_descriptor(fd) {
        return None;
    }
    let mut registry = registry();
    // After a guest reset the old VM is closed; keeping its run pages would keep it alive.
    registry.machines.retain(|vm, _| is_open_vm(*vm));
    let Registry { machines, vcpus, .. } = &mut *registry;
    vcpus.retain(|_, vm| machines.contains_key(vm));
    Some(real::ioctl_number(fd, KVM_CREATE_VM, 0).inspect(|&vm| {
        registry.forget(vm);
        registry.launches += 1;
        let number = registry.launches;
        registry.machines.insert(vm, Machine::new(launch, number));
    }))
}

/// KVM_CHECK_EXTENSION on the system descriptor or on a simulated VM.
fn check_extension(fd: RawFd, capability: u64) -> Answer {
    const READONLY_MEM: u64 = 81;
    const X86_SMM: u64 = 117;
    const EXIT_HYPERCALL: u64 = 201;
    const USER_MEMORY2: u64 = 231;
    const MEMORY_FAULT_INFO: u64 = 232;
    const MEMORY_ATTRIBUTES: u64 = 233;
    const GUEST_MEMFD: u64 = 234;
    const VM_TYPES: u64 = 235;
    const APIC_BUS_CYCLES_NS: u64 = 237;
    const GUEST_MEMFD_FLAGS: u64 = 244;
    const SNP_AND_TDX: i32 = 1 << 4 | 1 << 5;
    const MAP_GPA_RANGE: i32 = 1 << 12;
    const PRIVATE: i32 = 1 << 3;

    let known = [USER_MEMORY2, MEMORY_FAULT_INFO, MEMORY_ATTRIBUTES, GUEST_MEMFD, APIC_BUS_CYCLES_NS];
    let only_vm = [READONLY_MEM, X86_SMM, GUEST_MEMFD_FLAGS].contains(&capability);
    if !only_vm && !known.contains(&capability) && ![EXIT_HYPERCALL, VM_TYPES].contains(&capability) {
        return None;
    }
    let is_vm = registry().machines.contains_key(&fd);
    if !is_vm && (only_vm || !is_system_descriptor(fd)) {
        return None;
    }
    Some(real::ioctl_number(fd, KVM_CHECK_EXTENSION, capability).map(|real| match capability {
        VM_TYPES => real | SNP_AND_TDX,
        EXIT_HYPERCALL => real | MAP_GPA_RANGE,
        MEMORY_ATTRIBUTES => real | PRIVATE,
        // A guest with protected state has neither read-only memory nor SMM; its guest_memfd has no flags.
        READONLY_MEM | X86_SMM | GUEST_MEMFD_FLAGS => 0,
        _ => real.max(1),
    }))
}

/// KVM_GET_SUPPORTED_CPUID: a host that has TDX has two-dimensional paging, and says so by a width of guest-physical addresses.
fn supported_cpuid(fd: RawFd, argument: u64) -> Answer {
    if !registry().machines.values().any(Machine::is_tdx) || !is_system_descriptor(fd) {
        return None;
    }
    Some(real::forward(fd, KVM_GET_SUPPORTED_CPUID, argument).and_then(|answer| {
        let table: CpuidHeader = user_memory::read(argument)?;
        let first = argument + size_of::<CpuidHeader>() as u64;
        let entries: Vec<kvm_cpuid_entry2> = user_memory::read_many(first, table.nent)?;
        for (mut entry, place) in entries.into_iter().zip((first..).step_by(size_of::<kvm_cpuid_entry2>())) {
            if tdx::announce_address_width(&mut entry) {
                user_memory::write(place, &entry)?;
            }
        }
        Ok(answer)
    }))
}

/// KVM_ENABLE_CAP: what the real KVM may lack and a launch that never runs does not need is accepted.
fn enable_capability(vm: RawFd, argument: u64) -> Result<i32, Errno> {
    const EXIT_HYPERCALL: u32 = 201;
    const APIC_BUS_CYCLES_NS: u32 = 237;
    let capability: u32 = user_memory::read(argument)?;
    match real::forward(vm, KVM_ENABLE_CAP, argument) {
        Err(Errno::EINVAL) if matches!(capability, EXIT_HYPERCALL | APIC_BUS_CYCLES_NS) => Ok(0),
        answer => answer,
    }
}

/// KVM_GET_DEVICE_ATTR and KVM_HAS_DEVICE_ATTR for the group KVM_X86_GRP_SEV of the system descriptor.
fn device_attribute(fd: RawFd, request: u32, argument: u64) -> Answer {
    const GROUP_SEV: u32 = 1;
    if !is_system_descriptor(fd) {
        return None;
    }
    let attribute: DeviceAttr = match user_memory::read(argument) {
        Ok(attribute) => attribute,
        Err(errno) => return Some(Err(errno)),
    };
    if attribute.group != GROUP_SEV {
        return None;
    }
    Some(platform::attribute(attribute.attr).and_then(|value| match request {
        KVM_GET_DEVICE_ATTR => user_memory::write(attribute.addr, &value).map(|()| 0),
        _ => Ok(0),
    }))
}

/// How long a guest waits before it looks again for what it asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// KVM_RUN: a launched guest stays in guest mode until QEMU wants it out, or leaves it as firmware does; one that is not
/// launched cannot run.
fn run(fd: RawFd) -> Answer {
    let page = {
        let mut registry = registry();
        let vm = registry.vcpus.get(&fd).copied()?;
        let machine = registry.machines.get_mut(&vm)?;
        if !machine.is_finished() {
            return Some(Err(Errno::EINVAL));
        }
        let Some(page) = machine.vcpu(fd)?.run_page() else { return Some(Err(Errno::EIO)) };
        if page.immediate_exit() {
            return Some(Err(Errno::EINTR));
        }
        match machine.run(fd) {
            Ok(Run::Stay) => page,
            Ok(Run::Exit(output)) => {
                page.output(output.port, output.value);
                return Some(Ok(0));
            }
            Ok(Run::GetQuote(gpa, size)) => {
                page.get_quote(gpa, size);
                return Some(Ok(0));
            }
            Ok(Run::Again) => {
                drop(registry);
                std::thread::sleep(LOOK_AGAIN);
                return Some(Err(Errno::EINTR));
            }
            Err(errno) => return Some(Err(errno)),
        }
    };
    Some(Err(page.wait()))
}

/// Whether a descriptor is `/dev/kvm`, by whatever name it was opened: misc device 232 (`KVM_MINOR`).
fn is_system_descriptor(fd: RawFd) -> bool {
    const MISC_MAJOR: u64 = 10;
    const KVM_MINOR: u64 = 232;
    real::stat(fd).is_ok_and(|stat| {
        let is_device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
        is_device && (major(stat.st_rdev), minor(stat.st_rdev)) == (MISC_MAJOR, KVM_MINOR)
    })
}

fn is_open_vm(fd: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|target| target.as_os_str() == "anon_inode:kvm-vm")
}
