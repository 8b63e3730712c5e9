//! One file a verb. A verb returns the exit code, or the failure to print.

mod build;
mod cache;
mod completions;
mod component;
mod console;
mod describe;
mod diff;
mod eventlog;
mod exec;
mod explain;
mod fetch;
mod firmware;
mod gpu;
mod host;
mod idblock;
mod image_verify;
mod keygen;
mod launch;
mod lock;
mod logs;
mod man;
mod measure;
mod metrics;
mod ps;
mod publish;
mod rebuild;
mod rm;
mod sandbox;
mod selftest;
mod stop;
mod unchanged;
mod vendor;
mod vm;

use crate::args::{Arguments, ImageAction, Verb};
use crate::failure::Failure;
use crate::printer::Printer;

/// Runs the verb that was asked for.
pub(crate) fn run(arguments: &Arguments, printer: &Printer) -> Result<u8, Failure> {
    match &arguments.verb {
        Verb::Lock(verb) => lock::run(arguments, verb, printer),
        Verb::Fetch(verb) => fetch::run(arguments, verb, printer),
        Verb::Vendor(verb) => vendor::run(arguments, verb, printer),
        Verb::Build(verb) => build::run(arguments, verb, printer),
        Verb::Component(verb) => component::run(arguments, verb, printer),
        Verb::Rebuild(verb) => rebuild::run(arguments, verb, printer),
        Verb::Describe(verb) => describe::run(verb, printer),
        Verb::Diff(verb) => diff::run(arguments, verb, printer),
        Verb::Measure(verb) => measure::run(arguments, verb, printer),
        Verb::Explain(verb) => explain::run(arguments, verb, printer),
        Verb::EventLog(verb) => eventlog::run(verb, printer),
        Verb::IdBlock(verb) => idblock::run(verb, printer),
        Verb::Firmware(verb) => firmware::run(verb, printer),
        Verb::Keygen(verb) => keygen::run(verb, printer),
        Verb::Host(verb) => host::run(arguments, verb, printer),
        Verb::Gpu(verb) => gpu::run(verb, printer),
        Verb::Selftest(verb) => selftest::run(verb, printer),
        Verb::Publish(verb) => publish::run(verb, printer),
        Verb::Image(words) => match &words.action {
            ImageAction::Verify(verb) => image_verify::run(verb, printer),
        },
        Verb::Vm(verb) => vm::run(arguments, verb, printer),
        Verb::Launch(verb) => launch::run(arguments, verb, printer),
        Verb::Ps => ps::run(printer),
        Verb::Logs(verb) => logs::run(verb, printer),
        Verb::Console(verb) => console::run(verb, printer),
        Verb::Stop(verb) => stop::run(verb, printer),
        Verb::Rm(verb) => rm::run(verb, printer),
        Verb::Metrics(verb) => metrics::run(verb, printer),
        Verb::Completions(verb) => completions::run(verb, printer),
        Verb::Man(verb) => man::run(verb, printer),
        Verb::Cache(verb) => cache::run(arguments, verb, printer),
        Verb::Exec(verb) => exec::run(arguments, verb),
        Verb::Sandbox(verb) => sandbox::run(verb),
    }
}
