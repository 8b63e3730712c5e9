//! `bullion fetch`: download what locks name into the cache, and nothing else.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use archive::{Mirror, Progress, fetch};
use spec::Outcome;
use spec::lock::Lock;
use store::Store;

use crate::args::{Arguments, Fetch};
use crate::component::Locked;
use crate::failure::Failure;
use crate::inputs;
use crate::printer::{Printer, size};

pub(crate) fn run(arguments: &Arguments, verb: &Fetch, printer: &Printer) -> Result<u8, Failure> {
    if verb.recipes.is_empty() && !verb.vmm {
        return Err(
            Failure::new(Outcome::Usage, "nothing to fetch").with_hint("name a recipe, or --vmm for the QEMU tree")
        );
    }
    let Locked { mut locks, crates, sources } = Locked::by(&verb.recipes)?;
    if verb.vmm {
        locks.push(inputs::pinned_vmm()?.1.lock);
    }
    let store = inputs::open_store(arguments)?;
    let missing = |lock: &Lock| lock.package.iter().any(|package| !store.has(&package.sha256));
    // Without anything missing, no mirror is needed: a host without a network can still say so.
    let mirror = if locks.iter().any(missing) { Some(Mirror::find(verb.network.mirror.as_deref())?) } else { None };
    let mut total = Total::default();
    for lock in &locks {
        if let Some(mirror) = mirror.as_ref().filter(|_| missing(lock)) {
            let report = fetch_lock(lock, mirror, &store, printer)?;
            total.fetched += report.fetched;
            total.bytes += report.bytes;
        }
        total.packages += lock.package.len();
    }
    let (fetched, bytes) = archive::fetch_crates(&crates, &store)?;
    total.fetched += fetched;
    total.bytes += bytes;
    total.crates = crates.len();
    let report = Bar::default().draw(printer, |progress| archive::fetch_sources(&sources, &store, progress))?;
    total.fetched += report.fetched;
    total.bytes += report.bytes;
    total.source_files = sources.len();
    let more = |count: usize, what: &str| if count == 0 { String::new() } else { format!(" and {count} {what}") };
    printer.line(format_args!(
        "{} packages{}{} in the cache, {} fetched ({})",
        total.packages,
        more(total.crates, "crates"),
        more(total.source_files, "published files"),
        total.fetched,
        size(total.bytes)
    ));
    printer.value(&total);
    Ok(0)
}

#[derive(Default, serde::Serialize)]
struct Total {
    packages: usize,
    crates: usize,
    source_files: usize,
    fetched: usize,
    bytes: u64,
}

/// Downloads one lock's packages with a progress bar.
pub(crate) fn fetch_lock(
    lock: &Lock,
    mirror: &Mirror,
    store: &Store,
    printer: &Printer,
) -> Result<fetch::FetchReport, Failure> {
    Ok(Bar::default().draw(printer, |progress| fetch::fetch_all(lock, mirror, store, progress))?)
}

/// A progress bar that a download on other threads moves.
#[derive(Default)]
pub(crate) struct Bar {
    sender: Mutex<Option<Sender<Step>>>,
}

enum Step {
    Start(u64, usize),
    Advance(u64),
    Rewind(u64),
}

impl Bar {
    /// Runs `work` on another thread while this one draws what it tells.
    pub(crate) fn draw<T: Send>(&self, printer: &Printer, work: impl FnOnce(&dyn Progress) -> T + Send) -> T {
        let (sender, steps) = channel();
        *self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sender);
        let result = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let result = work(self);
                // Ends the loop below.
                self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                result
            });
            for step in steps {
                match step {
                    Step::Start(bytes, files) => printer.start_bar(bytes, files),
                    Step::Advance(bytes) => printer.advance_bar(bytes),
                    Step::Rewind(bytes) => printer.rewind_bar(bytes),
                }
            }
            match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        printer.end_bar();
        result
    }

    fn tell(&self, step: Step) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            let _ = sender.send(step);
        }
    }
}

impl Progress for Bar {
    fn start(&self, total_bytes: u64, files: usize) {
        self.tell(Step::Start(total_bytes, files));
    }
    fn advance(&self, bytes: u64) {
        self.tell(Step::Advance(bytes));
    }
    fn rewind(&self, bytes: u64) {
        self.tell(Step::Rewind(bytes));
    }
}
