//! `bullion man`: manual pages made of the help texts, one a verb: `bullion-vm-install(1)`. The same program gives the same bytes.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man as Page;
use spec::Outcome;

use crate::args::{Arguments, Man};
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Man, printer: &Printer) -> Result<u8, Failure> {
    std::fs::create_dir_all(&verb.directory).map_err(|error| Failure::file("creating", &verb.directory, &error))?;
    let mut command = Arguments::command();
    command.build();
    let mut pages = Vec::new();
    write(&command, "bullion", &verb.directory, &mut pages)?;
    pages.iter().for_each(|page| printer.line(page));
    printer.value(&serde_json::json!({ "pages": pages }));
    Ok(0)
}

/// The page of a verb, and those of the verbs below it. What is not for people has none.
fn write(command: &Command, name: &str, directory: &Path, pages: &mut Vec<String>) -> Result<(), Failure> {
    let path = directory.join(format!("{name}.1"));
    let mut bytes = Vec::new();
    let version = concat!("Bullion ", env!("CARGO_PKG_VERSION"));
    let page = Page::new(command.clone().display_name(name.to_owned()));
    // A page without a date is the same whenever it is made.
    let page = page.title(name.to_uppercase()).section("1").date("").source(version).manual("Bullion");
    page.render(&mut bytes)
        .map_err(|error| Failure::new(Outcome::Internal, format!("rendering {name}(1): {error}")))?;
    store::write_atomically(&path, &bytes)?;
    pages.push(path.display().to_string());
    let visible = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
    for verb in visible {
        write(verb, &format!("{name}-{}", verb.get_name()), directory, pages)?;
    }
    Ok(())
}
