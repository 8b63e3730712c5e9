//! What the report says of an SNP launch.

use serde::Serialize;

use crate::report::{as_hex, as_number, as_optional_hex, as_optional_number};

/// The facts of one launch, as far as it has come.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// MEASUREMENT; null until the launch is finished.
    #[serde(serialize_with = "as_optional_hex")]
    pub(crate) launch_digest: Option<[u8; 48]>,
    /// POLICY; null until LAUNCH_START.
    #[serde(serialize_with = "as_optional_number")]
    pub(crate) policy: Option<u64>,
    /// GOSVW.
    #[serde(serialize_with = "as_hex")]
    pub(crate) gosvw: [u8; 16],
    /// What the VMM asked for in KVM_SEV_INIT2.
    #[serde(serialize_with = "as_number")]
    pub(crate) vmsa_features: u64,
    /// SEV_FEATURES in every VMSA: the above and SNPActive.
    #[serde(serialize_with = "as_number")]
    pub(crate) sev_features: u64,
    /// The version of the GHCB protocol; 0 stands for KVM's default.
    pub(crate) ghcb_version: u16,
    /// HOST_DATA.
    #[serde(serialize_with = "as_hex")]
    pub(crate) host_data: [u8; 32],
    /// Whether the VCEK may not sign reports.
    pub(crate) vcek_disabled: bool,
    /// The ID block, where one was given.
    pub(crate) id_block: Option<IdBlockFacts>,
    /// The measured state of each vCPU, in the order of measuring.
    pub(crate) vcpu_state: Vec<VcpuFacts>,
    /// The CPUID pages: their content is validated by firmware and not measured.
    pub(crate) cpuid_pages: Vec<CpuidPage>,
}

/// What the report says of an ID block.
#[derive(Debug, Serialize)]
pub(crate) struct IdBlockFacts {
    /// The digest the block expects.
    #[serde(serialize_with = "as_hex")]
    pub(crate) launch_digest: [u8; 48],
    /// FAMILY_ID.
    #[serde(serialize_with = "as_hex")]
    pub(crate) family_id: [u8; 16],
    /// IMAGE_ID.
    #[serde(serialize_with = "as_hex")]
    pub(crate) image_id: [u8; 16],
    /// GUEST_SVN.
    pub(crate) guest_svn: u32,
    /// The policy the block expects.
    #[serde(serialize_with = "as_number")]
    pub(crate) policy: u64,
    /// ID_KEY_DIGEST.
    #[serde(serialize_with = "as_hex")]
    pub(crate) id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST; null where no author key takes part.
    #[serde(serialize_with = "as_optional_hex")]
    pub(crate) author_key_digest: Option<[u8; 48]>,
}

/// What the report says of a VMSA.
#[derive(Debug, Serialize)]
pub(crate) struct VcpuFacts {
    /// The vCPU's id.
    pub(crate) id: u64,
    /// SHA-384 of the VMSA.
    #[serde(serialize_with = "as_hex")]
    pub(crate) sha384: [u8; 48],
    /// CS selector base.
    #[serde(serialize_with = "as_number")]
    pub(crate) cs_base: u64,
    /// RIP.
    #[serde(serialize_with = "as_number")]
    pub(crate) rip: u64,
    /// RDX: the CPU signature after reset.
    #[serde(serialize_with = "as_number")]
    pub(crate) rdx: u64,
}

/// One CPUID page.
#[derive(Debug, Serialize)]
pub(crate) struct CpuidPage {
    /// Where it is.
    #[serde(serialize_with = "as_number")]
    pub(crate) gpa: u64,
    /// Its functions in order.
    pub(crate) functions: Vec<CpuidFunction>,
}

/// One function of a CPUID page (AMD 56860, "CPUID_FUNCTION").
#[derive(Debug, Serialize)]
pub(crate) struct CpuidFunction {
    /// EAX and ECX as asked.
    #[serde(serialize_with = "as_number")]
    pub(crate) eax_in: u64,
    /// ECX as asked.
    #[serde(serialize_with = "as_number")]
    pub(crate) ecx_in: u64,
    /// EAX, EBX, ECX, EDX as answered, 8 hex digits each.
    #[serde(serialize_with = "as_hex_words")]
    pub(crate) answer: [u32; 4],
}

fn as_hex_words<S: serde::Serializer>(words: &[u32; 4], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().map(|word| format!("{word:08x}")))
}

/// The functions of a CPUID page; `None` where its count is larger than a page can hold.
pub(super) fn parse_cpuid_page(page: &[u8]) -> Option<Vec<CpuidFunction>> {
    const FUNCTION_SIZE: usize = 48;
    const HEADER_SIZE: usize = 16;
    const LIMIT: usize = 64;
    let word = |bytes: &[u8], index: usize| {
        bytes.get(index * 4..index * 4 + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let count = word(page, 0) as usize;
    if count > LIMIT {
        return None;
    }
    let functions = page.get(HEADER_SIZE..)?.chunks_exact(FUNCTION_SIZE).take(count);
    Some(
        functions
            .map(|function| CpuidFunction {
                eax_in: word(function, 0).into(),
                ecx_in: word(function, 1).into(),
                answer: [word(function, 6), word(function, 7), word(function, 8), word(function, 9)],
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn foreign_pages_never_panic(page in proptest::collection::vec(any::<u8>(), 0..4096), count in 0_u8..80) {
            let _ = parse_cpuid_page(&page);
            let mut page = page;
            page.resize(4096, 0xff);
            page[..4].copy_from_slice(&u32::from(count).to_le_bytes());
            prop_assert_eq!(parse_cpuid_page(&page).map(|functions| functions.len()), (count <= 64).then_some(count.into()));
        }
    }
}
