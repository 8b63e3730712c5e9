//! The ID block that an image has for a shape: which one goes to QEMU, and when a launch is refused for want of one.
//!
//! It is signed where the image is built: the secure processor refuses a launch that it is not for, and a report names its
//! key and security version. A key on the launching host would prove nothing, so nothing is signed here.

use measure::Digest384;
use measure::shape::SnpShape;
use measure::snp::cpu;
use measure::snp::id_block::{IdAuth, IdBlock, PublicKey, Signature};
use spec::digest::decode_hex;
use spec::manifest::{Manifest, SnpReference};
use spec::vm::Vm;
use spec::{Diagnostic, Outcome};

/// An ID block that does not fit the launch, or is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdBlockError {
    /// A field is not hex, or has another size.
    #[error("the ID block of image {image} for {vcpus} vCPUs is damaged: {field} is not {expected} bytes in hex")]
    Field {
        /// The image's name.
        image: String,
        /// The vCPU count of the reference.
        vcpus: u32,
        /// Which field.
        field: &'static str,
        /// Its size.
        expected: usize,
    },
    /// The image has ID blocks, and none for this shape.
    #[error(
        "image {image} has ID blocks, and none for {vcpus} vCPUs of model {cpu} with SEV_FEATURES {sev_features:#x}"
    )]
    Shape {
        /// The image's name.
        image: String,
        /// The vCPU count of the launch.
        vcpus: u32,
        /// The CPU model of the launch.
        cpu: String,
        /// SEV_FEATURES of the launch.
        sev_features: u64,
    },
    /// The block is for another policy: the secure processor would end the launch with POLICY_FAILURE.
    #[error("the ID block of image {image} is for policy {expected:#x}, the launch has {found:#x}")]
    Policy {
        /// The image's name.
        image: String,
        /// What the block says.
        expected: u64,
        /// What is launched.
        found: u64,
    },
}

impl Diagnostic for IdBlockError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Field { .. } => Outcome::InputMismatch,
            Self::Shape { .. } | Self::Policy { .. } => Outcome::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Field { .. } | Self::Policy { .. } => {
                "make it again where the image is built: bullion idblock create"
            }
            Self::Shape { .. } => "launch a shape that the manifest has, or add this one to the recipe's [references]",
        };
        Some(hint.to_owned())
    }
}

/// The ID block of a launch; `None` where the image has none at all. An image that has some is launched in their shapes only.
pub(crate) fn of_launch(
    vm: &Vm,
    manifest: &Manifest,
    shape: &SnpShape,
) -> Result<Option<Box<(IdBlock, IdAuth)>>, IdBlockError> {
    let references = &manifest.references.snp;
    if references.iter().all(|reference| reference.id_block.is_none()) {
        return Ok(None);
    }
    let (image, model) = (manifest.name.clone(), vm.cpu_model());
    let signature = cpu::signature(model, None).ok();
    let fits = |reference: &&SnpReference| {
        reference.id_block.is_some()
            && reference.vcpus == vm.vcpus
            && reference.sev_features == shape.sev_features
            && signature.is_some_and(|signature| signature.0 == reference.cpu_signature)
    };
    let Some(reference) = references.iter().find(fits) else {
        let cpu = model.to_owned();
        return Err(IdBlockError::Shape { image, vcpus: vm.vcpus, cpu, sev_features: shape.sev_features });
    };
    let Some(signed) = signed(&image, reference)? else { return Ok(None) };
    if signed.0.policy != shape.policy {
        return Err(IdBlockError::Policy { image, expected: signed.0.policy, found: shape.policy });
    }
    Ok(Some(Box::new(signed)))
}

/// The ID block of a reference as the secure processor gets it. No signature is verified.
pub fn signed(image: &str, reference: &SnpReference) -> Result<Option<(IdBlock, IdAuth)>, IdBlockError> {
    let Some(block) = &reference.id_block else { return Ok(None) };
    let vcpus = reference.vcpus;
    let field = |field, expected| IdBlockError::Field { image: image.to_owned(), vcpus, field, expected };
    let id = |text: &str, name| bytes::<16>(text).ok_or_else(|| field(name, 16));
    let pair = |text: &str, name| -> Result<([u8; 48], [u8; 48]), IdBlockError> {
        let bytes: [u8; 96] = bytes(text).ok_or_else(|| field(name, 96))?;
        let halves = bytes.split_first_chunk::<48>().and_then(|(first, rest)| Some((*first, rest.try_into().ok()?)));
        halves.ok_or_else(|| field(name, 96))
    };
    let ((x, y), (r, s)) = (pair(&block.id_key, "id_key")?, pair(&block.signature, "signature")?);
    let id_block = IdBlock {
        launch_digest: Digest384(reference.launch_digest.0),
        family_id: id(&block.family_id, "family_id")?,
        image_id: id(&block.image_id, "image_id")?,
        guest_svn: block.guest_svn,
        policy: block.policy,
    };
    let auth = IdAuth { block_signature: Signature { r, s }, id_key: PublicKey { x, y }, author: None };
    Ok(Some((id_block, auth)))
}

/// Exactly `N` bytes of hex.
pub fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode_hex(text)?.try_into().ok()
}
