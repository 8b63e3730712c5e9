//! Which machine stands behind ACPI tables that are not the expected ones. A log and a register hold digests only, so QEMU is asked
//! about other machines until one has them (`weigh::neighbours`).

use std::path::Path;

use launcher::qemu::oracle::{Answer as Told, Devices, releases_alike};
use measure::Digest384;
use measure::eventlog::{Event, EventLog};
use measure::shape::Boot;
use measure::tdx::explain::{Difference, memory_mib};
use measure::tdx::{Input, PredictedEvent, Rtmr, registers};
use serde_json::json;
use spec::manifest::{Manifest, artifact};

use super::super::answer::{Answer, Row};
use super::Context;
use crate::failure::Failure;
use crate::inputs;
use crate::weigh::image_firmware;
use crate::weigh::machine::Machine;
use crate::weigh::neighbours::{Neighbour, Sought, search};
use crate::weigh::prediction::{TdxPrediction, WantedMachine, expected_firmware};

/// The expected machine, and who can be asked about others.
pub(super) struct Tables<'a> {
    pub(super) machine: Machine<'a>,
    pub(super) boot: Boot,
    pub(super) directory: &'a Path,
    pub(super) manifest: &'a Manifest,
    pub(super) vcpus: Option<u32>,
    pub(super) memory_mib: Option<u64>,
}

const ACPI: [Input; 3] = [Input::AcpiLoader, Input::AcpiRsdp, Input::AcpiTables];
/// From 2.75 GiB on, ACPI tables are the same for every size.
const ANY_MEMORY_MIB: u64 = 4096;

/// Names the machine in the rows about ACPI tables that `answer` has of this log.
pub(super) fn name_machine(
    log: &EventLog<'_>,
    found: &[Difference],
    context: &Context<'_>,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let Some(tables) = &context.tables else { return Ok(()) };
    let prediction = &context.prediction;
    let is_acpi = |row: &&mut Row| row.input == "acpi" && row.kind != "missing" && row.kind != "unexpected";
    if !answer.differences.iter_mut().chain(&mut answer.unknown).any(|row| is_acpi(&row)) {
        return Ok(());
    }
    let digest = |input| logged(log, found, &prediction.events, input);
    let [Some(loader), Some(rsdp), Some(acpi)] = ACPI.map(digest) else { return Ok(()) };
    let memory = digest(Input::TdHob).zip(prediction.layout.as_ref());
    let memory = memory.and_then(|(td_hob, layout)| memory_mib(td_hob, layout)).or(tables.memory_mib);
    let fits = |told: &Told| {
        told.fw_cfg.acpi().is_ok_and(|told| (told.loader, told.rsdp, told.tables) == (loader, rsdp, acpi))
    };
    let neighbour = tables.search(memory.unwrap_or(ANY_MEMORY_MIB), &fits)?;
    for row in answer.differences.iter_mut().chain(&mut answer.unknown).filter(is_acpi) {
        match &neighbour {
            Some(neighbour) => {
                let Row { value, text, details, .. } = tables.row(neighbour);
                (row.value, row.details) = (value, details);
                row.text = format!("{}: {text}", row.text);
            }
            None => row.details.push("no machine that was tried has them".to_owned()),
        }
    }
    Ok(())
}

/// What RTMR0 would be explained by, where there is no log.
pub(super) fn behind_register(rtmr0: Digest384, context: &Context<'_>) -> Result<Option<Row>, Failure> {
    let (Some(tables), true) = (&context.tables, context.prediction.registers.contains(&Rtmr::Rtmr0)) else {
        return Ok(None);
    };
    let pins = inputs::pins()?;
    let firmware = image_firmware(tables.directory, tables.manifest, artifact::FIRMWARE_TDX)?;
    let known = expected_firmware(tables.boot, tables.directory, &firmware, &pins)?;
    let memory_mib = tables.memory_mib.unwrap_or(ANY_MEMORY_MIB);
    let fits = |told: &Told| {
        let events = match tables.boot {
            Boot::Kernel => known.platform(&told.fw_cfg, memory_mib),
            Boot::Disk => known.platform_of_disk(&told.fw_cfg, memory_mib),
        };
        events.is_ok_and(|events| registers(&events).first() == Some(&rtmr0))
    };
    let neighbour = tables.search(memory_mib, &fits)?;
    Ok(neighbour.map(|neighbour| {
        let row = tables.row(&neighbour);
        Row { text: format!("the tables that QEMU gives to firmware are {}", row.text), ..row }
    }))
}

/// What the log has in the place of the event of `input`; what is predicted, where they are the same.
fn logged(log: &EventLog<'_>, found: &[Difference], predicted: &[PredictedEvent], input: Input) -> Option<Digest384> {
    let other = found.iter().find_map(|difference| match difference {
        Difference::Digest { event, expected, .. } | Difference::Unknown { event, expected } => {
            (expected.input == input).then_some(*event)
        }
        Difference::Missing { .. } | Difference::Unexpected { .. } => None,
    });
    match other {
        Some(event) => log.events.get(event).and_then(Event::sha384),
        None => predicted.iter().find(|event| event.input == input).map(|event| event.digest),
    }
}

impl<'a> Tables<'a> {
    /// Where RTMR0 is predicted from a QEMU that answers.
    pub(super) fn new(
        wanted: &WantedMachine<'a>,
        prediction: &TdxPrediction,
        (directory, manifest): (&'a Path, &'a Manifest),
    ) -> Option<Self> {
        let WantedMachine { boot, vcpus, memory_mib, machine, captured: _ } = *wanted;
        let is_predicted = prediction.registers.contains(&Rtmr::Rtmr0);
        is_predicted.then_some(Self { machine, boot, directory, manifest, vcpus, memory_mib })
    }

    fn search(&self, memory_mib: u64, is: &dyn Fn(&Told) -> bool) -> Result<Option<Neighbour>, Failure> {
        let firmware = image_firmware(self.directory, self.manifest, artifact::FIRMWARE_TDX)?;
        search(&self.machine, &Sought { firmware: &firmware.bytes, boot: self.boot, vcpus: self.vcpus, memory_mib, is })
    }

    fn row(&self, found: &Neighbour) -> Row {
        // Other topologies are not searched for, and TDX firmware is told of no room for BARs.
        let Devices { nics, pci, volumes, vsock, watchdog, pvpanic, topology: _, nodes: _, large_bars: _ } =
            found.devices;
        let version = found.qemu_version.map(|number| number.to_string()).join(".");
        let mut parts = Vec::new();
        if self.vcpus != Some(found.vcpus) {
            let expected = self.vcpus.map(|vcpus| format!(" instead of {vcpus}")).unwrap_or_default();
            parts.push(format!("{} vCPUs{expected}", found.vcpus));
        }
        if !found.own_qemu {
            parts.push(format!("QEMU {}", releases_alike(found.qemu_version).join(", ")));
        }
        if found.devices != self.machine.devices {
            let others = [(vsock, ", with a vsock"), (watchdog, ", with a watchdog"), (pvpanic, ", with pvpanic")];
            let others: String = others.into_iter().filter_map(|(there, name)| there.then_some(name)).collect();
            parts.push(format!("{nics} networks, {pci} passed functions and {volumes} volumes{others}"));
        }
        let machine = if parts.is_empty() { "the expected machine".to_owned() } else { parts.join(", ") };
        Row {
            input: "acpi".into(),
            kind: "differs",
            value: Some(json!({
                "vcpus": found.vcpus, "qemu_version": version, "nics": nics, "pci": pci, "volumes": volumes,
                "vsock": vsock, "watchdog": watchdog, "pvpanic": pvpanic,
            })),
            text: format!("those of a machine with {machine}"),
            ..Row::default()
        }
    }
}
