//! `bullion launch`: plans a launch, carries it out, shows the console, and says how it ended.

mod expected;
mod foreseen;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::thread;

use launcher::attach::admits_typing;
use launcher::host::prepare::after;
use launcher::keyboard::Keyboard;
use launcher::plan::Simulation;
use launcher::screen::Screen;
use launcher::simulation::SimulationReport;
use launcher::{Directories, HostFacts, Image, Options, Progress, Report, Request};
use serde::Serialize;
use serde_json::{Value, json};
use spec::agent::{Identity, Measurements, Workload};
use spec::vm::Vm;
use spec::{Outcome, Tee};
use store::Store;

use crate::args::{Arguments, Launch};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;
use crate::tree;
use crate::trust;
use crate::weigh::admission;
use expected::{Expected, RtmrValues, Rtmrs};
use foreseen::Foreseen;

pub(crate) fn run(arguments: &Arguments, verb: &Launch, printer: &Printer) -> Result<u8, Failure> {
    let (vm, named) = inputs::vm(&verb.vm)?;
    let image = Image::open(verb.image.as_deref().unwrap_or(&named))?;
    let store = inputs::open_store(arguments)?;
    // Each takes some milliseconds.
    let (tree, facts) = thread::scope(|scope| {
        let facts = scope.spawn(HostFacts::probe);
        (tree::qemu(&verb.qemu, &store), facts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    // The tree is held for as long as QEMU runs, so that no `cache prune` takes it away.
    let (_hold, program) = tree?;
    // Before its firmware is run to be asked: that of an image that nobody has released is run by nobody.
    let directories = Directories::from_environment();
    let release = release(&vm, &image, verb, &directories)?;
    let foreseen = Foreseen::new(&vm, &image);
    // QEMU itself is started with what is foreseen of a TD.
    if vm.tee == Tee::Tdx || verb.plan {
        foreseen.now(|expected| {
            if vm.tee == Tee::Tdx && (verb.simulate || !verb.plan) {
                predict_rtmrs(expected, &vm, &image, verb, &store, printer);
            }
        })?;
    }
    // In a simulation, nothing of the guest runs; and who skips the artifacts has others than the manifest's.
    if !verb.simulate
        && !verb.dangerously_skip_artifact_verification
        && let Some(doubt) = admission::check(&vm, &image, &facts, &verb.qemu, &store)?
    {
        printer.warning(doubt);
    }
    let options = options(verb, foreseen.expected(), foreseen.is_to_come())?;
    let pins = inputs::pins()?;
    let request = Request {
        vm: &vm,
        image: &image,
        release: release.as_ref(),
        pins: &pins,
        program: &program,
        options: &options,
        cache: store.root(),
        directories: &directories,
        clock: || trust::now().ok(),
        later: &foreseen,
    };
    if verb.plan {
        return show_plan(&request, &facts, foreseen.expected(), printer);
    }
    let mut screen = if printer.json() { None } else { Screen::new(&std::io::stdout()).ok() };
    if verb.console {
        screen = Some(with_keyboard(screen, &image)?);
    }
    let report = launcher::launch(&request, facts, screen, &mut |progress| {
        tell(progress, foreseen.expected(), verb, printer);
    })?;
    finish(&vm, &report, foreseen.expected(), verb, printer)
}

/// Adds what firmware and kernel of a TD should measure, for which another QEMU is asked for its tables.
fn predict_rtmrs(expected: &mut Expected, vm: &Vm, image: &Image, verb: &Launch, store: &Store, printer: &Printer) {
    match Rtmrs::predict(vm, image, &verb.qemu, store) {
        Ok(rtmrs) => expected.rtmrs = Some(rtmrs),
        // MRTD is compared all the same, and what is wrong with the image is the launch's to say.
        Err(failure) => {
            let reason = failure.messages.join(": ");
            printer.warning(marked(verb, &format_args!("RTMRs are not predicted: {reason}")));
            failure.hint.iter().for_each(|hint| printer.note(hint));
            expected.not_predicted = Some(reason);
        }
    }
}

/// The screen with what is typed here for the guest. A release listens to nobody.
fn with_keyboard(screen: Option<Screen>, image: &Image) -> Result<Screen, Failure> {
    let refused = |message: &str| Failure::new(Outcome::Usage, message);
    if !admits_typing(image.manifest.class) {
        return Err(refused("--console is for images with a shell on their serial line, and no release has one"));
    }
    let screen = screen.ok_or_else(|| refused("--console shows what the guest writes, which --json does not"))?;
    let keyboard = Keyboard::new(&std::io::stdin())
        .map_err(|error| Failure::new(Outcome::HostCannot, format!("reading what is typed: {error}")))?;
    Ok(screen.with_keyboard(keyboard))
}

/// Holds the image against its signed release: in a TEE always, unless the caller wants the risk; otherwise where the caller
/// names a key.
fn release(
    vm: &Vm,
    image: &Image,
    verb: &Launch,
    directories: &Directories,
) -> Result<Option<sign::VerifiedRelease>, Failure> {
    let words = &verb.release;
    let really_in_tee = vm.tee != Tee::None && !verb.simulate;
    if words.dangerously_allow_unsigned || !(really_in_tee || words.named()) {
        return Ok(None);
    }
    match trust::accept(image, &words.trust, directories) {
        Ok(release) => Ok(Some(release)),
        // In a TEE there is a way around it, which the person should hear of here.
        Err(failure) => Err(match failure.hint {
            Some(ref hint) if really_in_tee && failure.outcome == Outcome::SignatureInvalid => {
                let hint = format!("{hint}; --dangerously-allow-unsigned launches it all the same");
                failure.with_hint(hint)
            }
            _ => failure,
        }),
    }
}

/// `more_is_expected`: what the TEE should measure is not known yet, and will be.
fn options(verb: &Launch, expected: Option<&Expected>, more_is_expected: bool) -> Result<Options, Failure> {
    let placement = expected.and_then(|expected| Some(expected.rtmrs.as_ref()?.placement.clone()));
    let simulation = || Ok::<_, Failure>(Simulation { preload: simulator()?, keep_running: false, placement });
    let simulate = verb.simulate.then(simulation).transpose()?;
    Ok(Options {
        simulate,
        dangerously_skip_artifact_verification: verb.dangerously_skip_artifact_verification,
        dangerously_allow_unsigned: verb.release.dangerously_allow_unsigned,
        dangerously_unconfined: verb.dangerously_unconfined,
        until_ready: verb.until_ready,
        expected_measurements: expected.map(Expected::measurement).into_iter().collect(),
        more_is_expected,
    })
}

/// Finds the simulator: `$BULLION_TEESIM`, else beside this program.
fn simulator() -> Result<PathBuf, Failure> {
    let variable = std::env::var_os("BULLION_TEESIM").filter(|value| !value.is_empty()).map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("libteesim.so"));
    let path = variable.or_else(beside).filter(|path| path.is_file()).and_then(|path| path.canonicalize().ok());
    path.ok_or_else(|| {
        Failure::new(
            Outcome::HostCannot,
            "the simulator libteesim.so is neither at $BULLION_TEESIM nor beside this program",
        )
        .with_hint("build it with: cargo build --release -p bullion-teesim")
    })
}

fn show_plan(
    request: &Request<'_>,
    facts: &HostFacts,
    expected: Option<&Expected>,
    printer: &Printer,
) -> Result<u8, Failure> {
    // A host that is not ready yet is planned for as it will be once it is.
    let (_, preparation) =
        super::host::prepare::plan(facts, Some(&super::host::prepare::needs(request.vm, facts)?), None, false);
    let changes = if preparation.refusals.is_empty() { preparation.steps } else { Vec::new() };
    let plan = launcher::launch::plan_only(request, &after(facts, &changes))?;
    changes.iter().for_each(|step| printer.line(format_args!("{:<12} {step}", "prepare")));
    printer.line(&plan);
    printer.value(&json!({
        "name": plan.name,
        "tee": plan.tee,
        "accelerator": plan.accelerator.to_string(),
        "argv": plan.argv,
        "env": plan.env,
        "expected": expected_json(expected),
        "facts": plan.facts,
        "notes": plan.notes,
        "host_changes": changes,
    }));
    Ok(0)
}

fn expected_json(expected: Option<&Expected>) -> Value {
    expected.map_or(Value::Null, Expected::json)
}

fn tell(progress: Progress<'_>, expected: Option<&Expected>, verb: &Launch, printer: &Printer) {
    let note = |text: &dyn Display| printer.note(marked(verb, text));
    match progress {
        Progress::Started { pid, accelerator, after } => {
            note(&format_args!("QEMU started ({accelerator}, process {pid}) after {} ms", after.as_millis()));
        }
        Progress::Ready { identity, after } => note(&format_args!(
            "the guest is ready after {:.1} s: root {} verified, tee {}, configuration {}",
            after.as_secs_f64(),
            identity.root_hash.short(),
            identity.tee,
            binding(identity)
        )),
        Progress::Measured(measurements) => {
            for (name, value) in &measurements.registers {
                // The guest's words pass through this host: they are no evidence.
                let predicted = expected.map(|expected| expected.of_register(name)).unwrap_or_default();
                let compared = match predicted.as_slice() {
                    [] => String::new(),
                    any if any.iter().any(|one| one.eq_ignore_ascii_case(value)) => ", as predicted".to_owned(),
                    others => format!(", NOT as predicted: {}", others.join(" or ")),
                };
                note(&format_args!("the guest reads {name} {value}{compared}"));
            }
        }
        Progress::Workload(workload) => note(&workload_text(workload)),
        Progress::Output(line) => note(&format_args!("workload: {line}")),
        Progress::Restarting { ending, restarts, after } => {
            printer.warning(marked(verb, ending));
            note(&format_args!("starting it again in {} s (restart {restarts})", after.as_secs()));
        }
        Progress::Stopping => note(&"stopping the guest"),
        Progress::Note(text) => note(&text),
    }
}

fn workload_text(workload: Workload) -> String {
    match workload {
        Workload::Preparing => "the workload is being prepared".to_owned(),
        Workload::Running { restarts: 0 } => "the workload runs".to_owned(),
        Workload::Running { restarts } => format!("the workload runs again (restart {restarts})"),
        Workload::Ended { exit_code, .. } => format!("the workload has ended with exit code {exit_code}"),
    }
}

/// A line of a simulated launch says so, whatever it is about: lines are copied without what stood around them.
fn marked(verb: &Launch, text: &dyn Display) -> String {
    let text = text.to_string();
    if verb.simulate && !text.starts_with("SIMULATED") { format!("SIMULATED: {text}") } else { text }
}

fn binding(identity: &Identity) -> String {
    serde_json::to_value(identity.configuration.binding)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[derive(Serialize)]
struct Answer<'a> {
    name: &'a str,
    tee: Tee,
    accelerator: String,
    ending: String,
    exit_code: u8,
    ready_ms: Option<u64>,
    identity: Option<&'a Identity>,
    measurements: Option<&'a Measurements>,
    workload: Option<Workload>,
    simulated: bool,
    expected: Value,
    measured: Value,
    /// What follows from what the guest of a simulated launch read by fw_cfg.
    from_fw_cfg: Value,
    console_log: &'a Path,
    last_words: &'a [String],
}

fn finish(
    vm: &Vm,
    report: &Report,
    expected: Option<&Expected>,
    verb: &Launch,
    printer: &Printer,
) -> Result<u8, Failure> {
    let ending = &report.ending;
    let inside = inside(ending.simulation(), expected)?;
    let moved = differing(inside.as_ref(), expected);
    let outcome = ending.outcome().or((!moved.is_empty()).then_some(Outcome::Refused));
    let exit_code = outcome.map_or(0, Outcome::code);
    match ending.outcome() {
        Some(outcome) => {
            let mut failure = Failure::new(outcome, marked(verb, ending));
            failure.hint = ending.hint();
            if !printer.json() {
                printer.note(marked(verb, &format_args!("the console log is {}", report.console_log.display())));
                return Err(failure);
            }
            // Where the console was shown, its last lines are on the screen already.
            failure.messages.extend(report.last_words.iter().map(|line| format!("console: {line}")));
            printer.text_failure(&failure);
        }
        None => match ending.simulation().and_then(SimulationReport::digest) {
            Some(found) => simulated(vm, found, expected, (inside.as_ref(), &moved), printer),
            None => printer.note(ending),
        },
    }
    let measured = ending.simulation().map_or(Value::Null, |report| Value::Object(report.values.clone()));
    printer.value(&Answer {
        name: &vm.name,
        tee: vm.tee,
        accelerator: report.accelerator.to_string(),
        ending: ending.to_string(),
        exit_code,
        ready_ms: report.ready_ms,
        identity: report.identity.as_ref(),
        measurements: report.measurements.as_ref(),
        workload: report.workload,
        simulated: verb.simulate,
        expected: expected_json(expected),
        measured,
        from_fw_cfg: inside.map_or(Value::Null, |values| Value::Object(values.json())),
        console_log: &report.console_log,
        last_words: &report.last_words,
    });
    Ok(exit_code)
}

/// What follows from what the guest of a simulated launch read, where it read anything.
fn inside(report: Option<&SimulationReport>, expected: Option<&Expected>) -> Result<Option<RtmrValues>, Failure> {
    match (report, expected.and_then(|expected| expected.rtmrs.as_ref())) {
        (Some(report), Some(rtmrs)) => rtmrs.of_simulation(report),
        _ => Ok(None),
    }
}

fn differing(inside: Option<&RtmrValues>, expected: Option<&Expected>) -> Vec<&'static str> {
    let predicted = expected.and_then(|expected| expected.rtmrs.as_ref());
    inside.zip(predicted).map(|(found, rtmrs)| found.differing(&rtmrs.values)).unwrap_or_default()
}

/// Tells that what the simulator measured is what was predicted, and whether what its guest read leads there too.
fn simulated(
    vm: &Vm,
    found: &str,
    expected: Option<&Expected>,
    (inside, moved): (Option<&RtmrValues>, &[&str]),
    printer: &Printer,
) {
    printer.note(format_args!(
        "SIMULATED: no TEE measured this; QEMU's whole {} launch ran against the simulator",
        vm.tee
    ));
    printer.line(match expected {
        Some(expected) => {
            format!("SIMULATED: {} of the pages that QEMU submitted equals the prediction", expected.key)
        }
        None => "SIMULATED: the prediction depends on the host's CPU, so there is none to compare".to_owned(),
    });
    printer.line(format_args!("SIMULATED: {found}"));
    let Some(inside) = inside else { return };
    printer.line(match moved {
        [] if inside.0.len() == 1 => {
            "SIMULATED: RTMR0 of what QEMU gave the guest by fw_cfg equals the prediction".to_owned()
        }
        [] => "SIMULATED: RTMR0 to RTMR2 of what QEMU gave the guest by fw_cfg equal the prediction".to_owned(),
        moved => format!("SIMULATED: {} of what QEMU gave the guest by fw_cfg NOT as predicted", moved.join(", ")),
    });
    for (number, value) in inside.0.iter().enumerate() {
        printer.line(format_args!("SIMULATED: RTMR{number} {value}"));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Verb;

    fn launch(words: &[&str]) -> Launch {
        let arguments = Arguments::try_parse_from([&["bullion", "launch", "vm.toml"], words].concat()).unwrap();
        let Verb::Launch(launch) = arguments.verb else { panic!("{arguments:?}") };
        launch
    }

    #[test]
    fn every_line_of_a_simulated_launch_says_so() {
        let simulate = launch(&["--simulate"]);
        assert_eq!(marked(&simulate, &"QEMU started"), "SIMULATED: QEMU started");
        assert_eq!(marked(&simulate, &"SIMULATED: once"), "SIMULATED: once");
        assert_eq!(marked(&launch(&[]), &"QEMU started"), "QEMU started");
    }

    #[test]
    fn the_prediction_is_the_launchers_to_compare() {
        let expected =
            Expected { key: "mrtd", register: "MRTD", value: "aa".to_owned(), rtmrs: None, not_predicted: None };
        let options = options(&launch(&[]), Some(&expected), false).unwrap();
        assert_eq!(options.expected_measurements, [("MRTD".to_owned(), "aa".to_owned())]);
        assert_eq!(expected_json(Some(&expected)), json!({ "mrtd": "aa" }));
    }
}
