//! How long it takes, by the devices' own clocks and the processor's: other work on the machine does not count.

mod node;

use std::time::Duration;

use launcher::gpu::mode::Mode;
use launcher::gpu::reconcile::look;
use node::{H100, Node, processor};

#[test]
fn a_change_of_mode_spends_under_two_percent_of_its_time_in_the_program() {
    let mut node = Node::new(&[H100]);
    let (clock, started) = (node.models[0].borrow().now(), processor());
    node.set(Mode::On).unwrap();
    let cpu = processor() - started;
    let model = node.models[0].borrow();
    let passed = model.now() - clock;
    let ours = passed - model.busy + cpu;
    assert!(model.resets.len() == 1 && passed > Duration::from_millis(900), "{passed:?}");
    assert!(ours * 50 < passed, "{ours:?} of {passed:?} ({cpu:?} of the processor)");
}

#[test]
fn eight_gpus_and_four_switches_are_listed_in_fifty_milliseconds() {
    let mut node = Node::hgx();
    let clocks: Vec<_> = node.models.iter().map(|model| model.borrow().now()).collect();
    let started = processor();
    let observations: Vec<_> = node.devices.iter_mut().map(look).collect();
    assert!(observations.iter().all(|observation| observation.state.is_ok()));
    let cpu = processor() - started;
    // All are asked at once, so that the slowest one counts; what the program does for each is done one after the other here.
    let passed = node.models.iter().zip(clocks).map(|(model, clock)| model.borrow().now() - clock).max().unwrap();
    assert!(passed + cpu < Duration::from_millis(50), "{passed:?}, {cpu:?} of the processor");
}
