//! The processor: its identity, what it can encrypt, and whether something stands between it and us.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

/// A processor, from CPUID and from what the kernel made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// `AuthenticAMD` or `GenuineIntel` (CPUID Fn0000_0000).
    pub vendor: String,
    /// As the kernel prints it.
    pub name: String,
    /// Family, extended family added.
    pub family: u32,
    /// Model, extended model included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// CPUID Fn0000_0001 EAX: on AMD what a guest with the host's CPU model has in its launch digest.
    pub signature: u32,
    /// The microcode's version as the kernel prints it.
    pub microcode: String,
    /// How many CPUs the kernel runs on.
    pub count: usize,
    /// Whether this is a guest itself (CPUID Fn0000_0001 ECX[31]).
    pub is_virtual: bool,
    /// How many bits a physical address has (CPUID Fn8000_0008 EAX[7:0]).
    pub physical_address_bits: u32,
    /// SEV-SNP, by CPUID Fn8000_001F EAX[4]. Whether it is on is another question.
    pub has_snp: bool,
    /// CPUID Fn8000_001F EBX[5:0].
    pub c_bit_position: u32,
    /// CPUID Fn8000_001F EBX[11:6]: the address bits that encryption takes from the host.
    pub reduced_address_bits: u32,
    /// How many SEV-ES and SEV-SNP guests there can be at a time: the ASIDs below CPUID Fn8000_001F EDX.
    pub snp_asids: u32,
    /// The flags that the kernel shows: it hides what it does not use.
    #[serde(skip)]
    pub flags: Vec<String>,
}

/// Processors with TDX by family and model (Intel SDM volume 4, table 2-1): Sapphire Rapids, Emerald Rapids, Granite Rapids
/// (two), Sierra Forest, Clearwater Forest.
const TDX_MODELS: [u32; 6] = [143, 207, 173, 174, 175, 221];

impl Cpu {
    pub(super) fn of(cpuid: &BTreeMap<String, [u32; 4]>, root: &Path) -> Self {
        let leaf = |leaf: &str| cpuid.get(leaf).copied().unwrap_or_default();
        let [_, ebx, ecx, edx] = leaf("0x0");
        let vendor: Vec<u8> = [ebx, edx, ecx].iter().flat_map(|register| register.to_le_bytes()).collect();
        let [signature, _, features, _] = leaf("0x1");
        let base_family = signature >> 8 & 0xf;
        let [encryption, positions, _, first_sev_asid] = leaf("0x8000001f");
        let info = super::read_trimmed(&root.join("proc/cpuinfo")).unwrap_or_default();
        let field = |key: &str| {
            let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Self {
            vendor: String::from_utf8_lossy(&vendor).trim_matches('\0').to_owned(),
            name: field("model name"),
            family: if base_family == 0xf { base_family + (signature >> 20 & 0xff) } else { base_family },
            model: signature >> 4 & 0xf | signature >> 12 & 0xf0,
            stepping: signature & 0xf,
            signature,
            microcode: field("microcode"),
            count: info.lines().filter(|line| line.starts_with("processor\t")).count(),
            is_virtual: features >> 31 == 1,
            physical_address_bits: cpuid.get("0x80000008").map_or(36, |found| found[0] & 0xff),
            has_snp: encryption >> 4 & 1 == 1,
            c_bit_position: positions & 0x3f,
            reduced_address_bits: positions >> 6 & 0x3f,
            snp_asids: first_sev_asid.saturating_sub(1),
            flags: field("flags").split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Whether the kernel shows the flag.
    pub fn shows(&self, flag: &str) -> bool {
        self.flags.iter().any(|shown| shown == flag)
    }

    /// Whether this is AMD's.
    pub fn is_amd(&self) -> bool {
        self.vendor == "AuthenticAMD"
    }

    /// Whether processors of this model have TDX.
    pub fn may_have_tdx(&self) -> bool {
        self.vendor == "GenuineIntel" && self.family == 6 && TDX_MODELS.contains(&self.model)
    }
}
