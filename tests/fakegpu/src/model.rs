//! The device. Its clock is its own: time passes when it is told so.

pub mod config;
mod emem;
mod fsp;
mod mnoc;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::fault::Fault;
use config::Config;
use emem::Emem;
use mnoc::Mnoc;

/// Which chip it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// H100 or H200.
    Gh100,
    /// The NVSwitch of HGX H100 and H200.
    Ls10,
    /// B200 or B300.
    Gb100,
    /// RTX PRO 6000.
    Gb202,
}

/// How it can be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It was without power.
    Power,
    /// Function-level reset.
    Function,
    /// Secondary-bus reset.
    Bus,
    /// Bus reset, removed, and found again.
    Reenumerate,
    /// A secondary-bus reset that was coupled to a fundamental one.
    Fundamental,
}

/// How long the firmware boots after a reset.
const BOOT_TIME: Duration = Duration::from_millis(900);
/// How long Blackwell's BAR 0 is closed after a reset.
const FIREWALL_TIME: Duration = Duration::from_millis(200);
/// How long the security processor takes to answer.
const FSP_TIME: Duration = Duration::from_micros(400);

/// The device.
#[derive(Debug)]
pub struct Model {
    chip: Chip,
    device_id: u16,
    subsystem_id: u16,
    serial: u64,
    /// How large the memory BAR is, where it is not of true size.
    memory_bar: Option<u64>,
    /// How large it was made since the device had power.
    resized_bar: Option<u64>,
    config: Config,
    clock: Duration,
    booted_at: Duration,
    awake: bool,
    d3hot: bool,
    power_pinned: bool,
    session: bool,
    /// The next secondary-bus reset is a fundamental one.
    coupled: bool,
    /// The confidential-mode bits that are active: as in the mode register.
    active: u32,
    /// What the security processor keeps, by knob number.
    pub knobs: BTreeMap<u8, u16>,
    /// What is wrong.
    pub faults: BTreeSet<FaultKey>,
    /// Every reset since it was made.
    pub resets: Vec<Reset>,
    /// How long it was itself at work: booting, and answering requests.
    pub busy: Duration,
    /// Every size that was asked for of its memory BAR, as the exponent of a power of two MiB.
    pub sizes_asked: Vec<u8>,
    /// Combinations of knobs that must never be, and were.
    pub violations: Vec<String>,
    emem: Emem,
    mnoc: Mnoc,
}

/// A fault, ordered so that a set of them can be printed and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultKey(pub Fault);

impl Ord for FaultKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        format!("{:?}", self.0).cmp(&format!("{:?}", other.0))
    }
}

impl PartialOrd for FaultKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Model {
    /// A device that was just powered on and has booted, in mode `off`.
    pub fn new(chip: Chip, device_id: u16) -> Self {
        let mut knobs: BTreeMap<u8, u16> = match chip {
            Chip::Gh100 => [2, 4, 6, 8, 10, 34, 36, 45, 47].map(|knob| (knob, 0)).into(),
            Chip::Ls10 => [2, 4, 34, 36, 45].map(|knob| (knob, 0)).into(),
            Chip::Gb100 | Chip::Gb202 => [2, 4, 6, 8, 36].map(|knob| (knob, 0)).into(),
        };
        let gates: Vec<u8> =
            knobs.keys().filter(|knob| [6, 8, 10, 36, 45, 47].contains(*knob)).map(|knob| knob - 1).collect();
        knobs.extend(gates.into_iter().map(|gate| (gate, 1)));
        Self {
            chip,
            device_id,
            subsystem_id: config::SUBSYSTEM,
            serial: Self::whole(device_id, 0x17),
            memory_bar: None,
            resized_bar: None,
            config: Config::new(chip, device_id, config::SUBSYSTEM),
            clock: BOOT_TIME,
            booted_at: BOOT_TIME,
            awake: true,
            d3hot: false,
            power_pinned: false,
            session: false,
            coupled: false,
            active: 0,
            knobs,
            faults: BTreeSet::new(),
            resets: Vec::new(),
            busy: Duration::ZERO,
            sizes_asked: Vec::new(),
            violations: Vec::new(),
            emem: Emem::default(),
            mnoc: Mnoc::default(),
        }
    }

    /// The same chip on another board.
    pub fn with_subsystem(self, subsystem_id: u16) -> Self {
        Self { subsystem_id, config: Config::new(self.chip, self.device_id, subsystem_id), ..self }
    }

    /// The same device with another serial number.
    pub fn with_serial(self, serial: u32) -> Self {
        let serial = Self::whole(self.device_id, serial);
        self.with_whole_serial(serial)
    }

    /// The same device with a serial number that was seen.
    pub fn with_whole_serial(self, serial: u64) -> Self {
        Self { serial, ..self }
    }

    fn whole(device_id: u16, serial: u32) -> u64 {
        0x4800_0000 << 32 | u64::from(device_id) << 12 | u64::from(serial)
    }

    /// The same device with a BAR 2 of this size, a power of two: where an emulated IOMMU maps it page by page, the true size takes an hour.
    pub fn with_memory_bar(self, bytes: u64) -> Self {
        Self { memory_bar: Some(bytes), ..self }
    }

    /// Its BARs.
    pub fn bars(&self) -> Vec<config::Bar> {
        let memory = self.resized_bar.or(self.memory_bar);
        let size = |(index, size): &config::Bar| (*index, memory.filter(|_| *index == 2).unwrap_or(*size));
        config::bars(self.chip, self.device_id).iter().map(size).collect()
    }

    /// The number that tells it from others of its kind.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Which chip it is.
    pub fn chip(&self) -> Chip {
        self.chip
    }

    /// PCI device number.
    pub fn device_id(&self) -> u16 {
        self.device_id
    }

    /// PCI subsystem number.
    pub fn subsystem_id(&self) -> u16 {
        self.subsystem_id
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        self.clock += time;
    }

    /// What time it is.
    pub fn now(&self) -> Duration {
        self.clock
    }

    /// The confidential-mode bits that are active.
    pub fn active(&self) -> u32 {
        self.active
    }

    /// Sets the active bits, as an interrupted tool may have left them.
    pub fn set_active(&mut self, bits: u32) {
        self.active = bits;
    }

    /// Whether a secure session is open that a new driver cannot take over.
    pub fn has_session(&self) -> bool {
        self.session
    }

    /// A guest's driver opens its session; killing the VM leaves it.
    pub fn open_session(&mut self) {
        self.session = true;
    }

    /// A tool is interrupted between its two writes: development tools without confidential computing.
    pub fn leave_invalid_mode(&mut self) {
        if self.knobs.contains_key(&6) {
            self.active = 2;
            self.knobs.insert(6, 1);
        }
    }

    /// Leaves a request without an answer behind, as a killed tool does.
    pub fn leave_stale_request(&mut self) {
        self.emem.leave_stale_request();
    }

    /// Puts it to sleep, as the kernel does with idle devices that are not pinned.
    pub fn idle(&mut self) {
        if !self.power_pinned {
            self.awake = false;
        }
    }

    /// The kernel puts it into D3hot, or takes it out of it.
    fn set_d3hot(&mut self, asleep: bool) {
        self.d3hot = asleep;
        self.awake |= !asleep && !self.has(Fault::StuckAsleep);
    }

    /// Whether the kernel may put it to sleep.
    pub fn is_power_pinned(&self) -> bool {
        self.power_pinned
    }

    /// The kernel is told to keep it awake.
    pub fn pin_power(&mut self) {
        self.power_pinned = true;
        self.d3hot = false;
        self.awake |= !self.has(Fault::StuckAsleep);
    }

    /// Whether it has a fault.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&FaultKey(fault))
    }

    /// Adds a fault.
    pub fn break_with(&mut self, fault: Fault) {
        if let Fault::Forbidden(knob) = fault {
            self.knobs.insert(knob - 1, 0);
        }
        if fault == Fault::StuckAsleep {
            self.awake = false;
        }
        self.faults.insert(FaultKey(fault));
    }

    /// Takes all faults away.
    pub fn mend(&mut self) {
        for key in self.faults.clone() {
            self.take_away(key.0);
        }
        self.awake = true;
    }

    /// Takes one fault away.
    pub fn take_away(&mut self, fault: Fault) {
        if !self.faults.remove(&FaultKey(fault)) {
            return;
        }
        match fault {
            Fault::Forbidden(knob) => drop(self.knobs.insert(knob - 1, 1)),
            Fault::StuckAsleep => self.awake = true,
            _ => {}
        }
    }

    fn mend_one(&mut self, faults: &[Fault]) {
        for fault in faults {
            self.faults.remove(&FaultKey(*fault));
        }
    }

    /// Resets it.
    pub fn reset(&mut self, kind: Reset) {
        let is_fundamental = kind == Reset::Bus && std::mem::take(&mut self.coupled);
        let kind = if is_fundamental { Reset::Fundamental } else { kind };
        self.resets.push(kind);
        if matches!(kind, Reset::Fundamental | Reset::Power) {
            self.coupled = false;
            self.mend_one(&[Fault::BootStuck]);
        }
        if matches!(kind, Reset::Reenumerate | Reset::Power) {
            self.mend_one(&[Fault::StuckAsleep]);
            self.awake = true;
            // What the kernel knew of it is gone too. In other resets it is the kernel that keeps the size.
            self.resized_bar = None;
        }
        self.d3hot &= kind == Reset::Function;
        if !self.awake {
            return;
        }
        self.mend_one(&[Fault::SilentFsp]);
        if kind != Reset::Function {
            self.session = false;
            self.mend_one(&[Fault::BarClosed, Fault::ErrorValues, Fault::SecurityFault]);
        }
        // Whoever resets it restores what was there.
        self.config = Config::new(self.chip, self.device_id, self.subsystem_id);
        let keeps = self.has(Fault::EveryResetKeepsMode) && !matches!(kind, Reset::Power | Reset::Fundamental)
            || self.has(Fault::FunctionResetKeepsMode) && kind == Reset::Function;
        if !keeps {
            self.active = self.pending();
        }
        if self.has(Fault::ResetArmsPowerManagement) || kind == Reset::Reenumerate {
            self.power_pinned = false;
        }
        self.booted_at = self.clock + BOOT_TIME;
        self.busy += BOOT_TIME;
        self.emem = Emem::default();
        self.mnoc = Mnoc::default();
    }

    /// The mode bits that the knobs ask for.
    fn pending(&self) -> u32 {
        let is_set = |knob: u8| u32::from(self.knobs.get(&knob).is_some_and(|value| *value != 0));
        match self.chip {
            Chip::Ls10 => is_set(45),
            Chip::Gh100 if is_set(45) == 1 => 0x20,
            Chip::Gh100 | Chip::Gb100 | Chip::Gb202 => is_set(8) | is_set(6) << 1,
        }
    }

    /// Whether BAR 0 is open.
    fn answers(&self) -> bool {
        self.awake && !self.d3hot && !self.has(Fault::BarClosed) && !self.firewall_is_up()
    }

    /// A read of BAR 0.
    pub fn bar0_read(&mut self, offset: u32) -> u32 {
        if !self.answers() {
            return u32::MAX;
        }
        if self.has(Fault::SecurityFault) {
            return if offset == 0 { 0xbad0_0200 } else { 0xbadf_5108 };
        }
        if self.has(Fault::ErrorValues) {
            return 0xbadf_5108;
        }
        if let Some(value) = self.emem_read(offset).or_else(|| self.mnoc_read(offset)) {
            return value;
        }
        let recovery = self.has(Fault::Recovery);
        match (self.chip, offset) {
            (Chip::Gh100, 0) => {
                if recovery {
                    0
                } else {
                    0x1800_00a1
                }
            }
            (Chip::Ls10, 0) => 0x0070_00a1,
            (Chip::Gb100, 0) => 0x1a00_00a1,
            (Chip::Gb202, 0) => 0x1b20_00a1,
            (Chip::Gh100, 0x2_0120) | (Chip::Ls10, 0x6_6120) => u32::from(recovery) << 30,
            (Chip::Gb100 | Chip::Gb202, 0x8a_a128) => {
                if recovery {
                    2
                } else {
                    1
                }
            }
            (Chip::Gh100 | Chip::Gb100, 0x20_00bc) | (Chip::Gb202, 0xad_00bc) | (Chip::Ls10, 0x6_60bc) => {
                let booted = self.clock >= self.booted_at
                    && !recovery
                    && !self.has(Fault::NeverBoots)
                    && !self.has(Fault::BootStuck);
                if booted { 0xff } else { 0x11 }
            }
            // Bits that are not the mode's are set too: a reader that does not mask them is wrong.
            (Chip::Gh100, 0x11_82cc) => self.active | 0x100,
            (Chip::Gb100 | Chip::Gb202, 0x590) => self.active | 0x40,
            (Chip::Ls10, 0x2_8c50) => self.active | 0x10,
            (_, 0x82_0344) => (self.serial() & 0xffff_ffff) as u32,
            (_, 0x82_0348) => (self.serial() >> 32) as u32,
            _ => 0,
        }
    }

    /// A write to BAR 0.
    pub fn bar0_write(&mut self, offset: u32, value: u32) {
        if !self.answers() {
            return;
        }
        if !self.emem_write(offset, value) {
            self.mnoc_write(offset, value);
        }
    }

    fn note_violations(&mut self) {
        let value = |knob: u8| self.knobs.get(&knob).copied().unwrap_or(0);
        let (devtools, confidential, protected) = (value(6), value(8), value(45));
        if devtools != 0 && confidential == 0 {
            self.violations.push("CCD without CCM".to_owned());
        }
        if protected != 0 && confidential != 0 {
            self.violations.push("PPCIE with CCM".to_owned());
        }
    }
}
