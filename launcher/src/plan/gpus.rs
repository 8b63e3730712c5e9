//! The part of a plan that is about GPUs: what is done to them before QEMU starts, and what the person who launches should know.

use spec::Tee;

use super::{Inputs, passed_functions};
use crate::gpu::attach::Preparation;
use crate::gpu::{resizable, topology};

/// The most of a guest's memory that Linux sets aside for what devices and guest exchange in the clear, where nothing else is said:
/// 6 % of it, and at most this (`arch/x86/mm/mem_encrypt.c`, `mem_encrypt_setup_arch`).
const LARGEST_BOUNCE_MIB: u64 = 1024;

/// What is done to GPUs and NVSwitches. Nothing in a simulation, whose guest does not run.
pub(super) fn preparation(inputs: &Inputs<'_>) -> Option<Preparation> {
    let vm = inputs.vm;
    if inputs.options.simulate.is_some() {
        return None;
    }
    let functions = passed_functions(inputs);
    let members = topology::members(functions.iter().copied());
    let mode = topology::mode(vm.tee, vm.guest.gpus.as_ref(), &members);
    let company = functions.iter().filter_map(|function| function.address.parse().ok()).collect();
    let resizes = functions.iter().filter_map(|function| resizable::wanted(vm.tee, function)).collect();
    (!members.is_empty()).then_some(Preparation { mode, members, resizes, company })
}

/// What is less than it could be.
pub(super) fn notes(inputs: &Inputs<'_>) -> Vec<String> {
    let vm = inputs.vm;
    if vm.tee == Tee::None || preparation(inputs).is_none() {
        return Vec::new();
    }
    let mut notes: Vec<_> =
        passed_functions(inputs).into_iter().filter_map(|function| resizable::unwanted(vm.tee, function)).collect();
    match &vm.guest.gpus {
        None => notes.push(
            "[guest.gpus] is not there: the measured configuration does not say how many GPUs there are".to_owned(),
        ),
        Some(gpus) if gpus.dangerously_allow_devtools => {
            notes.push("the GPUs are in the mode devtools: this host can look into them".to_owned());
        }
        Some(_) => {}
    }
    let bounce_mib = vm.memory.whole_mib().unwrap_or(0) * 6 / 100;
    let is_told = inputs.image.manifest.command_line.split_whitespace().any(|word| word.starts_with("swiotlb="));
    if bounce_mib < LARGEST_BOUNCE_MIB && !is_told {
        notes.push(format!(
            "the guest has {bounce_mib} MiB for what it exchanges with its GPUs (6 % of its memory): give it 17 GiB, or its kernel \
             `swiotlb=524288`, or transfers fail when it is full"
        ));
    }
    notes
}
