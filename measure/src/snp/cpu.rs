//! The one property of a CPU model that is measured: its signature (family, model, stepping), which is in RDX at reset.

use core::fmt;

/// CPUID Fn0000_0001 EAX (AMD 25481): what RDX holds at reset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSignature(pub u32);

impl CpuSignature {
    /// The signature of a family, model and stepping, encoded as CPUID does it.
    pub const fn new(family: u8, model: u8, stepping: u8) -> Self {
        let (base_family, extended_family) = if family < 0xf { (family, 0) } else { (0xf, family.wrapping_sub(0xf)) };
        Self(
            (extended_family as u32) << 20
                | (model as u32 >> 4) << 16
                | (base_family as u32) << 8
                | (model as u32 & 0xf) << 4
                | (stepping as u32 & 0xf),
        )
    }
}

impl fmt::Display for CpuSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

impl fmt::Debug for CpuSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A CPU model whose signature cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// The model is that of the host, so the launch digest is different on another host.
    #[error("CPU model \"{0}\" has the signature of the host it runs on: name the signature, or a model")]
    HostDependent(alloc::string::String),
    /// The model is not in QEMU 11.1's table.
    #[error("CPU model \"{0}\" is not an EPYC model that QEMU 11.1 knows: name the signature, or another model")]
    Unknown(alloc::string::String),
}

/// A CPU model as QEMU names it, how many versions of it QEMU 11.1 has, and its signature. Versions never change it.
struct Model {
    name: &'static str,
    versions: u8,
    signature: CpuSignature,
}

const MODELS: [Model; 5] = [
    Model { name: "EPYC", versions: 5, signature: CpuSignature::new(23, 1, 2) },
    Model { name: "EPYC-Rome", versions: 5, signature: CpuSignature::new(23, 49, 0) },
    Model { name: "EPYC-Milan", versions: 4, signature: CpuSignature::new(25, 1, 1) },
    Model { name: "EPYC-Genoa", versions: 3, signature: CpuSignature::new(25, 17, 0) },
    Model { name: "EPYC-Turin", versions: 2, signature: CpuSignature::new(26, 0, 0) },
];

/// The signature of a CPU model as QEMU names it, or `given` where the caller knows better (`stepping=` on the command
/// line, or the signature of the host behind `host`).
pub fn signature(model: &str, given: Option<CpuSignature>) -> Result<CpuSignature, CpuError> {
    if let Some(signature) = given {
        return Ok(signature);
    }
    if matches!(model, "host" | "max" | "base") {
        return Err(CpuError::HostDependent(model.into()));
    }
    let (name, version) = match model {
        "EPYC-IBPB" => ("EPYC", None),
        _ => match model.rsplit_once("-v") {
            Some((name, version)) => (name, Some(version)),
            None => (model, None),
        },
    };
    let is_version_of = |count: u8| match version {
        Some(text) => (1..=count).any(|number| text.as_bytes() == [number.wrapping_add(b'0')]),
        None => true,
    };
    let found = MODELS.iter().find(|candidate| candidate.name == name && is_version_of(candidate.versions));
    found.map(|model| model.signature).ok_or_else(|| CpuError::Unknown(model.into()))
}

/// The signatures that QEMU's EPYC models have, each with the model's name; for reports and searches.
pub fn known() -> impl Iterator<Item = (&'static str, CpuSignature)> {
    MODELS.iter().map(|model| (model.name, model.signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read from QEMU 11.1.3's `-cpu help` and its table of models.
    #[test]
    fn models_of_qemu() {
        for (model, expected) in [
            ("EPYC", 0x80_0f12),
            ("EPYC-IBPB", 0x80_0f12),
            ("EPYC-v4", 0x80_0f12),
            ("EPYC-v5", 0x80_0f12),
            ("EPYC-Rome-v5", 0x83_0f10),
            ("EPYC-Milan-v4", 0xa0_0f11),
            ("EPYC-Genoa-v3", 0xa1_0f10),
            ("EPYC-Turin-v2", 0xb0_0f00),
        ] {
            assert_eq!(signature(model, None).unwrap().0, expected, "{model}");
        }
    }

    #[test]
    fn what_has_no_signature_of_its_own_is_refused() {
        for model in ["host", "max"] {
            assert!(matches!(signature(model, None), Err(CpuError::HostDependent(_))));
            assert_eq!(signature(model, Some(CpuSignature(0xa1_0f11))).unwrap().0, 0xa1_0f11);
        }
        for model in ["EPYC-v0", "EPYC-v6", "EPYC-v04", "EPYC-v", "EPYC-Milan-v5", "epyc", "Skylake-Server", ""] {
            assert!(matches!(signature(model, None), Err(CpuError::Unknown(_))), "{model}");
        }
    }
}
