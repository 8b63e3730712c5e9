//! The program `bullion`: arguments, verbs, one printer, exit codes and hints. What it does is in the libraries.

mod args;
mod component;
mod evidence_file;
mod failure;
mod firmware;
mod inputs;
mod printer;
mod tree;
mod trust;
mod verbs;
mod weigh;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are not errors; everything else is a mistake on the command line: exit code 2.
            let code = if error.use_stderr() { spec::Outcome::Usage.code() } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let printer = printer::Printer::new(arguments.json, arguments.quiet);
    match verbs::run(&arguments, &printer) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.outcome.code())
        }
    }
}
