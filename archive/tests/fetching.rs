//! Locked packages arrive whole and right, or not at all, over networks and mirrors that fail in every usual way.

mod fixture;

use std::fs;
use std::sync::Mutex;

use archive::fetch::{FetchError, FetchReport, fetch_all};
use archive::{Mirror, Progress, Silent};
use fixture::server::{Answer, Server};
use fixture::{Archive, Deb, deb, write};
use spec::lock::Lock;
use spec::{Diagnostic as _, Outcome};
use store::{Begin, Kind};

/// Three packages, the first of them large enough to be cut.
fn debs() -> Vec<Deb> {
    let mut large = deb("large", "1+b1", "");
    large.content = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    vec![large, deb("middle", "1", ""), deb("small", "1:2~rc1", "")]
}

fn locked() -> (Archive, Lock) {
    let archive = Archive::new(&debs());
    let lock = archive.lock(&["large", "middle", "small"]).unwrap();
    (archive, lock)
}

fn assert_complete(archive: &Archive, lock: &Lock) {
    for (package, deb) in lock.package.iter().zip(debs()) {
        assert_eq!(archive.store().read(&package.sha256, package.size).unwrap(), deb.content);
    }
}

/// Only the index, which locking left there.
fn assert_nothing_kept(archive: &Archive) {
    let kinds: Vec<Kind> = archive.store().entries().unwrap().iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [Kind::Blob]);
}

#[derive(Default)]
struct Counter(Mutex<(u64, u64, Vec<String>)>);

impl Progress for Counter {
    fn start(&self, total_bytes: u64, files: usize) {
        assert_eq!(files, 3);
        self.0.lock().unwrap().0 = total_bytes;
    }
    fn advance(&self, bytes: u64) {
        self.0.lock().unwrap().1 += bytes;
    }
    fn rewind(&self, bytes: u64) {
        self.0.lock().unwrap().1 -= bytes;
    }
    fn finish_file(&self, name: &str) {
        self.0.lock().unwrap().2.push(name.to_owned());
    }
}

#[test]
fn a_directory_and_a_server_give_the_same() {
    let (archive, lock) = locked();
    let server = Server::start(archive.root(), |_| Answer::Serve);
    for mirror in [archive.mirror(), server.mirror()] {
        let counter = Counter::default();
        let report = fetch_all(&lock, &mirror, &archive.store(), &counter).unwrap();
        let total: u64 = lock.package.iter().map(|package| package.size).sum();
        assert_eq!(report, FetchReport { present: 0, fetched: 3, bytes: total });
        let (expected, counted, mut files) = counter.0.into_inner().unwrap();
        files.sort();
        assert_eq!(
            (expected, counted, files),
            (total, total, ["large", "middle", "small"].map(str::to_owned).to_vec())
        );
        assert_complete(&archive, &lock);
        let again = fetch_all(&lock, &mirror, &archive.store(), &Silent).unwrap();
        assert_eq!(again, FetchReport { present: 3, fetched: 0, bytes: 0 });
        archive.store().prune(store::Keep::Nothing).unwrap();
    }
    // `+` means a space to some servers: it is sent encoded, and what the test server decodes is the right name.
    assert!(server.requests_for("/pool/main/large_1+b1_all.deb").len() == 1);
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let (archive, lock) = locked();
    let server = Server::start(archive.root(), |request| match request.earlier {
        earlier if request.path.contains("large") && earlier < 2 => Answer::Cut(100_000),
        _ => Answer::Serve,
    });
    let counter = Counter::default();
    let report = fetch_all(&lock, &server.mirror(), &archive.store(), &counter).unwrap();
    assert_complete(&archive, &lock);
    let starts: Vec<_> = server.requests_for("large_1+b1_all.deb").iter().map(|request| request.from).collect();
    assert_eq!(starts, [None, Some(100_000), Some(200_000)]);
    let total: u64 = lock.package.iter().map(|package| package.size).sum();
    assert_eq!((report.bytes, counter.0.lock().unwrap().1), (total, total));
}

#[test]
fn a_server_that_always_starts_at_the_beginning_will_do() {
    let (archive, lock) = locked();
    let server = Server::start(archive.root(), |request| match request.earlier {
        0 if request.path.contains("large") => Answer::Cut(50_000),
        _ => Answer::ServeWhole,
    });
    fetch_all(&lock, &server.mirror(), &archive.store(), &Silent).unwrap();
    assert_complete(&archive, &lock);
}

#[test]
fn what_an_earlier_run_left_is_used_if_it_is_right_and_replaced_if_not() {
    let (archive, lock) = locked();
    let content = debs()[0].content.clone();
    let longer = [&content[..], b"too long"].concat();
    for (rest, requests) in [(&content[..1000], 1), (b"of another file", 2), (&longer, 1), (&content[..], 0)] {
        match archive.store().begin(&lock.package[0].sha256).unwrap() {
            Begin::Write(mut partial) => partial.append(rest).unwrap(),
            Begin::Present => panic!(),
        }
        let server = Server::start(archive.root(), |_| Answer::Serve);
        fetch_all(&lock, &server.mirror(), &archive.store(), &Silent).unwrap();
        assert_complete(&archive, &lock);
        assert_eq!(server.requests_for("large_1+b1_all.deb").len(), requests);
        archive.store().prune(store::Keep::Nothing).unwrap();
    }
}

#[test]
fn a_blob_damaged_on_the_disk_is_fetched_anew() {
    let (archive, lock) = locked();
    fetch_all(&lock, &archive.mirror(), &archive.store(), &Silent).unwrap();
    fs::write(archive.store().blob_path(&lock.package[1].sha256), b"damaged").unwrap();
    let report = fetch_all(&lock, &archive.mirror(), &archive.store(), &Silent).unwrap();
    assert_eq!((report.present, report.fetched), (2, 1));
    assert_complete(&archive, &lock);
}

#[test]
fn errors_that_pass_are_waited_out() {
    let (archive, lock) = locked();
    let server = Server::start(archive.root(), |request| match request.earlier {
        0 => Answer::Status(503),
        1 => Answer::Status(429),
        _ => Answer::Serve,
    });
    fetch_all(&lock, &server.mirror(), &archive.store(), &Silent).unwrap();
    assert_complete(&archive, &lock);
}

#[test]
fn errors_that_stay_are_reported_after_a_bounded_time() {
    let (archive, lock) = locked();
    for (answer, text) in [(Answer::Status(503), "503"), (Answer::Status(403), "403"), (Answer::Silence, "timeout")] {
        let tries = if matches!(answer, Answer::Status(403)) { 1 } else { 3 };
        let status = if let Answer::Status(status) = answer { Some(status) } else { None };
        let server = Server::start(archive.root(), move |_| status.map_or(Answer::Silence, Answer::Status));
        let start = std::time::Instant::now();
        let error = fetch_all(&lock, &server.mirror(), &archive.store(), &Silent).unwrap_err();
        assert_eq!(error.outcome(), Outcome::InputMismatch);
        let chain = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(chain.to_lowercase().contains(text), "{chain}");
        assert!(start.elapsed().as_secs() < 20);
        assert!(server.requests_for("large_1+b1_all.deb").len() <= tries);
        assert_nothing_kept(&archive);
    }
}

#[test]
fn packages_that_are_gone_are_all_named_and_the_others_fetched() {
    let (archive, lock) = locked();
    for name in ["large_1+b1", "small_1%3a2~rc1"] {
        fs::remove_file(archive.root().join(format!("pool/main/{name}_all.deb"))).unwrap();
    }
    let server = Server::start(archive.root(), |_| Answer::Serve);
    for mirror in [archive.mirror(), server.mirror()] {
        let error = fetch_all(&lock, &mirror, &archive.store(), &Silent).unwrap_err();
        assert_eq!(error.outcome(), Outcome::InputMismatch);
        let text = error.to_string();
        assert!(text.starts_with("the mirror no longer has 2 of"), "{text}");
        assert!(text.contains("large 1+b1 (trixie), small 1:2~rc1 (trixie)") && !text.contains("middle"), "{text}");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("`bullion lock RECIPE --update`")
                && hint.contains("25 Nov 2026")
                && hint.contains("BULLION_CACHE"),
            "{hint}"
        );
        assert!(matches!(error, FetchError::Gone { missing, .. } if missing.len() == 2));
        assert!(archive.store().has(&lock.package[1].sha256));
    }
}

#[test]
fn a_package_that_is_not_the_locked_one_is_refused_and_not_kept() {
    let (archive, lock) = locked();
    let path = archive.root().join(debs()[0].path());
    let good = fs::read(&path).unwrap();
    let mut swapped = good.clone();
    swapped[123] ^= 0x40;
    let one = Lock { package: vec![lock.package[0].clone()], ..lock.clone() };
    let server = Server::start(archive.root(), |_| Answer::Serve);
    for bad in [&swapped[..], &good[..1000], &[&good[..], b"and more"].concat(), b""] {
        write(&path, bad);
        for mirror in [archive.mirror(), server.mirror()] {
            let error = fetch_all(&one, &mirror, &archive.store(), &Silent).unwrap_err();
            assert_eq!(error.outcome(), Outcome::InputMismatch);
            assert!(matches!(&error, FetchError::Mismatch { name, .. } if name == "large"), "{error}");
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("expected"));
            assert_nothing_kept(&archive);
        }
    }
}

#[test]
fn a_full_disk_stops_the_download_with_advice() {
    let (archive, lock) = locked();
    for package in &lock.package {
        let path = archive.store().blob_path(&package.sha256);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // full(4): every write fails as on a full disk.
        std::os::unix::fs::symlink("/dev/full", format!("{}.part", path.display())).unwrap();
    }
    let error = fetch_all(&lock, &archive.mirror(), &archive.store(), &Silent).unwrap_err();
    assert_eq!(error.outcome(), Outcome::HostCannot);
    assert!(error.hint().unwrap().contains("no room"), "{error}");
    assert!(lock.package.iter().all(|package| !archive.store().has(&package.sha256)));
}

#[test]
fn a_mirror_directory_that_is_not_there_lacks_everything() {
    let (archive, lock) = locked();
    let mirror = Mirror::new("file:///nonexistent/mirror").unwrap();
    let error = fetch_all(&lock, &mirror, &archive.store(), &Silent).unwrap_err();
    assert!(matches!(error, FetchError::Gone { missing, .. } if missing.len() == 3));
}
