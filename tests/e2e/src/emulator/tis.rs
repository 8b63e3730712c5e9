//! PCRs of a TPM of version 1.2, read through the registers of its first locality (TCG PC Client Specific TPM Interface
//! Specification 1.3, section 5.5) while the machine stands still.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const ACCESS: u32 = 0xfed4_0000;
const STATUS: u32 = 0xfed4_0018;
const FIFO: u32 = 0xfed4_0024;

const REQUEST_USE: u8 = 0x02;
const ACTIVE_LOCALITY: u8 = 0x20;
const COMMAND_READY: u8 = 0x40;
const GO: u8 = 0x20;
const DATA_AVAILABLE: u8 = 0x10;

/// PCR 0 to 23; `qtest` carries out one command and gives the number it answers, as hex.
pub(super) fn pcrs(qtest: &mut dyn FnMut(&str) -> String) -> BTreeMap<u32, String> {
    qtest(&format!("writeb {ACCESS:#x} {REQUEST_USE:#x}"));
    wait(qtest, ACCESS, ACTIVE_LOCALITY);
    (0..24_u32)
        .map(|number| {
            // TPM_ORD_PcrRead.
            let mut command = vec![0, 0xc1, 0, 0, 0, 14, 0, 0, 0, 0x15];
            command.extend(number.to_be_bytes());
            let reply = ask(qtest, &command);
            assert_eq!(reply[6..10], [0; 4], "TPM_PCRRead: {reply:x?}");
            (number, measure::digest::encode_hex(&reply[10..]))
        })
        .collect()
}

fn ask(qtest: &mut dyn FnMut(&str) -> String, command: &[u8]) -> Vec<u8> {
    qtest(&format!("writeb {STATUS:#x} {COMMAND_READY:#x}"));
    wait(qtest, STATUS, COMMAND_READY);
    for byte in command {
        qtest(&format!("writeb {FIFO:#x} {byte:#x}"));
    }
    qtest(&format!("writeb {STATUS:#x} {GO:#x}"));
    let mut reply = Vec::new();
    wait(qtest, STATUS, DATA_AVAILABLE);
    while reply.len() < 10 || reply.len() < usize::from(reply[5]) {
        reply.push(byte(qtest, FIFO));
    }
    reply
}

fn byte(qtest: &mut dyn FnMut(&str) -> String, register: u32) -> u8 {
    u8::try_from(u64::from_str_radix(&qtest(&format!("readb {register:#x}")), 16).unwrap() & 0xff).unwrap()
}

fn wait(qtest: &mut dyn FnMut(&str) -> String, register: u32, bit: u8) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while byte(qtest, register) & bit == 0 {
        assert!(Instant::now() < deadline, "the TPM does not answer");
        std::thread::sleep(Duration::from_millis(2));
    }
}
