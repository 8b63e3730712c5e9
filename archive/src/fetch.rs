//! Bringing locked inputs into the cache: in parallel, resumable, each file verified before it counts.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use spec::lock::{Lock, Package};
use spec::{Diagnostic, Outcome, Sha256Digest};
use store::{Begin, PartialBlob, Store, StoreError};

use crate::mirror::Mirror;
use crate::progress::Progress;
use crate::transport::TransportError;

/// How many files are fetched at the same time.
pub const CONNECTIONS: usize = 4;

/// Locked inputs that did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The mirror no longer has some of them. All of them are named.
    // Scripts tell this from other failures with the same exit code by how it begins: "the mirror no longer has".
    #[error(
        "the mirror no longer has {} of the locked packages: {}",
        missing.len(),
        missing.iter().map(|package| format!("{} {} ({})", package.name, package.version, package.suite)).collect::<Vec<_>>().join(", ")
    )]
    Gone {
        /// What is gone.
        missing: Vec<Package>,
        /// The dates of the release files that the lock was made from.
        dates: Vec<String>,
    },
    /// What the mirror serves is not what was locked. It was not kept.
    #[error("the mirror's copy of {name} is not what was locked ({url})")]
    Mismatch {
        /// The package, or the index.
        name: String,
        /// Where it was read from.
        url: String,
        /// What is different.
        source: Box<StoreError>,
    },
    /// A file cannot be read from the mirror.
    #[error("fetching {name}")]
    Transport {
        /// The package, or the index.
        name: String,
        /// Why.
        source: TransportError,
    },
    /// The cache cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    /// Whether the mirror does not have the one file that was asked for.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Transport { source: TransportError::Gone { .. }, .. })
    }
}

impl Diagnostic for FetchError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Gone { .. } | Self::Mismatch { .. } => Outcome::InputMismatch,
            Self::Transport { source, .. } => source.outcome(),
            Self::Store(error) => error.outcome(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Gone { dates, .. } => Some(format!(
                "Debian removes superseded versions within days. Lock again with `bullion lock RECIPE --update`, or name a snapshot mirror of {} with --mirror URL, or point BULLION_CACHE to a cache that has them",
                dates.last().map_or("the lock's date", String::as_str)
            )),
            Self::Mismatch { .. } => Some(
                "the mirror is damaged or somebody changed the file: name another mirror with --mirror URL".to_owned(),
            ),
            Self::Transport { source, .. } => source.hint(),
            Self::Store(error) => error.hint(),
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Files that were in the cache already.
    pub present: usize,
    /// Files that were fetched.
    pub fetched: usize,
    /// Bytes that came over the network.
    pub bytes: u64,
}

/// A file to be fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub name: &'a str,
    pub path: &'a str,
    pub size: u64,
    pub sha256: &'a Sha256Digest,
}

/// Brings every package of a lock into the cache.
///
/// Packages that are gone from the mirror do not stop the others, so that the error names all of them; anything else that
/// goes wrong stops the rest. What has arrived by then stays in the cache.
pub fn fetch_all(
    lock: &Lock,
    mirror: &Mirror,
    store: &Store,
    progress: &dyn Progress,
) -> Result<FetchReport, FetchError> {
    // Two names can be one file. The largest go first, so that no connection is left alone with one at the end.
    let mut seen = BTreeSet::new();
    let mut packages: Vec<&Package> = lock.package.iter().filter(|package| seen.insert(package.sha256)).collect();
    packages.sort_by_key(|package| (std::cmp::Reverse(package.size), package.sha256));
    let absent: Vec<&&Package> = packages.iter().filter(|package| !store.has(&package.sha256)).collect();
    progress.start(absent.iter().map(|package| package.size).sum(), absent.len());

    let next = AtomicUsize::new(0);
    let outcome = Mutex::new((FetchReport::default(), Vec::new(), None));
    let work = || {
        while let Some(package) = packages.get(next.fetch_add(1, Ordering::Relaxed)) {
            let wanted =
                Wanted { name: &package.name, path: &package.path, size: package.size, sha256: &package.sha256 };
            let result = fetch_one(&wanted, mirror, store, progress);
            let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (report, missing, failure) = &mut *outcome;
            match result {
                Ok(None) => report.present += 1,
                Ok(Some(bytes)) => {
                    report.fetched += 1;
                    report.bytes += bytes;
                }
                Err(error) if error.is_gone() => {
                    missing.push((*package).clone());
                }
                Err(error) => {
                    next.store(packages.len(), Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..CONNECTIONS.min(packages.len())).for_each(|_| drop(scope.spawn(work))));

    let (report, mut missing, failure) = outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(error) = failure {
        return Err(error);
    }
    if !missing.is_empty() {
        missing.sort_by(|a, b| a.name.cmp(&b.name));
        return Err(FetchError::Gone { missing, dates: lock.release.iter().map(|one| one.date.clone()).collect() });
    }
    Ok(report)
}

/// Brings one file into the cache; how many bytes came over the network, `None` if it was there already.
pub(crate) fn fetch_one(
    wanted: &Wanted<'_>,
    mirror: &Mirror,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Option<u64>, FetchError> {
    let mut failures = 0;
    let (mut received, mut reached) = (0, 0);
    loop {
        let mut partial = match store.begin(wanted.sha256)? {
            Begin::Write(partial) => partial,
            Begin::Present => match store.verify(wanted.sha256, wanted.size) {
                Ok(_) => return Ok((received > 0).then_some(received)),
                // Damaged on the disk: fetch it anew.
                Err(StoreError::Size { .. } | StoreError::Digest { .. }) => {
                    store.discard(wanted.sha256)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            },
        };
        let resumed = partial.length() > 0;
        progress.advance(partial.length());
        match transfer(wanted, mirror, &mut partial, &mut received, progress) {
            Ok(()) => {}
            Err(FetchError::Transport { name, source }) if source.is_passing() => {
                // An attempt that got further than any before is not counted as a failure: a large file over a bad line.
                if partial.length() > reached {
                    (reached, failures) = (partial.length(), 0);
                }
                progress.rewind(partial.length());
                // Whoever else wants the file may try during the pause.
                drop(partial);
                if mirror.may_retry(&mut failures) {
                    continue;
                }
                return Err(FetchError::Transport { name, source });
            }
            Err(error) => return Err(error),
        }
        let length = partial.length();
        match partial.commit(wanted.size) {
            Ok(_) => {
                progress.finish_file(wanted.name);
                return Ok(Some(received));
            }
            // The part from an earlier attempt may have been another file's: once more, from the start.
            Err(StoreError::Size { .. } | StoreError::Digest { .. }) if resumed => progress.rewind(length),
            Err(source @ (StoreError::Size { .. } | StoreError::Digest { .. })) => {
                let url = mirror.url(wanted.path);
                return Err(FetchError::Mismatch { name: wanted.name.to_owned(), url, source: Box::new(source) });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads what is missing of a file, and at most one piece more than its size.
fn transfer(
    wanted: &Wanted<'_>,
    mirror: &Mirror,
    partial: &mut PartialBlob,
    received: &mut u64,
    progress: &dyn Progress,
) -> Result<(), FetchError> {
    let transport = |source| FetchError::Transport { name: wanted.name.to_owned(), source };
    if partial.length() > wanted.size {
        progress.rewind(partial.length());
        partial.restart()?;
    }
    if partial.length() == wanted.size && wanted.size > 0 {
        return Ok(());
    }
    let mut body = mirror.open(wanted.path, partial.length()).map_err(transport)?;
    if body.offset != partial.length() {
        progress.rewind(partial.length());
        partial.restart()?;
        if body.offset != 0 {
            body = mirror.open(wanted.path, 0).map_err(transport)?;
        }
    }
    let mut buffer = vec![0; 64 << 10];
    while partial.length() <= wanted.size {
        let read = match body.reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(transport(TransportError::Broken { url: mirror.url(wanted.path), source: error.into() }));
            }
        };
        partial.append(buffer.get(..read).unwrap_or_default())?;
        *received += read as u64;
        progress.advance(read as u64);
    }
    Ok(())
}
