//! Two command lines, word by word: which words are in one only.

/// The words that differ, `- ` for those of `expected` alone and `+ ` for those of `found` alone, in order; and where only
/// blanks differ, both lines in quotes.
pub(super) fn difference(expected: &str, found: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (expected.split_whitespace().collect(), found.split_whitespace().collect());
    if old == new {
        return match expected == found {
            true => Vec::new(),
            false => vec![format!("- {expected:?}"), format!("+ {found:?}"), "only blanks differ".to_owned()],
        };
    }
    let common = common(&old, &new);
    let mut lines = Vec::new();
    let (mut old, mut new) = (old.into_iter(), new.into_iter());
    for word in common.into_iter().map(Some).chain([None]) {
        lines.extend(old.by_ref().take_while(|next| Some(*next) != word).map(|word| format!("- {word}")));
        lines.extend(new.by_ref().take_while(|next| Some(*next) != word).map(|word| format!("+ {word}")));
    }
    lines
}

/// More words than any command line has: beyond it, words are compared by position only.
const MAX_WORDS: usize = 2000;

/// A longest common subsequence.
fn common<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<&'a str> {
    if old.len().max(new.len()) > MAX_WORDS {
        return Vec::new();
    }
    // lengths[i][j]: how long the common subsequence of old[i..] and new[j..] is.
    let mut lengths = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            lengths[i][j] = if a == b { lengths[i + 1][j + 1] + 1 } else { lengths[i + 1][j].max(lengths[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut words) = (0, 0, Vec::new());
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            words.push(old[i]);
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_differ_are_shown_in_their_order() {
        assert_eq!(
            difference("root=/dev/vda quiet", "root=/dev/vdb quiet debug"),
            ["- root=/dev/vda", "+ root=/dev/vdb", "+ debug"]
        );
        assert_eq!(difference("a b c", "a c"), ["- b"]);
        assert_eq!(difference("a c", "b a c"), ["+ b"]);
        assert_eq!(difference("", "quiet"), ["+ quiet"]);
        assert_eq!(difference("a", "a"), Vec::<String>::new());
        assert_eq!(difference("a", "a\n"), ["- \"a\"", "+ \"a\\n\"", "only blanks differ"]);
    }
}
