//! What is shipped: packed twice, read by `dpkg-deb`, installed by dpkg into clean systems of two releases, and run there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, bench, judge, names, run, skipped};
use spec::Sha256Digest;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Packs what is built, without compression, which is slow and not ours.
fn pack(output: &Path, umask: &str, zone: &str) {
    let script = format!("umask {umask}; exec \"$0/scripts/package\" --built -o \"$1\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(root()).arg(output).current_dir(output.parent().unwrap());
    command.env("PROFILE", "debug").env("COMPRESSION", "none").env("TZ", zone).env_remove("BULLION_GUEST");
    run(&mut command).expect(0, &[]);
}

/// The packages, made once for all tests of this program; `None` (and a word why) where they cannot be.
fn packed() -> Option<(Bench, &'static Path)> {
    let (bench, _) = (bench()?, judge("dpkg-deb")?);
    if bench.bullion != root().join("target/debug/bullion") {
        skipped("packages are made of target/debug, which is not what is tested");
        return None;
    }
    static MADE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let made = MADE.get_or_init(|| {
        let scratch = tempfile::tempdir().unwrap();
        pack(&scratch.path().join("one"), "022", "UTC");
        scratch
    });
    Some((bench, made.path()))
}

#[test]
fn a_package_is_the_same_whoever_makes_it_and_says_what_is_in_it() {
    let Some((_, scratch)) = packed() else { return };
    pack(&scratch.join("two"), "077", "Pacific/Kiritimati");
    let files = names(&scratch.join("one"));
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        let of = |name: &str| Sha256Digest::of(&fs::read(scratch.join(name).join(file)).unwrap());
        assert_eq!(of("one"), of("two"), "{file}");
    }
    let deb = scratch.join("one").join(files.iter().find(|file| file.ends_with(".deb")).unwrap());
    let listed = run(judge("dpkg-deb").unwrap().arg("--contents").arg(&deb)).expect(0, &[]).stdout;
    assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
    let places = [
        "-rwxr-xr-x root/root", // The program is one of these.
        "./usr/bin/bullion\n",
        "./usr/lib/bullion/bullion-guest\n",
        "./usr/lib/systemd/system/bullion-metrics.timer\n",
        "./usr/share/bash-completion/completions/bullion\n",
        "./usr/share/bullion/image-recipes/minimal.lock\n",
        "./usr/share/bullion/image-recipes/components/guest.toml\n",
        "./usr/share/man/man1/bullion-launch.1.gz\n",
        "./usr/share/doc/bullion/copyright\n",
    ];
    for place in places {
        assert!(listed.contains(place), "{place:?} is not in\n{listed}");
    }
    let field = |name: &str| run(judge("dpkg-deb").unwrap().arg("--field").arg(&deb).arg(name)).expect(0, &[]).stdout;
    assert_eq!(field("Version").trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(field("Architecture").trim(), "amd64");
}

/// Installed from the package and from the archive, it builds the image that this test's own program builds; removed, it
/// leaves nothing.
const SCRIPT: &str = r#"
set -eu
root=$1 cache=$2
mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/cache" "$root/var/lib/dpkg"
mount -t proc proc "$root/proc"
for node in null zero urandom; do : > "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
mount --rbind "$cache" "$root/cache"
[ -e "$root/var/lib/dpkg/status" ] || : > "$root/var/lib/dpkg/status"
exec chroot "$root" /bin/sh -c '
  set -eu
  find /usr /etc -xdev | sort > /tmp/before
  # The tree was unpacked without dpkg: it does not know that the C library is there.
  dpkg --force-depends -i /tmp/package.deb
  bullion --version
  dpkg --verify bullion
  bullion vm check /usr/share/doc/bullion/examples/*.vm.toml > /dev/null
  export BULLION_CACHE=/cache
  bullion build /usr/share/bullion/image-recipes/minimal.toml -o /tmp/installed --no-references
  bullion vm install web /tmp/web.vm.toml --dir /tmp/units --print > /dev/null
  dpkg --force-depends -r bullion
  find /usr /etc -xdev | sort > /tmp/after
  cmp /tmp/before /tmp/after
  mkdir /opt; tar -xf /tmp/archive.tar -C /opt
  cd /opt/bullion-*
  bin/bullion build share/bullion/image-recipes/minimal.toml -o /tmp/unpacked --no-references
'
"#;

fn runs_in(name: &str) {
    let Some((bench, scratch)) = packed() else { return };
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts"];
    let tried = Command::new("unshare").args(namespaces).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !nix::unistd::geteuid().is_root() || !tried.is_ok_and(|output| output.status.success()) {
        return skipped("a clean system is entered by root only, where namespaces can be made");
    }
    let recipe = bench.recipe.with_file_name(format!("{name}.toml"));
    let unpacked = run(bench.command(["--quiet", "exec"]).arg(&recipe).args(["dpkg", "--", "--version"]));
    if unpacked.code != 0 {
        return skipped(&format!("{name} is not in the cache: bullion fetch image-recipes/{name}.toml"));
    }
    let cache = run(&mut bench.command(["cache", "list", "--json"])).json()["directory"].as_str().unwrap().to_owned();
    let lock = Sha256Digest::of(&fs::read(recipe.with_extension("lock")).unwrap());
    let tree = Path::new(&cache).join("trees").join(lock.to_string()).join("root");
    let system = scratch.join(name);
    run(Command::new("cp").arg("-a").arg(tree).arg(&system)).expect(0, &[]);
    fs::create_dir_all(system.join("tmp/image")).unwrap();
    let packages = scratch.join("one");
    for file in names(&packages) {
        let to = if file.ends_with(".deb") { "package.deb" } else { "archive.tar" };
        fs::copy(packages.join(&file), system.join("tmp").join(to)).unwrap();
    }
    bench.vm(&system.join("tmp"), "web", "none", 1, Path::new("/tmp/image"));
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-c", SCRIPT, "sh"]).arg(&system).arg(&cache).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("LC_ALL", "C");
    let installed = run(&mut command).expect(0, &[]);
    assert!(installed.stdout.contains(concat!("bullion ", env!("CARGO_PKG_VERSION"))), "{installed:#?}");
    for made in ["installed", "unpacked"] {
        for file in ["rootfs", "initrd", "cmdline"] {
            let here = fs::read(bench.image().join(file)).unwrap();
            assert!(fs::read(system.join("tmp").join(made).join(file)).unwrap() == here, "{made}: {file} is another");
        }
    }
}

#[test]
fn it_is_installed_run_and_removed_in_a_clean_trixie() {
    runs_in("clean-trixie");
}

#[test]
fn it_is_installed_run_and_removed_in_a_clean_bookworm() {
    runs_in("clean-bookworm");
}
