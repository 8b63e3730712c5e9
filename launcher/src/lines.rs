//! Cuts a stream of foreign bytes into lines of bounded length.
//!
//! Separate because three streams that the host does not control (QMP, the agent port, the console) need the same bound:
//! a peer that never sends a newline must not make the supervisor grow.

/// A line without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It was longer than the limit; nothing of it is kept. Said once a line, as soon as it is known.
    TooLong,
}

/// The part of a stream that is not yet a whole line.
#[derive(Debug)]
pub(crate) struct Lines {
    held: Vec<u8>,
    limit: usize,
    skipping: bool,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { held: Vec::new(), limit, skipping: false }
    }

    /// Takes the next bytes of the stream and hands every line that ends in them to `take`.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Line<'_>)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, ended) = part.strip_suffix(b"\n").map_or((part, false), |content| (content, true));
            if !self.skipping {
                if self.held.len() + content.len() > self.limit {
                    self.skipping = true;
                    self.held.clear();
                    take(Line::TooLong);
                } else {
                    self.held.extend_from_slice(content);
                }
            }
            if ended {
                if !self.skipping {
                    take(Line::Whole(&self.held));
                }
                self.held.clear();
                self.skipping = false;
            }
        }
    }

    /// What came after the last newline.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(limit: usize, chunks: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(limit);
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |line| {
                out.push(match line {
                    Line::Whole(bytes) => Some(bytes.to_vec()),
                    Line::TooLong => None,
                });
            });
            assert!(lines.rest().len() <= limit);
        }
        out
    }

    #[test]
    fn a_long_line_is_reported_once_and_the_next_one_is_whole() {
        assert_eq!(cut(3, &[b"abcd", b"efgh", b"\nxy", b"z\n\n"]), [None, Some(b"xyz".to_vec()), Some(b"".to_vec())]);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), at in 0usize..200) {
            let (a, b) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(cut(8, &[a, b]), cut(8, &[&bytes]));
        }
    }
}
