//! Kernel, initrd and command line: other ones than those whose hashes are in the guest's memory; and command lines that
//! `bullion-guest` reads where no firmware held anything against hashes.

use crate::attack::{Attack, By, Means, OnRelease, Outcome};
use crate::guests::Guest;
use crate::setup::Setup;

const fn refused_by_firmware(name: &'static str, host: &'static str, change: fn(&mut Setup)) -> Attack {
    Attack {
        name,
        host,
        release: OnRelease::Untried,
        guest: Guest::Hashes,
        means: Means::Before(change),
        outcome: Outcome::NeverStarted,
    }
}

const fn refused_by_guest(
    name: &'static str,
    host: &'static str,
    words: &'static str,
    change: fn(&mut Setup),
) -> Attack {
    let outcome = Outcome::Stopped { by: By::Guest, words };
    Attack { name, host, release: OnRelease::Untried, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    refused_by_firmware("another-kernel", "another kernel, with the table of hashes as it was", |setup| {
        setup.change("vmlinuz", |bytes| *bytes.last_mut().unwrap() ^= 1);
    }),
    refused_by_firmware("another-initrd", "another initrd", |setup| {
        setup.change("initrd", |bytes| bytes.push(0));
    }),
    refused_by_firmware("another-command-line", "one more word on the command line", |setup| {
        *setup.value("-append", "") += " init=/bin/sh";
    }),
    refused_by_firmware("no-table-of-hashes", "no table of hashes", |setup| setup.remove("-device", "loader,")),
    refused_by_guest(
        "two-root-hashes",
        "a second root hash behind the first",
        "FAILED command-line: bullion.root= is there more than once",
        |setup| {
            let value = setup.value("-append", "");
            let word = value.split(' ').find(|word| word.starts_with("bullion.root=")).unwrap().to_owned();
            *value += &format!(" {word}");
        },
    ),
    refused_by_guest("no-root-hash", "no root hash", "FAILED command-line: bullion.root= is missing", |setup| {
        let value = setup.value("-append", "");
        *value = value.replace("bullion.root=", "bullion-root=");
    }),
    refused_by_guest(
        "unknown-word-of-ours",
        "a word with our prefix that the guest does not know",
        "FAILED command-line: \"bullion.trust=host\" is not a word that this guest knows",
        |setup| *setup.value("-append", "") += " bullion.trust=host",
    ),
    refused_by_guest("another-root-hash", "another root hash", "FAILED verity: the top of the verity tree", |setup| {
        let value = setup.value("-append", "");
        let at = value.find("bullion.root=").unwrap() + "bullion.root=".len();
        let digit = if value[at..].starts_with('0') { "1" } else { "0" };
        value.replace_range(at..=at, digit);
    }),
];
