//! A guest without a TEE: SeaBIOS, which is quick, and nothing to protect from the host.

use super::arguments::{Arguments, Properties};
use super::{Accelerator, TeeArguments};
use crate::host::HostFacts;

pub(super) struct Plain;

impl TeeArguments for Plain {
    fn cpu(&self, model: Properties, _: Accelerator, _: &HostFacts) -> Properties {
        model
    }

    fn machine(&self, machine: Properties) -> Properties {
        machine
    }

    fn confidential_guest(&self, _: &HostFacts) -> Option<Properties> {
        None
    }

    fn options(&self, _: &mut Arguments) {}

    fn virtio(&self, device: Properties) -> Properties {
        device.with("disable-legacy", "on")
    }

    fn shared_memory(&self) -> bool {
        false
    }

    fn types(&self) -> &'static [&'static str] {
        &[]
    }
}
