//! What firmware would do before it starts anything: place PCI devices where it is told to, and read all that QEMU offers by
//! fw_cfg. The simulated vCPU leaves guest mode with the port accesses that firmware makes; QEMU itself answers them.
//!
//! Files are read by DMA as OVMF reads them (QEMU `docs/specs/fw_cfg.rst`, "DMA interface"), through memory that no guest
//! uses. Only a file's digest goes into the report; its content goes to the directory that `TEESIM_FW_CFG` names.

use std::collections::VecDeque;
use std::fs;
use std::path::{Component, Path};

use serde::Serialize;
use sha2::{Digest as _, Sha384};

use crate::report::as_hex;

/// `FW_CFG_FILE_DIR`.
const DIRECTORY: u16 = 0x19;
/// Items without a name in the directory, which only their key tells: QEMU `include/standard-headers/linux/qemu_fw_cfg.h` and
/// `hw/nvram/fw_cfg.c`, whose names these are. Of the last four the size is an item of its own.
const BOOT_MENU: (u16, &str) = (0x0e, "BootMenu");
const SIZED: [(u16, u16, &str); 4] = [
    (0x08, 0x11, "kernel_data"),
    (0x0b, 0x12, "initrd_data"),
    (0x14, 0x15, "cmdline_data"),
    (0x17, 0x18, "setup_data"),
];
/// Where the DMA descriptor and the data are: memory that every guest has.
const DESCRIPTOR: u64 = 16 << 20;
const BUFFER: u64 = DESCRIPTOR + 4096;
const BUFFER_BYTES: usize = 1 << 20;
/// No file is as large as this.
const MAX_BYTES: usize = 1 << 30;
/// Ports of PCI configuration mechanism 1 and of the fw_cfg DMA register, which is big-endian.
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const DMA_HIGH: u16 = 0x514;
const DMA_LOW: u16 = 0x518;
const DMA_SELECT: u32 = 1 << 3;
const DMA_READ: u32 = 1 << 1;

/// A write to a port: all that leaves the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) port: u16,
    pub(crate) value: u32,
}

/// The guest's memory as this module needs it; `None` where there is none.
pub(crate) trait Memory {
    fn read(&self, gpa: u64, buffer: &mut [u8]) -> Option<()>;
    fn write(&self, gpa: u64, bytes: &[u8]) -> Option<()>;
}

/// A write to the configuration space of a PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConfigWrite {
    /// Bus, device, function and register, as CONFIG_ADDRESS has them.
    address: u32,
    value: u32,
}

impl ConfigWrite {
    /// Reads `BUS:DEVICE.FUNCTION/REGISTER=VALUE`, all in hex.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str, most: u32| u32::from_str_radix(text, 16).ok().filter(|number| *number <= most);
        let (bus, rest) = text.split_once(':')?;
        let (device, rest) = rest.split_once('.')?;
        let (function, rest) = rest.split_once('/')?;
        let (register, value) = rest.split_once('=')?;
        let register = number(register, 0xfc).filter(|register| register % 4 == 0)?;
        let place = number(bus, 0xff)? << 16 | number(device, 0x1f)? << 11 | number(function, 7)? << 8;
        Some(Self { address: 1 << 31 | place | register, value: number(value, u32::MAX)? })
    }
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct File {
    /// Its name in fw_cfg; of an item without one, the name in QEMU's source.
    pub(crate) name: String,
    /// Its size.
    pub(crate) size: usize,
    /// SHA-384 of its content.
    #[serde(serialize_with = "as_hex")]
    pub(crate) sha384: [u8; 48],
}

/// What a transfer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    /// The number of files.
    Count,
    /// The directory.
    Directory,
    /// The size of another item.
    Size(u16, &'static str),
    /// Content that counts.
    File(String),
}

/// An item, on its way.
#[derive(Debug)]
struct Transfer {
    key: u16,
    size: usize,
    purpose: Purpose,
    content: Vec<u8>,
}

/// One pass of firmware over what QEMU offers.
#[derive(Debug)]
pub(crate) struct Firmware {
    outputs: VecDeque<Output>,
    running: Option<Transfer>,
    waiting: VecDeque<Transfer>,
    files: Vec<File>,
}

impl Firmware {
    /// Firmware that first makes these writes, and then reads.
    pub(crate) fn new(placement: &[ConfigWrite]) -> Self {
        let write = |write: &ConfigWrite| {
            [(CONFIG_ADDRESS, write.address), (CONFIG_DATA, write.value)].map(|(port, value)| Output { port, value })
        };
        let mut waiting = VecDeque::from([
            Transfer::new(DIRECTORY, 4, Purpose::Count),
            Transfer::new(BOOT_MENU.0, 2, Purpose::File(BOOT_MENU.1.to_owned())),
        ]);
        waiting.extend(SIZED.map(|(size, key, name)| Transfer::new(size, 4, Purpose::Size(key, name))));
        Self { outputs: placement.iter().flat_map(write).collect(), running: None, waiting, files: Vec::new() }
    }

    /// What was read so far.
    pub(crate) fn files(&self) -> &[File] {
        &self.files
    }

    /// The next access, or `None` when all is read. Before the next call QEMU must have answered it.
    pub(crate) fn next(&mut self, memory: &dyn Memory, save: Option<&Path>) -> Result<Option<Output>, String> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Ok(Some(output));
            }
            if let Some(mut transfer) = self.running.take() {
                transfer.take_in(memory)?;
                if transfer.content.len() < transfer.size {
                    self.ask(transfer, memory)?;
                } else {
                    self.finish(transfer, save)?;
                }
            } else if let Some(transfer) = self.waiting.pop_front() {
                self.ask(transfer, memory)?;
            } else {
                return Ok(None);
            }
        }
    }

    fn ask(&mut self, transfer: Transfer, memory: &dyn Memory) -> Result<(), String> {
        memory.write(DESCRIPTOR, &transfer.descriptor()).ok_or("fw_cfg: the guest has no memory at 16 MiB")?;
        let (high, low) = ((DESCRIPTOR >> 32) as u32, (DESCRIPTOR & 0xffff_ffff) as u32);
        self.outputs
            .extend([(DMA_HIGH, high), (DMA_LOW, low)].map(|(port, value)| Output { port, value: value.swap_bytes() }));
        self.running = Some(transfer);
        Ok(())
    }

    fn finish(&mut self, transfer: Transfer, save: Option<&Path>) -> Result<(), String> {
        let Transfer { content, purpose, .. } = transfer;
        match purpose {
            Purpose::Count => {
                let count = content.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes)).min(4096);
                self.waiting.push_front(Transfer::new(DIRECTORY, 4 + 64 * count as usize, Purpose::Directory));
            }
            Purpose::Directory => {
                let entries = content.get(4..).unwrap_or_default().chunks_exact(64);
                self.waiting.extend(entries.filter_map(entry));
            }
            Purpose::Size(key, name) => {
                let size = content.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                self.waiting.push_back(Transfer::new(key, size as usize, Purpose::File(name.to_owned())));
            }
            Purpose::File(name) => {
                if let Some(directory) = save {
                    write(directory, &name, &content)?;
                }
                self.files.push(File { name, size: content.len(), sha384: Sha384::digest(&content).into() });
            }
        }
        Ok(())
    }
}

impl Transfer {
    fn new(key: u16, size: usize, purpose: Purpose) -> Self {
        Self { key, size: size.min(MAX_BYTES), purpose, content: Vec::new() }
    }

    /// How much comes next.
    fn chunk(&self) -> usize {
        (self.size - self.content.len()).min(BUFFER_BYTES)
    }

    /// FWCfgDmaAccess: an item is selected once, and then read on.
    fn descriptor(&self) -> Vec<u8> {
        let select = if self.content.is_empty() { u32::from(self.key) << 16 | DMA_SELECT } else { 0 };
        let length = u32::try_from(self.chunk()).unwrap_or(0);
        [&(select | DMA_READ).to_be_bytes()[..], &length.to_be_bytes(), &BUFFER.to_be_bytes()].concat()
    }

    fn take_in(&mut self, memory: &dyn Memory) -> Result<(), String> {
        let gone = "fw_cfg: the guest's memory is gone";
        let mut control = [0; 4];
        memory.read(DESCRIPTOR, &mut control).ok_or(gone)?;
        if control != [0; 4] {
            return Err(format!("fw_cfg: QEMU did not read item {:#x}: {control:02x?}", self.key));
        }
        let mut chunk = vec![0; self.chunk()];
        memory.read(BUFFER, &mut chunk).ok_or(gone)?;
        self.content.append(&mut chunk);
        Ok(())
    }
}

/// A file of the directory: size, key and two reserved bytes, big-endian, and a name of 56 bytes.
fn entry(bytes: &[u8]) -> Option<Transfer> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_first_chunk::<2>()?;
    let name = rest.get(2..)?.split(|byte| *byte == 0).next()?;
    let purpose = Purpose::File(String::from_utf8_lossy(name).into_owned());
    Some(Transfer::new(u16::from_be_bytes(*key), u32::from_be_bytes(*size) as usize, purpose))
}

/// Writes a file below `directory`, and nowhere else.
fn write(directory: &Path, name: &str, content: &[u8]) -> Result<(), String> {
    if name.is_empty() || Path::new(name).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(format!("fw_cfg: {name:?} is no name for a file"));
    }
    let path = directory.join(name);
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, content));
    written.map_err(|error| format!("fw_cfg: cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// fw_cfg as its specification has it, over memory that starts at the descriptor.
    struct Device {
        memory: RefCell<Vec<u8>>,
        items: BTreeMap<u16, Vec<u8>>,
        place: RefCell<(u16, usize)>,
        high: RefCell<u32>,
        config: RefCell<Vec<(u16, u32)>>,
    }

    impl Memory for Device {
        fn read(&self, gpa: u64, buffer: &mut [u8]) -> Option<()> {
            let start = usize::try_from(gpa - DESCRIPTOR).unwrap();
            buffer.copy_from_slice(self.memory.borrow().get(start..start + buffer.len())?);
            Some(())
        }

        fn write(&self, gpa: u64, bytes: &[u8]) -> Option<()> {
            let start = usize::try_from(gpa - DESCRIPTOR).unwrap();
            self.memory.borrow_mut().get_mut(start..start + bytes.len())?.copy_from_slice(bytes);
            Some(())
        }
    }

    impl Device {
        fn new(items: BTreeMap<u16, Vec<u8>>) -> Self {
            let memory = RefCell::new(vec![0xee; 4096 + BUFFER_BYTES]);
            Self { memory, items, place: RefCell::default(), high: RefCell::default(), config: RefCell::default() }
        }

        fn output(&self, output: Output) {
            match output.port {
                DMA_HIGH => *self.high.borrow_mut() = output.value.swap_bytes(),
                DMA_LOW => self.transfer(u64::from(*self.high.borrow()) << 32 | u64::from(output.value.swap_bytes())),
                port => self.config.borrow_mut().push((port, output.value)),
            }
        }

        fn transfer(&self, at: u64) {
            let mut access = [0; 16];
            self.read(at, &mut access).unwrap();
            let control = u32::from_be_bytes(access[..4].try_into().unwrap());
            let length = u32::from_be_bytes(access[4..8].try_into().unwrap()) as usize;
            let address = u64::from_be_bytes(access[8..].try_into().unwrap());
            let mut place = self.place.borrow_mut();
            if control & DMA_SELECT != 0 {
                *place = ((control >> 16) as u16, 0);
            }
            assert_ne!(control & DMA_READ, 0);
            let item = self.items.get(&place.0).cloned().unwrap_or_default();
            // What is read past the end is zero.
            let bytes: Vec<u8> = (place.1..place.1 + length).map(|at| item.get(at).copied().unwrap_or(0)).collect();
            place.1 += length;
            self.write(address, &bytes).unwrap();
            self.write(at, &[0; 4]).unwrap();
        }
    }

    fn directory(files: &[(&str, u16, usize)]) -> Vec<u8> {
        let mut bytes = u32::try_from(files.len()).unwrap().to_be_bytes().to_vec();
        for (name, key, size) in files {
            bytes.extend(u32::try_from(*size).unwrap().to_be_bytes());
            bytes.extend(key.to_be_bytes());
            bytes.extend([0; 2]);
            bytes.extend(name.bytes().chain(std::iter::repeat(0)).take(56));
        }
        bytes
    }

    #[test]
    fn everything_is_read_after_the_devices_are_placed() {
        let kernel = vec![7; 2 * BUFFER_BYTES + 5];
        let device = Device::new(BTreeMap::from([
            (DIRECTORY, directory(&[("etc/acpi/tables", 0x22, 3), ("etc/boot/kernel", 0x23, kernel.len())])),
            (0x0e, vec![1, 0]),
            (0x14, 4_u32.to_le_bytes().to_vec()),
            (0x15, b"abc\0".to_vec()),
            (0x22, b"abc".to_vec()),
            (0x23, kernel.clone()),
        ]));
        let mut firmware = Firmware::new(&[ConfigWrite::parse("01:1f.3/10=fe00000c").unwrap()]);
        let save = std::env::temp_dir().join(format!("teesim-firmware-{}", std::process::id()));
        while let Some(output) = firmware.next(&device, Some(&save)).unwrap() {
            device.output(output);
        }
        assert_eq!(*device.config.borrow(), [(0xcf8, 0x8001_fb10), (0xcfc, 0xfe00_000c)]);
        let found: Vec<_> = firmware.files().iter().map(|file| (file.name.as_str(), file.size)).collect();
        let sized = [("kernel_data", 0), ("initrd_data", 0), ("cmdline_data", 4), ("setup_data", 0)];
        assert_eq!(found[..3], [("BootMenu", 2), ("etc/acpi/tables", 3), ("etc/boot/kernel", kernel.len())]);
        assert_eq!(found[3..], sized);
        // SHA-384 of "abc" (FIPS 180-4, example).
        assert!(hex::encode(firmware.files()[1].sha384).starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert!(fs::read(save.join("etc/boot/kernel")).unwrap() == kernel);
        fs::remove_dir_all(save).unwrap();
        assert!(write(Path::new("/tmp"), "../x", b"").unwrap_err().contains("no name"));
    }

    #[test]
    fn writes_are_read_as_they_are_written_or_not_at_all() {
        for wrong in
            ["", "00:1f.0", "00:1f.0/41=1", "00:20.0/40=1", "00:1f.8/40=1", "00:1f.0/40=100000000", "100:0.0/0=0"]
        {
            assert_eq!(ConfigWrite::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_answers(
            directory in proptest::collection::vec(any::<u8>(), 0..300),
            sizes in proptest::collection::vec(any::<u8>(), 4),
        ) {
            let items = BTreeMap::from([(DIRECTORY, directory), (0x08, vec![sizes[0], 0, 0, 0])]);
            let device = Device::new(items);
            let mut firmware = Firmware::new(&[]);
            for _ in 0..12 {
                let Some(output) = firmware.next(&device, None).unwrap() else { break };
                device.output(output);
            }
        }
    }
}
