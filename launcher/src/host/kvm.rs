//! KVM, asked by creating VMs of each type and throwing them away.
#![allow(unsafe_code, reason = "KVM_TDX_CAPABILITIES takes a pointer, and no crate in use wraps it")]

use std::collections::BTreeMap;
use std::io;

use kvm_ioctls::{Kvm, VmFd};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{SNP_VM, TDX_VM};

/// Capabilities (include/uapi/linux/kvm.h).
const CAP_VM_TYPES: u64 = 235;
const CAP_GUEST_MEMFD: u64 = 234;
const CAP_MEMORY_ATTRIBUTES: u64 = 233;
const CAP_MAX_VCPUS: u64 = 66;

/// What KVM answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KvmAnswers {
    /// Why there is no usable KVM.
    pub error: Option<String>,
    /// KVM_GET_API_VERSION.
    pub api_version: i32,
    /// KVM_CAP_VM_TYPES: bit n is set where type n can be created.
    pub vm_types: u32,
    /// VM types that are offered and were not created when asked for: the type, and the error.
    pub refused_types: BTreeMap<u32, String>,
    /// KVM_CAP_GUEST_MEMFD: private memory.
    pub guest_memfd: bool,
    /// KVM_CAP_MEMORY_ATTRIBUTES: bit 3 is private memory.
    pub memory_attributes: u64,
    /// KVM_CAP_MAX_VCPUS.
    pub max_vcpus: u32,
}

/// `struct kvm_tdx_capabilities`, without the CPUID part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdxCapabilities {
    /// ATTRIBUTES that the TDX module and KVM allow.
    pub attributes: u64,
    /// XFAM likewise.
    pub xfam: u64,
}

impl KvmAnswers {
    /// Asks `/dev/kvm`.
    pub(super) fn ask() -> (Self, Option<TdxCapabilities>) {
        // By mask and ioctl alone KVM may say yes where it cannot: a VM is created and thrown away.
        let kvm = match Kvm::new().and_then(|kvm| kvm.create_vm().map(|_| kvm)) {
            Ok(kvm) => kvm,
            Err(error) => return (Self { error: Some(unusable(error.errno())), ..Self::default() }, None),
        };
        let number = |capability| u32::try_from(kvm.check_extension_raw(capability)).unwrap_or(0);
        let mut answers = Self {
            error: None,
            api_version: kvm.get_api_version(),
            vm_types: number(CAP_VM_TYPES),
            refused_types: BTreeMap::new(),
            guest_memfd: number(CAP_GUEST_MEMFD) != 0,
            memory_attributes: number(CAP_MEMORY_ATTRIBUTES).into(),
            max_vcpus: number(CAP_MAX_VCPUS),
        };
        let mut tdx = None;
        for vm_type in [SNP_VM, TDX_VM].into_iter().filter(|vm_type| answers.vm_types & 1 << vm_type != 0) {
            match kvm.create_vm_with_type(vm_type.into()) {
                Ok(vm) if vm_type == TDX_VM => tdx = capabilities(&vm),
                Ok(_) => {}
                Err(error) => {
                    let error = io::Error::from_raw_os_error(error.errno()).to_string();
                    answers.refused_types.insert(vm_type, error);
                }
            }
        }
        (answers, tdx)
    }
}

fn unusable(error: i32) -> String {
    match Errno::from_raw(error) {
        Errno::ENOENT => "there is no /dev/kvm".to_owned(),
        Errno::EACCES | Errno::EPERM => "no permission to open /dev/kvm".to_owned(),
        _ => format!("/dev/kvm cannot create VMs: {}", io::Error::from_raw_os_error(error)),
    }
}

/// `KVM_MAX_CPUID_ENTRIES`: as many as the kernel can ever answer with.
const CPUID_ENTRIES: usize = 256;

/// `struct kvm_tdx_capabilities` with room for `CPUID_ENTRIES` of `struct kvm_cpuid_entry2`.
#[repr(C)]
struct CapabilitiesBuffer {
    supported_attrs: u64,
    supported_xfam: u64,
    tdvmcallinfo: [u64; 4],
    reserved: [u64; 250],
    nent: u32,
    padding: u32,
    entries: [[u32; 10]; CPUID_ENTRIES],
}
const _: () = assert!(std::mem::offset_of!(CapabilitiesBuffer, nent) == 2048);

/// `struct kvm_tdx_cmd`; KVM_TDX_CAPABILITIES is 0.
#[repr(C)]
struct TdxCommand {
    id: u32,
    flags: u32,
    data: u64,
    hw_error: u64,
}
const _: () = assert!(size_of::<TdxCommand>() == 24);

fn capabilities(vm: &VmFd) -> Option<TdxCapabilities> {
    let mut buffer = Box::new(CapabilitiesBuffer {
        supported_attrs: 0,
        supported_xfam: 0,
        tdvmcallinfo: [0; 4],
        reserved: [0; 250],
        nent: u32::try_from(CPUID_ENTRIES).ok()?,
        padding: 0,
        entries: [[0; 10]; CPUID_ENTRIES],
    });
    let data = std::ptr::from_mut(&mut *buffer).expose_provenance() as u64;
    let mut command = TdxCommand { id: 0, flags: 0, data, hw_error: 0 };
    // SAFETY: the VM is of type TDX, for which the kernel reads a `struct kvm_tdx_cmd`; its data points at a live, exclusively
    // borrowed buffer of all integers that has room for the `nent` entries it announces.
    unsafe { vm.encrypt_op(&raw mut command) }.ok()?;
    Some(TdxCapabilities { attributes: buffer.supported_attrs, xfam: buffer.supported_xfam })
}
