//! Words of the verbs that look into images.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The image directory
    pub(crate) image: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// An image directory
    pub(crate) before: PathBuf,
    /// Another one
    pub(crate) after: PathBuf,
}

/// `bullion build --verify` runs this as another process.
#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// The number that the user has in the build's user namespace
    #[arg(long)]
    pub(crate) uid: u32,
    /// The host name in its UTS namespace
    #[arg(long)]
    pub(crate) host_name: String,
    /// The component that made the guest binary, as the manifest has it
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) build: super::Build,
}
