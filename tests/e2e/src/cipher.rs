//! What a disk shows of what a guest keeps on it: a disk that hides it has noise, and much of it.
//!
//! That a text is nowhere proves something only where the same search finds it in the clear: `holds` is for that too.

/// Fewer blocks than a file system with a container in it: who wrote these alone has shown nothing.
const FEW_BLOCKS: usize = 100;

/// Whether `bytes` hold `text` anywhere.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Asserts that a guest wrote to the disk of these bytes, and that it holds none of `texts`.
#[track_caller]
pub fn assert_hidden(disk: &[u8], texts: &[&str]) {
    let written = disk.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)).count();
    assert!(written > FEW_BLOCKS, "the guest wrote {written} blocks only: this shows nothing");
    for text in texts {
        assert!(!holds(disk, text), "the disk holds {text} in the clear");
    }
}
