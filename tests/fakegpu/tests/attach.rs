//! What a launch does to GPUs before its guest starts.

mod node;

use fakegpu::fault::Fault;
use fakegpu::model::{Chip, Reset};
use launcher::gpu::attach::attach;
use launcher::gpu::mode::Mode;
use launcher::gpu::resizable::{BarSize, CONFIDENTIAL, Resize};
use node::{B200, H100, Node, address};

/// The steps, one per line, and how it ended.
fn told(node: &mut Node, mode: Mode) -> String {
    told_with(node, mode, &[])
}

fn told_with(node: &mut Node, mode: Mode, resizes: &[Resize]) -> String {
    let mut told = String::new();
    match attach(&mut node.devices, mode, resizes, |step| told.push_str(&format!("{step}\n"))) {
        Ok(()) => told.push_str("done"),
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            told.push_str(&format!("{error}{source}"));
        }
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

/// All twelve in one guest that is killed in the middle of a start, and then in another; some of them with what a killed guest leaves.
#[test]
fn a_board_that_a_killed_guest_left_goes_whole_to_the_next() {
    let mut node = Node::hgx();
    assert!(told(&mut node, Mode::Ppcie).ends_with("done"));
    node.models.iter().for_each(|model| model.borrow_mut().open_session());
    for (index, fault) in [(0, Fault::BarClosed), (5, Fault::ErrorValues), (9, Fault::SilentFsp)] {
        node.break_with(index, fault);
    }
    node.models[11].borrow_mut().idle();
    assert!(told(&mut node, Mode::Ppcie).ends_with("done"));
    assert_eq!(node.active(), [[0x20; 8].as_slice(), &[1; 4]].concat());
    assert!(node.models.iter().all(|model| !model.borrow().has_session()));
    // A switch that does not come along holds all of it up, before anything is reset.
    let mut node = Node::hgx();
    node.break_with(8, Fault::Forbidden(45));
    assert!(told(&mut node, Mode::Ppcie).contains("0000:18:00.0 (NVSwitch LS10): PPCIE may not be changed"));
    assert!((0..12).all(|index| resets(&node, index).is_empty()) && node.active() == [0; 12]);
    // Of one board, all that a bus reset reaches goes to the guest; what is a stranger's does not.
    for device in &mut node.devices {
        device.function.peers = (0..12).map(address).filter(|peer| *peer != device.function.address).collect();
    }
    node.models[8].borrow_mut().mend();
    assert!(told(&mut node, Mode::Ppcie).ends_with("done"));
    node.devices[3].function.peers.push(address(40));
    assert!(told(&mut node, Mode::Ppcie).contains("would also reset 0000:38:00.0"));
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
    assert!(text.ends_with("the mode is off after the reset, expected on"), "{text}");
}

#[test]
fn a_function_that_belongs_to_the_same_guest_may_be_reset_with_it() {
    let mut node = Node::new(&[H100, H100]);
    node.devices[0].function.peers = vec![address(1)];
    node.devices[1].function.peers = vec![address(0)];
    assert!(told(&mut node, Mode::Off).ends_with("done"));
}

#[test]
fn the_memory_bars_of_blackwell_are_resized_first_and_looked_at_last() {
    let mut node = Node::new(&[B200, B200]);
    let expected = "\
0000:10:00.0: take it from its driver, resize BAR 2 to 8 GiB, give it back
0000:11:00.0: take it from its driver, resize BAR 2 to 8 GiB, give it back
0000:10:00.0: write 1 to CCM
0000:11:00.0: write 1 to CCM
0000:10:00.0: secondary-bus reset, keep awake, wait for boot
0000:11:00.0: secondary-bus reset, keep awake, wait for boot
0000:10:00.0: verify that the mode is on
0000:11:00.0: verify that the mode is on
0000:10:00.0: verify that BAR 2 has 8 GiB
0000:11:00.0: verify that BAR 2 has 8 GiB
done";
    let resizes = node.resizes();
    assert_eq!(told_with(&mut node, Mode::On, &resizes), expected);
    for model in &node.models {
        assert_eq!((model.borrow().sizes_asked.as_slice(), model.borrow().bars()[1]), ([13].as_slice(), (2, 8 << 30)));
    }
}

#[test]
fn a_size_that_is_not_taken_is_found_out_and_taken_back() {
    let mut node = Node::new(&[B200, B200]);
    node.break_with(1, Fault::ResizeIgnored);
    let resizes = node.resizes();
    let text = told_with(&mut node, Mode::On, &resizes);
    assert!(text.ends_with("the device says that its BAR 2 has 256 GiB, expected 8 GiB"), "{text}");
    // The kernel, which asks no device, is told what it has; nothing else was begun.
    assert_eq!(node.models[1].borrow().sizes_asked, [13, 18]);
    assert_eq!((node.active(), resets(&node, 0)), (vec![0, 0], vec![]));
    // The next run goes on from there.
    node.models[1].borrow_mut().take_away(Fault::ResizeIgnored);
    let resizes = node.resizes();
    assert_eq!(resizes.iter().map(|resize| resize.address).collect::<Vec<_>>(), [address(1)]);
    assert!(told_with(&mut node, Mode::On, &resizes).ends_with("done"));
    let mut node = Node::new(&[H100]);
    let resize = Resize { address: address(0), bar: 2, from: BarSize(17), to: CONFIDENTIAL };
    let text = told_with(&mut node, Mode::On, &[resize]);
    assert!(text.contains("cannot resize BAR 2 to 8 GiB"), "{text}");
}
