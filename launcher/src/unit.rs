//! The systemd unit of one VM (systemd.service(5), systemd.exec(5)): what starts it, and what little of the host it may touch.
//!
//! A pure text: the same VM, paths and words give the same unit. The supervisor says when the guest is ready and gives signs of
//! life (`notify`); supervisor and QEMU are one control group and end together. What a VM does not ask for, its unit does not
//! allow: no network without a NIC, no device but those that it is given.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use spec::vm::{RestartPolicy, Vm};
use spec::{Diagnostic, Outcome, Tee};

use crate::volume;

/// The first line of every unit that Bullion has written: what has another is not ours to replace or remove.
pub const MARK: &str = "# Written by `bullion vm install`, removed by `bullion vm uninstall`.";

/// Where runtime state, logs and releases of a VM under systemd are: those of root.
const RUN: &str = "/run/bullion";
const STATE: &str = "/var/log/bullion";
/// Directories that `ProtectHome` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Directories that `PrivateTmp` replaces.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// How long the supervisor may be silent. It does nothing that takes a second once the guest is ready.
const WATCHDOG_S: u64 = 60;
/// What a launch may take beside the guest's own time: hashing an image, asking QEMU, preparing devices.
const BEFORE_QEMU_S: u64 = 120;
/// What a stop may take beside the guest's own time.
const AFTER_GUEST_S: u64 = 15;

/// What the supervisor takes beside QEMU: its peak is less than a third of this.
const SUPERVISOR_BYTES: u64 = 64 << 20;
const SUPERVISOR_TASKS: u32 = 64;

/// What a unit is made of. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    /// The VM.
    pub vm: &'a Vm,
    /// Its description.
    pub description: &'a Path,
    /// Its image directory.
    pub image: &'a Path,
    /// The program `bullion`.
    pub program: &'a Path,
    /// Words that `bullion launch` is given besides the description.
    pub words: &'a [String],
    /// The cache directory.
    pub cache: &'a Path,
    /// Other files that a launch reads: keys, another QEMU.
    pub reads: &'a [PathBuf],
}

/// A VM that cannot be written as a unit.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// A path or word that would mean something else there.
    #[error("\"{0}\" cannot stand in a unit")]
    Word(String),
}

impl Diagnostic for UnitError {
    fn outcome(&self) -> Outcome {
        Outcome::Usage
    }
    fn hint(&self) -> Option<String> {
        Some("units hold paths of letters, digits and /._-+,@= only".to_owned())
    }
}

/// The file name of a VM's unit.
pub fn file_name(vm: &str) -> String {
    format!("bullion@{vm}.service")
}

impl Unit<'_> {
    /// The text of the unit.
    pub fn text(&self) -> Result<String, UnitError> {
        let mut text = format!("{MARK}\n");
        for (section, lines) in [("Unit", self.unit()?), ("Service", self.service()?), ("Install", install())] {
            let _ = write!(text, "\n[{section}]\n");
            for (key, value) in lines {
                let _ = writeln!(text, "{key}={value}");
            }
        }
        Ok(text.replacen("\n\n[Unit]", "\n[Unit]", 1))
    }

    fn unit(&self) -> Result<Lines, UnitError> {
        let vm = self.vm;
        let mut lines = Lines::new();
        lines.push(("Description", format!("Bullion VM {} ({})", vm.name, vm.tee)));
        lines.push(("Documentation", "man:bullion-launch(1)".to_owned()));
        if !vm.host.nics.is_empty() {
            lines.push(("Wants", "network-online.target".to_owned()));
            lines.push(("After", "network-online.target".to_owned()));
        }
        let volumes = volume::volumes(vm);
        let files = volumes.iter().filter(|volume| !volume.block_device).map(|volume| volume.path.as_path());
        let mounts: Vec<&Path> = [self.description, self.image, self.cache].into_iter().chain(files).collect();
        lines.push(("RequiresMountsFor", words(mounts)?));
        Ok(lines)
    }

    fn service(&self) -> Result<Lines, UnitError> {
        let mut lines = self.life()?;
        lines.extend(self.files()?);
        lines.extend(self.devices()?);
        lines.extend(self.rights());
        Ok(lines)
    }

    /// Start, stop, and what happens in between.
    fn life(&self) -> Result<Lines, UnitError> {
        let host = &self.vm.host;
        let mut start = vec![word(self.program)?, "--quiet".to_owned(), "--cache-dir".to_owned(), word(self.cache)?];
        start.extend(["launch".to_owned(), word(self.description)?]);
        for more in self.words {
            start.push(word(Path::new(more))?);
        }
        let restarts = host.restart.is_some_and(|restart| restart.policy != RestartPolicy::Never);
        let start_s = host.ready_timeout_s.unwrap_or(120) + BEFORE_QEMU_S;
        let stop_s = host.stop_timeout_s.unwrap_or(10) + AFTER_GUEST_S;
        Ok(vec![
            ("Type", "notify".to_owned()),
            ("NotifyAccess", "main".to_owned()),
            ("Environment", format!("BULLION_RUN_DIR={RUN} BULLION_STATE_DIR={STATE}")),
            ("ExecStart", start.join(" ")),
            // The supervisor itself starts a guest again that has ended: systemd, a supervisor that was killed.
            ("Restart", if restarts { "on-abnormal" } else { "no" }.to_owned()),
            ("RestartSec", "5".to_owned()),
            ("TimeoutStartSec", start_s.to_string()),
            ("TimeoutStopSec", stop_s.to_string()),
            ("WatchdogSec", WATCHDOG_S.to_string()),
            // The supervisor is asked, and stops the guest in its own way; what is left of the group is killed.
            ("KillMode", "mixed".to_owned()),
            ("OOMPolicy", "stop".to_owned()),
            ("Delegate", "yes".to_owned()),
            // The console has a log of its own, of bounded size: the guest does not write into the host's journal.
            ("StandardOutput", "null".to_owned()),
            ("StandardError", "journal".to_owned()),
        ])
    }

    fn files(&self) -> Result<Lines, UnitError> {
        let volumes = volume::volumes(self.vm);
        let files: Vec<_> = volumes.iter().filter(|volume| !volume.block_device).collect();
        let written = files.iter().filter(|volume| !volume.read_only).map(|volume| volume.path.as_path());
        let written: Vec<&Path> = [self.cache].into_iter().chain(written).collect();
        let read = files.iter().filter(|volume| volume.read_only).map(|volume| volume.path.as_path());
        let named = [self.description, self.image, self.program];
        let read: Vec<&Path> = named.into_iter().chain(self.reads.iter().map(PathBuf::as_path)).chain(read).collect();
        let below = |path: &&Path, places: &[&str]| places.iter().any(|place| path.starts_with(place));
        let all = || written.iter().chain(&read);
        let mut lines = vec![
            ("RuntimeDirectory", "bullion".to_owned()),
            ("RuntimeDirectoryMode", "0700".to_owned()),
            // Other VMs are there, too.
            ("RuntimeDirectoryPreserve", "yes".to_owned()),
            ("LogsDirectory", "bullion".to_owned()),
            ("LogsDirectoryMode", "0700".to_owned()),
            ("UMask", "0077".to_owned()),
            ("ProtectSystem", "strict".to_owned()),
            ("ReadWritePaths", words(written.iter().copied())?),
        ];
        if all().any(|path| below(path, &HOMES)) {
            lines.push(("ProtectHome", "tmpfs".to_owned()));
            let bind = |paths: &[&Path]| {
                let paths: Vec<_> = paths.iter().filter(|path| below(path, &HOMES)).copied().collect();
                words(paths)
            };
            let binds = [("BindPaths", bind(&written)?), ("BindReadOnlyPaths", bind(&read)?)];
            lines.extend(binds.into_iter().filter(|(_, paths)| !paths.is_empty()));
        } else {
            lines.push(("ProtectHome", "yes".to_owned()));
        }
        let private = !all().any(|path| below(path, &TEMPORARY));
        lines.push(("PrivateTmp", if private { "yes" } else { "no" }.to_owned()));
        lines.push(("PrivateMounts", "yes".to_owned()));
        Ok(lines)
    }

    /// The devices of this VM, and no other.
    fn devices(&self) -> Result<Lines, UnitError> {
        let (vm, host) = (self.vm, &self.vm.host);
        let mut lines = vec![("DevicePolicy", "closed".to_owned()), ("DeviceAllow", "/dev/kvm rwm".to_owned())];
        let mut allow = |device: &str| lines.push(("DeviceAllow", device.to_owned()));
        if vm.tee == Tee::Snp {
            allow("/dev/sev rwm");
        }
        if !host.pci.is_empty() {
            ["/dev/iommu rw", "/dev/vfio/vfio rwm", "char-vfio* rwm"].into_iter().for_each(&mut allow);
        }
        if host.vsock.is_some() {
            allow("/dev/vhost-vsock rw");
        }
        if host.nics.iter().any(|nic| nic.bridge.is_some()) {
            ["/dev/net/tun rw", "/dev/vhost-net rw"].into_iter().for_each(&mut allow);
        }
        for volume in volume::volumes(vm).iter().filter(|volume| volume.block_device) {
            let access = if volume.read_only { "r" } else { "rw" };
            lines.push(("DeviceAllow", format!("{} {access}", word(&volume.path)?)));
        }
        Ok(lines)
    }

    fn rights(&self) -> Lines {
        let host = &self.vm.host;
        let bridged = host.nics.iter().any(|nic| nic.bridge.is_some());
        // QEMU is given another user and namespaces of its own by the supervisor, which needs these for it.
        let mut capabilities =
            vec!["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"];
        capabilities.extend([
            "CAP_SETPCAP",
            "CAP_SYS_ADMIN",
            "CAP_SYS_CHROOT",
            "CAP_SYS_RESOURCE",
            "CAP_IPC_LOCK",
            "CAP_MKNOD",
        ]);
        if bridged {
            capabilities.push("CAP_NET_ADMIN");
        }
        // Who has a passed function open stands in `/proc/PID/fd` of all users: the kernel shows it, and hides no process of
        // another, to whoever may trace (proc(5)). The filter below forbids tracing itself, and the calls that reach into other
        // processes by the same right. `/proc/PID/mem` remains: no filter of calls tells it from another file.
        if !host.pci.is_empty() {
            capabilities.push("CAP_SYS_PTRACE");
        }
        // A passed function is reset and prepared through sysfs.
        let tunables = if host.pci.is_empty() { "yes" } else { "no" };
        let own_network = if host.nics.is_empty() { "yes" } else { "no" };
        let families = match host.nics.is_empty() {
            true => "AF_UNIX AF_VSOCK",
            // passt asks for the host's routes, and a tap device is plugged in.
            false => "AF_UNIX AF_VSOCK AF_INET AF_INET6 AF_NETLINK",
        };
        let limits = host.limits.unwrap_or_default();
        let tasks = limits.threads.map_or(512 + 2 * self.vm.vcpus, |threads| threads + SUPERVISOR_TASKS);
        let mut lines: Lines = vec![
            ("NoNewPrivileges", "yes".to_owned()),
            ("CapabilityBoundingSet", capabilities.join(" ")),
            ("ProtectProc", "invisible".to_owned()),
            ("ProtectKernelTunables", tunables.to_owned()),
            // The group is delegated to the supervisor.
            ("ProtectControlGroups", "no".to_owned()),
            ("PrivateNetwork", own_network.to_owned()),
            ("RestrictAddressFamilies", families.to_owned()),
            ("RestrictNamespaces", "user mnt pid net ipc uts".to_owned()),
            ("SystemCallArchitectures", "native".to_owned()),
            ("SystemCallFilter", "@system-service @mount".to_owned()),
        ];
        if !host.pci.is_empty() {
            lines.push(("SystemCallFilter", "~process_vm_readv process_vm_writev process_madvise kcmp".to_owned()));
        }
        lines.extend([
            ("SystemCallErrorNumber", "EPERM".to_owned()),
            // All memory of a guest with passed functions is locked.
            ("LimitMEMLOCK", "infinity".to_owned()),
            ("LimitNOFILE", "65536".to_owned()),
            // A core holds what the guest shares with the host, and the supervisor's words.
            ("LimitCORE", "0".to_owned()),
            ("TasksMax", tasks.to_string()),
            ("KeyringMode", "private".to_owned()),
        ]);
        // QEMU's own group below this one keeps what the description says; these hold whatever becomes of that.
        lines.extend(limits.memory.map(|memory| ("MemoryMax", (memory.bytes + SUPERVISOR_BYTES).to_string())));
        lines.extend(limits.cpu_percent.map(|percent| ("CPUQuota", format!("{percent}%"))));
        let protections = [
            "ProtectClock",
            "ProtectHostname",
            "ProtectKernelLogs",
            "ProtectKernelModules",
            "LockPersonality",
            "RestrictRealtime",
            "RestrictSUIDSGID",
        ];
        lines.extend(protections.map(|key| (key, "yes".to_owned())));
        lines
    }
}

type Lines = Vec<(&'static str, String)>;

fn install() -> Lines {
    vec![("WantedBy", "multi-user.target".to_owned())]
}

/// A path or word as it stands in a unit. Those that would have to be escaped are refused: systemd has four kinds of it.
fn word(path: &Path) -> Result<String, UnitError> {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@=".contains(c);
    let is_plain = !text.is_empty() && !text.starts_with(['-', '@', '=', '+']) && text.chars().all(plain);
    let is_option = text.starts_with("--") && text.chars().all(plain);
    if is_plain || is_option { Ok(text.into_owned()) } else { Err(UnitError::Word(text.into_owned())) }
}

fn words<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<String, UnitError> {
    let mut all = Vec::new();
    for path in paths {
        let text = word(path)?;
        if !all.contains(&text) {
            all.push(text);
        }
    }
    Ok(all.join(" "))
}
