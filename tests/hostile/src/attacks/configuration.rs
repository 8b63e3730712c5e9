//! The disk with the `[guest]` configuration. There is no TEE here, so nothing but its form is refused; in one, the guest holds
//! it against its report (`guest` `host_data_decides_under_snp`).

use spec::guest_config::GuestConfig;

use crate::attack::{Attack, By, Means, OnRelease, Outcome};
use crate::guests::Guest;
use crate::machine::Machine;
use crate::setup::Setup;

const fn stopped(name: &'static str, host: &'static str, words: &'static str, change: fn(&mut Setup)) -> Attack {
    let outcome = Outcome::Stopped { by: By::Guest, words };
    Attack { name, host, release: OnRelease::Untried, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "another-configuration",
        release: OnRelease::Untried,
        host: "gives another configuration",
        guest: Guest::Minimal,
        means: Means::Before(|setup| put(setup, b"{\"hostname\":\"another\"}")),
        outcome: Outcome::Shows { what: "its digest in the guest's identity; in a TEE the guest refuses it" },
    },
    Attack {
        name: "no-configuration",
        release: OnRelease::Untried,
        host: "gives no configuration",
        guest: Guest::Minimal,
        means: Means::Before(|setup| setup.replace("-device", "serial=bullion-config", "serial=bullion-nothing")),
        outcome: Outcome::Shows { what: "its absence in the guest's identity; in a TEE the guest refuses it" },
    },
    stopped(
        "two-configurations",
        "gives two disks with the name of the configuration's",
        "all have the serial number \"bullion-config\"",
        |setup| {
            let path = setup.configuration().display().to_string();
            setup.add("-blockdev", &format!("driver=file,node-name=twin,filename={path},read-only=on"));
            setup.add_devices(&["virtio-blk-pci,drive=twin,serial=bullion-config"]);
        },
    ),
    Attack {
        name: "another-at-each-read",
        release: OnRelease::Untried,
        host: "gives another configuration each time that it is read",
        guest: Guest::Minimal,
        means: Means::OnceReady(
            |setup| {
                let mut reads = 0;
                setup.serve_configuration(Box::new(move |_, data| {
                    reads += 1;
                    let other = disk(format!("{{\"hostname\":\"read-{reads}\"}}").as_bytes());
                    data.iter_mut().zip(other).for_each(|(slot, byte)| *slot = byte);
                    Ok(())
                }));
            },
            hashes_what_it_uses,
        ),
        outcome: Outcome::Shows { what: "the digest of the very bytes that it uses; in a TEE the guest refuses them" },
    },
    stopped("unknown-key", "a configuration with an unknown key", "unknown field `trust`", |setup| {
        put(setup, b"{\"hostname\":\"hostile\",\"trust\":\"host\"}");
    }),
    stopped("duplicate-key", "a configuration with a key twice", "duplicate field `hostname`", |setup| {
        put(setup, b"{\"hostname\":\"a\",\"hostname\":\"hostile\"}");
    }),
    stopped("not-canonical", "a configuration with a space in it", "it is not in canonical form", |setup| {
        put(setup, b"{\"hostname\": \"hostile\"}");
    }),
    stopped("host-name", "a host name with control characters", "is not a host name", |setup| {
        put(setup, b"{\"hostname\":\"a\\u001b[2J\"}");
    }),
    stopped(
        "oversized",
        "a configuration larger than any may be",
        "the configuration disk says it holds 1048577 bytes",
        |setup| {
            put(setup, &vec![b' '; (1 << 20) + 1]);
        },
    ),
    stopped(
        "lying-length",
        "a length that its disk does not have",
        "the configuration disk says it holds 65536 bytes",
        |setup| {
            let mut bytes = disk(b"{}");
            bytes[8..16].copy_from_slice(&65536_u64.to_le_bytes());
            setup.file("configuration", &bytes);
        },
    ),
    stopped("endless-disk", "64 MiB of garbage", "the configuration disk does not start with \"BULLIONC\"", |setup| {
        setup.file("configuration", &vec![0xa5; 64 << 20]);
    }),
    stopped("deep-nesting", "a configuration that is nested without end", "invalid type: sequence", |setup| {
        put(setup, &[b"{\"environment\":".as_slice(), &vec![b'['; 100_000]].concat());
    }),
];

/// The digest that the guest tells is that of a configuration with the host name that it has.
fn hashes_what_it_uses(machine: &mut Machine) -> Result<(), String> {
    let identity = machine.identity()?;
    let config = GuestConfig { hostname: Some(identity.hostname.clone()), ..GuestConfig::default() };
    let digest = config.host_data().map_err(|error| error.to_string())?;
    if identity.configuration.digest == Some(digest) { Ok(()) } else { Err(format!("{identity:?}")) }
}

/// Puts this JSON on the configuration's disk.
fn put(setup: &mut Setup, json: &[u8]) {
    setup.file("configuration", &disk(json));
}

/// The disk's form (`spec/src/guest_config.rs`), whatever is in it.
fn disk(json: &[u8]) -> Vec<u8> {
    let mut disk = [b"BULLIONC".as_slice(), &(json.len() as u64).to_le_bytes(), json].concat();
    disk.resize(disk.len().next_multiple_of(4096), 0);
    disk
}
