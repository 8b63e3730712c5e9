//! Bills of materials: what an image is made of, as SPDX 2.3 and as CycloneDX 1.6, for scanners and for people who answer for
//! licences. They are documents of the image directory: the manifest has their digests, nothing measures them.
//!
//! This file collects what is the same in both formats: the packages with what their own files say about licences and
//! dependencies, the artifacts, and which artifact is made of what. `spdx` and `cyclonedx` are two ways to write that down.

mod copyright;
mod cyclonedx;
mod facts;
mod licence;
mod relations;
mod spdx;

use std::collections::BTreeMap;

use serde_json::Value;
use spec::canonical::{CanonicalError, to_canonical_bytes};
use spec::digest::encode_hex;
use spec::lock::{Lock, Package};
use spec::manifest::Manifest;
use spec::time::Timestamp;
use spec::{Sha256Digest, release_date};

pub use copyright::{Licence, Stated, read as read_copyright};
pub use facts::Facts;
use relations::Relations;

/// The name of the SPDX document in an image directory.
pub const SPDX_FILE: &str = "sbom.spdx.json";
/// The name of the CycloneDX document in an image directory.
pub const CYCLONEDX_FILE: &str = "sbom.cdx.json";

/// What both documents say.
struct Bill<'a> {
    manifest: &'a Manifest,
    /// What is known of packages beside the lock, by name.
    facts: &'a BTreeMap<String, Facts>,
    /// The licences of packages, by name; absent where their copyright file is not for machines.
    licences: BTreeMap<&'a str, licence::Declared>,
    relations: Relations<'a>,
    created: Timestamp,
}

/// The documents about an image with this manifest, whose `documents` need not be complete: file names and bytes. The same
/// manifest, lock and packages give the same bytes.
pub fn documents(
    manifest: &Manifest,
    lock: &Lock,
    facts: &BTreeMap<String, Facts>,
) -> Result<[(&'static str, Vec<u8>); 2], CanonicalError> {
    let stated = |name: &str| copyright_of(name, facts).and_then(read_copyright);
    let licences = facts.keys().filter_map(|name| Some((name.as_str(), licence::declared(&stated(name)?)))).collect();
    let bill = Bill { manifest, facts, licences, relations: Relations::of(manifest, facts), created: created(lock) };
    Ok([(SPDX_FILE, spdx::document(&bill)?), (CYCLONEDX_FILE, cyclonedx::document(&bill)?)])
}

/// The copyright file of a package: its own, or that of the package whose documentation directory it links to (Debian Policy
/// 12.5).
fn copyright_of<'a>(name: &str, facts: &'a BTreeMap<String, Facts>) -> Option<&'a str> {
    let facts_of = facts.get(name)?;
    let elsewhere = || facts.get(facts_of.documented_by.as_deref()?)?.copyright.as_deref();
    facts_of.copyright.as_deref().or_else(elsewhere)
}

/// The date of the newest release file behind the lock: no clock is read, and what comes later cannot be in the image.
fn created(lock: &Lock) -> Timestamp {
    let dates = lock.release.iter().filter_map(|release| release_date::parse(&release.date));
    dates.max().and_then(Timestamp::from_seconds).unwrap_or(Timestamp::EPOCH)
}

/// The bytes of a document that names itself: `name` puts a UUID made of the rest's digest into it (RFC 9562, version 8).
fn named_by_content(mut document: Value, name: impl Fn(&mut Value, &str)) -> Result<Vec<u8>, CanonicalError> {
    let Sha256Digest(digest) = Sha256Digest::of(&to_canonical_bytes(&document)?);
    let hex = encode_hex(&digest);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    // Four bits for the version, two for the variant.
    let uuid = format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30));
    name(&mut document, &uuid);
    let mut bytes = to_canonical_bytes(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The source package with its version: `Source` of the control file, where it differs from the package (Debian Policy 5.6.1).
fn source(package: &Package, facts: Option<&Facts>) -> String {
    let field = facts.and_then(|facts| facts.field("Source")).unwrap_or(&package.name);
    match field.split_once(" (") {
        Some((name, version)) => format!("{name} {}", version.trim_end_matches(')')),
        None => format!("{field} {}", package.version),
    }
}

/// Whether a homepage is a URL that the formats take: some packages have prose there.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_the_package_unless_it_says_otherwise() {
        let package = Package {
            name: "libc6".to_owned(),
            version: "2.41-12+b1".to_owned(),
            architecture: "amd64".to_owned(),
            suite: "trixie".to_owned(),
            uses: Vec::new(),
            path: "pool/main/g/glibc/libc6.deb".to_owned(),
            size: 1,
            sha256: Sha256Digest::of(b""),
            scripts: Vec::new(),
        };
        let facts = |source: &str| Facts {
            control: crate::deb::Control { paragraph: format!("Source: {source}\n"), ..Default::default() },
            ..Facts::default()
        };
        assert_eq!(source(&package, None), "libc6 2.41-12+b1");
        assert_eq!(source(&package, Some(&facts("glibc"))), "glibc 2.41-12+b1");
        assert_eq!(source(&package, Some(&facts("glibc (2.41-12)"))), "glibc 2.41-12");
        assert_eq!(package.purl(), "pkg:deb/debian/libc6@2.41-12%2Bb1?arch=amd64&distro=trixie");
    }
}
