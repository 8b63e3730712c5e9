//! `bullion rm`: forgets VMs that have ended, with their logs.

use launcher::Directories;
use launcher::state::forget;

use crate::args::Rm;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Rm, printer: &Printer) -> Result<u8, Failure> {
    let directories = Directories::from_environment();
    for name in &verb.names {
        forget(&directories, name)?;
        printer.line(format_args!("{name}: forgotten"));
    }
    printer.value(&serde_json::json!({ "forgotten": verb.names }));
    Ok(0)
}
