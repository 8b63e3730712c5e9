//! `bullion metrics`: the VMs of this host as Prometheus text.

use launcher::{Directories, metrics};

use crate::args::Metrics;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Metrics, printer: &Printer) -> Result<u8, Failure> {
    let text = metrics::vms(&Directories::from_environment(), env!("CARGO_PKG_VERSION"))?.to_string();
    match &verb.textfile {
        // A collector reads whenever it likes: it finds the old file or the new one.
        Some(path) => store::write_atomically(path, text.as_bytes())?,
        None => printer.raw(text.as_bytes()),
    }
    Ok(0)
}
