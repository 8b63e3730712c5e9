//! A control group of its own for QEMU, with the limits of `[host.limits]` (cgroups(7), version 2; the kernel's
//! `Documentation/admin-guide/cgroup-v2.rst`).
//!
//! A group that hands controllers on has no processes itself. So where the supervisor is alone in its group, as in a unit or a
//! scope of systemd, it moves into one below, and QEMU gets another beside it. A group with other processes is somebody else's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use spec::size::Size;
use spec::vm::Limits;

/// The period of `cpu.max` in microseconds, the kernel's default.
const PERIOD_US: u64 = 100_000;

/// Why QEMU has no control group of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    /// There is no hierarchy of version 2, or it is not shown here.
    #[error("this host shows no control groups of version 2")]
    None,
    /// The group is not the supervisor's alone.
    #[error("the control group {0} has other processes, too")]
    Shared(PathBuf),
    /// Controllers that the group does not have.
    #[error("the control group {group} has no controller {missing}")]
    Controllers { group: PathBuf, missing: String },
    /// Somebody else's limits and counts would hold for this VM.
    #[error("{path} of an earlier launch cannot be removed: {source}")]
    Leftover { path: PathBuf, source: io::Error },
    /// It cannot be changed.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// QEMU's group. It, and what was changed for it, goes with this value.
#[derive(Debug)]
pub(crate) struct Group {
    own: PathBuf,
    qemu: PathBuf,
    supervisor: Option<PathBuf>,
    controllers: Vec<&'static str>,
    memory: Option<Size>,
    ooms: u64,
}

impl Group {
    /// Makes it. `name` is the VM's.
    pub(crate) fn make(limits: &Limits, name: &str) -> Result<Self, GroupError> {
        let of = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let own = own_group(&of("/proc/self/cgroup"), &of("/proc/self/mountinfo")).ok_or(GroupError::None)?;
        Self::make_below(&own, limits, name)
    }

    fn make_below(own: &Path, limits: &Limits, name: &str) -> Result<Self, GroupError> {
        let settings = settings(limits);
        let controllers = needed(&settings);
        let there = read(&own.join("cgroup.controllers"))?;
        let is_missing = |name: &&&str| !there.split_whitespace().any(|there| there == **name);
        let missing: Vec<&str> = controllers.iter().filter(is_missing).copied().collect();
        if !missing.is_empty() {
            return Err(GroupError::Controllers { group: own.to_owned(), missing: missing.join(", ") });
        }
        // The root group alone may have processes beside groups with controllers.
        let is_root = !own.join("cgroup.type").exists();
        let ours = std::process::id().to_string();
        if !is_root && read(&own.join("cgroup.procs"))?.lines().any(|pid| pid != ours) {
            return Err(GroupError::Shared(own.to_owned()));
        }
        let qemu = own.join(if is_root { format!("bullion-{name}") } else { "qemu".to_owned() });
        let supervisor = (!is_root).then(|| own.join("supervisor"));
        // From here on, dropping it undoes what was done.
        let group = Self { own: own.to_owned(), qemu, supervisor, controllers, memory: limits.memory, ooms: 0 };
        group.set_up(&settings)?;
        Ok(group)
    }

    fn set_up(&self, settings: &[(&'static str, String)]) -> Result<(), GroupError> {
        if let Some(supervisor) = &self.supervisor {
            make_directory(supervisor)?;
            write(&supervisor.join("cgroup.procs"), "0")?;
        }
        write(&self.own.join("cgroup.subtree_control"), &switched('+', &self.controllers))?;
        // A supervisor that was killed left it behind: with its limits, and with its count of what the kernel has ended.
        remove(&self.qemu).map_err(|source| GroupError::Leftover { path: self.qemu.clone(), source })?;
        make_directory(&self.qemu)?;
        settings.iter().try_for_each(|(file, value)| write(&self.qemu.join(file), value))
    }

    /// What a process joins the group by: it writes `0` there.
    pub(crate) fn entrance(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.qemu.join("cgroup.procs"))
    }

    /// What to say where the kernel has ended QEMU, since this was last asked, for want of memory.
    pub(crate) fn ran_out(&mut self) -> Option<String> {
        let events = fs::read_to_string(self.qemu.join("memory.events")).ok()?;
        let ooms = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())?;
        let before = std::mem::replace(&mut self.ooms, ooms);
        let memory = self.memory.filter(|_| ooms > before)?;
        Some(format!("the kernel has ended QEMU or what works for it, which needed more than limits.memory, {memory}"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = remove(&self.qemu);
        if let Some(supervisor) = &self.supervisor {
            let _ = write(&self.own.join("cgroup.subtree_control"), &switched('-', &self.controllers));
            let _ = write(&self.own.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(supervisor);
        }
    }
}

/// The files of a group, and what is written there.
fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if let Some(memory) = limits.memory {
        settings.push(("memory.max", memory.bytes.to_string()));
        // All of it or nothing: QEMU without one of its threads is no QEMU.
        settings.push(("memory.oom.group", "1".to_owned()));
    }
    if let Some(percent) = limits.cpu_percent {
        settings.push(("cpu.max", format!("{} {PERIOD_US}", u64::from(percent) * PERIOD_US / 100)));
    }
    settings.extend(limits.threads.map(|threads| ("pids.max", threads.to_string())));
    settings
}

fn needed(settings: &[(&'static str, String)]) -> Vec<&'static str> {
    let mut names: Vec<_> = settings.iter().filter_map(|(file, _)| Some(file.split_once('.')?.0)).collect();
    names.dedup();
    names
}

fn switched(sign: char, controllers: &[&str]) -> String {
    controllers.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>().join(" ")
}

/// The directory of the group of version 2 that `/proc/self/cgroup` and `/proc/self/mountinfo` speak of.
fn own_group(groups: &str, mounts: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut words = before.split_whitespace().skip(3);
        let (root, point) = (words.next()?, words.next()?);
        // A group outside of what is mounted has no directory here.
        let below = Path::new(path).strip_prefix(root).ok()?;
        (after.split_whitespace().next()? == "cgroup2").then(|| Path::new(point).join(below))
    })
}

/// Removes a group, if it is there. Its processes are gone, or will be in a moment.
fn remove(path: &Path) -> io::Result<()> {
    let mut tries = 20;
    loop {
        tries -= 1;
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if tries > 0 => thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

fn make_directory(path: &Path) -> Result<(), GroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(GroupError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, GroupError> {
    fs::read_to_string(path).map_err(|source| GroupError::Io { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), GroupError> {
    // Not created: what is not there is no file of a control group.
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|source| GroupError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::child::{Place, spawn_in};

    const HYBRID: &str = "29 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n30 29 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n31 29 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn the_own_group_is_found_where_it_is_mounted() {
        let unit = "0::/system.slice/bullion@web.service\n";
        let unified = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = |groups, mounts| own_group(groups, mounts).map(|path| path.display().to_string());
        assert_eq!(found(unit, unified).unwrap(), "/sys/fs/cgroup/system.slice/bullion@web.service");
        assert_eq!(found("9:pids:/a\n0::/b\n", HYBRID).unwrap(), "/sys/fs/cgroup/unified/b");
        let part = unified.replace(" / /sys", " /system.slice /sys");
        assert_eq!(found(unit, &part).unwrap(), "/sys/fs/cgroup/bullion@web.service");
        assert_eq!(found("0::/other\n", &part), None, "it is not shown here");
        assert_eq!((found("9:pids:/a\n", HYBRID), found(unit, "")), (None, None));
    }

    #[test]
    fn limits_are_what_the_kernel_reads() {
        let limits = Limits { memory: Some(Size::from_mib(3)), cpu_percent: Some(250), threads: Some(70) };
        let written = settings(&limits);
        let expected =
            [("memory.max", "3145728"), ("memory.oom.group", "1"), ("cpu.max", "250000 100000"), ("pids.max", "70")];
        assert_eq!(written.iter().map(|(file, value)| (*file, value.as_str())).collect::<Vec<_>>(), expected);
        assert_eq!(switched('+', &needed(&written)), "+memory +cpu +pids");
    }

    /// A directory with the files of a group. What the kernel makes of what is written there, `the_kernel_keeps_the_limits` shows
    /// where `scripts/test` finds a systemd that gives a group away.
    fn group(controllers: &str, processes: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let files = [("cgroup.controllers", controllers), ("cgroup.procs", processes), ("cgroup.type", "domain")];
        for (name, text) in files.into_iter().chain([("cgroup.subtree_control", "")]) {
            fs::write(root.path().join(name), text).unwrap();
        }
        root
    }

    #[test]
    fn a_group_of_others_is_left_alone() {
        let limits = Limits { threads: Some(70), ..Limits::default() };
        let ours = std::process::id().to_string();
        let refused = |root: &tempfile::TempDir| Group::make_below(root.path(), &limits, "vm").unwrap_err().to_string();
        let shared = group("cpu pids", &format!("1\n{ours}\n"));
        assert!(refused(&shared).ends_with("has other processes, too"));
        let poor = group("cpu", &format!("{ours}\n"));
        assert!(refused(&poor).ends_with("has no controller pids"));
        for root in [&shared, &poor] {
            assert_eq!(fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(), "");
            assert!(!root.path().join("qemu").exists());
        }
    }

    #[test]
    fn nothing_of_an_earlier_group_is_taken_over() {
        let root = group("cpu pids", "");
        // In the root group the supervisor stays where it is.
        fs::remove_file(root.path().join("cgroup.type")).unwrap();
        let qemu = root.path().join("bullion-vm");
        fs::create_dir(&qemu).unwrap();
        let earlier = fs::metadata(&qemu).unwrap().modified().unwrap();
        thread::sleep(Duration::from_millis(20));
        let made = Group::make_below(root.path(), &Limits::default(), "vm").unwrap();
        assert!(fs::metadata(&qemu).unwrap().modified().unwrap() > earlier, "it is another one");
        drop(made);
        assert!(!qemu.exists());
        // What cannot be removed stands here for a group with a process in it.
        fs::create_dir(&qemu).unwrap();
        fs::write(qemu.join("pids.max"), "7").unwrap();
        let limits = Limits { threads: Some(70), ..Limits::default() };
        let error = Group::make_below(root.path(), &limits, "vm").unwrap_err();
        assert!(error.to_string().contains("bullion-vm of an earlier launch cannot be removed: "), "{error}");
        assert_eq!(fs::read_to_string(qemu.join("pids.max")).unwrap(), "7");
    }

    /// How a shell in the group ends, which must be soon.
    fn end_of(group: &Group, script: &str) -> ExitStatus {
        let place = Place { group: Some(group.entrance().unwrap()), ..Place::default() };
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let mut child = spawn_in(&argv, &env, vec![], place).unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = child.ended().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{script} goes on");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    #[ignore = "needs a control group to itself: systemd-run --scope -p Delegate=yes TEST --ignored the_kernel_keeps_the_limits"]
    fn the_kernel_keeps_the_limits() {
        let limits = Limits { memory: Some(Size::from_mib(64)), cpu_percent: Some(50), threads: Some(8) };
        let of = |path: &str| fs::read_to_string(path).unwrap();
        let own = own_group(&of("/proc/self/cgroup"), &of("/proc/self/mountinfo")).unwrap();
        let mut group = Group::make(&limits, "vm").unwrap();
        assert_eq!(end_of(&group, "cat /proc/self/cgroup | grep -q '/qemu$'").code(), Some(0));
        assert_eq!(group.ran_out(), None);
        assert_eq!(end_of(&group, "exec tail /dev/zero").signal(), Some(9), "it takes all memory there is");
        assert!(group.ran_out().unwrap().ends_with("limits.memory, 64MiB"));
        assert_eq!(group.ran_out(), None, "it is said once");
        let many = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 100 & done; exit 0";
        assert_ne!(end_of(&group, many).code(), Some(0), "one process more than it may");
        let used = |key: &str| -> u64 {
            let stat = fs::read_to_string(group.qemu.join("cpu.stat")).unwrap();
            stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap()
        };
        end_of(&group, "timeout 3 sh -c 'while :; do :; done'");
        assert!(used("nr_throttled ") > 0);
        drop(group);
        assert!(!own.join("qemu").exists() && !own.join("supervisor").exists());
        assert_eq!(fs::read_to_string(own.join("cgroup.procs")).unwrap().trim(), std::process::id().to_string());
    }

    proptest! {
        #[test]
        fn any_tables_are_read(groups in ".{0,100}", mounts in ".{0,200}") {
            let _ = own_group(&groups, &mounts);
        }
    }
}
