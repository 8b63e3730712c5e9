//! Modes are set, step by step as written here, and set again without doing anything.

mod node;

use fakegpu::fault::Fault;
use fakegpu::model::{Chip, Model, Reset};
use launcher::gpu::mode::Mode;
use node::{B200, H100, NVSWITCH, Node, address};

#[test]
fn an_h100_goes_into_confidential_mode_and_stays_there() {
    let mut node = Node::new(&[H100]);
    let told = node.set_and_tell(Mode::On);
    let expected = "\
0000:10:00.0: write 2 to BAR0_DECOUPLER
0000:10:00.0: write 1 to CCM
0000:10:00.0: function-level reset, keep awake, wait for boot
0000:10:00.0: verify that the mode is on
done";
    assert_eq!(told, expected);
    assert_eq!(node.active(), [1]);
    assert_eq!(node.set_and_tell(Mode::On), "nothing to do");
    node.assert_no_violation();
}

/// One chip on two boards under one device number: the subsystem number in configuration space tells which hangs on its CPU.
#[test]
fn a_board_on_its_cpu_is_refused_by_its_subsystem_number() {
    for (id, on_a_cpu, other) in [(0x31c2, 0x21f1, 0x20e6), (0x29bc, 0x2045, 0x1985)] {
        let of = |subsystem| Node::of([Model::new(Chip::Gb100, id).with_subsystem(subsystem)]);
        let mut node = of(on_a_cpu);
        assert!(node.set_and_tell(Mode::On).contains("hangs on its CPU by NVLink-C2C"), "{id:#x}");
        assert_eq!((node.active(), node.models[0].borrow().resets.len()), (vec![0], 0));
        let mut node = of(other);
        assert!(node.set_and_tell(Mode::On).ends_with("done"), "{id:#x}");
        assert_eq!(node.active(), [1]);
    }
}

#[test]
fn every_mode_leads_to_every_other() {
    let bits = |chip: Chip, mode: Mode| match (chip, mode) {
        (Chip::Ls10, Mode::Ppcie) => 1,
        (Chip::Ls10, _) | (_, Mode::Off) => 0,
        (_, Mode::On) => 1,
        (_, Mode::Devtools) => 3,
        (_, Mode::Ppcie) => 0x20,
    };
    for (chip, id) in [H100, NVSWITCH, B200, (Chip::Gh100, 0x2335)] {
        let modes: &[Mode] = match chip {
            Chip::Gb100 => &[Mode::Off, Mode::On, Mode::Devtools],
            _ => &[Mode::Off, Mode::On, Mode::Devtools, Mode::Ppcie],
        };
        for (from, to) in modes.iter().flat_map(|from| modes.iter().map(move |to| (*from, *to))) {
            let mut node = Node::new(&[(chip, id)]);
            node.set(from).unwrap();
            node.set(to).unwrap();
            assert_eq!(node.active(), [bits(chip, to)], "{chip:?}: {from} to {to}");
            node.assert_no_violation();
        }
    }
}

#[test]
fn a_board_changes_as_one_with_its_switches_first() {
    let mut node = Node::new(&[H100, H100, NVSWITCH]);
    let told = node.set_and_tell(Mode::Ppcie);
    let expected = "\
0000:12:00.0: write 1 to PPCIE
0000:10:00.0: write 2 to BAR0_DECOUPLER
0000:10:00.0: write 1 to PPCIE
0000:11:00.0: write 2 to BAR0_DECOUPLER
0000:11:00.0: write 1 to PPCIE
0000:12:00.0: function-level reset, keep awake, wait for boot
0000:10:00.0: function-level reset, keep awake, wait for boot
0000:11:00.0: function-level reset, keep awake, wait for boot
0000:12:00.0: verify that the mode is ppcie
0000:10:00.0: verify that the mode is ppcie
0000:11:00.0: verify that the mode is ppcie
done";
    assert_eq!(told, expected);
}

#[test]
fn the_way_between_modes_that_exclude_each_other_goes_through_off() {
    let mut node = Node::new(&[H100]);
    node.set(Mode::On).unwrap();
    let told = node.set_and_tell(Mode::Ppcie);
    let expected = "\
0000:10:00.0: write 0 to BAR0_DECOUPLER
0000:10:00.0: write 0 to CCM
0000:10:00.0: function-level reset, keep awake, wait for boot
0000:10:00.0: verify that the mode is off
0000:10:00.0: write 2 to BAR0_DECOUPLER
0000:10:00.0: write 1 to PPCIE
0000:10:00.0: function-level reset, keep awake, wait for boot
0000:10:00.0: verify that the mode is ppcie
done";
    assert_eq!(told, expected);
}

#[test]
fn a_full_board_takes_the_time_of_its_resets() {
    let mut node = Node::hgx();
    node.set(Mode::Ppcie).unwrap();
    assert_eq!(node.active(), [[0x20; 8].as_slice(), &[1; 4]].concat());
    node.set(Mode::On).unwrap();
    assert_eq!(node.active(), [[1; 8].as_slice(), &[0; 4]].concat());
    node.assert_no_violation();
}

#[test]
fn the_invalid_mode_is_mended_by_setting_any() {
    for mode in [Mode::Off, Mode::On, Mode::Devtools, Mode::Ppcie] {
        let mut node = Node::new(&[H100]);
        node.models[0].borrow_mut().set_active(2);
        node.models[0].borrow_mut().knobs.insert(6, 1);
        assert!(node.set(mode).unwrap(), "{mode}");
    }
}

#[test]
fn a_mode_that_a_function_reset_does_not_change_is_changed_by_a_bus_reset() {
    let mut node = Node::new(&[H100]);
    node.break_with(0, Fault::FunctionResetKeepsMode);
    node.set(Mode::On).unwrap();
    assert_eq!(node.active(), [1]);
    assert_eq!(node.models[0].borrow().resets, [Reset::Function, Reset::Bus]);
}

#[test]
fn a_mode_that_no_reset_changes_is_told() {
    let mut node = Node::new(&[H100]);
    node.break_with(0, Fault::EveryResetKeepsMode);
    let told = node.set_and_tell(Mode::On);
    assert!(told.ends_with("verify that the mode is on: the mode is off after the reset, expected on"), "{told}");
}

#[test]
fn a_device_stays_awake_though_its_reset_arms_power_management() {
    let mut node = Node::new(&[H100]);
    node.break_with(0, Fault::ResetArmsPowerManagement);
    node.set(Mode::On).unwrap();
    assert!(node.models[0].borrow().is_power_pinned());
}

#[test]
fn garbage_in_the_undefined_half_of_a_knob_does_not_matter() {
    let mut node = Node::new(&[H100]);
    node.break_with(0, Fault::GarbageHighHalf);
    node.set(Mode::On).unwrap();
    assert_eq!(node.set_and_tell(Mode::On), "nothing to do");
}

#[test]
fn a_request_that_a_killed_tool_left_behind_is_cleared() {
    let mut node = Node::new(&[H100]);
    node.models[0].borrow_mut().leave_stale_request();
    node.set(Mode::On).unwrap();
    assert_eq!(node.active(), [1]);
}

#[test]
fn a_security_processor_that_is_silent_is_restarted() {
    let mut node = Node::new(&[H100, B200]);
    node.break_with(0, Fault::SilentFsp);
    node.break_with(1, Fault::SilentFsp);
    let told = node.set_and_tell(Mode::On);
    assert!(told.starts_with("0000:10:00.0: function-level reset, keep awake, wait for boot\n0000:11:00.0: function"));
    assert_eq!(node.active(), [1, 1]);
}

#[test]
fn a_sleeping_device_is_woken() {
    let mut node = Node::new(&[H100]);
    node.models[0].borrow_mut().idle();
    node.set(Mode::On).unwrap();
    assert_eq!(node.active(), [1]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let refusals = |chip, mode, fault: Option<Fault>| {
        let mut node = Node::new(&[chip]);
        if let Some(fault) = fault {
            node.break_with(0, fault);
        }
        let told = node.set_and_tell(mode);
        assert!(node.models[0].borrow().resets.is_empty(), "{told}");
        told
    };
    assert!(refusals(B200, Mode::Ppcie, None).contains("protected PCIe is for Hopper"));
    assert!(refusals(H100, Mode::Ppcie, Some(Fault::OldFirmware)).contains("too old for protected PCIe"));
    assert!(refusals(H100, Mode::On, Some(Fault::Forbidden(8))).contains("CCM may not be changed in band"));
    assert!(refusals((Chip::Gh100, 0x2342), Mode::On, None).contains("NVLink-C2C"));
    assert!(refusals(H100, Mode::On, Some(Fault::Recovery)).contains("recovery mode"));
    assert!(refusals(H100, Mode::On, Some(Fault::NeverBoots)).contains("has not booted within 5 s"));
    assert!(refusals(H100, Mode::On, Some(Fault::BarClosed)).contains("reads all ones"));
    assert!(refusals(H100, Mode::On, Some(Fault::ErrorValues)).contains("0xbadf5108"));
    assert!(refusals(H100, Mode::On, Some(Fault::SecurityFault)).contains("security fault"));
    assert!(refusals(H100, Mode::On, Some(Fault::RefusedReads(0x202))).contains("error 0x202"));
    assert!(refusals(H100, Mode::On, Some(Fault::StuckAsleep)).contains("configuration space reads all ones"));
}

#[test]
fn one_device_that_cannot_keeps_the_whole_board_as_it_is() {
    let mut node = Node::hgx();
    node.break_with(3, Fault::Recovery);
    assert!(node.set_and_tell(Mode::Ppcie).starts_with("0000:13:00.0 (H100 SXM): is in recovery mode"));
    assert!(node.models.iter().all(|model| model.borrow().resets.is_empty()));
}

#[test]
fn a_device_somebody_has_is_not_touched() {
    let mut node = Node::new(&[H100]);
    node.devices[0].held_by = Some("process 4711 (qemu-system-x86)".to_owned());
    assert_eq!(node.set_and_tell(Mode::On), "0000:10:00.0 (H100 SXM) is held by process 4711 (qemu-system-x86)");
    assert!(!node.models[0].borrow().is_power_pinned());
}

#[test]
fn a_bus_reset_that_would_reach_others_is_not_tried() {
    let mut node = Node::new(&[H100]);
    node.devices[0].function.peers = vec![address(9)];
    node.break_with(0, Fault::FunctionResetKeepsMode);
    let told = node.set_and_tell(Mode::On);
    assert!(told.ends_with("the mode is off after the reset, expected on"), "{told}");
    assert_eq!(node.models[0].borrow().resets, [Reset::Function]);
}
