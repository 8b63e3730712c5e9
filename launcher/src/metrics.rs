//! The VMs of this host as Prometheus text (exposition format 0.0.4), for a scraper or the textfile collector of node_exporter.
//!
//! Read from what supervisors write about their VMs, and from `/proc`: nobody is asked, so that a scrape never waits. Names and
//! units are Prometheus's: base units, `_total` for counters, state sets with one sample a state.

use std::fmt::{self, Display, Write as _};
use std::fs;

use crate::state::{Directories, Listed, Phase, StateError, list};

/// Text in the making, one family after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposition(String);

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up. Its name ends in `_total`.
    Counter,
}

impl Exposition {
    /// Adds a family: `samples` are labels with their values, and a number each. A family without samples is left out.
    pub fn family<'a, S>(&mut self, name: &str, kind: Kind, help: &str, samples: S)
    where
        S: IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>,
    {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = if kind == Kind::Gauge { "gauge" } else { "counter" };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

impl Display for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The VMs, as they are now.
pub fn vms(directories: &Directories, version: &str) -> Result<Exposition, StateError> {
    Ok(expose(&list(directories, true)?, version, resident_bytes))
}

/// All phases, in the order in which a VM goes through them.
const PHASES: [(Phase, &str); 6] = [
    (Phase::Starting, "starting"),
    (Phase::Running, "running"),
    (Phase::Ready, "ready"),
    (Phase::Stopping, "stopping"),
    (Phase::Waiting, "waiting"),
    (Phase::Exited, "exited"),
];

fn phase(vm: &Listed) -> Phase {
    vm.record.as_ref().map_or(Phase::Starting, |record| record.phase)
}

fn expose(vms: &[Listed], version: &str, resident: impl Fn(u32) -> Option<f64>) -> Exposition {
    let mut text = Exposition::default();
    let known = || vms.iter().filter_map(|vm| Some((vm.name.as_str(), vm.running, vm.record.as_ref()?)));
    let seconds = |ms: u64| ms as f64 / 1000.0;
    text.family("bullion_build_info", Kind::Gauge, "The version of Bullion.", [(vec![("version", version)], 1.0)]);
    let by_phase = PHASES.map(|(wanted, name)| {
        let count = vms.iter().filter(|vm| phase(vm) == wanted).count();
        (vec![("phase", name)], count as f64)
    });
    text.family("bullion_vms", Kind::Gauge, "VMs of this user by phase, ended ones included.", by_phase);
    let phases = vms.iter().flat_map(|vm| {
        PHASES.map(|(this, name)| (vec![("name", vm.name.as_str()), ("phase", name)], f64::from(phase(vm) == this)))
    });
    text.family("bullion_vm_phase", Kind::Gauge, "1 for the phase that the VM is in.", phases);
    let words: Vec<_> = known()
        .map(|(name, _, record)| {
            let accelerator = record.accelerator.map_or_else(String::new, |accelerator| accelerator.to_string());
            (name, record.tee.to_string(), accelerator, record.manifest_sha256.to_string(), record.simulated)
        })
        .collect();
    let info = words.iter().map(|(name, tee, accelerator, manifest, simulated)| {
        let simulated = if *simulated { "yes" } else { "no" };
        let labels = vec![
            ("name", *name),
            ("tee", tee.as_str()),
            ("accelerator", accelerator.as_str()),
            ("manifest_sha256", manifest.as_str()),
            ("simulated", simulated),
        ];
        (labels, 1.0)
    });
    text.family("bullion_vm_info", Kind::Gauge, "What the VM is.", info);
    let mut of_each = |metric: &str, kind, help: &str, value: &dyn Fn(&crate::state::Record, bool) -> Option<f64>| {
        let samples =
            known().filter_map(|(name, running, record)| Some((vec![("name", name)], value(record, running)?)));
        text.family(metric, kind, help, samples);
    };
    of_each("bullion_vm_start_time_seconds", Kind::Gauge, "When it was launched, since 1970.", &|record, _| {
        Some(record.started_at as f64)
    });
    of_each(
        "bullion_vm_restarts_total",
        Kind::Counter,
        "How often its supervisor has started it again.",
        &|record, _| Some(f64::from(record.restarts)),
    );
    of_each(
        "bullion_vm_preparation_duration_seconds",
        Kind::Gauge,
        "From the launch, or the restart, until the guest may run.",
        &|record, _| record.prepared_ms.map(seconds),
    );
    of_each(
        "bullion_vm_boot_duration_seconds",
        Kind::Gauge,
        "From when the guest may run until it is ready.",
        &|record, _| record.ready_ms.map(seconds),
    );
    of_each(
        "bullion_vm_qemu_resident_memory_bytes",
        Kind::Gauge,
        "Memory of QEMU, the guest's included.",
        &|record, running| record.qemu_pid.filter(|_| running).and_then(&resident),
    );
    of_each(
        "bullion_vm_supervisor_resident_memory_bytes",
        Kind::Gauge,
        "Memory of its supervisor.",
        &|record, running| u32::try_from(record.supervisor.pid).ok().filter(|_| running).and_then(&resident),
    );
    of_each("bullion_vm_volumes", Kind::Gauge, "How many volumes it has.", &|record, _| {
        Some(f64::from(record.volumes))
    });
    of_each("bullion_vm_passed_devices", Kind::Gauge, "How many PCI functions are passed to it.", &|record, _| {
        Some(f64::from(record.passed_devices))
    });
    of_each("bullion_vm_exit_code", Kind::Gauge, "The exit code of its launch, once it has ended.", &|record, _| {
        record.exit.as_ref().map(|exit| f64::from(exit.code))
    });
    of_each("bullion_vm_exit_time_seconds", Kind::Gauge, "When it ended, since 1970.", &|record, _| {
        record.exit.as_ref().map(|exit| exit.ended_at as f64)
    });
    text
}

/// Resident memory of a process (proc(5), `/proc/pid/status`, VmRSS).
fn resident_bytes(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: f64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Exit, ProcessId, Record};

    fn record(name: &str) -> Record {
        Record {
            schema: 1,
            name: name.to_owned(),
            supervisor: ProcessId { pid: 7, start_time: 1 },
            qemu_pid: Some(8),
            started_at: 1_700_000_000,
            phase: Phase::Ready,
            tee: spec::Tee::Snp,
            simulated: false,
            image: "/image".into(),
            manifest_sha256: spec::Sha256Digest([1; 32]),
            class: None,
            accelerator: Some(crate::qemu::Accelerator::Kvm),
            gpu_mode: None,
            gpus: Vec::new(),
            prepared_ms: Some(130),
            ready_ms: Some(2500),
            identity: None,
            measurements: None,
            workload: None,
            volumes: 2,
            passed_devices: 1,
            stop_timeout_s: 10,
            console_log: "/log".into(),
            restarts: 3,
            before: None,
            exit: None,
        }
    }

    #[test]
    fn every_vm_has_one_phase_and_ended_ones_no_memory() {
        let exit = Exit { code: 7, summary: String::new(), last_words: vec![], ended_at: 1_700_000_100 };
        let ended = Record { phase: Phase::Exited, exit: Some(exit), ..record("old") };
        let vms = [
            Listed { name: "old".to_owned(), running: false, record: Some(ended) },
            Listed { name: "new".to_owned(), running: true, record: None },
            Listed { name: "web".to_owned(), running: true, record: Some(record("web")) },
        ];
        let text = expose(&vms, "0.1.0", |pid| Some(f64::from(pid) * 4096.0)).to_string();
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        has("bullion_vms{phase=\"ready\"} 1");
        has("bullion_vms{phase=\"starting\"} 1");
        has("bullion_vm_phase{name=\"old\",phase=\"exited\"} 1");
        has("bullion_vm_restarts_total{name=\"web\"} 3");
        has("bullion_vm_boot_duration_seconds{name=\"web\"} 2.5");
        has("bullion_vm_qemu_resident_memory_bytes{name=\"web\"} 32768");
        has("bullion_vm_exit_code{name=\"old\"} 7");
        assert_eq!(text.matches("} 1\n").count(), 1 + 3 + 3 + 2 + 2, "{text}");
        assert!(!text.contains("resident_memory_bytes{name=\"old\"}"));
    }

    #[test]
    fn labels_are_escaped_and_empty_families_left_out() {
        let mut text = Exposition::default();
        text.family("a", Kind::Gauge, "A.", [(vec![("x", "\"\\\n")], 0.5)]);
        text.family("b", Kind::Gauge, "B.", []);
        assert_eq!(text.to_string(), "# HELP a A.\n# TYPE a gauge\na{x=\"\\\"\\\\\\n\"} 0.5\n");
        assert!(resident_bytes(std::process::id()).unwrap() > 1e6);
    }
}
