//! From the words on the command line and the directories of trusted keys to the decision whether a release is accepted.
//! The one place of the program that looks at the clock to judge a release.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use launcher::Directories;
use sign::{Seen, Trust, VerifiedRelease, Wanted, verify_release};
use spec::Outcome;
use spec::time::Timestamp;
use store::Image;

use crate::args::TrustWords;
use crate::failure::Failure;

/// Keys that this host trusts whoever the user is.
const SYSTEM: &str = "/etc/bullion/trust";

/// Decides whether the image is an acceptable release, and records it as seen.
pub(crate) fn accept(image: &Image, words: &TrustWords, directories: &Directories) -> Result<VerifiedRelease, Failure> {
    let trust = trust(&words.trust)?;
    let seen = Seen::in_directory(&directories.releases()?);
    let wanted = Wanted { trust: &trust, now: now()?, allow_dev: words.dangerously_allow_dev, seen: &seen };
    Ok(verify_release(image, &wanted)?)
}

/// What the time is.
pub(crate) fn now() -> Result<Timestamp, Failure> {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    elapsed
        .and_then(|elapsed| Timestamp::from_seconds(elapsed.as_secs()))
        .ok_or_else(|| Failure::new(Outcome::HostCannot, "the clock of this host is not between 1970 and 9999"))
}

fn trust(named: &[PathBuf]) -> Result<Trust, Failure> {
    let mut trust = Trust::default();
    for path in named {
        trust.add(path)?;
    }
    if named.is_empty() {
        trust.add_if_there(Path::new(SYSTEM))?;
        if let Some(directory) = user_directory() {
            trust.add_if_there(&directory)?;
        }
    }
    Ok(trust)
}

fn user_directory() -> Option<PathBuf> {
    let of = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let configuration = of("XDG_CONFIG_HOME").or_else(|| Some(of("HOME")?.join(".config")))?;
    Some(configuration.join("bullion/trust"))
}
