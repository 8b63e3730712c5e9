//! `bullion measure IMAGE --write`: the reference values of a manifest, predicted again after QEMU, the firmware's pin or Bullion
//! itself was upgraded. No artifact changes; a signature over the old manifest does not hold for the new one.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use spec::Outcome;
use spec::manifest::{FILE_NAME, Manifest, ReferenceValues};
use spec::size::Size;

use crate::failure::Failure;
use crate::weigh;
use crate::weigh::machine::Machine;

#[derive(Serialize)]
struct Moved {
    value: String,
    was: Option<String>,
    now: Option<String>,
}

/// TDX shapes that are in the manifest stay there, and those of `added` join them.
pub(super) fn run(
    directory: &Path,
    manifest: Manifest,
    machine: &Machine<'_>,
    added: &[(u32, u64)],
) -> Result<u8, Failure> {
    let platforms = manifest.references.tdx.iter().filter_map(|tdx| tdx.platform.as_ref());
    let kept = platforms.flat_map(|platform| &platform.rtmr0).map(|shape| (shape.vcpus, shape.memory_mib));
    let shapes: Vec<_> = kept.chain(added.iter().copied()).collect();
    let mut references = weigh::references(directory, &manifest, machine, &shapes)?;
    keep_id_blocks(&manifest.references, &mut references);
    let moved = moved(&manifest.references, &references);
    for Moved { value, was, now } in &moved {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        machine.printer.line(format_args!("{value}\n  was {}\n  now {}", or_none(was), or_none(now)));
    }
    if references == manifest.references {
        machine.printer.line("nothing moved");
    } else {
        let bytes = Manifest { references, ..manifest }
            .to_bytes()
            .map_err(|error| Failure::new(Outcome::Internal, error.to_string()))?;
        store::write_atomically(&directory.join(FILE_NAME), &bytes)?;
    }
    machine.printer.value(&serde_json::json!({ "moved": moved }));
    Ok(0)
}

/// An ID block is of one launch digest: it goes where that is again, and nowhere else.
fn keep_id_blocks(old: &ReferenceValues, new: &mut ReferenceValues) {
    for reference in &mut new.snp {
        let same = old.snp.iter().find(|old| {
            old.launch_digest == reference.launch_digest && (old.vcpus, &old.cpu) == (reference.vcpus, &reference.cpu)
        });
        reference.id_block = same.and_then(|old| old.id_block.clone());
    }
}

/// What differs, by name.
fn moved(old: &ReferenceValues, new: &ReferenceValues) -> Vec<Moved> {
    let (old, new) = (values(old), values(new));
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    let pair = |value: String| Moved { was: old.get(&value).cloned(), now: new.get(&value).cloned(), value };
    names.into_iter().map(pair).filter(|moved| moved.was != moved.now).collect()
}

fn values(references: &ReferenceValues) -> BTreeMap<String, String> {
    let snp = references.snp.iter().map(|snp| {
        let name = format!("SNP launch digest, {} vCPUs, {}, SEV_FEATURES {:#x}", snp.vcpus, snp.cpu, snp.sev_features);
        (name, snp.launch_digest.to_string())
    });
    let tdx = references.tdx.iter().flat_map(|tdx| {
        let mut values = vec![("MRTD".to_owned(), tdx.mrtd.to_string())];
        if let Some(image) = &tdx.image {
            values
                .extend([("RTMR1".to_owned(), image.rtmr1.to_string()), ("RTMR2".to_owned(), image.rtmr2.to_string())]);
        }
        if let Some(disk) = &tdx.disk {
            let rtmr1: Vec<_> = disk.rtmr1_one_of.iter().map(ToString::to_string).collect();
            values.extend([
                ("RTMR1 from disk".to_owned(), rtmr1.join(" or ")),
                ("RTMR2 from disk".to_owned(), disk.rtmr2.to_string()),
            ]);
        }
        let of_disk = tdx.disk.as_ref().and_then(|disk| disk.platform.as_ref());
        for (platform, how) in
            tdx.platform.iter().map(|platform| (platform, "")).chain(of_disk.map(|of| (of, " from disk")))
        {
            values.push((format!("QEMU of RTMR0{how}"), platform.qemu_version.clone()));
            values.extend(platform.rtmr0.iter().map(|shape| {
                let memory = Size::from_mib(shape.memory_mib);
                (format!("RTMR0{how}, {} vCPUs, {memory}", shape.vcpus), shape.rtmr0.to_string())
            }));
        }
        values
    });
    snp.chain(tdx).collect()
}
