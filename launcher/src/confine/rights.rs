//! What QEMU may do: nothing that needs a capability, as a user that owns nothing of this host.

use std::fs;
use std::path::Path;

use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

use super::{Confinement, NOBODYS};

/// The most files that QEMU has open: its channels and disks, and what each vCPU and queue needs.
const OPEN_FILES: u64 = 16_384;

/// Whether the user of this process can make other users' processes: root, where the number is known.
pub(super) fn can_change_user() -> bool {
    let mapped =
        |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).is_ok_and(|map| has(&map, NOBODYS));
    geteuid().is_root() && mapped("uid_map") && mapped("gid_map")
}

/// Whether a map of user_namespaces(7) has this number inside.
fn has(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<Option<u32>> = line.split_whitespace().map(|field| field.parse().ok()).collect();
        let [Some(first), _, Some(count)] = numbers.as_slice() else { return false };
        id.checked_sub(*first).is_some_and(|offset| offset < *count)
    })
}

/// After unshare(2) with a new user namespace: this user and group keep their numbers, and nobody else exists.
pub(super) fn map_self((uid, gid): (u32, u32)) -> std::io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// The numbers of this user and group, as they are before anything is unshared.
pub(super) fn this_user() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// Limits, while they can still be raised.
pub(super) fn limit(confinement: &Confinement) -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(most), OPEN_FILES.min(most))?;
    if confinement.lock_memory {
        // Who cannot raise it keeps what the administrator gave: the host check says whether that is enough.
        let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        return raised.or_else(|_| setrlimit(Resource::RLIMIT_MEMLOCK, most, most));
    }
    Ok(())
}

/// Gives up all that this process may do beyond what every process may, for good and for all that it executes.
pub(super) fn give_up(other_user: bool, groups: &[u32]) -> nix::Result<()> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Past the last that this kernel has.
            Err(rustix::io::Errno::INVAL) if bit > 0 => break,
            Err(error) => return Err(errno(error)),
        }
    }
    if other_user {
        let (uid, gid) = (Uid::from_raw(NOBODYS), Gid::from_raw(NOBODYS));
        setgroups(&groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>())?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
    }
    clear_ambient_capability_set().map_err(errno)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).map_err(errno)?;
    set_no_new_privs()
}

fn errno(error: rustix::io::Errno) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_looked_up_in_a_map() {
        assert!(has("         0          0 4294967295\n", NOBODYS));
        assert!(has("0 1000 1\n1 100000 65536\n", NOBODYS));
        assert!(!has("0 1000 1\n", NOBODYS) && !has("", 0) && !has("0 x\n", 0));
    }
}
