//! The model as a PCI device of a virtual machine: a vfio-user server that QEMU's `vfio-user-pci` connects to.
//!
//! A write of the function-level reset bit arrives in configuration space; a secondary-bus reset of the port above
//! arrives as a reset of the device. Time is real here.
#![allow(clippy::print_stderr, reason = "resets are told to whoever watches the server")]

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS,
    VFIO_PCI_NUM_REGIONS, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

use crate::model::config::{CONFIG_BYTES, INTERRUPTS};
use crate::model::{Model, Reset};

/// Of the region's information: it can be read and written.
const READ_WRITE: u32 = 3;
/// Of an interrupt's information: by eventfd, and of no fixed number.
const INTERRUPT_FLAGS: u32 = 1 | 8;

/// A model that runs in real time, and that others may break while it is in use.
#[derive(Clone, Debug)]
pub struct Shared {
    name: String,
    inner: Arc<Mutex<(Model, Instant)>>,
}

impl Shared {
    /// A model under a name, which stands before what is told of it.
    pub fn new(name: &str, model: Model) -> Self {
        Self { name: name.to_owned(), inner: Arc::new(Mutex::new((model, Instant::now()))) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does something to the model, whose clock is set before.
    pub fn with<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        let mut inner: MutexGuard<'_, (Model, Instant)> = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = now - inner.1;
        inner.1 = now;
        inner.0.advance(passed);
        act(&mut inner.0)
    }

    fn tell(&self, kind: Reset) {
        eprintln!("{}: reset: {kind:?}", self.name);
    }

    /// Serves one virtual machine after the other. When one is gone the device is without power until the next one comes.
    pub fn serve(self, socket: &Path) -> Result<(), vfio_user::Error> {
        let model_bars = self.with(|model| model.bars());
        let region = |index| {
            let bar = model_bars.iter().find(|(bar, _)| VFIO_PCI_BAR0_REGION_INDEX + bar == index);
            let size = match index {
                VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_BYTES as u64,
                _ => bar.map_or(0, |(_, size)| *size),
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
        let irqs = (0..VFIO_PCI_NUM_IRQS).map(|index| match index {
            VFIO_PCI_MSIX_IRQ_INDEX => IrqInfo { index, count: INTERRUPTS, flags: INTERRUPT_FLAGS },
            _ => IrqInfo { index, count: 0, flags: 0 },
        });
        let server = Server::new(socket, true, irqs.collect(), regions)?;
        let mut device = Device(self);
        loop {
            server.run(&mut device)?;
            eprintln!("{}: without power", device.0.name);
            device.0.with(|model| model.reset(Reset::Power));
        }
    }
}

/// The model as its client sees it.
struct Device(Shared);

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        self.0.with(|model| match region {
            VFIO_PCI_CONFIG_REGION_INDEX => model.config_read_bytes(offset as usize, data),
            VFIO_PCI_BAR0_REGION_INDEX => {
                for (word, chunk) in (offset & !3..).step_by(4).zip(data.chunks_mut(4)) {
                    let value = model.bar0_read(word).to_le_bytes();
                    let at = if chunk.len() < 4 { (offset & 3) as usize } else { 0 };
                    chunk.iter_mut().zip(value.iter().skip(at)).for_each(|(byte, value)| *byte = *value);
                }
            }
            // Nothing is behind the memory BARs: no test needs what would be there.
            _ => data.fill(0),
        });
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let reset = self.0.with(|model| match region {
            VFIO_PCI_CONFIG_REGION_INDEX => model.config_write_bytes(offset as usize, data),
            VFIO_PCI_BAR0_REGION_INDEX => {
                if let Ok(word) = data.try_into() {
                    model.bar0_write(offset, u32::from_le_bytes(word));
                }
                None
            }
            _ => None,
        });
        reset.into_iter().for_each(|kind| self.0.tell(kind));
        Ok(())
    }

    fn dma_map(&mut self, _: DmaMapFlags, _: u64, _: u64, _: u64, _: Option<File>) -> io::Result<()> {
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.0.tell(Reset::Bus);
        self.0.with(|model| model.reset(Reset::Bus));
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}

/// QEMU's arguments for the device at `socket`, behind a root port of its own, the `index`-th of them. The machine's memory must
/// be shared (`memory-backend-memfd,share=on`).
pub fn qemu_arguments(index: usize, socket: &Path) -> [String; 4] {
    // Eight functions a slot, from slot 0x10 on, so that boards of any size find their place.
    let (slot, function) = (0x10 + index / 8, index % 8);
    // Of a faster port the kernel awaits an active link after a reset, which QEMU does not show for these devices.
    let port = format!(
        "pcie-root-port,x-speed=2_5,id=gpu-port{index},bus=pcie.0,addr={slot:#x}.{function},multifunction=on,chassis={},slot={}",
        0x40 + index,
        0x40 + index
    );
    let device = serde_json::json!({
        "driver": "vfio-user-pci",
        "bus": format!("gpu-port{index}"),
        "addr": "0x0.0",
        "multifunction": true,
        "socket": { "type": "unix", "path": socket },
    });
    ["-device".to_owned(), port, "-device".to_owned(), device.to_string()]
}
