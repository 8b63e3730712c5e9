//! Which devices these are: product numbers, the family that decides the register layout, and what the family can do.

use std::fmt;
use std::time::Duration;

/// NVIDIA's PCI vendor number.
pub const NVIDIA: u16 = 0x10de;
/// PCI class and subclass of a GPU: VGA controller, 3D controller.
pub const GPU_CLASSES: [u16; 2] = [0x0300, 0x0302];
/// PCI class and subclass of an NVSwitch: bridge, other. Compared whole: 0x0604 is a PCI bridge.
pub const NVSWITCH_CLASS: u16 = 0x0680;

/// Devices with one register layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// GH100: H100, H200, H800, H20.
    Hopper,
    /// GB100, GB102, GB110, GB112: B200, B300.
    Blackwell,
    /// GB202 to GB207: RTX PRO.
    BlackwellWorkstation,
    /// LS10: the NVSwitch of HGX H100 and H200.
    NvSwitch3,
}

/// Where a family's firmware says that it has booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootRegister {
    /// The register; it reads 0xff when done.
    pub offset: u32,
    /// How long a boot may take.
    pub limit: Duration,
}

impl Family {
    /// Where the firmware says that it has booted.
    pub fn boot_register(self) -> BootRegister {
        let (offset, seconds) = match self {
            Self::Hopper => (0x20_00bc, 5),
            Self::Blackwell => (0x20_00bc, 10),
            Self::BlackwellWorkstation => (0xad_00bc, 10),
            Self::NvSwitch3 => (0x6_60bc, 5),
        };
        BootRegister { offset, limit: Duration::from_secs(seconds) }
    }

    /// Whether it is a switch, which has no mode of its own but takes part in protected PCIe.
    pub fn is_switch(self) -> bool {
        self == Self::NvSwitch3
    }

    /// Whether protected PCIe exists for it: Hopper's way to several GPUs in one VM.
    pub fn has_protected_pcie(self) -> bool {
        matches!(self, Self::Hopper | Self::NvSwitch3)
    }

    /// Whether BAR 0 can be decoupled, which Hopper GPUs need in the confidential modes.
    pub fn has_bar0_decoupler(self) -> bool {
        self == Self::Hopper
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hopper => "Hopper",
            Self::Blackwell => "Blackwell",
            Self::BlackwellWorkstation => "Blackwell (workstation)",
            Self::NvSwitch3 => "NVSwitch",
        })
    }
}

/// A known device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// PCI device number.
    pub device_id: u16,
    /// PCI subsystem number, where it is known.
    pub subsystem_id: Option<u16>,
    /// Its name, or that of its chip where the number is not listed.
    pub name: &'static str,
    /// Its register layout.
    pub family: Family,
    /// Whether it hangs on a CPU by NVLink-C2C: the mode of such parts is not to be set in band.
    pub chip_to_chip: bool,
}

/// Listed products: device number, name.
const NAMES: &[(u16, &str)] = &[
    (0x2302, "H100"),
    (0x2313, "H100 CNX"),
    (0x2321, "H100 NVL"),
    (0x2322, "H800 PCIe"),
    (0x2324, "H800 SXM"),
    (0x2328, "H20"),
    (0x2329, "H20"),
    (0x2330, "H100 SXM"),
    (0x2331, "H100 PCIe"),
    (0x2335, "H200 SXM"),
    (0x2336, "H100 SXM"),
    (0x2337, "H100 SXM 64GB"),
    (0x2339, "H100 SXM 96GB"),
    (0x233a, "H800 NVL"),
    (0x233b, "H200 NVL"),
    (0x2342, "GH200"),
    (0x2343, "GH200"),
    (0x2345, "GH200"),
    (0x2348, "GH200"),
    (0x2901, "B200"),
    (0x2941, "GB200"),
    (0x2bb1, "RTX PRO 6000 Workstation"),
    (0x2bb4, "RTX PRO 6000 Max-Q"),
    (0x2bb5, "RTX PRO 6000 Server"),
    (0x2c31, "RTX PRO 4500"),
    (0x2c3a, "RTX PRO 4500"),
    (0x3182, "B300"),
    (0x31a1, "GB300"),
    (0x31c2, "GB300"),
    (0x22a3, "NVSwitch LS10"),
];

/// Which boards with a device number hang on their CPU.
#[derive(Clone, Copy)]
enum Boards {
    All,
    /// Those with these subsystem numbers.
    Only(&'static [u16]),
    /// Those that do not have these.
    AllBut(&'static [u16]),
}

/// Parts on NVLink-C2C (gpu-admin-tools 82422cc, `gpu/devid_properties.py`, `has_c2c`; 0x31a1 by its name). The same chip is on boards of
/// both kinds under one device number: there the subsystem number tells.
const CHIP_TO_CHIP: [(u16, Boards); 9] = [
    (0x2342, Boards::All),
    (0x2343, Boards::All),
    (0x2345, Boards::All),
    (0x2348, Boards::All),
    (0x2941, Boards::All),
    (0x297e, Boards::All),
    (0x29bc, Boards::Only(&[0x2045])),
    (0x31a1, Boards::All),
    (0x31c2, Boards::AllBut(&[0x20e5, 0x20e6])),
];

/// Whether the board hangs on its CPU by NVLink-C2C. One whose subsystem number nobody has read is taken to, where some of its number do.
fn is_chip_to_chip(device_id: u16, subsystem_id: Option<u16>) -> bool {
    let boards = CHIP_TO_CHIP.iter().find(|(id, _)| *id == device_id).map(|(_, boards)| boards);
    boards.is_some_and(|boards| match (boards, subsystem_id) {
        (Boards::All, _) | (_, None) => true,
        (Boards::Only(these), Some(id)) => these.contains(&id),
        (Boards::AllBut(others), Some(id)) => !others.contains(&id),
    })
}

/// The product with these numbers, if its register layout is known. GPUs that are not listed go by their chip's range.
pub fn product(device_id: u16, subsystem_id: Option<u16>) -> Option<Product> {
    let (family, chip) = match device_id {
        0x22a3 => (Family::NvSwitch3, "LS10"),
        0x22f0..=0x237f => (Family::Hopper, "GH100"),
        0x2900..=0x297f => (Family::Blackwell, "GB100"),
        0x2980..=0x29ff => (Family::Blackwell, "GB102"),
        0x3180..=0x31ff => (Family::Blackwell, "GB110"),
        0x3200..=0x327f => (Family::Blackwell, "GB112"),
        0x2b80..=0x2bff => (Family::BlackwellWorkstation, "GB202"),
        0x2c00..=0x2c7f => (Family::BlackwellWorkstation, "GB203"),
        0x2d00..=0x2d7f => (Family::BlackwellWorkstation, "GB206"),
        0x2d80..=0x2dff => (Family::BlackwellWorkstation, "GB207"),
        0x2f00..=0x2f7f => (Family::BlackwellWorkstation, "GB205"),
        _ => return None,
    };
    let name = NAMES.iter().find(|(id, _)| *id == device_id).map_or(chip, |(_, name)| name);
    Some(Product { device_id, subsystem_id, name, family, chip_to_chip: is_chip_to_chip(device_id, subsystem_id) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_product_has_a_family() {
        for (id, name) in NAMES {
            assert_eq!(product(*id, None).map(|product| product.name), Some(*name), "{id:#06x}");
        }
        assert_eq!(product(0x2350, None).unwrap().name, "GH100");
        assert_eq!(product(0x20b0, None), None, "an A100 has no confidential mode");
    }

    /// Each pair that NVIDIA's table has of these device numbers, and whether `has_c2c` stands there.
    #[test]
    fn the_subsystem_number_tells_boards_on_a_cpu_from_others() {
        let on_a_cpu = [
            (0x2342, 0x16eb),
            (0x2343, 0x16ec),
            (0x2345, 0x16ed),
            (0x2348, 0x18d2),
            (0x2941, 0x0000),
            (0x2941, 0x2046),
            (0x297e, 0x2046),
            (0x29bc, 0x2045),
            (0x31c2, 0x21f1),
        ];
        let others = [
            (0x2330, 0x16c1),
            (0x2901, 0x1999),
            (0x29bc, 0x1985),
            (0x29bc, 0x1997),
            (0x29bc, 0x1998),
            (0x3182, 0x20e6),
            (0x31c2, 0x20e5),
            (0x31c2, 0x20e6),
            (0x31fe, 0x20e5),
        ];
        let said = |(device, subsystem): (u16, u16)| product(device, Some(subsystem)).unwrap().chip_to_chip;
        assert_eq!(on_a_cpu.map(said), [true; 9]);
        assert_eq!(others.map(said), [false; 9]);
        assert!(
            CHIP_TO_CHIP.iter().all(|(id, _)| product(*id, None).unwrap().chip_to_chip),
            "not read, and so refused"
        );
        assert!(product(0x31c2, Some(0x9999)).unwrap().chip_to_chip, "a GB300 that is not listed");
    }
}
