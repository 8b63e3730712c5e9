//! Locks a recipe from the host's mirror and fetches what is locked, with times: a way to try this crate by itself.
//!
//! `cargo run --example lock -- RECIPE CACHE [--fetch] [--mirror URL] [--keyring FILE] [--accept-expired SUITE]...`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use archive::{Mirror, Silent};
use spec::lock::Standing;
use spec::recipe::{RecipeFile, flatten};
use spec::{Diagnostic, SyntaxError};
use store::Store;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all_of = |name: &str| -> Vec<String> {
        arguments.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect()
    };
    let [recipe, cache, ..] = arguments.as_slice() else {
        eprintln!("usage: lock RECIPE CACHE [options]");
        std::process::exit(2);
    };
    let start = Instant::now();
    let recipe = check(read(recipe));
    let mirror = check(Mirror::find(all_of("--mirror").first().map(String::as_str)));
    let store = check(Store::open(Path::new(cache)));
    let options = archive::lock::Options {
        now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        keyring: all_of("--keyring").first().map(Into::into),
        accept_expired: BTreeSet::from_iter(all_of("--accept-expired")),
        standing: Standing::Published,
        held: Vec::new(),
    };
    let lock = check(archive::lock::resolve(&recipe, &mirror, &store, &options, &Silent));
    print!("{}", lock.to_text().unwrap_or_default());
    let bytes: u64 = lock.package.iter().map(|package| package.size).sum();
    eprintln!("locked {} packages, {bytes} bytes, in {:?}", lock.package.len(), start.elapsed());
    if arguments.iter().any(|argument| argument == "--fetch") {
        let start = Instant::now();
        let report = check(archive::fetch::fetch_all(&lock, &mirror, &store, &Silent));
        eprintln!("{report:?} in {:?}", start.elapsed());
    }
}

fn read(path: &str) -> Result<spec::recipe::Recipe, SyntaxError> {
    let text = std::fs::read_to_string(path).map_err(|error| SyntaxError::whole(path, error.to_string()))?;
    let file = RecipeFile::parse(path, &text)?;
    flatten(&[(path.to_owned(), text, file)])
}

fn check<T, E: Diagnostic>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            eprintln!("  because: {cause}");
            source = cause.source();
        }
        error.hint().into_iter().for_each(|hint| eprintln!("hint: {hint}"));
        std::process::exit(error.outcome().code().into())
    })
}
