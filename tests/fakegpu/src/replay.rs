//! A recorded trace on the model: whether the model answers as the device did that somebody recorded.
//!
//! The model is put into the state in which the device was, then gets every write, reset and pause of the trace, and must give every
//! value that was read. What a register holds beside the bits that are looked at, and the vendor's part of configuration space, differ
//! between devices of one kind and are not compared. A register that was asked again and again is compared by its last answer, for
//! which the model gets as long as a device may take.

use std::collections::BTreeMap;
use std::time::Duration;

use launcher::gpu::access::ResetKind;
use launcher::gpu::mode::{ActiveMode, Mode};
use launcher::gpu::observe::{State, observe};
use launcher::gpu::product::{Family, product};
use launcher::gpu::trace::{Entry, Recorded, entries};

use crate::board::PRODUCTS;
use crate::model::{Chip, Model, Reset};

/// What the model may need more than the device: as long as any boot may take.
const PATIENCE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_micros(200);

/// What came of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// PCI device number.
    pub device_id: u16,
    /// How many answers of the model were those of the device.
    pub answers: usize,
    /// How many resets there were.
    pub resets: usize,
}

/// Replays a trace. The error says on which line of it the model answers otherwise, or why there is nothing to compare.
pub fn replay(trace: &str) -> Result<Replayed, String> {
    let all = entries(trace).map_err(|error| error.to_string())?;
    let Some(Entry::Device { device_id, .. }) = all.first() else { return Err("it names no device".to_owned()) };
    let mut recorded = Recorded::parse(trace).map_err(|error| error.to_string())?;
    let product = recorded.product();
    let state = observe(&mut recorded, product)
        .map_err(|error| format!("the device was unwell ({error}): only one that answers can be compared"))?;
    let mut model = in_state(*device_id, product.family, &state)?;
    let mut replayed = Replayed { device_id: *device_id, answers: 0, resets: 0 };
    let mut word = 0;
    for (index, entry) in all.iter().enumerate() {
        let asks_again = is_poll(&all, index);
        match entry {
            Entry::Read { .. } if asks_again => {}
            Entry::Read { offset, value } => {
                let mask = if is_data(*offset) { of_response(word) } else { compared(product.family, *offset) };
                word = if is_data(*offset) { word + 1 } else { 0 };
                let found = answer(&mut model, *offset, value & mask, mask);
                if found != value & mask {
                    let line = index + 1;
                    return Err(format!("line {line}: register {offset:#x} reads {found:#x}, not {:#x}", value & mask));
                }
                replayed.answers += 1;
            }
            Entry::Config { offset: 0, value } if model.config_read(0) != *value => {
                return Err(format!("line {}: it is {:#x}, not {value:#x}", index + 1, model.config_read(0)));
            }
            Entry::Write { offset, value } => model.bar0_write(*offset, *value),
            Entry::Reset { kind } => {
                model.reset(match kind {
                    ResetKind::Function => Reset::Function,
                    ResetKind::Bus => Reset::Bus,
                    ResetKind::Reenumerate => Reset::Reenumerate,
                });
                replayed.resets += 1;
            }
            Entry::Pin => model.pin_power(),
            Entry::Resize { exponent, .. } => model.resize(*exponent),
            Entry::Sleep { microseconds } => model.advance(Duration::from_micros(*microseconds)),
            Entry::Failed { what } => return Err(format!("line {}: the system refused: {what}", index + 1)),
            Entry::Device { .. } | Entry::Config { .. } => {}
        }
    }
    match model.violations.first() {
        Some(violation) => Err(format!("its knobs were once {violation}")),
        None => Ok(replayed),
    }
}

/// Whether the read belongs to a round of reads that is made again after a pause: the answer was not yet the one that was waited for.
fn is_poll(all: &[Entry], index: usize) -> bool {
    let offset = |entry: &Entry| if let Entry::Read { offset, .. } = entry { Some(*offset) } else { None };
    let is_pause = |entry: &&Entry| matches!(entry, Entry::Sleep { .. });
    let reads_from = |at: usize| all.iter().skip(at).map_while(offset).collect::<Vec<_>>();
    let pause = index + reads_from(index).len();
    let pauses = all.iter().skip(pause).take_while(is_pause).count();
    if pauses == 0 {
        return false;
    }
    let before: Vec<_> = all.iter().take(pause).rev().map_while(offset).collect();
    let after = reads_from(pause + pauses);
    let is_same =
        |count: &usize| after.get(..*count).is_some_and(|again| again.iter().eq(before.iter().take(*count).rev()));
    let round = (1..=before.len()).rev().find(is_same).unwrap_or(0);
    pause - index <= round
}

/// Reads a register until it holds `wanted`, or for as long as there is patience; one that moves on when it is read is read once.
fn answer(model: &mut Model, offset: u32, wanted: u32, mask: u32) -> u32 {
    let end = model.now() + PATIENCE;
    loop {
        let found = model.bar0_read(offset) & mask;
        if found == wanted || is_data(offset) || model.now() >= end {
            return found;
        }
        model.advance(STEP);
    }
}

/// Whether a packet is read word by word there.
fn is_data(offset: u32) -> bool {
    matches!(offset, 0x8f_2ac0..0x8f_2b00 | 0x8f_1f08)
}

/// The bits of a word of a response that are the same for all devices: of the MCTP header those of a single packet, nothing of the
/// sequence, of a knob's value the half that is defined.
fn of_response(word: usize) -> u32 {
    match word {
        0 => 0xf000_000f,
        2 => 0,
        5 => 0xffff,
        _ => u32::MAX,
    }
}

/// The bits of a register that are the same for all devices in one state.
fn compared(family: Family, offset: u32) -> u32 {
    match (family, offset) {
        // The chip, without its stepping.
        (_, 0) => 0x1ff0_0000,
        (Family::Hopper, 0x11_82cc) => 0x63,
        (Family::Blackwell | Family::BlackwellWorkstation, 0x590) => 3,
        (Family::NvSwitch3, 0x2_8c50) => 1,
        (Family::Hopper, 0x2_0120) | (Family::NvSwitch3, 0x6_6120) => 1 << 30,
        // 0 and 1 are both well.
        (Family::Blackwell | Family::BlackwellWorkstation, 0x8a_a128) => 0xfe,
        // Whether something is ready or went wrong, and the size of what came; not credits.
        (Family::Blackwell | Family::BlackwellWorkstation, 0x8f_1f84) => 3 << 24,
        (Family::Blackwell | Family::BlackwellWorkstation, 0x8f_1f04) => 3 << 24 | 0xf_ffff,
        _ => u32::MAX,
    }
}

/// The model of such a device, in that state.
fn in_state(device_id: u16, family: Family, state: &State) -> Result<Model, String> {
    let known = PRODUCTS.iter().find(|(_, _, id)| *id == device_id).map(|(_, chip, _)| *chip);
    let chip = known.unwrap_or(match family {
        Family::Hopper => Chip::Gh100,
        Family::NvSwitch3 => Chip::Ls10,
        Family::Blackwell => Chip::Gb100,
        Family::BlackwellWorkstation => Chip::Gb202,
    });
    let known = product(device_id, None).map(|product| product.family);
    if known != Some(family) {
        return Err(format!("10de:{device_id:04x} is of no family"));
    }
    let mut model = Model::new(chip, device_id);
    let bits = match (state.active, family.is_switch()) {
        (ActiveMode::Invalid, _) => 2,
        (ActiveMode::Valid(Mode::Off), _) => 0,
        (ActiveMode::Valid(Mode::Ppcie), true) => 1,
        (ActiveMode::Valid(Mode::Ppcie), false) => 0x20,
        (ActiveMode::Valid(Mode::On), _) => 1,
        (ActiveMode::Valid(Mode::Devtools), _) => 3,
    };
    model.set_active(bits);
    // Knobs that were not asked for stay as they are; of those that were, there are the ones that answered.
    let asked = launcher::gpu::knob::of_interest(family);
    model.knobs.retain(|knob, _| asked.iter().all(|asked| asked.0 != *knob));
    model.knobs.extend(state.knobs.iter().map(|(knob, value)| (knob.0, *value)).collect::<BTreeMap<_, _>>());
    Ok(match state.serial {
        Some(serial) => model.with_whole_serial(serial),
        None => model,
    })
}
