//! Words of `bullion idblock`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::{parse_sha384, parse_u64};

#[derive(Debug, Args)]
pub(crate) struct IdBlock {
    #[command(subcommand)]
    pub(crate) action: IdBlockAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdBlockAction {
    /// Sign ID blocks for the SNP launch digests of an image, where it is built
    ///
    /// They go into the manifest. From then on `launch` passes the one for the VM's shape to the secure processor, which refuses
    /// any other launch digest, policy or signature; a shape that has none is refused before. Reports then name the key
    /// (ID_KEY_DIGEST), GUEST_SVN, FAMILY_ID and IMAGE_ID.
    Create(CreateIdBlock),
    /// Check ID blocks: signature, launch digest, and whether the policy is fit for a release
    ///
    /// It is not checked that the key is one that you trust, unless you name it with --key.
    Verify(VerifyIdBlock),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").args(["image", "digest"]).required(true))]
pub(crate) struct CreateIdBlock {
    /// The image directory; its manifest is replaced
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<PathBuf>,
    /// One launch digest instead of an image; the files go to --output
    #[arg(long, value_name = "HEX", value_parser = parse_sha384, requires = "output")]
    pub(crate) digest: Option<spec::Sha384Digest>,
    /// The private key, ECDSA on P-384, which only its owner may read (bullion keygen makes one)
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// POLICY of the launch; debugging and migration are refused
    #[arg(long, value_name = "HEX", value_parser = parse_u64, default_value = "0x30000")]
    pub(crate) policy: u64,
    /// GUEST_SVN: the security version of the image
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) guest_svn: u32,
    /// FAMILY_ID: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = parse_id, default_value = "00000000000000000000000000000000")]
    pub(crate) family_id: Id,
    /// IMAGE_ID: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = parse_id, default_value = "00000000000000000000000000000000")]
    pub(crate) image_id: Id,
    /// The directory for id-block.bin and id-auth.bin, as QEMU's id-block= and id-auth= have them before base64
    #[arg(long, short, value_name = "DIR", requires = "digest")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["image", "block"]).required(true))]
pub(crate) struct VerifyIdBlock {
    /// The image directory
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<PathBuf>,
    /// An ID block (96 bytes) instead of an image
    #[arg(long, value_name = "FILE", requires = "auth")]
    pub(crate) block: Option<PathBuf>,
    /// Its ID authentication information (4096 bytes)
    #[arg(long, value_name = "FILE", requires = "block")]
    pub(crate) auth: Option<PathBuf>,
    /// The public key that must have signed
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

/// FAMILY_ID or IMAGE_ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) [u8; 16]);

fn parse_id(text: &str) -> Result<Id, String> {
    launcher::id_block::bytes(text).map(Id).ok_or_else(|| format!("\"{text}\" is not 32 hex digits"))
}
