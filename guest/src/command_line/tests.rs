use proptest::prelude::*;

use super::*;

fn line(root: &str, salt: &str, blocks: &str) -> String {
    format!("console=ttyS0 quiet panic=-1 bullion.root={root} bullion.salt={salt} bullion.blocks={blocks}\n")
}

#[test]
fn the_kernels_own_words_are_passed_over() {
    let root = "ab".repeat(32);
    let parameters = parse(&line(&root, "00ff", "37")).unwrap();
    let root = RootParameters { root_hash: Sha256Digest([0xab; 32]), salt: vec![0, 0xff], data_blocks: 37 };
    assert_eq!(parameters, Parameters { root, release: false });
}

#[test]
fn a_release_image_says_so_in_one_way() {
    let good = line(&"ab".repeat(32), "00", "1");
    assert!(parse(&format!("{good} bullion.class=release")).unwrap().release);
    for bad in ["", "dev", "Release", "release "] {
        let found = parse(&format!("bullion.class={bad} {good}"));
        assert!(matches!(found, Err(CommandLineError::Malformed { name: CLASS, .. })) || bad == "release ", "{bad}");
    }
    let twice = format!("{good} bullion.class=release bullion.class=release");
    assert_eq!(parse(&twice), Err(CommandLineError::Duplicate(CLASS)));
    // Whatever the order: its kernel was told to take any ACPI tables.
    for open in [
        format!("bullion.acpi=unchecked {good} bullion.class=release"),
        format!("bullion.class=release bullion.acpi=unchecked {good}"),
    ] {
        assert_eq!(parse(&open), Err(CommandLineError::Unchecked));
    }
    assert!(parse(&format!("bullion.acpi={} {good} bullion.class=release", "00".repeat(32))).unwrap().release);
}

#[test]
fn what_the_kernel_admits_is_its_own_business_but_is_said_once() {
    let good = line(&"ab".repeat(32), "00", "1");
    let with = format!("bullion.acpi=unchecked {good}");
    assert_eq!(parse(&with), parse(&good));
    assert_eq!(parse(&format!("bullion.acpi=00 {with}")), Err(CommandLineError::Duplicate(ACPI)));
    let with = format!("bullion.modules={} {good}", "00".repeat(32));
    assert_eq!(parse(&with), parse(&good));
    assert_eq!(parse(&format!("bullion.modules=00 {with}")), Err(CommandLineError::Duplicate(MODULES)));
    assert!(matches!(parse(&format!("bullion.acpy=00 {good}")), Err(CommandLineError::Unknown(_))));
}

#[test]
fn words_are_those_of_the_kernel() {
    let good = line(&"ab".repeat(32), "00", "1");
    for word in [
        r#"x="y""#,
        r#""bullion.acpi=unchecked""#,
        "\"",
        "x\u{e0}bullion.acpi=unchecked",
        "x\x0bbullion.acpi=unchecked",
    ] {
        assert_eq!(parse(&format!("{word} {good}")), Err(CommandLineError::TwoReadings));
    }
}

#[test]
fn a_word_must_be_there_once() {
    let root = "ab".repeat(32);
    let good = line(&root, "00", "1");
    for name in [ROOT, SALT, BLOCKS] {
        let without: Vec<_> = good.split_ascii_whitespace().filter(|word| !word.starts_with(name)).collect();
        assert_eq!(parse(&without.join(" ")), Err(CommandLineError::Missing(name)));
        let twice = format!("{} {good}", good.split_ascii_whitespace().find(|word| word.starts_with(name)).unwrap());
        assert_eq!(parse(&twice), Err(CommandLineError::Duplicate(name)));
    }
    assert_eq!(parse(""), Err(CommandLineError::Missing(ROOT)));
}

#[test]
fn one_value_has_one_spelling() {
    let root = "ab".repeat(32);
    for bad in ["", "0", "01", "+1", "-1", "1 ", "0x1", "1099511627777", "99999999999999999999"] {
        assert!(parse(&line(&root, "00", bad)).is_err() || bad == "1 ", "{bad}");
    }
    for bad in ["", "0", "0g", "AB", "-", &"00".repeat(257)] {
        assert!(matches!(parse(&line(&root, bad, "1")), Err(CommandLineError::Malformed { name: SALT, .. })), "{bad}");
    }
    for bad in ["", &root[2..], &root.to_uppercase(), &format!("{root}00")] {
        assert!(matches!(parse(&line(bad, "00", "1")), Err(CommandLineError::Malformed { name: ROOT, .. })), "{bad}");
    }
    assert!(parse(&line(&root, "00", "1099511627776")).is_ok());
}

#[test]
fn unknown_words_of_ours_are_refused() {
    let good = line(&"ab".repeat(32), "00", "1");
    for word in ["bullion.debug", "bullion.debug=1", "bullion.root", "bullion."] {
        assert_eq!(parse(&format!("{word} {good}")), Err(CommandLineError::Unknown(word.to_owned())));
    }
}

proptest! {
    #[test]
    fn any_text_never_panics(text in ".{0,300}", words in proptest::collection::vec("bullion\\.(root|salt|blocks|class)=[0-9a-f]{0,70}", 0..5)) {
        let _ = parse(&text);
        let _ = parse(&words.join(" "));
    }
}
