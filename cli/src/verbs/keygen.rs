//! `bullion keygen`: a key pair for signed releases and ID blocks.

use serde_json::json;
use sign::{PrivateKey, public_path};

use crate::args::Keygen;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Keygen, printer: &Printer) -> Result<u8, Failure> {
    let key = PrivateKey::generate(verb.algorithm.into())?;
    key.write(&verb.output)?;
    let (public, id) = (public_path(&verb.output), key.public().id()?);
    printer.line(format_args!("{} (private, {})", verb.output.display(), key.algorithm()));
    printer.line(format_args!("{} (public)", public.display()));
    printer.line(format_args!("key {id}"));
    printer.note("the private key is not encrypted: keep it away from launch hosts and backups");
    printer.value(&json!({
        "private_key": verb.output,
        "public_key": public,
        "algorithm": key.algorithm().to_string(),
        "key_id": id,
    }));
    Ok(0)
}
