//! `[guest.workload]`: what the guest runs, under podman. Measured with the rest of `[guest]`.
//!
//! A workload names its images by digest, so what runs is fixed by the guest's own report; the bytes come from archive
//! volumes (`volume`), never from a name that somebody else can point elsewhere.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;

/// `[guest.workload]`: one container. Its only network is a loopback interface of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its image: `sha256:HEX`, the image's own digest (podman's image ID), or `NAME@sha256:HEX`, the digest of its manifest.
    pub image: String,
    /// The container's command, in place of the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What follows when the workload ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// Who gets what the workload writes to its standard output and error.
    #[serde(default, skip_serializing_if = "is_default")]
    pub output: Output,
    /// How many seconds the workload may take to stop (default 5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_s: Option<u32>,
}

/// What follows when a workload ends. Where nothing does, the guest powers off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Nothing.
    #[default]
    Never,
    /// It is started again where its exit code is not 0.
    OnFailure,
}

/// Who gets the output of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Nobody: it is dropped in the guest.
    #[default]
    None,
    /// The host, which keeps it in the clear. Everything that the workload prints is then the host's to read.
    ToHost,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The longest `stop_grace_s`.
const MAX_STOP_GRACE_S: u32 = 3600;

impl Workload {
    /// The first thing that is wrong: the key to look for, and what to say of it.
    pub(crate) fn fault(&self) -> Option<(String, String)> {
        let say = |key: &str, message: String| Some((key.to_owned(), message));
        let image = &self.image;
        if !is_image(image) {
            let message = format!("\"{image}\" names no image by digest: use \"sha256:HEX\" or \"NAME@sha256:HEX\"");
            return say(image, message);
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return say("command", "the command has a NUL character".to_owned());
        }
        let grace = self.stop_grace_s.filter(|seconds| *seconds > MAX_STOP_GRACE_S)?;
        say("stop_grace_s", format!("stop_grace_s is {grace}: use at most {MAX_STOP_GRACE_S}"))
    }
}

/// Whether `text` names an image by digest alone, so that podman cannot read anything else into it.
pub fn is_image(text: &str) -> bool {
    let (name, digest) = text.rsplit_once('@').unwrap_or(("x", text));
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"./:_-".contains(&c);
    let is_name = name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(allowed);
    is_name && digest.strip_prefix("sha256:").is_some_and(|hex| hex.parse::<Sha256Digest>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_digest_only() {
        let hex = "ab".repeat(32);
        for good in [
            format!("sha256:{hex}"),
            format!("docker.io/library/redis@sha256:{hex}"),
            format!("r:5000/a_b@sha256:{hex}"),
        ] {
            assert!(is_image(&good), "{good}");
        }
        for bad in [
            "redis:7",
            "",
            "sha256:ab",
            &format!("@sha256:{hex}"),
            &format!("--x@sha256:{hex}"),
            &format!("a b@sha256:{hex}"),
        ] {
            assert!(!is_image(bad), "{bad}");
        }
    }
}
