//! Builds an image from a folder of .deb files, without a lock file and with times: for development and benchmarks.
//!
//! `build_from_debs RECIPE DEBS CACHE OUTPUT GUEST [JOBS]`. Which packages are used for what is guessed from their names.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use spec::lock::{Lock, Package, Standing, Use};
use spec::recipe::{Recipe, RecipeFile, flatten};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe_file, debs, cache, output, guest, rest @ ..] = arguments.as_slice() else {
        return Err("usage: build_from_debs RECIPE DEBS CACHE OUTPUT GUEST [JOBS]".into());
    };
    let text = std::fs::read_to_string(recipe_file)?;
    let recipe = flatten(&[(recipe_file.clone(), text.clone(), RecipeFile::parse(recipe_file, &text)?)])?;
    let store = store::Store::open(Path::new(cache))?;
    let lock = lock(&recipe, Path::new(debs), &store)?;
    let lock_text = lock.to_text()?;
    let guest = std::fs::read(guest)?;
    let jobs = rest.first().map_or(Ok(2), |jobs| jobs.parse())?;
    let start = Instant::now();
    let staged = image::build(
        &image::BuildRequest {
            recipe: &recipe,
            recipe_dir: Path::new(recipe_file).parent().unwrap_or(Path::new(".")),
            lock: &lock,
            lock_text: &lock_text,
            guest: image::Guest { bytes: &guest, component: None },
            kernel: None,
            output: Path::new(output),
            jobs,
            replace: true,
            parts: &[],
            believe_cache: false,
        },
        &store,
    )?;
    let manifest = staged.commit()?;
    println!("built in {:?}", start.elapsed());
    for (name, artifact) in &manifest.artifacts {
        println!("{name:18} {:>10} {}", artifact.size, artifact.sha256);
    }
    println!("root hash {} of {} blocks", manifest.verity.root_hash, manifest.verity.data_blocks);
    Ok(())
}

fn lock(recipe: &Recipe, debs: &Path, store: &store::Store) -> Result<Lock, Box<dyn Error>> {
    let mut package = Vec::new();
    for entry in std::fs::read_dir(debs)? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        let deb = image::deb::read(&bytes)?;
        let mut uses = Vec::new();
        if recipe.packages.iter().any(|wanted| wanted.name == deb.name) {
            uses.push(Use::Tree);
        }
        if deb.name.starts_with("linux-") {
            uses.push(Use::Kernel);
        }
        if deb.name.starts_with("ovmf") {
            uses.push(Use::Firmware);
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        package.push(Package {
            path: format!("pool/{file}"),
            suite: "debs".to_owned(),
            size: bytes.len() as u64,
            sha256: store.insert_bytes(&bytes)?,
            scripts: Vec::new(),
            name: deb.name,
            version: deb.version,
            architecture: deb.architecture,
            uses,
        });
    }
    package.sort_by(|a, b| a.name.cmp(&b.name));
    let release = Vec::new();
    let recipe_sha256 = recipe.lock_digest();
    Ok(Lock {
        schema: 1,
        recipe: recipe.name.clone(),
        recipe_sha256,
        standing: Standing::Unpublished,
        release,
        package,
    })
}
