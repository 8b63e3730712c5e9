//! Words of the verbs around signed releases.

use std::path::PathBuf;

use clap::Args;

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
