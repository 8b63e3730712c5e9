//! GPUs and NVSwitches as Prometheus reads them: one gauge for each state of a set, 1 where it is the one; and what was counted of them
//! in all runs, as counters.

use super::access::ResetKind;
use super::mode::ActiveMode;
use super::survey::Seen;
use super::tally::{Counters, Tallied};
use crate::metrics::{Exposition, Kind};

/// Modes, and the one that stands for none of them.
const MODES: [&str; 5] = ["off", "on", "devtools", "ppcie", "invalid"];
/// The kernel's power states of a PCI function.
const POWER_STATES: [&str; 4] = ["D0", "D3hot", "D3cold", "unknown"];

/// A family without its labels of the device: of each device, further labels and the value.
type Samples<T> = Vec<(Vec<(&'static str, String)>, T)>;

/// Adds all `bullion_gpu_*` families; `counted` is what was counted of the devices. None where there is no device.
pub fn expose(devices: &[Seen], counted: &Tallied, out: &mut Exposition) {
    expose_states(devices, out);
    expose_counts(devices, counted, out);
}

/// Adds one family: of each device, what `samples` says.
fn add(
    (name, kind, help): (&str, Kind, &str),
    devices: &[Seen],
    samples: &dyn Fn(&Seen) -> Samples<f64>,
    out: &mut Exposition,
) {
    let mut lines = Vec::new();
    for seen in devices {
        for (more, value) in samples(seen) {
            lines.push((identity(seen).into_iter().chain(more).collect::<Vec<_>>(), value));
        }
    }
    let borrowed = lines
        .iter()
        .map(|(labels, value)| (labels.iter().map(|(key, value)| (*key, value.as_str())).collect(), *value));
    out.family(&format!("bullion_gpu_{name}"), kind, help, borrowed);
}

fn expose_counts(devices: &[Seen], counted: &Tallied, out: &mut Exposition) {
    let mut family = |name: &str, kind: Kind, help: &str, samples: &dyn Fn(&Counters) -> Samples<f64>| {
        let of = |seen: &Seen| counted.of(seen.found.address).map(samples).unwrap_or_default();
        add((name, kind, help), devices, &of, out);
    };
    family(
        "resets_total",
        Kind::Counter,
        "Resets by this program, as far as the kernel tells how they ended.",
        &|all| {
            let sample = |resets: &super::tally::Resets| {
                let kind = match resets.kind {
                    ResetKind::Function => "function",
                    ResetKind::Bus => "bus",
                    ResetKind::Reenumerate => "reenumerate",
                };
                (vec![("kind", kind.to_owned()), ("result", resets.result.word().to_owned())], resets.count as f64)
            };
            all.resets.iter().map(sample).collect()
        },
    );
    let help = "Changes of mode by this program; one that succeeded was verified after a reset.";
    family("cc_mode_transitions_total", Kind::Counter, help, &|all| {
        let sample = |transitions: &super::tally::Transitions| {
            let (from, to) = (transitions.from.clone(), transitions.to.to_string());
            let labels = vec![("from", from), ("to", to), ("result", transitions.result.word().to_owned())];
            (labels, transitions.count as f64)
        };
        all.transitions.iter().map(sample).collect()
    });
    let help = "How long the last change of mode took that was verified, resets and boots included.";
    family("cc_transition_duration_seconds", Kind::Gauge, help, &|all| {
        all.last_transition_ms.map(|milliseconds| (Vec::new(), milliseconds as f64 / 1000.0)).into_iter().collect()
    });
    let help = "Requests that the security processor did not do: its error, or timeout, busy, malformed.";
    family("fsp_rpc_errors_total", Kind::Counter, help, &|all| {
        all.rpc_errors.iter().map(|errors| (vec![("code", errors.code.clone())], errors.count as f64)).collect()
    });
}

fn expose_states(devices: &[Seen], out: &mut Exposition) {
    let mut family = |name: &str, help: &str, samples: &dyn Fn(&Seen) -> Samples<bool>| {
        let as_numbers = |seen: &Seen| {
            samples(seen).into_iter().map(|(labels, value)| (labels, f64::from(u8::from(value)))).collect()
        };
        add((name, Kind::Gauge, help), devices, &as_numbers, out);
    };
    family("info", "A GPU or NVSwitch of this host.", &|seen| vec![(info(seen), true)]);
    family("cc_mode", "The confidential-computing mode it is in.", &|seen| {
        seen.mode().map(|mode| set("mode", &MODES, &mode.to_string())).unwrap_or_default()
    });
    family("cc_mode_desired", "The mode that its knobs ask for after a reset.", &|seen| {
        if seen.state().is_none() && seen.pending().is_none() {
            return Vec::new();
        }
        let pending = seen.pending().map_or(ActiveMode::Invalid, ActiveMode::Valid);
        set("mode", &MODES, &pending.to_string())
    });
    family("power_state", "Its power state.", &|seen| {
        let state = seen.found.power_state.as_deref().filter(|state| POWER_STATES.contains(state));
        set("state", &POWER_STATES, state.unwrap_or("unknown"))
    });
    let flag = |flag: bool| vec![(Vec::new(), flag)];
    family("vfio_bound", "Whether vfio-pci drives it.", &|seen| flag(seen.found.driver.as_deref() == Some("vfio-pci")));
    family("in_use", "Whether a guest, a process or a driver of the host has it.", &|seen| {
        flag(seen.guest.is_some() || seen.found.held_by.is_some())
    });
    family("healthy", "Whether it answered; not there while somebody has it.", &|seen| {
        if was_asked(seen) { flag(seen.state().is_some()) } else { Vec::new() }
    });
    family("recovery", "Whether its firmware is in recovery mode.", &|seen| {
        if was_asked(seen) { flag(seen.trouble().is_some_and(|trouble| trouble.in_recovery)) } else { Vec::new() }
    });
}

/// Whether the device itself was asked: it has modes, and nobody had it.
fn was_asked(seen: &Seen) -> bool {
    seen.guest.is_none() && seen.observation.as_ref().is_some_and(|observation| observation.held_by.is_none())
}

fn identity(seen: &Seen) -> Vec<(&'static str, String)> {
    let mut labels = vec![("pci_bus_id", seen.found.address.to_string())];
    labels.extend(seen.state().and_then(|state| state.serial).map(|serial| ("pdi", format!("{serial:016x}"))));
    labels
}

fn info(seen: &Seen) -> Vec<(&'static str, String)> {
    let product = seen.found.product;
    vec![
        ("device_id", format!("{:04x}", seen.found.device_id)),
        ("model", product.map_or("unknown", |product| product.name).to_owned()),
        ("arch", product.map_or("unknown".to_owned(), |product| product.family.to_string())),
    ]
}

/// One sample for each state there is.
fn set(name: &'static str, states: &[&str], current: &str) -> Samples<bool> {
    states.iter().map(|state| (vec![(name, (*state).to_owned())], *state == current)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::mode::Mode;
    use crate::gpu::survey::tests::{gpu, in_guest, unwell};

    /// As the file of an earlier run has it.
    fn counted() -> Tallied {
        Tallied::parse(
            r#"{"schema":1,"devices":{"0000:41:00.0":{
            "resets":[{"kind":"function","result":"success","count":3},{"kind":"bus","result":"failure","count":1}],
            "transitions":[{"from":"invalid","to":"on","result":"success","count":2}],
            "last_transition_ms":1340,"rpc_errors":[{"code":"0x202","count":5}]}}}"#,
        )
        .unwrap()
    }

    fn text(devices: &[Seen]) -> String {
        let mut out = Exposition::default();
        expose(devices, &counted(), &mut out);
        out.to_string()
    }

    #[test]
    fn each_state_set_has_one_that_is_true() {
        let text = text(&[gpu(0x2330, Mode::Off, Mode::On)]);
        for line in [
            "bullion_gpu_info{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",device_id=\"2330\",model=\"H100 SXM\",arch=\"Hopper\"} 1",
            "bullion_gpu_cc_mode{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",mode=\"off\"} 1",
            "bullion_gpu_cc_mode_desired{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",mode=\"on\"} 1",
            "bullion_gpu_power_state{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",state=\"D0\"} 1",
            "bullion_gpu_healthy{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\"} 1",
            "bullion_gpu_resets_total{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",kind=\"function\",result=\"success\"} 3",
            "bullion_gpu_resets_total{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",kind=\"bus\",result=\"failure\"} 1",
            "bullion_gpu_cc_mode_transitions_total{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",from=\"invalid\",to=\"on\",result=\"success\"} 2",
            "bullion_gpu_cc_transition_duration_seconds{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\"} 1.34",
            "bullion_gpu_fsp_rpc_errors_total{pci_bus_id=\"0000:41:00.0\",pdi=\"0000000000000017\",code=\"0x202\"} 5",
            "# TYPE bullion_gpu_resets_total counter",
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
