//! `bullion-guest`: PID 1 of a Bullion guest, and the agent that answers the host.
//!
//! It starts from the measured initrd, opens the root file system that the measured command line names through dm-verity,
//! makes sure that its configuration is the one its own report speaks of, switches to the verified root and stays. It has
//! no option and takes no orders but those of `spec::agent`. Whatever goes wrong ends in one line on the console, one event
//! on the agent's port, and power-off (`failure`).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod admission;
mod agent;
mod archive;
mod channel;
mod children;
mod command_line;
mod configuration;
mod console;
mod device_mapper;
mod disks;
mod failure;
mod gpus;
mod keyring;
mod lines;
mod module_list;
mod modules;
mod mounts;
mod network;
mod nvidia;
mod port;
mod power;
mod process;
mod root_device;
mod scratch;
mod shell;
mod start;
mod supervisor;
mod switch_root;
mod sysctl;
mod tee;
mod uevent;
mod uptime;
mod verity;
mod watchdog;
mod workload;
mod writable;

fn main() {
    // A second PID 1 would mount over, and power off, the machine of whoever tries the program out.
    if std::process::id() != 1 {
        console::refuse_to_run();
        std::process::exit(2);
    }
    failure::end_panics_like_failures();
    let failure = match start::start().and_then(supervisor::supervise) {
        Ok(power::PowerOffRequested) => power::power_off(),
        Err(failure) => failure,
    };
    failure::stop(&failure)
}
