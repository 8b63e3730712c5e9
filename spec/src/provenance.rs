//! Where an image came from, as an in-toto Statement with SLSA's provenance predicate (slsa.dev/spec/v1.0/provenance): what a
//! verifier of supply chains reads. Everything in it follows from the manifest, so that the same inputs give the same bytes:
//! no time, no host, no path, no number of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{CanonicalError, to_canonical_bytes};
use crate::component::{Component, NamedInput};
use crate::digest::Sha256Digest;
use crate::lock::{Standing, percent};
use crate::manifest::Manifest;
use crate::release::{Digest, Statement};

/// The name of the provenance in an image directory.
pub const FILE_NAME: &str = "provenance.json";
/// `predicateType` of SLSA provenance.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// `buildType`: `bullion build` with the parameters of `Parameters`.
pub const BUILD_TYPE: &str = "urn:bullion:build:v1";
/// `builder.id`. It names the program and no machine: where it ran makes no difference, and nothing signed says where it did.
pub const BUILDER: &str = "urn:bullion:builder";

/// The predicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance {
    /// What was asked for, and what it was made of.
    pub build_definition: BuildDefinition,
    /// What made it.
    pub run_details: RunDetails,
}

/// `buildDefinition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildDefinition {
    /// `BUILD_TYPE`.
    pub build_type: String,
    /// What a caller of the build chooses.
    pub external_parameters: Parameters,
    /// What the builder chooses.
    pub internal_parameters: Internals,
    /// Every input.
    pub resolved_dependencies: Vec<Resource>,
}

/// `externalParameters` of `BUILD_TYPE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The recipe's name.
    pub recipe: String,
    /// SHA-256 of the flattened recipe as canonical JSON: `recipe` of the manifest.
    pub recipe_sha256: Sha256Digest,
    /// SHA-256 of the lock.
    pub lock_sha256: Sha256Digest,
    /// Whether the lock is the committed one.
    pub standing: Standing,
}

/// `internalParameters` of `BUILD_TYPE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Internals {
    /// The version of the builder's writers.
    pub format_epoch: u32,
}

/// `runDetails`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDetails {
    /// The builder.
    pub builder: Builder,
    /// Files that tell about the image.
    pub byproducts: Vec<Resource>,
}

/// `builder`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// `BUILDER`.
    pub id: String,
    /// Versions of its parts.
    pub version: BTreeMap<String, String>,
}

/// A `ResourceDescriptor` of in-toto.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// What it is called.
    pub name: String,
    /// The package URL of a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Statement<Provenance> {
    /// The provenance of the artifacts in `manifest`, with its documents of now as by-products. `builder_version` is that of
    /// the program.
    pub fn provenance(manifest: &Manifest, builder_version: &str) -> Result<Self, CanonicalError> {
        let subjects = manifest.artifacts.iter().map(|(name, file)| (name.clone(), file.sha256)).collect();
        let recipe_sha256 = Sha256Digest::of(&to_canonical_bytes(&manifest.recipe)?);
        let provenance = Provenance {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: Parameters {
                    recipe: manifest.name.clone(),
                    recipe_sha256,
                    lock_sha256: manifest.lock_sha256,
                    standing: manifest.standing,
                },
                internal_parameters: Internals { format_epoch: manifest.format_epoch },
                resolved_dependencies: inputs(manifest),
            },
            run_details: RunDetails {
                builder: Builder {
                    id: BUILDER.to_owned(),
                    version: BTreeMap::from([("bullion".to_owned(), builder_version.to_owned())]),
                },
                byproducts: manifest.documents.iter().map(|(name, file)| Resource::of(name, file.sha256)).collect(),
            },
        };
        Ok(Self::about(&subjects, PREDICATE_TYPE, provenance))
    }

    /// The bytes of the file: canonical JSON and a newline.
    pub fn to_file(&self) -> Result<Vec<u8>, CanonicalError> {
        let mut bytes = to_canonical_bytes(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The lock's packages, the files that the recipe brings, what components were compiled from, and the guest binary.
fn inputs(manifest: &Manifest) -> Vec<Resource> {
    let packages = manifest.inputs.iter().map(|package| Resource {
        uri: Some(package.purl()),
        annotations: BTreeMap::from([("path".to_owned(), package.path.clone())]),
        ..Resource::of(&package.name, package.sha256)
    });
    let files = manifest.recipe.image.iter().flat_map(|image| &image.files);
    let sources = files.filter_map(|file| Some(Resource::of(file.source.as_ref()?, file.sha256?)));
    let guest = Resource {
        annotations: BTreeMap::from([("origin".to_owned(), manifest.guest.origin.clone())]),
        ..Resource::of("bullion-guest", manifest.guest.sha256)
    };
    packages.chain(sources).chain(manifest.components.iter().flat_map(inputs_of_component)).chain([guest]).collect()
}

/// Compilers, crates, published files and source files of a component.
fn inputs_of_component(component: &Component) -> Vec<Resource> {
    let of = |name: &str, sha256: Sha256Digest| Resource {
        annotations: BTreeMap::from([("component".to_owned(), component.inputs.name.clone())]),
        ..Resource::of(name, sha256)
    };
    let with_version = |input: &NamedInput, uri: Option<String>| {
        let mut resource = Resource { uri, ..of(&input.name, input.sha256) };
        resource.annotations.insert("version".to_owned(), input.version.clone());
        resource
    };
    let packages = component.inputs.packages.iter().map(|package| with_version(package, None));
    let crates = component.inputs.crates.iter();
    let crates = crates.map(|one| with_version(one, Some(format!("pkg:cargo/{}@{}", one.name, percent(&one.version)))));
    let files = component.inputs.files.iter().map(|(path, sha256)| of(path, *sha256));
    let published = component.inputs.sources.iter().map(|source| {
        let mut resource = Resource { uri: Some(source.url.clone()), ..of(source.name(), source.sha256) };
        resource.annotations.insert("licence".to_owned(), source.licence.clone());
        resource
    });
    packages.chain(crates).chain(published).chain(files).collect()
}

impl Resource {
    fn of(name: &str, sha256: Sha256Digest) -> Self {
        Self { name: name.to_owned(), uri: None, digest: Digest { sha256 }, annotations: BTreeMap::new() }
    }
}
