//! The words of the measured kernel command line that say which root file system to open, and of which class the image is.
//!
//! `bullion.root=HASH bullion.salt=SALT bullion.blocks=COUNT`, and `bullion.class=release` where it is; every other word is the
//! kernel's business. Under a TEE the
//! command line is measured, so it is trusted; it is still read strictly, because a word that is read twice or in two ways
//! would let two images have one meaning, or one image two.

use spec::Sha256Digest;
use spec::digest::decode_hex;

/// dm-verity's own limit (Linux `DM_VERITY_MAX_SALT_SIZE` is the block size; the superblock has room for 256).
const MAX_SALT: usize = 256;

/// More data blocks than any image has (4 PiB): keeps the arithmetic of the tree far from overflow.
const MAX_BLOCKS: u64 = 1 << 40;

/// Which root file system to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootParameters {
    /// The dm-verity root hash.
    pub(crate) root_hash: Sha256Digest,
    /// The salt, 1 to 256 bytes.
    pub(crate) salt: Vec<u8>,
    /// How many 4096-byte data blocks the tree covers, 1 to 2^40.
    pub(crate) data_blocks: u64,
}

/// What the command line says to this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Which root file system to open.
    pub(crate) root: RootParameters,
    /// Whether the image is of class release: after its start, such a guest writes nothing on the console.
    pub(crate) release: bool,
}

/// A command line that does not say which root file system to open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandLineError {
    /// A word is not there.
    #[error("{0}= is missing")]
    Missing(&'static str),
    /// A word is there twice.
    #[error("{0}= is there more than once")]
    Duplicate(&'static str),
    /// A value cannot be read.
    #[error("{name}= has the value \"{found}\", expected {expected}")]
    Malformed {
        /// The word.
        name: &'static str,
        /// Its value.
        found: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// A release whose kernel was told to take whatever ACPI tables the host makes.
    #[error(
        "bullion.class=release stands beside bullion.acpi=unchecked: the kernel of a release admits named tables only"
    )]
    Unchecked,
    /// The kernel splits words elsewhere than this program: not within quotation marks, and at 0x0b and 0xa0.
    #[error("it has a quotation mark, or a character that is neither a space nor printable ASCII")]
    TwoReadings,
    /// A word with our prefix that this guest does not know.
    #[error("\"{0}\" is not a word that this guest knows")]
    Unknown(String),
}

const PREFIX: &str = "bullion.";
const ROOT: &str = "bullion.root";
const SALT: &str = "bullion.salt";
const BLOCKS: &str = "bullion.blocks";
const CLASS: &str = "bullion.class";
const RELEASE: &str = "release";
/// Which ACPI tables the kernel admits: its business, and no other word of the prefix is. But no release admits all.
const ACPI: &str = "bullion.acpi";
const UNCHECKED: &str = "unchecked";
/// Which modules the kernel admits: its business, too.
const MODULES: &str = "bullion.modules";

/// Reads the words out of the content of `/proc/cmdline`.
pub(crate) fn parse(text: &str) -> Result<Parameters, CommandLineError> {
    if !text.bytes().all(|c| (c.is_ascii_graphic() || c.is_ascii_whitespace()) && c != b'"') {
        return Err(CommandLineError::TwoReadings);
    }
    let (mut root, mut salt, mut blocks, mut class) = (None, None, None, None);
    let (mut acpi, mut modules) = (None, None);
    for word in text.split_ascii_whitespace().filter(|word| word.starts_with(PREFIX)) {
        let (slot, name, value) = match word.split_once('=') {
            Some((ROOT, value)) => (&mut root, ROOT, value),
            Some((SALT, value)) => (&mut salt, SALT, value),
            Some((BLOCKS, value)) => (&mut blocks, BLOCKS, value),
            Some((CLASS, value)) => (&mut class, CLASS, value),
            Some((ACPI, value)) => (&mut acpi, ACPI, value),
            Some((MODULES, value)) => (&mut modules, MODULES, value),
            _ => return Err(CommandLineError::Unknown(word.to_owned())),
        };
        if slot.replace(value).is_some() {
            return Err(CommandLineError::Duplicate(name));
        }
    }
    // Without the word it is of class dev: a word that somebody leaves out opens nothing that the digest does not show.
    if let Some(other) = class.filter(|class| *class != RELEASE) {
        return Err(malformed(CLASS, other, "\"release\", or no such word"));
    }
    if class.is_some() && acpi == Some(UNCHECKED) {
        return Err(CommandLineError::Unchecked);
    }
    let root = RootParameters {
        root_hash: parse_root(root.ok_or(CommandLineError::Missing(ROOT))?)?,
        salt: parse_salt(salt.ok_or(CommandLineError::Missing(SALT))?)?,
        data_blocks: parse_blocks(blocks.ok_or(CommandLineError::Missing(BLOCKS))?)?,
    };
    Ok(Parameters { root, release: class.is_some() })
}

fn malformed(name: &'static str, found: &str, expected: &'static str) -> CommandLineError {
    CommandLineError::Malformed { name, found: found.to_owned(), expected }
}

fn parse_root(value: &str) -> Result<Sha256Digest, CommandLineError> {
    value.parse().map_err(|_| malformed(ROOT, value, "64 lower-case hex digits"))
}

fn parse_salt(value: &str) -> Result<Vec<u8>, CommandLineError> {
    decode_hex(value)
        .filter(|salt| (1..=MAX_SALT).contains(&salt.len()) && !value.bytes().any(|c| c.is_ascii_uppercase()))
        .ok_or_else(|| malformed(SALT, value, "2 to 512 lower-case hex digits"))
}

fn parse_blocks(value: &str) -> Result<u64, CommandLineError> {
    let canonical = value.bytes().all(|c| c.is_ascii_digit()) && !value.starts_with('0');
    value
        .parse()
        .ok()
        .filter(|blocks| canonical && (1..=MAX_BLOCKS).contains(blocks))
        .ok_or_else(|| malformed(BLOCKS, value, "a number from 1 to 2^40 without leading zeros"))
}

#[cfg(test)]
mod tests;
