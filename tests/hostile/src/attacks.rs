//! All attacks, by family. The report's table and the tests are made of this list.

mod boot;
mod configuration;
mod devices;
mod monitor;
mod ports;
mod root;
mod surroundings;
mod tables;

use crate::attack::Attack;

/// Attacks of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// What they have in common, for the report.
    pub name: &'static str,
    /// The function in `tests/suite.rs` that carries them out.
    pub test: &'static str,
    /// The attacks.
    pub attacks: &'static [Attack],
}

/// Every family. The test's name is checked against the tests that there are.
pub const FAMILIES: [Family; 8] = [
    Family { name: "Tables of the machine", test: "tables_that_the_host_wrote", attacks: tables::ATTACKS },
    Family { name: "What is booted", test: "another_kernel_initrd_or_command_line", attacks: boot::ATTACKS },
    Family { name: "The root file system's disk", test: "a_root_disk_that_is_not_the_image", attacks: root::ATTACKS },
    Family {
        name: "The configuration's disk",
        test: "configurations_that_nobody_meant",
        attacks: configuration::ATTACKS,
    },
    Family { name: "Devices that nobody declared", test: "devices_that_nobody_declared", attacks: devices::ATTACKS },
    Family { name: "Ports, keys and interrupts", test: "whatever_comes_through_a_port", attacks: ports::ATTACKS },
    Family {
        name: "Time, entropy, memory, processors",
        test: "another_clock_memory_or_processor",
        attacks: surroundings::ATTACKS,
    },
    Family { name: "QEMU's monitor", test: "tricks_of_the_monitor", attacks: monitor::ATTACKS },
];
