//! The `[Install]` section of a unit, and the links that it asks for (systemd.unit(5)).

/// What a unit says about how it is enabled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    default_instance: Option<String>,
    /// The units that are enabled with it.
    pub(super) also: Vec<String>,
}

impl Install {
    /// Reads the files of a unit in their order.
    pub(super) fn of(texts: &[String]) -> Result<Self, String> {
        let mut install = Self::default();
        for text in texts {
            let mut inside = false;
            for line in lines(text) {
                if line.starts_with('[') {
                    inside = line == "[Install]";
                } else if inside {
                    let (key, value) = line.split_once('=').ok_or_else(|| format!("\"{line}\" has no \"=\""))?;
                    install.set(key.trim(), value.trim())?;
                }
            }
        }
        Ok(install)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let list = match key {
            "WantedBy" => &mut self.wanted_by,
            "RequiredBy" => &mut self.required_by,
            "UpheldBy" => &mut self.upheld_by,
            "Alias" => &mut self.alias,
            "Also" => &mut self.also,
            "DefaultInstance" => {
                self.default_instance = Some(value.to_owned()).filter(|value| !value.is_empty());
                return Ok(());
            }
            // systemd passes over what it does not know, with a warning.
            _ => return Ok(()),
        };
        // Nothing after the sign takes back what was listed before.
        if value.is_empty() {
            list.clear();
        }
        list.extend(crate::effects::words(value).ok_or_else(|| format!("{key} has an open quote"))?);
        Ok(())
    }

    /// The links below `/etc/systemd/system` or `user`. `instances` are those that a preset names for a template.
    pub(super) fn links(&self, unit: &str, instances: &[String]) -> Result<Vec<String>, String> {
        let default = || self.default_instance.iter();
        let named: Vec<Name<'_>> = match Name::of(unit) {
            name if !name.is_template() => vec![name],
            name if instances.is_empty() => default().map(|instance| name.with(instance)).collect(),
            name => instances.iter().map(|instance| name.with(instance)).collect(),
        };
        let mut links = Vec::new();
        for name in &named {
            for (by, kind) in
                [(&self.wanted_by, "wants"), (&self.required_by, "requires"), (&self.upheld_by, "upholds")]
            {
                for target in by {
                    links.push(format!("{}.{kind}/{}", name.expand(target)?, name.full()));
                }
            }
        }
        for alias in &self.alias {
            links.push(Name::of(unit).expand(alias)?);
        }
        match links
            .iter()
            .find(|link| link.split('/').any(|part| matches!(part, "" | "." | "..")) || link.matches('/').count() > 1)
        {
            Some(odd) => Err(format!("\"{odd}\" is no name of a link")),
            None => Ok(links),
        }
    }
}

/// The template that an instance is made of; of any other unit, its own name.
pub(super) fn template(unit: &str) -> String {
    let name = Name::of(unit);
    match name.instance {
        Some(_) => name.with("").full(),
        None => unit.to_owned(),
    }
}

/// A unit's name in its parts.
#[derive(Clone, Copy, Debug)]
struct Name<'a> {
    prefix: &'a str,
    /// What is between `@` and the ending: empty for a template; `None` where there is no `@`.
    instance: Option<&'a str>,
    ending: &'a str,
}

impl<'a> Name<'a> {
    fn of(unit: &'a str) -> Self {
        let at = unit.rfind('.').unwrap_or(unit.len());
        let (stem, ending) = unit.split_at(at);
        match stem.split_once('@') {
            Some((prefix, instance)) => Self { prefix, instance: Some(instance), ending },
            None => Self { prefix: stem, instance: None, ending },
        }
    }

    fn is_template(&self) -> bool {
        self.instance == Some("")
    }

    fn with(self, instance: &'a str) -> Self {
        Self { instance: Some(instance), ..self }
    }

    fn stem(&self) -> String {
        self.instance.map_or_else(|| self.prefix.to_owned(), |instance| format!("{}@{instance}", self.prefix))
    }

    fn full(&self) -> String {
        format!("{}{}", self.stem(), self.ending)
    }

    /// Puts the name into the specifiers that mean it (systemd.unit(5), "Specifiers"); others depend on a running system.
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => {
                    out += &match chars.next() {
                        Some('%') => "%".to_owned(),
                        Some('n') => self.full(),
                        Some('N') => self.stem(),
                        Some('p') => self.prefix.to_owned(),
                        Some('i') => self.instance.unwrap_or_default().to_owned(),
                        Some('j') => self.prefix.rsplit('-').next().unwrap_or_default().to_owned(),
                        _ => return Err(format!("\"{text}\" has a specifier that is not known")),
                    }
                }
                c => out.push(c),
            }
        }
        Ok(out)
    }
}

/// The lines without comments and empty ones, joined where a backslash goes on.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && open.is_none()) {
            continue;
        }
        let whole = open.take().map_or_else(|| trimmed.to_owned(), |before| format!("{before} {trimmed}"));
        match whole.strip_suffix('\\') {
            Some(begun) => open = Some(begun.to_owned()),
            None => lines.push(whole),
        }
    }
    lines.extend(open);
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links(unit: &str, text: &str, instances: &[&str]) -> Result<Vec<String>, String> {
        let instances: Vec<String> = instances.iter().map(|&instance| instance.to_owned()).collect();
        Install::of(&[text.to_owned()])?.links(unit, &instances)
    }

    #[test]
    fn what_leads_elsewhere_or_is_not_understood_is_refused() {
        for bad in
            ["WantedBy=../../x", "Alias=a/b/c.service", "Alias=..", "WantedBy=%h.target", "WantedBy=\"a", "WantedBy"]
        {
            assert!(links("a.service", &format!("[Install]\n{bad}\n"), &[]).is_err(), "{bad}");
        }
        assert_eq!(links("a.service", "[Unit]\nWantedBy\n[Service]\nAlias=../x\n", &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_preset_names_the_instances_of_a_template() {
        let text = "[Install]\nWantedBy=%i.target\nDefaultInstance=one\n";
        assert_eq!(links("a@.service", text, &[]).unwrap(), ["one.target.wants/a@one.service"]);
        assert_eq!(links("a@.service", text, &["two"]).unwrap(), ["two.target.wants/a@two.service"]);
        assert_eq!(links("a@b.service", text, &[]).unwrap(), ["b.target.wants/a@b.service"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_no_link_leads_out(text in "(\\[Install\\]\n)?([A-Za-z=@%./ \"\\\\\n]|WantedBy=|Alias=){0,60}") {
            if let Ok(links) = links("a@b.service", &text, &[]) {
                prop_assert!(links.iter().all(|link| !link.split('/').any(|part| part == ".." || part.is_empty())));
            }
        }
    }
}
