//! What brings back a device that does not answer.

mod node;

use fakegpu::fault::Fault;
use fakegpu::model::Reset;
use launcher::gpu::product::Family;
use launcher::gpu::recover::{Rung, recover};
use node::{B200, H100, Node, address};

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
    // A security processor that answers couples the bus reset to a fundamental one.
    let coupled = vec![Reset::Function, Reset::Bus, Reset::Fundamental];
    let all = vec![Reset::Function, Reset::Bus, Reset::Reenumerate];
    assert_eq!(climb(Fault::GarbageHighHalf), (vec!["wake".to_owned()], vec![], true));
    assert_eq!(climb(Fault::BarClosed).1, bus);
    assert_eq!(climb(Fault::ErrorValues).1, bus);
    assert_eq!(climb(Fault::SecurityFault).1, bus);
    assert_eq!(climb(Fault::StuckAsleep).1, all);
    assert_eq!(
        climb(Fault::BootStuck),
        (
            ["wake", "function-level reset", "secondary-bus reset", "fundamental reset"].map(str::to_owned).to_vec(),
            coupled.clone(),
            true
        )
    );
    assert_eq!(climb(Fault::NeverBoots).1, [coupled.as_slice(), &[Reset::Reenumerate]].concat());
    assert_eq!(climb(Fault::Recovery), (climb(Fault::NeverBoots).0, all, false));
}

#[test]
fn a_fundamental_reset_leaves_its_knob_as_it_was_and_is_not_forced() {
    let mut node = Node::new(&[H100]);
    node.break_with(0, Fault::BootStuck);
    recover(&mut node.devices[0].function, Family::Hopper, |_| {}).unwrap();
    assert_eq!(node.models[0].borrow().knobs[&36], 0);
    // It is written back, too, where no rung helps; and where that fails, it is said, and no rung follows.
    for silent in [false, true] {
        let mut node = Node::new(&[H100]);
        node.break_with(0, Fault::NeverBoots);
        let (mut told, model) = (Vec::new(), node.models[0].clone());
        let result = recover(&mut node.devices[0].function, Family::Hopper, |attempt| {
            told.push(attempt.rung);
            if silent && attempt.rung == Rung::LADDER[4] {
                model.borrow_mut().break_with(Fault::SilentFsp);
            }
        });
        assert!(result.is_err());
        assert_eq!(told.get(..5), Some(&Rung::LADDER[..]));
        assert_eq!(told.get(5..), Some(if silent { &[Rung::WriteBack][..] } else { &[] }));
        assert_eq!(node.models[0].borrow().knobs[&36], u16::from(silent));
    }
    // Where the operator has forbidden it, and where a chip has none, the ladder goes on without it.
    for (chip, forbidden) in [(H100, true), (B200, false)] {
        let mut node = Node::new(&[chip]);
        node.break_with(0, Fault::BootStuck);
        if forbidden {
            node.break_with(0, Fault::Forbidden(36));
        }
        let family = node.devices[0].product.family;
        let mut told = Vec::new();
        let result =
            recover(&mut node.devices[0].function, family, |attempt| told.push(format!("{:?}", attempt.result)));
        assert!(result.is_err());
        assert_eq!(node.models[0].borrow().resets, [Reset::Function, Reset::Bus, Reset::Reenumerate]);
        assert_eq!(told.iter().any(|result| result.contains("Forbidden")), forbidden, "{told:?}");
    }
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
