//! Times the writers, dm-verity beside `veritysetup` where `BULLION_TOOLS` has it: `cargo bench -p bullion-image`.
//!
//! With `BULLION_BENCH_TREE=DIRECTORY`, EROFS with LZ4 of that tree beside `mkfs.erofs -zlz4`, in pairs.
//!
//! Of a tool's time, what it takes to start is left out. Each number is the best of five runs on data that is in memory already, so that the disk does not decide.
#![allow(clippy::print_stdout, clippy::cast_possible_truncation, reason = "it is a program; sizes are small")]

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::erofs::Image;
use image::tree::{Node, Tree};
use image::verity;
use rayon::prelude::*;
use spec::recipe::Compression;

const MIB: usize = 1 << 20;
const DATA_MIB: usize = 256;
const SALT: [u8; 32] = [7; 32];

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    verity_tree(directory.path())?;
    erofs_image()?;
    compressed_erofs(directory.path())?;
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

/// What a tool takes that does nothing: its wrapper checks the tree that it is in first, which is not its work.
fn start_up(tool: &Path) -> Result<Duration, Box<dyn Error>> {
    best_of_five(|| {
        let status = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        status.success().then_some(()).ok_or("a tool does not start".into())
    })
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
    let theirs = theirs.saturating_sub(start_up(&tool)?);
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
        Ok(Image::plan(&tree, [1; 16], Compression::None)?.write_to(&mut out)?)
    })?;
    report("EROFS, 8000 files, to memory", bytes / MIB, time);
    Ok(())
}

/// The regular files and directories below `directory`, without their owners; files are read by all threads.
fn load(directory: &Path) -> Result<Tree, Box<dyn Error>> {
    let (mut tree, mut files) = (Tree::default(), Vec::new());
    list(directory, "", &mut tree, &mut files)?;
    let contents: Result<Vec<_>, _> =
        files.par_iter().with_max_len(1).map(|path| std::fs::read(directory.join(path))).collect();
    for (path, content) in files.iter().zip(contents?) {
        tree.insert(path, Node::file(content, 0o644, "bench"));
    }
    Ok(tree)
}

fn list(directory: &Path, path: &str, tree: &mut Tree, files: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| "a name is not UTF-8")?;
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        let found = entry.file_type()?;
        if found.is_dir() {
            tree.insert(&path, Node::directory(0o755, "bench"));
            list(&entry.path(), &path, tree, files)?;
        } else if found.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Both read a tree from the page cache and write an image to a file; nine pairs, and the median of the ratios.
fn compressed_erofs(scratch: &Path) -> Result<(), Box<dyn Error>> {
    let (Some(source), Some(tools)) = (std::env::var_os("BULLION_BENCH_TREE"), std::env::var_os("BULLION_TOOLS"))
    else {
        println!("skipped: BULLION_BENCH_TREE and BULLION_TOOLS name no tree to compress and no mkfs.erofs");
        return Ok(());
    };
    let (ours, theirs) = (scratch.join("ours"), scratch.join("theirs"));
    let start_up = start_up(&Path::new(&tools).join("mkfs.erofs"))?;
    let mut ratios = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        let tree = load(Path::new(&source))?;
        let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&ours)?);
        Image::plan(&tree, [1; 16], Compression::Lz4)?.write_to(&mut out)?;
        out.flush()?;
        let own_time = start.elapsed();
        let start = Instant::now();
        let mut mkfs = Command::new(Path::new(&tools).join("mkfs.erofs"));
        let done = mkfs.args(["-zlz4", "-T0", "--quiet"]).arg(&theirs).arg(&source).stdout(Stdio::null()).status()?;
        ratios.push(start.elapsed().saturating_sub(start_up).as_secs_f64() / own_time.as_secs_f64());
        if !done.success() {
            return Err("mkfs.erofs failed".into());
        }
    }
    ratios.sort_by(f64::total_cmp);
    let (first, last) = (ratios.first().copied().unwrap_or_default(), ratios.last().copied().unwrap_or_default());
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    println!("EROFS with LZ4: {median:.2} times as fast as mkfs.erofs -zlz4 ({first:.2} to {last:.2})");
    let size = |path: &Path| std::fs::metadata(path).map(|found| found.len());
    println!("EROFS with LZ4: {} bytes, mkfs.erofs {}", size(&ours)?, size(&theirs)?);
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
