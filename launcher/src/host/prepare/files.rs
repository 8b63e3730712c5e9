//! What makes preparations last over a start of the host: files that systemd, udev and modprobe read by themselves.
//!
//! Each file has one place and one author. Preparing for a second VM adds lines to what the first has written; a file that
//! somebody else has written there is never touched.

use serde::{Deserialize, Serialize};

use super::{Group, Step};

/// The first line of each file.
const HEADER: &str = "# Written by `bullion host prepare --persist`, removed by `bullion host restore`: changes here are kept, and named.";

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PersistentFile {
    /// Modules that are loaded at the start (modules-load.d(5)).
    Modules,
    /// Their parameters (modprobe.d(5)).
    Parameters,
    /// Who drives which function, and who may open which device (udev(7)).
    Rules,
    /// Huge pages (tmpfiles.d(5), lines `w`).
    HugePages,
    /// How much memory the group may lock (limits.conf(5)).
    Limits,
}

/// What udev runs of a function that its own driver was faster to take, because another device of its kind had loaded that. Only at
/// the function's first event after a start, when nothing can use it yet; later somebody may.
const TAKE_AWAY: &str = "/bin/sh -c 'cd /sys/bus/pci/devices/%k && case $$(readlink driver) in */vfio-pci) ;; ?*) echo %k >driver/unbind;; esac; echo %k >/sys/bus/pci/drivers_probe'";

/// A line and the words that no other line of the file may begin with.
type Line = (String, String);

impl PersistentFile {
    /// Its path, without the leading slash.
    pub fn path(self) -> &'static str {
        match self {
            Self::Modules => "etc/modules-load.d/bullion.conf",
            Self::Parameters => "etc/modprobe.d/bullion.conf",
            // After 50-udev-default.rules, which gives devices to groups, and before 80-drivers.rules, which loads drivers.
            Self::Rules => "etc/udev/rules.d/70-bullion.rules",
            Self::HugePages => "etc/tmpfiles.d/bullion.conf",
            Self::Limits => "etc/security/limits.d/bullion.conf",
        }
    }

    /// Whether a text was written by us.
    pub(super) fn is_ours(text: &str) -> bool {
        text.starts_with(HEADER)
    }

    /// The file with the lines added that it lacks; none where it lacks none.
    pub(super) fn with(before: Option<&str>, lines: &[Line]) -> Option<String> {
        let mut all: Vec<String> = before.unwrap_or(HEADER).lines().map(str::to_owned).collect();
        for (begins, line) in lines {
            if !all.contains(line) {
                all.retain(|old| !old.starts_with(begins.as_str()));
                all.push(line.clone());
            }
        }
        let text = all.join("\n") + "\n";
        (before != Some(text.as_str()) && !lines.is_empty()).then_some(text)
    }
}

/// What has to stand in which file for these steps to be made at each start.
pub(super) fn lines(steps: &[Step], group: Option<&Group>) -> Vec<(PersistentFile, Vec<Line>)> {
    let mut files: std::collections::BTreeMap<PersistentFile, Vec<Line>> = std::collections::BTreeMap::new();
    let mut add = |file, begins: String, line: String| files.entry(file).or_default().push((begins, line));
    for step in steps {
        match step {
            Step::LoadModule { name, parameters, .. } => {
                // One module's name can be the beginning of another's: the line replaces none.
                add(PersistentFile::Modules, "\n".to_owned(), name.clone());
                if !parameters.is_empty() {
                    let begins = format!("options {name} ");
                    add(PersistentFile::Parameters, begins.clone(), begins + &parameters.join(" "));
                }
            }
            Step::Bind { address, id, .. } => {
                let begins = format!(r#"ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{address}""#);
                // A card in another slot after a change of hardware is not taken for this one.
                let (vendor, device) = id.split_once(':').unwrap_or_default();
                let same = format!(r#"ATTR{{vendor}}=="0x{vendor}", ATTR{{device}}=="0x{device}""#);
                let line = format!(r#"{begins}, {same}, ATTR{{driver_override}}="vfio-pci""#);
                add(PersistentFile::Rules, begins, line);
                // The same in another order: no line of a file begins like another.
                let begins = format!(r#"KERNEL=="{address}", SUBSYSTEM=="pci", ACTION=="add""#);
                let first = format!(r#"TEST!="/run/udev/data/+pci:{address}", ENV{{BULLION}}="vfio-pci""#);
                add(PersistentFile::Rules, begins.clone(), format!(r#"{begins}, {same}, {first}, RUN+="{TAKE_AWAY}""#));
            }
            Step::Grant { device, group, .. } => {
                let begins = device.rule().map_or(r#"SUBSYSTEM=="vfio-dev""#.to_owned(), str::to_owned);
                add(PersistentFile::Rules, begins.clone(), format!(r#"{begins}, GROUP="{}", MODE="0660""#, group.name));
                if device.rule().is_none() {
                    let begins = r#"SUBSYSTEM=="vfio""#.to_owned();
                    let line = format!(r#"{begins}, GROUP="{}", MODE="0660""#, group.name);
                    add(PersistentFile::Rules, begins, line);
                }
            }
            Step::HugePages { pool, after, .. } => {
                let begins = format!("w /{} ", pool.file());
                add(PersistentFile::HugePages, begins.clone(), format!("{begins}- - - - {after}"));
            }
            Step::Write { .. } => {}
        }
    }
    if let Some(Group { name, .. }) = group {
        let begins = format!("@{name} - memlock ");
        add(PersistentFile::Limits, begins.clone(), begins + "unlimited");
    }
    files.into_iter().collect()
}
