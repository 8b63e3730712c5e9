//! What the configuration of any image's kernel must say, whatever the table of its component says: a table that somebody shortened
//! is a table still. It stops mistakes, and no hostile component: the component's script writes the configuration that is looked at
//! here, and its patches change what an option does. Both are trusted, and are what a reviewer must read.
//! The reasons at length, and who gives them, are in the table of the kernel component that is shipped.

use spec::hardening::{Configuration, Deviation};

/// Option without `CONFIG_`, value as in a table of hardening, and why.
const FLOOR: [(&str, &str, &str); 27] = [
    ("ACPI_ADMISSION", "y", "the host writes the ACPI tables, and the kernel runs the code in them"),
    ("ACPI_TABLE_UPGRADE", "n", "admission never saw tables out of an initrd"),
    ("ACPI_CONFIGFS", "n", "user space could load ACPI code"),
    ("ACPI_DEBUGGER", "n", "user space could run ACPI methods"),
    ("EFI_CUSTOM_SSDT_OVERLAYS", "n", "variables, which the host keeps, could bring ACPI code"),
    ("FW_CFG_SYSFS", "n", "the host could hand files to programs that nothing measures"),
    ("KVM_GUEST", "n", "the host could set the guest's clock"),
    ("PTP_1588_CLOCK_KVM", "n", "the host could step the guest's clock"),
    ("XEN", "n", "an interface to a hypervisor that is not there"),
    ("HYPERV", "n", "an interface to a hypervisor that is not there"),
    ("VIRTIO_MEM", "n", "the host could take and give memory while the guest runs"),
    ("VIRTIO_BALLOON", "n", "the host could take memory while the guest runs"),
    ("HW_RANDOM_VIRTIO", "n", "random numbers of the host's choice would count as entropy"),
    ("MEMORY_HOTPLUG", "n", "memory that comes later is not in the measurement"),
    ("MAGIC_SYSRQ", "n", "a break on the serial line would give the host commands"),
    ("CMDLINE_BOOL", "n", "a second command line would hide from readers of the measured one"),
    ("BOOT_CONFIG", "n", "parameters in the initrd would hide from readers of the command line"),
    ("KEXEC", "n", "another kernel could take this one's place"),
    ("KEXEC_FILE", "n", "another kernel could take this one's place"),
    ("HIBERNATION", "n", "memory would go to a disk that the host reads"),
    ("SECURITY_LOCKDOWN_LSM_EARLY", "y", "lockdown must hold before the command line is read"),
    ("LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY", "y", "root could read and change kernel memory"),
    ("DEVMEM", "n", "physical memory as a file"),
    ("PROC_KCORE", "n", "kernel memory as a file"),
    ("STRICT_KERNEL_RWX", "y", "code of the kernel could be written to"),
    ("PANIC_ON_OOPS", "y", "what failed once would be left running for another try"),
    ("IA32_EMULATION", "n", "a second set of system calls for programs that no image has"),
];

/// Where the configuration of a kernel is below the floor; `has_modules` where some were compiled with it.
pub(super) fn deviations(configuration: &Configuration, has_modules: bool) -> Vec<Deviation> {
    // A signature would not do: whoever repeats the build has its key.
    let admitted =
        ("MODULE_ADMISSION", "y", "of modules, only those that the command line names may become a part of the kernel");
    let modules = (has_modules || configuration.value("MODULES") != "n").then_some(admitted);
    let deviation = |(name, value, why): (&str, &str, &str)| {
        let found = configuration.value(name);
        (found != value).then(|| Deviation {
            name: name.to_owned(),
            expected: value.to_owned(),
            found: found.to_owned(),
            why: why.to_owned(),
        })
    };
    FLOOR.into_iter().chain(modules).filter_map(deviation).collect()
}

#[cfg(test)]
mod tests {
    use spec::hardening::Hardening;

    use super::*;

    /// What the table of the component that is shipped asks for, as a configuration, with one option changed.
    fn configuration(change: Option<(&str, &str)>) -> Configuration {
        let text = include_str!("../../../../image-recipes/components/kernel/hardening.toml");
        let table = Hardening::parse("hardening.toml", text).unwrap();
        let mut text = String::new();
        for option in table.option.iter().filter(|option| Some(option.name.as_str()) != change.map(|(name, _)| name)) {
            if option.value != "n" {
                text.push_str(&format!("CONFIG_{}={}\n", option.name, option.value));
            }
        }
        if let Some((name, value)) = change.filter(|(_, value)| *value != "n") {
            text.push_str(&format!("CONFIG_{name}={value}\n"));
        }
        Configuration::parse(".config", &text).unwrap()
    }

    #[test]
    fn the_table_of_the_shipped_component_is_above_the_floor() {
        assert_eq!(deviations(&configuration(None), false), []);
    }

    #[test]
    fn each_line_of_the_floor_holds_by_itself() {
        for (name, value, _) in FLOOR {
            let other = if value == "n" { "y" } else { "n" };
            let found = deviations(&configuration(Some((name, other))), false);
            assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), [name]);
        }
        assert_eq!(
            deviations(&Configuration::default(), false).len(),
            FLOOR.iter().filter(|line| line.1 == "y").count()
        );
    }

    #[test]
    fn modules_are_admitted_by_name_or_there_are_none() {
        // The second could load none of what was compiled with it.
        for (change, has_modules) in [(Some(("MODULES", "y")), false), (None, true)] {
            let found = deviations(&configuration(change), has_modules);
            assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["MODULE_ADMISSION"]);
        }
        let text = "CONFIG_MODULES=y\nCONFIG_MODULE_ADMISSION=y\n";
        let admitted = deviations(&Configuration::parse(".config", text).unwrap(), true);
        assert!(admitted.iter().all(|one| one.name != "MODULE_ADMISSION"));
    }
}
