//! Debian's machine-readable copyright files (copyright-format 1.0, "DEP-5"): which licences the parts of a package are under,
//! and the texts of those that the file brings.
//!
//! Files in another form are free text: nothing is guessed from them.

use std::collections::BTreeMap;

/// What a copyright file states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// The licence synopses of all `Files` paragraphs, each once, sorted.
    pub synopses: Vec<Licence>,
    /// Texts by short name, from the paragraphs that hold a licence and nothing else, or with the synopsis.
    pub texts: BTreeMap<String, String>,
}

/// The first line of a `License` field, as alternatives and conjunctions of short names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Licence {
    /// A short name, with its exception where it has one: `GPL-2+`, `GPL-3+ with Bison exception`.
    Name(String),
    /// All of these hold.
    All(Vec<Licence>),
    /// One of these, as the user chooses.
    Any(Vec<Licence>),
}

/// Deeper or longer synopses are no synopses.
const MAX_WORDS: usize = 256;

/// Reads a copyright file; `None` where it is not in the machine-readable form, or says nothing about files.
pub fn read(text: &str) -> Option<Stated> {
    let mut paragraphs = paragraphs(text);
    let header = paragraphs.next()?;
    let format = header.iter().find(|(name, _)| name.eq_ignore_ascii_case("Format")).map(|(_, value)| value)?;
    if !format.contains("packaging-manuals/copyright-format/1.0") {
        return None;
    }
    let mut stated = Stated::default();
    for paragraph in paragraphs {
        let field = |wanted: &str| {
            paragraph.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
        };
        let Some(licence) = field("License") else { continue };
        let (synopsis, body) = licence.split_once('\n').unwrap_or((licence, ""));
        let synopsis = synopsis.trim();
        if !synopsis.is_empty() && !body.trim().is_empty() {
            stated.texts.entry(synopsis.to_owned()).or_insert_with(|| unfolded(body));
        }
        if field("Files").is_some() {
            stated.synopses.extend(parse(synopsis));
        }
    }
    stated.synopses.sort();
    stated.synopses.dedup();
    (!stated.synopses.is_empty()).then_some(stated)
}

/// Paragraphs of fields with their values; what is no field is left out.
fn paragraphs(text: &str) -> impl Iterator<Item = Vec<(String, String)>> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                if fields.is_empty() {
                    continue;
                }
                break;
            }
            match (line.starts_with([' ', '\t']), line.split_once(':'), fields.last_mut()) {
                (true, _, Some((_, value))) => {
                    value.push('\n');
                    value.push_str(line);
                }
                (false, Some((name, value)), _) => fields.push((name.to_owned(), value.trim().to_owned())),
                _ => {}
            }
        }
        (!fields.is_empty()).then_some(fields)
    })
}

/// The text of a folded value: one blank less at the start of lines, and lines of a point are empty.
fn unfolded(body: &str) -> String {
    let line = |line: &str| match line.strip_prefix([' ', '\t']).unwrap_or(line) {
        "." => String::new(),
        line => line.trim_end().to_owned(),
    };
    body.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Reads a synopsis: `and` binds closer than `or`, and a comma before either looser than both (copyright-format 1.0, "License
/// specification"). `None` where it is empty or no such thing.
fn parse(synopsis: &str) -> Option<Licence> {
    let words: Vec<&str> = synopsis.split_whitespace().collect();
    if words.len() > MAX_WORDS {
        return None;
    }
    join(&words, &[",and", ",or", "or", "and"])
}

/// Splits at the loosest operator that is there, then each part at the closer ones.
fn join(words: &[&str], operators: &[&str]) -> Option<Licence> {
    let Some((operator, closer)) = operators.split_first() else {
        return name(words);
    };
    let (word, after_comma) = operator.strip_prefix(',').map_or((*operator, false), |word| (word, true));
    let mut parts = Vec::new();
    let mut start = 0;
    for (index, found) in words.iter().enumerate() {
        let comma = index > 0 && words.get(index - 1).is_some_and(|before| before.ends_with(','));
        if found.eq_ignore_ascii_case(word) && (comma || !after_comma) {
            parts.push(join(words.get(start..index)?, closer)?);
            start = index + 1;
        }
    }
    parts.push(join(words.get(start..)?, closer)?);
    if parts.len() == 1 {
        return parts.pop();
    }
    parts.sort();
    parts.dedup();
    match (parts.len(), word) {
        (1, _) => parts.pop(),
        (_, "or") => Some(Licence::Any(parts)),
        _ => Some(Licence::All(parts)),
    }
}

fn name(words: &[&str]) -> Option<Licence> {
    let text = words.join(" ");
    let text = text.trim_end_matches(',').trim();
    (!text.is_empty()).then(|| Licence::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> Licence {
        Licence::Name(text.to_owned())
    }

    #[test]
    fn the_examples_of_the_format_are_read() {
        // copyright-format 1.0, "License specification" and "Syntax".
        let (gpl, perl) = (named("GPL-2+"), named("GPL-1+"));
        assert_eq!(parse("GPL-1+ or Artistic"), Some(Licence::Any(vec![named("Artistic"), perl.clone()])));
        let choice = Licence::Any(vec![named("Artistic"), perl]);
        assert_eq!(parse("GPL-1+ or Artistic, and BSD"), Some(Licence::All(vec![named("BSD"), choice])));
        assert_eq!(parse("GPL-2+ with OpenSSL exception"), Some(named("GPL-2+ with OpenSSL exception")));
        assert_eq!(parse("GPL-2+ and GPL-2+"), Some(gpl));
        for none in ["", "and", "a or", "a and or b"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn texts_stand_with_their_names_and_free_text_is_not_read() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n\nFiles: *\nCopyright: me\nLicense: own or Expat\n\nFiles: b\nLicense: Expat\n Words\n .\n more\n\nLicense: own\n Do as\n you like.\n";
        let stated = read(text).unwrap();
        assert_eq!(stated.synopses, [named("Expat"), Licence::Any(vec![named("Expat"), named("own")])]);
        assert_eq!(stated.texts["Expat"], "Words\n\nmore");
        assert_eq!(stated.texts["own"], "Do as\nyou like.");
        assert_eq!(read("This package was debianised by somebody.\n\nLicense: GPL-2\n"), None);
        assert_eq!(read("Format: https://example.org/other\n\nFiles: *\nLicense: GPL-2\n"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n)?((Files|License|X): [a-z ,]{0,20}\n( [a-z.]{0,5}\n)?\n?){0,8}.{0,40}") {
            if let Some(stated) = read(&text) {
                prop_assert!(!stated.synopses.is_empty());
            }
        }
    }
}
