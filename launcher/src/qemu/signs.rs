//! The devices by which a guest says how it is: a watchdog that it feeds while it is well, and pvpanic, by which its kernel tells of a
//! panic. Each has a place of its own behind the volumes, and is there only where the measured configuration names it.
//!
//! The watchdog is Intel's 6300ESB, because it is one PCI function with one register window: the one of the q35 chipset (TCO) has no driver
//! in Debian's kernels for clouds, and that of an ACPI table (WDAT) has the guest write wherever the table says. pvpanic is
//! the PCI function for the same reason: the ISA device is ACPI code. Both move the DSDT, and so RTMR0; neither is in an SNP launch digest.

use spec::guest_config::GuestConfig;
use spec::watchdog::{PVPANIC_MODULE, WATCHDOG_MODULE};

use super::arguments::{Arguments, Properties};

const WATCHDOG: &str = "i6300esb";
const WATCHDOG_SLOT: &str = "0x18";
const PVPANIC: &str = "pvpanic-pci";
const PVPANIC_SLOT: &str = "0x19";
/// The kernel may tell of a panic, of nothing else (QEMU `docs/specs/pvpanic.rst`, bit 0).
const PANICKED: &str = "1";

/// Which of them a guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    pub(crate) watchdog: bool,
    pub(crate) pvpanic: bool,
}

impl Signs {
    pub(crate) fn of(config: &GuestConfig) -> Self {
        Self { watchdog: config.watchdog.is_some(), pvpanic: config.pvpanic }
    }

    pub(super) fn types(self) -> impl Iterator<Item = &'static str> {
        [(self.watchdog, WATCHDOG), (self.pvpanic, PVPANIC)]
            .into_iter()
            .filter_map(|(there, name)| there.then_some(name))
    }

    /// What the configuration calls them, and the modules that drive them in the guest.
    pub(crate) fn drivers(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let all = [(self.watchdog, ("watchdog", WATCHDOG_MODULE)), (self.pvpanic, ("pvpanic", PVPANIC_MODULE))];
        all.into_iter().filter_map(|(there, driver)| there.then_some(driver))
    }

    pub(super) fn arguments(self, arguments: &mut Arguments) {
        let device = |name, id, slot| Properties::of(name).with("id", id).with("bus", "pcie.0").with("addr", slot);
        if self.watchdog {
            arguments.option("-device", device(WATCHDOG, "watchdog", WATCHDOG_SLOT));
            // A guest that hangs stands still until it is ended, and is not reset: what it is ended for is said by the event.
            arguments.option("-action", Properties::with_first("watchdog", "pause"));
        }
        if self.pvpanic {
            arguments.option("-device", device(PVPANIC, "pvpanic", PVPANIC_SLOT).with("events", PANICKED));
        }
    }
}
