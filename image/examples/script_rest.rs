//! Prints what the builder does not recognise in the maintainer scripts of .deb files, for those who extend its table:
//! package, script, digest, whether it is answered already, and the text with `--text`.
#![allow(clippy::print_stdout, reason = "its output")]

use std::collections::BTreeMap;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut with_text = false;
    for argument in std::env::args().skip(1) {
        if argument == "--text" {
            with_text = true;
            continue;
        }
        let control = image::deb::read_control(&std::fs::read(&argument)?)?;
        let package = control.field("Package").unwrap_or("?").to_owned();
        let answers = image::scripts::answers(&package, &control, &BTreeMap::new());
        for (script, text) in &control.scripts {
            let (rest, digest) = image::scripts::rest(script, text);
            if rest.is_empty() {
                continue;
            }
            let answered = answers.iter().any(|answer| answer.name == *script && answer.is_answered());
            println!("{package} {script} {digest} {}", if answered { "answered" } else { "OPEN" });
            if with_text {
                println!("{rest}");
            }
        }
    }
    Ok(())
}
