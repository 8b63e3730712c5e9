//! Unpacks a tree of tools from a lock and a filled cache, and times the checks: for development and benchmarks.
//!
//! `unpack_tree RECIPE LOCK CACHE [JOBS]`.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use spec::Sha256Digest;
use spec::lock::Lock;
use spec::recipe::{RecipeFile, flatten};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe_file, lock_file, cache, rest @ ..] = arguments.as_slice() else {
        return Err("usage: unpack_tree RECIPE LOCK CACHE [JOBS]".into());
    };
    let text = std::fs::read_to_string(recipe_file)?;
    let recipe = flatten(&[(recipe_file.clone(), text.clone(), RecipeFile::parse(recipe_file, &text)?)])?;
    let lock_text = std::fs::read_to_string(lock_file)?;
    let lock = Lock::parse(lock_file, &lock_text)?;
    let store = store::Store::open(Path::new(cache))?;
    let jobs = rest.first().map_or(Ok(2), |jobs| jobs.parse())?;
    let start = Instant::now();
    let tree = image::unpack_tree(&recipe, &lock, &Sha256Digest::of(lock_text.as_bytes()), &store, jobs)?;
    println!("{} after {:?}", tree.root().display(), start.elapsed());
    let start = Instant::now();
    tree.verify_quick()?;
    println!("quick check {:?}", start.elapsed());
    let start = Instant::now();
    tree.verify_full()?;
    println!("full check {:?}", start.elapsed());
    Ok(())
}
