//! The machine that TDX firmware finds itself in: who is asked what QEMU gives it, and for which shape. What follows from the
//! answers is in `registers`.

use std::path::Path;

use image::UnpackedTree;
use launcher::QemuProgram;
use launcher::qemu::oracle::{self, Answer as Told, Devices, Question};
use measure::shape::{Shape, TdxShape, TeeShape};
use store::Store;

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

/// A QEMU that answers.
pub(crate) struct Oracle<'a> {
    /// Keeps the tree in the cache meanwhile.
    _hold: Option<UnpackedTree>,
    program: QemuProgram,
    cache: &'a Path,
    devices: Devices,
}

impl<'a> Machine<'a> {
    /// The QEMU, unpacked first where it is not there.
    pub(crate) fn oracle(&self) -> Result<Oracle<'a>, Failure> {
        Oracle::new(self.qemu, self.store, self.devices)
    }
}

impl<'a> Oracle<'a> {
    /// The QEMU that `qemu` names, for machines with these devices.
    pub(crate) fn new(qemu: &QemuChoice, store: &'a Store, devices: Devices) -> Result<Self, Failure> {
        let (hold, program) = tree::qemu(qemu, store)?;
        Ok(Self { _hold: hold, program, cache: store.root(), devices })
    }

    /// What firmware gets in the machine that Bullion launches for TDX, with so many vCPUs and so much memory.
    pub(crate) fn ask(&self, firmware: &[u8], vcpus: u32, memory_mib: u64) -> Result<Told, Failure> {
        let shape = tdx_shape(vcpus, memory_mib);
        let question = Question { program: &self.program, firmware, shape: &shape, devices: self.devices };
        Ok(oracle::ask(&question, self.cache)?)
    }
}

/// A TD as Bullion launches it, without what no table depends on.
pub(super) fn tdx_shape(vcpus: u32, memory_mib: u64) -> Shape {
    let tdx = TdxShape { attributes: TdxShape::SEPT_VE_DISABLE, mrconfigid: [0; 48] };
    Shape { tee: TeeShape::Tdx(tdx), vcpus, cpu_model: "host".to_owned(), memory_mib }
}
