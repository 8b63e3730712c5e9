//! `bullion vm`: VM descriptions, checked, planned, and written as systemd units.

mod install;

use serde_json::json;
use spec::vm::Vm;

use crate::args::{Arguments, Launch, VmAction, VmPlan, VmVerb};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;

pub(crate) fn run(arguments: &Arguments, verb: &VmVerb, printer: &Printer) -> Result<u8, Failure> {
    match &verb.action {
        VmAction::Check { files } => check(files, printer),
        VmAction::Install(verb) => install::run(arguments, verb, printer),
        VmAction::Uninstall(verb) => install::undo(verb, printer),
        VmAction::Plan(plan) => super::launch::run(arguments, &planned(plan), printer),
    }
}

/// The launch whose plan is asked for.
fn planned(plan: &VmPlan) -> Launch {
    Launch {
        vm: plan.vm.clone(),
        simulate: plan.simulate,
        qemu: plan.qemu.clone(),
        image: plan.image.clone(),
        release: plan.release.clone(),
        plan: true,
        ..Launch::default()
    }
}

fn check(files: &[std::path::PathBuf], printer: &Printer) -> Result<u8, Failure> {
    let mut all = Vec::new();
    for file in files {
        let (vm, image) = inputs::vm(file)?;
        printer.line(format_args!("{}: {}", file.display(), summary(&vm)));
        all.push(json!({ "file": file, "image": image, "vm": vm }));
    }
    printer.value(&json!({ "vms": all }));
    Ok(0)
}

fn summary(vm: &Vm) -> String {
    let mut words =
        vec![format!("\"{}\", tee {}, {} vCPUs {}, {}", vm.name, vm.tee, vm.vcpus, vm.cpu_model(), vm.memory)];
    let host = &vm.host;
    words.extend((!host.nics.is_empty()).then(|| format!("networks: {}", host.nics.len())));
    words.extend(host.pci.iter().map(|device| {
        let volume = device.volume.as_ref().map(|volume| format!(" (volume \"{volume}\")")).unwrap_or_default();
        format!("PCI {}{volume}", device.label())
    }));
    words.extend(host.huge_pages.map(|size| format!("huge pages of {size}")));
    words.extend(host.nodes().iter().map(|node| format!("NUMA node {node}")));
    words.join(", ")
}
