//! Components: what their sandbox shows and hides, that a result is kept under the key of its inputs, that the guest's bytes
//! depend on nothing of the machine, and that an image with it is of class release.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, Run, bench, names, run, skipped};
use serde_json::Value;
use spec::Sha256Digest;

/// The recipe of the guest component; `None` (and a word why) where its inputs were not fetched.
fn guest() -> Option<PathBuf> {
    let found = std::env::var_os("BULLION_TEST_COMPONENT").map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        skipped("BULLION_TEST_COMPONENT is not set");
    }
    found
}

/// Writes into `directory` a component of that name with the guest's packages and lock, which do not depend on its script.
fn component(directory: &Path, name: &str, rest: &str) -> Option<PathBuf> {
    let guest = guest()?;
    let text = fs::read_to_string(&guest).unwrap();
    let (packages, _) = text.split_once("\n[component]").unwrap();
    let packages = packages.replace("name = \"guest\"", &format!("name = \"{name}\""));
    let recipe = directory.join(format!("{name}.toml"));
    fs::write(&recipe, format!("{packages}\n[component]\n{rest}\n")).unwrap();
    fs::copy(guest.with_extension("lock"), recipe.with_extension("lock")).unwrap();
    Some(recipe)
}

fn build(bench: &Bench, recipe: &Path, words: &[&str]) -> Run {
    run(bench.command(["component", "build"]).arg(recipe).args(words))
}

const LOOK: &str = r#"outputs = ["seen"]
script = '''
unset JOBS
{
  id; uname -n; pwd; umask; env | sort; echo "process $$"
  ls -A / /build /build/home /dev /home /root /run /tmp; echo
  tail -n +3 /proc/self/net/dev | wc -l
  stat -c '%n %a %u %g %Y' /build/script
  ls -l /proc/self/fd | cut -d'>' -f2 | tail -n +2 | head -n 1
  if touch /usr/x /etc/x; then echo "the tree can be written to"; fi
} > out/seen 2>&1
'''"#;

#[test]
fn a_script_sees_nothing_of_the_host() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::Builder::new().prefix("a place ").tempdir().unwrap();
    let Some(recipe) = component(scratch.path(), "look", LOOK) else { return };
    let at = |name: &str| scratch.path().join(name);
    build(&bench, &recipe, &["--jobs", "1", "--verify", "-o", at("first").to_str().unwrap()]).expect(0, &[]);
    let seen = fs::read_to_string(at("first/seen")).unwrap();
    for expected in ["uid=0", "\nbullion\n/build\n0022\n", "\nTZ=UTC\n", "process 3\n", "/build/script 644 0 0 0\n"] {
        assert!(seen.contains(expected), "{expected:?} is not in\n{seen}");
    }
    for foreign in ["HOME=/root", "the tree can be written to", "a place"] {
        assert!(!seen.contains(foreign), "{foreign:?} is in\n{seen}");
    }
    for empty in ["/home", "/root", "/run", "/tmp"] {
        assert!(seen.contains(&format!("\n{empty}:\n\n")), "{empty} is not empty:\n{seen}");
    }
    assert!(seen.contains("\n1\n"), "one network device, which is not up:\n{seen}");

    // Somebody else, who is nobody on this host, with other settings and another cache.
    if !nix::unistd::geteuid().is_root() {
        return skipped("a sandbox of another user needs root");
    }
    for directory in [scratch.path(), &at("other")] {
        fs::create_dir_all(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let store = at("other/cache");
    run(bench.command(["vendor"]).arg(&recipe).arg("-o").arg(&store)).expect(0, &[]);
    fs::copy(&bench.bullion, at("other/bullion")).unwrap();
    let script = format!(
        "set -e; chmod -R a+rwX other; umask 077; exec setpriv --reuid=54321 --regid=54321 --clear-groups other/bullion component build look.toml --jobs 3 --cache-dir '{}' -o other/second",
        store.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(scratch.path());
    let settings =
        [("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("HOME", "/nonexistent"), ("CARGO_HOME", "/x")];
    let run = run(command.envs(settings));
    if run.code == 3 && run.stderr.contains("sysctl") {
        return skipped("a sandbox of another user: this host forbids user namespaces to users");
    }
    run.expect(0, &[]);
    assert_eq!(fs::read_to_string(at("other/second/seen")).unwrap(), seen);
}

/// What a script tries that wants out, or to put something in. Each line that it leaves is a success that it must not have.
const HOSTILE: &str = r#"outputs = ["x"]
script = '''
won() { echo "won: $*" >> out/x; }
touch out/x
for fd in 0 1 2 3; do
  for of in /proc/1/fd/$fd /proc/1/task/*/fd/$fd; do
    if { printf 'output ../escaped 2\nxx' > "$of"; } 2>/dev/null; then won "wrote to $of"; fi
  done
done
for file in /proc/1/cmdline /proc/1/environ /proc/1/maps; do if cat "$file" 2>/dev/null; then won "read $file"; fi; done
for file in /proc/sys /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/cpuinfo; do
  if test -e "$file"; then won "there is $file"; fi
done
cat > mount.c <<END
#include <sys/mount.h>
#include <sched.h>
#include <stdio.h>
int main(void) {
  if (!mount(0, "/usr", 0, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV, 0)) puts("won: remounted /usr");
  if (!mount(0, "/usr", 0, MS_BIND | MS_REMOUNT, 0)) puts("won: remounted /usr");
  if (!mount("none", "/tmp", "tmpfs", 0, 0)) puts("won: mounted");
  if (!umount2("/proc", MNT_DETACH)) puts("won: unmounted");
  return 0;
}
END
gcc -o try mount.c || won "nothing was tried"
./try >> out/x || won "nothing was tried"
for node in null zero full random urandom; do if chmod 666 /dev/$node 2>/dev/null; then won "chmod $node"; fi; done
echo a > /dev/null || won "cannot write to /dev/null"
if mkdir /usr/x 2>/dev/null; then rmdir /usr/x; won "wrote to /usr"; fi
if kill -KILL 1 && kill -SEGV 1; then :; fi
while read -r name value; do
  case $name in
    Cap*:) case $value in *[!0]*) won "$name $value" ;; esac ;;
    NoNewPrivs:) [ "$value" = 1 ] || won "new privileges" ;;
  esac
done < /proc/self/status
for fd in 3 4 5 6 7 8 9; do
  if test -e /proc/$$/fd/$fd; then won "file $fd is open"; fi
done
true
'''"#;

#[test]
fn a_script_cannot_get_out_nor_give_itself_rights() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(recipe) = component(scratch.path(), "hostile", HOSTILE) else { return };
    let out = scratch.path().join("out");
    // A file that the caller has open for whatever it starts.
    let script = "exec 9</etc/passwd; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(&bench.bullion).args(["component", "build", "--verify", "-o"]);
    run(command.arg(&out).arg(&recipe).env("BULLION_STATE_DIR", scratch.path())).expect(0, &[]);
    assert_eq!(fs::read_to_string(out.join("x")).unwrap(), "");
    assert_eq!(names(&out), ["x"]);
}

#[test]
fn a_script_of_root_is_not_root_on_the_host() {
    let Some(bench) = bench() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skipped("a script of root needs root");
    }
    let scratch = tempfile::tempdir().unwrap();
    let look = "outputs = [\"x\"]\nscript = \"cat /proc/self/uid_map /proc/self/gid_map > out/x\"";
    let Some(recipe) = component(scratch.path(), "root", look) else { return };
    build(&bench, &recipe, &["--verify", "-o", scratch.path().to_str().unwrap()]).expect(0, &[]);
    let maps = fs::read_to_string(scratch.path().join("x")).unwrap();
    let numbers: Vec<Vec<&str>> = maps.lines().map(|line| line.split_whitespace().collect()).collect();
    // Seen from inside (user_namespaces(7)), the second number is the one that the parent namespace has.
    assert_eq!(numbers, [["0", "65533", "1"], ["0", "65533", "1"]]);
}

#[test]
fn a_sandbox_that_is_killed_is_the_scripts_failure() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let nap = format!("8{}", std::process::id());
    let script = format!("outputs = [\"x\"]\nscript = \"echo begins >&2; sleep {nap}\"");
    let Some(recipe) = component(scratch.path(), "killed", &script) else { return };
    let mut command = bench.command(["component", "build"]);
    let child = command.arg(&recipe).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let begun = std::time::Instant::now();
    // The first process inside is the parent of the shell that is the parent of `sleep`.
    let first = loop {
        let found = fs::read_dir("/proc").unwrap().find_map(|entry| {
            let path = entry.ok()?.path();
            (fs::read(path.join("cmdline")).ok()? == format!("sleep\0{nap}\0").as_bytes()).then_some(path)
        });
        let parent = |path: PathBuf| {
            let text = fs::read_to_string(path.join("status")).ok()?;
            let parent = text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
            Some(Path::new("/proc").join(parent))
        };
        let at = |path: &Path| fs::read(path.join("cmdline")).unwrap_or_default();
        let mut path = found;
        while path.as_deref().is_some_and(|path| !at(path).ends_with(b"\0inside\0")) {
            path = path.and_then(parent);
        }
        if let Some(path) = path {
            break path.file_name().unwrap().to_str().unwrap().to_owned();
        }
        assert!(begun.elapsed().as_secs() < 120, "the script never began");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    run(Command::new("kill").args(["-KILL", &first])).expect(0, &[]);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("of its sandbox") && said.contains("begins"), "{said}");
}

const RANDOM: &str =
    "outputs = [\"x\"]\nfiles = [\"source\"]\nscript = \"head -c 8 /dev/urandom > out/x; cat source/a >> out/x\"";

#[test]
fn a_result_is_kept_under_the_key_of_its_inputs() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(recipe) = component(scratch.path(), "random", RANDOM) else { return };
    fs::create_dir(scratch.path().join("source")).unwrap();
    // The name of the directory makes the inputs new to the cache.
    let content = scratch.path().display().to_string();
    fs::write(scratch.path().join("source/a"), &content).unwrap();
    build(&bench, &recipe, &["--verify"]).expect(6, &["is not reproducible"]);
    let built = || build(&bench, &recipe, &["--json"]).expect(0, &[]).json();
    let first = built();
    assert_eq!(first, built(), "from the cache");
    let key = |value: &Value| value["key"].as_str().unwrap().to_owned();
    assert_eq!(first["outputs"]["x"]["size"], 8 + content.len());
    // The key is the SHA-256 of the inputs as they stand there: of canonical JSON, which serde_json writes for these.
    let inputs = serde_json::to_string(&first["inputs"]).unwrap();
    let sum = run(Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", &inputs]));
    assert_eq!(sum.stdout.split(' ').next(), Some(key(&first).as_str()));
    build(&bench, &recipe, &["--verify"]).expect(6, &["is not reproducible"]);
    assert_eq!(first, built(), "what was kept stays");
    fs::write(scratch.path().join("source/a"), "b").unwrap();
    assert_ne!(key(&built()), key(&first));
    let store = run(&mut bench.command(["cache", "list", "--json"])).json()["directory"].as_str().unwrap().to_owned();
    let left: Vec<String> =
        names(&Path::new(&store).join("trees")).into_iter().filter(|name| name.starts_with('.')).collect();
    let own: Vec<&String> = left.iter().filter(|name| name.contains(&key(&first)[..12])).collect();
    assert!(own.is_empty(), "left in the cache: {own:?}");
    let last = built();
    let named = build(&bench, &recipe, &["--json", "--cache-dir", &store]).expect(0, &[]).json();
    assert_ne!(named["outputs"], last["outputs"], "a store that was named is not believed");
}

/// Answers each request with `content`, for as long as the test runs; its address.
fn publish(content: String) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let asked = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            asked.for_each(drop);
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}", content.len());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// A file of the test stands in for NVIDIA's, whose archive hosts of tests do not reach.
#[test]
fn a_published_file_goes_in_as_its_digest_says_wherever_it_comes_from() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    // The name of the directory makes it new to the cache.
    let content = format!("echo unpacked > \"$1\" # {}\n", scratch.path().display());
    let sha256 = Sha256Digest::of(content.as_bytes()).to_string();
    let with = |name: &str, address: &str| {
        let source = format!("url = \"{address}/driver-1.0.run\"\nsize = {}\nsha256 = \"{sha256}\"", content.len());
        let script = "outputs = [\"x\"]\nscript = \"sh driver-1.0.run out/x\"";
        component(
            scratch.path(),
            name,
            &format!("{script}\n[[component.source]]\n{source}\nlicence = \"LicenseRef-NVIDIA\""),
        )
    };
    let nowhere = "http://127.0.0.1:9";
    let Some(lost) = with("lost", nowhere) else { return };
    let bullion = |words: &[&str], file: &Path| run(bench.command(words).arg(file));
    build(&bench, &lost, &[]).expect(4, &["driver-1.0.run of http://127.0.0.1:9/driver-1.0.run is not in the cache"]);
    bullion(&["fetch"], &lost).expect(4, &[sha256.as_str(), "bullion cache add driver-1.0.run"]);
    let other = with("other", &publish(content.replace("unpacked", "whatever"))).unwrap();
    bullion(&["fetch"], &other).expect(4, &["is not what was locked"]);

    // From its address.
    let served = with("served", &publish(content.clone())).unwrap();
    let fetched = bullion(&["fetch"], &served).expect(0, &[]);
    assert!(fetched.stdout.contains("1 published files"), "{fetched:?}");
    let built = build(&bench, &served, &["--json"]).expect(0, &[]).json();
    assert_eq!(built["inputs"]["sources"][0]["sha256"], sha256);
    assert_eq!(built["outputs"]["x"]["sha256"], Sha256Digest::of(b"unpacked\n").to_string());

    // From whoever has it.
    let cache = run(&mut bench.command(["cache", "list", "--json"])).json();
    let has = |entry: &&Value| entry["path"].as_str().unwrap().ends_with(&sha256);
    let path = cache["entries"].as_array().unwrap().iter().find(has).unwrap()["path"].as_str().unwrap();
    fs::remove_file(Path::new(cache["directory"].as_str().unwrap()).join(path)).unwrap();
    build(&bench, &lost, &[]).expect(4, &["is not in the cache"]);
    let file = scratch.path().join("driver-1.0.run");
    fs::write(&file, &content).unwrap();
    let added = bullion(&["cache", "add"], &file).expect(0, &[]);
    assert!(added.stdout.starts_with(&sha256), "{added:?}");
    assert_eq!(build(&bench, &lost, &["--json"]).expect(0, &[]).json()["outputs"], built["outputs"]);
    let explained = bullion(&["component", "explain"], &lost).expect(0, &[]).stdout;
    assert!(explained.contains("published http://127.0.0.1:9/driver-1.0.run LicenseRef-NVIDIA"), "{explained}");
}

#[test]
fn a_script_that_fails_is_told_and_leaves_no_result() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(fails) =
        component(scratch.path(), "fails", "outputs = [\"x\"]\nscript = \"echo broken here >&2; exit 9\"")
    else {
        return;
    };
    build(&bench, &fails, &[]).expect(4, &["exit code 9", "broken here"]);
    let missing =
        component(scratch.path(), "missing", "outputs = [\"x\"]\nscript = \"ln -s /etc/passwd out/x\"").unwrap();
    build(&bench, &missing, &[]).expect(4, &["left no file /build/out/x"]);
    let orphan =
        component(scratch.path(), "orphan", "outputs = [\"x\"]\nscript = \"sleep 600 & echo a > out/x\"").unwrap();
    build(&bench, &orphan, &[]).expect(0, &[]);
    build(&bench, &bench.recipe, &[]).expect(2, &["is not a recipe of kind"]);
}

#[test]
fn nothing_goes_on_when_the_program_is_killed() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    // A duration that nobody else sleeps for.
    let nap = format!("7{}", std::process::id());
    let script = format!("outputs = [\"x\"]\nscript = \"sleep {nap}\"");
    let Some(recipe) = component(scratch.path(), "slow", &script) else { return };
    let sleeps = || {
        let lines =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
        lines.into_iter().any(|line| line == format!("sleep\0{nap}\0").as_bytes())
    };
    let wait_for = |wanted: bool| {
        let begun = std::time::Instant::now();
        while sleeps() != wanted {
            assert!(begun.elapsed().as_secs() < 120, "it never was {wanted} that the script runs");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let mut child = bench.command(["component", "build", "--verify"]).arg(&recipe).spawn().unwrap();
    wait_for(true);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(false);
}

#[test]
fn a_host_without_user_namespaces_is_told_which_setting_is_missing() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(recipe) = component(scratch.path(), "none", "outputs = [\"x\"]\nscript = \"date > out/x\"") else {
        return;
    };
    // In a user namespace of its own, the limit of further ones is its own too (user_namespaces(7)).
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces || exit 99; exec '{}' component build '{}' --verify",
        bench.bullion.display(),
        recipe.display()
    );
    let run = run(Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", &script]));
    if run.code == 99 || run.stderr.contains("unshare:") {
        return skipped("a host without user namespaces: this host lets no test set their limit");
    }
    run.expect(3, &["no sandbox could be set up", "sysctl user.max_user_namespaces"]);
}

/// What no kernel of an image can be without, whatever its table says.
const FLOOR: &str = "CONFIG_ACPI_ADMISSION=y\nCONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y\n\
    CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y\nCONFIG_STRICT_KERNEL_RWX=y\nCONFIG_PANIC_ON_OOPS=y\n";

/// A component that hands out the distribution's kernel, with a configuration that says what is in it; its recipe.
fn quick_kernel(bench: &Bench, directory: &Path, config: &str) -> Option<PathBuf> {
    let manifest: Value = serde_json::from_slice(&fs::read(bench.image().join("manifest.json")).unwrap()).unwrap();
    let image = &manifest["recipe"]["image"];
    let modules = ["boot_modules", "device_modules"].map(|list| image[list].as_array().unwrap().clone()).concat();
    let built_in: String = modules.iter().map(|name| format!("kernel/{}.ko\n", name.as_str().unwrap())).collect();
    let files = [
        ("kernel.release", manifest["kernel_version"].as_str().unwrap()),
        ("modules.builtin", &built_in),
        ("config", config),
        (
            "hardening.toml",
            "schema = 1\noption = [{ name = \"KEXEC\", value = \"n\", why = \"another kernel\", source = \"own\" }]\n",
        ),
    ];
    fs::copy(bench.image().join("vmlinuz"), directory.join("bzImage")).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
    let names = ["bzImage", "kernel.release", "modules.builtin", "config", "hardening.toml"];
    component(
        directory,
        "kernel",
        &format!("outputs = {names:?}\nfiles = {names:?}\nscript = \"cp {} out/\"", names.join(" ")),
    )
}

#[test]
fn an_image_with_the_component_is_of_class_release() {
    let (Some(bench), Some(binary)) = (bench(), std::env::var_os("BULLION_GUEST")) else { return };
    if bench.unpublished {
        return skipped("class release: the lock is unpublished");
    }
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    fs::copy(bench.recipe.with_extension("lock"), recipe.with_extension("lock")).unwrap();
    let components = scratch.path().join("components");
    fs::create_dir(&components).unwrap();
    // A component that hands out the binary that is there: compiling it is another test's.
    let quick = "outputs = [\"bullion-guest\"]\nfiles = [\"binary\"]\nscript = \"cp binary out/bullion-guest\"";
    let Some(component) = component(&components, "guest", quick) else { return };
    fs::copy(binary, components.join("binary")).unwrap();
    quick_kernel(&bench, &components, &format!("CONFIG_KEXEC=y\n{FLOOR}"));
    let at = |words: &[&str]| {
        run(bench.command(words).current_dir(scratch.path()).env("BULLION_STATE_DIR", scratch.path().join("state")))
    };
    let words = ["build", "minimal.toml", "--release", "--verify", "-o", "image", "--json"];
    at(&words).expect(6, &["\"kernel\" is not hardened", "CONFIG_KEXEC is y, expected n: another kernel", "hint:"]);
    quick_kernel(&bench, &components, &FLOOR.replace("CONFIG_ACPI_ADMISSION=y\n", "CONFIG_MODULES=y\n"));
    at(&words).expect(6, &["CONFIG_ACPI_ADMISSION is n, expected y", "CONFIG_MODULE_ADMISSION is n, expected y"]);
    quick_kernel(&bench, &components, FLOOR);
    // Tables of another QEMU would be admitted for nobody.
    let other = ["build", "minimal.toml", "--release", "--qemu", "/usr/bin/true", "-o", "other"];
    at(&other).expect(6, &["admits the ACPI tables of the pinned QEMU", "leave out --qemu"]);
    let built = at(&words).expect(0, &["built twice, the same to the byte"]).json();
    assert_eq!((built["class"].as_str(), built["guest"]["origin"].as_str()), (Some("release"), Some("component")));
    assert_eq!(built["components"][0]["outputs"]["bullion-guest"]["sha256"], built["guest"]["sha256"]);
    let same = |name: &str| {
        fs::read(scratch.path().join("image").join(name)).unwrap() == fs::read(bench.image().join(name)).unwrap()
    };
    assert!(same("vmlinuz") && same("rootfs"), "the same files make the same image");
    // The one word more by which a guest knows that it is one of a release, and the one that its kernel needs.
    let line = built["command_line"].as_str().unwrap();
    assert!(line.contains(" bullion.acpi=") && line.ends_with(" bullion.class=release"), "{line}");
    assert!(line.contains(&format!(" bullion.acpi={}", built["acpi"]["digests"][0].as_str().unwrap())), "{line}");
    let vmm = Sha256Digest::of(&fs::read(bench.vmm.with_extension("lock")).unwrap()).to_string();
    assert_eq!(built["acpi"]["qemu_lock_sha256"].as_str(), Some(vmm.as_str()));
    assert!(built["documents"]["kernel.config"].is_object() && built["documents"]["kernel.hardening.toml"].is_object());

    let provenance: Value =
        serde_json::from_slice(&fs::read(scratch.path().join("image/provenance.json")).unwrap()).unwrap();
    let inputs = provenance["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let of_component =
        |name: &str| inputs.iter().any(|one| one["name"] == name && one["annotations"]["component"] == "guest");
    assert!(of_component("rustc") && of_component("binary"), "{inputs:?}");

    at(&["keygen", "-o", "key"]).expect(0, &[]);
    at(&["publish", "image", "--key", "key", "-o", "bundle"]).expect(0, &[]);
    at(&["image", "verify", "bundle", "--trust", "key.pub"]).expect(0, &[]);

    let cache = scratch.path().join("cache");
    fs::create_dir(&cache).unwrap();
    for mode in [0o777, 0o775] {
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = bench.command(["build", "minimal.toml", "--release", "-o", "shared"]);
        run(command.current_dir(scratch.path()).env("BULLION_CACHE", &cache))
            .expect(6, &["can be written to by others"]);
    }
    // What `--verify` runs makes no release of whatever it is given.
    let again = ["rebuild", "--uid", "54321", "--host-name", "x", "--no-references", "--component", "made.json"];
    let rebuild = |given: &Value, output: &str| {
        let given = serde_json::json!({ "components": [given], "acpi": null });
        fs::write(scratch.path().join("made.json"), given.to_string()).unwrap();
        at(&[&again[..], &["minimal.toml", "-o", output]].concat())
    };
    rebuild(&built["components"][0], "forged").expect(0, &[]);
    let forged: Value =
        serde_json::from_slice(&fs::read(scratch.path().join("forged/manifest.json")).unwrap()).unwrap();
    assert_eq!(forged["class"], "dev");
    for (field, value) in
        [("key", "0".repeat(64)), ("lock_sha256", "0".repeat(64)), ("standing", "unpublished".to_owned())]
    {
        let mut other = built["components"][0].clone();
        other[field] = value.into();
        rebuild(&other, "refused").expect(6, &["the component that was given has another", "recipe's"]);
    }

    let explain = ["component", "explain", "components/guest.toml", "--image", "image"];
    at(&explain).expect(0, &[]);
    let text = fs::read_to_string(&component).unwrap();
    fs::write(&component, text.replace("cp binary", "true; cp binary")).unwrap();
    assert!(at(&explain).expect(6, &[]).stdout.contains("changed  the script"));
    // The lock of the image is no release's where somebody made it on the spot.
    let lock = fs::read_to_string(recipe.with_extension("lock")).unwrap();
    fs::write(recipe.with_extension("lock"), lock.replace("standing = \"published\"", "standing = \"unpublished\""))
        .unwrap();
    at(&["build", "minimal.toml", "--release", "-o", "other"])
        .expect(6, &["cannot be of class release", "lock is unpublished"]);
}

#[test]
fn the_kernel_is_the_same_whatever_the_job_count() {
    let Some(bench) = bench() else { return };
    if std::env::var_os("BULLION_TEST_COMPILE").is_none() {
        return skipped("compiling the kernel twice takes half an hour: set BULLION_TEST_COMPILE=1");
    }
    let recipe = bench.recipe.with_file_name("components").join("kernel.toml");
    build(&bench, &recipe, &["--jobs", "2"]).expect(0, &[]);
    build(&bench, &recipe, &["--verify", "--jobs", "3"]).expect(0, &[]);
}

#[test]
fn the_guest_is_the_same_wherever_it_is_compiled() {
    let (Some(bench), Some(recipe)) = (bench(), guest()) else { return };
    if std::env::var_os("BULLION_TEST_COMPILE").is_none() {
        return skipped("compiling the guest three times takes minutes: set BULLION_TEST_COMPILE=1");
    }
    if !nix::unistd::geteuid().is_root() {
        return skipped("another root file system needs root");
    }
    let first = build(&bench, &recipe, &["--json", "--jobs", "2"]).expect(0, &[]).json();
    build(&bench, &recipe, &["--verify", "--jobs", "1"]).expect(0, &[]);
    // Inside the root file system of another distribution, from a copy at another path.
    let scratch = tempfile::Builder::new().prefix("elsewhere ").tempdir().unwrap();
    let script = r#"
        set -e
        mount --make-rprivate /
        mkdir new work/home; mount -t tmpfs none new
        for name in bin sbin lib lib64; do ln -s usr/$name new/$name; done
        for name in usr etc; do mkdir new/$name; mount --bind "$TREE/$name" new/$name; done
        for name in proc dev; do mkdir new/$name; mount --rbind /$name new/$name; done
        mkdir new/old new/tmp new/work; mount --bind work new/work
        cd new; pivot_root . old; cd /work
        exec ./bullion component build recipes/components/guest.toml --json --cache-dir cache
    "#;
    let prepare = r#"
        set -e
        mkdir -p work/recipes; cp -r "$RECIPES/components" work/recipes/; cp "$BULLION" work/bullion
        for name in Cargo.toml Cargo.lock; do cp "$ROOT/$name" work/; done
        for member in $(sed -n 's/^members = \[\(.*\)\]/\1/p' "$ROOT/Cargo.toml" | tr -d '",'); do
          mkdir -p work/$member; cp "$ROOT/$member/Cargo.toml" work/$member/; cp -r "$ROOT/$member/src" work/$member/
        done
    "#;
    let root = recipe.parent().unwrap().join("../..").canonicalize().unwrap();
    let at = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(scratch.path()).env("ROOT", &root).env("RECIPES", root.join("image-recipes"));
        command.env("BULLION", &bench.bullion);
        command
    };
    run(at("sh").args(["-c", prepare])).expect(0, &[]);
    let cache = scratch.path().join("work/cache");
    run(bench.command(["vendor"]).arg(&recipe).arg("-o").arg(&cache)).expect(0, &[]);
    let store = run(&mut bench.command(["cache", "list", "--json"])).json()["directory"].as_str().unwrap().to_owned();
    let tree = Path::new(&store).join("trees").join(first["lock_sha256"].as_str().unwrap()).join("root");
    let other = run(at("unshare").env("TREE", tree).args(["--mount", "sh", "-c", script])).expect(0, &[]).json();
    assert_eq!(other["key"], first["key"]);
    assert_eq!(other["outputs"], first["outputs"]);
}
