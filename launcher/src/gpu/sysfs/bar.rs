//! BAR 0 as memory: aligned 32-bit accesses, each of them volatile and inside the mapping.
#![allow(unsafe_code, reason = "registers are memory that the kernel maps; there is no safe way to touch them")]

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The largest BAR 0 that is mapped: an NVSwitch's.
const MAX_BYTES: u64 = 32 << 20;

/// A mapped BAR.
#[derive(Debug)]
pub(super) struct Bar {
    start: NonNull<c_void>,
    length: usize,
}

impl Bar {
    /// Maps a `resource0` of sysfs. The device must be awake.
    pub(super) fn map(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_SYNC).open(path)?;
        let length = file.metadata()?.len().min(MAX_BYTES);
        let length = usize::try_from(length).ok().filter(|length| *length >= 4096).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("it has {length} bytes, which is no register BAR"))
        })?;
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of this program is replaced.
        let start =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)? };
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, length })
    }

    /// A pointer to a register, if it is aligned and in the mapping.
    fn register(&self, offset: u32) -> io::Result<*mut u32> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        if start % 4 != 0 || start.checked_add(4).is_none_or(|end| end > self.length) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("BAR 0 has {:#x} bytes", self.length)));
        }
        // SAFETY: start + 4 is at most `length`, so the pointer stays in the mapping.
        Ok(unsafe { self.start.as_ptr().byte_add(start) }.cast())
    }

    pub(super) fn read32(&self, offset: u32) -> io::Result<u32> {
        let register = self.register(offset)?;
        // SAFETY: `register` is aligned, inside the mapping, and the mapping lives as long as `self`.
        Ok(u32::from_le(unsafe { register.read_volatile() }))
    }

    pub(super) fn write32(&self, offset: u32, value: u32) -> io::Result<()> {
        let register = self.register(offset)?;
        // SAFETY: as in `read32`; what the write does to the device is the caller's intent.
        unsafe { register.write_volatile(value.to_le()) };
        Ok(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no pointer into it outlives a call.
        let _ = unsafe { munmap(self.start.as_ptr(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_words_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let bar = Bar::map(file.path()).unwrap();
        bar.write32(0x10, 0x1234_5678).unwrap();
        assert_eq!(bar.read32(0x10).unwrap(), 0x1234_5678);
        assert_eq!(&std::fs::read(file.path()).unwrap()[0x10..0x14], [0x78, 0x56, 0x34, 0x12]);
        assert!(bar.read32(8192).is_err() && bar.read32(2).is_err() && bar.write32(8190, 0).is_err());
    }

    #[test]
    fn a_file_too_small_for_registers_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Bar::map(file.path()).unwrap_err().to_string().contains("0 bytes"));
    }
}
