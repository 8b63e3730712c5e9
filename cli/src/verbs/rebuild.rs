//! `bullion build --verify`: the image once more, by another process in other circumstances, and compared file by file.
//!
//! The second build has nothing of the first but the recipe, its lock, the guest binary and the locked inputs. What is varied is
//! said; the kernel and the processor are what they are, and so is this program.

mod another_date;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use image::sandbox::map_user;
use image::{BuildRequest, Difference, Staged, compare_images};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use spec::Outcome;
use spec::manifest::{Class, FILE_NAME, ReferenceValues};
use store::{Image, Store};

use self::another_date::Ended;
use super::build::compiled::{Given, check_given};
use crate::args::{Arguments, Build, Rebuild};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;

/// Its user and host have this number and this name.
const UID: u32 = 54_321;
const HOST_NAME: &str = "elsewhere";
/// How much later it is there.
const LATER_SECONDS: i64 = 1000 * 86_400;
/// Another time zone on another day, a locale with surprising upper case, and no home.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("TZ", "Pacific/Kiritimati"),
    ("LC_ALL", "tr_TR.UTF-8"),
    ("HOME", "/nonexistent"),
    ("USER", "somebody"),
    ("LOGNAME", "somebody"),
    ("SOURCE_DATE_EPOCH", "1"),
];
/// What is different in every second build.
const VARIED: &str = "paths, umask, time zone, locale, environment, number of threads, order and times of the input files, \
                      nothing kept from builds before";

/// What came of the second build.
pub(super) struct Again {
    /// What the second image has otherwise. Empty where it is the same to the byte.
    pub(super) differences: Vec<Difference>,
    /// What was varied, for people.
    pub(super) varied: String,
}

/// Builds the image again and compares it with the one that waits in `staged`.
pub(super) fn again(
    verb: &Build,
    request: &BuildRequest<'_>,
    staged: &Staged,
    store: &Store,
) -> Result<Again, Failure> {
    let place = Place::prepare(verb, request, store)?;
    let jobs = if request.jobs == 1 { "3" } else { "1" };
    let words = ["rebuild", "--uid", &UID.to_string(), "--host-name", HOST_NAME, "--no-references", "--quiet"];
    let program = std::env::current_exe().map_err(|error| Failure::file("finding", Path::new("bullion"), &error))?;
    let mut command = Command::new(program);
    command
        .args(words)
        .args(["--jobs", jobs, "--cache-dir", "inputs", "--guest", "guest", "--lock", "lock", "-o", "again/image"])
        .args(if Given::of(request).components.is_empty() { &[][..] } else { &["--component", "component"] })
        .arg(&place.recipe)
        .current_dir(&place.directory)
        .env_clear()
        .envs(ENVIRONMENT)
        .stdin(Stdio::null());
    let ended = another_date::run(command, LATER_SECONDS)
        .map_err(|error| Failure::file("running a second build in", &place.directory, &error))?;
    if ended.code != Some(0) {
        return Err(failed(&ended));
    }
    let date = if ended.other_date { "date" } else { "but not the date: a process may not be traced here" };
    let answer = String::from_utf8_lossy(&ended.stdout).lines().next().unwrap_or_default().to_owned();
    let differences = compare(staged, &place.directory.join("again/image"))?;
    Ok(Again { differences, varied: format!("{VARIED}, {date}, {answer}") })
}

/// What the second build said of its failure, and what it means.
fn failed(ended: &Ended) -> Failure {
    let known =
        [Outcome::Usage, Outcome::HostCannot, Outcome::InputMismatch, Outcome::SignatureInvalid, Outcome::Refused];
    let outcome = known.into_iter().find(|known| ended.code == Some(known.code().into()));
    let said = String::from_utf8_lossy(&ended.stderr);
    let mut lines = said.lines().map(str::trim);
    let hint = said.lines().find_map(|line| line.trim().strip_prefix("hint: "));
    let message = lines.find_map(|line| line.strip_prefix("error: ")).unwrap_or(said.trim());
    let failure = Failure::new(outcome.unwrap_or(Outcome::Internal), format!("the second build failed: {message}"));
    hint.into_iter().fold(failure, |failure, hint| failure.with_hint(hint))
}

/// What the images differ in; the expected values are left out of both manifests, since they follow from the rest, and so is
/// the class, which a second build never calls release.
fn compare(staged: &Staged, second: &Path) -> Result<Vec<Difference>, Failure> {
    let mut differences = compare_images(staged.directory(), second)?;
    // The first image has no manifest before it is committed.
    differences.retain(|difference| difference.artifact != FILE_NAME);
    let without_references = |manifest: &spec::manifest::Manifest| {
        let manifest =
            spec::manifest::Manifest { references: ReferenceValues::default(), class: Class::Dev, ..manifest.clone() };
        manifest.to_bytes().map_err(|error| Failure::new(Outcome::Internal, error.to_string()))
    };
    let second = Image::open(second)?.manifest;
    if without_references(&staged.manifest)? != without_references(&second)? && differences.is_empty() {
        differences.push(Difference {
            artifact: FILE_NAME.to_owned(),
            path: None,
            change: image::compare::Change::Changed,
            what: "what it says of the same files differs".to_owned(),
        });
    }
    Ok(differences)
}

/// A directory with copies of what a build needs, removed in the end.
struct Place {
    directory: PathBuf,
    recipe: OsString,
}

impl Place {
    fn prepare(verb: &Build, request: &BuildRequest<'_>, store: &Store) -> Result<Self, Failure> {
        let output =
            std::path::absolute(&verb.output).map_err(|error| Failure::file("finding", &verb.output, &error))?;
        // One build of an output at a time: what is there is of one that was killed.
        let mut name = OsString::from(".verify of ");
        name.push(output.file_name().unwrap_or_default());
        let directory = output.with_file_name(name);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::file("removing", &directory, &error));
            }
            _ => {}
        }
        fs::create_dir(&directory).map_err(|error| Failure::file("creating", &directory, &error))?;
        let mut place = Self { directory, recipe: OsString::new() };
        place.recipe = place.fill(verb, request, store)?;
        Ok(place)
    }

    /// Copies the inputs, in another order than they came in; gives the recipe's path from here.
    fn fill(&self, verb: &Build, request: &BuildRequest<'_>, store: &Store) -> Result<OsString, Failure> {
        let at = |name: &str| self.directory.join(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| Failure::file("writing", &path, &error)
        };
        let copies = Store::open(&at("inputs"))?;
        let mut time = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
        for package in request.lock.package.iter().rev() {
            copies.insert_bytes(&store.read(&package.sha256, package.size)?)?;
            time += Duration::from_secs(86_400);
            let path = copies.blob_path(&package.sha256);
            set_time(&path, time).map_err(failed(&path))?;
        }
        for output in request.kernel.iter().flat_map(|kernel| kernel.outputs.values()) {
            copies.insert_bytes(output)?;
        }
        for file in request.parts.iter().flat_map(|part| part.files.values()) {
            copies.insert_bytes(file.bytes())?;
        }
        let component = serde_json::to_vec(&Given::of(request))
            .map_err(|error| Failure::new(Outcome::Internal, error.to_string()))?;
        let files = [("guest", request.guest.bytes), ("lock", request.lock_text.as_bytes()), ("component", &component)];
        for (name, bytes) in files {
            fs::write(at(name), bytes).and_then(|()| set_time(&at(name), time)).map_err(failed(&at(name)))?;
        }
        // Through a link, so that what it extends and names is found beside it all the same.
        let recipe = std::path::absolute(&verb.recipe).map_err(failed(&verb.recipe))?;
        let parent = recipe.parent().unwrap_or(Path::new("/"));
        symlink(parent, at("recipes")).map_err(failed(&at("recipes")))?;
        Ok(Path::new("recipes").join(recipe.file_name().unwrap_or_default()).into_os_string())
    }
}

fn set_time(path: &Path, time: SystemTime) -> io::Result<()> {
    // The blobs of a store are read-only; their owner may still set their times.
    File::open(path)?.set_modified(time)
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The second build itself, in its own process: becomes another user on another host as far as it may, then builds. The first
/// line on stdout says what could be varied.
pub(crate) fn run(arguments: &Arguments, verb: &Rebuild, printer: &Printer) -> Result<u8, Failure> {
    umask(Mode::from_bits_truncate(0o077));
    let varied = match become_another(verb.uid, &verb.host_name) {
        Ok(()) => "number of the user, host name".to_owned(),
        Err(error) => format!("but not the number of the user and the host name: no namespaces here ({error})"),
    };
    printer.line(varied);
    let given: Given = match &verb.component {
        Some(path) => serde_json::from_str(&inputs::read_text(path)?)
            .map_err(|error| Failure::new(Outcome::Usage, format!("{}: {error}", path.display())))?,
        None => Given::default(),
    };
    check_given(&given, &verb.build.recipe)?;
    super::build::with_components(arguments, &verb.build, &given, printer)
}

/// New user and UTS namespaces (user_namespaces(7)): the same user with another number, and another host name.
fn become_another(uid: u32, host_name: &str) -> io::Result<()> {
    let (own_uid, own_gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS)?;
    map_user(uid, own_uid.as_raw(), own_gid.as_raw()).map_err(io::Error::other)?;
    Ok(nix::unistd::sethostname(host_name)?)
}
