//! How packets move on Blackwell: a mailbox (MNOC port 0) with one pair of registers in each direction.

use std::time::Duration;

use super::super::access::{Function, wait_until};
use super::super::register::read;
use super::FspError;

/// To the security processor: state, then data.
const SEND_INFO: u32 = 0x8f_1f84;
const SEND_DATA: u32 = 0x8f_1f88;
/// From it.
const RECEIVE_INFO: u32 = 0x8f_1f04;
const RECEIVE_DATA: u32 = 0x8f_1f08;
/// Bits of the state: the size in bytes, then flags.
const SIZE: u32 = (1 << 20) - 1;
const TRIGGER: u32 = 1 << 20;
const READY: u32 = 1 << 24;
const ERROR: u32 = 1 << 25;
const CREDIT: u32 = 1 << 26;
/// How many words go with one credit.
const BLOCK_WORDS: usize = 16;
/// No answer is longer.
const MAX_RESPONSE_BYTES: u32 = 1024;

const READY_LIMIT: Duration = Duration::from_secs(5);
const CREDIT_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn exchange<F: Function + ?Sized>(function: &mut F, packet: &[u32]) -> Result<Vec<u32>, FspError> {
    send(function, packet)?;
    receive(function)
}

fn send<F: Function + ?Sized>(function: &mut F, packet: &[u32]) -> Result<(), FspError> {
    if !wait_for(function, SEND_INFO, READY, READY_LIMIT)? {
        return Err(FspError::Busy("its mailbox is not ready"));
    }
    function.write32(SEND_INFO, u32::try_from(packet.len() * 4).unwrap_or(SIZE) | TRIGGER)?;
    for block in packet.chunks(BLOCK_WORDS) {
        if !wait_for(function, SEND_INFO, CREDIT, CREDIT_LIMIT)? {
            return Err(FspError::Busy("its mailbox gives no credit"));
        }
        for word in block {
            function.write32(SEND_DATA, *word)?;
        }
    }
    refuse_error(function, SEND_INFO)
}

fn receive<F: Function + ?Sized>(function: &mut F) -> Result<Vec<u32>, FspError> {
    if !wait_for(function, RECEIVE_INFO, READY, READY_LIMIT)? {
        return Err(FspError::TimedOut { seconds: READY_LIMIT.as_secs() });
    }
    let bytes = read(function, RECEIVE_INFO)? & SIZE;
    if !bytes.is_multiple_of(4) || bytes > MAX_RESPONSE_BYTES {
        let what = format!("its size is {bytes} bytes");
        return Err(FspError::Malformed { what, words: String::new() });
    }
    let words = (0..bytes / 4).map(|_| function.read32(RECEIVE_DATA)).collect::<Result<Vec<_>, _>>()?;
    refuse_error(function, RECEIVE_INFO)?;
    Ok(words)
}

fn wait_for<F: Function + ?Sized>(function: &mut F, info: u32, bit: u32, limit: Duration) -> Result<bool, FspError> {
    wait_until(function, limit, |function| Ok(read(function, info)? & bit != 0))
}

fn refuse_error<F: Function + ?Sized>(function: &mut F, info: u32) -> Result<(), FspError> {
    if read(function, info)? & ERROR == 0 {
        return Ok(());
    }
    Err(FspError::Malformed { what: "its mailbox reports an error".to_owned(), words: String::new() })
}
