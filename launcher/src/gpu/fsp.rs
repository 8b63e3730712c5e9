//! Messages to and from the security processor: packets, the check of every field of a response, knobs.
//!
//! A packet is an MCTP header, an NVIDIA message header and a payload, all in one piece. How packets move differs
//! between families: `emem` (Hopper and LS10) and `mnoc` (Blackwell).

mod emem;
mod mnoc;

use super::access::{AccessError, Event, Function};
use super::knob::{Knob, Knobs, of_interest};
use super::product::Family;
use super::register::Unwell;

/// MCTP header of a message of one packet: start and end of message (bits 31, 30), sequence number 0.
const SINGLE_PACKET: u32 = 0xc000_0000;
/// Bits of an MCTP header that a response must have like `SINGLE_PACKET`: SOM, EOM, sequence (29:28), version (3:0).
const PACKET_MASK: u32 = 0xf000_000f;
/// Message header without the NVDM type: type 0x7e (vendor defined, PCI), vendor 0x10de.
const NVIDIA_MESSAGE: u32 = 0x0010_de7e;
/// NVDM type of knob requests.
const PRC: u32 = 0x13;
/// NVDM type of responses.
const RESPONSE: u32 = 0x15;
/// A response's words before its data: MCTP header, message header, sequence, the request's NVDM type, error.
const RESPONSE_HEADER: usize = 5;
/// PRC sub-message: read a knob.
const KNOB_READ: u32 = 0xc;
/// PRC sub-message: write a knob.
const KNOB_WRITE: u32 = 0xd;
/// PRC sub-message: couple the next secondary-bus reset, once, to a fundamental one.
const COUPLE_RESET: u32 = 0x4 | 1 << 8 | 1 << 16;
/// Both knob messages work on the persistent value.
const PERSISTENT: u32 = 2 << 8;
/// The error that says that the firmware does not have the knob.
const UNKNOWN_KNOB: u32 = 0x1e3;

/// Why the security processor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum FspError {
    /// The system refused.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The device is not well.
    #[error(transparent)]
    Unwell(#[from] Unwell),
    /// It does not take a request.
    #[error("the security processor takes no request: {0}")]
    Busy(&'static str),
    /// It does not answer.
    #[error("the security processor has not answered within {seconds} s")]
    TimedOut {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The answer is not one.
    #[error("the security processor's answer is malformed: {what} (words: {words})")]
    Malformed {
        /// What is wrong with it.
        what: String,
        /// The answer in hex.
        words: String,
    },
    /// It refused.
    #[error("the security processor answered error {code:#x} to {request}")]
    Refused {
        /// What was asked.
        request: String,
        /// Its error.
        code: u32,
    },
}

/// What an exchange with the security processor is for; decides how long its data must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Read(Knob),
    Write(Knob, u16),
    CoupleReset,
}

impl Request {
    fn packet(self) -> Vec<u32> {
        let head = |message: u32, knob: Knob| message | PERSISTENT | u32::from(knob.0) << 16;
        let mut packet = vec![SINGLE_PACKET, NVIDIA_MESSAGE | PRC << 24];
        match self {
            Self::Read(knob) => packet.push(head(KNOB_READ, knob)),
            Self::Write(knob, value) => packet.extend([head(KNOB_WRITE, knob), u32::from(value)]),
            Self::CoupleReset => packet.push(COUPLE_RESET),
        }
        packet
    }

    fn data_words(self) -> usize {
        usize::from(matches!(self, Self::Read(_)))
    }

    fn describe(self) -> String {
        match self {
            Self::Read(knob) => format!("reading {knob}"),
            Self::Write(knob, value) => format!("writing {value} to {knob}"),
            Self::CoupleReset => "coupling the next reset".to_owned(),
        }
    }
}

/// Reads the knobs that decide the mode. One that the firmware does not know is left out.
pub fn read_knobs<F: Function + ?Sized>(function: &mut F, family: Family) -> Result<Knobs, FspError> {
    let mut knobs = Knobs::new();
    for knob in of_interest(family) {
        if let Some(value) = read_knob(function, family, knob)? {
            knobs.insert(knob, value);
        }
    }
    Ok(knobs)
}

/// Reads a knob; `None` where the firmware does not know it.
pub fn read_knob<F: Function + ?Sized>(function: &mut F, family: Family, knob: Knob) -> Result<Option<u16>, FspError> {
    match exchange(function, family, Request::Read(knob)) {
        // The high half is not defined, and was seen to hold garbage.
        Ok(data) => Ok(data.first().map(|word| (word & 0xffff) as u16)),
        Err(FspError::Refused { code: UNKNOWN_KNOB, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a knob. It is active after the next reset.
pub fn write_knob<F: Function + ?Sized>(
    function: &mut F,
    family: Family,
    knob: Knob,
    value: u16,
) -> Result<(), FspError> {
    exchange(function, family, Request::Write(knob, value)).map(drop)
}

/// Makes the next secondary-bus reset a fundamental one, as a loss of power would be. Hopper's alone; the knob that allows it must be
/// set before (NVIDIA's gpu-admin-tools, `set_next_sbr_to_fundamental_reset`).
pub fn couple_reset<F: Function + ?Sized>(function: &mut F, family: Family) -> Result<(), FspError> {
    exchange(function, family, Request::CoupleReset).map(drop)
}

impl FspError {
    /// The error in a word, for those who count: the security processor's own in hex; none where it was not asked, or answered
    /// that it does not know a knob, which is how old firmware is told.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Access(_) | Self::Unwell(_) | Self::Refused { code: UNKNOWN_KNOB, .. } => None,
            Self::Busy(_) => Some("busy".to_owned()),
            Self::TimedOut { .. } => Some("timeout".to_owned()),
            Self::Malformed { .. } => Some("malformed".to_owned()),
            Self::Refused { code, .. } => Some(format!("{code:#x}")),
        }
    }
}

fn exchange<F: Function + ?Sized>(function: &mut F, family: Family, request: Request) -> Result<Vec<u32>, FspError> {
    let result = ask(function, family, request);
    if let Some(code) = result.as_ref().err().and_then(FspError::code) {
        function.note(&Event::RpcError(code));
    }
    result
}

fn ask<F: Function + ?Sized>(function: &mut F, family: Family, request: Request) -> Result<Vec<u32>, FspError> {
    let packet = request.packet();
    let response = match family {
        Family::Hopper | Family::NvSwitch3 => {
            let is_reset = request == Request::CoupleReset;
            let channel = if is_reset { emem::Channel::Resets } else { emem::Channel::Tools };
            emem::exchange(function, channel, &packet)?
        }
        Family::Blackwell | Family::BlackwellWorkstation => mnoc::exchange(function, &packet)?,
    };
    check(request, &response)
}

/// Checks a response and gives its data.
fn check(request: Request, response: &[u32]) -> Result<Vec<u32>, FspError> {
    let malformed = |what: String| FspError::Malformed {
        what,
        words: response.iter().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(" "),
    };
    let Some(([mctp, message, _sequence, answered, error], data)) = response.split_first_chunk::<RESPONSE_HEADER>()
    else {
        return Err(malformed(format!("{} words, expected at least {RESPONSE_HEADER}", response.len())));
    };
    if mctp & PACKET_MASK != SINGLE_PACKET {
        return Err(malformed(format!("MCTP header {mctp:#x} is not that of a single packet")));
    }
    if *message != NVIDIA_MESSAGE | RESPONSE << 24 {
        return Err(malformed(format!("message header {message:#x} is not that of a response")));
    }
    if *answered != PRC {
        return Err(malformed(format!("it answers a request of type {answered:#x}, not {PRC:#x}")));
    }
    if *error != 0 {
        return Err(FspError::Refused { request: request.describe(), code: *error });
    }
    if data.len() != request.data_words() {
        return Err(malformed(format!("{} words of data, expected {}", data.len(), request.data_words())));
    }
    Ok(data.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Packets and the refusal as captured from real devices (gpu-admin-tools, its issue 13).
    #[test]
    fn packets_are_those_of_the_vendors_tool() {
        assert_eq!(Request::Read(Knob::CONFIDENTIAL).packet(), [0xc000_0000, 0x1310_de7e, 0x0008_020c]);
        assert_eq!(Request::Write(Knob::CONFIDENTIAL, 1).packet(), [0xc000_0000, 0x1310_de7e, 0x0008_020d, 1]);
        assert_eq!(Request::Read(Knob::PROTECTED_PCIE).packet()[2], 0x002d_020c);
        assert_eq!(Request::CoupleReset.packet(), [0xc000_0000, 0x1310_de7e, 0x0001_0104]);
    }

    #[test]
    fn a_captured_refusal_is_read() {
        let refusal = [0xc000_0000, 0x1510_de7e, 3, 0x13, 0x202];
        let error = check(Request::Read(Knob::CONFIDENTIAL), &refusal).unwrap_err();
        assert_eq!(error.to_string(), "the security processor answered error 0x202 to reading CCM");
    }

    #[test]
    fn every_field_of_a_response_is_checked() {
        let good = [0xc000_0000, 0x1510_de7e, 3, 0x13, 0, 0xdead_0001];
        let read = Request::Read(Knob::CONFIDENTIAL);
        assert_eq!(check(read, &good).unwrap(), [0xdead_0001]);
        for (word, value) in [(0, 0x8000_0000), (1, 0x1310_de7e), (3, 0x14)] {
            let mut bad = good;
            bad[word] = value;
            assert!(matches!(check(read, &bad), Err(FspError::Malformed { .. })), "word {word}");
        }
        assert!(check(read, &good[..5]).is_err(), "no data");
        assert!(check(Request::Write(Knob::CONFIDENTIAL, 1), &good).is_err(), "data where none belongs");
    }

    proptest! {
        #[test]
        fn any_response_is_data_or_an_error(words in proptest::collection::vec(any::<u32>(), 0..12)) {
            let _ = check(Request::Read(Knob::CONFIDENTIAL), &words);
        }
    }
}
