//! `bullion firmware`: what a firmware image says of itself, what is known about it, and images derived from it.

use measure::firmware::Firmware;
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::uefi::{StoredVariable, VariableStore};
use serde::Serialize;
use spec::{Outcome, Sha256Digest};

use crate::args::{self, Derive, FirmwareAction};
use crate::failure::Failure;
use crate::firmware::{FirmwareFile, FirmwareInput, parts};
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::unusable;

#[derive(Serialize)]
struct Shown<'a> {
    firmware: FirmwareInput<'a>,
    table: Vec<Entry>,
    sev: Part<Sev>,
    tdx: Part<Tdx>,
    variables: Part<Variables>,
}

/// A part of the image, or why it has none that can be read.
#[derive(Serialize)]
#[serde(untagged)]
enum Part<T> {
    There(T),
    Not { none: String },
}

#[derive(Serialize)]
struct Entry {
    guid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    size: usize,
}

#[derive(Serialize)]
struct Sev {
    sections: Vec<Section>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_table: Option<Area>,
    /// Whether there is a page for kernel hashes: not that the firmware compares them with anything.
    has_kernel_hashes_page: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ap_reset_eip: Option<u32>,
}

#[derive(Serialize)]
struct Tdx {
    sections: Vec<Section>,
    mrtd: String,
}

#[derive(Serialize)]
struct Section {
    name: String,
    gpa: u64,
    size: u64,
    /// TDX: whether the content is measured into MRTD.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_measured: Option<bool>,
}

#[derive(Serialize)]
struct Area {
    gpa: u32,
    size: u32,
}

#[derive(Serialize)]
struct Variables {
    /// Whether a platform key is enrolled: Secure Boot then starts signed kernels only.
    keys_enrolled: bool,
    variables: Vec<Variable>,
}

#[derive(Serialize)]
struct Variable {
    vendor: String,
    name: String,
    attributes: u32,
    size: usize,
}

#[derive(Serialize)]
struct Derived<'a> {
    from: FirmwareInput<'a>,
    firmware: FirmwareInput<'a>,
    removed: Vec<String>,
    /// MRTD of both images, where they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    mrtd: Option<String>,
}

pub(crate) fn run(verb: &args::Firmware, printer: &Printer) -> Result<u8, Failure> {
    match &verb.action {
        FirmwareAction::Show { file, pin: false } => show(&FirmwareFile::read(file)?, printer),
        FirmwareAction::Show { file, pin: true } => show_pin(&FirmwareFile::read(file)?, printer),
        FirmwareAction::Derive(verb) => derive(verb, printer),
    }
}

fn show(file: &FirmwareFile, printer: &Printer) -> Result<u8, Failure> {
    let pins = inputs::pins()?;
    let firmware = file.parse()?;
    let shown = Shown {
        firmware: file.input(&pins),
        table: firmware.entries().iter().map(|entry| named(&entry.guid, entry.data.len())).collect(),
        sev: part(sev(&firmware)),
        tdx: part(tdx(&firmware)),
        variables: part(VariableStore::parse(&file.bytes).map(|store| variables(&store))),
    };
    text(&shown, printer);
    printer.value(&shown);
    Ok(0)
}

/// The part of a pin that is read from the image. What it enforces, and its name, are for people to say.
fn show_pin(file: &FirmwareFile, printer: &Printer) -> Result<u8, Failure> {
    let firmware = file.parse()?;
    printer.line(format_args!("sha256 = \"{}\"", file.sha256));
    let (snp, tdx) = (parts::snp(&firmware), parts::tdx(&firmware));
    parts::lines(snp.as_ref(), tdx.as_ref()).iter().for_each(|line| printer.line(line));
    Ok(0)
}

fn part<T, E: std::error::Error>(read: Result<T, E>) -> Part<T> {
    read.map_or_else(|error| Part::Not { none: error.to_string() }, Part::There)
}

/// Entries of the OVMF table that have a name in edk2 (`OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`).
fn named(guid: &measure::Guid, size: usize) -> Entry {
    let guid = guid.to_string();
    let name = match guid.as_str() {
        "00f771de-1a7e-4fcb-890e-68c77e2fb44e" => Some("SEV-ES reset block"),
        "4c2eb361-7d9b-4cc3-8081-127c90d3d294" => Some("SEV launch secret area"),
        "7255371f-3a3b-4b04-927b-1da6efa8d454" => Some("SEV hash table area"),
        "dc886566-984a-4798-a75e-5585a7bf67cc" => Some("SEV metadata"),
        "e47a6535-984a-4798-865e-4685a7bf8ec2" => Some("TDX metadata"),
        _ => None,
    };
    Entry { guid, name, size }
}

fn sev(firmware: &Firmware<'_>) -> Result<Sev, measure::firmware::FirmwareError> {
    let layout = firmware.sev_layout()?;
    let section = |section: &measure::firmware::SevSection| Section {
        name: section.section_type.to_string(),
        gpa: u64::from(section.gpa),
        size: u64::from(section.size),
        content_measured: None,
    };
    Ok(Sev {
        sections: layout.sections.iter().map(section).collect(),
        hash_table: layout.hash_table.map(|area| Area { gpa: area.base, size: area.size }),
        has_kernel_hashes_page: layout.has_kernel_hashes_page(),
        ap_reset_eip: layout.ap_reset_eip,
    })
}

fn tdx(firmware: &Firmware<'_>) -> Result<Tdx, measure::firmware::FirmwareError> {
    let section = |section: &measure::firmware::TdxSection| Section {
        name: section.section_type.to_string(),
        gpa: section.gpa,
        size: section.mem_size,
        content_measured: Some(section.attributes.measures_content()),
    };
    Ok(Tdx {
        sections: firmware.tdx_layout()?.sections.iter().map(section).collect(),
        mrtd: mrtd(firmware, PageOrder::SinglePass)?.to_string(),
    })
}

fn variables(store: &VariableStore<'_>) -> Variables {
    let variable = |variable: &StoredVariable<'_>| Variable {
        vendor: variable.vendor.to_string(),
        name: variable.name.to_string(),
        attributes: variable.attributes,
        size: variable.data.len(),
    };
    Variables { keys_enrolled: store.has_keys(), variables: store.variables().iter().map(variable).collect() }
}

fn text(shown: &Shown<'_>, printer: &Printer) {
    shown.firmware.lines().iter().for_each(|line| printer.line(line));
    for entry in &shown.table {
        let name = entry.name.unwrap_or("-");
        printer.line(format_args!("table     {}  {:>4} bytes  {name}", entry.guid, entry.size));
    }
    match &shown.sev {
        Part::There(sev) => {
            sections("sev", &sev.sections, printer);
            let kernel = if sev.has_kernel_hashes_page { "there is a page for them" } else { "no page for them" };
            let eip = sev.ap_reset_eip.map_or("nowhere: one vCPU only".to_owned(), |eip| format!("{eip:#x}"));
            printer.line(format_args!("sev       kernel hashes: {kernel}; application processors start at {eip}"));
        }
        Part::Not { none } => printer.line(format_args!("sev       none: {none}")),
    }
    match &shown.tdx {
        Part::There(tdx) => {
            sections("tdx", &tdx.sections, printer);
            printer.line(format_args!("tdx       MRTD {}", tdx.mrtd));
        }
        Part::Not { none } => printer.line(format_args!("tdx       none: {none}")),
    }
    match &shown.variables {
        Part::There(store) => {
            for variable in &store.variables {
                let (vendor, name, size) = (&variable.vendor, variable.name.escape_debug(), variable.size);
                printer.line(format_args!("variable  {vendor}  {size:>5} bytes  {name}"));
            }
            let keys = match store.keys_enrolled {
                true => "enrolled: Secure Boot starts signed kernels only",
                false => "none enrolled: unsigned kernels start",
            };
            printer.line(format_args!("keys      {keys}"));
        }
        Part::Not { none } => printer.line(format_args!("variable  none: {none}")),
    }
}

fn sections(tee: &str, sections: &[Section], printer: &Printer) {
    for section in sections {
        let measured = match section.content_measured {
            Some(true) => "  content measured",
            Some(false) | None => "",
        };
        printer.line(format_args!(
            "{tee}       {:#010x}  {:#8x} bytes  {}{measured}",
            section.gpa, section.size, section.name
        ));
    }
}

fn derive(verb: &Derive, printer: &Printer) -> Result<u8, Failure> {
    let file = FirmwareFile::read(&verb.file)?;
    let pins = inputs::pins()?;
    let store = VariableStore::parse(&file.bytes).map_err(|error| {
        unusable(&file.path, &error).with_hint("name a firmware image that starts with its variable store")
    })?;
    let bytes = store.without_keys();
    let left = VariableStore::parse(&bytes).map_err(|error| unusable(&verb.output, &error))?;
    let is_left = |variable: &StoredVariable<'_>| {
        left.variables().iter().any(|other| other.vendor == variable.vendor && other.name == variable.name)
    };
    let removed = store.variables().iter().filter(|variable| !is_left(variable));
    let removed: Vec<String> = removed.map(|variable| variable.name.to_string()).collect();
    drop(left);
    write(verb, &bytes)?;
    let new = FirmwareFile { path: verb.output.clone(), sha256: Sha256Digest::of(&bytes), bytes };
    let of = |file: &FirmwareFile| mrtd(&Firmware::parse(&file.bytes).ok()?, PageOrder::SinglePass).ok();
    let derived = Derived {
        from: file.input(&pins),
        firmware: new.input(&pins),
        mrtd: of(&new).map(|digest| digest.to_string()),
        removed,
    };
    derived.firmware.lines().iter().for_each(|line| printer.line(line));
    if derived.removed.is_empty() {
        printer.note("no keys were enrolled");
    } else {
        printer.line(format_args!("removed   {}", derived.removed.join(", ")));
    }
    match (of(&file), of(&new)) {
        (Some(old), Some(new)) if old == new => {
            printer.line(format_args!("MRTD      {new}, as before; RTMR0 is another"))
        }
        (_, Some(new)) => printer.line(format_args!("MRTD      {new}, NOT as before")),
        (_, None) => {}
    }
    printer.value(&derived);
    Ok(0)
}

fn write(verb: &Derive, bytes: &[u8]) -> Result<(), Failure> {
    if verb.output.exists() && !verb.replace {
        return Err(Failure::new(Outcome::Usage, format!("{} is there already", verb.output.display()))
            .with_hint("use --replace to put the new image in its place"));
    }
    Ok(store::write_atomically(&verb.output, bytes)?)
}
