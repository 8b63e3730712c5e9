//! Machines that nobody launches here, asked about to find out which one was launched elsewhere: the tables of many of them in a
//! short time, and those of a QEMU that is too old to be launched.
//!
//! Firmware places the devices alike however many vCPUs there are. So the machine stands still, is given the addresses that
//! firmware gave to one like it, and is read: that takes a tenth of the time. Nothing is predicted from such an answer.

use std::path::Path;

use super::{Answer, ConfigWrite, OracleError, Question, Session, TIMEOUT, command_line, remembered, watch};
use crate::qemu::features::FLOOR;
use crate::qemu::{Features, MACHINE};

/// The oldest QEMU whose tables are known to be those of launched guests (`oracle::releases_alike`).
const OLDEST: [u64; 3] = [10, 0, 0];

/// What [`super::ask`] answers, from a QEMU that may be older than any that is launched; its own machine is the newest that it has
/// then.
pub fn ask_older(question: &Question<'_>, cache: &Path) -> Result<Answer, OracleError> {
    let arguments = arguments(question, cache)?;
    remembered(question, arguments, "", cache, |arguments, inherited| watch(question.program, arguments, inherited))
}

/// The same once the devices are where `placement` says, without firmware: what the answer of [`ask_older`] about a machine with
/// the same devices and memory, and other vCPUs, has as its placement.
pub fn ask_placed(question: &Question<'_>, placement: &[ConfigWrite], cache: &Path) -> Result<Answer, OracleError> {
    let arguments = arguments(question, cache)?;
    let manner = format!(" placed {placement:?}");
    remembered(question, arguments, &manner, cache, |arguments, inherited| {
        let mut session = Session::start(question.program, arguments, inherited, TIMEOUT)?;
        for write in placement {
            session.place(*write)?;
        }
        let directory = session.directory()?;
        session.files(&directory)
    })
}

fn arguments(question: &Question<'_>, cache: &Path) -> Result<Vec<String>, OracleError> {
    let features = Features::of(question.program, cache)?;
    if features.version < OLDEST {
        return Err(OracleError::TooOld { found: features.version_text() });
    }
    let mut arguments = command_line(question.shape, &question.devices, features.sandbox);
    if features.version < FLOOR {
        let [major, minor, _] = features.version;
        for word in &mut arguments {
            if let Some(properties) = word.strip_prefix(MACHINE) {
                *word = format!("pc-q35-{major}.{minor}{properties}");
            }
        }
    }
    Ok(arguments)
}
