//! Files that somebody else publishes and a component is compiled from: by address, and by digest. No index and no signature stands behind
//! them, so the digest in the recipe is all there is; where they come from does not matter.

use spec::recipe::SourceFile;
use spec::{Diagnostic, Outcome};
use store::Store;

use crate::fetch::{FetchError, FetchReport, Wanted, fetch_one};
use crate::mirror::{Mirror, MirrorError, Patience};
use crate::progress::Progress;

/// A published file that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody can ask for it there.
    #[error("the address {url} is none")]
    Address {
        /// The address.
        url: String,
        /// Why.
        source: MirrorError,
    },
    /// It is neither in the cache nor where it was published.
    #[error("{} is not in the cache, and cannot be had from {}", file.name(), file.url)]
    Fetch {
        /// The file.
        file: Box<SourceFile>,
        /// Why.
        source: FetchError,
    },
}

impl Diagnostic for SourceError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Address { source, .. } => source.outcome(),
            Self::Fetch { source, .. } => source.outcome(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch { file, source: FetchError::Transport { .. } | FetchError::Mismatch { .. } } => Some(format!(
                "get the file with SHA-256 {} in another way, and give it to the cache: bullion cache add {}",
                file.sha256,
                file.name()
            )),
            Self::Fetch { source, .. } => source.hint(),
            Self::Address { .. } => None,
        }
    }
}

/// Brings published files into the cache, one after the other.
pub fn fetch_sources(
    wanted: &[SourceFile],
    store: &Store,
    progress: &dyn Progress,
) -> Result<FetchReport, SourceError> {
    let absent: Vec<&SourceFile> = wanted.iter().filter(|file| !store.has(&file.sha256)).collect();
    progress.start(absent.iter().map(|file| file.size).sum(), absent.len());
    let mut report = FetchReport { present: wanted.len() - absent.len(), ..FetchReport::default() };
    for file in absent {
        report.bytes += fetch(file, Patience::default(), store, progress)?;
        report.fetched += 1;
    }
    Ok(report)
}

fn fetch(file: &SourceFile, patience: Patience, store: &Store, progress: &dyn Progress) -> Result<u64, SourceError> {
    let (base, path) = file.url.rsplit_once('/').unwrap_or((&file.url, ""));
    let address = |source| SourceError::Address { url: file.url.clone(), source };
    let publisher = Mirror::new(base).map_err(address)?.with_patience(patience);
    let wanted = Wanted { name: path, path, size: file.size, sha256: &file.sha256 };
    let fetched = fetch_one(&wanted, &publisher, store, progress);
    Ok(fetched.map_err(|source| SourceError::Fetch { file: Box::new(file.clone()), source })?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use spec::Sha256Digest;

    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_published_file_comes_from_its_address_or_is_given_to_the_cache() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("cache")).unwrap();
        let file = |name: &str, content: &[u8]| SourceFile {
            url: format!("file://{}/{name}", place.path().display()),
            size: content.len() as u64,
            sha256: Sha256Digest::of(content),
            licence: "MIT".to_owned(),
        };
        fs::write(place.path().join("a.run"), "driver").unwrap();
        let wanted = [file("a.run", b"driver")];
        let report = fetch_sources(&wanted, &store, &Silent).unwrap();
        assert_eq!((report.present, report.fetched, report.bytes), (0, 1, 6));
        assert_eq!(fetch_sources(&wanted, &store, &Silent).unwrap().present, 1, "it is in the cache now");

        let other = fetch_sources(&[file("a.run", b"drover")], &store, &Silent).unwrap_err();
        assert!(matches!(&other, SourceError::Fetch { source: FetchError::Mismatch { .. }, .. }), "{other:?}");
        let absent = file("b.run", b"other");
        let error = fetch_sources(std::slice::from_ref(&absent), &store, &Silent).unwrap_err();
        assert_eq!(error.outcome(), Outcome::InputMismatch);
        let hint = error.hint().unwrap();
        assert!(hint.contains(&absent.sha256.to_string()) && hint.ends_with("bullion cache add b.run"), "{hint}");
        store.insert_bytes(b"other").unwrap();
        assert_eq!(fetch_sources(&[absent], &store, &Silent).unwrap().present, 1);
    }

    #[test]
    fn an_address_that_nobody_answers_says_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let (url, sha256) = ("http://127.0.0.1:9/driver.run".to_owned(), Sha256Digest::of(b"x"));
        let file = SourceFile { url, size: 1, sha256, licence: "MIT".to_owned() };
        let once = Patience { attempts: 1, first_pause: Duration::ZERO, silence: Duration::from_secs(2) };
        let error = fetch(&file, once, &store, &Silent).unwrap_err();
        assert!(
            error.to_string().starts_with("driver.run is not in the cache, and cannot be had from http://127.0.0.1:9/")
        );
        assert!(error.hint().unwrap().ends_with("bullion cache add driver.run"));
    }
}
