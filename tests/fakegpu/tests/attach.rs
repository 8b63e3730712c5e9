//! What a launch does to GPUs before its guest starts.

mod node;

use fakegpu::fault::Fault;
use fakegpu::model::{Chip, Reset};
use launcher::gpu::attach::attach;
use launcher::gpu::mode::Mode;
use node::{B200, H100, Node, address};

/// The steps, one per line, and how it ended.
fn told(node: &mut Node, mode: Mode) -> String {
    let mut told = String::new();
    match attach(&mut node.devices, mode, |step| told.push_str(&format!("{step}\n"))) {
        Ok(()) => told.push_str("done"),
        Err(error) => told.push_str(&error.to_string()),
    }
    told
}

fn resets(node: &Node, index: usize) -> Vec<Reset> {
    node.models[index].borrow().resets.clone()
}

#[test]
fn one_bus_reset_serves_the_mode_and_the_session() {
    let mut node = Node::new(&[H100]);
    node.models[0].borrow_mut().open_session();
    let expected = "\
0000:10:00.0: write 2 to BAR0_DECOUPLER
0000:10:00.0: write 1 to CCM
0000:10:00.0: secondary-bus reset, keep awake, wait for boot
0000:10:00.0: verify that the mode is on
done";
    assert_eq!(told(&mut node, Mode::On), expected);
    assert_eq!((node.active(), resets(&node, 0)), (vec![1], vec![Reset::Bus]));
    assert!(!node.models[0].borrow().has_session());
}

#[test]
fn a_device_in_its_mode_is_reset_all_the_same() {
    let mut node = Node::new(&[H100, B200]);
    node.set(Mode::On).unwrap();
    node.models.iter().for_each(|model| model.borrow_mut().open_session());
    let expected = "\
0000:10:00.0: secondary-bus reset, keep awake, wait for boot
0000:11:00.0: secondary-bus reset, keep awake, wait for boot
0000:10:00.0: verify that the mode is on
0000:11:00.0: verify that the mode is on
done";
    assert_eq!(told(&mut node, Mode::On), expected);
    assert!(node.models.iter().all(|model| !model.borrow().has_session()));
}

#[test]
fn a_board_comes_into_protected_pcie_and_back_to_off() {
    let mut node = Node::hgx();
    assert!(told(&mut node, Mode::Ppcie).ends_with("done"));
    assert_eq!(node.active(), [[0x20; 8].as_slice(), &[1; 4]].concat());
    assert!(told(&mut node, Mode::Off).ends_with("done"));
    assert_eq!(node.active(), [0; 12]);
    assert!((0..12).all(|index| resets(&node, index) == [Reset::Bus, Reset::Bus]));
    node.assert_no_violation();
}

#[test]
fn what_a_killed_guest_left_is_mended_by_the_reset() {
    for fault in [Fault::BarClosed, Fault::ErrorValues, Fault::SecurityFault, Fault::SilentFsp] {
        let mut node = Node::new(&[H100]);
        node.break_with(0, fault);
        assert!(told(&mut node, Mode::On).ends_with("done"), "{fault}");
        assert_eq!((node.active(), resets(&node, 0)), (vec![1], vec![Reset::Bus, Reset::Bus]), "{fault}");
    }
    let mut node = Node::new(&[H100]);
    node.models[0].borrow_mut().leave_invalid_mode();
    assert!(told(&mut node, Mode::On).ends_with("done"));
    let mut node = Node::new(&[(Chip::Gb202, 0x2bb5)]);
    node.models[0].borrow_mut().idle();
    assert!(told(&mut node, Mode::On).ends_with("done"));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let refused = |prepare: &dyn Fn(&mut Node)| {
        let mut node = Node::new(&[H100]);
        prepare(&mut node);
        (told(&mut node, Mode::On), resets(&node, 0))
    };
    let (text, resets) = refused(&|node| node.devices[0].function.peers = vec![address(9)]);
    assert_eq!(text, "0000:10:00.0 (H100 SXM): a secondary-bus reset would also reset 0000:19:00.0");
    assert_eq!(resets, []);
    let (text, resets) = refused(&|node| node.devices[0].held_by = Some("process 7 (qemu)".to_owned()));
    assert_eq!((text.as_str(), resets), ("0000:10:00.0 (H100 SXM) is held by process 7 (qemu)", vec![]));
    assert!(refused(&|node| node.break_with(0, Fault::Recovery)).0.contains("recovery mode"));
    assert!(refused(&|node| node.break_with(0, Fault::Forbidden(8))).0.contains("CCM may not be changed"));
    let (text, _) = refused(&|node| node.break_with(0, Fault::EveryResetKeepsMode));
    assert!(text.ends_with("verify that the mode is on"), "{text}");
}

#[test]
fn a_function_that_belongs_to_the_same_guest_may_be_reset_with_it() {
    let mut node = Node::new(&[H100, H100]);
    node.devices[0].function.peers = vec![address(1)];
    node.devices[1].function.peers = vec![address(0)];
    assert!(told(&mut node, Mode::Off).ends_with("done"));
}
