//! What can be wrong with a device. Each fault is one that was reported of a real one, and has a word by which a test, a
//! program or a person names it while the device is in use.

use std::fmt;
use std::str::FromStr;

/// A fault of a model. It holds until it is taken away, or until the reset that mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The boot register never reads 0xff.
    NeverBoots,
    /// The boot register does not read 0xff before a fundamental reset or a loss of power.
    BootStuck,
    /// BAR 0 reads all ones: the firewall is closed, or the link is down. A bus reset mends it.
    BarClosed,
    /// Blackwell: the firewall of BAR 0 stays up after each reset, and says so in configuration space.
    FirewallStays,
    /// Registers read 0xbadf5108. A bus reset mends it.
    ErrorValues,
    /// PMC_BOOT_0 reads 0xbad00200. A bus reset mends it.
    SecurityFault,
    /// The firmware is in recovery mode. Nothing mends it.
    Recovery,
    /// The security processor takes requests and does not answer. A function-level reset mends it.
    SilentFsp,
    /// It answers every knob read with this error.
    RefusedReads(u32),
    /// The firmware knows no protected PCIe: error 0x1e3.
    OldFirmware,
    /// The undefined high half of a knob's value holds something.
    GarbageHighHalf,
    /// A function-level reset does not make the knobs active.
    FunctionResetKeepsMode,
    /// No reset makes them active.
    EveryResetKeepsMode,
    /// The knob with this number may not be changed in band.
    Forbidden(u8),
    /// A reset lets the kernel put the device to sleep again.
    ResetArmsPowerManagement,
    /// A new size of the memory BAR is taken without a word, and changes nothing.
    ResizeIgnored,
    /// The device does not wake from D3. Finding it again mends it.
    StuckAsleep,
}

/// Faults that are nothing but their name.
const PLAIN: [(&str, Fault); 15] = [
    ("never-boots", Fault::NeverBoots),
    ("boot-stuck", Fault::BootStuck),
    ("bar-closed", Fault::BarClosed),
    ("firewall-stays", Fault::FirewallStays),
    ("error-values", Fault::ErrorValues),
    ("security-fault", Fault::SecurityFault),
    ("recovery", Fault::Recovery),
    ("silent-fsp", Fault::SilentFsp),
    ("old-firmware", Fault::OldFirmware),
    ("garbage-high-half", Fault::GarbageHighHalf),
    ("function-reset-keeps-mode", Fault::FunctionResetKeepsMode),
    ("every-reset-keeps-mode", Fault::EveryResetKeepsMode),
    ("reset-arms-power-management", Fault::ResetArmsPowerManagement),
    ("resize-ignored", Fault::ResizeIgnored),
    ("stuck-asleep", Fault::StuckAsleep),
];

impl Fault {
    /// One of each kind.
    pub fn all() -> Vec<Self> {
        let numbered = [Self::RefusedReads(0x202), Self::Forbidden(8)];
        PLAIN.iter().map(|(_, fault)| *fault).chain(numbered).collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedReads(code) => write!(f, "refused-reads={code:#x}"),
            Self::Forbidden(knob) => write!(f, "forbidden={knob}"),
            plain => f.write_str(PLAIN.iter().find(|(_, fault)| fault == plain).map_or("", |(word, _)| word)),
        }
    }
}

/// A word that names no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFault(String);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = Fault::all().iter().map(Fault::to_string).collect();
        write!(f, "there is no fault \"{}\": there are {}", self.0, words.join(", "))
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    /// Reads a word such as `never-boots`, `refused-reads=0x202` or `forbidden=8` (the number of a knob with a gate).
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownFault(word.to_owned());
        if let Some((_, fault)) = PLAIN.iter().find(|(name, _)| *name == word) {
            return Ok(*fault);
        }
        let (name, value) = word.split_once('=').ok_or_else(unknown)?;
        let number = match value.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => value.parse(),
        };
        match (name, number.map_err(|_| unknown())?) {
            ("refused-reads", code) => Ok(Self::RefusedReads(code)),
            ("forbidden", knob @ (6 | 8 | 10 | 36 | 45 | 47)) => {
                u8::try_from(knob).map(Self::Forbidden).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_word_of_its_own() {
        for fault in Fault::all() {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        assert_eq!("refused-reads=514".parse(), Ok(Fault::RefusedReads(0x202)));
        for bad in ["", "never", "forbidden", "forbidden=7", "refused-reads=x"] {
            assert!(bad.parse::<Fault>().unwrap_err().to_string().contains("stuck-asleep"), "{bad}");
        }
    }
}
