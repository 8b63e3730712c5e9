//! Devices by the names people use, and the boards that servers have of them.

use crate::model::{Chip, Model};

/// A device by its name on the command line: name, chip, PCI device number.
pub const PRODUCTS: [(&str, Chip, u16); 7] = [
    ("h100", Chip::Gh100, 0x2330),
    ("h100-pcie", Chip::Gh100, 0x2331),
    ("h200", Chip::Gh100, 0x2335),
    ("nvswitch", Chip::Ls10, 0x22a3),
    ("b200", Chip::Gb100, 0x2901),
    ("b300", Chip::Gb100, 0x3182),
    ("rtx-pro-6000", Chip::Gb202, 0x2bb5),
];

/// Boards: name, and how many of which product.
pub const BOARDS: [(&str, &[(usize, &str)]); 4] = [
    ("h100", &[(1, "h100")]),
    ("hgx-h100", &[(8, "h100"), (4, "nvswitch")]),
    ("hgx-h200", &[(8, "h200"), (4, "nvswitch")]),
    ("b200-pair", &[(2, "b200")]),
];

/// The product of that name, with a serial number of its own.
pub fn product(name: &str, serial: u32) -> Option<Model> {
    let (_, chip, id) = PRODUCTS.iter().find(|(product, ..)| *product == name)?;
    Some(Model::new(*chip, *id).with_serial(serial))
}

/// The devices of a board, each with a name: `gpu0`, `gpu1`, `switch0`.
pub fn board(name: &str) -> Option<Vec<(String, Model)>> {
    let (_, parts) = BOARDS.iter().find(|(board, _)| *board == name)?;
    let mut devices = Vec::new();
    for (count, product_name) in *parts {
        for index in 0..*count {
            let model = product(product_name, u32::try_from(devices.len()).unwrap_or(0))?;
            let kind = if model.chip() == Chip::Ls10 { "switch" } else { "gpu" };
            devices.push((format!("{kind}{index}"), model));
        }
    }
    Some(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_is_of_products_there_are() {
        for (name, parts) in BOARDS {
            let devices = board(name).unwrap();
            assert_eq!(devices.len(), parts.iter().map(|(count, _)| count).sum::<usize>(), "{name}");
        }
        assert_eq!(board("hgx-h100").unwrap()[11].0, "switch3");
    }
}
