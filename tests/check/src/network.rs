//! Only `archive` can reach a network, and so only what is built from it: the program and the tests.
//!
//! `image` cannot fetch anything in the middle of a build because nothing that it is made of can (docs/decisions/0001).

use crate::metadata::Metadata;
use crate::report::{Finding, Outcome};

/// Crates whose purpose is a network connection.
const NETWORK_CRATES: [&str; 16] = [
    "archive",
    "bullion-archive",
    "async-std",
    "curl",
    "hickory-resolver",
    "hyper",
    "isahc",
    "mio",
    "native-tls",
    "quinn",
    "reqwest",
    "rustls",
    "socket2",
    "tokio",
    "tungstenite",
    "ureq",
];

/// Folders of the crates that may be built from them.
fn may_reach_network(folder: &str) -> bool {
    matches!(folder, "archive" | "cli" | "broker") || folder.starts_with("tests/")
}

pub(crate) fn check(metadata: &Metadata) -> Outcome {
    let mut outcome = Outcome::default();
    for package in metadata.members().filter(|package| !may_reach_network(metadata.folder(package))) {
        outcome.looked_at += 1;
        let closure = metadata.closure(package);
        let reached = closure.iter().filter(|reached| NETWORK_CRATES.contains(&reached.name.as_str()));
        let place = format!("{}/Cargo.toml", metadata.folder(package));
        outcome.findings.extend(
            reached.map(|reached| Finding::new(&place, format!("is built from {}, a network crate", reached.name))),
        );
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fixture::workspace;

    #[test]
    fn a_network_crate_behind_another_crate_is_found() {
        let metadata = workspace(&[
            ("archive", &[("ureq", None)]),
            ("store", &[("ureq", None)]),
            ("image", &[("store", None)]),
            ("spec", &[("ureq", Some("dev"))]),
            ("cli", &[("archive", None)]),
        ]);
        let findings = check(&metadata).findings;
        let places: Vec<&str> = findings.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["store/Cargo.toml", "image/Cargo.toml"]);
    }
}
