//! What the report says of a TDX launch.

use kvm_bindings::kvm_cpuid_entry2;
use serde::{Serialize, Serializer};

use crate::report::{as_hex, as_number, as_optional_hex};

/// The facts of one launch, as far as it has come.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    /// MRTD; null until the launch is finalized.
    #[serde(serialize_with = "as_optional_hex")]
    pub(crate) mrtd: Option<[u8; 48]>,
    /// ATTRIBUTES.
    #[serde(serialize_with = "as_number")]
    pub(crate) attributes: u64,
    /// XFAM.
    #[serde(serialize_with = "as_number")]
    pub(crate) xfam: u64,
    /// The width of guest-physical addresses: 48 or 52.
    pub(crate) gpaw: u32,
    /// MRCONFIGID.
    #[serde(serialize_with = "as_hex")]
    pub(crate) mrconfigid: [u8; 48],
    /// MROWNER.
    #[serde(serialize_with = "as_hex")]
    pub(crate) mrowner: [u8; 48],
    /// MROWNERCONFIG.
    #[serde(serialize_with = "as_hex")]
    pub(crate) mrownerconfig: [u8; 48],
    /// The CPUID configuration of KVM_TDX_INIT_VM.
    #[serde(serialize_with = "as_cpuid")]
    pub(crate) cpuid: Vec<kvm_cpuid_entry2>,
    /// The vCPUs that were initialised.
    pub(crate) vcpu_state: Vec<VcpuFacts>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            mrtd: None,
            attributes: 0,
            xfam: 0,
            gpaw: 48,
            mrconfigid: [0; 48],
            mrowner: [0; 48],
            mrownerconfig: [0; 48],
            cpuid: Vec::new(),
            vcpu_state: Vec::new(),
        }
    }
}

/// What the report says of a vCPU.
#[derive(Debug, Serialize)]
pub(crate) struct VcpuFacts {
    /// The vCPU's id.
    pub(crate) id: u64,
    /// The initial RCX and R8: the address of the TD HOB.
    #[serde(serialize_with = "as_number")]
    pub(crate) rcx: u64,
}

fn as_cpuid<S: Serializer>(entries: &[kvm_cpuid_entry2], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry {
        #[serde(serialize_with = "as_number")]
        function: u64,
        #[serde(serialize_with = "as_number")]
        index: u64,
        answer: [String; 4],
    }
    serializer.collect_seq(entries.iter().map(|entry| Entry {
        function: entry.function.into(),
        index: entry.index.into(),
        answer: [entry.eax, entry.ebx, entry.ecx, entry.edx].map(|word| format!("{word:08x}")),
    }))
}
