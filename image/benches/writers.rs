//! Times the writers, dm-verity beside `veritysetup` where `BULLION_TOOLS` has it: `cargo bench -p bullion-image`.
//!
//! Each number is the best of five runs on data that is in memory already, so that the disk does not decide.
#![allow(clippy::print_stdout, clippy::cast_possible_truncation, reason = "it is a program; sizes are small")]

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::erofs::Image;
use image::tree::{Node, Tree};
use image::verity;

const MIB: usize = 1 << 20;
const DATA_MIB: usize = 256;
const SALT: [u8; 32] = [7; 32];

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    verity_tree(directory.path())?;
    erofs_image()?;
    initrd_compression()
}

fn best_of_five<T>(mut run: impl FnMut() -> Result<T, Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn report(what: &str, mib: usize, time: Duration) {
    println!("{what:32} {:>8.1} ms {:>8.0} MiB/s", time.as_secs_f64() * 1e3, mib as f64 / time.as_secs_f64());
}

/// Bytes without a pattern that a codec or a cache could use.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn verity_tree(directory: &Path) -> Result<(), Box<dyn Error>> {
    let path = directory.join("data");
    std::fs::write(&path, noise(DATA_MIB * MIB))?;
    let blocks = (DATA_MIB * MIB / verity::BLOCK) as u64;
    let file = std::fs::File::open(&path)?;
    let mut ours = Duration::MAX;
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        ours = best_of_five(|| {
            let tree = pool.install(|| verity::Tree::of_file(&file, blocks, &SALT))?;
            let mut out = std::fs::File::create(directory.join("hashes"))?;
            Ok(tree.write_to(&mut out, &[1; 16])?)
        })?;
        report(&format!("verity, {threads} threads"), DATA_MIB, ours);
    }
    let tool = std::env::var_os("BULLION_TOOLS").map(|tools| Path::new(&tools).join("veritysetup"));
    let Some(tool) = tool.filter(|tool| tool.is_file()) else {
        println!("skipped: there is no veritysetup in BULLION_TOOLS");
        return Ok(());
    };
    let theirs = best_of_five(|| {
        let salt = format!("--salt={}", "07".repeat(32));
        let mut format = Command::new(&tool);
        format.args(["format", &salt]).args([&path, &directory.join("theirs")]).stdout(Stdio::null());
        format.status()?.success().then_some(()).ok_or("veritysetup failed".into())
    })?;
    report("veritysetup format", DATA_MIB, theirs);
    println!("{:32} {:>8.2}", "ratio", theirs.as_secs_f64() / ours.as_secs_f64());
    Ok(())
}

fn erofs_image() -> Result<(), Box<dyn Error>> {
    const FILES: usize = 8000;
    let data = noise(MIB);
    let mut tree = Tree::default();
    let mut bytes = 0;
    for number in 0..FILES {
        let directory = format!("d{}", number / 100);
        tree.insert(&directory, Node::directory(0o755, "bench"));
        let size = number * 7919 % 50_000;
        bytes += size;
        let content = data.get(..size).unwrap_or_default().to_vec();
        tree.insert(&format!("{directory}/f{number}"), Node::file(content, 0o644, "bench"));
    }
    let time = best_of_five(|| {
        let mut out = Vec::with_capacity(bytes * 2);
        Ok(Image::plan(&tree, [1; 16])?.write_to(&mut out)?)
    })?;
    report("EROFS, 8000 files, to memory", bytes / MIB, time);
    Ok(())
}

fn initrd_compression() -> Result<(), Box<dyn Error>> {
    // Half noise, half text: roughly as compressible as programs and modules.
    let mut archive = noise(MIB);
    while archive.len() < 4 * MIB {
        let number = archive.len();
        write!(archive, "symbol_{number:x} depends on symbol_{:x}; ", number * 7919)?;
    }
    let time = best_of_five(|| Ok(image::initrd::compress(&archive)?))?;
    report("initrd, zstd 19", archive.len() / MIB, time);
    Ok(())
}
