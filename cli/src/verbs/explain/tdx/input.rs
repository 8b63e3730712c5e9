//! The input behind a register or an event that is not as expected: which one it is, and what it was where its alternatives
//! are known. Which events differ is decided in the module above.

use measure::Digest384;
use measure::firmware::Firmware as Image;
use measure::tdx::explain::{self, load_options_slips, memory_mib};
use measure::tdx::image::load_options;
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::tdx::{Input, PredictedEvent, Rtmr, profile};
use serde_json::json;
use spec::Tee;
use spec::pins::{Firmware, Pins, TdxPart};

use super::super::answer::Row;
use super::super::{Candidate, text};
use super::Context;
use crate::failure::Failure;
use crate::firmware::FirmwareFile;

/// One input whose known alternatives lead to this register.
pub(super) fn other_input(register: Rtmr, value: Digest384, context: &Context<'_>) -> Option<Row> {
    let prediction = &context.prediction;
    let tried = |input: Input, digests: &[Option<Digest384>]| {
        explain::substitution(value, register, &prediction.events, input, digests)
    };
    let row = |input: &str, value, text| {
        Some(Row { input: input.into(), kind: "differs", value: Some(value), text, ..Row::default() })
    };
    let hobs = prediction.layout.as_ref().map(explain::td_hobs).unwrap_or_default();
    let digests: Vec<_> = hobs.iter().map(|(_, digest)| Some(*digest)).collect();
    if let Some((mib, _)) = tried(Input::TdHob, &digests).and_then(|index| hobs.get(index)) {
        return row("memory", json!(mib), memory_text(*mib, context));
    }
    for (input, files) in [(Input::Kernel, &context.kernels), (Input::Initrd, &context.initrds)] {
        let digests: Vec<_> = files.iter().map(|file| of_file(input, file)).collect();
        if let Some(file) = tried(input, &digests).and_then(|index| files.get(index)) {
            return row(key(input), json!(file.name), format!("the {input} is {}", file.name));
        }
    }
    if tried(Input::Initrd, &[None]).is_some() {
        return row("initrd", json!(null), "there was no initrd".to_owned());
    }
    let lines = lines(context);
    let digests: Vec<_> = lines.iter().map(|line| Some(line.digest)).collect();
    let line = tried(Input::CommandLine, &digests).and_then(|index| lines.get(index))?;
    Some(line_row(line, context))
}

/// The digest that a file has in the place of a kernel or an initrd.
fn of_file(input: Input, file: &Candidate) -> Option<Digest384> {
    match input {
        Input::Kernel => measure::authenticode::sha384(&file.bytes).ok(),
        _ => Some(Digest384::of(&file.bytes)),
    }
}

/// An event with another digest: which input, and what it was where that can be found out.
pub(super) fn differing(
    event: usize,
    expected: &PredictedEvent,
    found: Option<Digest384>,
    context: &Context<'_>,
) -> Row {
    let mut row = Row {
        kind: "differs",
        event: Some(event),
        expected: Some(expected.digest.to_string()),
        found: found.map(|digest| digest.to_string()),
        text: format!("not the expected {}", expected.input),
        ..Row::default()
    };
    let Some(found) = found else {
        row.text = format!("the {} has no SHA-384", expected.input);
        return row;
    };
    match expected.input {
        Input::TdHob => {
            let mib = context.prediction.layout.as_ref().and_then(|layout| memory_mib(found, layout));
            if let Some(mib) = mib {
                row.text = memory_text(mib, context);
                row.value = Some(json!(mib));
            }
        }
        Input::VariableStore => {
            let names = pinned(&context.pins, |part| part.variable_store.0 == found.0);
            if !names.is_empty() {
                row.text = format!("the firmware's variable store is that of {}", names.join(" or "));
                row.value = Some(json!(names.join(" or ")));
            }
        }
        Input::Kernel | Input::Initrd => named_file(expected.input, found, context, &mut row),
        Input::CommandLine => {
            if let Some(line) = lines(context).iter().find(|line| line.digest == found) {
                let Row { text, details, value, .. } = line_row(line, context);
                (row.text, row.details, row.value) = (text, details, value);
            } else {
                row.details
                    .push("a log has no command line, only its digest: name what the guest had with --cmdline".into());
            }
        }
        Input::AcpiLoader | Input::AcpiRsdp | Input::AcpiTables => {
            row.details.push("other vCPUs, other devices, or another version of QEMU".to_owned());
        }
        _ => {}
    }
    row
}

fn named_file(input: Input, found: Digest384, context: &Context<'_>, row: &mut Row) {
    let files = if input == Input::Kernel { &context.kernels } else { &context.initrds };
    if let Some(file) = files.iter().find(|file| of_file(input, file) == Some(found)) {
        row.text = format!("the {input} is {}", file.name);
        row.value = Some(json!(file.name));
    } else if input == Input::Kernel {
        row.details.push("another kernel, or a QEMU before 10.2, which writes into the kernel's header".to_owned());
    }
}

fn memory_text(mib: u64, context: &Context<'_>) -> String {
    let expected = context.expected_memory_mib.map(|mib| format!(", expected {mib} MiB")).unwrap_or_default();
    format!("the guest has {mib} MiB of memory{expected}")
}

/// A command line that may have been measured.
struct Line {
    /// What is different about the expected line; `None` for a line that was named.
    how: Option<String>,
    line: String,
    digest: Digest384,
}

/// The lines that were named, then the expected one as slips of hand leave it, each as every known firmware passes it on.
fn lines(context: &Context<'_>) -> Vec<Line> {
    let mut lines = Vec::new();
    for line in &context.verb.cmdline {
        for profile in profile::ALL {
            for has_initrd in [true, false] {
                let digest = load_options(profile, line, has_initrd);
                lines.push(Line { how: None, line: line.clone(), digest });
            }
        }
    }
    for (slip, digest) in load_options_slips(context.command_line, &profile::ALL) {
        let initrd = if slip.has_initrd { "" } else { ", without an initrd" };
        let how = slip.how.unwrap_or("as expected");
        let how = Some(format!("{how}{initrd}, as firmware of {} passes it on", slip.profile));
        lines.push(Line { how, line: slip.line, digest });
    }
    lines
}

fn line_row(line: &Line, context: &Context<'_>) -> Row {
    let text = match &line.how {
        Some(how) => format!("the kernel command line was measured {how}"),
        None => "the kernel command line is the one that was named".to_owned(),
    };
    let details = text::difference(context.command_line, &line.line);
    Row { input: "cmdline".into(), kind: "differs", value: Some(json!(line.line)), text, details, ..Row::default() }
}

/// MRTD depends on the firmware and on the order of its pages.
pub(super) fn other_mrtd(found: Digest384, context: &Context<'_>) -> Result<Row, Failure> {
    let row = |input: &str, value, text| Row {
        input: input.into(),
        kind: "differs",
        register: Some("MRTD".into()),
        value,
        text,
        ..Row::default()
    };
    if context.prediction.mrtd.is_some_and(|(_, two_pass)| two_pass == found) {
        let text =
            "all pages of a section were added before they were measured, as QEMU trees around 8.2 do".to_owned();
        return Ok(row("page_order", Some(json!("two-pass")), text));
    }
    for path in &context.verb.firmware {
        let file = FirmwareFile::read(path)?;
        let firmware: Image<'_> = file.parse()?;
        let orders = [PageOrder::SinglePass, PageOrder::TwoPass];
        if orders.iter().any(|order| mrtd(&firmware, *order).is_ok_and(|mrtd| mrtd == found)) {
            let name = path.display().to_string();
            return Ok(row("firmware", Some(json!(name)), format!("the firmware is {name}")));
        }
    }
    let names = pinned(&context.pins, |part| [part.mrtd, part.mrtd_two_pass].iter().any(|mrtd| mrtd.0 == found.0));
    if !names.is_empty() {
        let text = format!("the firmware is {}, which is pinned", names.join(" or "));
        return Ok(row("firmware", Some(json!(names.join(" or "))), text));
    }
    let text = "the firmware is another, and not pinned: name what may have been launched with --firmware".to_owned();
    Ok(row("firmware", None, text))
}

/// The names of the pinned firmware images of which this is true: more than one where they differ elsewhere. Those that are meant for TDX,
/// if any is.
fn pinned<'a>(pins: &'a Pins, is: impl Fn(&TdxPart) -> bool) -> Vec<&'a str> {
    let found = || pins.firmware.iter().filter(|pin| pin.tdx.as_ref().is_some_and(&is));
    let names = |pins: Vec<&'a Firmware>| pins.into_iter().map(|pin| pin.name.as_str()).collect::<Vec<_>>();
    let meant = names(found().filter(|pin| pin.tees.contains(&Tee::Tdx)).collect());
    if meant.is_empty() { names(found().collect()) } else { meant }
}

/// An input for machines, with the words that `measure` uses for events of logs.
pub(super) fn key(input: Input) -> &'static str {
    match input {
        Input::TdHob => "memory",
        Input::VariableStore => "variable_store",
        Input::Variable(_) => "secure_boot",
        Input::AcpiLoader | Input::AcpiRsdp | Input::AcpiTables => "acpi",
        Input::FwCfg(_) => "fw_cfg",
        Input::Smbios => "smbios",
        Input::Kernel => "kernel",
        Input::CommandLine => "cmdline",
        Input::Initrd => "initrd",
        Input::Authority => "secure_boot",
        Input::UnifiedImage | Input::UnifiedSection(_) => "unified_image",
        Input::PartitionTable => "partition_table",
        _ => "fixed",
    }
}
