//! Debian's licence names as SPDX licence expressions (SPDX 2.3, annex D). What the list of SPDX does not have under a name
//! that we know becomes a reference of the document's own, with the text that the package gives.

use std::collections::BTreeMap;

use spec::Sha256Digest;

use super::copyright::{Licence, Stated};

/// What a package declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    /// An SPDX licence expression.
    pub(super) expression: String,
    /// The references in it that the document itself explains, by their identifier.
    pub(super) others: BTreeMap<String, Other>,
}

/// A licence that is not on the list of SPDX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    /// The name in the copyright file.
    pub(super) name: String,
    /// Its text, or where it is.
    pub(super) text: String,
}

/// Debian's short names (copyright-format 1.0, "Short name", and what its packages use alike) where SPDX has another one, or
/// the same.
const NAMES: [(&str, &str); 61] = [
    ("0BSD", "0BSD"),
    ("AFL-2.0", "AFL-2.0"),
    ("Apache-2", "Apache-2.0"),
    ("Apache-2.0", "Apache-2.0"),
    ("Apache-2.0 with LLVM exception", "Apache-2.0 WITH LLVM-exception"),
    ("Apache-2.0-LLVM-Exceptions", "Apache-2.0 WITH LLVM-exception"),
    ("BSD-2-Clause-Patent", "BSD-2-Clause-Patent"),
    ("BSD-2-clause", "BSD-2-Clause"),
    ("BSD-2-clause-NetBSD", "BSD-2-Clause"),
    ("BSD-3-clause", "BSD-3-Clause"),
    ("BSL-1.0", "BSL-1.0"),
    ("Beerware", "Beerware"),
    ("CC-BY-3.0", "CC-BY-3.0"),
    ("CC-BY-4.0", "CC-BY-4.0"),
    ("CC-BY-SA-3.0", "CC-BY-SA-3.0"),
    ("CC-BY-SA-4.0", "CC-BY-SA-4.0"),
    ("CC0", "CC0-1.0"),
    ("CC0-1.0", "CC0-1.0"),
    ("Expat", "MIT"),
    ("FSFAP", "FSFAP"),
    ("FSFUL", "FSFUL"),
    ("FSFULLR", "FSFULLR"),
    ("FSFULLRWD", "FSFULLRWD"),
    ("GFDL-1.2", "GFDL-1.2-only"),
    ("GFDL-1.2+", "GFDL-1.2-or-later"),
    ("GFDL-1.3", "GFDL-1.3-only"),
    ("GFDL-1.3+", "GFDL-1.3-or-later"),
    ("GPL-1", "GPL-1.0-only"),
    ("GPL-1+", "GPL-1.0-or-later"),
    ("GPL-2", "GPL-2.0-only"),
    ("GPL-2+", "GPL-2.0-or-later"),
    ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
    ("GPL-2+ with Autoconf exception", "GPL-2.0-or-later WITH Autoconf-exception-2.0"),
    ("GPL-2+ with Libtool exception", "GPL-2.0-or-later WITH Libtool-exception"),
    ("GPL-3", "GPL-3.0-only"),
    ("GPL-3+", "GPL-3.0-or-later"),
    ("GPL-3+ with Autoconf exception", "GPL-3.0-or-later WITH Autoconf-exception-3.0"),
    ("GPL-3+ with Bison exception", "GPL-3.0-or-later WITH Bison-exception-2.2"),
    ("ISC", "ISC"),
    ("LGPL-2", "LGPL-2.0-only"),
    ("LGPL-2+", "LGPL-2.0-or-later"),
    ("LGPL-2.1", "LGPL-2.1-only"),
    ("LGPL-2.1+", "LGPL-2.1-or-later"),
    ("LGPL-3", "LGPL-3.0-only"),
    ("LGPL-3+", "LGPL-3.0-or-later"),
    ("Latex2e", "Latex2e"),
    ("MIT", "MIT"),
    ("MPL-1.1", "MPL-1.1"),
    ("MPL-2.0", "MPL-2.0"),
    ("OpenSSL", "OpenSSL"),
    ("PSF-2", "PSF-2.0"),
    ("Perl", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
    ("SunPro", "SunPro"),
    ("Unicode-3.0", "Unicode-3.0"),
    ("Unicode-DFS-2016", "Unicode-DFS-2016"),
    ("W3C", "W3C"),
    ("X11", "X11"),
    ("ZPL-2.1", "ZPL-2.1"),
    ("Zlib", "Zlib"),
    ("bzip2-1.0.6", "bzip2-1.0.6"),
    ("curl", "curl"),
];

/// What all parts of a package together declare.
pub(super) fn declared(stated: &Stated) -> Declared {
    let mut others = BTreeMap::new();
    let each = stated.synopses.iter().flat_map(|licence| match licence {
        Licence::All(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    });
    let mut parts: Vec<String> = each.map(|part| expression(part, stated, &mut others, Binding::And)).collect();
    parts.sort();
    parts.dedup();
    Declared { expression: parts.join(" AND "), others }
}

/// What stands around an expression: SPDX binds AND closer than OR.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binding {
    And,
    Or,
}

fn expression(licence: &Licence, stated: &Stated, others: &mut BTreeMap<String, Other>, around: Binding) -> String {
    let mut joined = |parts: &[Licence], word: &str, inner: Binding| {
        let mut parts: Vec<String> = parts.iter().map(|part| expression(part, stated, others, inner)).collect();
        parts.sort();
        parts.dedup();
        parts.join(word)
    };
    match licence {
        Licence::All(parts) => joined(parts, " AND ", Binding::And),
        Licence::Any(parts) => {
            let text = joined(parts, " OR ", Binding::Or);
            if around == Binding::And && text.contains(" OR ") { format!("({text})") } else { text }
        }
        Licence::Name(name) => match known(name) {
            Some(id) if around == Binding::And && id.contains(" OR ") => format!("({id})"),
            Some(id) => id.to_owned(),
            None => other(name, stated, others),
        },
    }
}

fn known(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(debian, _)| debian.eq_ignore_ascii_case(name)).map(|(_, id)| *id)
}

/// A reference for what is not on the list; the same name with the same text has the same one in every package.
fn other(name: &str, stated: &Stated, others: &mut BTreeMap<String, Other>) -> String {
    let text = stated.texts.get(name).filter(|text| !text.trim().is_empty()).cloned();
    let text = text.unwrap_or_else(|| format!("The copyright file names \"{name}\" and gives no text for it."));
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let digest: String = Sha256Digest::of(format!("{name}\n{text}").as_bytes()).short().chars().take(8).collect();
    let id = format!("LicenseRef-Debian-{}-{digest}", name.chars().map(allowed).collect::<String>());
    others.insert(id.clone(), Other { name: name.to_owned(), text });
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::copyright::read;

    fn of(fields: &str) -> Declared {
        let format = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/";
        declared(&read(&format!("{format}\n\n{fields}")).unwrap())
    }

    #[test]
    fn alternatives_inside_a_conjunction_have_parentheses() {
        let files = "Files: a\nLicense: GPL-2+ or Expat\n\nFiles: b\nLicense: BSD-3-Clause and ISC\n";
        assert_eq!(of(files).expression, "(GPL-2.0-or-later OR MIT) AND BSD-3-Clause AND ISC");
        assert_eq!(of("Files: a\nLicense: ISC or Zlib\n").expression, "(ISC OR Zlib)");
    }

    #[test]
    fn what_spdx_does_not_list_is_explained() {
        let declared = of("Files: a\nLicense: g10 permissive\n Do it.\n\nFiles: b\nLicense: custom\n");
        assert_eq!(declared.others.len(), 2);
        let text = |name: &str| declared.others.values().find(|other| other.name == name).unwrap().text.clone();
        assert_eq!(text("g10 permissive"), "Do it.");
        assert!(text("custom").contains("gives no text"));
        assert!(declared.others.keys().all(|id| declared.expression.contains(id.as_str())), "{declared:?}");
    }
}
