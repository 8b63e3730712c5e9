//! Every key that a measuring verb writes is in docs/json.md, under that verb: a check for tests that have its answer at hand.

use std::collections::BTreeSet;

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/json.md");

/// Objects whose keys are data: names of algorithms, numbers of registers, registers by name.
const BY_NAME: [&str; 2] = ["digests", "pcrs"];

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                found.insert(key.clone());
                if !BY_NAME.contains(&key.as_str()) {
                    keys(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// What the document says of a verb, and of what all verbs have.
fn section(title: &str) -> String {
    let (common, _) = DOCUMENT.split_once("\n## ").unwrap();
    let start = DOCUMENT.find(&format!("## `{title}`\n")).unwrap_or_else(|| panic!("there is no section {title}"));
    let (_, section) = DOCUMENT[start..].split_once('\n').unwrap();
    common.to_owned() + section.split("\n## ").next().unwrap()
}

/// Asserts that the section `title` of docs/json.md has every key of `value`.
#[track_caller]
pub fn documented(title: &str, value: &Value) {
    let (text, mut found) = (section(title), BTreeSet::new());
    keys(value, &mut found);
    assert!(found.len() > 2, "{title}: {value}");
    let missing: Vec<_> = found.iter().filter(|key| !text.contains(&format!("`{key}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new(), "docs/json.md, {title}");
}
