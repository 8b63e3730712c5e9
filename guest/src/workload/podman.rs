//! Podman's command lines, as values, and its answers. Podman without systemd: `/etc/containers/containers.conf` of the
//! image says so.

use std::collections::BTreeMap;
use std::time::Duration;

use spec::workload::Workload;

use crate::children::Program;
use crate::nvidia;

/// Podman.
pub(super) const PROGRAM: &str = "/usr/bin/podman";
/// What makes containers of a compose file.
pub(super) const COMPOSE: &str = "/usr/bin/podman-compose";
/// Where podman keeps what it is about to unpack.
pub(super) const TEMPORARY: &str = "/var/lib/containers/storage/tmp";
/// The name of the one container, and of a compose file's project.
const NAME: &str = "workload";
/// What `members` reads, a line for each container.
const MEMBER: &str = "{{.Id}} {{.IsInfra}} {{.State.Status}} {{.State.ExitCode}} {{.RestartCount}} \
                      {{.HostConfig.RestartPolicy.MaximumRetryCount}} {{.HostConfig.RestartPolicy.Name}}";

/// Where containers of a group write to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Log<'a> {
    /// What they print is dropped.
    Nowhere,
    /// A file, with time, stream and tag before each line.
    File(&'a str),
}

impl Log<'_> {
    fn words(self) -> Vec<String> {
        match self {
            Self::Nowhere => vec!["--log-driver=none".to_owned()],
            Self::File(path) => vec!["--log-driver=k8s-file".to_owned(), format!("--log-opt=path={path}")],
        }
    }
}

/// Unpacks an archive.
pub(super) fn load(archive: &str) -> Program {
    Program::new([PROGRAM, "load", "--quiet", "--input", archive])
}

/// What a container gets of the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    /// A way to the guest's network.
    pub(super) network: bool,
    /// All GPUs.
    pub(super) gpus: bool,
}

/// Makes the container. Apart from `start`, so that what podman has against it is told from what the container prints.
pub(super) fn create(
    workload: &Workload,
    image: &str,
    environment: &BTreeMap<String, String>,
    given: Given,
) -> Program {
    let mut words = vec![PROGRAM.to_owned(), "create".to_owned(), format!("--name={NAME}")];
    words.push(if given.network { "--network=bridge" } else { "--network=none" }.to_owned());
    // What is not there by digest is not fetched; what it prints is kept nowhere in the guest.
    words.extend(["--pull=never", "--log-driver=none"].map(str::to_owned));
    let ports = workload.publish.iter();
    words.extend(ports.map(|port| format!("--publish={}:{}/{}", port.guest, port.container, port.protocol.as_str())));
    words.extend(environment.iter().map(|(name, value)| format!("--env={name}={value}")));
    words.extend(given.gpus.then(|| format!("--device={}", nvidia::ALL)));
    words.push(image.to_owned());
    words.extend(workload.command.iter().cloned());
    Program::new(words)
}

/// Runs the container; ends with its exit code.
pub(super) fn start() -> Program {
    Program::new([PROGRAM, "start", "--attach", "--sig-proxy", NAME])
}

/// Makes the pods of a Kubernetes YAML.
pub(super) fn play(yaml: &str, environment: &str, log: Log<'_>) -> Program {
    let words = [PROGRAM, "kube", "play", "--quiet", "--start=false", "--configmap", environment];
    Program::new(words.into_iter().map(str::to_owned).chain(log.words()).chain([yaml.to_owned()]))
}

/// A ConfigMap `environment` with the public settings: JSON, which is YAML too.
pub(super) fn config_map(environment: &BTreeMap<String, String>) -> String {
    let map = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "environment" }, "data": environment,
    });
    map.to_string()
}

/// Makes the containers of a compose file, in one pod, so that they start as pods do.
pub(super) fn compose(yaml: &str, environment: &BTreeMap<String, String>, log: Log<'_>) -> Program {
    let create = [vec!["--pull=never".to_owned()], log.words()].concat().join(" ");
    let words = [COMPOSE, "--project-name", NAME, "--in-pod=true", "--file", yaml];
    let rest = [format!("--podman-run-args={create}"), "up".to_owned(), "--no-start".to_owned()];
    Program {
        words: words.into_iter().map(str::to_owned).chain(rest).collect(),
        environment: environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
    }
}

/// Starts all pods, in the order of what depends on what.
pub(super) fn start_pods() -> Program {
    Program::new([PROGRAM, "pod", "start", "--all"])
}

/// Stops all containers, with SIGKILL after `grace`.
pub(super) fn stop_all(grace: Duration) -> Program {
    Program::new([PROGRAM, "stop", "--all", "--time", &grace.as_secs().to_string()])
}

/// Lists the IDs of all containers.
pub(super) fn list() -> Program {
    Program::new([PROGRAM, "ps", "--all", "--quiet", "--no-trunc"])
}

/// Asks for what `members` reads.
pub(super) fn inspect(ids: &[&str]) -> Program {
    Program::new([PROGRAM, "inspect", "--type=container", "--format", MEMBER].into_iter().chain(ids.iter().copied()))
}

/// Waits until each of them has ended once.
pub(super) fn wait(members: &[Member]) -> Program {
    let ids = members.iter().map(|member| member.id.as_str());
    Program::new([PROGRAM, "wait", "--ignore"].into_iter().chain(ids))
}

/// A container of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    id: String,
    exited: bool,
    /// Of its last end.
    pub(super) exit_code: u8,
    /// How often podman has started it again.
    pub(super) restarts: u32,
    most_restarts: u32,
    policy: String,
}

impl Member {
    /// Whether it has ended and podman will not start it again (podman-run(1), `--restart`; 0 retries are any number).
    pub(super) fn has_ended(&self) -> bool {
        let again = match self.policy.as_str() {
            "" | "no" => false,
            "on-failure" => self.exit_code != 0 && (self.most_restarts == 0 || self.restarts < self.most_restarts),
            _ => true,
        };
        self.exited && !again
    }
}

/// Whether `text` is a container's whole ID.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// The containers that podman tells of, but for those that only hold a pod together. Lines of another form, such as
/// warnings, are passed over.
pub(super) fn members(told: &str) -> Vec<Member> {
    told.lines().filter_map(member).collect()
}

fn member(line: &str) -> Option<Member> {
    let words: Vec<&str> = line.split(' ').collect();
    let [id, "false", status, exit_code, restarts, most_restarts, policy] = words.as_slice() else { return None };
    Some(Member {
        id: Some(*id).filter(|id| is_id(id))?.to_owned(),
        exited: matches!(*status, "exited" | "stopped"),
        exit_code: u8::try_from(exit_code.parse::<i64>().ok()?).unwrap_or(u8::MAX),
        restarts: restarts.parse().ok()?,
        most_restarts: most_restarts.parse().ok()?,
        policy: (*policy).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use spec::vm::Protocol;
    use spec::workload::Publish;

    use super::*;

    #[test]
    fn nothing_of_the_configuration_is_taken_for_an_option() {
        let image = format!("sha256:{}", "ab".repeat(32));
        let workload = Workload {
            command: vec!["--privileged".to_owned(), "x y".to_owned()],
            publish: vec![Publish { protocol: Protocol::Udp, guest: 5353, container: 53 }],
            ..Workload::default()
        };
        let environment = BTreeMap::from([("A".to_owned(), "--b c".to_owned())]);
        let words = create(&workload, &image, &environment, Given { network: false, gpus: false }).words;
        let expected = ["/usr/bin/podman", "create", "--name=workload", "--network=none", "--pull=never"];
        assert_eq!(words[..5], expected);
        let rest = ["--log-driver=none", "--publish=5353:53/udp", "--env=A=--b c", &image, "--privileged", "x y"];
        assert_eq!(words[5..], rest);
        let words = create(&workload, &image, &environment, Given { network: true, gpus: true }).words;
        assert!(words.contains(&"--network=bridge".to_owned()));
        let (device, image) = (
            words.iter().position(|word| word == "--device=nvidia.com/gpu=all"),
            words.iter().position(|word| *word == image),
        );
        assert!(device.is_some() && device < image, "{words:?}");
    }

    #[test]
    fn a_container_has_ended_when_podman_will_not_start_it_again() {
        let id = "ab".repeat(32);
        let ended = |rest: &str| members(&format!("time=x level=warning\n{id} false {rest}\n"))[0].has_ended();
        for rest in ["exited 3 0 0 no", "exited 0 0 0 ", "exited 0 2 0 on-failure", "exited 3 2 2 on-failure"] {
            assert!(ended(rest), "{rest}");
        }
        for rest in ["running 0 0 0 no", "created 0 0 0 no", "exited 3 1 0 on-failure", "exited 0 0 0 always"] {
            assert!(!ended(rest), "{rest}");
        }
        assert_eq!(
            members(&format!("{id} true exited 0 0 0 no")),
            [],
            "what holds a pod together is nobody's workload"
        );
        assert_eq!(members(&format!("{id} false exited -1 7 0 no"))[0].exit_code, 255);
    }

    #[test]
    fn public_settings_reach_pods_as_a_config_map() {
        let environment = BTreeMap::from([("A".to_owned(), "x\ny".to_owned())]);
        let map: serde_json::Value = serde_json::from_str(&config_map(&environment)).unwrap();
        assert_eq!((&map["kind"], &map["data"]["A"]), (&"ConfigMap".into(), &"x\ny".into()));
    }
}
