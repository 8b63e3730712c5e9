//! Preparing a host and undoing it, on a kernel in memory that loses power at any point, and on the shelf of hosts.

mod kernel;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kernel::{Function, Kernel, PowerCut, STACK, State};
use launcher::host::prepare::{
    Change, Device, Group, Journal, LocalMachine, PersistentFile, Pool, PrepareError, Rights, Step, Undone, after,
    prepare, restore, steps,
};
use proptest::prelude::*;
use spec::PciAddress;

const BOOT: &str = "5b0c6f3e-0e1a-4b52-9d0f-2f6d3a0f9b11";
const NODE_0: Pool = Pool { node: Some(0), size_kib: 2048 };
const NODE_0_FILE: &str = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";

fn kvm_group() -> Group {
    Group { name: "kvm".to_owned(), number: 993 }
}

fn address(number: usize) -> String {
    format!("0000:{:02x}:00.0", 0x41 + number)
}

/// Three disks: one that nvme has, one that nobody has, one that was told to go to vfio-pci already and does not.
fn host() -> Kernel {
    let function = |driver: Option<&str>, driver_override: Option<&str>| Function {
        natural: Some("nvme".to_owned()),
        driver: driver.map(str::to_owned),
        driver_override: driver_override.map(str::to_owned),
        held: false,
    };
    let functions = [function(Some("nvme"), None), function(None, None), function(Some("nvme"), Some("nvme"))];
    let state = State {
        functions: functions.into_iter().enumerate().map(|(index, found)| (address(index), found)).collect(),
        modules: ["vfio".to_owned()].into(),
        pools: [(NODE_0_FILE.to_owned(), (3, 1000))].into(),
        rights: [("dev/kvm".to_owned(), Rights { group: 0, mode: 0o600 })].into(),
        ..State::default()
    };
    Kernel { state, ..Kernel::default() }
}

fn bind(number: usize) -> Step {
    let address = address(number).parse().unwrap();
    Step::Bind { address, id: "144d:a824".to_owned(), driver: None, disks: vec![format!("nvme{number}n1")] }
}

fn everything() -> Vec<Step> {
    let adds = STACK.map(str::to_owned).to_vec();
    vec![
        Step::LoadModule { name: "vfio_pci".to_owned(), parameters: Vec::new(), adds },
        Step::HugePages { pool: NODE_0, before: 3, after: 40 },
        bind(0),
        bind(1),
        bind(2),
        Step::Grant { device: Device::Kvm, group: kvm_group() },
        Step::Grant { device: Device::Function(address(0).parse().unwrap()), group: kvm_group() },
        Step::Write { file: PersistentFile::Modules, content: "vfio_pci\n".to_owned() },
    ]
}

fn until_power_fails(work: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(()) => false,
        Err(cause) if cause.is::<PowerCut>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

fn undo(kernel: &mut Kernel) -> Vec<(String, Undone)> {
    let mut told = Vec::new();
    restore(kernel, BOOT, |change, undone| told.push((change.to_string(), undone.clone()))).unwrap();
    told
}

fn silence_power_cuts() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<PowerCut>() {
                usual(info);
            }
        }));
    });
}

#[test]
fn a_prepared_host_has_what_was_asked_for() {
    let mut kernel = host();
    let mut done = 0;
    prepare(&mut kernel, &everything(), BOOT, |_| done += 1).unwrap();
    assert_eq!(done, everything().len());
    assert!(kernel.state.functions.values().all(|function| function.driver.as_deref() == Some("vfio-pci")));
    assert_eq!(kernel.state.pools[NODE_0_FILE].0, 40);
    assert_eq!(kernel.state.rights["dev/kvm"], Rights { group: 993, mode: 0o660 });
    assert!(kernel.state.modules.contains("vfio_pci"));
    // Nothing is left to do, and nothing is written down twice.
    let journal = kernel.journal.clone();
    prepare(&mut kernel, &everything(), BOOT, |_| panic!("nothing is to be done")).unwrap();
    assert_eq!(kernel.journal, journal);
    assert!(undo(&mut kernel).iter().all(|(_, undone)| *undone == Undone::Done));
    assert_eq!((kernel.state, kernel.journal), (host().state, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    /// Power fails while a host is prepared, and again while that is undone, at any point; or a step fails.
    #[test]
    fn a_restore_brings_back_the_host_whatever_stopped_preparing_it(
        chosen in proptest::collection::vec(any::<bool>(), 8),
        room in prop_oneof![Just(1000_u64), 0..40_u64],
        first in 0..60_usize,
        second in 0..60_usize,
        third in 0..60_usize,
    ) {
        silence_power_cuts();
        let mut kernel = host();
        kernel.state.pools.insert(NODE_0_FILE.to_owned(), (3, room.max(3)));
        let before = kernel.state.clone();
        let steps: Vec<_> = everything().into_iter().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(step, _)| step).collect();
        kernel.changes_left = Some(first);
        until_power_fails(|| drop(prepare(&mut kernel, &steps, BOOT, |_| {})));
        for left in [second, third] {
            kernel.changes_left = Some(left);
            until_power_fails(|| drop(restore(&mut kernel, BOOT, |_, _| {})));
        }
        kernel.changes_left = None;
        for (change, undone) in undo(&mut kernel) {
            prop_assert_eq!(undone, Undone::Done, "{}", change);
        }
        prop_assert_eq!(kernel.state, before);
        prop_assert_eq!(kernel.journal, None);
    }

    #[test]
    fn any_journal_is_read_or_refused(text in ".{0,200}", name in "[a-z/.-]{0,8}") {
        let _ = Journal::parse(&text);
        let text = format!(
            r#"{{"schema":1,"entries":[{{"boot_id":"","lasting":false,"finished":true,"change":
               {{"what":"bind","address":"0000:41:00.0","driver":"{name}","driver_override":null}}}}]}}"#
        );
        prop_assert_eq!(Journal::parse(&text).is_ok(), !name.is_empty() && !name.contains('/') && !name.starts_with(['-', '.']));
    }
}

#[test]
fn every_step_is_written_down_before_it_is_done() {
    silence_power_cuts();
    for left in 0.. {
        let mut kernel = host();
        kernel.changes_left = Some(left);
        if !until_power_fails(|| prepare(&mut kernel, &everything(), BOOT, |_| {}).unwrap()) {
            assert!(left > 20, "{left} changes");
            return;
        }
        assert!(kernel.journal.is_some() || kernel.state == host().state, "{left}: {:?}", kernel.state);
    }
}

/// Somebody else at work between preparing and restoring.
fn meddled(meddle: impl FnOnce(&mut State)) -> (Kernel, Vec<(String, Undone)>) {
    let mut kernel = host();
    prepare(&mut kernel, &everything(), BOOT, |_| {}).unwrap();
    meddle(&mut kernel.state);
    let told = undo(&mut kernel);
    let left: Vec<_> = told.into_iter().filter(|(_, undone)| *undone != Undone::Done).collect();
    (kernel, left)
}

#[test]
fn what_others_have_changed_is_left_and_named() {
    let (kernel, left) = meddled(|state| {
        let function = state.functions.get_mut(&address(0)).unwrap();
        (function.driver, function.driver_override) = (Some("uio".to_owned()), Some("uio".to_owned()));
    });
    let named = Undone::Foreign("its driver_override is now uio".to_owned());
    assert_eq!(left, [("0000:41:00.0 at vfio-pci, which nvme drove".to_owned(), named)]);
    assert_eq!(kernel.state.functions[&address(0)].driver.as_deref(), Some("uio"));
    assert_eq!(kernel.state.functions[&address(2)], host().state.functions[&address(2)]);
    assert_eq!(kernel.journal, None);

    let (kernel, left) = meddled(|state| state.pools.get_mut(NODE_0_FILE).unwrap().0 = 64);
    assert_eq!(left[0].1, Undone::Foreign("there are 64 pages now".to_owned()));
    assert_eq!(kernel.state.pools[NODE_0_FILE].0, 64);

    let (kernel, left) = meddled(|state| state.rights.get_mut("dev/kvm").unwrap().mode = 0o666);
    assert_eq!(left[0].1, Undone::Foreign("it has group 993 and mode 666 now".to_owned()));
    assert_eq!(kernel.state.rights["dev/kvm"].mode, 0o666);

    let file = PersistentFile::Modules.path();
    let (kernel, left) = meddled(|state| state.files.get_mut(file).unwrap().push_str("kvm\n"));
    assert_eq!(left[0].1, Undone::Foreign("somebody has edited it".to_owned()));
    assert_eq!(kernel.state.files[file], "vfio_pci\nkvm\n");

    let (kernel, left) = meddled(|state| drop(state.functions.remove(&address(1))));
    assert_eq!((left, kernel.journal), (vec![], None), "a card that was taken out is nobody's any more");
}

#[test]
fn what_is_in_use_is_left_for_later() {
    let mut kernel = host();
    prepare(&mut kernel, &everything(), BOOT, |_| {}).unwrap();
    kernel.state.functions.get_mut(&address(0)).unwrap().held = true;
    let busy = |told: Vec<(String, Undone)>| -> Vec<_> {
        told.into_iter().filter(|(_, undone)| matches!(undone, Undone::Busy(_))).map(|(change, _)| change).collect()
    };
    let left = busy(undo(&mut kernel));
    assert_eq!(left.len(), 2, "the function, and the module that has it: {left:?}");
    assert!(kernel.state.modules.contains("vfio_pci"));
    kernel.state.functions.get_mut(&address(0)).unwrap().held = false;
    assert_eq!(busy(undo(&mut kernel)), [""; 0]);
    assert_eq!((kernel.state, kernel.journal), (host().state, None));
}

#[test]
fn a_disk_that_is_in_use_after_all_is_not_taken() {
    let mut kernel = host();
    kernel.state.claimed.insert("nvme1n1".to_owned());
    let error = prepare(&mut kernel, &everything(), BOOT, |_| {}).unwrap_err();
    assert!(matches!(&error, PrepareError::InUse { reason, .. } if reason.contains("nvme1n1")), "{error}");
    assert_eq!(kernel.state.functions[&address(1)], host().state.functions[&address(1)]);
    undo(&mut kernel);
    assert_eq!(kernel.state.functions, host().state.functions);
}

#[test]
fn what_the_kernel_held_is_gone_with_the_boot() {
    let mut kernel = host();
    let steps = everything();
    let (lasting, rest) = steps.split_last().unwrap();
    assert!(matches!(lasting, Step::Write { .. }));
    prepare(&mut kernel, rest, BOOT, |_| {}).unwrap();
    // Another start, on which somebody has bound the disk for himself.
    let mut kernel = Kernel { journal: kernel.journal, ..host() };
    kernel.state.modules.extend(STACK.map(str::to_owned));
    let disk = kernel.state.functions.get_mut(&address(0)).unwrap();
    (disk.driver, disk.driver_override) = (Some("vfio-pci".to_owned()), Some("vfio-pci".to_owned()));
    let before = kernel.state.clone();
    restore(&mut kernel, "another boot", |change, _| panic!("{change}")).unwrap();
    assert_eq!((kernel.state, kernel.journal), (before, None));
}

#[test]
fn what_files_have_made_again_is_undone_after_another_start() {
    let mut kernel = host();
    prepare(&mut kernel, &everything(), BOOT, |_| {}).unwrap();
    restore(&mut kernel, "another boot", |_, undone| assert_eq!(*undone, Undone::Done)).unwrap();
    assert_eq!((kernel.state, kernel.journal), (host().state, None));
}

#[test]
fn a_change_keeps_its_form_in_the_journal() {
    let change = Change::Bind {
        address: address(0).parse::<PciAddress>().unwrap(),
        driver: Some("nvme".to_owned()),
        driver_override: None,
    };
    let text = r#"{"what":"bind","address":"0000:41:00.0","driver":"nvme","driver_override":null}"#;
    assert_eq!(serde_json::to_string(&change).unwrap(), text);
    assert_eq!(serde_json::from_str::<Change>(text).unwrap(), change);
}

#[test]
fn hosts_of_the_shelf_are_prepared_as_the_text_says() {
    let group = kvm_group();
    let mut text = String::new();
    for (name, extra) in [
        ("genoa", "pci = [{ address = \"0000:41:00.0\" }, { address = \"0000:c1:00.0\" }]"),
        ("genoa", "pci = [{ address = \"0000:42:00.0\" }]"),
        ("genoa", "huge_pages = \"2MiB\"\nnuma_node = 0"),
        ("genoa", "huge_pages = \"2MiB\"\nnuma_node = 1"),
        ("disks-in-use", "huge_pages = \"2MiB\"\nnuma_node = 0"),
        ("disks-in-use", "pci = [{ address = \"0000:41:00.0\" }]"),
        ("disks-in-use", "pci = [{ address = \"0000:01:00.0\" }]"),
        ("disks-in-use", "pci = [{ address = \"0000:42:00.0\" }]"),
        ("disks-in-use", &crate::golden::with_drive("0000:42:00.0", "")),
        ("disks-in-use", &crate::golden::with_drive("0000:42:00.0", ", dangerously_overwrite = true")),
        ("disks-in-use", ""),
    ] {
        let root = tempfile::tempdir().unwrap();
        let facts = crate::hosts::facts(name, root.path());
        let machine = LocalMachine::new(root.path(), &root.path().join("journal"));
        let vm = crate::fixture::vm("snp", extra);
        let needs = (!extra.is_empty()).then(|| launcher::host::check::Needs::of(&vm));
        let found = steps(&machine, &facts, needs.as_ref(), Some(&group), true);
        text.push_str(&format!("== {name} {}\n", extra.replace('\n', " ")));
        text.extend(found.steps.iter().map(|step| format!("{step}\n")));
        text.extend(found.refusals.iter().map(|line| format!("{line}\n")));
        text.extend(found.notes.iter().map(|note| format!("note      {note}\n")));
        // What was foreseen needs no more preparing, but for what is read from the machine itself.
        let foreseen = after(&facts, &found.steps);
        let again = steps(&machine, &foreseen, needs.as_ref(), None, false);
        let left = again.steps.iter().filter(|step| !matches!(step, Step::LoadModule { .. })).count();
        assert_eq!(left, 0, "{name}: {:?}", again.steps);
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launch/prepare/shelf.txt");
    crate::golden::agrees_at(&path, &text);
}
