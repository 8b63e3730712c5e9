//! Traces of devices: what is recorded is what is seen again without the device, and what the model answers.

mod node;

use std::path::Path;

use fakegpu::board::PRODUCTS;
use fakegpu::replay::replay;
use launcher::gpu::mode::Mode;
use launcher::gpu::observe::{State, observe};
use launcher::gpu::product::product as known;
use launcher::gpu::reconcile::{Device, reconcile};
use launcher::gpu::trace::{Recorded, Traced};
use node::Node;

fn seen_again(trace: &str) -> State {
    let mut recorded = Recorded::parse(trace).unwrap();
    let product = recorded.product();
    observe(&mut recorded, product).unwrap()
}

#[test]
fn what_was_recorded_of_a_model_is_seen_again_without_it() {
    for (name, chip, id) in PRODUCTS {
        let node = Node::new(&[(chip, id)]);
        let product = known(id, None).unwrap();
        let mut trace = Vec::new();
        let slot = node.devices.into_iter().next().unwrap().function;
        let mut traced = Traced::new(slot, product, &mut trace);
        let state = observe(&mut traced, product).unwrap();
        traced.finish().unwrap();
        assert_eq!(seen_again(std::str::from_utf8(&trace).unwrap()), state, "{name}");
    }
}

/// The shelf: a trace that somebody recorded of a device, with `bullion selftest gpu --trace`, is a test once it is here.
#[test]
fn the_model_answers_as_the_devices_did_that_were_recorded() {
    let shelf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut seen = 0;
    for entry in std::fs::read_dir(&shelf).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            continue;
        }
        let replayed = replay(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(replayed.answers > 50, "{}: {replayed:?}", path.display());
        seen += 1;
    }
    assert!(seen > 0, "{} is empty", shelf.display());
}

/// A trace of a device whose mode is changed and changed back.
fn changes(name: &str) -> String {
    let (_, chip, id) = PRODUCTS.iter().find(|(product, ..)| *product == name).unwrap();
    let product = known(*id, None).unwrap();
    let mut trace = Vec::new();
    let slot = Node::new(&[(*chip, *id)]).devices.into_iter().next().unwrap().function;
    let function = Traced::new(slot, product, &mut trace);
    let mut device = [Device { function, product, held_by: None }];
    let other = if product.family.is_switch() { Mode::Ppcie } else { Mode::On };
    for mode in [other, Mode::Off] {
        reconcile(&mut device, mode, |_| {}).unwrap();
    }
    let [device] = device;
    device.function.finish().unwrap();
    String::from_utf8(trace).unwrap()
}

#[test]
fn a_model_that_answers_otherwise_than_the_recording_is_told_apart() {
    for (name, ..) in PRODUCTS {
        let trace = changes(name);
        let replayed = replay(&trace).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(replayed.resets, 2, "{name}");
    }
    // A device in whose recording the mode register, a knob's value or a response's error is another.
    let trace = changes("h100");
    let active = trace.lines().rfind(|line| line.contains("\"offset\":1147596")).unwrap();
    let other = active.replace("\"value\":256", "\"value\":257");
    assert_ne!(active, other);
    let error = replay(&trace.replace(active, &other)).unwrap_err();
    assert!(error.contains("0x1182cc"), "{error}");
    let (before, after) = trace.rsplit_once("353427070").unwrap();
    let error = replay(&format!("{before}353427071{after}")).unwrap_err();
    assert!(error.contains("reads 0x1510de7e, not 0x1510de7f"), "{error}");
    assert!(replay("").is_err() && replay(trace.split_once('\n').unwrap().1).is_err());
}
