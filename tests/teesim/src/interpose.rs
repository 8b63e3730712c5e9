//! The functions that stand before the C library's: the only entry points of this library.
//!
//! They decide nothing but whether a call is ours. `open` and `ioctl` are variadic in C; on x86_64 a variadic argument of
//! integer class travels in the same register as a named one, so they are declared here with all their arguments. No panic
//! leaves this file: a fault of the simulator itself becomes EIO.
#![allow(unsafe_code, reason = "exports C symbols, and hands the caller's pointers on to the C library untouched")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_ulong, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc;

use crate::{real, route};

// The exported names would replace the test program's own open and ioctl if they were exported from it too.
macro_rules! interpose {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> c_int $body:block)*) => {
        $(
            /// The C library's function of this name, or the simulator's answer in its place.
            ///
            /// # Safety
            /// As for the C library's function.
            #[cfg_attr(not(test), unsafe(no_mangle))]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int $body
        )*
    };
}

interpose! {
    fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
        // SAFETY: the caller's own arguments.
        simulated_open(path).unwrap_or_else(|| unsafe { real::open(path, flags, mode) })
    }

    fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
        // SAFETY: the caller's own arguments.
        simulated_open(path).unwrap_or_else(|| unsafe { real::open(path, flags, mode) })
    }

    fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the caller's own arguments; without O_CREAT and O_TMPFILE, which this function does not allow, no mode is read.
        simulated_open(path).unwrap_or_else(|| unsafe { real::open(path, flags, 0) })
    }

    fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
        // SAFETY: the caller's own arguments.
        simulated_open(path).unwrap_or_else(|| unsafe { real::openat(directory, path, flags, mode) })
    }

    fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
        // SAFETY: the caller's own arguments.
        simulated_open(path).unwrap_or_else(|| unsafe { real::openat(directory, path, flags, mode) })
    }

    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        // Only the low 32 bits of a request count; glibc passes on whatever sign extension the caller made.
        #[allow(clippy::cast_possible_truncation, reason = "the kernel truncates in the same way")]
        let number = request as u32;
        if !route::is_of_interest(number) {
            // SAFETY: the caller's own arguments.
            return unsafe { real::ioctl(fd, request, argument) };
        }
        guarded(|| route::ioctl(fd, number, argument as u64))
            // SAFETY: the caller's own arguments.
            .unwrap_or_else(|| unsafe { real::ioctl(fd, request, argument) })
    }
}

/// The descriptor for a device that is simulated; `None` for any other path.
fn simulated_open(path: *const c_char) -> Option<c_int> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, and by the contract of open(2) a string.
    let path = unsafe { CStr::from_ptr(path) };
    if path != c"/dev/sev" {
        return None;
    }
    guarded(|| Some(route::open_sev()))
}

/// What the C library's caller gets for an answer: `None` when the real function is to be called.
fn guarded(answer: impl FnOnce() -> Option<Result<c_int, Errno>>) -> Option<c_int> {
    let errno = match catch_unwind(AssertUnwindSafe(answer)) {
        Ok(None) => return None,
        Ok(Some(Ok(value))) => return Some(value),
        Ok(Some(Err(errno))) => errno,
        Err(_) => Errno::EIO,
    };
    errno.set();
    Some(-1)
}

/// Runs when the library is loaded: reads the configuration, and takes this library out of `LD_PRELOAD`, so that programs
/// which QEMU starts run without it.
extern "C" fn loaded() {
    let _ = catch_unwind(|| {
        crate::config::config();
        let Some(preload) = std::env::var_os("LD_PRELOAD") else { return };
        match without_this_library(&preload) {
            // SAFETY: the loader runs this before the program starts; there is one thread.
            Some(rest) => unsafe { std::env::set_var("LD_PRELOAD", rest) },
            // SAFETY: as above.
            None => unsafe { std::env::remove_var("LD_PRELOAD") },
        }
    });
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;
#[cfg(test)]
const _: extern "C" fn() = loaded;

/// The entries of a preload list that are other libraries; `None` where nothing is left.
fn without_this_library(list: &OsStr) -> Option<std::ffi::OsString> {
    let others: Vec<&[u8]> = list
        .as_bytes()
        .split(|byte| matches!(byte, b' ' | b':'))
        .filter(|entry| !entry.is_empty() && !entry.ends_with(b"libteesim.so"))
        .collect();
    (!others.is_empty()).then(|| std::ffi::OsString::from_vec(others.join(&b':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_library_leaves_the_preload_list() {
        let after = |list: &str| without_this_library(OsStr::new(list)).map(|rest| rest.into_string().unwrap());
        assert_eq!(after("/a/libteesim.so"), None);
        assert_eq!(after(" /a/libteesim.so:"), None);
        assert_eq!(after("/x/libasan.so /a/libteesim.so:y.so").as_deref(), Some("/x/libasan.so:y.so"));
    }

    #[test]
    fn a_panic_becomes_eio() {
        assert_eq!(guarded(|| panic!("a fault of the simulator")), Some(-1));
        assert_eq!(Errno::last(), Errno::EIO);
    }
}
