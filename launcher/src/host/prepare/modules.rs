//! Which modules the kernel has, and which of them loading one would add (modules.dep and modules.builtin, depmod(8)).

use super::machine::Machine;

/// What is known of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Module {
    /// It is loaded, or a part of the kernel.
    Present,
    /// Loading it adds these, in this order; it is the last.
    Loadable(Vec<String>),
    /// This kernel has none of that name.
    Absent,
}

/// Looks for a module of the kernel of that release.
pub(super) fn find(machine: &impl Machine, release: &str, name: &str) -> Module {
    let is_loaded = |name: &str| !machine.names(&format!("sys/module/{}", name_in_sysfs(name))).is_empty();
    let list = |file: &str| machine.read(&format!("lib/modules/{release}/{file}")).unwrap_or_default();
    if is_loaded(name) || list("modules.builtin").lines().any(|path| is(path, name)) {
        return Module::Present;
    }
    let dependencies = list("modules.dep");
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    let Some((path, needs)) = lines.into_iter().find(|(path, _)| is(path, name)) else { return Module::Absent };
    // What a module needs is listed so that the last is loaded first.
    let order = needs.split_whitespace().rev().chain([path]);
    Module::Loadable(order.filter_map(name_of).filter(|name| !is_loaded(name)).collect())
}

/// The kernel shows every hyphen of a module's name as an underscore.
pub(super) fn name_in_sysfs(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of the module in a file such as `kernel/drivers/vfio/pci/vfio-pci.ko.xz`.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    Some(name_in_sysfs(file.split_once(".ko")?.0))
}

fn is(path: &str, name: &str) -> bool {
    name_of(path).is_some_and(|found| found == name_in_sysfs(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::host::prepare::LocalMachine;

    fn found(dep: &str, name: &str) -> Module {
        let root = tempfile::tempdir().unwrap();
        let modules = root.path().join("lib/modules/7.3.4");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("modules.dep"), dep).unwrap();
        fs::write(modules.join("modules.builtin"), "kernel/drivers/net/tun.ko\n").unwrap();
        fs::create_dir_all(root.path().join("sys/module/irqbypass/holders")).unwrap();
        find(&LocalMachine::new(root.path(), &root.path().join("journal")), "7.3.4", name)
    }

    #[test]
    fn modules_are_found_with_what_they_need() {
        // As depmod of kmod 34 writes it for Linux 7.3.
        let dep = "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/pci/vfio-pci-core.ko.xz \
                   kernel/drivers/vfio/vfio_iommu_type1.ko.xz kernel/drivers/vfio/vfio.ko.xz kernel/virt/lib/irqbypass.ko.xz\n\
                   kernel/virt/lib/irqbypass.ko.xz:\n";
        let adds = ["vfio", "vfio_iommu_type1", "vfio_pci_core", "vfio_pci"].map(str::to_owned);
        assert_eq!(found(dep, "vfio-pci"), Module::Loadable(adds.to_vec()));
        assert_eq!(found(dep, "irqbypass"), Module::Present);
        assert_eq!(found(dep, "tun"), Module::Present);
        assert_eq!(found(dep, "iommufd"), Module::Absent);
    }

    proptest! {
        #[test]
        fn any_list_is_read(dep in "[ -~\n]{0,200}", name in "[a-z_-]{0,10}") {
            found(&dep, &name);
        }
    }
}
