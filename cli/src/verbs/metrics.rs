//! `bullion metrics`: the VMs of this host as Prometheus text, and its GPUs where they are to be asked.

use std::path::Path;

use launcher::gpu::sysfs::{PROCFS, SYSFS};
use launcher::{Directories, gpu, metrics};

use crate::args::Metrics;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Metrics, printer: &Printer) -> Result<u8, Failure> {
    let directories = Directories::from_environment();
    let mut exposition = metrics::vms(&directories, env!("CARGO_PKG_VERSION"))?;
    if verb.gpus {
        let sysfs = Path::new(SYSFS);
        let devices = gpu::survey::survey(sysfs, Path::new(PROCFS), &directories)
            .map_err(|error| Failure::file("listing PCI devices in", sysfs, &error))?;
        gpu::metrics::expose(&devices, &gpu::tally::Tallied::read(&directories), &mut exposition);
    }
    let text = exposition.to_string();
    match &verb.textfile {
        // A collector reads whenever it likes: it finds the old file or the new one.
        Some(path) => store::write_atomically(path, text.as_bytes())?,
        None => printer.raw(text.as_bytes()),
    }
    Ok(0)
}
