//! Pods and compose files run in the guest from archives of the host, reach each other by name, and are reached from outside
//! through published ports only.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use e2e::container::Archive;
use e2e::{Bench, Run, bench};

const MARKER: &str = "the container of this test was here";
/// How long a guest that is emulated on a busy machine may take to come so far that it answers.
const PATIENCE: Duration = Duration::from_secs(200);

/// Writes both archives into `directory`; gives the parts of a description that name them.
fn archives(directory: &Path) -> Option<String> {
    let (app, busybox) = (Archive::new(MARKER, 0), Archive::busybox()?);
    std::fs::write(directory.join("app.tar"), &app.bytes).unwrap();
    std::fs::write(directory.join("busybox.tar"), &busybox.bytes).unwrap();
    Some(app.volume("app", "app.tar") + &busybox.volume("busybox", "busybox.tar"))
}

fn launch(bench: &Bench, vm: &Path) -> Child {
    bench.launching(vm, &["--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of what `launch` started.
fn end(child: Child) -> Run {
    Run::of(&child.wait_with_output().unwrap())
}

/// How long an answer may take. QEMU may hold a connection that the guest's rules dropped before the port was published.
const ANSWER: Duration = Duration::from_secs(20);
const GET: &str = "GET /index.html HTTP/1.0\r\n\r\n";

/// Tells a server that listens for it to end, until the guest has.
fn dismiss(port: u16, mut child: Child) -> Run {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none() {
        let _ = ask(port, ANSWER, "done\n");
        std::thread::sleep(Duration::from_millis(500));
    }
    end(child)
}

/// A port of the host that nobody listens on right now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a server behind `port` of the host says to `request` within `time`; QEMU takes a connection before the guest does.
fn ask(port: u16, time: Duration, request: &str) -> String {
    let mut said = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.set_read_timeout(Some(time)).unwrap();
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut said);
    }
    said
}

/// Asks until the answer has `text`, or patience ends.
#[track_caller]
fn hear(port: u16, text: &str) {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        last = ask(port, ANSWER, GET);
        if last.contains(text) {
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    panic!("port {port} does not say \"{text}\" but \"{last}\"");
}

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  restartPolicy: OnFailure
  initContainers:
  - name: first
    image: localhost/busybox:1
    command: ["busybox", "sh", "-c", "busybox echo first of all"]
  containers:
  - name: app
    image: localhost/app:1
  - name: again
    image: localhost/busybox:1
    command: ["busybox", "sh", "-c", "busybox test -e /n && exit 0; busybox echo once > /n; exit 3"]
  - name: server
    image: localhost/busybox:1
    command: ["busybox", "sh", "-c", "busybox echo hello from web | busybox nc -l -p 80"]
---
apiVersion: v1
kind: Pod
metadata:
  name: client
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: localhost/busybox:1
    securityContext:
      privileged: true
    envFrom:
    - configMapRef:
        name: environment
    command:
    - busybox
    - sh
    - -c
    - |
      busybox echo "$GREETING"
      busybox cat /proc/sys/kernel/modules_disabled
      busybox insmod /bin/busybox 2>&1
      until busybox nc web 80 < /dev/null | busybox grep hello; do busybox sleep 1; done
      exit 5
"#;

#[test]
fn pods_run_to_completion_and_reach_each_other_by_name() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (Some(image), Some(volumes)) = (bench.container(), archives(directory.path())) else { return };
    let more = format!(
        "[guest.environment]\nGREETING = \"good morning\"\n[guest.workload]\noutput = \"to-host\"\npods = '''{PODS}'''\n{volumes}"
    );
    let vm = bench.container_vm(directory.path(), "t-pods", image, &more);
    let answer = bench.launch(&vm, &["--json"]).expect(7, &["the workload ended with exit code 5"]).json();
    assert_eq!(answer["workload"]["exit_code"], 5, "the highest of all: {answer}");
    assert_eq!(answer["workload"]["restarts"], 1, "one container failed once: {answer}");
    let printed = bench.run(["logs", "t-pods", "--workload"]).expect(0, &[]).stdout;
    let mut lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.first(), Some(&"first of all"), "{printed}");
    lines.sort_unstable();
    let modules = "insmod: can't insert '/bin/busybox': Operation not permitted";
    let mut expected = ["first of all", MARKER, "good morning", "1", modules, "hello from web"];
    expected.sort_unstable();
    // Busybox tries the name of a service before its pod is there, and may say so.
    lines.retain(|line| !line.starts_with("nc: "));
    assert_eq!(lines, expected, "{printed}");
}

#[test]
fn what_podman_has_against_pods_is_told_and_nothing_is_fetched() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (Some(image), Some(volumes)) = (bench.container(), archives(directory.path())) else { return };
    let pods = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    image: localhost/other:1\n";
    let vm = bench.container_vm(
        directory.path(),
        "t-no-image",
        image,
        &format!("[guest.workload]\npods = '''\n{pods}'''\n{volumes}"),
    );
    let run = bench.launch(&vm, &[]).expect(7, &["/usr/bin/podman kube ended with exit code 125", "localhost/other:1"]);
    assert!(!run.stderr.contains("the workload runs"), "{run:?}");
}

#[test]
fn a_container_is_started_again_and_reached_through_a_published_port() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (Some(image), Some(busybox)) = (bench.container(), Archive::busybox()) else { return };
    std::fs::write(directory.path().join("busybox.tar"), &busybox.bytes).unwrap();
    let port = free_port();
    let script = "busybox test -e /n || { busybox echo once > /n; exit 3; }; until busybox echo hello from inside | busybox nc -l -p 80 | busybox grep -q done; do :; done";
    let more = format!(
        "[[host.nic]]\nforward = [{{ host = {port}, guest = 8080 }}]\n[guest.network]\naddress = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\n[guest.workload]\nimage = \"{}\"\nrestart = \"on-failure\"\ncommand = [\"busybox\", \"sh\", \"-c\", \"{script}\"]\npublish = [{{ guest = 8080, container = 80 }}]\n{}",
        busybox.image,
        busybox.volume("busybox", "busybox.tar")
    );
    let vm = bench.container_vm(directory.path(), "t-published", image, &more);
    let child = launch(&bench, &vm);
    hear(port, "hello from inside");
    let answer = dismiss(port, child).expect(0, &[]).json();
    assert_eq!(answer["workload"]["exit_code"], 0, "{answer}");
    assert_eq!(answer["workload"]["restarts"], 1, "{answer}");
}

/// The first pod publishes what it heard from the second, which listens on the guest's own address and publishes nothing.
const SERVERS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: own
spec:
  hostNetwork: true
  containers:
  - name: own
    image: localhost/busybox:1
    command:
    - busybox
    - sh
    - -c
    - |
      trap 'exit 0' TERM
      busybox mkdir /w; busybox echo not for the host > /w/index.html; busybox httpd -p 8081 -h /w
      while :; do busybox sleep 1; done
---
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: web
    image: localhost/busybox:1
    ports:
    - containerPort: 80
      hostPort: 8080
    command:
    - busybox
    - sh
    - -c
    - |
      trap 'exit 0' TERM
      busybox mkdir /w
      until busybox wget -q -O /w/index.html http://10.0.2.15:8081/index.html; do busybox sleep 1; done
      busybox httpd -p 80 -h /w
      while :; do busybox sleep 1; done
"#;

#[test]
fn only_published_ports_are_reached_and_pods_stop_when_the_guest_is_to_power_off() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (Some(image), Some(volumes)) = (bench.container(), archives(directory.path())) else { return };
    let (published, own) = (free_port(), free_port());
    let more = format!(
        "stop_timeout_s = 400\n[[host.nic]]\nforward = [{{ host = {published}, guest = 8080 }}, {{ host = {own}, guest = 8081 }}]\n[guest.network]\naddress = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\n[guest.workload]\npods = '''{SERVERS}'''\nstop_grace_s = 300\n{volumes}"
    );
    let vm = bench.container_vm(directory.path(), "t-servers", image, &more);
    let child = launch(&bench, &vm);
    hear(published, "not for the host");
    // Before and after, a published port answers in the time in which the other does not.
    let answers = || !ask(published, Duration::from_secs(10), GET).is_empty();
    assert!(answers());
    assert_eq!(ask(own, Duration::from_secs(10), GET), "", "a port that nobody publishes is reached");
    assert!(answers());
    let begun = Instant::now();
    bench.run(["stop", "t-servers"]).expect(0, &[]);
    // They end at once when they are told. Pods that are not told would take 300 s.
    assert!(begun.elapsed() < Duration::from_secs(150), "it took {:?}", begun.elapsed());
    end(child).expect(0, &[]);
}

const COMPOSE: &str = r#"
services:
  web:
    image: localhost/busybox:1
    command: ["busybox", "sh", "-c", "busybox echo hello from web, ${GREETING} | busybox nc -l -p 80"]
  client:
    image: localhost/busybox:1
    depends_on: [web]
    ports: ["8080:80"]
    command:
    - busybox
    - sh
    - -c
    - |
      until busybox nc web 80 < /dev/null > /said && busybox test -s /said; do busybox sleep 1; done
      busybox cat /said
      until busybox nc -l -p 80 < /said | busybox grep -q done; do :; done
      exit 4
"#;

#[test]
fn the_services_of_a_compose_file_run_to_completion() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (Some(image), Some(volumes)) = (bench.compose(), archives(directory.path())) else { return };
    let port = free_port();
    let more = format!(
        "[[host.nic]]\nforward = [{{ host = {port}, guest = 8080 }}]\n[guest.network]\naddress = \"10.0.2.15/24\"\n[guest.environment]\nGREETING = \"good morning\"\n[guest.workload]\noutput = \"to-host\"\ncompose = '''{COMPOSE}'''\n{volumes}"
    );
    let vm = bench.container_vm(directory.path(), "t-compose", image, &more);
    let child = launch(&bench, &vm);
    hear(port, "hello from web, good morning");
    let answer = dismiss(port, child).expect(7, &["the workload ended with exit code 4"]).json();
    assert_eq!(answer["workload"]["exit_code"], 4, "{answer}");
    let printed = bench.run(["logs", "t-compose", "--workload"]).expect(0, &[]).stdout;
    assert!(printed.contains("hello from web, good morning\n"), "{printed}");
}

#[test]
fn a_compose_file_needs_an_image_that_can_run_one() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (Some(image), Some(volumes)) = (bench.container(), archives(directory.path())) else { return };
    let more = format!("[guest.workload]\ncompose = '''{COMPOSE}'''\n{volumes}");
    let vm = bench.container_vm(directory.path(), "t-no-compose", image, &more);
    bench.launch(&vm, &[]).expect(7, &["the image has no /usr/bin/podman-compose"]);
}
