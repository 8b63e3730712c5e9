//! How packets move on Hopper and LS10: a window of the security processor's memory (EMEM) and two queues of pointers.

use std::time::Duration;

use super::super::access::{Function, wait_until};
use super::super::register::read;
use super::FspError;

/// The channel for tools; 0 is the driver's, 1 is for resets.
const CHANNEL: u32 = 2;
/// Where the channel's window of 1 KiB starts in EMEM.
const WINDOW: u32 = CHANNEL * WINDOW_BYTES;
const WINDOW_BYTES: u32 = 1024;
/// Address register of EMEM, then its data register.
const EMEMC: u32 = 0x8f_2ac0 + 8 * CHANNEL;
const EMEMD: u32 = EMEMC + 4;
/// Bits of EMEMC: the address moves on with each write, with each read.
const AUTO_INCREMENT: u32 = 1 << 24 | 1 << 25;
/// Requests: the head register is also the doorbell.
const COMMAND_HEAD: u32 = 0x8f_2c00 + 8 * CHANNEL;
const COMMAND_TAIL: u32 = COMMAND_HEAD + 4;
/// Responses.
const MESSAGE_HEAD: u32 = 0x8f_2c80 + 8 * CHANNEL;
const MESSAGE_TAIL: u32 = MESSAGE_HEAD + 4;

const SEND_LIMIT: Duration = Duration::from_secs(1);
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn exchange<F: Function + ?Sized>(function: &mut F, packet: &[u32]) -> Result<Vec<u32>, FspError> {
    clear(function)?;
    send(function, packet)?;
    receive(function)
}

/// Takes what an interrupted tool may have left: waits for the answer to its request, then forgets both.
fn clear<F: Function + ?Sized>(function: &mut F) -> Result<(), FspError> {
    if is_empty(function, COMMAND_HEAD)? && is_empty(function, MESSAGE_HEAD)? {
        return Ok(());
    }
    wait_until(function, RESPONSE_LIMIT, |function| Ok::<_, FspError>(!is_empty(function, MESSAGE_HEAD)?))?;
    for pointer in [COMMAND_TAIL, COMMAND_HEAD, MESSAGE_TAIL, MESSAGE_HEAD] {
        function.write32(pointer, WINDOW)?;
    }
    Ok(())
}

fn send<F: Function + ?Sized>(function: &mut F, packet: &[u32]) -> Result<(), FspError> {
    if !wait_until(function, SEND_LIMIT, |function| is_empty(function, COMMAND_HEAD))? {
        return Err(FspError::Busy("its request queue does not become empty"));
    }
    function.write32(EMEMC, WINDOW | AUTO_INCREMENT)?;
    for word in packet {
        function.write32(EMEMD, *word)?;
    }
    let last_word = 4 * u32::try_from(packet.len().saturating_sub(1)).unwrap_or(0);
    // The head is the doorbell: the tail must stand before it is written.
    function.write32(COMMAND_TAIL, WINDOW + last_word)?;
    function.write32(COMMAND_HEAD, WINDOW)?;
    Ok(())
}

fn receive<F: Function + ?Sized>(function: &mut F) -> Result<Vec<u32>, FspError> {
    if !wait_until(function, RESPONSE_LIMIT, |function| Ok::<_, FspError>(!is_empty(function, MESSAGE_HEAD)?))? {
        return Err(FspError::TimedOut { seconds: RESPONSE_LIMIT.as_secs() });
    }
    let (head, tail) = (read(function, MESSAGE_HEAD)?, read(function, MESSAGE_TAIL)?);
    let window = WINDOW..WINDOW + WINDOW_BYTES;
    if !window.contains(&head) || !window.contains(&tail) || tail < head || (tail - head) % 4 != 0 {
        function.write32(MESSAGE_TAIL, head)?;
        let what = format!("its queue has head {head:#x} and tail {tail:#x}");
        return Err(FspError::Malformed { what, words: String::new() });
    }
    function.write32(EMEMC, head | AUTO_INCREMENT)?;
    let words = (0..(tail - head) / 4 + 1).map(|_| function.read32(EMEMD)).collect::<Result<Vec<_>, _>>()?;
    function.write32(MESSAGE_TAIL, head)?;
    Ok(words)
}

/// Whether the queue whose head register is at `head` is empty.
fn is_empty<F: Function + ?Sized>(function: &mut F, head: u32) -> Result<bool, FspError> {
    Ok(read(function, head)? == read(function, head + 4)?)
}
