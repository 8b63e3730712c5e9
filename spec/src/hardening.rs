//! What a kernel's configuration must say for the sake of security: a declared table, and whether a configuration keeps to it.
//!
//! The table lies beside the configuration of a kernel component and comes out of it with the configuration as it was built:
//! Kconfig takes back what depends on something else, so what was asked for proves nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text::{SyntaxError, from_toml};

/// `hardening.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hardening {
    /// The version of this format: 1.
    pub schema: u32,
    /// The options, each once.
    pub option: Vec<HardenedOption>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HardenedOption {
    /// The option without `CONFIG_`.
    pub name: String,
    /// Its value as `.config` writes it: `y`, a number, a text in quotes; `n` for what is not set or does not exist.
    pub value: String,
    /// Why: what a hostile host or workload could do otherwise.
    pub why: String,
    /// Who says so: a document, or `own` where nobody else does.
    pub source: String,
}

/// An option that is not as the table has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CONFIG_{name} is {found}, expected {expected}: {why}")]
pub struct Deviation {
    /// The option.
    pub name: String,
    /// What the table says.
    pub expected: String,
    /// What the configuration says; `n` where it does not have it.
    pub found: String,
    /// The reason of the table.
    pub why: String,
}

impl Hardening {
    /// Reads a table; `file` is used in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, SyntaxError> {
        let table: Self = from_toml(file, text)?;
        if table.schema != 1 {
            let message = format!("schema {} is not known: this program reads schema 1", table.schema);
            return Err(SyntaxError::at(file, text, "schema", message));
        }
        if table.option.is_empty() {
            return Err(SyntaxError::whole(file, "there is no [[option]]: an empty table holds for every kernel"));
        }
        for (index, option) in table.option.iter().enumerate() {
            let HardenedOption { name, value, why, source } = option;
            if !is_option(name) {
                let message = format!("\"{name}\" is not the name of an option: write it without CONFIG_");
                return Err(SyntaxError::at(file, text, name, message));
            }
            if value.is_empty() || value.contains(char::is_control) {
                return Err(SyntaxError::at(file, text, name, format!("{name} has no value that a configuration has")));
            }
            if [why, source].iter().any(|text| text.trim().is_empty()) {
                return Err(SyntaxError::at(file, text, name, format!("{name} lacks its reason or its source")));
            }
            if table.option.iter().take(index).any(|other| other.name == *name) {
                return Err(SyntaxError::at(file, text, name, format!("{name} is in the table twice")));
            }
        }
        Ok(table)
    }

    /// Where a configuration does not keep to the table, in the table's order.
    pub fn deviations(&self, configuration: &Configuration) -> Vec<Deviation> {
        let deviation = |option: &HardenedOption| {
            let found = configuration.value(&option.name);
            (found != option.value).then(|| Deviation {
                name: option.name.clone(),
                expected: option.value.clone(),
                found: found.to_owned(),
                why: option.why.clone(),
            })
        };
        self.option.iter().filter_map(deviation).collect()
    }
}

/// A kernel's `.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration(BTreeMap<String, String>);

impl Configuration {
    /// Reads a `.config` as Kconfig writes it (Documentation/kbuild/kconfig-language.rst): `CONFIG_NAME=VALUE`, and comments, of
    /// which `# CONFIG_NAME is not set` says nothing that the lack of the name does not. An option that stands there twice is
    /// refused: which of them holds would depend on the reader.
    pub fn parse(file: &str, text: &str) -> Result<Self, SyntaxError> {
        let mut options = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |message: String| SyntaxError { line: Some(index + 1), ..SyntaxError::whole(file, message) };
            let split = line.strip_prefix("CONFIG_").and_then(|line| line.split_once('='));
            let (name, value) = split
                .filter(|(name, value)| is_option(name) && !value.is_empty())
                .ok_or_else(|| at("this is no line of a kernel's configuration".to_owned()))?;
            if options.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(at(format!("CONFIG_{name} is set twice")));
            }
        }
        Ok(Self(options))
    }

    /// The value of an option without `CONFIG_`; `n` where it is not set.
    pub fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("n", String::as_str)
    }
}

fn is_option(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with("CONFIG_")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(options: &[(&str, &str)]) -> Hardening {
        let option = |(name, value): &(&str, &str)| {
            format!("[[option]]\nname = {name:?}\nvalue = {value:?}\nwhy = \"a reason\"\nsource = \"own\"\n")
        };
        let text = "schema = 1\n".to_owned() + &options.iter().map(option).collect::<String>();
        Hardening::parse("hardening.toml", &text).unwrap()
    }

    #[test]
    fn deviations_are_told_option_by_option() {
        let table = table(&[("KEXEC", "n"), ("SMP", "y"), ("NR_CPUS", "64"), ("LSM", "\"lockdown\"")]);
        let kept =
            "#\n# Linux\n#\nCONFIG_SMP=y\nCONFIG_NR_CPUS=64\n# CONFIG_KEXEC is not set\nCONFIG_LSM=\"lockdown\"\n";
        let deviations = |text: &str| table.deviations(&Configuration::parse(".config", text).unwrap());
        assert_eq!(deviations(kept), []);
        let told = |text: &str| deviations(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        let other = kept.replace("# CONFIG_KEXEC is not set", "CONFIG_KEXEC=y").replace("=64", "=65");
        assert_eq!(
            told(&other),
            ["CONFIG_KEXEC is y, expected n: a reason", "CONFIG_NR_CPUS is 65, expected 64: a reason"]
        );
        let without = kept.replace("CONFIG_SMP=y\n", "").replace("\"lockdown\"", "\"lockdown,yama\"");
        assert_eq!(
            told(&without),
            [
                "CONFIG_SMP is n, expected y: a reason",
                "CONFIG_LSM is \"lockdown,yama\", expected \"lockdown\": a reason"
            ]
        );
        assert_eq!(deviations("").len(), 3, "an empty configuration has nothing set");
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_line() {
        for (text, line, word) in [
            ("CONFIG_A=y\nCONFIG_B\n", 2, "no line"),
            ("CONFIG_=y\n", 1, "no line"),
            ("CONFIG_A=\n", 1, "no line"),
            (" CONFIG_A=y\n", 1, "no line"),
            ("CONFIG_A B=y\n", 1, "no line"),
            ("export CONFIG_A=y\n", 1, "no line"),
            ("CONFIG_A=y\n\nCONFIG_A=n\n", 3, "CONFIG_A is set twice"),
        ] {
            let error = Configuration::parse(".config", text).unwrap_err();
            assert_eq!(error.line, Some(line), "{text}");
            assert!(error.message.contains(word), "{text}: {}", error.message);
        }
    }

    #[test]
    fn tables_that_say_nothing_or_two_things_are_refused() {
        let line = "[[option]]\nname = \"KEXEC\"\nvalue = \"n\"\nwhy = \"x\"\nsource = \"own\"\n";
        for (text, word) in [
            ("schema = 1\noption = []\n".to_owned(), "no [[option]]"),
            (format!("schema = 2\n{line}"), "schema 2"),
            (format!("schema = 1\n{line}{line}"), "KEXEC is in the table twice"),
            (format!("schema = 1\n{}", line.replace("KEXEC", "CONFIG_KEXEC")), "without CONFIG_"),
            (format!("schema = 1\n{}", line.replace("\"x\"", "\" \"")), "lacks its reason"),
            (format!("schema = 1\n{}", line.replace("\"n\"", "\"\"")), "no value"),
            (format!("schema = 1\n{}", line.replace("why", "because")), "because"),
        ] {
            let error = Hardening::parse("hardening.toml", &text).unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_line_is_always_seen(
            values in prop::collection::btree_map("[A-Z][A-Z0-9_]{0,9}", "[ym]|[0-9]{1,3}", 1..20),
            at in any::<prop::sample::Index>(),
        ) {
            let options: Vec<(&str, &str)> =
                values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let table = table(&options);
            let write = |skip: Option<usize>| -> String {
                let lines = options.iter().enumerate().filter(|(index, _)| Some(*index) != skip);
                lines.map(|(_, (name, value))| format!("CONFIG_{name}={value}\n")).collect()
            };
            let found = |text: &str| table.deviations(&Configuration::parse(".config", text).unwrap());
            prop_assert_eq!(found(&write(None)), []);
            let left_out = at.index(options.len());
            let found = found(&write(Some(left_out)));
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].name.as_str(), options[left_out].0);
        }

        #[test]
        fn any_text_is_judged_without_panic(text in any::<String>(), lines in "(CONFIG_[A-B]=.{0,3}\n|# .{0,5}\n|.{0,8}\n){0,6}") {
            let _ = Configuration::parse("x", &text);
            let _ = Configuration::parse("x", &lines);
            let _ = Hardening::parse("x", &text);
        }
    }
}
