//! What can be wrong with a device. Each fault is one that was reported of a real one.

/// A fault of a model. It holds until it is taken away, or until the reset that mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The boot register never reads 0xff.
    NeverBoots,
    /// BAR 0 reads all ones: the firewall is closed, or the link is down. A bus reset mends it.
    BarClosed,
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
    /// The device does not wake from D3. Finding it again mends it.
    StuckAsleep,
}
