//! The configuration of a VM description that is accepted comes back from its disk.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(vm) = spec::vm::Vm::parse("x.vm.toml", text)
        && let Ok(disk) = vm.guest.to_disk()
    {
        assert_eq!(spec::guest_config::GuestConfig::from_disk(&disk).as_ref(), Ok(&vm.guest));
    }
});
