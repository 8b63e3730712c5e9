//! The words of `bullion component`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Component {
    #[command(subcommand)]
    pub(crate) action: ComponentAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ComponentAction {
    /// Compile a component, unless its result is in the cache (no network: `bullion fetch` brings its inputs)
    Build(BuildComponent),
    /// List the components of a directory, their keys, and which are in the cache
    List(ListComponents),
    /// Say what goes into a component, and what has changed since an image was built with it
    Explain(ExplainComponent),
}

/// Which component.
#[derive(Debug, Args)]
pub(crate) struct ComponentName {
    /// Its recipe, or its name in --directory
    pub(crate) name: PathBuf,
    /// Where components are looked up by name
    #[arg(long, value_name = "DIR", default_value = "image-recipes/components")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BuildComponent {
    #[command(flatten)]
    pub(crate) component: ComponentName,
    /// How many jobs run at once [default: as many as there are processors]. The result does not depend on it
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) jobs: Option<u16>,
    /// Compile although the result is in the cache, or twice where it is not, and compare
    #[arg(long)]
    pub(crate) verify: bool,
    /// Copy the result into this directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ListComponents {
    /// The directory
    #[arg(default_value = "image-recipes/components")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainComponent {
    #[command(flatten)]
    pub(crate) component: ComponentName,
    /// An image directory: compare with the inputs that its component had
    #[arg(long, value_name = "DIR")]
    pub(crate) image: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Sandbox {
    /// What the process that started this one wrote
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<OsString>,
}
