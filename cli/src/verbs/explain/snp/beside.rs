//! What an SNP report says beside the launch digest, and who says what it should be: a VM description of POLICY and HOST_DATA, a
//! manifest of the ID block.

use evidence::snp::AttestationReport;
use launcher::id_block::signed;
use measure::shape::SnpShape;
use measure::snp::policy::Policy;
use spec::digest::encode_hex;
use spec::manifest::{Manifest, SnpReference, artifact};
use spec::pins::Pins;
use spec::{Outcome, Sha256Digest};

use super::super::Expected;
use super::super::answer::{Answer, Register, Row, UNKNOWN_CONFIGURATION, Verdict};
use crate::failure::Failure;

/// The fields of a report that come from an ID block.
pub(super) const OF_AN_ID_BLOCK: [&str; 5] =
    ["ID_KEY_DIGEST", "AUTHOR_KEY_DIGEST", "GUEST_SVN", "FAMILY_ID", "IMAGE_ID"];

/// POLICY and HOST_DATA, of which only a VM description says what they should be.
pub(super) fn guest(report: &AttestationReport, expected: &Expected, answer: &mut Answer) -> Result<(), Failure> {
    let refusals = Policy(report.policy().0).refusals();
    if !refusals.is_empty() {
        let text = format!("POLICY {:#x} is unfit for a release guest: {}", report.policy().0, refusals.join(", "));
        let expected = Some(format!("{:#x}", SnpShape::DEFAULT_POLICY));
        let found = Some(format!("{:#x}", report.policy().0));
        answer.differences.push(Row {
            input: "policy".into(),
            kind: "differs",
            expected,
            found,
            text,
            ..Row::default()
        });
    }
    let found = Sha256Digest(report.host_data);
    let Some(vm) = &expected.vm else {
        // Zero is no configuration; any other is one that this side does not know.
        if report.host_data.iter().any(|byte| *byte != 0) {
            answer.registers.push(Register::new("HOST_DATA", found.to_string(), None));
            answer.reasons.push(UNKNOWN_CONFIGURATION.to_owned());
        }
        answer.not_compared.push("POLICY");
        return Ok(());
    };
    let wanted = vm.guest.host_data().map_err(|error| Failure::new(Outcome::Internal, error.to_string()))?;
    answer.registers.push(Register::new("HOST_DATA", found.to_string(), Some(wanted.to_string())));
    if found != wanted {
        let text = "HOST_DATA is not that of [guest]: the guest was given another configuration".to_owned();
        answer.differences.push(Row { input: "guest_configuration".into(), kind: "differs", text, ..Row::default() });
    }
    let (register, difference) = policy(Policy(report.policy().0), Policy(vm.snp.unwrap_or_default().bits()));
    answer.registers.push(register);
    answer.differences.extend(difference);
    Ok(())
}

/// POLICY beside that of a VM description; what makes it unfit for any guest is said elsewhere.
fn policy(found: Policy, wanted: Policy) -> (Register, Option<Row>) {
    let (fit, differs) = (found.refusals().is_empty(), found != wanted);
    let [found, wanted] = [found, wanted].map(|Policy(bits)| format!("{bits:#x}"));
    let difference = (fit && differs).then(|| Row {
        input: "policy".into(),
        kind: "differs",
        expected: Some(wanted.clone()),
        found: Some(found.clone()),
        text: "POLICY is not that of [snp]: the host may do more than was agreed".to_owned(),
        ..Row::default()
    });
    (Register::new("POLICY", found, Some(wanted)), difference)
}

/// The fields that follow from the ID block of the shape, where the manifest has one. The secure processor takes no other than was given,
/// and no given one that the key has not signed: another value is of another block.
pub(super) fn id_block(
    report: &AttestationReport,
    reference: Option<&SnpReference>,
    manifest: &Manifest,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let found = [
        encode_hex(&report.id_key_digest),
        encode_hex(&report.author_key_digest),
        report.guest_svn().to_string(),
        encode_hex(&report.family_id),
        encode_hex(&report.image_id),
    ];
    let Some((block, auth)) = reference.map(|known| signed(&manifest.name, known)).transpose()?.flatten() else {
        if manifest.references.snp.iter().any(|known| known.id_block.is_some()) {
            let names = OF_AN_ID_BLOCK.into_iter().zip(found);
            answer.registers.extend(names.map(|(name, found)| Register::new(name, found, None)));
            answer.reasons.push("the manifest has ID blocks, and none of this shape: nobody signed it".to_owned());
        } else if report.id_key_digest.iter().any(|byte| *byte != 0) {
            answer.not_compared.extend(OF_AN_ID_BLOCK);
        }
        return Ok(());
    };
    // Without an author key the secure processor reports zeros.
    let author = auth.author.map_or(encode_hex(&[0; 48]), |(key, _)| key.digest().to_string());
    let wanted = [
        auth.id_key.digest().to_string(),
        author,
        block.guest_svn.to_string(),
        encode_hex(&block.family_id),
        encode_hex(&block.image_id),
    ];
    for ((name, found), wanted) in OF_AN_ID_BLOCK.into_iter().zip(found).zip(wanted) {
        let register = Register::new(name, found.clone(), Some(wanted.clone()));
        if register.verdict == Verdict::Differs {
            answer.differences.push(Row {
                input: "id_block".into(),
                kind: "differs",
                register: Some(name.to_owned()),
                expected: Some(wanted),
                found: Some(found),
                text: "not that of the manifest's ID block: the guest was started with another, or with none"
                    .to_owned(),
                ..Row::default()
            });
        }
        answer.registers.push(register);
    }
    Ok(())
}

/// Of firmware that lets a host boot another kernel than was measured, an equal digest says less than it seems to. Of firmware that is not
/// pinned nobody knows here; whoever made the manifest may.
pub(super) fn firmware(manifest: &Manifest, pins: &Pins, answer: &mut Answer) {
    let Some(artifact) = manifest.artifacts.get(artifact::FIRMWARE_SNP) else { return };
    let Some(pin) = pins.find(&artifact.sha256) else {
        let reason =
            "the image's firmware is not pinned: whether it keeps the host from booting another kernel is not known";
        return answer.reasons.push(reason.to_owned());
    };
    if pin.enforces_kernel_hashes && !pin.vmm_in_trust_boundary {
        return;
    }
    let text = format!(
        "firmware {} does not keep the host from booting another kernel than was measured: the digest does not say which one ran",
        pin.name
    );
    answer.unknown.push(Row { input: "firmware".into(), kind: "unknown", text, ..Row::default() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_was_not_asked_for_differs() {
        let strict = spec::vm::SnpPolicy { forbid_smt: true, require_ciphertext_hiding: true, ..Default::default() };
        let strict = Policy(strict.bits());
        let (register, difference) = policy(strict, strict);
        assert_eq!((register.name.as_str(), register.verdict), ("POLICY", Verdict::Equal));
        assert!(difference.is_none());
        let (register, difference) = policy(Policy(0x3_0000), strict);
        assert_eq!((register.verdict, register.expected.as_deref()), (Verdict::Differs, Some("0x1020000")));
        let difference = difference.unwrap();
        assert_eq!((difference.input.as_str(), difference.found.as_deref()), ("policy", Some("0x30000")));
        // A guest that is debugged is told of once.
        let (register, difference) = policy(Policy(0xb_0000), strict);
        assert_eq!(register.verdict, Verdict::Differs);
        assert!(difference.is_none());
    }
}
