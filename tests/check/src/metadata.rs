//! What cargo says about the workspace: packages, what they ask for, and what that was resolved to.
//!
//! Only the platforms that Bullion is built for are resolved: an offline machine has no others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"];

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) workspace_root: String,
    pub(crate) resolve: Resolve,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as a manifest asks for it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` (normal), `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// The folder of a dependency in the same workspace.
    pub(crate) path: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<NodeDependency>,
    pub(crate) features: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NodeDependency {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DependencyKind {
    pub(crate) kind: Option<String>,
}

/// Asks cargo, offline.
pub(crate) fn read(root: &Path) -> Result<Metadata, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--offline", "--format-version", "1"]).current_dir(root);
    for platform in PLATFORMS {
        command.args(["--filter-platform", platform]);
    }
    let output = command.output().map_err(|error| format!("running cargo metadata: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata failed; where a crate is missing, `cargo fetch` gets it:\n{reason}"));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("reading what cargo metadata wrote: {error}"))
}

impl Metadata {
    /// The crates of the workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// The crates that others wrote.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| !self.workspace_members.contains(&package.id))
    }

    /// A member's folder below the workspace root (`spec`, `tests/check`): the name that the crate table uses.
    pub(crate) fn folder<'a>(&self, package: &'a Package) -> &'a str {
        let path = package.manifest_path.strip_prefix(self.workspace_root.as_str()).unwrap_or(&package.manifest_path);
        path.trim_start_matches('/').trim_end_matches("Cargo.toml").trim_end_matches('/')
    }

    /// Everything that a package is built from, itself included: normal and build dependencies, all the way down.
    pub(crate) fn closure(&self, package: &Package) -> BTreeSet<&Package> {
        let packages: BTreeMap<&str, &Package> = self.packages.iter().map(|p| (p.id.as_str(), p)).collect();
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut reached = BTreeSet::new();
        let mut left = vec![package.id.as_str()];
        while let Some(id) = left.pop() {
            if !reached.insert(id) {
                continue;
            }
            let deps = nodes.get(id).map_or(&[][..], |node| &node.deps);
            let built = deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev")));
            left.extend(built.map(|dep| dep.pkg.as_str()));
        }
        reached.into_iter().filter_map(|id| packages.get(id).copied()).collect()
    }
}

impl PartialEq for Package {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for Package {}
impl PartialOrd for Package {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Package {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

/// Workspaces as small as a test needs them.
#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// A crate of the fixture: folder, then what it depends on, each with its kind.
    pub(crate) type Member = (&'static str, &'static [(&'static str, Option<&'static str>)]);

    fn package(id: &str, path: &str, source: Option<&str>) -> Package {
        Package {
            id: id.to_owned(),
            name: id.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            source: source.map(str::to_owned),
            manifest_path: format!("{path}/Cargo.toml"),
            dependencies: Vec::new(),
        }
    }

    /// A workspace of `members`; whatever they name that is no member is a crate from the public registry.
    pub(crate) fn workspace(members: &[Member]) -> Metadata {
        let is_member = |name: &str| members.iter().any(|(folder, _)| *folder == name);
        let mut packages: Vec<Package> = Vec::new();
        let mut nodes = Vec::new();
        for (folder, deps) in members {
            let mut member = package(folder, &format!("/w/{folder}"), None);
            for (name, kind) in *deps {
                let path = is_member(name).then(|| format!("/w/{name}"));
                member.dependencies.push(Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned), path });
                if !is_member(name) && !packages.iter().any(|there| there.name == *name) {
                    packages.push(package(name, "/registry", Some(crate::deny::PUBLIC_REGISTRY)));
                    nodes.push(Node { id: (*name).to_owned(), deps: Vec::new(), features: Vec::new() });
                }
            }
            let deps = deps.iter().map(|(name, kind)| NodeDependency {
                pkg: (*name).to_owned(),
                dep_kinds: vec![DependencyKind { kind: kind.map(str::to_owned) }],
            });
            nodes.push(Node { id: (*folder).to_owned(), deps: deps.collect(), features: Vec::new() });
            packages.push(member);
        }
        Metadata {
            packages,
            workspace_members: members.iter().map(|(folder, _)| (*folder).to_owned()).collect(),
            workspace_root: "/w".to_owned(),
            resolve: Resolve { nodes },
        }
    }

    #[test]
    fn a_closure_leaves_out_what_only_tests_need() {
        let metadata = workspace(&[("a", &[("b", None), ("proptest", Some("dev"))]), ("b", &[("cc", Some("build"))])]);
        let a = metadata.members().next().expect("a");
        let names: Vec<&str> = metadata.closure(a).into_iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "cc"]);
    }

    #[test]
    fn cargo_is_understood() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let metadata = read(&root).expect("metadata of this workspace");
        let folders: Vec<&str> = metadata.members().map(|package| metadata.folder(package)).collect();
        assert!(folders.contains(&"spec") && folders.contains(&"tests/check"), "{folders:?}");
        let spec = metadata.members().find(|package| package.name == "bullion-spec").expect("spec");
        assert!(metadata.closure(spec).iter().any(|package| package.name == "serde_core"), "resolved all the way down");
    }
}
