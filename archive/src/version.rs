//! Debian version numbers: which of two is newer. Everything that chooses a package rests on this one comparison.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::cmp::Ordering;

/// Compares two versions as dpkg does (Debian Policy 5.6.12, deb-version(7)): epoch, then upstream version, then revision.
/// Text that is no version at all still has a place in the order, so that sorting never fails.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a_epoch, a_upstream, a_revision) = split(a);
    let (b_epoch, b_upstream, b_revision) = split(b);
    compare_part(a_epoch, b_epoch)
        .then_with(|| compare_part(a_upstream, b_upstream))
        .then_with(|| compare_part(a_revision, b_revision))
}

/// Epoch, upstream version and revision; a missing epoch or revision is empty, which compares as "0".
fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Compares runs of non-digits and numbers in turn, until one differs.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (a_text, a_rest) = split_where(a, |c| c.is_ascii_digit());
        let (b_text, b_rest) = split_where(b, |c| c.is_ascii_digit());
        let (a_number, a_rest) = split_where(a_rest, |c| !c.is_ascii_digit());
        let (b_number, b_rest) = split_where(b_rest, |c| !c.is_ascii_digit());
        let order = compare_text(a_text, b_text).then_with(|| compare_numbers(a_number, b_number));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

/// Letters sort before everything else, and `~` before even the end of the part.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weights = |text: &str| text.bytes().map(weight).chain(std::iter::once(0)).collect::<Vec<i32>>();
    weights(a).cmp(&weights(b))
}

fn weight(byte: u8) -> i32 {
    match byte {
        b'~' => -1,
        _ if byte.is_ascii_alphabetic() => i32::from(byte),
        _ => i32::from(byte) + 256,
    }
}

/// Numbers of any length.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn dpkg(a: &str, operator: &str, b: &str) -> Option<bool> {
        Some(Command::new("dpkg").args(["--compare-versions", a, operator, b]).output().ok()?.status.success())
    }

    /// Every pair of these is put to dpkg.
    const VERSIONS: &[&str] = &[
        "0",
        "1",
        "1.0",
        "1.00",
        "1.0-1",
        "1.0-1~bpo13+1",
        "1.0~rc1-1",
        "1.0~~",
        "1.0~",
        "1.0+b1",
        "1.0-1+b1",
        "1.0-1+deb13u1",
        "1:0.9",
        "0:1.0",
        "2:1",
        "10.0",
        "9.9",
        "1.a",
        "1.+",
        "1.0a",
        "1.0.0",
        "1.0-0",
        "1.0-00",
        "7.3.4-1~bpo13+1",
        "6.12.117-1",
        "6.12.107-1",
        "2.41-12+deb13u1",
        "2.41-12",
        "20250419",
        "1.0-1-1",
        "1-2-3",
        "1.0z",
        "1.0-a",
        "1.2.3.4.5",
        "0001",
        "99999999999999999999999",
        "99999999999999999999998",
    ];

    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn every_pair_is_ordered_as_dpkg_orders_it() {
        if dpkg("1", "eq", "1").is_none() {
            eprintln!("skipped: dpkg is not installed");
            return;
        }
        for a in VERSIONS {
            for b in VERSIONS {
                let operator = match compare(a, b) {
                    Ordering::Less => "lt",
                    Ordering::Equal => "eq",
                    Ordering::Greater => "gt",
                };
                assert!(dpkg(a, operator, b).unwrap(), "{a} {operator} {b}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn made_up_versions_are_ordered_as_dpkg_orders_them(a in "[0-9]{1,2}(:[0-9])?[a-z0-9.+~]{0,6}(-[a-z0-9.+~]{1,4})?", b in "[0-9]{1,2}(:[0-9])?[a-z0-9.+~]{0,6}(-[a-z0-9.+~]{1,4})?") {
            let operator = match compare(&a, &b) { Ordering::Less => "lt", Ordering::Equal => "eq", Ordering::Greater => "gt" };
            prop_assert!(dpkg(&a, operator, &b).unwrap_or(true), "{} {} {}", a, operator, b);
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_place_in_the_order(a in ".{0,12}", b in ".{0,12}", c in ".{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
