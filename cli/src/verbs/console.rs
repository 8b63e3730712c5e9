//! `bullion console`: types to a VM that runs, and shows what it says.

use std::io::IsTerminal as _;

use launcher::Directories;
use launcher::attach::session::{End, Session};
use launcher::keyboard::Keyboard;
use launcher::screen::Screen;
use spec::Outcome;

use crate::args::Console;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Console, printer: &Printer) -> Result<u8, Failure> {
    let name = &verb.name;
    if printer.json() {
        return Err(Failure::new(
            Outcome::Usage,
            "console shows what the guest writes, and has no other data for --json",
        ));
    }
    let directories = Directories::from_environment();
    let session =
        Session::attach(&directories, name, &mut |why| printer.note(format_args!("waiting for \"{name}\": {why}")))?;
    let way = if std::io::stdin().is_terminal() { "; Ctrl-] leaves it" } else { "" };
    printer.note(format_args!("the serial line of \"{name}\"{way}"));
    match session.talk(screen)? {
        End::Left(signal) => {
            let by = signal.map(|signal| format!(" by {signal}")).unwrap_or_default();
            printer.note(format_args!("\nleft{by}; \"{name}\" goes on"));
            Ok(0)
        }
        End::Ended(exit) => {
            let how = exit.map_or("it is not known how".to_owned(), |exit| exit.summary);
            printer.note(format_args!("\n\"{name}\" has ended: {how}"));
            Ok(0)
        }
        End::HungUp => Err(Failure::new(Outcome::HostCannot, format!("the supervisor of \"{name}\" has hung up"))
            .with_hint(format!("the VM goes on: `bullion logs -f {name}` shows its console"))),
    }
}

fn screen() -> std::io::Result<Screen> {
    Ok(Screen::new(&std::io::stdout())?.with_keyboard(Keyboard::new(&std::io::stdin())?))
}
