//! The part of a Cargo workspace that one program is compiled from: the members that it needs, their manifests without what
//! only tests need, and of `Cargo.lock` what is left to lock.
//!
//! A component's key must not move when another member, a test or a test's dependency changes; nor must crates be fetched
//! that nothing of it is compiled from. Cargo finds in the result a workspace like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use spec::component::NamedInput;
use spec::{Diagnostic, Outcome, Sha256Digest, SyntaxError};
use toml::{Table, Value};

use super::error::syntax;

/// What tests, examples and benchmarks need, in a member's manifest.
const LEFT_OUT: [&str; 4] = ["dev-dependencies", "test", "bench", "example"];
/// What a program is compiled from.
const COMPILED_FROM: [&str; 2] = ["dependencies", "build-dependencies"];

/// A workspace that cannot be reduced.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A manifest, or the lock, is not as it should be.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// A file cannot be read.
    #[error("reading {file}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Diagnostic for WorkspaceError {
    fn outcome(&self) -> Outcome {
        Outcome::Usage
    }
}

/// The reduced workspace.
#[derive(Debug)]
pub(super) struct Reduced {
    /// Manifests and the lock, by path below the workspace.
    pub(super) manifests: BTreeMap<String, String>,
    /// The directories of the members that are needed, below the workspace.
    pub(super) members: BTreeSet<String>,
    /// Crates, as the lock names them.
    pub(super) crates: Vec<NamedInput>,
}

/// Reduces the workspace at `directory` to what `package` is compiled from.
pub(super) fn reduce(directory: &Path, package: &str) -> Result<Reduced, WorkspaceError> {
    let root_path = directory.join("Cargo.toml");
    let mut root = read(&root_path)?;
    let all = Members::read(directory, &root, &root_path)?;
    let (members, needs) = all.needed_by(package, &root, &root_path)?;
    let mut lock = read(&directory.join("Cargo.lock"))?;
    let crates = reduce_lock(&mut lock, &needs, &directory.join("Cargo.lock"))?;
    reduce_root(&mut root, &members, &needs);
    let mut manifests =
        BTreeMap::from([("Cargo.toml".to_owned(), root.to_string()), ("Cargo.lock".to_owned(), lock.to_string())]);
    for (path, mut manifest) in all.by_path.into_iter().filter(|(path, _)| members.contains(path)) {
        leave_out(&mut manifest);
        manifests.insert(format!("{path}/Cargo.toml"), manifest.to_string());
    }
    Ok(Reduced { manifests, members, crates })
}

fn read(path: &Path) -> Result<Table, WorkspaceError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| WorkspaceError::Read { file: path.display().to_string(), source })?;
    Ok(text.parse::<Table>().map_err(|error| syntax(path, error.message()))?)
}

/// The members of a workspace, by their path.
struct Members {
    by_path: BTreeMap<String, Table>,
}

/// The packages that members need, by the member's name.
type Needs = BTreeMap<String, BTreeSet<String>>;

impl Members {
    fn read(directory: &Path, root: &Table, root_path: &Path) -> Result<Self, WorkspaceError> {
        let listed = table(root, "workspace").and_then(|workspace| workspace.get("members")).and_then(Value::as_array);
        let listed = listed.ok_or_else(|| syntax(root_path, "it is not the manifest of a workspace with members"))?;
        let mut by_path = BTreeMap::new();
        for path in listed.iter().filter_map(Value::as_str) {
            if path.contains('*') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(syntax(root_path, format!("the member \"{path}\" is not a plain path below it")).into());
            }
            by_path.insert(path.to_owned(), read(&directory.join(path).join("Cargo.toml"))?);
        }
        Ok(Self { by_path })
    }

    /// The paths of the members that `package` is compiled from, itself among them, and what each of them needs.
    fn needed_by(
        &self,
        package: &str,
        root: &Table,
        root_path: &Path,
    ) -> Result<(BTreeSet<String>, Needs), WorkspaceError> {
        let shared = table(root, "workspace").and_then(|workspace| table(workspace, "dependencies"));
        let path_of = |name: &str| self.by_path.iter().find(|(_, manifest)| name_of(manifest) == Some(name));
        let mut needs = Needs::new();
        let mut paths = BTreeSet::new();
        let mut open = vec![package.to_owned()];
        while let Some(name) = open.pop() {
            if needs.contains_key(&name) {
                continue;
            }
            let (path, manifest) = path_of(&name)
                .ok_or_else(|| syntax(root_path, format!("the workspace has no member with a package \"{name}\"")))?;
            paths.insert(path.clone());
            let wanted: BTreeSet<String> =
                dependencies(manifest).map(|(key, how)| package_name(key, how, shared)).collect();
            open.extend(wanted.iter().filter(|name| path_of(name).is_some()).cloned());
            needs.insert(name, wanted);
        }
        Ok((paths, needs))
    }
}

fn table<'a>(within: &'a Table, key: &str) -> Option<&'a Table> {
    within.get(key)?.as_table()
}

fn name_of(manifest: &Table) -> Option<&str> {
    table(manifest, "package")?.get("name")?.as_str()
}

/// Everything that a manifest's program is compiled from, for every target.
fn dependencies(manifest: &Table) -> impl Iterator<Item = (&str, &Value)> {
    let targets =
        table(manifest, "target").into_iter().flat_map(|targets| targets.values().filter_map(Value::as_table));
    std::iter::once(manifest)
        .chain(targets)
        .flat_map(|within| COMPILED_FROM.iter().filter_map(|section| table(within, section)))
        .flat_map(|section| section.iter().map(|(key, how)| (key.as_str(), how)))
}

/// The name of the package behind a dependency, which may have another name there.
fn package_name(key: &str, how: &Value, shared: Option<&Table>) -> String {
    let inherited = how.get("workspace").and_then(Value::as_bool).unwrap_or_default();
    let how = if inherited { shared.and_then(|shared| shared.get(key)) } else { Some(how) };
    how.and_then(|how| how.get("package")).and_then(Value::as_str).unwrap_or(key).to_owned()
}

fn leave_out(manifest: &mut Table) {
    for name in LEFT_OUT {
        manifest.remove(name);
    }
    let targets = manifest.get_mut("target").and_then(Value::as_table_mut);
    for target in targets.into_iter().flat_map(|targets| targets.iter_mut()) {
        if let Some(target) = target.1.as_table_mut() {
            target.remove("dev-dependencies");
        }
    }
}

/// Leaves in the root's manifest the members and the shared dependencies that are needed.
fn reduce_root(root: &mut Table, members: &BTreeSet<String>, needs: &Needs) {
    let Some(workspace) = root.get_mut("workspace").and_then(Value::as_table_mut) else { return };
    let list: Vec<Value> = members.iter().map(|path| Value::String(path.clone())).collect();
    workspace.insert("members".to_owned(), Value::Array(list));
    for key in ["default-members", "exclude"] {
        workspace.remove(key);
    }
    if let Some(shared) = workspace.get_mut("dependencies").and_then(Value::as_table_mut) {
        shared.retain(|key, how| {
            let name = package_name(key, how, None);
            needs.contains_key(&name) || needs.values().any(|wanted| wanted.contains(&name))
        });
    }
}

/// Leaves in the lock what is reached from the needed members; returns the crates among it.
fn reduce_lock(lock: &mut Table, needs: &Needs, path: &Path) -> Result<Vec<NamedInput>, WorkspaceError> {
    let Some(packages) = lock.get_mut("package").and_then(Value::as_array_mut) else {
        return Err(syntax(path, "it locks no package").into());
    };
    let mut packages: Vec<Table> =
        std::mem::take(packages).into_iter().filter_map(|one| one.as_table().cloned()).collect();
    for package in &mut packages {
        let wanted =
            text(package, "name").and_then(|name| needs.get(&name)).filter(|_| !package.contains_key("source"));
        let listed = package.get_mut("dependencies").and_then(Value::as_array_mut);
        if let (Some(wanted), Some(listed)) = (wanted, listed) {
            listed.retain(|one| {
                one.as_str().and_then(|one| one.split(' ').next()).is_some_and(|name| wanted.contains(name))
            });
        }
    }
    let reached = reached(&packages, needs);
    let kept: Vec<Table> =
        packages.into_iter().enumerate().filter(|(index, _)| reached.contains(index)).map(|(_, one)| one).collect();
    let crates = kept
        .iter()
        .filter(|one| one.contains_key("source"))
        .map(|one| locked_crate(one, path))
        .collect::<Result<_, _>>()?;
    lock.insert("package".to_owned(), Value::Array(kept.into_iter().map(Value::Table).collect()));
    lock.remove("patch");
    Ok(crates)
}

/// The positions of all packages that are reached from the members.
fn reached(packages: &[Table], needs: &Needs) -> BTreeSet<usize> {
    // A dependency is written as the name, with the version where several are locked.
    let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, package) in packages.iter().enumerate() {
        let (name, version) = (text(package, "name").unwrap_or_default(), text(package, "version").unwrap_or_default());
        by_name.entry(format!("{name} {version}")).or_default().push(index);
        by_name.entry(name).or_default().push(index);
    }
    let find = |dependency: &str| {
        let words: Vec<&str> = dependency.split(' ').take(2).collect();
        by_name.get(&words.join(" ")).cloned().unwrap_or_default()
    };
    let mut open: Vec<usize> = needs.keys().flat_map(|name| find(name)).collect();
    let mut reached = BTreeSet::new();
    while let Some(index) = open.pop() {
        let Some(package) = packages.get(index).filter(|_| reached.insert(index)) else { continue };
        let listed = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        open.extend(listed.filter_map(Value::as_str).flat_map(find));
    }
    reached
}

fn text(package: &Table, key: &str) -> Option<String> {
    package.get(key)?.as_str().map(str::to_owned)
}

fn locked_crate(package: &Table, path: &Path) -> Result<NamedInput, WorkspaceError> {
    let (name, version) = (text(package, "name").unwrap_or_default(), text(package, "version").unwrap_or_default());
    let plain = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphanumeric())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    let checksum = text(package, "checksum").and_then(|checksum| checksum.parse::<Sha256Digest>().ok());
    match checksum.filter(|_| plain(&name) && plain(&version)) {
        Some(sha256) => Ok(NamedInput { name, version, sha256 }),
        None => Err(syntax(path, format!("\"{name}\" {version} is no crate of a registry with a checksum")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = r#"
        [workspace]
        members = ["app", "lib", "other"]
        default-members = ["app"]
        [workspace.dependencies]
        lib = { path = "lib", package = "the-lib" }
        used = "1"
        unused = "1"
        [profile.small]
        inherits = "release"
    "#;
    const APP: &str = r#"
        [package]
        name = "app"
        [dependencies]
        lib.workspace = true
        [dev-dependencies]
        unused.workspace = true
    "#;
    const LIB: &str = r#"
        [package]
        name = "the-lib"
        [dependencies]
        renamed = { package = "used", version = "1" }
        [target.'cfg(unix)'.dependencies]
        unix-only = "2"
        [[bench]]
        name = "b"
    "#;
    const OTHER: &str = "[package]\nname = \"other\"\n[dependencies]\nunused.workspace = true\n";

    fn lock() -> String {
        let mut lock = "version = 4\n".to_owned();
        let sum = "ab".repeat(32);
        for (name, version, from_registry, needs) in [
            ("app", "0.1.0", false, r#""the-lib", "unused""#),
            ("the-lib", "0.1.0", false, r#""used 1.0.0", "unix-only""#),
            ("other", "0.1.0", false, r#""unused""#),
            ("used", "1.0.0", true, r#""deep""#),
            ("used", "2.0.0", true, ""),
            ("unix-only", "2.0.0", true, ""),
            ("deep", "0.3.0", true, ""),
            ("unused", "1.0.0", true, r#""used 2.0.0""#),
        ] {
            lock += &format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\ndependencies = [{needs}]\n");
            if from_registry {
                lock += &format!("source = \"registry\"\nchecksum = \"{sum}\"\n");
            }
        }
        lock
    }

    fn workspace(lock: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("Cargo.toml", ROOT),
            ("app/Cargo.toml", APP),
            ("lib/Cargo.toml", LIB),
            ("other/Cargo.toml", OTHER),
            ("Cargo.lock", lock),
        ] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn what_only_tests_and_other_members_need_is_left_out() {
        let directory = workspace(&lock());
        let reduced = reduce(directory.path(), "app").unwrap();
        assert_eq!(reduced.members, BTreeSet::from(["app".to_owned(), "lib".to_owned()]));
        let crates: Vec<String> = reduced.crates.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
        assert_eq!(crates, ["used 1.0.0", "unix-only 2.0.0", "deep 0.3.0"]);
        let manifest = |path: &str| reduced.manifests[path].parse::<Table>().unwrap();
        assert!(!manifest("app/Cargo.toml").contains_key("dev-dependencies"));
        assert!(!manifest("lib/Cargo.toml").contains_key("bench"));
        let root = manifest("Cargo.toml");
        assert_eq!(root["profile"]["small"]["inherits"].as_str(), Some("release"));
        let shared = root["workspace"]["dependencies"].as_table().unwrap();
        assert_eq!(shared.keys().collect::<Vec<_>>(), ["lib", "used"]);
        assert!(!reduced.manifests["Cargo.lock"].contains("unused"), "{}", reduced.manifests["Cargo.lock"]);
    }

    #[test]
    fn a_change_elsewhere_changes_nothing() {
        let directory = workspace(&lock());
        let before = reduce(directory.path(), "app").unwrap().manifests;
        let newer = lock().replace("name = \"unused\"\nversion = \"1.0.0\"", "name = \"unused\"\nversion = \"1.0.1\"");
        std::fs::write(directory.path().join("Cargo.lock"), newer).unwrap();
        std::fs::write(directory.path().join("other/Cargo.toml"), OTHER.replace("unused", "used")).unwrap();
        assert_eq!(reduce(directory.path(), "app").unwrap().manifests, before);
    }

    #[test]
    fn a_crate_without_a_checksum_and_a_member_that_is_not_there_are_refused() {
        let directory = workspace(&lock().replacen("checksum", "sum", 1));
        assert!(reduce(directory.path(), "app").unwrap_err().to_string().contains("\"used\" 1.0.0 is no crate"));
        assert!(
            reduce(directory.path(), "none").unwrap_err().to_string().contains("no member with a package \"none\"")
        );
    }
}
