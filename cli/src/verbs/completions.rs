//! `bullion completions`: scripts by which shells complete this program's words.

use clap::CommandFactory as _;

use crate::args::{Arguments, Completions};
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Completions, printer: &Printer) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(verb.shell, &mut Arguments::command(), "bullion", &mut script);
    printer.raw(&script);
    Ok(0)
}
