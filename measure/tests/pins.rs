//! What `firmware/pins.toml` says of an image is what the image itself shows, for the images at hand.

mod shelf;

use std::collections::BTreeMap;

use measure::firmware::{Firmware, TdxSectionType};
use measure::snp::seed::firmware_digest;
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::uefi::VariableStore;
use measure::{Digest256, Digest384};
use toml::{Table, Value};

const PINS: &str = include_str!("../../firmware/pins.toml");

fn pins() -> BTreeMap<String, Table> {
    let file: Table = PINS.parse().unwrap();
    let pins = file["firmware"].as_array().unwrap().iter().map(|pin| pin.as_table().unwrap().clone());
    pins.map(|pin| (pin["sha256"].as_str().unwrap().to_owned(), pin)).collect()
}

/// Images of the packages that emulated boots start from.
fn generic() -> Vec<Vec<u8>> {
    let Some(tree) = std::env::var_os("BULLION_TEST_TPM_TREE") else { return Vec::new() };
    let folders = ["usr/share/OVMF", "usr/share/ovmf"].map(|folder| std::path::Path::new(&tree).join(folder));
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "fd"))
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// What a pin has of its image, as far as launches measure it, is what the image has: it stands in for the image.
#[test]
fn pins_have_what_launches_measure_of_images() {
    let pins = pins();
    let images: Vec<_> = images().into_iter().chain(generic()).collect();
    let number = |value: &Value| u32::try_from(value.as_integer().unwrap()).unwrap();
    let numbers = |table: &Value, keys: &[&str]| keys.iter().map(|key| number(&table[key])).collect::<Vec<_>>();
    let mut seen = 0;
    for image in &images {
        let Some(pin) = pins.get(&Digest256::of(image).to_string()) else { continue };
        let (name, firmware) = (pin["name"].as_str().unwrap(), Firmware::parse(image).unwrap());
        let layout = firmware.sev_layout().unwrap();
        let snp = pin.get("snp").unwrap_or_else(|| panic!("{name} has nothing of SNP"));
        assert_eq!(snp["firmware_digest"].as_str().unwrap(), firmware_digest(&firmware).unwrap().to_string(), "{name}");
        assert_eq!(snp.get("ap_reset_eip").map(number), layout.ap_reset_eip, "{name}");
        let area = layout.hash_table.map(|area| vec![area.base, area.size]);
        assert_eq!(snp.get("hash_table").map(|area| numbers(area, &["gpa", "size"])), area, "{name}");
        let sections: Vec<_> = layout.sections.iter().map(|s| vec![s.gpa, s.size, s.section_type.0]).collect();
        let pinned = snp["sections"].as_array().unwrap().iter().map(|s| numbers(s, &["gpa", "size", "type"]));
        assert_eq!(pinned.collect::<Vec<_>>(), sections, "{name}");
        // Of code without variables, TDX cannot launch anything.
        let tdx = firmware.tdx_layout().ok();
        assert_eq!(pin.contains_key("tdx"), tdx.is_some(), "{name}");
        if let Some(layout) = tdx {
            let store = layout.section(TdxSectionType::CFV).unwrap().content(image);
            for (key, digest) in [
                ("mrtd", mrtd(&firmware, PageOrder::SinglePass).unwrap()),
                ("mrtd_two_pass", mrtd(&firmware, PageOrder::TwoPass).unwrap()),
                ("variable_store", Digest384::of(store)),
            ] {
                assert_eq!(pin["tdx"][key].as_str().unwrap(), digest.to_string(), "{name}: {key}");
            }
        }
        seen += 1;
    }
    assert!(images.is_empty() || seen >= 7, "{seen}");
}

/// What pins have for TDX is what other programs give for the same images.
#[test]
fn pinned_mrtds_are_those_of_other_programs() {
    let Some(judged) = shelf::json("tdx/firmware/mrtd.json") else { return };
    let (pins, mut seen) = (pins(), 0);
    for (path, image) in judged.as_object().unwrap() {
        let Some(pin) = pins.get(image["sha256"].as_str().unwrap()) else { continue };
        let said = ["mrtd", "mrtd_two_pass", "variable_store"].map(|key| pin["tdx"][key].as_str());
        let judged = [&image["mrtd_single_pass"], &image["mrtd_two_pass"], &image["cfv_sha384"][0]];
        assert_eq!(said, judged.map(|digest| digest.as_str()), "{path}");
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
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
    // Debian's two, the one derived from it, and four of Ubuntu's.
    assert_eq!(seen, if images.is_empty() { 0 } else { 7 });
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
