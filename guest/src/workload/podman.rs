//! Podman's command lines, as values. Podman without systemd: `/etc/containers/containers.conf` of the image says so.

use std::collections::BTreeMap;

use spec::workload::Workload;

use crate::children::Program;

/// Podman.
pub(super) const PROGRAM: &str = "/usr/bin/podman";
/// Where podman keeps what it is about to unpack.
pub(super) const TEMPORARY: &str = "/var/lib/containers/storage/tmp";
/// The name of the container.
const CONTAINER: &str = "workload";

/// Unpacks an archive.
pub(super) fn load(archive: &str) -> Program {
    Program::new([PROGRAM, "load", "--quiet", "--input", archive])
}

/// Makes the container. Apart from `start`, so that what podman has against it is told from what the container prints.
pub(super) fn create(workload: &Workload, environment: &BTreeMap<String, String>) -> Program {
    let mut words =
        vec![PROGRAM.to_owned(), "create".to_owned(), format!("--name={CONTAINER}"), "--network=none".to_owned()];
    // What is not there by digest is not fetched; what it prints is kept nowhere in the guest.
    words.extend(["--pull=never", "--log-driver=none"].map(str::to_owned));
    words.extend(environment.iter().map(|(name, value)| format!("--env={name}={value}")));
    words.push(workload.image.clone());
    words.extend(workload.command.iter().cloned());
    Program { words }
}

/// Runs the container; ends with its exit code.
pub(super) fn start() -> Program {
    Program::new([PROGRAM, "start", "--attach", "--sig-proxy", CONTAINER])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_configuration_is_taken_for_an_option() {
        let image = format!("sha256:{}", "ab".repeat(32));
        let workload = Workload {
            image: image.clone(),
            command: vec!["--privileged".to_owned(), "x y".to_owned()],
            ..Workload::default()
        };
        let environment = BTreeMap::from([("A".to_owned(), "--b c".to_owned())]);
        let words = create(&workload, &environment).words;
        assert_eq!(
            words[1..],
            [
                "create",
                "--name=workload",
                "--network=none",
                "--pull=never",
                "--log-driver=none",
                "--env=A=--b c",
                &image,
                "--privileged",
                "x y"
            ]
        );
        assert_eq!(words[0], "/usr/bin/podman");
    }
}
