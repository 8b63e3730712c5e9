//! What is written beside the artifacts and tells about them: bills of materials and provenance. The manifest has their
//! digests; nothing measures them.

use std::collections::BTreeMap;

use spec::lock::Lock;
use spec::manifest::Manifest;
use spec::provenance;
use spec::release::Statement;

use super::BuildError;
use super::output::Output;
use crate::sbom::{self, Facts};

/// Writes the documents about `manifest` into `output`, and their digests into `manifest`.
pub(super) fn add(manifest: &mut Manifest, lock: &Lock, facts: Vec<Facts>, output: &Output) -> Result<(), BuildError> {
    let facts: BTreeMap<String, Facts> = facts.into_iter().map(|facts| (facts.name.clone(), facts)).collect();
    for (name, bytes) in sbom::documents(manifest, lock, &facts).map_err(BuildError::Manifest)? {
        manifest.documents.insert(name.to_owned(), output.write(name, &bytes)?);
    }
    // It names the others as by-products, so it is made last.
    let statement = Statement::provenance(manifest, env!("CARGO_PKG_VERSION")).map_err(BuildError::Manifest)?;
    let bytes = statement.to_file().map_err(BuildError::Manifest)?;
    manifest.documents.insert(provenance::FILE_NAME.to_owned(), output.write(provenance::FILE_NAME, &bytes)?);
    Ok(())
}
