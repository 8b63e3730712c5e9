//! The state machine of one TD: `tdx_vm_ioctl`, `tdx_vcpu_ioctl` and the commands they know.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use kvm_bindings::kvm_cpuid_entry2;
use nix::errno::Errno;

use super::capabilities::{ADDRESS_SIZES_LEAF, Capabilities, SUPPORTED_ATTRIBUTES, give_cpuid};
use super::facts::{Facts, VcpuFacts};
use super::mrtd::Mrtd;
use crate::abi::{TdxCmd, TdxInitMemRegion, TdxInitVm};
use crate::guest_memory::{GuestMemory, PAGE_SIZE};
use crate::pages::{PageRun, read_run};
use crate::refusal::Refusal;
use crate::user_memory;
use crate::vcpu::Vcpu;

const CAPABILITIES: u32 = 0;
const INIT_VM: u32 = 1;
const INIT_VCPU: u32 = 2;
const INIT_MEM_REGION: u32 = 3;
const FINALIZE_VM: u32 = 4;
const GET_CPUID: u32 = 5;

/// `KVM_TDX_MEASURE_MEMORY_REGION`.
const MEASURE: u32 = 1;
/// `KVM_MAX_CPUID_ENTRIES`.
const MAX_CPUID_ENTRIES: u32 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Uninitialised,
    Initialised,
    Runnable,
}

/// One TD.
#[derive(Debug)]
pub(crate) struct Guest {
    state: State,
    mrtd: Mrtd,
    /// What the TD's own CPUID gives: what the host has, overridden by what INIT_VM configured.
    cpuid: Vec<kvm_cpuid_entry2>,
    initialised: BTreeMap<RawFd, u64>,
    facts: Facts,
}

/// What of the VM a command may look at.
pub(crate) struct Environment<'a> {
    pub(crate) memory: &'a mut GuestMemory,
    pub(crate) vcpus: &'a [Vcpu],
    pub(crate) pages: &'a mut Vec<PageRun>,
}

impl Guest {
    /// The TD of a VM that has just been created.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Uninitialised,
            mrtd: Mrtd::new(),
            cpuid: Vec::new(),
            initialised: BTreeMap::new(),
            facts: Facts::default(),
        }
    }

    /// What the report says.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the launch is complete.
    pub(crate) fn is_finished(&self) -> bool {
        self.state == State::Runnable
    }

    /// `tdx_vcpu_create`: a vCPU needs an initialised TD.
    pub(crate) fn may_create_vcpu(&self) -> Result<(), Refusal> {
        match self.state {
            State::Initialised => Ok(()),
            _ => Err(Refusal::new(Errno::EIO, "KVM_CREATE_VCPU: the TD is not in the initialised state")),
        }
    }

    /// KVM_MEMORY_ENCRYPT_OP on the VM.
    pub(crate) fn vm_command(&mut self, argument: u64, environment: &mut Environment<'_>) -> Result<(), Refusal> {
        let command = read_command(argument)?;
        match command.id {
            CAPABILITIES if command.flags == 0 => Capabilities::of_this_host()?.give(command.data),
            INIT_VM => self.init_vm(&command, environment),
            FINALIZE_VM => self.finalize(&command),
            other => Err(Refusal::new(Errno::EINVAL, format!("VM command {other} is unknown"))),
        }
    }

    /// KVM_MEMORY_ENCRYPT_OP on a vCPU.
    pub(crate) fn vcpu_command(
        &mut self,
        vcpu: &Vcpu,
        argument: u64,
        environment: &mut Environment<'_>,
    ) -> Result<(), Refusal> {
        if self.state != State::Initialised {
            return Err(Refusal::new(Errno::EINVAL, "vCPU command on a TD that is not in the initialised state"));
        }
        let command = read_command(argument)?;
        match command.id {
            INIT_VCPU => self.init_vcpu(vcpu, &command),
            INIT_MEM_REGION => self.init_mem_region(vcpu, &command, environment),
            GET_CPUID => give_cpuid(command.data, &self.cpuid),
            other => Err(Refusal::new(Errno::EINVAL, format!("vCPU command {other} is unknown"))),
        }
    }

    /// `tdx_td_init`.
    fn init_vm(&mut self, command: &TdxCmd, environment: &Environment<'_>) -> Result<(), Refusal> {
        let refuse = |reason: String| Err(Refusal::new(Errno::EINVAL, format!("INIT_VM: {reason}")));
        if self.state != State::Uninitialised || command.flags != 0 {
            return refuse("the TD is initialised already, or flags are set".into());
        }
        let init: TdxInitVm = user_memory::read(command.data)?;
        if init.nent > MAX_CPUID_ENTRIES {
            return Err(Refusal::new(Errno::E2BIG, "INIT_VM: too many CPUID entries"));
        }
        let cpuid: Vec<kvm_cpuid_entry2> =
            user_memory::read_many(command.data + size_of::<TdxInitVm>() as u64, init.nent)?;
        if init.reserved != [0; 12] || init.padding != 0 {
            return refuse("reserved fields are not zero".into());
        }
        if !environment.vcpus.is_empty() {
            return Err(Refusal::new(Errno::EBUSY, "INIT_VM: vCPUs exist already"));
        }
        let capabilities = Capabilities::of_this_host()?;
        if init.attributes & !SUPPORTED_ATTRIBUTES != 0 {
            return refuse(format!("ATTRIBUTES {:#x}, KVM supports {SUPPORTED_ATTRIBUTES:#x}", init.attributes));
        }
        if init.xfam & !capabilities.xfam != 0 {
            return refuse(format!("XFAM {:#x}, KVM supports {:#x}", init.xfam, capabilities.xfam));
        }
        let gpaw = address_width(&cpuid)?;
        if let Some(entry) = cpuid.iter().find(|entry| !capabilities.can_configure(entry)) {
            return refuse(format!("CPUID {:#x}/{:#x} cannot be configured", entry.function, entry.index));
        }
        self.cpuid = capabilities.cpuid.iter().map(|host| *configured(&cpuid, host).unwrap_or(host)).collect();
        self.facts = Facts {
            attributes: init.attributes,
            // XFAM_FIXED1.
            xfam: init.xfam | 3,
            gpaw,
            mrconfigid: init.mrconfigid,
            mrowner: init.mrowner,
            mrownerconfig: init.mrownerconfig,
            cpuid,
            ..Facts::default()
        };
        self.state = State::Initialised;
        Ok(())
    }

    /// `tdx_vcpu_init`: the data is the initial RCX.
    fn init_vcpu(&mut self, vcpu: &Vcpu, command: &TdxCmd) -> Result<(), Refusal> {
        if command.flags != 0 || self.initialised.contains_key(&vcpu.fd) {
            return Err(Refusal::new(Errno::EINVAL, "INIT_VCPU: initialised already, or flags are set"));
        }
        self.initialised.insert(vcpu.fd, command.data);
        self.facts.vcpu_state.push(VcpuFacts { id: vcpu.id, rcx: command.data });
        Ok(())
    }

    /// `tdx_vcpu_init_mem_region`.
    fn init_mem_region(
        &mut self,
        vcpu: &Vcpu,
        command: &TdxCmd,
        environment: &mut Environment<'_>,
    ) -> Result<(), Refusal> {
        let refuse = |reason: &str| Err(Refusal::new(Errno::EINVAL, format!("INIT_MEM_REGION: {reason}")));
        if !self.initialised.contains_key(&vcpu.fd) {
            return refuse("the vCPU is not initialised");
        }
        if command.flags & !MEASURE != 0 {
            return refuse("flags are unknown");
        }
        let mut region: TdxInitMemRegion = user_memory::read(command.data)?;
        let shared_bit = 1_u64 << (self.facts.gpaw - 1);
        let end = region.nr_pages.checked_mul(PAGE_SIZE).and_then(|length| region.gpa.checked_add(length));
        let aligned = region.source_addr.is_multiple_of(PAGE_SIZE) && region.gpa.is_multiple_of(PAGE_SIZE);
        if !aligned || region.nr_pages == 0 || end.is_none_or(|end| end > shared_bit) {
            return refuse("the region is not made of whole private pages");
        }
        // Page by page as KVM does, so that the progress in the region is right when it stops half way.
        while region.nr_pages != 0 {
            let first = region.gpa / PAGE_SIZE;
            let outcome = match environment.memory.populatable(first, region.nr_pages) {
                Ok(count) => self.add_pages(&region, count, command.flags & MEASURE != 0, environment).map(|()| count),
                Err(why) => Err(why.into()),
            };
            let count = match outcome {
                Ok(count) => count,
                Err(refusal) => {
                    user_memory::write(command.data, &region)?;
                    return Err(refusal);
                }
            };
            environment.memory.set_populated(first, count);
            region.source_addr += count * PAGE_SIZE;
            region.gpa += count * PAGE_SIZE;
            region.nr_pages -= count;
        }
        Ok(user_memory::write(command.data, &region)?)
    }

    /// `tdx_gmem_post_populate`: each page is added, then extended over where it is to be measured.
    fn add_pages(
        &mut self,
        region: &TdxInitMemRegion,
        count: u64,
        measured: bool,
        environment: &mut Environment<'_>,
    ) -> Result<(), Refusal> {
        let mut mrtd = self.mrtd.clone();
        let mut gpa = region.gpa;
        let name = format!("{gpa:#x}-{}.bin", if measured { "measured" } else { "added" });
        let sha384 = read_run(region.source_addr, count, &name, |page| {
            mrtd.add_page(gpa);
            if measured {
                mrtd.extend_page(gpa, page);
            }
            gpa += PAGE_SIZE;
            Ok(())
        })?;
        self.mrtd = mrtd;
        environment.pages.push(PageRun {
            gpa: region.gpa,
            len: count * PAGE_SIZE,
            kind: "normal",
            measured,
            sha384: Some(sha384),
        });
        Ok(())
    }

    /// `tdx_td_finalize`.
    fn finalize(&mut self, command: &TdxCmd) -> Result<(), Refusal> {
        if self.state != State::Initialised || command.flags != 0 {
            let reason = "FINALIZE_VM: the TD is not in the initialised state, or flags are set";
            return Err(Refusal::new(Errno::EINVAL, reason));
        }
        self.facts.mrtd = Some(self.mrtd.finalize());
        self.state = State::Runnable;
        Ok(())
    }
}

fn read_command(argument: u64) -> Result<TdxCmd, Refusal> {
    let command: TdxCmd = user_memory::read(argument)?;
    if command.hw_error != 0 {
        return Err(Refusal::new(Errno::EINVAL, "hw_error is not zero"));
    }
    Ok(command)
}

fn configured<'a>(entries: &'a [kvm_cpuid_entry2], wanted: &kvm_cpuid_entry2) -> Option<&'a kvm_cpuid_entry2> {
    entries.iter().find(|entry| entry.function == wanted.function && entry.index == wanted.index)
}

/// `setup_tdparams_eptp_controls`: 48 or 52. QEMU gives no guest more than the processor has by its own CPUID instruction: less than 48, as in
/// many VMs, stands for a server's 48.
fn address_width(cpuid: &[kvm_cpuid_entry2]) -> Result<u32, Refusal> {
    let entry = cpuid.iter().find(|entry| entry.function == ADDRESS_SIZES_LEAF);
    match entry.map(|entry| entry.eax >> 16 & 0xff) {
        Some(width @ (48 | 52)) => Ok(width),
        Some(width @ 36..48) if entry.is_some_and(|entry| entry.eax & 0xff == width) => Ok(48),
        found => Err(Refusal::new(
            Errno::EINVAL,
            format!("INIT_VM: the width of guest-physical addresses is {found:?}, expected 48 or 52"),
        )),
    }
}
