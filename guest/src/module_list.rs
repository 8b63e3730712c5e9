//! `/etc/bullion/modules` of the initrd: which kernel modules to load, and in which order.
//!
//! First lines `boot NAME`, dependencies before what needs them; then lines `device NAME FIRST,SECOND,...,NAME`, each a
//! module for a device that may not be there, with everything to load for it, in order. The builder writes it and the
//! launch digest covers it; what counts as "there" is decided in `modules`.

/// Where the list is.
pub(crate) const PATH: &str = "/etc/bullion/modules";

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModuleList {
    /// Modules to load in every boot, in order.
    pub(crate) boot: Vec<String>,
    /// Modules to load when their device is there.
    pub(crate) device: Vec<DeviceModule>,
}

/// A module for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceModule {
    /// Its name.
    pub(crate) name: String,
    /// What to load, in order; ends with `name`. Some of it may be in `boot` or in another device's list.
    pub(crate) load: Vec<String>,
}

/// A list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ModuleListError {
    /// A line has another form.
    #[error("{PATH} line {line}: \"{found}\" is neither \"boot NAME\" nor \"device NAME LIST\"")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// A module is listed twice.
    #[error("{PATH} line {line}: \"{name}\" is listed twice")]
    Duplicate {
        /// Counted from 1.
        line: usize,
        /// The module.
        name: String,
    },
}

/// Reads a list.
pub(crate) fn parse(text: &str) -> Result<ModuleList, ModuleListError> {
    let mut list = ModuleList::default();
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        let foreign = || ModuleListError::Line { line, found: content.to_owned() };
        let words: Vec<&str> = content.split(' ').collect();
        let name = match words.as_slice() {
            ["boot", name] if is_name(name) && list.device.is_empty() => {
                let again = list.boot.iter().any(|other| other == name);
                list.boot.push((*name).to_owned());
                again.then_some(name)
            }
            ["device", name, load] if is_name(name) => {
                let again = list.device.iter().any(|other| other.name == *name);
                let load: Vec<String> = load.split(',').map(str::to_owned).collect();
                if !load.iter().all(|each| is_name(each)) || load.last().is_none_or(|last| last != name) {
                    return Err(foreign());
                }
                list.device.push(DeviceModule { name: (*name).to_owned(), load });
                again.then_some(name)
            }
            _ => return Err(foreign()),
        };
        if let Some(name) = name {
            return Err(ModuleListError::Duplicate { line, name: (*name).to_owned() });
        }
    }
    Ok(list)
}

/// Names are file names below `/modules`: no separators, no dots.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_keeps_its_order() {
        let list = parse("boot dm_mod\nboot dm_verity\ndevice sev_guest configfs,tsm_report,sev_guest\n").unwrap();
        assert_eq!(list.boot, ["dm_mod", "dm_verity"]);
        assert_eq!(
            list.device,
            [DeviceModule {
                name: "sev_guest".to_owned(),
                load: ["configfs", "tsm_report", "sev_guest"].map(str::to_owned).to_vec()
            }]
        );
        assert_eq!(parse(""), Ok(ModuleList::default()));
    }

    #[test]
    fn other_forms_are_refused_with_their_line() {
        for bad in [
            "boot",
            "boot ",
            "boot a b",
            "boot a.ko",
            "boot ../a",
            "boot A",
            "boot dm-mod",
            "",
            " boot a",
            "load a",
            "device a",
            "device a b",
            "device a a,b",
            "device a ,a",
            "device a a,",
            "device a b,../c,a",
        ] {
            let text = format!("boot x\n{bad}\nboot y\n");
            assert_eq!(parse(&text), Err(ModuleListError::Line { line: 2, found: bad.to_owned() }), "{bad}");
        }
        assert!(matches!(parse("device a a\nboot b\n"), Err(ModuleListError::Line { line: 2, .. })));
        assert!(matches!(parse("boot a\nboot a\n"), Err(ModuleListError::Duplicate { line: 2, .. })));
        assert!(matches!(parse("device a a\ndevice a a\n"), Err(ModuleListError::Duplicate { line: 2, .. })));
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "(?s).{0,200}", near in "((boot|device) [a-z,]{0,9}\n){0,6}") {
            let _ = parse(&text);
            let _ = parse(&near);
        }
    }
}
