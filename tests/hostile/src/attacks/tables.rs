//! ACPI and SMBIOS tables and fw_cfg files: written by the host, read by firmware and kernel.
//!
//! The stock kernel runs whatever code is in a table; that of a release admits only tables that its command line names.

use serde_json::json;

use crate::acpi::{ADDRESS, PATTERN, code_that_writes, find, table, table_that_writes, with_length_and_sum};
use crate::attack::{Attack, By, Means, OTHER_TABLES, OnRelease, Outcome};
use crate::guests::Guest;
use crate::machine::{Machine, State};
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
        name: "another-dsdt",
        release: OnRelease::Other(Outcome::Stopped { by: By::Kernel, words: "bullion: ACPI tables refused: " }),
        host: "puts another DSDT in the place of the machine's: the same with such code behind it",
        guest: Guest::Minimal,
        means: Means::OnceReady(replace_dsdt, |machine| pattern_is(machine, true)),
        outcome: Outcome::NotNoticed { but: "the same as of an SSDT" },
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

/// Where the other DSDT is: memory that the kernel leaves alone as it does `ADDRESS`, and that firmware does not use either.
const DSDT_ADDRESS: u32 = 0x8000;

/// Linux takes the last FADT there is, and the DSDT that it names (ACPI 6.5, 5.2.9: X_DSDT at byte 140 comes before DSDT at 40).
fn replace_dsdt(setup: &mut Setup) {
    let mut machine = Machine::start(setup.twin());
    assert_eq!(machine.wait_for_start(), State::Ready, "{}", machine.console());
    let memory = machine.setup().path("memory");
    // Firmware puts tables at the end of memory.
    machine.qmp("pmemsave", &json!({ "val": 496 << 20, "size": 16 << 20, "filename": memory })).unwrap();
    let memory = std::fs::read(memory).unwrap();
    let dsdt = [find(&memory, *b"DSDT").unwrap(), &code_that_writes()].concat();
    let dsdt = setup.file("dsdt", &with_length_and_sum(dsdt));
    setup.add_devices(&[&format!("loader,file={},addr={DSDT_ADDRESS:#x},force-raw=on", dsdt.display())]);
    let mut fadt = find(&memory, *b"FACP").unwrap().to_vec();
    fadt[40..44].copy_from_slice(&DSDT_ADDRESS.to_le_bytes());
    fadt[140..148].copy_from_slice(&u64::from(DSDT_ADDRESS).to_le_bytes());
    add(setup, &with_length_and_sum(fadt));
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
