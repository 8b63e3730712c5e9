//! Words of the verbs around signed releases.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use spec::time::Timestamp;

/// A signature algorithm on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AlgorithmWord {
    /// ECDSA on P-384 with SHA-384, which SNP ID blocks need
    EcdsaP384,
    /// Ed25519
    Ed25519,
}

impl From<AlgorithmWord> for sign::Algorithm {
    fn from(word: AlgorithmWord) -> Self {
        match word {
            AlgorithmWord::EcdsaP384 => Self::EcdsaP384,
            AlgorithmWord::Ed25519 => Self::Ed25519,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The file for the private key, unencrypted PKCS#8 in PEM that only you can read; the public key goes to FILE.pub.
    /// Nothing is ever overwritten
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The algorithm
    #[arg(long, value_enum, default_value = "ecdsa-p384")]
    pub(crate) algorithm: AlgorithmWord,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The image directory
    pub(crate) image: PathBuf,
    /// The private key that signs
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The bundle directory to make [default: the image directory's name with the ending .bundle]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// The release's number, higher than that of every release before [default: the seconds since 1970]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=spec::release::MAX_SEQUENCE))]
    pub(crate) sequence: Option<u64>,
    /// When the release expires: a number of days such as 90d, a day such as 2027-06-30, or a time such as
    /// 2027-06-30T12:00:00Z
    #[arg(long, value_name = "WHEN", default_value = "90d", value_parser = parse_expiry)]
    pub(crate) expires: Expiry,
    /// The guest's security version (GUEST_SVN): raise it when older images must not get this one's secrets
    /// [default: that of the image's ID blocks, else 0]
    #[arg(long, value_name = "N")]
    pub(crate) guest_svn: Option<u32>,
    /// Replace a bundle that is already there
    #[arg(long)]
    pub(crate) replace: bool,
}

/// When a release expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// So many days after it is signed.
    Days(u64),
    /// At this time.
    At(Timestamp),
}

fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse().ok()) {
        return match days {
            1..=36500 => Ok(Expiry::Days(days)),
            _ => Err("a release is good for 1 to 36500 days".to_owned()),
        };
    }
    let time = text.parse().or_else(|_| Timestamp::of_day(text));
    time.map(Expiry::At)
        .map_err(|_| format!("\"{text}\" is neither like 90d, nor 2027-06-30, nor 2027-06-30T12:00:00Z"))
}

/// Whose releases are accepted, and which.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TrustWords {
    /// A public key whose releases are accepted, or a directory of *.pub files; may be given several times
    /// [default: /etc/bullion/trust and ~/.config/bullion/trust]
    #[arg(long, value_name = "PATH")]
    pub(crate) trust: Vec<PathBuf>,
    /// Accept an image of class dev, of which some byte has no locked origin
    #[arg(long)]
    pub(crate) dangerously_allow_dev: bool,
}

/// How an image is held against its release before a launch.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ReleaseWords {
    #[command(flatten)]
    pub(crate) trust: TrustWords,
    /// Launch in a TEE even if nobody trusted has signed the image, or its release is out of date
    #[arg(long, conflicts_with_all = ["trust", "dangerously_allow_dev"])]
    pub(crate) dangerously_allow_unsigned: bool,
}

impl ReleaseWords {
    /// Whether the caller asks for a check that would not be made otherwise.
    pub(crate) fn named(&self) -> bool {
        !self.trust.trust.is_empty()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ImageWords {
    #[command(subcommand)]
    pub(crate) action: ImageAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageAction {
    /// Check a bundle: every file against the manifest, the manifest against its signed release, and that the release is
    /// neither out of date nor older than one that was accepted here before
    ///
    /// Nothing here says what a TEE will measure, nor that the publisher's image is free of holes.
    Verify(ImageVerify),
}

#[derive(Debug, Args)]
pub(crate) struct ImageVerify {
    /// The bundle directory
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) trust: TrustWords,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_days_or_times() {
        assert_eq!(parse_expiry("90d"), Ok(Expiry::Days(90)));
        let time = Timestamp::from_seconds(1_814_313_600).unwrap();
        for text in ["2027-06-30", "2027-06-30T00:00:00Z"] {
            assert_eq!(parse_expiry(text), Ok(Expiry::At(time)), "{text}");
        }
        for text in ["", "0d", "-1d", "90", "90 days", "36501d", "2027-02-30", "tomorrow"] {
            assert!(parse_expiry(text).is_err(), "{text}");
        }
    }
}
