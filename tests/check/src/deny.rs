//! deny.toml, which cargo-deny can read too: allowed licences, banned crates and features, allowed sources.
//!
//! This program reads the part of that format that the file uses, and refuses keys it does not know, so that no rule in
//! it is silently without effect.

use serde::Deserialize;

use crate::metadata::Metadata;
use crate::report::{Finding, Outcome};

/// How cargo names the one public registry in its lock file.
#[cfg(test)]
pub(crate) const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deny {
    #[serde(rename = "graph")]
    _graph: toml::Table,
    pub(crate) licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Licenses {
    pub(crate) allow: Vec<String>,
    #[serde(default)]
    pub(crate) exceptions: Vec<Exception>,
}

/// More licences, for one crate only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exception {
    #[serde(rename = "crate")]
    pub(crate) name: String,
    pub(crate) allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    #[serde(rename = "multiple-versions")]
    _multiple_versions: String,
    #[serde(rename = "wildcards")]
    _wildcards: String,
    deny: Vec<Ban>,
    #[serde(default)]
    features: Vec<FeatureBan>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureBan {
    #[serde(rename = "crate")]
    name: String,
    deny: Vec<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    #[serde(rename = "unknown-registry")]
    _unknown_registry: String,
    #[serde(rename = "unknown-git")]
    _unknown_git: String,
    allow_registry: Vec<String>,
}

impl Deny {
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("{file}: {error}"))
    }

    /// No banned crate is resolved, and no banned feature is on.
    pub(crate) fn check_bans(&self, metadata: &Metadata) -> Outcome {
        let mut outcome = Outcome { looked_at: metadata.packages.len(), ..Outcome::default() };
        for package in &metadata.packages {
            let place = format!("Cargo.lock: {} {}", package.name, package.version);
            if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == package.name) {
                outcome.findings.push(Finding::new(&place, format!("the crate is banned: {}", ban.reason)));
            }
            let node = metadata.resolve.nodes.iter().find(|node| node.id == package.id);
            for ban in self.bans.features.iter().filter(|ban| ban.name == package.name) {
                let on = node.into_iter().flat_map(|node| &node.features).filter(|feature| ban.deny.contains(feature));
                outcome.findings.extend(
                    on.map(|feature| Finding::new(&place, format!("feature {feature} is banned: {}", ban.reason))),
                );
            }
        }
        outcome
    }

    /// Every crate of others comes from an allowed registry; none from a git repository or a path outside the workspace.
    pub(crate) fn check_sources(&self, metadata: &Metadata) -> Outcome {
        let mut outcome = Outcome::default();
        for package in metadata.foreign() {
            outcome.looked_at += 1;
            let source = package.source.as_deref().unwrap_or("a path outside the workspace");
            let registry = source.strip_prefix("registry+").unwrap_or_default();
            if !self.sources.allow_registry.iter().any(|allowed| allowed == registry) {
                let place = format!("Cargo.lock: {} {}", package.name, package.version);
                outcome.findings.push(Finding::new(place, format!("comes from {source}")));
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fixture::workspace;

    fn shipped() -> Deny {
        Deny::parse("deny.toml", include_str!("../../../deny.toml")).expect("the shipped deny.toml")
    }

    fn found(outcome: &Outcome) -> Vec<&str> {
        outcome.findings.iter().map(|finding| finding.place.as_str()).collect()
    }

    #[test]
    fn banned_crates_are_found_deep_in_the_resolve() {
        let metadata =
            workspace(&[("spec", &[("serde", None), ("openssl-sys", Some("build")), ("gpgme", Some("dev"))])]);
        assert_eq!(
            found(&shipped().check_bans(&metadata)),
            ["Cargo.lock: openssl-sys 1.0.0", "Cargo.lock: gpgme 1.0.0"]
        );
    }

    #[test]
    fn a_feature_that_reorders_json_is_found() {
        let mut metadata = workspace(&[("spec", &[("serde_json", None)])]);
        assert_eq!(found(&shipped().check_bans(&metadata)), [""; 0]);
        let node = metadata.resolve.nodes.iter_mut().find(|node| node.id == "serde_json").expect("serde_json");
        node.features.push("preserve_order".to_owned());
        assert_eq!(found(&shipped().check_bans(&metadata)), ["Cargo.lock: serde_json 1.0.0"]);
    }

    #[test]
    fn crates_from_git_other_registries_and_paths_are_found() {
        for source in [Some("git+https://example.com/x"), Some("registry+https://example.com/index"), None] {
            let mut metadata = workspace(&[("spec", &[("serde", None)])]);
            assert_eq!(found(&shipped().check_sources(&metadata)), [""; 0]);
            metadata.packages.iter_mut().find(|p| p.name == "serde").expect("serde").source = source.map(str::to_owned);
            assert_eq!(found(&shipped().check_sources(&metadata)), ["Cargo.lock: serde 1.0.0"]);
        }
    }

    #[test]
    fn a_rule_that_this_program_does_not_know_is_refused() {
        let text =
            include_str!("../../../deny.toml").replace("[bans]\n", "[bans]\nworkspace-default-features = \"deny\"\n");
        assert!(Deny::parse("deny.toml", &text).is_err());
    }
}
