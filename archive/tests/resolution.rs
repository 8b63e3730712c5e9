//! Which packages are chosen: by rules written down here, and as apt chooses where apt is installed.

mod fixture;

use std::fs;
use std::process::Command;

use archive::lock::LockError;
use archive::{KernelError, ResolveError};
use fixture::{Archive, Deb, SUITE, deb, names, tree};
use spec::lock::Use;
use spec::{Diagnostic as _, Outcome};

/// A world with a bit of everything.
fn world() -> Vec<Deb> {
    vec![
        deb("app", "1.0", "Depends: lib (>= 2), editor | vi, helper:any, data (= 1.0)\nPre-Depends: base\n"),
        deb("lib", "2.1-1", "Depends: base, libgcc (>= 1)\nBreaks: oldapp (<< 2)\n"),
        deb("base", "13", ""),
        deb("editor", "5", "Depends: base\nConflicts: emacs\n"),
        deb("vi", "9", ""),
        deb("helper", "1", "Depends: compat-api (>= 3)\nMulti-Arch: allowed\n"),
        deb("any-of-unwilling", "1", "Depends: lib:any | vi\n"),
        deb("new-api", "7", "Provides: compat-api (= 4), unversioned-api\n"),
        deb("old-api", "6", "Provides: compat-api (= 2)\n"),
        deb("data", "1.0", ""),
        deb("libgcc", "14", ""),
        deb("oldapp", "1", "Depends: lib\n"),
        deb("oldapp", "2", "Depends: lib\n"),
        deb("emacs", "30", "Provides: editor-like\n"),
        deb("wants-unversioned", "1", "Depends: unversioned-api\n"),
        deb("wants-version-of-unversioned", "1", "Depends: unversioned-api (>= 1)\n"),
        deb("mail-a", "1", "Provides: mail-server\nConflicts: mail-server\n"),
        deb("mail-b", "1", "Provides: mail-server\nConflicts: mail-server\n"),
        deb("wants-mail", "1", "Depends: mail-server\n"),
        deb("wants-default-mail", "1", "Depends: mail-b | mail-server\n"),
        deb("loop-a", "1", "Depends: loop-b\n"),
        deb("loop-b", "1", "Depends: loop-a\n"),
        deb("fallback", "1", "Depends: absent | vi\n"),
        deb("foreign", "1", "Depends: lib:i386 | vi\n"),
        deb("self", "1", "Provides: selfish\nDepends: selfish\nConflicts: selfish\n"),
        deb("hopeless", "1", "Depends: lib (>= 99)\n"),
        deb("clash", "1", "Depends: oldapp (<< 2), lib\n"),
    ]
}

fn locked(packages: &[&str]) -> Vec<String> {
    names(&Archive::new(&world()).lock(packages).unwrap())
}

fn refused(recipe: &str) -> ResolveError {
    match Archive::new(&world()).lock_recipe(recipe).unwrap_err() {
        LockError::Resolve(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn dependencies_are_followed() {
    let app = ["app 1.0", "base 13", "data 1.0", "editor 5", "helper 1", "lib 2.1-1", "libgcc 14", "new-api 7"];
    assert_eq!(locked(&["app"]), app);
    assert_eq!(locked(&["loop-a"]), ["loop-a 1", "loop-b 1"]);
    assert_eq!(locked(&["fallback"]), ["fallback 1", "vi 9"]);
    assert_eq!(locked(&["foreign"]), ["foreign 1", "vi 9"]);
    assert_eq!(locked(&["any-of-unwilling"]), ["any-of-unwilling 1", "vi 9"]);
    assert_eq!(locked(&["self"]), ["self 1"]);
    assert_eq!(locked(&["wants-unversioned"]), ["new-api 7", "wants-unversioned 1"]);
}

#[test]
fn an_alternative_that_is_there_anyway_is_taken() {
    // editor conflicts with emacs, so app takes vi.
    assert!(locked(&["app", "emacs"]).contains(&"vi 9".to_owned()));
    assert!(!locked(&["app", "vi"]).contains(&"editor 5".to_owned()));
    assert_eq!(locked(&["wants-default-mail"]), ["mail-b 1", "wants-default-mail 1"]);
    assert_eq!(locked(&["wants-mail", "mail-a"]), ["mail-a 1", "wants-mail 1"]);
    assert_eq!(locked(&["wants-mail", "wants-default-mail"]), ["mail-b 1", "wants-default-mail 1", "wants-mail 1"]);
}

#[test]
fn versions_that_break_others_are_avoided() {
    assert!(locked(&["oldapp"]).contains(&"oldapp 2".to_owned()));
    let error = refused(&tree(&["clash"]));
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    let text = error.to_string();
    assert!(text.contains("clash") && text.contains("oldapp") && text.contains("lib"), "{text}");
    let text = refused(&tree(&["hopeless"])).to_string();
    assert!(text.contains("hopeless") && text.contains(">= 99"), "{text}");
    let text = refused(&tree(&["wants-version-of-unversioned"])).to_string();
    assert!(text.contains("unversioned-api"), "{text}");
    assert!(matches!(refused(&tree(&["mail-a", "mail-b"])), ResolveError::Unsatisfiable { .. }));
}

#[test]
fn who_provides_a_virtual_package_is_not_guessed() {
    let error = refused(&tree(&["wants-mail"]));
    assert_eq!(error.outcome(), Outcome::Usage);
    let text = error.to_string();
    assert!(text.contains("wants-mail needs mail-server, which is provided by mail-a, mail-b"), "{text}");
    assert!(error.hint().unwrap().contains("packages.add"));
}

#[test]
fn the_recipe_chooses_among_the_providers_of_a_virtual_package() {
    let choose =
        |packages: &[&str], chosen: &str| tree(packages) + &format!("choose = {{ mail-server = \"{chosen}\" }}\n");
    let lock = |packages: &[&str], chosen: &str| {
        names(&Archive::new(&world()).lock_recipe(&choose(packages, chosen)).unwrap())
    };
    assert_eq!(lock(&["wants-mail"], "mail-b"), ["mail-b 1", "wants-mail 1"]);
    assert_eq!(lock(&["wants-mail"], "mail-a"), ["mail-a 1", "wants-mail 1"]);
    // Debian's default is one answer among others.
    assert_eq!(lock(&["wants-default-mail"], "mail-a"), ["mail-a 1", "wants-default-mail 1"]);
    let error = refused(&choose(&["wants-mail"], "vi"));
    assert!(error.to_string().contains("provided by mail-a, mail-b"), "{error}");
    assert_eq!(error.outcome(), Outcome::Usage);
}

#[test]
fn what_is_held_stays_unless_something_new_needs_another() {
    let before = Archive::new(&[deb("app", "1", "Depends: lib\n"), deb("lib", "1", ""), deb("other", "1", "")]);
    let old = before.lock(&["app", "other"]).unwrap();
    let after = |app: &str| Archive::new(&[deb("app", "2", app), deb("lib", "2", ""), deb("other", "2", "")]);
    let update = |archive: &Archive, packages: &[&str]| {
        let stays = old.package.iter().filter(|package| !packages.contains(&package.name.as_str()));
        let depends = |name: &str| if name == "app" { "Depends: lib\n" } else { "" };
        let held = stays.map(|package| archive::lock::Held {
            package: package.clone(),
            control: format!(
                "Package: {0}\nVersion: {1}\nArchitecture: {2}\n{3}",
                package.name,
                package.version,
                package.architecture,
                depends(&package.name)
            ),
        });
        names(&archive.lock_holding(&["app", "other"], held.collect()).unwrap())
    };
    assert_eq!(names(&after("Depends: lib\n").lock(&["app", "other"]).unwrap()), ["app 2", "lib 2", "other 2"]);
    // The archive has none of the versions that stay.
    assert_eq!(update(&after("Depends: lib\n"), &["app"]), ["app 2", "lib 1", "other 1"]);
    assert_eq!(update(&after("Depends: lib (>= 2)\n"), &["app"]), ["app 2", "lib 2", "other 1"]);
    assert_eq!(update(&after("Depends: lib\n"), &["other"]), ["app 1", "lib 1", "other 2"]);
}

#[test]
fn what_is_assumed_is_never_added() {
    let assume = |what: &str| tree(&["app"]) + &format!("assume = [{what}]\n");
    let archive = Archive::new(&world());
    let lock = archive.lock_recipe(&assume("\"lib\", \"compat-api\", \"base\", \"vi\"")).unwrap();
    assert_eq!(names(&lock), ["app 1.0", "data 1.0", "helper 1"]);
    assert!(matches!(refused(&assume("\"app\"")), ResolveError::Assumed(name) if name == "app"));
}

#[test]
fn without_dependencies_the_list_is_the_whole_truth() {
    let recipe = tree(&["app", "hopeless"]) + "dependencies = false\n";
    assert_eq!(names(&Archive::new(&world()).lock_recipe(&recipe).unwrap()), ["app 1.0", "hopeless 1"]);
}

#[test]
fn a_package_that_is_not_there_comes_with_a_suggestion() {
    for (typed, meant) in [("editr", "editor"), ("oldapps", "oldapp"), ("hlep", "help")] {
        let mut debs = world();
        debs.push(deb("help", "1", ""));
        let error = Archive::new(&debs).lock(&[typed]).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Usage);
        assert_eq!(error.hint(), Some(format!("did you mean \"{meant}\"?")));
    }
    let error = refused(&tree(&["lib=3"]));
    assert!(error.to_string().contains("there is 2.1-1 in trixie"), "{error}");
}

/// Two suites: the stable one and a newer one.
fn two_suites() -> Archive {
    let archive = Archive::new(&[
        deb("tool", "1", "Depends: common (>= 1)\n"),
        deb("common", "1", ""),
        deb("plain", "1", "Depends: common\n"),
    ]);
    archive.publish(
        "newer",
        &[
            deb("tool", "2", "Depends: common (>= 2)\n"),
            deb("common", "2", "Depends: extra\n"),
            deb("extra", "2", ""),
            deb("plain", "2", ""),
        ],
    );
    archive
}

fn of_two(packages: &[&str], preferences: [u32; 2]) -> Result<Vec<String>, LockError> {
    let [stable, newer] = preferences;
    let recipe = format!(
        "schema = 1\nname = \"t\"\nkind = \"tree\"\n[suites.trixie]\npreference = {stable}\n[suites.newer]\npreference = {newer}\n[packages]\nadd = {packages:?}\n"
    );
    two_suites().lock_recipe(&recipe).map(|lock| names(&lock))
}

#[test]
fn suites_are_tried_in_order_of_preference_then_by_version() {
    assert_eq!(of_two(&["tool"], [0, 1]).unwrap(), ["common 1", "tool 1"]);
    assert_eq!(of_two(&["tool"], [1, 0]).unwrap(), ["common 2", "extra 2", "tool 2"]);
    assert_eq!(of_two(&["tool"], [0, 0]).unwrap(), ["common 2", "extra 2", "tool 2"]);
}

#[test]
fn a_pinned_package_brings_dependencies_that_only_its_suite_has() {
    let pinned = ["common 2", "extra 2", "plain 1", "tool 2"];
    assert_eq!(of_two(&["tool/newer", "plain"], [0, 1]).unwrap(), pinned);
    assert_eq!(of_two(&["tool=2", "plain"], [0, 1]).unwrap(), pinned);
    assert_eq!(of_two(&["tool/trixie"], [1, 0]).unwrap(), ["common 2", "extra 2", "tool 1"]);
    let error = of_two(&["tool/newer", "common=1"], [0, 1]).unwrap_err();
    assert!(matches!(&error, LockError::Resolve(ResolveError::Unsatisfiable { .. })), "{error}");
}

/// An image recipe over a world of kernels.
fn image(kernel: &str, more: &str) -> String {
    let salt = "00".repeat(32);
    format!(
        "schema = 1\nname = \"t\"\n[suites.trixie]\n[packages]\ndependencies = false\nadd = [\"libc\"]\n[kernel]\npackage = \"{kernel}\"\n[rootfs]\nverity_salt = \"{salt}\"\nuuid = \"00000000-0000-0000-0000-000000000000\"\n{more}"
    )
}

fn kernels() -> Archive {
    let big = "Installed-Size: 34000\n";
    let small = "Installed-Size: 15\n";
    Archive::new(&[
        deb("libc", "2", ""),
        deb("ovmf-amdsev", "1", "Depends: libc\n"),
        deb("linux-image-one", "6.12", &format!("Depends: linux-image-6.12 (= 6.12)\n{small}")),
        deb("linux-image-6.12", "6.12", &format!("Depends: kmod, initramfs-tools\n{big}")),
        deb("linux-image-6.12", "6.11", big),
        deb(
            "linux-image-two",
            "7.3",
            &format!("Depends: linux-base-two (= 7.3), linux-image-7.3 (= 7.3), linux-modules-two\n{small}"),
        ),
        deb("linux-modules-two", "7.3", &format!("Depends: linux-modules-7.3 (= 7.3)\n{small}")),
        deb(
            "linux-image-7.3",
            "7.3",
            &format!("Depends: dracut | initramfs-tools, linux-binary-7.3 (= 7.3), linux-modules-7.3 (= 7.3)\n{small}"),
        ),
        deb("linux-base-two", "7.3", &format!("Depends: linux-base-7.3 (= 7.3)\n{small}")),
        deb("linux-base-7.3", "7.3", "Installed-Size: 900\n"),
        deb("linux-binary-7.3", "7.3", &format!("Depends: linux-base-7.3\n{big}")),
        deb("linux-modules-7.3", "7.3", &format!("Depends: kmod\n{big}")),
        deb("linux-image-torn", "1", "Depends: linux-image-6.12 (= 6.13)\n"),
    ])
}

#[test]
fn kernels_old_and_new_are_found_through_their_metapackages() {
    let archive = kernels();
    let of = |recipe: &str, purpose: Use| -> Vec<String> {
        let lock = archive.lock_recipe(recipe).unwrap();
        lock.packages_for(purpose).map(|package| format!("{} {}", package.name, package.version)).collect()
    };
    assert_eq!(of(&image("linux-image-one", ""), Use::Kernel), ["linux-image-6.12 6.12"]);
    assert_eq!(of(&image("linux-image-6.12=6.11", ""), Use::Kernel), ["linux-image-6.12 6.11"]);
    assert_eq!(
        of(&image("linux-image-two", ""), Use::Kernel),
        ["linux-base-7.3 7.3", "linux-binary-7.3 7.3", "linux-modules-7.3 7.3"]
    );
    let firmware = image("linux-image-one", "[firmware.snp]\npackage = \"ovmf-amdsev\"\npath = \"/x\"\n");
    assert_eq!(of(&firmware, Use::Firmware), ["ovmf-amdsev 1"]);
    assert_eq!(of(&firmware, Use::Tree), ["libc 2"]);
    let uki = image("linux-image-one", "[uki]\npackage = \"ovmf-amdsev\"\n");
    assert_eq!(of(&uki, Use::Stub), ["ovmf-amdsev 1"]);
    let both = firmware.replace("add = [", "add = [\"ovmf-amdsev\", ");
    let lock = archive.lock_recipe(&both).unwrap();
    let shared = lock.package.iter().find(|package| package.name == "ovmf-amdsev").unwrap();
    assert_eq!(shared.uses, [Use::Tree, Use::Firmware]);
}

#[test]
fn a_kernel_whose_parts_are_missing_is_refused() {
    let error = kernels().lock_recipe(&image("linux-image-torn", "")).unwrap_err();
    assert!(
        matches!(&error, LockError::Kernel(KernelError::Part { relation, .. }) if relation == "linux-image-6.12 (= 6.13)")
    );
    assert_eq!(error.outcome(), Outcome::InputMismatch);
}

#[test]
fn one_package_in_two_versions_is_refused() {
    let archive = kernels();
    let recipe = image("linux-image-one", "").replace("\"libc\"", "\"linux-image-6.12=6.11\"");
    let error = archive.lock_recipe(&recipe).unwrap_err();
    assert!(matches!(&error, LockError::TwoVersions { name, .. } if name == "linux-image-6.12"), "{error}");
}

#[test]
fn two_locks_are_compared() {
    let archive = Archive::new(&[deb("aa", "1", ""), deb("bb", "1", "")]);
    let old = archive.lock(&["aa", "bb"]).unwrap();
    archive.publish(SUITE, &[deb("aa", "2", ""), deb("cc", "1", "")]);
    let mut new = archive.lock(&["aa", "cc"]).unwrap();
    new.release[0].date = "Tue, 24 Nov 2026 09:00:00 UTC".to_owned();
    let text = archive::diff(&old, &new).to_string();
    assert_eq!(
        text,
        "+ cc 1 (1200 bytes)\n- bb 1 (1200 bytes)\n~ aa 1 -> 2 (1200 -> 1200 bytes)\n! trixie: the release file of Tue, 24 Nov 2026 09:00:00 UTC is older than the one before, of Wed, 25 Nov 2026 09:00:00 UTC\n"
    );
    assert!(archive::diff(&old, &old).is_empty());
    // The same files from an older release file: nothing to install, but something to be told.
    let mut older = old.clone();
    older.release[0].date.clone_from(&new.release[0].date);
    let back = archive::diff(&old, &older);
    assert!(!back.is_empty());
    assert_eq!(
        back.rolled_back.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "trixie: the release file of Tue, 24 Nov 2026 09:00:00 UTC is older than the one before, of Wed, 25 Nov 2026 09:00:00 UTC"
        ]
    );
    assert!(archive::diff(&older, &old).is_empty(), "forward in time");
}

/// What apt would install from the same archive into an empty system; `None` where there is no apt.
fn apt_installs(archive: &Archive, packages: &[&str]) -> Option<Vec<String>> {
    let root = archive.directory.path().join("apt");
    for directory in ["lists/partial", "cache/archives/partial", "parts"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("status"), b"").unwrap();
    fs::write(root.join("sources.list"), format!("deb [trusted=yes] file:{} {SUITE} main\n", archive.root().display()))
        .unwrap();
    let at = root.display();
    let config = format!(
        "Dir::State::lists \"{at}/lists\"; Dir::State::status \"{at}/status\"; Dir::Cache \"{at}/cache\"; Dir::Etc::sourcelist \"{at}/sources.list\"; Dir::Etc::sourceparts \"{at}/parts\"; Dir::Etc::preferencesparts \"{at}/parts\"; Dir::Etc::parts \"{at}/parts\"; APT::Architecture \"amd64\"; APT::Architectures \"amd64\"; APT::Install-Recommends \"false\"; APT::Sandbox::User \"\"; Acquire::Languages \"none\"; Acquire::Check-Valid-Until \"false\"; Acquire::Check-Date \"false\"; pkgCacheGen::Essential \"none\";\n"
    );
    fs::write(root.join("apt.conf"), config).unwrap();
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .env("APT_CONFIG", root.join("apt.conf"))
            .env("LC_ALL", "C")
            .args(arguments)
            .output()
            .ok()
    };
    let update = apt(&["update"])?;
    assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));
    let output = apt(&[&["install", "--simulate", "--yes"], packages].concat())?;
    let text = String::from_utf8(output.stdout).unwrap();
    let mut installed: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_once(" ("))
        .map(|(name, rest)| format!("{name} {}", rest.split(' ').next().unwrap_or_default()))
        .collect();
    installed.sort();
    Some(installed)
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn apt_chooses_the_same() {
    let archive = Archive::new(&world());
    for packages in [
        &["app"][..],
        &["app", "vi"],
        &["loop-b", "fallback"],
        &["foreign"],
        &["any-of-unwilling"],
        &["oldapp"],
        &["helper", "emacs"],
        &["self"],
        &["wants-unversioned"],
        &["wants-default-mail", "wants-mail"],
        &["wants-mail", "mail-a"],
    ] {
        let Some(apt) = apt_installs(&archive, packages) else {
            eprintln!("skipped: apt-get is not installed");
            return;
        };
        assert_eq!(names(&archive.lock(packages).unwrap()), apt, "{packages:?}");
    }
    for packages in [&["clash"][..], &["hopeless"], &["mail-a", "mail-b"], &["wants-version-of-unversioned"]] {
        assert_eq!(apt_installs(&archive, packages), Some(Vec::new()), "{packages:?}");
        assert!(archive.lock(packages).is_err());
    }
}
