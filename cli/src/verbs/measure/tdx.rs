//! `bullion measure tdx`: MRTD of a firmware file.

use measure::tdx::mrtd::{self, PageOrder};
use serde::Serialize;

use crate::args::MeasureTdx;
use crate::failure::Failure;
use crate::firmware::{FirmwareFile, FirmwareInput, facts};
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::unusable;

#[derive(Serialize)]
struct Answer<'a> {
    inputs: Inputs<'a>,
    mrtd: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Inputs<'a> {
    firmware: FirmwareInput<'a>,
    page_order: &'static str,
    /// Which events the firmware measures, by the name of its profile; null where that is not known.
    profile: Option<&'static str>,
}

#[derive(Serialize)]
struct Step {
    name: String,
    gpa: u64,
    size: u64,
    content_measured: bool,
    digest: String,
}

pub(super) fn run(verb: &MeasureTdx, printer: &Printer) -> Result<u8, Failure> {
    let file = FirmwareFile::read(&verb.firmware)?;
    let pins = inputs::pins()?;
    let (order, page_order) =
        if verb.two_pass { (PageOrder::TwoPass, "two-pass") } else { (PageOrder::SinglePass, "single-pass") };
    let firmware = file.parse()?;
    let digest = mrtd::mrtd(&firmware, order).map_err(|error| unusable(&file.path, &error))?;
    let steps = if verb.steps {
        mrtd::steps(&firmware, order).map_err(|error| unusable(&file.path, &error))?
    } else {
        Vec::new()
    };
    let profile = pins.find(&file.sha256).and_then(|pin| facts(pin).ok()).map(|facts| facts.profile.name);
    let answer = Answer {
        inputs: Inputs { firmware: file.input(&pins), page_order, profile },
        mrtd: digest.to_string(),
        steps: steps.iter().map(step).collect(),
    };
    answer.inputs.firmware.lines().iter().for_each(|line| printer.line(line));
    for step in &answer.steps {
        let what = if step.content_measured { "content" } else { "place" };
        printer.line(format_args!(
            "  {:#014x}  {:#8x} bytes  {:<7}  {what:<7}  {}",
            step.gpa, step.size, step.name, step.digest
        ));
    }
    printer.line(format_args!("tdx  MRTD {}  ({page_order})", answer.mrtd));
    printer.value(&answer);
    Ok(0)
}

fn step(step: &mrtd::Step) -> Step {
    Step {
        name: step.section_type.to_string(),
        gpa: step.gpa,
        size: step.size,
        content_measured: step.content_measured,
        digest: step.digest.to_string(),
    }
}
