//! Models behind the launcher's trait, on a bus, with a plug that can be pulled.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use launcher::gpu::access::{AccessError, Function, ResetKind};
use launcher::gpu::resizable::BarSize;
use spec::PciAddress;

use crate::model::{Model, Reset};

/// A model and where it sits.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where it is.
    pub address: PciAddress,
    /// The device.
    pub model: Rc<RefCell<Model>>,
    /// Functions behind the same bridge.
    pub peers: Vec<PciAddress>,
    /// How many more writes and resets the program lives to make; shared by all slots of a bench.
    pub fuse: Fuse,
}

/// How many more changes a program makes before it is killed; none is counted where it is not lit.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Rc<Cell<Option<u32>>>);

impl Fuse {
    /// Kills the program before its change number `changes`.
    pub fn light(&self, changes: u32) {
        self.0.set(Some(changes));
    }

    /// Lets it live.
    pub fn put_out(&self) {
        self.0.set(None);
    }

    /// Whether the program is dead.
    pub fn is_blown(&self) -> bool {
        self.0.get() == Some(0)
    }

    fn burn(&self) -> bool {
        if let Some(left) = self.0.get().filter(|left| *left > 0) {
            self.0.set(Some(left - 1));
        }
        self.is_blown()
    }
}

impl Slot {
    fn check_alive(&self, burnt: bool) -> Result<(), AccessError> {
        if !burnt {
            return Ok(());
        }
        let action = "the program was killed".to_owned();
        Err(AccessError { address: self.address, action, source: io::ErrorKind::Interrupted.into() })
    }
}

impl Function for Slot {
    fn address(&self) -> PciAddress {
        self.address
    }

    fn read32(&mut self, offset: u32) -> Result<u32, AccessError> {
        self.check_alive(self.fuse.is_blown())?;
        Ok(self.model.borrow_mut().bar0_read(offset))
    }

    fn write32(&mut self, offset: u32, value: u32) -> Result<(), AccessError> {
        self.check_alive(self.fuse.burn())?;
        self.model.borrow_mut().bar0_write(offset, value);
        Ok(())
    }

    fn config_read32(&mut self, offset: u16) -> Result<u32, AccessError> {
        self.check_alive(self.fuse.is_blown())?;
        Ok(self.model.borrow().config_read(offset))
    }

    fn pin_power(&mut self) -> Result<(), AccessError> {
        self.check_alive(self.fuse.is_blown())?;
        self.model.borrow_mut().pin_power();
        Ok(())
    }

    fn reset(&mut self, kind: ResetKind) -> Result<(), AccessError> {
        self.check_alive(self.fuse.burn())?;
        self.model.borrow_mut().reset(match kind {
            ResetKind::Function => Reset::Function,
            ResetKind::Bus => Reset::Bus,
            ResetKind::Reenumerate => Reset::Reenumerate,
        });
        Ok(())
    }

    /// As the kernel does it: refused where the size is not offered; else the device is told, and not asked.
    fn resize_bar(&mut self, bar: u8, size: BarSize) -> Result<(), AccessError> {
        self.check_alive(self.fuse.burn())?;
        let mut model = self.model.borrow_mut();
        let capability = (model.config_read(0x120), model.config_read(0x124), model.config_read(0x128));
        let offered = capability.0 & 0xffff == 0x15 && capability.1 >> (size.0 + 4) & 1 == 1;
        if !offered || capability.2 & 7 != u32::from(bar) {
            let action = format!("cannot resize BAR {bar} to {size}");
            return Err(AccessError { address: self.address, action, source: io::ErrorKind::InvalidInput.into() });
        }
        model.config_write_bytes(0x129, &[size.0]);
        Ok(())
    }

    fn bus_peers(&self) -> Vec<PciAddress> {
        self.peers.clone()
    }

    fn now(&self) -> Duration {
        self.model.borrow().now()
    }

    fn sleep(&mut self, time: Duration) {
        self.model.borrow_mut().advance(time);
    }
}
