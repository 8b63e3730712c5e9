//! What differs is named from the digest alone.

mod shelf;

use measure::firmware::{Firmware, SevLayout};
use measure::snp::explain::{Alternatives, Candidate, Difference, Expected, Kernel, explain};
use measure::snp::{CpuSignature, KernelHashes, Profile, Seed, Vcpu, profile, seed};
use measure::{Digest256, Digest384};

const LINE: &[u8] = b"console=ttyS0 bullion.root=00";

struct Image {
    digest: Digest384,
    layout: SevLayout,
}

fn image(path: &str) -> Option<Image> {
    let bytes = shelf::bytes(path)?;
    let firmware = Firmware::parse(&bytes).unwrap();
    Some(Image { digest: seed::firmware_digest(&firmware).unwrap(), layout: firmware.sev_layout().unwrap() })
}

fn launched(image: &Image, line: Option<&[u8]>, vcpu: Vcpu, vcpus: u32, profile: &Profile) -> Digest384 {
    let hashes =
        line.map(|line| KernelHashes::new(Digest256::of(b"kernel"), Some(Digest256::of(b"initrd")), line).unwrap());
    Seed::new(image.digest, &image.layout, hashes.as_ref(), profile).unwrap().digest(&vcpu, vcpus).unwrap()
}

#[test]
fn differences_are_named() {
    let Some(ours) = image("snp/launch-digest/debian_2026.08+ds-2_OVMF.amdsev.fd") else { return };
    let other = image("snp/launch-digest/ovmf_AmdSev_suffix.bin").unwrap();
    let pinned = image("snp/launch-digest/ovmf_OvmfX64_suffix.bin").unwrap();
    let candidates = [
        Candidate { name: "ours", digest: ours.digest, layout: &ours.layout, is_named: true },
        Candidate { name: "other", digest: other.digest, layout: &other.layout, is_named: true },
        Candidate { name: "pinned", digest: pinned.digest, layout: &pinned.layout, is_named: false },
    ];
    let kernel =
        Kernel { kernel: Digest256::of(b"kernel"), initrd: Some(Digest256::of(b"initrd")), command_line: LINE };
    let vcpu = Vcpu { signature: CpuSignature(0x80_0f12), sev_features: 1 };
    let profile = &profile::QEMU_KVM;
    let alternatives = Alternatives {
        kernels: &[("old-vmlinuz", Digest256::of(b"old kernel"))],
        initrds: &[("old-initrd", Digest256::of(b"old initrd"))],
        command_lines: &[b"root=/dev/sda quiet"],
    };
    let firmware = &candidates;
    let expected = Expected { firmware, kernel: Some(kernel), alternatives, vcpu, vcpus: 4, profile, max_vcpus: 512 };
    let find = |digest| explain(digest, &expected);
    let with_newline = [LINE, b"\n"].concat();
    let line = Difference::CommandLine { how: "with a newline at its end", found: with_newline.clone() };
    let debug_swap = Vcpu { sev_features: 0x21, ..vcpu };
    let milan = Vcpu { signature: CpuSignature(0xa0_0f11), ..vcpu };
    let old = &profile::QEMU_KVM_NO_FPU_SYNC;
    let given = |kernel: &[u8], initrd: &[u8], line: &[u8]| {
        let hashes = KernelHashes::new(Digest256::of(kernel), Some(Digest256::of(initrd)), line).unwrap();
        Seed::new(ours.digest, &ours.layout, Some(&hashes), profile).unwrap().digest(&vcpu, 4).unwrap()
    };
    for (digest, differences) in [
        (launched(&ours, Some(LINE), vcpu, 4, profile), vec![]),
        (given(b"old kernel", b"initrd", LINE), vec![Difference::Kernel("old-vmlinuz".into())]),
        (given(b"kernel", b"old initrd", LINE), vec![Difference::Initrd("old-initrd".into())]),
        (
            given(b"old kernel", b"old initrd", b"root=/dev/sda quiet"),
            vec![
                Difference::Kernel("old-vmlinuz".into()),
                Difference::Initrd("old-initrd".into()),
                Difference::CommandLine { how: "as another line", found: b"root=/dev/sda quiet".to_vec() },
            ],
        ),
        (launched(&ours, Some(LINE), vcpu, 200, profile), vec![Difference::Vcpus(200)]),
        (launched(&ours, Some(&with_newline), vcpu, 4, profile), vec![line.clone()]),
        (launched(&ours, None, vcpu, 4, profile), vec![Difference::KernelHashesOff]),
        (launched(&ours, Some(LINE), debug_swap, 4, profile), vec![Difference::SevFeatures(0x21)]),
        (
            launched(&ours, Some(LINE), milan, 4, profile),
            vec![Difference::Cpu { model: Some("EPYC-Milan"), signature: milan.signature }],
        ),
        (launched(&ours, Some(LINE), vcpu, 4, old), vec![Difference::Profile(old.name)]),
        (
            launched(&pinned, None, milan, 7, profile),
            vec![
                Difference::Firmware("pinned".into()),
                Difference::KernelHashesOff,
                Difference::Cpu { model: Some("EPYC-Milan"), signature: milan.signature },
                Difference::Vcpus(7),
            ],
        ),
        (
            launched(&other, Some(&with_newline), debug_swap, 7, profile),
            vec![Difference::Firmware("other".into()), line, Difference::SevFeatures(0x21), Difference::Vcpus(7)],
        ),
    ] {
        assert_eq!(find(digest), Some(differences));
    }
    // Of firmware that nobody named, no more than one thing about the vCPUs is varied.
    assert_eq!(find(launched(&pinned, None, Vcpu { sev_features: 0x21, ..milan }, 7, profile)), None);
    assert_eq!(find(Digest384::of(b"something else")), None);
}
