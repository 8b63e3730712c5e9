//! Debian control files (Debian Policy 5.1, deb822(5)): paragraphs of fields. Release files, package indexes and apt's
//! `.sources` files have this form. Nothing is copied: a package index has 60 MB.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

/// One paragraph: its text as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paragraph<'a> {
    text: &'a str,
}

/// The paragraphs of a file. Comment lines (`#`) are passed over by `Paragraph::fields`.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches(['\n', '\r']);
            if rest.is_empty() {
                return None;
            }
            let (paragraph, after) = rest.split_once("\n\n").unwrap_or((rest, ""));
            rest = after;
            if !paragraph.trim().is_empty() {
                return Some(Paragraph { text: paragraph });
            }
        }
    })
}

impl<'a> Paragraph<'a> {
    /// The fields in order: name, and value without the white space around it. A value of several lines keeps its
    /// newlines. Lines that are no field and continue none are passed over.
    pub(crate) fn fields(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let field = take_field(&mut rest);
                let Some((name, value)) = field.split_once(':') else { continue };
                if field.starts_with(['#', ' ', '\t']) || name.is_empty() || name.contains(char::is_whitespace) {
                    continue;
                }
                return Some((name, value.trim()));
            }
            None
        })
    }

    /// The value of a field; names are compared without regard to case.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.fields().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Cuts the first line and the lines that continue it (they start with white space) off `rest`.
fn take_field<'a>(rest: &mut &'a str) -> &'a str {
    let text = *rest;
    let mut end = 0;
    loop {
        let line_end = text.get(end..).and_then(|tail| tail.find('\n')).map_or(text.len(), |at| end + at);
        let next = (line_end + 1).min(text.len());
        let continues = text.get(next..).is_some_and(|tail| tail.starts_with([' ', '\t']));
        if !continues {
            *rest = text.get(next..).unwrap_or_default();
            return text.get(..line_end).unwrap_or_default();
        }
        end = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paragraphs_fields_and_continued_lines() {
        let text =
            "\n# comment\nPackage: a\nDescription: one\n two\n .\n\tthree\nEmpty:\n\n\nPackage:b\nbad line\nX: 1";
        let read: Vec<Vec<(&str, &str)>> = paragraphs(text).map(|paragraph| paragraph.fields().collect()).collect();
        assert_eq!(
            read,
            [
                vec![("Package", "a"), ("Description", "one\n two\n .\n\tthree"), ("Empty", "")],
                vec![("Package", "b"), ("X", "1")]
            ]
        );
        assert_eq!(paragraphs(text).next().unwrap().get("PACKAGE"), Some("a"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([A-Z]{0,3}:?[ \\t\\r]?[a-z]{0,3}\n{0,3}){0,12}", noise in ".{0,80}") {
            for text in [&text, &noise] {
                for paragraph in paragraphs(text) {
                    for (name, value) in paragraph.fields() {
                        prop_assert!(!name.is_empty() && !name.contains('\n'));
                        prop_assert_eq!(value, value.trim());
                    }
                }
            }
        }

        #[test]
        fn what_is_written_is_read(fields in proptest::collection::vec(("[A-Z][a-z-]{0,8}", "[a-z0-9 ]{0,12}(\n [a-z]{1,8}){0,3}"), 1..8)) {
            let text: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let read: Vec<(String, String)> = paragraphs(&text).flat_map(Paragraph::fields).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            let written: Vec<(String, String)> = fields.iter().map(|(n, v)| (n.clone(), v.trim().to_owned())).collect();
            prop_assert_eq!(read, written);
        }
    }
}
