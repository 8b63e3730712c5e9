//! `[guest.workload]`: what the guest runs, under podman. Measured with the rest of `[guest]`.
//!
//! One container names its image by digest; pods and compose files are in the configuration themselves, word for word. The
//! bytes of all images come from archive volumes (`volume`), each with its digest, so what runs is fixed by the guest's own
//! report: names in a text lead to nothing but what those archives hold.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::vm::Protocol;

/// `[guest.workload]`: one container (`image`), pods (`pods`) or the services of a compose file (`compose`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// One container's image: `sha256:HEX`, the image's own digest (podman's image ID), or `NAME@sha256:HEX`, the digest of
    /// its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The container's command, in place of the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Ports of the guest that lead to the container; needs `[guest.network]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// What follows when the container ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// Kubernetes YAML for `podman kube play`: the text itself, at most 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// A compose file for `podman-compose`: the text itself, at most 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose: Option<String>,
    /// Who gets what the workload writes to its standard output and error.
    #[serde(default, skip_serializing_if = "is_default")]
    pub output: Output,
    /// How many seconds the workload may take to stop (default 5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_s: Option<u32>,
}

/// What a workload consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs<'a> {
    /// One container, of this image.
    Container(&'a str),
    /// What this Kubernetes YAML describes.
    Pods(&'a str),
    /// What this compose file describes.
    Compose(&'a str),
}

/// A port of the guest that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// `tcp` or `udp`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// The guest's port.
    pub guest: u16,
    /// The container's port.
    pub container: u16,
}

/// What follows when one container ends. Where nothing does, the guest powers off.
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
/// The longest YAML, in bytes: well below what the whole configuration may have.
const MAX_TEXT_BYTES: usize = 256 << 10;

impl Workload {
    /// What it consists of; `None` where it says nothing, or more than one thing.
    pub fn runs(&self) -> Option<Runs<'_>> {
        match (&self.image, &self.pods, &self.compose) {
            (Some(image), None, None) => Some(Runs::Container(image)),
            (None, Some(text), None) => Some(Runs::Pods(text)),
            (None, None, Some(text)) => Some(Runs::Compose(text)),
            _ => None,
        }
    }

    /// The first thing that is wrong: the key to look for, and what to say of it.
    pub(crate) fn fault(&self) -> Option<(String, String)> {
        let say = |key: &str, message: String| Some((key.to_owned(), message));
        let fault = match self.runs() {
            None => say("workload", "a workload is one of image, pods and compose: give one of them".to_owned()),
            Some(Runs::Container(image)) => self.container_fault(image),
            Some(Runs::Pods(text)) => self.text_fault("pods", text),
            Some(Runs::Compose(text)) => self.text_fault("compose", text),
        };
        if fault.is_some() {
            return fault;
        }
        let grace = self.stop_grace_s.filter(|seconds| *seconds > MAX_STOP_GRACE_S)?;
        say("stop_grace_s", format!("stop_grace_s is {grace}: use at most {MAX_STOP_GRACE_S}"))
    }

    fn container_fault(&self, image: &str) -> Option<(String, String)> {
        let say = |key: &str, message: String| Some((key.to_owned(), message));
        if !is_image(image) {
            let message = format!("\"{image}\" names no image by digest: use \"sha256:HEX\" or \"NAME@sha256:HEX\"");
            return say(image, message);
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return say("command", "the command has a NUL character".to_owned());
        }
        if self.publish.iter().any(|port| port.guest == 0 || port.container == 0) {
            return say("publish", "port 0 cannot be published: name ports from 1 to 65535".to_owned());
        }
        let again = self.publish.iter().enumerate().find(|(index, port)| {
            self.publish.iter().take(*index).any(|other| (other.protocol, other.guest) == (port.protocol, port.guest))
        });
        let (_, port) = again?;
        say("publish", format!("{} port {} of the guest is published twice", port.protocol.as_str(), port.guest))
    }

    /// What a YAML text says itself is said there only.
    fn text_fault(&self, key: &str, text: &str) -> Option<(String, String)> {
        let say = |key: &str, message: String| Some((key.to_owned(), message));
        let beside = [
            ("command", !self.command.is_empty()),
            ("publish", !self.publish.is_empty()),
            ("restart", self.restart != Restart::Never),
        ];
        if let Some((name, _)) = beside.into_iter().find(|(_, given)| *given) {
            return say(name, format!("{name} is for one container: {key} says it in its own YAML"));
        }
        if text.trim().is_empty() || text.contains('\0') {
            return say(key, format!("{key} is empty or has a NUL character: put the YAML itself here"));
        }
        let size = text.len();
        (size > MAX_TEXT_BYTES)
            .then(|| (key.to_owned(), format!("{key} has {size} bytes: the limit is {MAX_TEXT_BYTES}")))
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
