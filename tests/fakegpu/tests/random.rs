//! Whatever happens to a node, and wherever the program dies: the next run on a mended node ends in the wanted mode, and
//! a run on a broken one ends in time with a named reason.

mod node;

use std::time::Duration;

use fakegpu::fault::Fault;
use fakegpu::model::Chip;
use launcher::gpu::attach::attach;
use launcher::gpu::mode::Mode;
use node::{B200, H100, NVSWITCH, Node, processor};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[derive(Clone, Debug)]
enum Event {
    Set(Mode),
    SetAndDie(Mode, u32),
    Attach(Mode),
    AttachAndDie(Mode, u32),
    Break(usize, Fault),
    Mend(usize),
    Idle(usize),
    KillGuest(usize),
    StaleRequest(usize),
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Off), Just(Mode::On), Just(Mode::Devtools), Just(Mode::Ppcie)]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::NeverBoots),
        Just(Fault::BootStuck),
        Just(Fault::BarClosed),
        Just(Fault::FirewallStays),
        Just(Fault::ErrorValues),
        Just(Fault::SecurityFault),
        Just(Fault::Recovery),
        Just(Fault::SilentFsp),
        Just(Fault::RefusedReads(0x202)),
        Just(Fault::OldFirmware),
        Just(Fault::GarbageHighHalf),
        Just(Fault::FunctionResetKeepsMode),
        Just(Fault::EveryResetKeepsMode),
        Just(Fault::Forbidden(8)),
        Just(Fault::Forbidden(45)),
        Just(Fault::ResetArmsPowerManagement),
        Just(Fault::StuckAsleep),
        Just(Fault::ResizeIgnored),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let index = 0..4_usize;
    prop_oneof![
        2 => mode().prop_map(Event::Set),
        4 => (mode(), 1..60_u32).prop_map(|(mode, changes)| Event::SetAndDie(mode, changes)),
        1 => mode().prop_map(Event::Attach),
        2 => (mode(), 1..60_u32).prop_map(|(mode, changes)| Event::AttachAndDie(mode, changes)),
        3 => (index.clone(), fault()).prop_map(|(index, fault)| Event::Break(index, fault)),
        2 => index.clone().prop_map(Event::Mend),
        1 => index.clone().prop_map(Event::Idle),
        1 => index.clone().prop_map(Event::KillGuest),
        1 => index.prop_map(Event::StaleRequest),
    ]
}

fn happen(node: &mut Node, event: &Event) {
    let count = node.models.len();
    match event {
        Event::Set(mode) => drop(node.set(*mode)),
        Event::SetAndDie(mode, changes) => {
            node.fuse.light(*changes);
            drop(node.set(*mode));
            node.fuse.put_out();
        }
        Event::Attach(mode) => {
            let resizes = node.resizes();
            if attach(&mut node.devices, *mode, &resizes, |_| {}).is_ok() {
                assert_eq!(node.resizes(), [], "a BAR has not the size that it was given");
                assert!(node.models.iter().all(|model| !model.borrow().has_session()), "a session outlived an attach");
            }
        }
        Event::AttachAndDie(mode, changes) => {
            node.fuse.light(*changes);
            let resizes = node.resizes();
            drop(attach(&mut node.devices, *mode, &resizes, |_| {}));
            node.fuse.put_out();
        }
        // A gate that is there cannot be broken for a chip that has no such knob.
        Event::Break(index, Fault::Forbidden(knob)) => {
            let model = &node.models[index % count];
            let has = model.borrow().knobs.contains_key(knob);
            if has {
                model.borrow_mut().break_with(Fault::Forbidden(*knob));
            }
        }
        Event::Break(index, fault) => node.break_with(index % count, *fault),
        Event::Mend(index) => node.models[index % count].borrow_mut().mend(),
        Event::Idle(index) => node.models[index % count].borrow_mut().idle(),
        Event::KillGuest(index) => node.models[index % count].borrow_mut().open_session(),
        Event::StaleRequest(index) => node.models[index % count].borrow_mut().leave_stale_request(),
    }
}

fn expected(chip: Chip, mode: Mode) -> u32 {
    match (chip, mode) {
        (Chip::Ls10, Mode::Ppcie) => 1,
        (Chip::Ls10, _) | (_, Mode::Off) => 0,
        (_, Mode::On) => 1,
        (_, Mode::Devtools) => 3,
        (_, Mode::Ppcie) => 0x20,
    }
}

/// Longest that one device may take of a run: boots and answers that are waited for in vain, twice.
const LIMIT_PER_DEVICE: Duration = Duration::from_secs(120);

fn check(chips: &[(Chip, u16)], events: &[Event], last: Mode) -> Result<(), TestCaseError> {
    let mut node = Node::new(chips);
    for event in events {
        let before: Vec<_> = node.models.iter().map(|model| model.borrow().now()).collect();
        happen(&mut node, event);
        for (model, before) in node.models.iter().zip(before) {
            prop_assert!(model.borrow().now() - before < LIMIT_PER_DEVICE, "stuck in {event:?}");
        }
    }
    for model in &node.models {
        model.borrow_mut().mend();
    }
    let told = node.set_and_tell(last);
    let wanted: Vec<_> = chips.iter().map(|(chip, _)| expected(*chip, last)).collect();
    prop_assert_eq!(node.active(), wanted, "{}", told);
    prop_assert_eq!(node.set_and_tell(last), "nothing to do");
    for model in &node.models {
        prop_assert_eq!(&model.borrow().violations, &Vec::<String>::new());
        prop_assert!(model.borrow().is_power_pinned());
    }
    Ok(())
}

/// Half of what is promised of both kinds of nodes.
const CASES: u32 = 5_000;
const TIME: Duration = Duration::from_secs(30);

/// Puts `CASES` random sequences before a node, in `TIME` of the processor.
fn check_many(chips: &[(Chip, u16)], mode: impl Strategy<Value = Mode>) {
    let config = ProptestConfig { cases: CASES, ..ProptestConfig::with_source_file(file!()) };
    let sequences = (proptest::collection::vec(event(), 0..12), mode);
    let started = processor();
    let result = TestRunner::new(config).run(&sequences, |(events, last)| check(chips, &events, last));
    if let Err(error) = result {
        panic!("{error}");
    }
    let took = processor() - started;
    assert!(took < TIME, "{CASES} sequences took {took:?} of the processor");
}

#[test]
fn a_hopper_node_always_comes_into_its_mode() {
    check_many(&[H100, H100, NVSWITCH], mode());
}

#[test]
fn a_blackwell_node_always_comes_into_its_mode() {
    check_many(&[B200, B200], prop_oneof![Just(Mode::Off), Just(Mode::On), Just(Mode::Devtools)]);
}
