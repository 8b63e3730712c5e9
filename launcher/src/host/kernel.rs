//! The kernel: its version, command line, build configuration, modules and their parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::{names, read_trimmed};

/// The options of a kernel's build that decide whether guests run and devices can be passed to them.
const OPTIONS: [&str; 8] = [
    "CONFIG_KVM_AMD_SEV",
    "CONFIG_KVM_INTEL_TDX",
    "CONFIG_INTEL_TDX_HOST",
    "CONFIG_IOMMUFD",
    "CONFIG_VFIO_DEVICE_CDEV",
    "CONFIG_AMD_IOMMU",
    "CONFIG_INTEL_IOMMU",
    "CONFIG_VHOST_VSOCK",
];
/// The parameters that decide it at run time: module and parameter.
const PARAMETERS: [(&str, &str); 5] = [
    ("kvm_amd", "sev"),
    ("kvm_amd", "sev_es"),
    ("kvm_amd", "sev_snp"),
    ("kvm_intel", "tdx"),
    ("vfio_iommu_type1", "dma_entry_limit"),
];

/// A kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The command line it was booted with.
    pub command_line: Vec<String>,
    /// Options of its build, as far as they matter and its configuration is on this host; `n` where one is not set.
    pub options: Option<BTreeMap<String, String>>,
    /// Modules that are loaded or built in and have a directory of their own.
    pub modules: BTreeSet<String>,
    /// Module parameters, as `module.parameter`.
    pub parameters: BTreeMap<String, String>,
    /// The current clock source.
    pub clock_source: String,
    /// Physical addresses of RAM: the end of the last range, as root sees it; 0 where it is hidden.
    pub end_of_memory: u64,
    /// Whether this process may lock all memory (CAP_IPC_LOCK).
    pub may_lock_all_memory: bool,
    /// Whether a program without capabilities may make a user namespace that is of use to it (user_namespaces(7), and what Debian and
    /// Ubuntu have added).
    pub may_unshare_users: bool,
}

impl Kernel {
    pub(super) fn read(root: &Path) -> Self {
        let text = |path: &str| read_trimmed(&root.join(path));
        let release = text("proc/sys/kernel/osrelease").unwrap_or_default();
        let parameters = PARAMETERS.iter().filter_map(|(module, parameter)| {
            let value = text(&format!("sys/module/{module}/parameters/{parameter}"))?;
            Some((format!("{module}.{parameter}"), value))
        });
        let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        Self {
            command_line: text("proc/cmdline").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            options: text(&format!("boot/config-{release}")).map(|config| options(&config)),
            modules: names(&root.join("sys/module")).into_iter().collect(),
            parameters: parameters.collect(),
            clock_source: text(clock).unwrap_or_default(),
            end_of_memory: text("proc/iomem").map_or(0, |map| end_of_memory(&map)),
            may_lock_all_memory: text("proc/self/status").is_some_and(|status| has_capability(&status, CAP_IPC_LOCK)),
            may_unshare_users: {
                let is =
                    |path: &str, value: &str| text(&format!("proc/sys/{path}")).is_some_and(|found| found == value);
                !is("user/max_user_namespaces", "0")
                    && !is("kernel/unprivileged_userns_clone", "0")
                    && !is("kernel/apparmor_restrict_unprivileged_userns", "1")
            },
            release,
        }
    }

    /// Major and minor number of the release; zeros where it has none.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Whether an option was built in or as a module; none where the configuration is not on this host.
    pub fn option(&self, name: &str) -> Option<bool> {
        self.options.as_ref().map(|options| options.get(name).is_some_and(|value| value == "y" || value == "m"))
    }

    /// Whether a module parameter is on; none where the module is not loaded.
    pub fn parameter_is_on(&self, name: &str) -> Option<bool> {
        self.parameters.get(name).map(|value| matches!(value.as_str(), "Y" | "y" | "1"))
    }

    /// Whether the command line has the word.
    pub fn was_told(&self, word: &str) -> bool {
        self.command_line.iter().any(|told| told == word)
    }
}

fn options(config: &str) -> BTreeMap<String, String> {
    let value = |name: &str| {
        let set = config.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        set.unwrap_or("n").to_owned()
    };
    OPTIONS.iter().map(|name| ((*name).to_owned(), value(name))).collect()
}

/// CAP_IPC_LOCK (include/uapi/linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

fn has_capability(status: &str, number: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    effective.is_some_and(|mask| mask >> number & 1 == 1)
}

/// The end of the last range of `/proc/iomem` that is RAM.
fn end_of_memory(map: &str) -> u64 {
    let ends = map.lines().filter_map(|line| {
        let (range, what) = line.split_once(" : ")?;
        (what == "System RAM").then_some(())?;
        u64::from_str_radix(range.split_once('-')?.1.trim(), 16).ok()
    });
    ends.max().map_or(0, |last| last.saturating_add(1)).max(1) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_options() {
        let version = |release: &str| Kernel { release: release.to_owned(), ..Kernel::default() }.version();
        assert_eq!(version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(version("7.3.4+deb14-amd64"), (7, 3));
        assert_eq!(version("odd"), (0, 0));
        let found = options("CONFIG_IOMMUFD_DRIVER=y\nCONFIG_IOMMUFD=m\n# CONFIG_KVM_INTEL_TDX is not set\n");
        assert_eq!((found["CONFIG_IOMMUFD"].as_str(), found["CONFIG_KVM_INTEL_TDX"].as_str()), ("m", "n"));
    }

    #[test]
    fn memory_ends_where_the_last_ram_ends() {
        assert_eq!(
            end_of_memory(
                "00001000-0009ffff : System RAM\n100000000-207fffffff : System RAM\n3000000000-4fffffffff : PCI"
            ),
            0x20_7fff_ffff
        );
        assert_eq!(end_of_memory("00000000-00000000 : System RAM"), 0, "as it looks to others than root");
        assert_eq!(end_of_memory("nonsense"), 0);
    }
}
