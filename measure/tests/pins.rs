//! What `firmware/pins.toml` says of an image is what the image itself shows, for the images at hand.

mod shelf;

use std::collections::BTreeMap;

use measure::Digest256;
use measure::firmware::{Firmware, TdxSectionType};
use measure::uefi::VariableStore;
use toml::{Table, Value};

const PINS: &str = include_str!("../../firmware/pins.toml");

fn pins() -> BTreeMap<String, Table> {
    let file: Table = PINS.parse().unwrap();
    let pins = file["firmware"].as_array().unwrap().iter().map(|pin| pin.as_table().unwrap().clone());
    pins.map(|pin| (pin["sha256"].as_str().unwrap().to_owned(), pin)).collect()
}

/// Images of the vectors, and the one that is derived from one of them.
fn images() -> Vec<Vec<u8>> {
    let mut images: Vec<_> = shelf::IMAGES.iter().filter_map(|path| shelf::bytes(path)).collect();
    let keyless: Vec<_> = images
        .iter()
        .filter_map(|image| VariableStore::parse(image).ok().filter(VariableStore::has_keys))
        .map(|store| store.without_keys())
        .collect();
    images.extend(keyless);
    images
}

#[test]
fn pins_say_what_images_show() {
    let pins = pins();
    let images = images();
    let mut seen = 0;
    for image in &images {
        let Some(pin) = pins.get(&Digest256::of(image).to_string()) else { continue };
        let name = pin["name"].as_str().unwrap();
        let firmware = Firmware::parse(image).unwrap();
        let is_enrolled = pin["secure_boot"].as_str() == Some("enrolled");
        assert_eq!(VariableStore::parse(image).unwrap().has_keys(), is_enrolled, "{name}");
        let takes_hashes = firmware.sev_layout().unwrap().has_kernel_hashes_page();
        let enforces = pin["enforces_kernel_hashes"].as_bool().unwrap();
        assert!(takes_hashes || !enforces, "{name} enforces what it has no place for");
        let tees: Vec<_> = pin["tees"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        if tees.contains(&"tdx") {
            assert!(firmware.tdx_layout().unwrap().section(TdxSectionType::TD_HOB).is_some(), "{name}");
        }
        seen += 1;
    }
    // Debian's two, the one derived from it, and three of Ubuntu's.
    assert_eq!(seen, if images.is_empty() { 0 } else { 6 });
}

/// Rules that hold for every pin, whatever it says.
#[test]
fn pins_obey_the_design() {
    for pin in pins().values() {
        let name = pin["name"].as_str().unwrap();
        let platform = pin["platform"].as_str().unwrap();
        let tees: Vec<_> = pin["tees"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(pin["enforces_kernel_hashes"].as_bool(), Some(platform == "AmdSevX64"), "{name}");
        assert_eq!(pin["vmm_in_trust_boundary"].as_bool(), Some(platform == "OvmfPkgX64"), "{name}");
        let allowed = match platform {
            "AmdSevX64" => "snp",
            "IntelTdxX64" => "tdx",
            _ => "none",
        };
        assert_eq!(tees, [allowed], "{name}");
        // edk2 leaves memory above 4 GiB to the kernel since these releases: of a TD, and of a SEV-SNP guest.
        let acceptance = pin.get("memory_acceptance").and_then(Value::as_str);
        let since = if allowed == "snp" { "edk2-stable202302" } else { "edk2-stable202211" };
        let is_lazy = pin["edk2"].as_str().unwrap() >= since;
        let said = if is_lazy { "lazy" } else { "eager" };
        assert_eq!(acceptance, (allowed != "none").then_some(said), "{name}");
    }
}
