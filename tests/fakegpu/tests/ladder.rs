//! What brings back a device that does not answer.

mod node;

use fakegpu::fault::Fault;
use fakegpu::model::Reset;
use launcher::gpu::product::Family;
use launcher::gpu::recover::recover;
use node::{H100, Node, address};

fn climb(fault: Fault) -> (Vec<String>, Vec<Reset>, bool) {
    let mut node = Node::new(&[H100]);
    node.models[0].borrow_mut().open_session();
    node.break_with(0, fault);
    let mut rungs = Vec::new();
    let result = recover(&mut node.devices[0].function, Family::Hopper, |attempt| rungs.push(attempt.rung.to_string()));
    let resets = node.models[0].borrow().resets.clone();
    (rungs, resets, result.is_ok())
}

#[test]
fn each_fault_is_mended_by_the_lowest_rung_that_can() {
    let bus = vec![Reset::Function, Reset::Bus];
    let all = vec![Reset::Function, Reset::Bus, Reset::Reenumerate];
    assert_eq!(climb(Fault::GarbageHighHalf), (vec!["wake".to_owned()], vec![], true));
    assert_eq!(climb(Fault::BarClosed).1, bus);
    assert_eq!(climb(Fault::ErrorValues).1, bus);
    assert_eq!(climb(Fault::SecurityFault).1, bus);
    assert_eq!(climb(Fault::StuckAsleep).1, all);
    assert_eq!(climb(Fault::Recovery), (climb(Fault::NeverBoots).0, all, false));
}

#[test]
fn the_ladder_ends_where_others_would_be_reset() {
    let mut node = Node::new(&[H100]);
    node.devices[0].function.peers = vec![address(7)];
    node.break_with(0, Fault::BarClosed);
    let error = recover(&mut node.devices[0].function, Family::Hopper, |_| {}).unwrap_err();
    assert!(error.to_string().ends_with("a secondary-bus reset, would also reset 0000:17:00.0"), "{error}");
    assert_eq!(node.models[0].borrow().resets, [Reset::Function]);
}
