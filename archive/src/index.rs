//! Package indexes (`Packages.xz`): fetched by the hash that the verified release file gives, kept in the cache, parsed.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::io::Read as _;

use liblzma::read::XzDecoder;
use spec::{Diagnostic, Outcome, Sha256Digest};
use store::{Store, StoreError};

use crate::control::{Paragraph, paragraphs};
use crate::fetch::{FetchError, Wanted, fetch_one};
use crate::mirror::Mirror;
use crate::progress::Progress;
use crate::release::VerifiedRelease;

/// The largest index, unpacked, that is read. Debian's main has 65 MB.
const MAX_BYTES: u64 = 1 << 30;

/// An index that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The release file lists no index for the component and architecture.
    #[error("the release file of suite {suite} lists no {path}")]
    NotListed {
        /// The suite.
        suite: String,
        /// The index.
        path: String,
    },
    /// The index cannot be fetched.
    #[error("fetching the package index of suite {suite}")]
    Fetch {
        /// The suite.
        suite: String,
        /// Why.
        source: Box<FetchError>,
    },
    /// The index cannot be read from the cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index does not unpack to text.
    #[error("the package index of suite {suite} cannot be unpacked: {reason}")]
    Packed {
        /// The suite.
        suite: String,
        /// Why.
        reason: String,
    },
    /// A paragraph lacks something, or says something that cannot be.
    #[error("the package index of suite {suite} is not understood: package \"{package}\" has no usable {field}")]
    Malformed {
        /// The suite.
        suite: String,
        /// The package, where it has a name.
        package: String,
        /// The field.
        field: &'static str,
    },
}

impl Diagnostic for IndexError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Fetch { source, .. } => source.outcome(),
            Self::Store(error) => error.outcome(),
            Self::NotListed { .. } | Self::Packed { .. } | Self::Malformed { .. } => Outcome::InputMismatch,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch { source, .. } if source.is_gone() => Some(
                "the mirror is being updated or incomplete: try again later, or another one with --mirror URL"
                    .to_owned(),
            ),
            Self::Fetch { source, .. } => source.hint(),
            Self::Store(error) => error.hint(),
            Self::NotListed { .. } => Some("check the components that the recipe names for this suite".to_owned()),
            Self::Packed { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// Fetches the index of one component of a suite, or takes it from the cache; its text.
pub(crate) fn fetch(
    mirror: &Mirror,
    store: &Store,
    release: &VerifiedRelease,
    component: &str,
    architecture: &str,
    progress: &dyn Progress,
) -> Result<String, IndexError> {
    let suite = release.record.suite.as_str();
    let directory = format!("{component}/binary-{architecture}");
    let listed = format!("{directory}/Packages.xz");
    let Some((size, sha256)) = release.files.get(&listed) else {
        return Err(IndexError::NotListed { suite: suite.to_owned(), path: listed });
    };
    let plain = format!("dists/{suite}/{listed}");
    let by_hash = format!("dists/{suite}/{directory}/by-hash/SHA256/{sha256}");
    let name = format!("{suite}/{listed}");
    if !store.has(sha256) {
        progress.start(*size, 1);
    }
    let get = |path: &str| fetch_one(&Wanted { name: &name, path, size: *size, sha256 }, mirror, store, progress);
    let fetched = match if release.by_hash { get(&by_hash) } else { get(&plain) } {
        // A copy of a mirror often lacks the by-hash directories.
        Err(error) if release.by_hash && error.is_gone() => get(&plain),
        other => other,
    };
    fetched.map_err(|source| IndexError::Fetch { suite: suite.to_owned(), source: Box::new(source) })?;
    unpack(&store.read(sha256, *size)?).map_err(|reason| IndexError::Packed { suite: suite.to_owned(), reason })
}

fn unpack(packed: &[u8]) -> Result<String, String> {
    let mut text = String::new();
    let read = XzDecoder::new_multi_decoder(packed).take(MAX_BYTES + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 > MAX_BYTES => Err(format!("it is larger than {MAX_BYTES} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

/// One package as an index describes it. Relation fields are unparsed text: few of 70000 packages are ever looked at.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub architecture: &'a str,
    pub depends: &'a str,
    pub pre_depends: &'a str,
    pub provides: &'a str,
    pub conflicts: &'a str,
    pub breaks: &'a str,
    pub path: &'a str,
    pub size: u64,
    pub sha256: Sha256Digest,
    pub installed_kib: u64,
    /// `Multi-Arch: allowed`: relations with `:any` may mean this package.
    pub for_any: bool,
}

/// Reads an index; packages that run on another architecture are left out.
pub(crate) fn parse<'a>(text: &'a str, suite: &str, architecture: &str) -> Result<Vec<Record<'a>>, IndexError> {
    let mut records = Vec::new();
    for paragraph in paragraphs(text) {
        let (name, read) = record(paragraph);
        let record =
            read.map_err(|field| IndexError::Malformed { suite: suite.to_owned(), package: name.to_owned(), field })?;
        if record.architecture == architecture || record.architecture == "all" {
            records.push(record);
        }
    }
    Ok(records)
}

/// Reads one paragraph; its name, for messages, and the record or the name of the field at fault.
fn record(paragraph: Paragraph<'_>) -> (&str, Result<Record<'_>, &'static str>) {
    let (mut name, mut version, mut architecture, mut path) = ("", "", "", "");
    let (mut depends, mut pre_depends, mut provides, mut conflicts, mut breaks) = ("", "", "", "", "");
    let (mut size, mut sha256, mut installed, mut multi_arch) = ("", "", "", "");
    for (field, value) in paragraph.fields() {
        // The archive writes field names one way only.
        match field {
            "Package" => name = value,
            "Version" => version = value,
            "Architecture" => architecture = value,
            "Depends" => depends = value,
            "Pre-Depends" => pre_depends = value,
            "Provides" => provides = value,
            "Conflicts" => conflicts = value,
            "Breaks" => breaks = value,
            "Filename" => path = value,
            "Size" => size = value,
            "SHA256" => sha256 = value,
            "Installed-Size" => installed = value,
            "Multi-Arch" => multi_arch = value,
            _ => {}
        }
    }
    let clean =
        !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\\');
    let checked = || {
        if name.is_empty() {
            return Err("Package");
        }
        if version.is_empty() {
            return Err("Version");
        }
        if architecture.is_empty() {
            return Err("Architecture");
        }
        // A path like ../../etc would be read outside a mirror that is a directory.
        let path = Some(path).filter(|_| clean).ok_or("Filename")?;
        let size = size.parse().map_err(|_| "Size")?;
        let sha256 = sha256.parse().map_err(|_| "SHA256")?;
        let installed_kib = installed.parse().unwrap_or(0);
        Ok(Record {
            name,
            version,
            architecture,
            depends,
            pre_depends,
            provides,
            conflicts,
            breaks,
            path,
            size,
            sha256,
            installed_kib,
            for_any: multi_arch == "allowed",
        })
    };
    (name, checked())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn paragraph(path: &str, size: &str) -> String {
        format!("Package: a\nVersion: 1\nArchitecture: all\nFilename: {path}\nSize: {size}\nSHA256: {DIGEST}\n")
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(parse(&paragraph("pool/a.deb", "1"), "s", "amd64").unwrap().len(), 1);
        for (text, field) in [
            (paragraph("/etc/passwd", "1"), "Filename"),
            (paragraph("pool/../../x", "1"), "Filename"),
            (paragraph("pool/a.deb", "-1"), "Size"),
            (paragraph("pool/a.deb", "1").replace(DIGEST, "00"), "SHA256"),
            (paragraph("pool/a.deb", "1").replace("Package: a\n", ""), "Package"),
        ] {
            let error = parse(&text, "s", "amd64").unwrap_err();
            assert!(matches!(&error, IndexError::Malformed { field: found, .. } if *found == field), "{error}");
        }
    }

    #[test]
    fn other_architectures_are_left_out() {
        let text = paragraph("pool/a.deb", "1").replace("all", "arm64");
        assert!(parse(&text, "s", "amd64").unwrap().is_empty());
    }

    #[test]
    fn what_is_not_xz_is_refused() {
        assert!(unpack(b"not xz at all").is_err());
        assert!(unpack(b"").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "((Package|Version|Size|Filename|SHA256|Depends):[ a-z0-9/.]{0,9}\n{1,2}){0,12}", noise in ".{0,80}") {
            let _ = (parse(&text, "s", "amd64").is_ok(), parse(&noise, "s", "amd64").is_ok());
        }

        #[test]
        fn any_bytes_are_unpacked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = vec![0xfd, b'7', b'z', b'X', b'Z', 0];
            framed.extend(&bytes);
            let _ = (unpack(&bytes), unpack(&framed));
        }
    }
}
