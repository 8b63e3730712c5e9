//! Cuts what comes from the host into lines without ever holding more than one line's worth.

use spec::agent::MAX_LINE;

/// A line longer than `MAX_LINE`. What belongs to it is dropped up to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the line is longer than {MAX_LINE} bytes")]
pub(crate) struct TooLong;

/// Bytes on their way to becoming lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Of the current line: at most `MAX_LINE` bytes.
    current: Vec<u8>,
    /// The current line is too long already.
    overflowed: bool,
}

impl Lines {
    /// Takes bytes and gives `each` every line that ends in them, without its newline. Empty lines are passed over.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Result<&[u8], TooLong>)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.extend(line);
            if self.overflowed {
                each(Err(TooLong));
            } else if !self.current.is_empty() {
                each(Ok(&self.current));
            }
            self.clear();
            rest = after.get(1..).unwrap_or_default();
        }
        self.extend(rest);
    }

    /// Forgets an unfinished line.
    pub(crate) fn clear(&mut self) {
        self.current.clear();
        self.overflowed = false;
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.current.len() + bytes.len() > MAX_LINE {
            self.overflowed = true;
            self.current.clear();
        }
        if !self.overflowed {
            self.current.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collect(lines: &mut Lines, bytes: &[u8]) -> Vec<Result<Vec<u8>, TooLong>> {
        let mut seen = Vec::new();
        lines.push(bytes, |line| seen.push(line.map(<[u8]>::to_vec)));
        seen
    }

    #[test]
    fn a_line_of_the_limit_passes_and_a_longer_one_is_dropped_whole() {
        let mut lines = Lines::default();
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(collect(&mut lines, &longest), []);
        assert_eq!(collect(&mut lines, b"\n"), [Ok(longest.clone())]);
        assert_eq!(collect(&mut lines, &longest), []);
        assert_eq!(collect(&mut lines, &longest), []);
        assert!(lines.current.is_empty());
        assert_eq!(collect(&mut lines, b"tail\nnext\n"), [Err(TooLong), Ok(b"next".to_vec())]);
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_does_not_matter(text in "[a-c\n]{0,80}", cuts in proptest::collection::vec(0usize..80, 0..6)) {
            let whole = collect(&mut Lines::default(), text.as_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let pieces: Vec<_> =
                cuts.windows(2).flat_map(|pair| collect(&mut lines, &text.as_bytes()[pair[0]..pair[1]])).collect();
            prop_assert_eq!(pieces, whole);
        }
    }
}
