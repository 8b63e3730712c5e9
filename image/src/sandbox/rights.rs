//! What the script may do: nothing that needs a capability, as no user of this host, with no file that the caller had open.
//!
//! Where root builds, the namespaces are root's, and the script has another user's number on the host: root's own opens
//! `/proc/sys`, and everything else that root owns, whatever namespace it is in (user_namespaces(7)).

use std::fs;
use std::path::Path;

use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Uid, close, geteuid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

use super::SandboxError;

/// The user and the group that a script of root has on the host: between systemd's dynamic users and `nobody`, so nobody's.
const NOBODYS: u32 = 65_533;

/// Closes every file but the usual three.
pub(super) fn close_inherited() -> Result<(), SandboxError> {
    let directory = Path::new("/proc/self/fd");
    let listing = || SandboxError::inside("listing", directory);
    let mut open: Vec<i32> = Vec::new();
    for entry in fs::read_dir(directory).map_err(listing())? {
        open.extend(entry.map_err(listing())?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for file in open.into_iter().filter(|file| *file > 2) {
        // The directory's own is in the list, and closed by now.
        let _ = close(file);
    }
    Ok(())
}

/// The number that the script has to have on the host where root builds; `None` where a user does, or a root that is one
/// in the only user namespace it has the numbers of.
pub(super) fn of_root() -> Option<u32> {
    let mapped =
        |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).is_ok_and(|map| is_mapped(&map, NOBODYS));
    (geteuid().is_root() && mapped("uid_map") && mapped("gid_map")).then_some(NOBODYS)
}

/// Whether a map of user_namespaces(7) has this number inside.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
        let (Some(Some(first)), Some(Some(_)), Some(Some(count))) = (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        id.checked_sub(first).is_some_and(|offset| offset < count)
    })
}

/// Becomes this user and group for good, without the rights of root.
pub(super) fn become_user(id: u32) -> Result<(), SandboxError> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[]).map_err(SandboxError::Namespaces)?;
    setresgid(gid, gid, gid).map_err(SandboxError::Namespaces)?;
    setresuid(uid, uid, uid).map_err(SandboxError::Namespaces)?;
    // Changing the user made the maps of /proc/self root's (prctl(2)).
    set_dumpable(true).map_err(SandboxError::Namespaces)
}

/// After unshare(2) with a new user namespace: the user and group that this process had before have the number `inside`, and
/// nobody else exists (user_namespaces(7)).
pub fn map_user(inside: u32, uid: u32, gid: u32) -> Result<(), SandboxError> {
    let number = |before: u32| format!("{inside} {before} 1");
    let maps = [("setgroups", "deny".to_owned()), ("uid_map", number(uid)), ("gid_map", number(gid))];
    for (name, text) in maps {
        let path = Path::new("/proc/self").join(name);
        fs::write(&path, text).map_err(SandboxError::inside("writing", &path))?;
    }
    Ok(())
}

/// Takes all capabilities from this thread and from what it starts, whatever that executes (capabilities(7)). Other threads
/// keep theirs, so that what this one starts can neither trace the process nor open its files.
pub(super) fn drop_capabilities() -> Result<(), SandboxError> {
    let dropping = || SandboxError::inside("dropping the capabilities of", Path::new("the script"));
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Past the last that this kernel has.
            Err(rustix::io::Errno::INVAL) if bit > 0 => break,
            Err(error) => return Err(dropping()(error)),
        }
    }
    clear_ambient_capability_set().map_err(dropping())?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).map_err(dropping())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_looked_up_in_a_map() {
        let all = "         0          0 4294967295\n";
        let two = "0 1000 1\n1 100000 65536\n";
        assert!(is_mapped(all, 0) && is_mapped(all, NOBODYS));
        assert!(is_mapped(two, NOBODYS) && is_mapped(two, 65_536) && !is_mapped(two, 65_537));
        assert!(!is_mapped("0 1000 1\n", 1) && !is_mapped("", 0) && !is_mapped("0 x\n", 0));
    }
}
