//! QEMU's memory, read and written as the kernel would: an address that QEMU made up gives EFAULT and not a crash.
//!
//! The kernel's own copy routines do the work (`process_vm_readv` on this very process), so that no pointer of QEMU's is ever
//! followed here and nothing in this file is unsafe.

use std::io::{IoSlice, IoSliceMut};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::getpid;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Fills `buffer` from `address`, or fails with EFAULT.
pub(crate) fn read_bytes(address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    if buffer.is_empty() {
        return Ok(());
    }
    let expected = buffer.len();
    let remote = [RemoteIoVec { base: usize::try_from(address).map_err(|_| Errno::EFAULT)?, len: expected }];
    match process_vm_readv(getpid(), &mut [IoSliceMut::new(buffer)], &remote) {
        Ok(count) if count == expected => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        Err(errno) => Err(errno),
    }
}

/// Writes `bytes` to `address`, or fails with EFAULT.
pub(crate) fn write_bytes(address: u64, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.is_empty() {
        return Ok(());
    }
    let remote = [RemoteIoVec { base: usize::try_from(address).map_err(|_| Errno::EFAULT)?, len: bytes.len() }];
    match process_vm_writev(getpid(), &[IoSlice::new(bytes)], &remote) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        Err(errno) => Err(errno),
    }
}

/// Copies a structure in.
pub(crate) fn read<T: FromBytes + IntoBytes>(address: u64) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    read_bytes(address, value.as_mut_bytes())?;
    Ok(value)
}

/// Copies a structure out.
pub(crate) fn write<T: IntoBytes + Immutable>(address: u64, value: &T) -> Result<(), Errno> {
    write_bytes(address, value.as_bytes())
}

/// Copies `count` structures in.
pub(crate) fn read_many<T: FromBytes + IntoBytes>(address: u64, count: u32) -> Result<Vec<T>, Errno> {
    (0..u64::from(count))
        .map(|index| read(address.checked_add(index * size_of::<T>() as u64).ok_or(Errno::EFAULT)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_survives_the_round_trip() {
        let mut place = [0_u64; 4];
        let address = place.as_mut_ptr() as u64;
        write(address, &[1_u64, 2, 3, 4]).unwrap();
        assert_eq!(read::<[u64; 4]>(address), Ok([1, 2, 3, 4]));
        assert_eq!(read_many::<u64>(address, 3), Ok(vec![1, 2, 3]));
        assert_eq!(place, [1, 2, 3, 4]);
    }

    #[test]
    fn an_address_nobody_owns_is_a_fault_and_not_a_crash() {
        for address in [0, 16, u64::MAX - 7, 1 << 62] {
            assert_eq!(read::<u64>(address), Err(Errno::EFAULT), "{address:#x}");
            assert_eq!(write(address, &0_u64), Err(Errno::EFAULT), "{address:#x}");
        }
    }
}
