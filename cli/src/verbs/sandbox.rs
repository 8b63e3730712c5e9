//! The hidden verb that a sandbox is started with: this program again, before it has any thread.

use crate::args::Sandbox;
use crate::failure::Failure;

pub(crate) fn run(verb: &Sandbox) -> Result<u8, Failure> {
    Ok(image::sandbox::started_again(&verb.words)?)
}
