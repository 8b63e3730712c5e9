//! The crate table of ARCHITECTURE.md, which people read and `edges` enforces.
//!
//! A Markdown table whose header is `crate | what | may use`. The first cell names the crate's folder in backquotes; the
//! last lists folders, `any` or a dash for none.

use std::collections::{BTreeMap, BTreeSet};

/// What a crate may depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MayUse {
    /// These crates of the workspace.
    Only(BTreeSet<String>),
    /// Any crate that is not a test.
    Any,
}

/// The table: folder of the crate, its line in the file, what it may use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) file: String,
    pub(crate) rows: BTreeMap<String, (usize, MayUse)>,
}

/// Reads the table out of `text`; `file` is used in messages.
pub(crate) fn parse(file: &str, text: &str) -> Result<Table, String> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    let mut lines = text.lines().enumerate();
    let header = ["crate", "what", "may use"];
    lines
        .find(|(_, line)| cells(line).is_some_and(|cells| cells == header))
        .ok_or_else(|| format!("{file} has no table with the columns {}", header.join(" | ")))?;
    let mut rows = BTreeMap::new();
    for (index, line) in lines.skip(1) {
        let Some(cells) = cells(line) else { break };
        let [name, _, uses] = cells.as_slice() else {
            return Err(format!("{file}:{}: a row of the crate table has three cells", index + 1));
        };
        let name = name.trim_matches('`').trim_end_matches('/').to_owned();
        if rows.insert(name.clone(), (index + 1, may_use(uses))).is_some() {
            return Err(format!("{file}:{}: {name} is in the crate table twice", index + 1));
        }
    }
    let table = Table { file: file.to_owned(), rows };
    table.check_names()?;
    Ok(table)
}

fn may_use(cell: &str) -> MayUse {
    if cell == "any" {
        return MayUse::Any;
    }
    let names = cell.split(',').map(|name| name.trim().trim_matches('`').trim_end_matches('/'));
    MayUse::Only(names.filter(|name| !matches!(*name, "" | "-" | "–")).map(str::to_owned).collect())
}

impl Table {
    /// A slip in the last column would allow nothing and be noticed late.
    fn check_names(&self) -> Result<(), String> {
        for (name, (line, uses)) in &self.rows {
            let MayUse::Only(uses) = uses else { continue };
            if let Some(unknown) = uses.iter().find(|used| !self.rows.contains_key(*used)) {
                return Err(format!("{}:{line}: {name} may use {unknown}, which the table does not have", self.file));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_the_prose_around_it_is_not() {
        let text = "# A\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n| crate | what | may use |\n|---|---|---|\n\
                    | `spec/` | formats | – |\n| `image/` | builds | spec |\n| `tests/e2e/` | proofs | any |\n\n| a | b | c |\n";
        let table = parse("A.md", text).unwrap();
        let only = |names: &[&str]| MayUse::Only(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(table.rows.len(), 3);
        assert_eq!(table.rows["spec"], (9, only(&[])));
        assert_eq!(table.rows["image"], (10, only(&["spec"])));
        assert_eq!(table.rows["tests/e2e"], (11, MayUse::Any));
    }

    #[test]
    fn a_bad_table_is_an_error_with_its_line() {
        let head = "| crate | what | may use |\n|---|---|---|\n";
        assert!(parse("A.md", "nothing").unwrap_err().contains("has no table"));
        assert!(parse("A.md", &format!("{head}| a | b |\n")).unwrap_err().starts_with("A.md:3:"));
        assert!(parse("A.md", &format!("{head}| a | b | - |\n| a | b | - |\n")).unwrap_err().contains("twice"));
        assert!(parse("A.md", &format!("{head}| a | b | spce |\n")).unwrap_err().contains("may use spce"));
    }
}
