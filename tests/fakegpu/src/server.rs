//! The model as a PCI device of a virtual machine: a vfio-user server that QEMU's `vfio-user-pci` connects to.
//!
//! A write of the function-level reset bit arrives in configuration space; a secondary-bus reset of the port above
//! arrives as a reset of the device. Time is real here.
#![allow(clippy::print_stderr, reason = "resets are told to whoever watches the server")]

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

use crate::model::{Chip, Model, Reset};

/// Registers that a driver can write: the command, BAR 0 (64-bit), the interrupt line, device control.
const COMMAND: usize = 0x04;
const BAR0: usize = 0x10;
const INTERRUPT_LINE: usize = 0x3c;
/// The PCI Express capability.
const EXPRESS: usize = 0x60;
const DEVICE_CONTROL: usize = EXPRESS + 8;
const CONFIG_BYTES: usize = 256;
/// Of the region's information: it can be read and written.
const READ_WRITE: u32 = 3;

/// A modelled device behind a socket.
#[derive(Debug)]
pub struct Device {
    model: Model,
    config: [u8; CONFIG_BYTES],
    bar0_bytes: u32,
    last: Instant,
}

impl Device {
    /// Puts a model behind PCI configuration space.
    pub fn new(model: Model) -> Self {
        let (class, bar0_bytes) = match model.chip() {
            Chip::Ls10 => ([0x00, 0x80, 0x06], 32 << 20),
            Chip::Gh100 | Chip::Gb100 => ([0x00, 0x02, 0x03], 16 << 20),
        };
        let mut config = [0; CONFIG_BYTES];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &model.config_read(0).to_le_bytes());
        put(0x06, &0x10_u16.to_le_bytes()); // status: there is a list of capabilities
        put(0x08, &[0xa1]);
        put(0x09, &class);
        put(BAR0, &[0x04]); // 64-bit memory
        put(0x2c, &[0xde, 0x10, 0xc1, 0x16]);
        put(0x34, &[0x60]);
        put(EXPRESS, &[0x10, 0x00, 0x02, 0x00]); // PCI Express, version 2, endpoint
        put(EXPRESS + 4, &(1_u32 << 28 | 0x8000).to_le_bytes()); // it can be reset by function
        Self { model, config, bar0_bytes, last: Instant::now() }
    }

    /// Serves one virtual machine, until it disconnects.
    pub fn serve(mut self, socket: &Path) -> Result<(), vfio_user::Error> {
        let region = |index| {
            let size = match index {
                VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_BYTES as u64,
                VFIO_PCI_BAR0_REGION_INDEX => u64::from(self.bar0_bytes),
                _ => 0,
            };
            let region_info = vfio_region_info {
                argsz: u32::try_from(size_of::<vfio_region_info>()).unwrap_or(0),
                index,
                size,
                flags: if size > 0 { READ_WRITE } else { 0 },
                ..Default::default()
            };
            ServerRegion { region_info, sparse_areas: Vec::new(), mmap_fd: None }
        };
        let regions = (0..VFIO_PCI_NUM_REGIONS).map(region).collect();
        let irqs = (0..VFIO_PCI_NUM_IRQS).map(|index| IrqInfo { index, count: 0, flags: 0 }).collect();
        Server::new(socket, true, irqs, regions)?.run(&mut self)
    }

    fn let_time_pass(&mut self) {
        let now = Instant::now();
        self.model.advance(now - self.last);
        self.last = now;
    }

    fn reset_by(&mut self, kind: Reset) {
        eprintln!("reset: {kind:?}");
        self.model.reset(kind);
    }

    fn write_config(&mut self, at: usize, data: &[u8]) {
        match (at, data) {
            (BAR0, &[a, b, c, d]) => {
                let value = u32::from_le_bytes([a, b, c, d]) & !(self.bar0_bytes - 1) | 4;
                self.config[BAR0..BAR0 + 4].copy_from_slice(&value.to_le_bytes());
            }
            (COMMAND..0x06 | 0x14..0x18 | INTERRUPT_LINE | DEVICE_CONTROL..0x6a, _) => {
                for (place, byte) in self.config.iter_mut().skip(at).zip(data) {
                    *place = *byte;
                }
            }
            _ => {}
        }
        // Device control, bit 15: function-level reset. It reads as zero.
        if self.config[DEVICE_CONTROL + 1] & 0x80 != 0 {
            self.config[DEVICE_CONTROL + 1] &= 0x7f;
            self.reset_by(Reset::Function);
        }
    }
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.let_time_pass();
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            for (at, byte) in (offset as usize..).zip(data) {
                *byte = self.config.get(at).copied().unwrap_or(0);
            }
        } else if region == VFIO_PCI_BAR0_REGION_INDEX {
            let value = self.model.bar0_read(offset & !3).to_le_bytes();
            for (at, byte) in ((offset & 3) as usize..).zip(data) {
                *byte = value.get(at).copied().unwrap_or(0);
            }
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.let_time_pass();
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            self.write_config(offset as usize, data);
        } else if region == VFIO_PCI_BAR0_REGION_INDEX
            && let Ok(word) = data.try_into()
        {
            self.model.bar0_write(offset, u32::from_le_bytes(word));
        }
        Ok(())
    }

    fn dma_map(&mut self, _: DmaMapFlags, _: u64, _: u64, _: u64, _: Option<File>) -> io::Result<()> {
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.let_time_pass();
        self.reset_by(Reset::Bus);
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}
