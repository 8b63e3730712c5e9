//! The machine that TDX firmware finds itself in: who is asked what QEMU gives it, and for which shape. What follows from the
//! answers is in `registers`.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use image::UnpackedTree;
use launcher::QemuProgram;
use launcher::qemu::oracle::{self, Answer as Told, Devices, Question};
use measure::shape::{Boot, Shape, TdxShape, TeeShape};
use spec::Outcome;
use store::{Store, TreeHold};

use crate::args::QemuChoice;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::tree;

/// Who is asked about the machine.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    /// Which QEMU.
    pub(crate) qemu: &'a QemuChoice,
    /// Where trees and answers are kept.
    pub(crate) store: &'a Store,
    /// Where it is said that something is not predicted.
    pub(crate) printer: &'a Printer,
    /// What the machine has beyond the devices of every guest.
    pub(crate) devices: Devices,
}

/// A QEMU that answers. Its tree is looked through, and unpacked where it is not there, once it has to be run.
pub(crate) struct Oracle<'a> {
    choice: &'a QemuChoice,
    store: &'a Store,
    /// Where its answers are kept.
    answers: PathBuf,
    devices: Devices,
    /// As it lies there, for what it has answered before.
    known: Option<(Option<TreeHold>, QemuProgram)>,
    checked: OnceCell<(Option<UnpackedTree>, QemuProgram)>,
}

impl<'a> Machine<'a> {
    /// The QEMU.
    pub(crate) fn oracle(&self) -> Oracle<'a> {
        Oracle::new(self.qemu, self.store, self.devices)
    }
}

impl<'a> Oracle<'a> {
    /// The QEMU that `qemu` names, for machines with these devices.
    pub(crate) fn new(choice: &'a QemuChoice, store: &'a Store, devices: Devices) -> Self {
        let (answers, known) = (store.root().to_owned(), tree::qemu_as_it_lies(choice, store));
        Self { choice, store, answers, devices, known, checked: OnceCell::new() }
    }

    /// The same of a QEMU whose tree is looked through before anything is believed of it, with answers kept below `answers`.
    pub(crate) fn looked_through(choice: &'a QemuChoice, store: &'a Store, answers: &Path) -> Self {
        let devices = Devices::default();
        Self { choice, store, answers: answers.to_owned(), devices, known: None, checked: OnceCell::new() }
    }

    /// What firmware gets in the machine that Bullion launches for TDX, with so many vCPUs and so much memory.
    pub(crate) fn ask(&self, firmware: &[u8], boot: Boot, vcpus: u32, memory_mib: u64) -> Result<Told, Failure> {
        self.ask_of(firmware, &Shape { boot, ..tdx_shape(vcpus, memory_mib) }, self.devices)
    }

    /// What firmware gets in the machine that Bullion launches for this shape, with these devices.
    pub(crate) fn ask_of(&self, firmware: &[u8], shape: &Shape, devices: Devices) -> Result<Told, Failure> {
        let cache = self.answers.as_path();
        let question = |program| Question { program, firmware, shape, devices };
        if let Some(told) = self.known.as_ref().and_then(|(_, program)| oracle::recall(&question(program), cache)) {
            return Ok(told);
        }
        Ok(oracle::ask(&question(self.program()?), cache)?)
    }

    fn program(&self) -> Result<&QemuProgram, Failure> {
        if self.checked.get().is_none() {
            let _ = self.checked.set(tree::qemu(self.choice, self.store)?);
        }
        self.checked
            .get()
            .map(|(_, program)| program)
            .ok_or_else(|| Failure::new(Outcome::Internal, "there is no QEMU"))
    }
}

/// A TD as Bullion launches it with a kernel, without what no table depends on.
pub(super) fn tdx_shape(vcpus: u32, memory_mib: u64) -> Shape {
    let tdx = TdxShape { attributes: TdxShape::SEPT_VE_DISABLE, mrconfigid: [0; 48] };
    Shape { tee: TeeShape::Tdx(tdx), boot: Boot::Kernel, vcpus, cpu_model: "host".to_owned(), memory_mib }
}
