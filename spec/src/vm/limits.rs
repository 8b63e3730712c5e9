//! `[host.limits]`: the most that QEMU takes of its host, kept by a control group (cgroups(7), version 2).
//!
//! Nothing here is measured: a host can take from a guest whatever it wants to.

use serde::{Deserialize, Serialize};

use crate::size::Size;

/// What QEMU may use, the guest's share included. What is not named is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory, that of the guest included where it is not in huge pages. At least 256 MiB more than the guest has: QEMU is
    /// ended when it needs more (`memory.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Processor time in percent of one processor: 250 is two and a half (`cpu.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Threads: one for each vCPU and volume, and those of QEMU itself (`pids.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
}

/// What QEMU needs beside the guest's memory, at least.
const BESIDE_GUEST_MIB: u64 = 256;
/// What QEMU has of threads beside those of vCPUs, at least.
const BESIDE_VCPUS: u32 = 32;
/// Most processor time: of 1024 processors.
const MOST_PERCENT: u32 = 102_400;

/// What is wrong: the key it is about, and why.
pub(super) fn fault(limits: Option<Limits>, memory: Size, vcpus: u32) -> Option<(&'static str, String)> {
    let limits = limits?;
    if limits == Limits::default() {
        return Some(("limits", "[host.limits] limits nothing: give memory, cpu_percent or threads".to_owned()));
    }
    let least = memory.bytes.saturating_add(Size::from_mib(BESIDE_GUEST_MIB).bytes);
    if let Some(limit) = limits.memory.filter(|limit| limit.bytes < least) {
        return Some((
            "limits",
            format!("limits.memory is {limit}: use at least {BESIDE_GUEST_MIB}MiB more than the guest's {memory}"),
        ));
    }
    if let Some(percent) = limits.cpu_percent.filter(|percent| !(10..=MOST_PERCENT).contains(percent)) {
        return Some(("cpu_percent", format!("cpu_percent is {percent}: use 10 to {MOST_PERCENT}")));
    }
    let least = vcpus.saturating_add(BESIDE_VCPUS);
    let threads = limits.threads.filter(|threads| *threads < least)?;
    Some(("threads", format!("threads is {threads}: use at least {least} with {vcpus} vCPUs")))
}
