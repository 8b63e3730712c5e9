//! apt's list of sources (sources.list(5)), one-line and deb822 style: where this host gets Debian from, and which keys it
//! trusts for that. Read only to find a mirror; nothing else of apt's configuration counts.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::path::{Path, PathBuf};

use crate::control::paragraphs;

/// One source of binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AptSource {
    /// The mirror's root, without a trailing slash.
    pub uri: String,
    /// Suites as written.
    pub suites: Vec<String>,
    /// The keyring file named by `Signed-By`. Fingerprints and keys written in the file itself are not kept.
    pub signed_by: Option<PathBuf>,
}

/// Reads a `.sources` file.
pub(crate) fn parse_deb822(text: &str) -> Vec<AptSource> {
    let words = |value: Option<&str>| -> Vec<String> {
        value.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
    };
    let mut sources = Vec::new();
    for paragraph in paragraphs(text) {
        let enabled = !paragraph.get("Enabled").is_some_and(|value| matches!(value, "no" | "false" | "off" | "0"));
        if !enabled || !words(paragraph.get("Types")).iter().any(|kind| kind == "deb") {
            continue;
        }
        let suites = words(paragraph.get("Suites"));
        let signed_by = words(paragraph.get("Signed-By")).first().and_then(|path| keyring_path(path));
        let uris = words(paragraph.get("URIs"));
        sources.extend(uris.iter().map(|uri| AptSource {
            uri: trimmed(uri),
            suites: suites.clone(),
            signed_by: signed_by.clone(),
        }));
    }
    sources
}

/// Reads a `.list` file.
pub(crate) fn parse_one_line(text: &str) -> Vec<AptSource> {
    text.lines().filter_map(|line| parse_line(line.split('#').next().unwrap_or_default())).collect()
}

fn parse_line(line: &str) -> Option<AptSource> {
    let rest = line.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let signed_by = options.split_ascii_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let signed_by = signed_by.and_then(|paths| paths.split(',').next()).and_then(keyring_path);
    Some(AptSource { uri: trimmed(uri), suites: vec![suite.to_owned()], signed_by })
}

fn trimmed(uri: &str) -> String {
    uri.trim_end_matches('/').to_owned()
}

fn keyring_path(text: &str) -> Option<PathBuf> {
    text.starts_with('/').then(|| Path::new(text).to_owned())
}

/// The source to take Debian from: the one that looks most like Debian's main archive, the first of equals; `None` where
/// nothing looks like it. The security archive has another layout (updates/, few packages) and is a mirror of its own.
pub(crate) fn choose(sources: &[AptSource]) -> Option<&AptSource> {
    let is_main = |suite: &String| !is_security(suite) && !suite.contains("/updates");
    likeliest(sources, |source| source.suites.iter().any(is_main))
}

/// The source to take Debian's security archive from, likewise.
pub(crate) fn choose_security(sources: &[AptSource]) -> Option<&AptSource> {
    likeliest(sources, |source| source.suites.iter().any(|suite| is_security(suite)))
}

fn likeliest(sources: &[AptSource], is_wanted: impl Fn(&AptSource) -> bool) -> Option<&AptSource> {
    // Several can be equally likely (one entry for the release, one for its updates): max_by_key would take the last.
    let mut best: Option<(u32, &AptSource)> = None;
    for source in sources.iter().filter(|source| is_wanted(source)) {
        let likeness = likeness(source);
        if likeness > best.map_or(0, |(likeness, _)| likeness) {
            best = Some((likeness, source));
        }
    }
    best.map(|(_, source)| source)
}

/// Whether a suite is one of the security archive, by its name.
pub(crate) fn is_security(suite: &str) -> bool {
    suite.ends_with("-security")
}

/// How much a source looks like Debian's; 0 is not at all.
fn likeness(source: &AptSource) -> u32 {
    let keyring = source.signed_by.as_ref().map(|path| path.to_string_lossy().into_owned());
    match is_debian(source) {
        true => 1 + u32::from(keyring.is_some_and(|path| path.contains("debian-archive"))),
        false => 0,
    }
}

/// Whether a source can be read, has suites of Debian, and is not signed with keys of somebody else.
fn is_debian(source: &AptSource) -> bool {
    const RELEASES: &[&str] =
        &["bullseye", "bookworm", "trixie", "forky", "duke", "sid", "stable", "oldstable", "testing", "unstable"];
    let reachable = ["http://", "https://", "file:/"].iter().any(|scheme| source.uri.starts_with(scheme));
    let release = source.suites.iter().any(|suite| {
        RELEASES.iter().any(|name| suite == name || suite.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
    });
    let foreign = source.signed_by.as_ref().is_some_and(|path| !path.to_string_lossy().contains("debian"));
    reachable && release && !foreign
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEB822: &str = "Types: deb deb-src\nURIs: http://mirror.example/debian-security/\nSuites: bookworm-security\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n# comment\nTypes: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: sid\n";

    #[test]
    fn the_main_archive_is_chosen() {
        let sources = parse_deb822(DEB822);
        assert_eq!(sources.len(), 2);
        let chosen = choose(&sources).unwrap();
        assert_eq!(chosen.uri, "http://mirror.example/debian");
        assert_eq!(chosen.signed_by.as_deref(), Some(Path::new("/usr/share/keyrings/debian-archive-keyring.gpg")));
        assert_eq!(choose_security(&sources).unwrap().uri, "http://mirror.example/debian-security");
        assert_eq!(choose_security(&sources[1..]), None);
    }

    #[test]
    fn one_line_sources() {
        let text = "# deb http://old.example/debian sid main\ndeb-src http://s.example/debian sid main\n deb [arch=amd64 signed-by=/k/debian-archive.gpg] file:///srv/debian trixie main contrib # here\ndeb https://deb.nodes.example/ nodistro main\n";
        let sources = parse_one_line(text);
        assert_eq!(sources.len(), 2);
        let chosen = choose(&sources).unwrap();
        assert_eq!((chosen.uri.as_str(), chosen.suites.as_slice()), ("file:///srv/debian", &["trixie".to_owned()][..]));
        assert_eq!(chosen.signed_by.as_deref(), Some(Path::new("/k/debian-archive.gpg")));
    }

    #[test]
    fn another_distribution_is_not_debian() {
        let ubuntu = "Types: deb\nURIs: http://archive.example/ubuntu\nSuites: noble noble-updates\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n";
        assert_eq!(choose(&parse_deb822(ubuntu)), None);
        assert_eq!(choose(&parse_one_line("deb cdrom:[Debian] trixie main\ndeb mirror+file:/x trixie main")), None);
        assert_eq!(choose(&parse_one_line("deb [signed-by=/k/vendor.gpg] https://vendor.example stable main")), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(deb|Types:|URIs:|\\[| |\n|signed-by=|/|a){0,20}", noise in ".{0,60}") {
            for text in [&text, &noise] {
                let _ = (choose(&parse_deb822(text)), choose(&parse_one_line(text)));
            }
        }
    }
}
