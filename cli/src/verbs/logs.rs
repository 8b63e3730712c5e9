//! `bullion logs`: a VM's console or its workload's output, also after it has ended.

use std::io::{self, IsTerminal as _, Write};

use launcher::Directories;
use launcher::screen::TerminalGuard;
use launcher::state::Which;

use crate::args::Logs;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Logs, printer: &Printer) -> Result<u8, Failure> {
    let mut sink = Sink { printer, guard: io::stdout().is_terminal().then(TerminalGuard::default) };
    let which = if verb.workload { Which::Workload } else { Which::Console };
    launcher::state::logs(&Directories::from_environment(), &verb.name, which, verb.follow, &mut sink)?;
    Ok(0)
}

/// Standard output; on a terminal, what the guest wrote cannot take the terminal over.
struct Sink<'a> {
    printer: &'a Printer,
    guard: Option<TerminalGuard>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.guard {
            Some(guard) => self.printer.raw(guard.filter(bytes).as_bytes()),
            None => self.printer.raw(bytes),
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
