//! The configuration: environment variables named `TEESIM_*`, read once when the library is loaded.
//!
//! | variable | meaning |
//! |---|---|
//! | `TEESIM_REPORT` | file that gets the report; none is written without it |
//! | `TEESIM_PAGES` | existing directory that gets the content of every page run, one file each |
//! | `TEESIM_KEEP_RUNNING` | `1`: QEMU goes on after the launch with vCPUs that never run; else it exits with 0 |
//! | `TEESIM_FW_CFG` | `1`, or a directory that gets what is read: once launched, the first vCPU reads all of fw_cfg as firmware would |
//! | `TEESIM_PCI` | where firmware has placed PCI devices by then: writes to configuration space, `BUS:DEVICE.FUNCTION/REGISTER=VALUE` in hex |
//! | `TEESIM_QUOTE` | `1`: once launched, a TD asks for a quote of bytes that count up, and the report says what came of it |
//! | `TEESIM_SMT` | `0`: the host runs without SMT, so that a policy without the SMT bit is accepted |

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::firmware::ConfigWrite;

/// What the environment asked for.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Where the report goes.
    pub(crate) report: Option<PathBuf>,
    /// Where page contents go.
    pub(crate) pages: Option<PathBuf>,
    /// Whether QEMU lives on after the launch.
    pub(crate) keep_running: bool,
    /// Whether fw_cfg is read, and the directory that gets it.
    pub(crate) fw_cfg: Option<Option<PathBuf>>,
    /// Where PCI devices are placed before; `None` where that cannot be read.
    pub(crate) placement: Option<Vec<ConfigWrite>>,
    /// Whether a TD asks for a quote.
    pub(crate) quote: bool,
    /// Whether the simulated host has SMT off.
    pub(crate) smt_disabled: bool,
}

/// The configuration.
pub(crate) fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    // QEMU changes its directory when it becomes a daemon.
    let path = |name| std::env::var_os(name).and_then(|path| std::path::absolute(path).ok());
    CONFIG.get_or_init(|| Config {
        report: path("TEESIM_REPORT"),
        pages: path("TEESIM_PAGES"),
        keep_running: std::env::var_os("TEESIM_KEEP_RUNNING").is_some_and(|value| value == "1"),
        fw_cfg: std::env::var_os("TEESIM_FW_CFG").map(|value| if value == "1" { None } else { path("TEESIM_FW_CFG") }),
        placement: std::env::var("TEESIM_PCI")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(ConfigWrite::parse)
            .collect(),
        quote: std::env::var_os("TEESIM_QUOTE").is_some_and(|value| value == "1"),
        smt_disabled: std::env::var_os("TEESIM_SMT").is_some_and(|value| value == "0"),
    })
}
