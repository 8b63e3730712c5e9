//! GPUs and NVSwitches as Prometheus reads them: one gauge for each state of a set, 1 where it is the one.

use std::fmt::Write as _;

use super::mode::ActiveMode;
use super::survey::Seen;

/// Modes, and the one that stands for none of them.
const MODES: [&str; 5] = ["off", "on", "devtools", "ppcie", "invalid"];
/// The kernel's power states of a PCI function.
const POWER_STATES: [&str; 4] = ["D0", "D3hot", "D3cold", "unknown"];

/// The text of all `bullion_gpu_*` gauges. Empty where there is no device.
pub fn text(devices: &[Seen]) -> String {
    let mut out = String::new();
    if devices.is_empty() {
        return out;
    }
    let mut family = |name: &str, help: &str, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        let _ = writeln!(out, "# HELP bullion_gpu_{name} {help}\n# TYPE bullion_gpu_{name} gauge");
        for line in lines {
            let _ = writeln!(out, "bullion_gpu_{name}{line}");
        }
    };
    let each = |line: &dyn Fn(&Seen) -> Vec<String>| devices.iter().flat_map(line).collect::<Vec<_>>();
    family("info", "A GPU or NVSwitch of this host.", each(&|seen| vec![info(seen)]));
    let mode = |seen: &Seen| seen.mode().map(|mode| set(seen, "mode", &MODES, &mode.to_string())).unwrap_or_default();
    family("cc_mode", "The confidential-computing mode it is in.", each(&mode));
    let desired = |seen: &Seen| {
        let known = seen.state().is_some() || seen.pending().is_some();
        let pending = seen.pending().map_or(ActiveMode::Invalid, ActiveMode::Valid);
        if known { set(seen, "mode", &MODES, &pending.to_string()) } else { Vec::new() }
    };
    family("cc_mode_desired", "The mode that its knobs ask for after a reset.", each(&desired));
    let power = |seen: &Seen| {
        let state = seen.found.power_state.as_deref().filter(|state| POWER_STATES.contains(state));
        set(seen, "state", &POWER_STATES, state.unwrap_or("unknown"))
    };
    family("power_state", "Its power state.", each(&power));
    let flag = |seen: &Seen, flag: bool| vec![format!("{{{}}} {}", labels(seen), u8::from(flag))];
    family(
        "vfio_bound",
        "Whether vfio-pci drives it.",
        each(&|seen| flag(seen, seen.found.driver.as_deref() == Some("vfio-pci"))),
    );
    family(
        "in_use",
        "Whether a guest, a process or a driver of the host has it.",
        each(&|seen| flag(seen, seen.guest.is_some() || seen.found.held_by.is_some())),
    );
    let healthy = |seen: &Seen| match (&seen.observation, in_hands(seen)) {
        (Some(_), false) => flag(seen, seen.state().is_some()),
        _ => Vec::new(),
    };
    family("healthy", "Whether it answered; not there while somebody has it.", each(&healthy));
    let recovery = |seen: &Seen| match (&seen.observation, in_hands(seen)) {
        (Some(_), false) => flag(seen, seen.trouble().is_some_and(|trouble| trouble.reason.contains("recovery mode"))),
        _ => Vec::new(),
    };
    family("recovery", "Whether its firmware is in recovery mode.", each(&recovery));
    out
}

fn in_hands(seen: &Seen) -> bool {
    seen.guest.is_some() || seen.observation.as_ref().is_some_and(|observation| observation.held_by.is_some())
}

fn labels(seen: &Seen) -> String {
    let serial = seen.state().and_then(|state| state.serial).map(|serial| format!(",pdi=\"{serial:016x}\""));
    format!("pci_bus_id=\"{}\"{}", seen.found.address, serial.unwrap_or_default())
}

fn info(seen: &Seen) -> String {
    let (model, arch) = seen
        .found
        .product
        .map_or(("unknown", "unknown".to_owned()), |product| (product.name, product.family.to_string()));
    format!("{{{},device_id=\"{:04x}\",model=\"{model}\",arch=\"{arch}\"}} 1", labels(seen), seen.found.device_id)
}

/// One line for each state there is.
fn set(seen: &Seen, name: &str, states: &[&str], current: &str) -> Vec<String> {
    let line = |state: &&str| format!("{{{},{name}=\"{state}\"}} {}", labels(seen), u8::from(*state == current));
    states.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::mode::Mode;
    use crate::gpu::survey::tests::{gpu, in_guest, unwell};

    #[test]
    fn each_state_set_has_one_that_is_true() {
        let text = text(&[gpu(0x2330, Mode::Off, Mode::On)]);
        for line in [
            "bullion_gpu_info{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",device_id=\"2330\",model=\"H100 SXM\",arch=\"Hopper\"} 1",
            "bullion_gpu_cc_mode{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",mode=\"off\"} 1",
            "bullion_gpu_cc_mode_desired{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",mode=\"on\"} 1",
            "bullion_gpu_power_state{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",state=\"D0\"} 1",
            "bullion_gpu_healthy{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let of = |set: &str| text.lines().filter(|line| line.starts_with(set) && line.ends_with(" 1")).count();
        assert_eq!(
            [of("bullion_gpu_cc_mode{"), of("bullion_gpu_cc_mode_desired{"), of("bullion_gpu_power_state{")],
            [1; 3]
        );
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let sick = text(&[unwell()]);
        assert!(
            sick.contains("bullion_gpu_recovery{pci_bus_id=\"0000:41:00.0\"} 1") && !sick.contains("cc_mode{"),
            "{sick}"
        );
        let held = text(&[in_guest(Mode::On)]);
        assert!(
            !held.contains("healthy{") && held.contains("bullion_gpu_in_use{pci_bus_id=\"0000:41:00.0\"} 1"),
            "{held}"
        );
        assert_eq!(text(&[]), "");
    }
}
