//! A node of modelled devices that tests put together.
#![allow(dead_code, reason = "each test uses some of it")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fakegpu::bench::{Fuse, Slot};
use fakegpu::fault::Fault;
use fakegpu::model::{Chip, Model};
use launcher::gpu::mode::Mode;
use launcher::gpu::product::product;
use launcher::gpu::reconcile::{Device, ReconcileError, reconcile};
use launcher::gpu::resizable::{BarSize, CONFIDENTIAL, MEMORY_BAR, Resize};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use spec::PciAddress;

/// A node and the handles into its models.
pub(crate) struct Node {
    pub(crate) devices: Vec<Device<Slot>>,
    pub(crate) models: Vec<Rc<RefCell<Model>>>,
    pub(crate) fuse: Fuse,
}

pub(crate) const H100: (Chip, u16) = (Chip::Gh100, 0x2330);
pub(crate) const NVSWITCH: (Chip, u16) = (Chip::Ls10, 0x22a3);
pub(crate) const B200: (Chip, u16) = (Chip::Gb100, 0x2901);

/// The processor time of this thread until now: other work on the machine does not count.
pub(crate) fn processor() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(microseconds).unwrap())
}

pub(crate) fn address(index: usize) -> PciAddress {
    format!("0000:{:02x}:00.0", 0x10 + index).parse().unwrap()
}

impl Node {
    pub(crate) fn new(chips: &[(Chip, u16)]) -> Self {
        Self::of(chips.iter().map(|(chip, id)| Model::new(*chip, *id)))
    }

    /// These devices; what each is, its configuration space says.
    pub(crate) fn of(models: impl IntoIterator<Item = Model>) -> Self {
        let fuse = Fuse::default();
        let models: Vec<_> = models.into_iter().map(|model| Rc::new(RefCell::new(model))).collect();
        let devices = models.iter().enumerate().map(|(index, model)| {
            let slot = Slot { address: address(index), model: Rc::clone(model), peers: Vec::new(), fuse: fuse.clone() };
            let [device_id, subsystem_id] =
                [0, 0x2c].map(|at| u16::try_from(model.borrow().config_read(at) >> 16).unwrap());
            let product = product(device_id, Some(subsystem_id)).unwrap();
            Device { function: slot, product, held_by: None }
        });
        Self { devices: devices.collect(), models, fuse }
    }

    /// The board of a DGX or HGX H100.
    pub(crate) fn hgx() -> Self {
        Self::new(&[[H100; 8].as_slice(), &[NVSWITCH; 4]].concat())
    }

    pub(crate) fn set(&mut self, mode: Mode) -> Result<bool, ReconcileError> {
        reconcile(&mut self.devices, mode, |_| {})
    }

    /// The steps, one per line, and how it ended.
    pub(crate) fn set_and_tell(&mut self, mode: Mode) -> String {
        let mut told = String::new();
        let result = reconcile(&mut self.devices, mode, |step| told.push_str(&format!("{step}\n")));
        match result {
            Ok(changed) => told.push_str(if changed { "done" } else { "nothing to do" }),
            Err(error) => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                told.push_str(&format!("{error}{source}"));
            }
        }
        told
    }

    /// The BARs that a launch in a TEE would resize.
    pub(crate) fn resizes(&self) -> Vec<Resize> {
        let resize = |(index, model): (usize, &Rc<RefCell<Model>>)| {
            let model = model.borrow();
            let from = BarSize::of(model.bars().get(1)?.1).filter(|size| *size > CONFIDENTIAL)?;
            let is_blackwell = model.chip() == Chip::Gb100;
            is_blackwell.then_some(Resize { address: address(index), bar: MEMORY_BAR, from, to: CONFIDENTIAL })
        };
        self.models.iter().enumerate().filter_map(resize).collect()
    }

    /// The active bits of all devices.
    pub(crate) fn active(&self) -> Vec<u32> {
        self.models.iter().map(|model| model.borrow().active()).collect()
    }

    pub(crate) fn break_with(&self, index: usize, fault: Fault) {
        self.models[index].borrow_mut().break_with(fault);
    }

    pub(crate) fn assert_no_violation(&self) {
        for model in &self.models {
            assert_eq!(model.borrow().violations, Vec::<String>::new());
        }
    }
}
