//! The packages that hold a kernel and its modules.
//!
//! Debian's `linux-image-cloud-amd64` is a metapackage. Up to 6.18 it leads to one package with everything; from 6.19 on
//! `linux-image-VERSION` is a metapackage too: `linux-binary-VERSION` and `linux-modules-VERSION` hold the files, and
//! `linux-base-VERSION` the list of what is built in. What else these depend on (an initramfs generator, kmod) is for
//! hosts that build their own initrd.

use std::collections::BTreeSet;

use spec::recipe::PackageRequest;
use spec::{Diagnostic, Outcome};

use crate::relation::{self, RelationError};
use crate::resolve::{self, ResolveError};
use crate::universe::{Id, Universe};

/// Names of packages that are part of a kernel.
const PARTS: [&str; 4] = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];
/// A package that leads to others and unpacks to less than this is a metapackage: nothing in it is of use.
const METAPACKAGE_KIB: u64 = 1024;

/// A kernel that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The recipe's kernel package is not there.
    #[error(transparent)]
    Package(#[from] ResolveError),
    /// A part that the kernel package asks for is not there.
    #[error("kernel package {package} {version} needs {relation}, which is not there")]
    Part {
        /// The package that asks.
        package: String,
        /// Its version.
        version: String,
        /// What it asks for.
        relation: String,
    },
    /// A relation cannot be read.
    #[error("the dependencies of kernel package {package} cannot be read")]
    Relation {
        /// The package.
        package: String,
        /// Why.
        source: RelationError,
    },
}

impl Diagnostic for KernelError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Package(error) => error.outcome(),
            Self::Part { .. } | Self::Relation { .. } => Outcome::InputMismatch,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Package(error) => error.hint(),
            Self::Part { .. } => Some("the mirror may be in the middle of an update: try again later".to_owned()),
            Self::Relation { .. } => None,
        }
    }
}

/// The packages of the kernel that a recipe asks for.
pub(crate) fn packages(universe: &Universe<'_>, request: &PackageRequest) -> Result<Vec<Id>, KernelError> {
    let mut open = vec![resolve::pick(universe, request)?];
    let mut seen: BTreeSet<Id> = open.iter().copied().collect();
    let mut kept = BTreeSet::new();
    while let Some(id) = open.pop() {
        let record = &universe.entry(id).record;
        let groups = relation::parse(record.depends)
            .map_err(|source| KernelError::Relation { package: record.name.to_owned(), source })?;
        let parts = groups.iter().flatten().filter(|one| PARTS.iter().any(|part| one.name.starts_with(part)));
        let mut leads_on = false;
        for part in parts {
            leads_on = true;
            let found = universe.matches_of(part).into_iter().find(|found| found.real);
            let next = found.and_then(|found| found.ids.first().copied()).ok_or_else(|| KernelError::Part {
                package: record.name.to_owned(),
                version: record.version.to_owned(),
                relation: part.to_string(),
            })?;
            if seen.insert(next) {
                open.push(next);
            }
        }
        if !leads_on || record.installed_kib >= METAPACKAGE_KIB {
            kept.insert(id);
        }
    }
    Ok(kept.into_iter().collect())
}
