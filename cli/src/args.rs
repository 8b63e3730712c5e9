//! What was typed. Each verb's own words are explained in its `--help`.

mod component;
mod gpu;
mod host;
mod idblock;
mod inspect;
mod look;
mod measure;
mod publish;
mod selftest;
mod vm;

use std::path::PathBuf;

use ::measure::uefi::load_option::PciSlot;
use clap::{Args, Parser, Subcommand};
use spec::Tee;

pub(crate) use component::{
    BuildComponent, Component, ComponentAction, ComponentName, ExplainComponent, ListComponents, Sandbox,
};
pub(crate) use gpu::{Gpu, GpuAction};
pub(crate) use host::{Host, HostAction, HostCheck, HostPrepare, HostRestore};
pub(crate) use idblock::{CreateIdBlock, IdBlock, IdBlockAction, VerifyIdBlock};
pub(crate) use inspect::{Derive, EventLog, EventLogAction, Explain, Firmware, FirmwareAction, LogFile, ReplayLog};
pub(crate) use look::{Describe, Diff, DiffTpm, Rebuild};
pub(crate) use measure::{Measure, MeasureFiles, MeasureSnp, MeasureTdx, MeasureTpm, SevMode, Shapes};
pub(crate) use publish::{Expiry, ImageAction, ImageVerify, ImageWords, Keygen, Publish, ReleaseWords, TrustWords};
pub(crate) use selftest::{Selftest, SelftestAction, SelftestGpu};
pub(crate) use vm::{VmAction, VmInstall, VmPlan, VmUninstall, VmVerb};

/// Casts golden images for confidential VMs, weighs them before anyone launches them, and launches them.
#[derive(Debug, Parser)]
#[command(name = "bullion", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Print data as JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but data, warnings and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// The cache of locked inputs [default: $BULLION_CACHE, else $XDG_CACHE_HOME/bullion, else ~/.cache/bullion]
    #[arg(long, global = true, value_name = "DIR", visible_alias = "store")]
    pub(crate) cache_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0 done                      4 an input does not match its pin, or cannot be had
  1 internal fault            5 a signature is invalid or out of date
  2 usage                     6 authentic, but refused by policy or measurement
  3 the host cannot do this   7 the guest failed";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Resolve a recipe and pin every input by SHA-256 (network)
    Lock(Lock),
    /// Download what a lock names into the cache (network)
    Fetch(Fetch),
    /// Write what locks name into a directory, from which images can be built for ever (network, where the cache lacks something)
    Vendor(Vendor),
    /// Build an image directory from locked inputs (no network)
    Build(Build),
    /// Compile what images are made of from locked sources, with locked compilers, in a sandbox
    Component(Component),
    /// Build an image as another user, on another host, elsewhere: what `build --verify` runs
    #[command(hide = true)]
    Rebuild(Rebuild),
    /// Tell what is in an image: sizes, packages, accounts, what is measured and by what, what it can do
    Describe(Describe),
    /// Compare two images: packages, files, artifacts, measured values, and which change moves which value
    ///
    /// Every file must be that of its image's manifest. Measured values are those of the manifests; what one lacks of the other is
    /// predicted: registers of TDX for direct boots and from the disk, launch digests of SEV-SNP, and PCRs where a machine is named.
    /// Exit code 0: the same to the byte. 6: something differs.
    Diff(Diff),
    /// Predict launch measurements
    Measure(Measure),
    /// Say which input is not as expected when a measurement is not
    ///
    /// An event log is laid beside the predicted one, and the input behind every event that differs is named: kernel, command
    /// line, initrd, ACPI tables, memory, keys. Of a quote the registers are compared; with the log behind it, the events.
    ///
    /// Of a SEV-SNP launch there is one digest and no log, so the inputs that people get wrong are varied, alone and together:
    /// vCPU count, CPU model, slips in the command line, no initrd, kernel-hashes=off, SEV_FEATURES, the generation of the
    /// host's kernel, and what is named with --firmware, --kernel, --initrd and --cmdline. The answer with the fewest
    /// differences is printed.
    ///
    /// Exit code 0: as expected. 6: not as expected. 4: cannot tell, because something is not predicted. Nothing here says that
    /// evidence is authentic.
    Explain(Explain),
    /// Read event logs, and compute the registers they lead to
    #[command(name = "eventlog")]
    EventLog(EventLog),
    /// Sign and check ID blocks for SEV-SNP launches
    #[command(name = "idblock")]
    IdBlock(IdBlock),
    /// Look into firmware images, and derive them
    Firmware(Firmware),
    /// Make a key pair to sign releases and ID blocks with
    Keygen(Keygen),
    /// Look at this host
    Host(Host),
    /// List NVIDIA GPUs and NVSwitches, set their confidential-computing mode, bring them back
    Gpu(Gpu),
    /// Check what only real hardware can show
    Selftest(Selftest),
    /// Sign an image, and copy it with its signed release into a bundle directory
    Publish(Publish),
    /// Check a published bundle
    Image(ImageWords),
    /// Look at VM descriptions
    Vm(VmVerb),
    /// Start a VM, supervise it, stream its console, end with it
    Launch(Launch),
    /// List your VMs, running and ended
    Ps,
    /// Print a VM's console
    Logs(Logs),
    /// Type on the serial line of a VM that runs, and see what its guest writes
    ///
    /// For images with a shell there, which no release has. The last lines are shown first. One types at a time; who is there is said to
    /// others. On a terminal what the guest writes drives it as it likes, and Ctrl-] leaves: the VM goes on. A pipe is typed to its
    /// end, and what the guest writes is printed until the VM has ended. A serial line knows no size of a terminal: where programs
    /// in the guest need it, `stty rows 50 cols 160` there tells them.
    Console(Console),
    /// Stop a VM
    Stop(Stop),
    /// Forget VMs that have ended, with their logs
    Rm(Rm),
    /// Print what is known about the VMs as Prometheus metrics
    Metrics(Metrics),
    /// Print a script that completes this program's words in a shell
    Completions(Completions),
    /// Write manual pages
    Man(Man),
    /// Show or prune the cache of locked inputs
    Cache(Cache),
    /// Run a program of a locked tree of tools
    Exec(Exec),
    /// The inside of `component build`: not for people
    #[command(hide = true)]
    Sandbox(Sandbox),
}

/// Where packages come from.
#[derive(Debug, Args)]
pub(crate) struct Network {
    /// The Debian mirror: http, https or file [default: $BULLION_MIRROR, else the host's apt configuration]
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Where the lock is written [default: beside the recipe, with the ending .lock]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Resolve again, even if the lock there fits the recipe. With --update=PACKAGE (repeatable) everything else stays as it is
    /// locked, unless the new version needs another
    #[arg(long, value_name = "PACKAGE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) update: Vec<String>,
    /// Only show what would change
    #[arg(long)]
    pub(crate) diff: bool,
    /// Do not download the packages
    #[arg(long)]
    pub(crate) no_fetch: bool,
    /// Mark the lock as unpublished: what is built from it is never called golden
    #[arg(long)]
    pub(crate) unpublished: bool,
    /// Accept a release file of this suite that is past its Valid-Until; recorded in the lock
    #[arg(long, value_name = "SUITE")]
    pub(crate) accept_expired: Vec<String>,
    /// OpenPGP keys that may sign release files [default: the host's Debian archive keyring]
    #[arg(long, value_name = "FILE")]
    pub(crate) keyring: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Vendor {
    /// Recipes whose locked inputs are written
    #[arg(required = true)]
    pub(crate) recipes: Vec<PathBuf>,
    /// The directory to write, for `build --store`; what is there already is kept
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// Recipes whose locks are fetched
    pub(crate) recipes: Vec<PathBuf>,
    /// Also fetch the QEMU tree that `launch` runs
    #[arg(long)]
    pub(crate) vmm: bool,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// The image directory to make
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The lock [default: beside the recipe, with the ending .lock]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// The guest binary [default: $BULLION_GUEST, else what scripts/build-guest made, else the package's, else beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
    /// Make an image of class release or none: the guest binary is that of the recipe's component, compiled in a sandbox where it is
    /// not in the cache
    #[arg(long, conflicts_with = "guest")]
    pub(crate) release: bool,
    /// How many threads work [default: as many as there are processors]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) jobs: Option<u16>,
    /// Replace an image directory that is already there
    #[arg(long)]
    pub(crate) replace: bool,
    /// Leave the expected measurements out of the manifest
    #[arg(long)]
    pub(crate) no_references: bool,
    /// Build a second time in other circumstances (paths, user, host name, umask, time zone, locale, environment, threads,
    /// order and times of the inputs) and make no image unless both are the same to the byte. Not varied: clock, kernel,
    /// processor, and this program
    #[arg(long)]
    pub(crate) verify: bool,
    // For the RTMR0 of the recipe's TDX shapes.
    #[command(flatten)]
    pub(crate) qemu: QemuChoice,
}

/// A TEE on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TeeWord {
    Snp,
    Tdx,
}

impl From<TeeWord> for Tee {
    fn from(word: TeeWord) -> Self {
        match word {
            TeeWord::Snp => Self::Snp,
            TeeWord::Tdx => Self::Tdx,
        }
    }
}

/// Which QEMU is run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct QemuChoice {
    /// A QEMU to run instead of the pinned one
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<PathBuf>,
    /// A recipe (with its lock beside it) of a QEMU tree instead of the pinned one
    #[arg(long, value_name = "RECIPE", conflicts_with = "qemu")]
    pub(crate) vmm: Option<PathBuf>,
}

impl QemuChoice {
    /// Whether the pinned one is meant.
    pub(crate) fn is_default(&self) -> bool {
        self.qemu.is_none() && self.vmm.is_none()
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct Launch {
    /// The VM description
    pub(crate) vm: PathBuf,
    /// Run the launch of an SNP or TDX guest against a simulator of the TEE, and compare what it measured with the prediction.
    /// Proves the prediction for exactly this command line; the guest itself does not run
    #[arg(long)]
    pub(crate) simulate: bool,
    #[command(flatten)]
    pub(crate) qemu: QemuChoice,
    /// The image directory, instead of the one that the VM description names
    #[arg(long, value_name = "DIR")]
    pub(crate) image: Option<PathBuf>,
    /// Print the plan and start nothing: the same as `bullion vm plan`
    #[arg(long)]
    pub(crate) plan: bool,
    /// Boot even if an artifact does not hash to the manifest: to see the guest itself refuse it. Without a TEE only
    #[arg(long)]
    pub(crate) dangerously_skip_artifact_verification: bool,
    /// Let QEMU run with all rights of this user, instead of in a place of its own: to find out what it lacks there
    #[arg(long)]
    pub(crate) dangerously_unconfined: bool,
    #[command(flatten)]
    pub(crate) release: ReleaseWords,
    /// Power the guest off as soon as it is ready
    #[arg(long)]
    pub(crate) until_ready: bool,
    /// Type on the guest's serial line, for images with a shell there. What the guest writes drives this terminal as it likes.
    /// Ctrl-] gives the terminal back; the guest runs on
    #[arg(long, conflicts_with = "plan")]
    pub(crate) console: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The VM's name
    pub(crate) name: String,
    /// What the workload printed, where its output is given to the host, instead of the console
    #[arg(long)]
    pub(crate) workload: bool,
    /// Go on printing as the log grows
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Console {
    /// The VM's name
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The VM's name
    pub(crate) name: String,
    /// Seconds the guest gets before it is killed [default: the VM description's]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86400))]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The VMs' names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// Write them to this file, whole or not at all, instead of printing them: for the textfile collector of node_exporter, which
    /// reads *.prom
    #[arg(long, value_name = "FILE")]
    pub(crate) textfile: Option<PathBuf>,
    /// Also ask the GPUs and NVSwitches that nobody has: wakes those that sleep, and waits for those that boot
    #[arg(long)]
    pub(crate) gpus: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory to write them to, one page a verb
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) action: CacheAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheAction {
    /// List what is kept
    List,
    /// Check every file against its digest
    Verify,
    /// Take files, and print their SHA-256: for what `fetch` cannot reach
    Add {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Remove what is not kept
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Prune {
        /// Recipes whose locks' inputs are kept
        #[arg(long, value_name = "RECIPE", group = "what")]
        keep: Vec<PathBuf>,
        /// Keep the pinned QEMU tree, too
        #[arg(long, group = "what")]
        vmm: bool,
        /// Keep nothing but what is in use
        #[arg(long, group = "what", conflicts_with_all = ["keep", "vmm"])]
        all: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The recipe of the tree, of kind "tree"
    pub(crate) recipe: PathBuf,
    /// The program, as the recipe names it
    pub(crate) program: String,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

fn parse_u64(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("\"{text}\" is not a number: write it like 0xa10f11"))
}

fn parse_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_u64(text)?).map_err(|_| format!("\"{text}\" does not fit 32 bits"))
}

/// A place on the root bus, written as `lspci` does without a bus: `05.0`.
fn parse_pci_slot(text: &str) -> Result<PciSlot, String> {
    let wrong = || format!("\"{text}\" is no place on a PCI bus: write device and function in hex, as in 05.0");
    let (device, function) = text.split_once('.').ok_or_else(wrong)?;
    let number = |digits: &str, below: u8| {
        let is_hex = (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(digits, 16).ok().filter(|number| is_hex && *number < below).ok_or_else(wrong)
    };
    Ok(PciSlot { device: number(device, 32)?, function: number(function, 8)? })
}

fn parse_sha256(text: &str) -> Result<spec::Sha256Digest, String> {
    text.to_ascii_lowercase().parse().map_err(|_| format!("\"{text}\" is not a SHA-256: it has 64 hex digits"))
}

fn parse_sha384(text: &str) -> Result<spec::Sha384Digest, String> {
    text.to_ascii_lowercase().parse().map_err(|_| format!("\"{text}\" is not a SHA-384: it has 96 hex digits"))
}
