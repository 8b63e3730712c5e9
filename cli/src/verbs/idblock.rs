//! `bullion idblock`: ID blocks for SNP launches, signed and checked.

use std::path::Path;

use launcher::id_block::signed;
use measure::Digest384;
use measure::snp::id_block::{IdAuth, IdBlock as Block, PublicKey as IdKey, Signature};
use measure::snp::policy::Policy;
use serde::Serialize;
use sign::{P384Point, P384Signature, PrivateKey, PublicKey};
use spec::Outcome;
use spec::digest::encode_hex;
use spec::manifest::{self, SnpIdBlock};
use store::Image;

use crate::args::{CreateIdBlock, IdBlock, IdBlockAction, VerifyIdBlock};
use crate::evidence_file::MAX_BYTES;
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::unusable;

#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    launch_digest: String,
    policy: u64,
    guest_svn: u32,
    family_id: String,
    image_id: String,
    /// ID_KEY_DIGEST of a report.
    id_key_digest: String,
    /// AUTHOR_KEY_DIGEST of a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    author_key_digest: Option<String>,
}

pub(crate) fn run(verb: &IdBlock, printer: &Printer) -> Result<u8, Failure> {
    let rows = match &verb.action {
        IdBlockAction::Create(verb) => create(verb, printer)?,
        IdBlockAction::Verify(verb) => verify(verb)?,
    };
    for row in &rows {
        let shape = match (row.vcpus, &row.cpu) {
            (Some(vcpus), Some(cpu)) => format!("{vcpus:>3} vCPUs  {cpu:<10}  "),
            _ => String::new(),
        };
        let (policy, svn) = (row.policy, row.guest_svn);
        printer.line(format_args!("{shape}policy {policy:#x}  guest SVN {svn}  launch digest {}", row.launch_digest));
    }
    if let Some(row) = rows.first() {
        printer.line(format_args!("ID_KEY_DIGEST {}", row.id_key_digest));
    }
    printer.value(&serde_json::json!({ "id_blocks": rows }));
    Ok(0)
}

fn row(block: &Block, auth: &IdAuth, shape: Option<(u32, &str)>) -> Row {
    Row {
        vcpus: shape.map(|(vcpus, _)| vcpus),
        cpu: shape.map(|(_, cpu)| cpu.to_owned()),
        launch_digest: block.launch_digest.to_string(),
        policy: block.policy,
        guest_svn: block.guest_svn,
        family_id: encode_hex(&block.family_id),
        image_id: encode_hex(&block.image_id),
        id_key_digest: auth.id_key.digest().to_string(),
        author_key_digest: auth.author.map(|(key, _)| key.digest().to_string()),
    }
}

fn create(verb: &CreateIdBlock, printer: &Printer) -> Result<Vec<Row>, Failure> {
    check_policy(verb.policy)?;
    let key = PrivateKey::read(&verb.key)?;
    match (&verb.image, verb.digest, &verb.output) {
        (Some(image), _, _) => into_manifest(verb, image, &key, printer),
        (None, Some(digest), Some(output)) => {
            let (block, auth) = sign(verb, &key, Digest384(digest.0))?;
            for (name, bytes) in [("id-block.bin", &block.to_bytes()[..]), ("id-auth.bin", &auth.to_bytes()[..])] {
                store::write_atomically(&output.join(name), bytes)?;
            }
            Ok(vec![row(&block, &auth, None)])
        }
        _ => Err(Failure::new(Outcome::Usage, "name an image, or a launch digest and --output")),
    }
}

fn into_manifest(
    verb: &CreateIdBlock,
    directory: &Path,
    key: &PrivateKey,
    printer: &Printer,
) -> Result<Vec<Row>, Failure> {
    let mut manifest = Image::open(directory)?.manifest;
    store::verify(directory, &manifest)?;
    if manifest.references.snp.is_empty() {
        let message = format!("the manifest of {} has no SNP launch digests to sign", manifest.name);
        return Err(Failure::new(Outcome::Usage, message)
            .with_hint("name shapes in the recipe's [references] and build again, without --no-references"));
    }
    let mut rows = Vec::new();
    for reference in &mut manifest.references.snp {
        let (block, auth) = sign(verb, key, Digest384(reference.launch_digest.0))?;
        let (IdKey { x, y }, Signature { r, s }) = (auth.id_key, auth.block_signature);
        reference.id_block = Some(SnpIdBlock {
            policy: block.policy,
            guest_svn: block.guest_svn,
            family_id: encode_hex(&block.family_id),
            image_id: encode_hex(&block.image_id),
            id_key: encode_hex(&[x, y].concat()),
            signature: encode_hex(&[r, s].concat()),
        });
        rows.push(row(&block, &auth, Some((reference.vcpus, &reference.cpu))));
    }
    let bytes = manifest.to_bytes().map_err(|error| Failure::new(Outcome::Internal, error.to_string()))?;
    store::write_atomically(&directory.join(manifest::FILE_NAME), &bytes)?;
    printer.note("the manifest has changed: what was signed over it before is to be signed again");
    Ok(rows)
}

fn sign(verb: &CreateIdBlock, key: &PrivateKey, launch_digest: Digest384) -> Result<(Block, IdAuth), Failure> {
    let CreateIdBlock { family_id, image_id, guest_svn, policy, .. } = *verb;
    let block = Block { launch_digest, family_id: family_id.0, image_id: image_id.0, guest_svn, policy };
    let (Some(P384Signature { r, s }), Some(P384Point { x, y })) =
        (key.sign_p384(&block.to_bytes()), key.public().p384_point())
    else {
        let message =
            format!("{} is a key of {}: ID blocks are signed with ECDSA on P-384", verb.key.display(), key.algorithm());
        return Err(Failure::new(Outcome::Usage, message).with_hint("make one with bullion keygen"));
    };
    Ok((block, IdAuth { block_signature: Signature { r, s }, id_key: IdKey { x, y }, author: None }))
}

fn check_policy(policy: u64) -> Result<(), Failure> {
    let refusals = Policy(policy).refusals();
    if refusals.is_empty() {
        return Ok(());
    }
    let message = format!("policy {policy:#x} is unfit for a release guest: {}", refusals.join(", "));
    Err(Failure::new(Outcome::Refused, message))
}

fn verify(verb: &VerifyIdBlock) -> Result<Vec<Row>, Failure> {
    let key = verb.key.as_deref().map(PublicKey::read).transpose()?;
    if let (Some(block), Some(auth)) = (&verb.block, &verb.auth) {
        let read = |path: &Path| inputs::read_file(path, MAX_BYTES, "an ID block or its authentication");
        let (bytes, auth_bytes) = (read(block)?, read(auth)?);
        let parsed = Block::parse(&bytes).map_err(|error| unusable(block, &error))?;
        let auth = IdAuth::parse(&auth_bytes).map_err(|error| unusable(auth, &error))?;
        check(&parsed, &auth, key.as_ref(), &block.display().to_string())?;
        return Ok(vec![row(&parsed, &auth, None)]);
    }
    let Some(directory) = &verb.image else { return Err(Failure::new(Outcome::Usage, "name an image or a block")) };
    let manifest = Image::open(directory)?.manifest;
    let mut rows = Vec::new();
    for reference in &manifest.references.snp {
        let Some((block, auth)) = signed(&manifest.name, reference)? else { continue };
        check(&block, &auth, key.as_ref(), &format!("the ID block for {} vCPUs", reference.vcpus))?;
        rows.push(row(&block, &auth, Some((reference.vcpus, &reference.cpu))));
    }
    if rows.is_empty() {
        let message = format!("the manifest of {} has no ID blocks", manifest.name);
        return Err(Failure::new(Outcome::InputMismatch, message).with_hint("make them with bullion idblock create"));
    }
    Ok(rows)
}

/// Signatures first: what is not signed says nothing.
fn check(block: &Block, auth: &IdAuth, key: Option<&PublicKey>, what: &str) -> Result<(), Failure> {
    let refuse = |outcome, message: &str| Err(Failure::new(outcome, format!("{what}: {message}")));
    let is_signed = |IdKey { x, y }: IdKey, message: &[u8], Signature { r, s }: Signature| {
        P384Point { x, y }.verifies(message, &P384Signature { r, s })
    };
    if !is_signed(auth.id_key, &block.to_bytes(), auth.block_signature) {
        return refuse(Outcome::SignatureInvalid, "the ID key has not signed it");
    }
    if auth.author.is_some_and(|(author, signature)| !is_signed(author, &auth.id_key.to_bytes(), signature)) {
        return refuse(Outcome::SignatureInvalid, "the author key has not signed the ID key");
    }
    let IdKey { x, y } = auth.id_key;
    if key.is_some_and(|key| key.p384_point() != Some(P384Point { x, y })) {
        return refuse(Outcome::SignatureInvalid, "it is signed with another key than the one that was named");
    }
    check_policy(block.policy)
}
