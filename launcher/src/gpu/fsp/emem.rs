//! How packets move on Hopper and LS10: a window of the security processor's memory (EMEM) and two queues of pointers.

use std::time::Duration;

use super::super::access::{Function, wait_until};
use super::super::register::read;
use super::FspError;

/// The channel for resets, and the one for tools; 0 is the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Resets = 1,
    Tools = 2,
}

const WINDOW_BYTES: u32 = 1024;
/// Bits of EMEMC: the address moves on with each write, with each read.
const AUTO_INCREMENT: u32 = 1 << 24 | 1 << 25;

impl Channel {
    /// Where the channel's window of 1 KiB starts in EMEM.
    fn window(self) -> u32 {
        self as u32 * WINDOW_BYTES
    }

    fn register(self, first: u32) -> u32 {
        first + 8 * self as u32
    }

    /// Address register of EMEM (EMEMC).
    fn address(self) -> u32 {
        self.register(0x8f_2ac0)
    }

    /// Its data register (EMEMD).
    fn data(self) -> u32 {
        self.register(0x8f_2ac4)
    }

    /// Requests: the head register is also the doorbell.
    fn command_head(self) -> u32 {
        self.register(0x8f_2c00)
    }

    fn command_tail(self) -> u32 {
        self.register(0x8f_2c04)
    }

    /// Responses.
    fn message_head(self) -> u32 {
        self.register(0x8f_2c80)
    }

    fn message_tail(self) -> u32 {
        self.register(0x8f_2c84)
    }
}

const SEND_LIMIT: Duration = Duration::from_secs(1);
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn exchange<F: Function + ?Sized>(
    function: &mut F,
    channel: Channel,
    packet: &[u32],
) -> Result<Vec<u32>, FspError> {
    clear(function, channel)?;
    send(function, channel, packet)?;
    receive(function, channel)
}

/// Takes what an interrupted tool may have left: waits for the answer to its request, then forgets both.
fn clear<F: Function + ?Sized>(function: &mut F, channel: Channel) -> Result<(), FspError> {
    if is_empty(function, channel.command_head())? && is_empty(function, channel.message_head())? {
        return Ok(());
    }
    wait_until(function, RESPONSE_LIMIT, |function| Ok::<_, FspError>(!is_empty(function, channel.message_head())?))?;
    for pointer in [channel.command_tail(), channel.command_head(), channel.message_tail(), channel.message_head()] {
        function.write32(pointer, channel.window())?;
    }
    Ok(())
}

fn send<F: Function + ?Sized>(function: &mut F, channel: Channel, packet: &[u32]) -> Result<(), FspError> {
    if !wait_until(function, SEND_LIMIT, |function| is_empty(function, channel.command_head()))? {
        return Err(FspError::Busy("its request queue does not become empty"));
    }
    function.write32(channel.address(), channel.window() | AUTO_INCREMENT)?;
    for word in packet {
        function.write32(channel.data(), *word)?;
    }
    let last_word = 4 * u32::try_from(packet.len().saturating_sub(1)).unwrap_or(0);
    // The head is the doorbell: the tail must stand before it is written.
    function.write32(channel.command_tail(), channel.window() + last_word)?;
    function.write32(channel.command_head(), channel.window())?;
    Ok(())
}

fn receive<F: Function + ?Sized>(function: &mut F, channel: Channel) -> Result<Vec<u32>, FspError> {
    if !wait_until(function, RESPONSE_LIMIT, |function| {
        Ok::<_, FspError>(!is_empty(function, channel.message_head())?)
    })? {
        return Err(FspError::TimedOut { seconds: RESPONSE_LIMIT.as_secs() });
    }
    let (head, tail) = (read(function, channel.message_head())?, read(function, channel.message_tail())?);
    let window = channel.window()..channel.window() + WINDOW_BYTES;
    if !window.contains(&head) || !window.contains(&tail) || tail < head || (tail - head) % 4 != 0 {
        function.write32(channel.message_tail(), head)?;
        let what = format!("its queue has head {head:#x} and tail {tail:#x}");
        return Err(FspError::Malformed { what, words: String::new() });
    }
    function.write32(channel.address(), head | AUTO_INCREMENT)?;
    let words = (0..(tail - head) / 4 + 1).map(|_| function.read32(channel.data())).collect::<Result<Vec<_>, _>>()?;
    function.write32(channel.message_tail(), head)?;
    Ok(words)
}

/// Whether the queue whose head register is at `head` is empty.
fn is_empty<F: Function + ?Sized>(function: &mut F, head: u32) -> Result<bool, FspError> {
    Ok(read(function, head)? == read(function, head + 4)?)
}
