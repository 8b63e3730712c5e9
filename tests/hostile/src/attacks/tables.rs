//! ACPI and SMBIOS tables and fw_cfg files: written by the host, read by firmware and kernel.
//!
//! The stock kernel runs whatever code is in a table; that of a release admits only tables that its command line names.

use crate::acpi::{ADDRESS, PATTERN, table, table_that_writes};
use crate::attack::{Attack, Means, OTHER_TABLES, OnRelease, Outcome};
use crate::guests::Guest;
use crate::machine::Machine;
use crate::setup::Setup;

const UNREAD: Outcome = Outcome::NoEffect { because: "nothing in the guest reads it", words: "" };

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "ssdt-that-writes-memory",
        release: OTHER_TABLES,
        host: "adds an SSDT whose code writes into the guest's memory",
        guest: Guest::Minimal,
        means: Means::OnceReady(|setup| add(setup, &table_that_writes(*b"SSDT")), |machine| pattern_is(machine, true)),
        outcome: Outcome::NotNoticed {
            but: "the kernel runs it. On TDX the tables are in RTMR0; on SEV-SNP nothing shows it",
        },
    },
    Attack {
        name: "ssdt-under-another-firmware",
        release: OnRelease::Untried,
        host: "the same, under the firmware of an SEV-SNP guest, with nothing else changed",
        guest: Guest::Hashes,
        means: Means::OnceReady(|setup| add(setup, &table_that_writes(*b"SSDT")), |machine| pattern_is(machine, true)),
        outcome: Outcome::NotNoticed { but: "the same: the launch digest of SEV-SNP does not cover tables" },
    },
    Attack {
        name: "second-dsdt",
        release: OTHER_TABLES,
        host: "adds a second DSDT with such code",
        guest: Guest::Minimal,
        means: Means::OnceReady(|setup| add(setup, &table_that_writes(*b"DSDT")), |machine| pattern_is(machine, false)),
        outcome: Outcome::NoEffect { because: "the kernel runs the DSDT that the FADT names, and no other", words: "" },
    },
    Attack {
        name: "unknown-table",
        release: OTHER_TABLES,
        host: "adds a table of an unknown kind",
        guest: Guest::Minimal,
        means: Means::Before(|setup| add(setup, &table(*b"EVIL", &[0xff; 4096]))),
        outcome: UNREAD,
    },
    Attack {
        name: "second-madt",
        release: OTHER_TABLES,
        host: "adds a second MADT, of garbage",
        guest: Guest::Minimal,
        means: Means::Before(|setup| add(setup, &table(*b"APIC", &[0xff; 64]))),
        outcome: Outcome::NoEffect { because: "the kernel takes the first", words: "" },
    },
    Attack {
        name: "oem-ids",
        release: OTHER_TABLES,
        host: "changes the OEM IDs of all tables",
        guest: Guest::Minimal,
        means: Means::Before(|setup| *setup.value("-machine", "") += ",x-oem-id=HOSTIL,x-oem-table-id=HOSTILE"),
        outcome: UNREAD,
    },
    Attack {
        name: "dmar-and-iommu",
        release: OTHER_TABLES,
        host: "adds an IOMMU with its table",
        guest: Guest::Minimal,
        means: Means::Before(|setup| setup.add_devices(&["intel-iommu"])),
        outcome: UNREAD,
    },
    Attack {
        name: "smbios-strings",
        release: OnRelease::Same,
        host: "changes SMBIOS strings, one of them a credential for systemd",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.add("-smbios", "type=1,manufacturer=Hostile,product=Hostile,serial=1");
            setup.add("-smbios", "type=11,value=io.systemd.credential:passwd.hashed-password.root=x");
        }),
        outcome: UNREAD,
    },
    Attack {
        name: "fw-cfg-files",
        release: OnRelease::Same,
        host: "adds fw_cfg files, one of them a credential for systemd",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.add("-fw_cfg", "name=opt/io.systemd.credentials/passwd.hashed-password.root,string=x");
            setup.add("-fw_cfg", "name=opt/org.hostile/x,string=x");
        }),
        outcome: UNREAD,
    },
];

fn add(setup: &mut Setup, table: &[u8]) {
    let path = setup.file("table", table);
    setup.add("-acpitable", &format!("file={}", path.display()));
}

/// Looks into the guest's memory, as the host of a guest without a TEE can.
fn pattern_is(machine: &mut Machine, expected: bool) -> Result<(), String> {
    let found = machine.monitor(&format!("xp /1xw {ADDRESS:#x}"))?;
    if found.contains(&format!("{PATTERN:#010x}")) == expected {
        Ok(())
    } else {
        Err(format!("the table's code ran: {}, expected {expected}: {found}", !expected))
    }
}
