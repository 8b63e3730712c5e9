//! `bullion lock`: resolve a recipe, pin every input by SHA-256, and download them.

mod driver;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use archive::{Mirror, lock};
use spec::lock::Standing;

use super::fetch::{Bar, fetch_lock};
use crate::args::{Arguments, Lock};
use crate::component;
use crate::failure::Failure;
use crate::inputs::{self, LoadedRecipe};
use crate::printer::{Printer, size};

pub(crate) fn run(arguments: &Arguments, verb: &Lock, printer: &Printer) -> Result<u8, Failure> {
    let loaded = inputs::recipe(&verb.recipe)?;
    let path = verb.output.clone().unwrap_or_else(|| inputs::lock_path(&verb.recipe));
    let old = read_old(&path, verb, printer)?;
    let fits = old.as_ref().is_some_and(|old| old.recipe_sha256 == loaded.recipe.lock_digest());
    let store = inputs::open_store(arguments)?;
    let lock = match old.clone() {
        Some(old) if fits && verb.update.is_empty() && !verb.diff => {
            printer.note(format_args!("{} fits its recipe and is kept (--update resolves again)", path.display()));
            old
        }
        _ => {
            let mirror = Mirror::find(verb.network.mirror.as_deref())?;
            let held = held(verb, old.as_ref(), &loaded, &store)?;
            let lock = resolve(verb, &loaded, held, &mirror, &store, printer)?;
            driver::check(&lock, component::source_files(&loaded)?)?;
            let before =
                old.unwrap_or_else(|| spec::lock::Lock { package: Vec::new(), release: Vec::new(), ..lock.clone() });
            let diff = archive::diff(&before, &lock);
            printer.line(&diff);
            for older in &diff.rolled_back {
                printer.warning(older);
            }
            if verb.diff {
                printer.value(&lock);
                return Ok(0);
            }
            write(&path, &lock)?;
            lock
        }
    };
    let mut lock = lock;
    // Files that are named by digest are no part of the lock, and may be others than when it was made.
    if let Some(note) = driver::check(&lock, component::source_files(&loaded)?)? {
        printer.note(note);
    }
    // Without anything missing, no mirror is needed.
    if !verb.no_fetch && lock.package.iter().any(|package| !store.has(&package.sha256)) {
        let mirror = Mirror::find(verb.network.mirror.as_deref())?;
        fetch_lock(&lock, &mirror, &store, printer)?;
    }
    answer_scripts(&mut lock, &path, &loaded, &store, printer)?;
    let bytes: u64 = lock.package.iter().map(|package| package.size).sum();
    printer.line(format_args!("{}: {} packages, {}", path.display(), lock.package.len(), size(bytes)));
    if lock.standing == Standing::Unpublished {
        printer.warning("this lock is UNPUBLISHED: what is built from it is never called golden");
    }
    printer.value(&lock);
    Ok(0)
}

/// Writes into the lock how the packages' maintainer scripts are answered, which takes the packages themselves, and warns
/// of those that nobody has answered.
fn answer_scripts(
    lock: &mut spec::lock::Lock,
    path: &Path,
    loaded: &LoadedRecipe,
    store: &store::Store,
    printer: &Printer,
) -> Result<(), Failure> {
    let before = lock.clone();
    let unread = image::scripts::record(lock, &loaded.recipe, store)?;
    if *lock != before {
        write(path, lock)?;
    }
    if unread > 0 {
        printer.note(format_args!(
            "the maintainer scripts of {unread} packages that are not in the cache were not read: lock again after `bullion fetch`"
        ));
    }
    for open in image::scripts::unanswered(lock) {
        printer.warning(format_args!(
            "nothing is known of the {open}, which does not run: read it, and say in the recipe [scripts.{}] ignore = \"why nothing is missing\"",
            open.package
        ));
    }
    Ok(())
}

/// The lock that is there. One that cannot be read stops the verb, unless it is to be replaced anyway.
fn read_old(path: &Path, verb: &Lock, printer: &Printer) -> Result<Option<spec::lock::Lock>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    match spec::lock::Lock::parse(&path.display().to_string(), &inputs::read_text(path)?) {
        Ok(old) => Ok(Some(old)),
        Err(error) if verb.update.iter().any(String::is_empty) => {
            printer.warning(format_args!("{error}: the lock cannot be read and is replaced"));
            Ok(None)
        }
        Err(error) => {
            Err(Failure::from(error).with_hint(format!("run: bullion lock {} --update", verb.recipe.display())))
        }
    }
}

/// With `--update=PACKAGE`: what stays as it is locked. What each of these packages needs is read from the package itself,
/// because the archive may have another version by now.
fn held(
    verb: &Lock,
    old: Option<&spec::lock::Lock>,
    loaded: &LoadedRecipe,
    store: &store::Store,
) -> Result<Vec<lock::Held>, Failure> {
    let Some(old) = old.filter(|_| !verb.update.is_empty() && !verb.update.iter().any(String::is_empty)) else {
        return Ok(Vec::new());
    };
    if let Some(unknown) = verb.update.iter().find(|name| !old.package.iter().any(|package| package.name == **name)) {
        let message = format!("--update={unknown} names no package of the lock");
        return Err(Failure::new(spec::Outcome::Usage, message));
    }
    let stays = |package: &&spec::lock::Package| {
        !verb.update.contains(&package.name) && loaded.recipe.suites.contains_key(&package.suite)
    };
    let read = |package: &spec::lock::Package| {
        let deb = store.read(&package.sha256, package.size)?;
        let control = image::deb::read_control(&deb)?.paragraph;
        Ok(lock::Held { package: package.clone(), control })
    };
    old.package.iter().filter(stays).map(read).collect()
}

fn resolve(
    verb: &Lock,
    loaded: &LoadedRecipe,
    held: Vec<lock::Held>,
    mirror: &Mirror,
    store: &store::Store,
    printer: &Printer,
) -> Result<spec::lock::Lock, Failure> {
    let options = lock::Options {
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
        keyring: verb.keyring.clone(),
        accept_expired: verb.accept_expired.iter().cloned().collect(),
        standing: if verb.unpublished { Standing::Unpublished } else { Standing::Published },
        held,
    };
    let bar = Bar::default();
    let lock = bar.draw(printer, |progress| lock::resolve(&loaded.recipe, mirror, store, &options, progress))?;
    for release in lock.release.iter().filter(|release| release.expired) {
        printer.warning(format_args!(
            "the release file of {} of {} is past its Valid-Until, or signed by keys that have run out since; accepted, and recorded in the lock",
            release.suite, release.date
        ));
    }
    Ok(lock)
}

fn write(path: &Path, lock: &spec::lock::Lock) -> Result<(), Failure> {
    let text = lock
        .to_text()
        .map_err(|error| Failure::new(spec::Outcome::Internal, format!("writing {}: {error}", path.display())))?;
    Ok(store::write_atomically(path, text.as_bytes())?)
}
