//! Every crate that is resolved has a licence that deny.toml allows. SPDX expressions are evaluated, not compared.

use spdx::{Expression, LicenseReq};

use crate::deny::Deny;
use crate::metadata::{Metadata, Package};
use crate::report::{Finding, Outcome};

pub(crate) fn check(metadata: &Metadata, deny: &Deny) -> Outcome {
    let findings = metadata.packages.iter().filter_map(|package| {
        let reason = refusal(package, deny)?;
        Some(Finding::new(format!("Cargo.lock: {} {}", package.name, package.version), reason))
    });
    Outcome { looked_at: metadata.packages.len(), findings: findings.collect(), notes: Vec::new() }
}

/// Why the licence is not allowed; `None` where it is.
fn refusal(package: &Package, deny: &Deny) -> Option<String> {
    let Some(text) = package.license.as_deref() else {
        return Some("states no SPDX licence expression".to_owned());
    };
    // Old crates write "MIT/Apache-2.0"; cargo documents the slash as OR.
    let expression = match Expression::parse(&text.replace('/', " OR ")) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("\"{text}\" is not an SPDX expression: {}", error.reason)),
    };
    let exceptions = deny.licenses.exceptions.iter().filter(|exception| exception.name == package.name);
    let allowed: Vec<&String> =
        deny.licenses.allow.iter().chain(exceptions.flat_map(|exception| &exception.allow)).collect();
    let is_allowed = |wanted: &LicenseReq| allowed.iter().any(|name| **name == wanted.to_string());
    (!expression.evaluate(is_allowed)).then(|| format!("licence \"{text}\" is not allowed by deny.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fixture::workspace;

    fn findings(licence: Option<&str>) -> Vec<String> {
        let mut metadata = workspace(&[("spec", &[("foreign", None)])]);
        let package = metadata.packages.iter_mut().find(|package| package.name == "foreign").expect("foreign");
        package.license = licence.map(str::to_owned);
        let deny = Deny::parse("deny.toml", include_str!("../../../deny.toml")).expect("the shipped deny.toml");
        check(&metadata, &deny).findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn copyleft_licences_are_found() {
        for licence in ["AGPL-3.0-only", "GPL-2.0-or-later", "MIT AND AGPL-3.0-only", "(MIT OR ISC) AND GPL-3.0-only"] {
            assert_eq!(findings(Some(licence)), [format!("licence \"{licence}\" is not allowed by deny.toml")]);
        }
    }

    #[test]
    fn a_choice_with_one_allowed_side_is_allowed() {
        for licence in ["MIT", "MIT/Apache-2.0", "AGPL-3.0-only OR MIT", "Apache-2.0 WITH LLVM-exception"] {
            assert_eq!(findings(Some(licence)), [""; 0], "{licence}");
        }
    }

    #[test]
    fn no_licence_and_nonsense_are_found() {
        assert_eq!(findings(None), ["states no SPDX licence expression"]);
        assert!(findings(Some("see the file"))[0].contains("is not an SPDX expression"));
    }
}
