//! MRTD of public firmware, against values that several tools agree on and against quotes signed by hardware.

mod shelf;

use measure::Digest384;
use measure::firmware::Firmware;
use measure::tdx::mrtd::{PageOrder, mrtd, steps};

/// Images in the vectors, with the name `mrtd.json` has for them.
const IMAGES: [(&str, &str); 5] = [
    (
        "debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz",
        "ovmf-inteltdx_2026.08+ds-2_debian-sid/OVMF.inteltdx.ms.fd",
    ),
    ("ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz", "ovmf_2024.02-2_all/OVMF.fd"),
    ("ubuntu-25.04_ovmf_2025.02-3ubuntu2_OVMF.fd.xz", "ovmf_2025.02-3ubuntu2_all/OVMF.fd"),
    (
        "ubuntu-25.10_ovmf-inteltdx_2025.02-8ubuntu3_OVMF.inteltdx.fd.xz",
        "ovmf-inteltdx_2025.02-8ubuntu3_all/OVMF.inteltdx.fd",
    ),
    (
        "ubuntu-26.04_ovmf-inteltdx_2025.11-3ubuntu7_OVMF.inteltdx.ms.fd.xz",
        "ovmf-inteltdx_2025.11-3ubuntu7_all/OVMF.inteltdx.ms.fd",
    ),
];

#[test]
fn both_page_orders_of_public_firmware() {
    let Some(expected) = shelf::json("tdx/firmware/mrtd.json") else { return };
    for (file, name) in IMAGES {
        let image = shelf::bytes(&format!("tdx/firmware/{file}")).unwrap();
        let expected = &expected[name];
        assert_eq!(measure::Digest256::of(&image).to_string(), expected["sha256"].as_str().unwrap(), "{name}");
        let firmware = Firmware::parse(&image).unwrap();
        for (order, key) in [(PageOrder::SinglePass, "mrtd_single_pass"), (PageOrder::TwoPass, "mrtd_two_pass")] {
            let digest = mrtd(&firmware, order).unwrap();
            assert_eq!(digest.to_string(), expected[key].as_str().unwrap(), "{name} {key}");
            assert_eq!(steps(&firmware, order).unwrap().last().unwrap().digest, digest);
        }
        let sections: Vec<_> = firmware.tdx_layout().unwrap().sections.iter().map(|s| s.gpa).collect();
        let listed = expected["sections"].as_array().unwrap();
        assert_eq!(sections, listed.iter().map(|s| s["gpa"].as_u64().unwrap()).collect::<Vec<_>>());
    }
}

fn of(file: &str) -> Option<Digest384> {
    let image = shelf::bytes(&format!("tdx/firmware/{file}"))?;
    Some(mrtd(&Firmware::parse(&image).unwrap(), PageOrder::SinglePass).unwrap())
}

/// MRTD is 136 bytes into the TD report body, which starts at 54 in a quote of version 5 (Intel 348549, quote format).
#[test]
fn ubuntu_inteltdx_in_a_quote_of_version_5() {
    let Some(mrtd) = of(IMAGES[3].0) else { return };
    let quote = shelf::bytes("tdx/quotes/quote_v5_sample.dat").unwrap();
    assert_eq!(quote[0], 5);
    assert_eq!(quote[54 + 136..][..48], mrtd.0);
}

/// Cases of virtee/tdx-measure, the last captured from a live TD.
#[test]
fn ubuntu_25_04_as_in_live_guests() {
    let Some(mrtd) = of(IMAGES[2].0) else { return };
    for case in ["canonical-defaults", "q35-with-hpet", "runtime-capture"] {
        let expected = shelf::json(&format!("tdx/platform/tdx-measure/{case}/expected.json")).unwrap();
        assert_eq!(mrtd.to_string(), expected["mrtd"].as_str().unwrap());
    }
}

/// MRTD covers the place of the variable store, not its content.
#[test]
fn variables_do_not_move_mrtd() {
    let Some(mut image) = shelf::bytes(&format!("tdx/firmware/{}", IMAGES[0].0)) else { return };
    let before = mrtd(&Firmware::parse(&image).unwrap(), PageOrder::SinglePass).unwrap();
    image[0x100] ^= 1;
    assert_eq!(mrtd(&Firmware::parse(&image).unwrap(), PageOrder::SinglePass).unwrap(), before);
    image[0x8_4000] ^= 1;
    assert_ne!(mrtd(&Firmware::parse(&image).unwrap(), PageOrder::SinglePass).unwrap(), before);
}
