//! No parser panics, whatever the text: any text, TOML-like text, and shipped files with bytes changed.

use proptest::prelude::*;
use proptest::sample::Index;
use spec::agent::{Event, Reply, Request};
use spec::guest_config::GuestConfig;
use spec::lock::Lock;
use spec::manifest::Manifest;
use spec::pins::Pins;
use spec::recipe::{PackageRequest, RecipeFile, flatten};
use spec::size::Size;
use spec::vm::Vm;

use crate::shipped::shipped;

/// Reads `text` as every format there is. What is accepted must survive being written and read again.
fn read_as_everything(text: &str) {
    if let Ok(recipe) = RecipeFile::parse("x.toml", text)
        && let Ok(flat) = flatten(&[("x.toml".to_owned(), text.to_owned(), recipe)])
    {
        let json = serde_json::to_string(&flat).expect("a recipe is JSON");
        assert_eq!(serde_json::from_str::<spec::recipe::Recipe>(&json).expect("the same recipe"), flat);
    }
    if let Ok(lock) = Lock::parse("x.lock", text) {
        assert_eq!(Lock::parse("x.lock", &lock.to_text().expect("text")).expect("the same lock"), lock);
    }
    if let Ok(vm) = Vm::parse("x.vm.toml", text) {
        let disk = vm.guest.to_disk().expect("a disk");
        assert_eq!(GuestConfig::from_disk(&disk).expect("the same configuration"), vm.guest);
    }
    let _ = Pins::parse("pins.toml", text);
    let _ = Manifest::parse("manifest.json", text.as_bytes());
    for line in text.lines() {
        let _ = serde_json::from_str::<Request>(line);
        let _ = serde_json::from_str::<Reply>(line);
        let _ = serde_json::from_str::<Event>(line);
        if let Ok(request) = line.parse::<PackageRequest>() {
            assert_eq!(request.to_string(), line);
        }
        let _ = line.parse::<Size>();
        let _ = line.parse::<spec::Sha256Digest>();
    }
}

/// Every shipped text of a format of ours.
fn seeds() -> Vec<String> {
    let folders = [("image-recipes", ".toml"), ("examples", ".toml"), ("firmware", ".toml")];
    let bad = ["recipe", "vm", "lock", "pins"].map(|format| format!("spec/tests/formats/bad/{format}"));
    let shipped_files = folders.into_iter().flat_map(|(folder, suffix)| shipped(folder, suffix));
    let bad_files = bad.iter().flat_map(|folder| shipped(folder, ".toml"));
    shipped_files.chain(bad_files).map(|(_, text)| text).collect()
}

/// One change to a text: cut it, double a part, put something foreign in, or swap two characters.
#[derive(Debug, Clone)]
enum Change {
    Cut(Index),
    Repeat(Index, Index),
    Insert(Index, String),
    Swap(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<Index>().prop_map(Change::Cut),
        any::<(Index, Index)>().prop_map(|(a, b)| Change::Repeat(a, b)),
        (any::<Index>(), r#"["\[\]{}=,.#\n0-9é\u{0}-]{1,4}"#).prop_map(|(at, text)| Change::Insert(at, text)),
        any::<(Index, Index)>().prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

fn apply(text: &str, change: &Change) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    if chars.is_empty() {
        return String::new();
    }
    match change {
        Change::Cut(at) => chars.truncate(at.index(chars.len())),
        Change::Repeat(a, b) => {
            let (a, b) = (a.index(chars.len()), b.index(chars.len()));
            let part: Vec<char> = chars[a.min(b)..a.max(b)].to_vec();
            chars.splice(a..a, part);
        }
        Change::Insert(at, new) => {
            let at = at.index(chars.len());
            chars.splice(at..at, new.chars());
        }
        Change::Swap(a, b) => {
            let (a, b) = (a.index(chars.len()), b.index(chars.len()));
            chars.swap(a, b);
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        read_as_everything(&text);
    }

    #[test]
    fn toml_like_text(text in r#"(\[{1,2}[a-z_.]{0,12}\]{1,2}\n|[a-z_]{0,10} ?= ?("[a-z/=.*-]{0,8}"|[0-9-]{0,4}|\[[a-z",]{0,9}\]|true)\n){0,12}"#) {
        read_as_everything(&text);
    }

    #[test]
    fn shipped_files_with_changes(seed in any::<Index>(), changes in proptest::collection::vec(change(), 1..4)) {
        let seeds = seeds();
        let text = changes.iter().fold(seeds[seed.index(seeds.len())].clone(), |text, change| apply(&text, change));
        read_as_everything(&text);
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in ["[".repeat(100_000), "a=".to_owned() + &"[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        read_as_everything(&text);
    }
    let dotted = format!("{} = 1", vec!["a"; 50_000].join("."));
    read_as_everything(&dotted);
}
