//! `bullion stop`: asks a VM to end, and ends it when it does not.

use std::time::Duration;

use launcher::Directories;
use launcher::state::Stopped;

use crate::args::Stop;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Stop, printer: &Printer) -> Result<u8, Failure> {
    let stopped =
        launcher::state::stop(&Directories::from_environment(), &verb.name, verb.timeout.map(Duration::from_secs))?;
    let how = match stopped {
        Stopped::InTime => "stopped",
        Stopped::Hurried => "stopped, after it was told that there is no more time",
        Stopped::Killed => "killed: it did not stop in time",
    };
    printer.line(format_args!("{}: {how}", verb.name));
    printer.value(&serde_json::json!({ "name": verb.name, "how": how }));
    Ok(0)
}
