//! The boot, step by step: from the measured initrd to the verified root file system.
//!
//! Every check comes before the step that relies on it, and the switch to the root file system comes last: nothing on any
//! disk is used before the whole guest is known to be what it says it is.

use std::path::Path;

use spec::Tee;
use spec::agent::{Configuration, Identity, Measurements, ROOT_DISK_SERIAL};
use spec::guest_config::{DISK_SERIAL, GuestConfig};
use spec::vm::is_hostname;
use spec::volume::{Carrier, GuestVolume};

use crate::admission::{Drive, Sign};
use crate::agent::Guest;
use crate::command_line::{self, Parameters, RootParameters};
use crate::device_mapper::{self, Target};
use crate::failure::{Failure, OrFail as _, Stage};
use crate::root_device::RootDevice;
use crate::{
    admission, configuration, disks, gpus, modules, mounts, process, root_device, switch_root, sysctl, tee, uptime,
    verity,
};

/// The host name of a guest that was given none.
const DEFAULT_HOSTNAME: &str = "bullion";

/// A guest that has started.
#[derive(Debug)]
pub(crate) struct Started {
    root: RootParameters,
    /// Whether the image is of class release.
    pub(crate) release: bool,
    tee: Tee,
    hostname: String,
    configuration: Configuration,
    /// What it was given; empty where it was given nothing.
    pub(crate) config: GuestConfig,
    /// The NVMe drives of its volumes, in the order of the volumes that are on one.
    pub(crate) drives: Vec<Drive>,
    kernel_release: String,
}

/// Starts the guest.
pub(crate) fn start() -> Result<Started, Failure> {
    process::harden()?;
    mounts::mount_kernel_filesystems()?;
    sysctl::harden()?;
    admission::close()?;
    let text = std::fs::read_to_string("/proc/cmdline").or_fail_doing(Stage::CommandLine, "/proc/cmdline")?;
    let Parameters { root, release } = command_line::parse(&text).or_fail(Stage::CommandLine)?;
    let tee = tee::detect();
    modules::load_all(tee)?;
    admission::bind()?;
    let found = root_device::wait_for(&root).or_fail(Stage::RootDevice)?;
    let device = open_root(&found, &root)?;
    let (config, hostname, configuration) = configure(tee)?;
    let root_devices: Vec<String> = found.devices().iter().map(|device| device.name.clone()).collect();
    let on_drives = config.volumes.iter().filter(|volume| volume.on == Carrier::Nvme).count();
    let drives = admission::drives(on_drives, &root_devices)?;
    let (network, gpus) = (config.network.is_some(), config.gpus.is_some());
    let signs = signs(&config);
    let declared =
        admission::Declared { network, gpus, signs: signs.clone(), root: root_devices, drives: drives.clone() };
    admission::settle(&declared, &undeclared(&found, &config))?;
    for sign in signs {
        modules::load_for_device(sign.module())?;
        admission::bind_sign(sign)?;
    }
    if !config.asks_for_something() {
        modules::load_no_more()?;
    }
    switch_root::switch_root(&device)?;
    let kernel = nix::sys::utsname::uname().or_fail_doing(Stage::Start, "uname")?;
    let kernel_release = kernel.release().to_string_lossy().into_owned();
    Ok(Started { root, release, tee, hostname, configuration, config, drives, kernel_release })
}

/// Checks the top of the root file system's tree and opens it. Returns the node of the verified device.
fn open_root(device: &RootDevice, root: &RootParameters) -> Result<String, Failure> {
    verity::check_top(device, root).or_fail(Stage::Verity)?;
    let (sectors, parameters) = verity::table(device, root);
    let target = Target { name: ROOT_DISK_SERIAL, kind: "verity", read_only: true, sectors, parameters: &parameters };
    device_mapper::open(&target, Stage::Verity)
}

/// The virtio disks that are neither the root's, nor the configuration's, nor a volume of it.
fn undeclared(root: &RootDevice, config: &GuestConfig) -> Vec<String> {
    let on_disks = config.volumes.iter().filter(|volume| volume.on == Carrier::Virtio);
    let mut declared: Vec<String> = on_disks.map(GuestVolume::serial).collect();
    declared.extend([ROOT_DISK_SERIAL.to_owned(), DISK_SERIAL.to_owned()]);
    let holds_root = |disk: &String| root.devices().iter().any(|device| disks::is_or_is_part_of(&device.name, disk));
    disks::others(&declared).into_iter().filter(|disk| !holds_root(disk)).collect()
}

/// The devices by which the guest is to say how it is.
fn signs(config: &GuestConfig) -> Vec<Sign> {
    let signs = [(config.watchdog.is_some(), Sign::Watchdog), (config.pvpanic, Sign::Pvpanic)];
    signs.into_iter().filter_map(|(named, sign)| named.then_some(sign)).collect()
}

/// Reads the configuration, compares it with the guest's own report and applies it.
fn configure(tee: Tee) -> Result<(GuestConfig, String, Configuration), Failure> {
    let config = configuration::read()?;
    let report = tee::own_report(tee).or_fail(Stage::Report)?;
    let bound = configuration::bind(config.as_ref(), &report).or_fail(Stage::Configuration)?;
    let hostname = hostname(config.as_ref())?;
    nix::unistd::sethostname(&hostname).or_fail_doing(Stage::Configuration, "setting the host name")?;
    let config = config.unwrap_or_default();
    // Its owner checked it too; a guest that cannot do what it says must not do half of it.
    if let Some((_, message)) = config.fault() {
        return Err(Failure::new(Stage::Configuration, message));
    }
    if let Some(expected) = &config.gpus {
        gpus::check(expected, Path::new("/sys")).or_fail(Stage::Gpus)?;
    }
    Ok((config, hostname, bound))
}

fn hostname(config: Option<&GuestConfig>) -> Result<String, Failure> {
    match config.and_then(|config| config.hostname.as_deref()) {
        None => Ok(DEFAULT_HOSTNAME.to_owned()),
        Some(name) if is_hostname(name) => Ok(name.to_owned()),
        Some(name) => Err(Failure::new(Stage::Configuration, format_args!("\"{name}\" is not a host name"))),
    }
}

impl Guest for Started {
    fn identity(&self) -> Identity {
        Identity {
            guest_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: self.kernel_release.clone(),
            root_hash: self.root.root_hash,
            tee: self.tee,
            hostname: self.hostname.clone(),
            configuration: self.configuration.clone(),
            uptime_ms: self.uptime_ms(),
        }
    }

    fn measurements(&self) -> Result<Measurements, String> {
        tee::own_report(self.tee).map(|report| report.measurements()).map_err(|error| error.to_string())
    }

    fn uptime_ms(&self) -> u64 {
        uptime::uptime_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_checked_here_too() {
        let named = |name: &str| GuestConfig { hostname: Some(name.to_owned()), ..GuestConfig::default() };
        assert_eq!(hostname(None).unwrap(), "bullion");
        assert_eq!(hostname(Some(&named("web-1"))).unwrap(), "web-1");
        for bad in ["", "a b", "-a", "a\nb", &"a".repeat(64)] {
            assert_eq!(hostname(Some(&named(bad))).unwrap_err().stage, Stage::Configuration, "{bad}");
        }
    }
}
