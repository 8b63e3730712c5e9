//! The labels by which Kubernetes knows the confidential mode of a node's GPUs, as NVIDIA's confidential computing manager
//! sets them (k8s-cc-manager 785d77e), for a feature file of node-feature-discovery.

use std::collections::BTreeSet;

use super::mode::{ActiveMode, Mode};
use super::survey::Seen;

/// A label's name and value. Empty where the node has no GPU with a confidential mode.
pub fn labels(devices: &[Seen]) -> Vec<(&'static str, String)> {
    let gpus: Vec<_> = devices.iter().filter(|device| device.has_modes() && !device.is_switch()).collect();
    if gpus.is_empty() {
        return Vec::new();
    }
    let desired = common(gpus.iter().map(|gpu| gpu.pending()));
    let active = common(gpus.iter().map(|gpu| match gpu.mode() {
        Some(ActiveMode::Valid(mode)) => Some(mode),
        Some(ActiveMode::Invalid) | None => None,
    }));
    // Of the mode alone: what the GPUs can prove is for the guest to say.
    let ready = match active {
        Some(Mode::On | Mode::Ppcie) => "true",
        Some(Mode::Off) => "false",
        Some(Mode::Devtools) | None => "",
    };
    let mut labels = vec![("nvidia.com/cc.capable", "true".to_owned())];
    labels.extend(desired.map(|mode| ("nvidia.com/cc.mode", mode.to_string())));
    labels.push(("nvidia.com/cc.mode.state", active.map_or("failed".to_owned(), |mode| mode.to_string())));
    labels.push(("nvidia.com/cc.ready.state", ready.to_owned()));
    // What a GPU operator is to set up on the node: nothing, where all GPUs are there to be passed to VMs.
    if gpus.iter().all(|gpu| gpu.found.driver.as_deref() == Some("vfio-pci")) {
        labels.push(("nvidia.com/gpu.workload.config", "vm-passthrough".to_owned()));
    }
    labels
}

/// The mode that all of them are in; none where one has none, or they differ.
fn common(modes: impl Iterator<Item = Option<Mode>>) -> Option<Mode> {
    let names: BTreeSet<Option<String>> = modes.map(|mode| mode.map(|mode| mode.to_string())).collect();
    let [Some(name)] = names.iter().collect::<Vec<_>>()[..] else { return None };
    [Mode::Off, Mode::On, Mode::Devtools, Mode::Ppcie].into_iter().find(|mode| mode.to_string() == *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::survey::tests::{gpu, in_guest, unwell};

    fn text(devices: &[Seen]) -> String {
        labels(devices)
            .iter()
            .map(|(name, value)| format!("{}={value}\n", name.trim_start_matches("nvidia.com/")))
            .collect()
    }

    #[test]
    fn a_node_is_labelled_by_the_mode_of_all_its_gpus() {
        let (on, off) = (gpu(0x2330, Mode::On, Mode::On), gpu(0x2330, Mode::Off, Mode::On));
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[gpu(0x22a3, Mode::Off, Mode::Off)]), "", "a switch is no GPU");
        assert_eq!(
            text(&[on.clone(), on.clone()]),
            "cc.capable=true\ncc.mode=on\ncc.mode.state=on\ncc.ready.state=true\ngpu.workload.config=vm-passthrough\n"
        );
        let staged = "cc.capable=true\ncc.mode=on\ncc.mode.state=off\ncc.ready.state=false\ngpu.workload.config=vm-passthrough\n";
        assert_eq!(text(std::slice::from_ref(&off)), staged);
        let mixed =
            "cc.capable=true\ncc.mode=on\ncc.mode.state=failed\ncc.ready.state=\ngpu.workload.config=vm-passthrough\n";
        assert_eq!(text(&[on.clone(), off]), mixed);
        assert!(text(&[on.clone(), unwell()]).contains("cc.mode.state=failed"));
        let mut free = on.clone();
        free.found.driver = None;
        assert!(!text(&[on.clone(), free]).contains("workload.config"));
        assert!(text(&[on, in_guest(Mode::On)]).contains("cc.mode.state=on"));
    }
}
