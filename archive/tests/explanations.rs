//! What `lock` says where packages cannot be brought together, word for word.

mod fixture;

use archive::ResolveError;
use archive::lock::LockError;
use fixture::{Archive, deb};
use spec::{Diagnostic as _, Outcome};

/// Two suites: trixie, and a newer one that is tried last.
fn archive() -> Archive {
    let archive = Archive::new(&[
        deb("app", "1.0", "Depends: middle\n"),
        deb("middle", "3", "Depends: lib (>= 99) | gone\n"),
        deb("lib", "2.1-1", "Breaks: oldapp (<< 2)\n"),
        deb("oldapp", "1", ""),
        deb("clash", "1", "Depends: oldapp, viewer\n"),
        deb("viewer", "4", "Depends: lib\n"),
        deb("mail-a", "1", "Provides: mail-server\nConflicts: mail-server\n"),
        deb("mail-b", "1", "Provides: mail-server\nConflicts: mail-server\n"),
        deb("wants-version", "1", "Depends: api (>= 3)\n"),
        deb("has-api", "7", "Provides: api (= 2)\n"),
        deb("tool", "1", "Depends: common (>= 1)\n"),
        deb("common", "1", ""),
        deb("plain", "1", ""),
    ]);
    archive.publish("newer", &[deb("tool", "2", "Depends: common (>= 2)\n"), deb("common", "2", "")]);
    archive
}

/// The error and its hint.
fn refused(packages: &[&str]) -> (String, String) {
    let recipe = format!(
        "schema = 1\nname = \"t\"\nkind = \"tree\"\n[suites.trixie]\npreference = 0\n[suites.newer]\npreference = 1\n[packages]\nadd = {packages:?}\n"
    );
    let error = archive().lock_recipe(&recipe).unwrap_err();
    assert_eq!(error.outcome(), Outcome::InputMismatch, "{error}");
    let hint = error.hint().unwrap();
    let LockError::Resolve(error @ ResolveError::Unsatisfiable { .. }) = error else { panic!("{error}") };
    (error.to_string(), hint)
}

const GENERAL: &str = "pin packages to a suite with NAME/SUITE, add a suite that has the versions, or name what is not needed in packages.assume";

#[test]
fn a_version_that_nobody_has_comes_with_the_chain_that_wants_it() {
    let (text, hint) = refused(&["plain", "app"]);
    assert_eq!(
        text,
        "the packages cannot be brought together:\n\
         nothing satisfies all that is asked of \"lib\":\n\
         \x20 middle 3 in trixie needs lib (>= 99) | gone\n\
         \x20   ... needed by app 1.0 in trixie\n\
         \x20     ... asked for as \"app\" in packages.add\n\
         there is:\n\
         \x20 lib 2.1-1 in trixie: not lib (>= 99) | gone, which middle 3 in trixie needs"
    );
    assert_eq!(hint, GENERAL);
}

#[test]
fn a_pin_that_excludes_what_another_package_needs_is_named() {
    let (text, hint) = refused(&["plain", "tool/newer", "common=1"]);
    assert_eq!(
        text,
        "the packages cannot be brought together:\n\
         nothing satisfies all that is asked of \"common\":\n\
         \x20 \"common=1\" is asked for in packages.add\n\
         \x20 tool 2 in newer needs common (>= 2)\n\
         \x20   ... asked for as \"tool/newer\" in packages.add\n\
         there is:\n\
         \x20 common 1 in trixie: not common (>= 2), which tool 2 in newer needs\n\
         \x20 common 2 in newer: not what \"common=1\" asks for"
    );
    assert_eq!(
        hint,
        "ask for it without the suite or version that \"common=1\" names, or for packages that go with that one"
    );
}

#[test]
fn a_package_that_breaks_another_is_named_with_both_chains() {
    let (text, hint) = refused(&["clash", "plain"]);
    assert_eq!(
        text,
        "the packages cannot be brought together:\n\
         nothing satisfies all that is asked of \"oldapp\":\n\
         \x20 clash 1 in trixie needs oldapp\n\
         \x20   ... asked for as \"clash\" in packages.add\n\
         \x20 lib 2.1-1 in trixie breaks oldapp (<< 2)\n\
         \x20   ... needed by viewer 4 in trixie\n\
         \x20     ... needed by clash 1 in trixie\n\
         \x20       ... asked for as \"clash\" in packages.add\n\
         there is:\n\
         \x20 oldapp 1 in trixie: lib 2.1-1 in trixie breaks it"
    );
    assert_eq!(hint, GENERAL);
}

#[test]
fn two_packages_of_which_only_one_can_be_there() {
    let (text, _) = refused(&["mail-a", "plain", "mail-b"]);
    assert_eq!(
        text,
        "the packages cannot be brought together:\n\
         nothing satisfies all that is asked of \"mail-b\":\n\
         \x20 \"mail-b\" is asked for in packages.add\n\
         \x20 mail-a 1 in trixie conflicts with mail-server\n\
         \x20   ... asked for as \"mail-a\" in packages.add\n\
         there is:\n\
         \x20 mail-b 1 in trixie: mail-a 1 in trixie conflicts with it"
    );
}

#[test]
fn a_virtual_package_in_a_version_that_nobody_provides() {
    let (text, _) = refused(&["wants-version"]);
    assert_eq!(
        text,
        "the packages cannot be brought together:\n\
         nothing satisfies all that is asked of \"api\":\n\
         \x20 wants-version 1 in trixie needs api (>= 3)\n\
         \x20   ... asked for as \"wants-version\" in packages.add\n\
         there is no package of that name in the recipe's suites\n\
         \x20 has-api 7 in trixie: provides it as version 2"
    );
}
