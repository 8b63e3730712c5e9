//! A program in QEMU's place that tries to get out. The same attempts without the confinement succeed, so that none fails for
//! another reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::Confinement;
use crate::child::{Place, spawn_in};

fn place<'a>(confinement: &'a Confinement, root: &'a Path) -> Place<'a> {
    Place { confinement: Some((confinement, root)), group: None }
}

/// Attempts, one a line: its name and whether it succeeded. ptrace(2) is 101, mount(2) 165, 16 is PTRACE_ATTACH.
const ESCAPE: &str = r#"
    use Socket; my ($supervisor, $port, $outside, $harm) = @ARGV;
    sub told { print STDERR "$_[0] ", ($_[1] ? "done" : "failed"), "\n" }
    told("file", open(my $secret, "<", "$outside/secret"));
    told("write", open(my $file, ">", "$outside/escaped"));
    told("signal", kill(0, $supervisor));
    told("process", -e "/proc/$supervisor/status");
    socket(my $s, PF_INET, SOCK_STREAM, 0);
    told("network", connect($s, sockaddr_in($port, inet_aton("127.0.0.1"))));
    # What would stop the supervisor or change the host is tried in the confinement only.
    exit unless $harm;
    told("shadow", open(my $shadow, "<", "/etc/shadow"));
    told("trace", syscall(101, 16, $supervisor, 0, 0) == 0);
    my ($source, $place, $kind) = ("x", "/usr", "tmpfs");
    told("mount", syscall(165, $source, $place, $kind, 0, 0) == 0);
    told("root", open(my $etc, ">", "/etc/passwd"));
    told("programs", open(my $usr, ">", "/usr/bin/escaped"));
    told("user", do { $> = 0; $> == 0 } && open(my $kmsg, "<", "/dev/kmsg"));
    opendir(my $proc, "/proc"); my @seen = grep { /^\d+$/ } readdir($proc);
    print STDERR "processes @seen\n";
"#;

fn programs() -> Vec<PathBuf> {
    ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"].map(PathBuf::from).to_vec()
}

/// What the program says of its attempts.
fn attempts(confinement: Option<&Confinement>, outside: &Path) -> BTreeMap<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    fs::write(outside.join("secret"), "secret").unwrap();
    let supervisor = std::process::id().to_string();
    let harm = if confinement.is_some() { "1" } else { "" };
    let words = ["/usr/bin/perl", "-e", ESCAPE, &supervisor, &port, outside.to_str().unwrap(), harm];
    let inside = tempfile::tempdir().unwrap();
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]);
    let confinement = confinement.map(|confinement| (confinement, inside.path()));
    let mut child = spawn_in(&words.map(str::to_owned), &env, vec![], Place { confinement, group: None }).unwrap();
    let mut text = String::new();
    child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, how)| (name.to_owned(), how.to_owned())).collect()
}

#[test]
fn a_program_in_the_place_of_qemu_does_not_get_out() {
    let outside = tempfile::tempdir().unwrap();
    let free = attempts(None, outside.path());
    for name in ["file", "write", "signal", "process", "network"] {
        assert_eq!(free[name], "done", "{name} must succeed without confinement: {free:?}");
    }
    fs::remove_file(outside.path().join("escaped")).unwrap();
    let confined = attempts(Some(&Confinement::new(programs())), outside.path());
    // It is the first process of its own, and sees no other.
    assert_eq!(confined["processes"], "1", "{confined:?}");
    for (name, how) in confined.iter().filter(|(name, _)| *name != "processes") {
        assert_eq!(how, "failed", "{name} got out: {confined:?}");
    }
    assert_eq!(confined.len(), 12, "{confined:?}");
    assert!(!outside.path().join("escaped").exists());
    assert!(!Path::new("/usr/bin/escaped").exists());
}

#[test]
fn what_it_is_given_is_there_and_nothing_else() {
    let given = tempfile::tempdir().unwrap();
    fs::write(given.path().join("file"), "given").unwrap();
    // Another user than root has to be let in by the modes.
    for (path, mode) in [(given.path().to_owned(), 0o755), (given.path().join("file"), 0o644)] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // As /etc/resolv.conf leads to a file that nobody has named.
    let elsewhere = tempfile::tempdir().unwrap();
    let linked = elsewhere.path().join("link");
    std::os::unix::fs::symlink(elsewhere.path().join("next"), &linked).unwrap();
    std::os::unix::fs::symlink(given.path().join("file"), elsewhere.path().join("next")).unwrap();
    let inside = tempfile::tempdir().unwrap();
    let mut confinement = Confinement::new(programs());
    confinement.readable.extend([given.path().to_owned(), linked.clone()]);
    let script = format!(
        "cat {0}/file {1} >&2; echo no 2>/dev/null >{0}/new || echo ' read-only' >&2; echo $(ls /) >&2; \
         echo x >/dev/null && echo null >&2; id -u >&2; hostname >&2; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status >&2; \
         ulimit -c >&2",
        given.path().display(),
        linked.display()
    );
    let words = ["/bin/sh", "-c", &script].map(str::to_owned);
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]);
    let mut child = spawn_in(&words, &env, vec![], place(&confinement, inside.path())).unwrap();
    let mut text = String::new();
    child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
    let user = if geteuid().is_root() { "65532".to_owned() } else { geteuid().to_string() };
    let temporary = given.path().components().nth(1).unwrap().as_os_str().to_str().unwrap();
    let root = ["bin", "dev", "etc", "lib", "lib64", "proc", "tmp", temporary, "usr"];
    let root: Vec<&str> = BTreeSet::from(root).into_iter().collect();
    let expected = format!(
        "givengiven read-only\n{}\nnull\n{user}\nbullion\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t0\n0\n",
        root.join(" ")
    );
    assert_eq!(text, expected);
    assert_eq!(fs::read_dir(inside.path()).unwrap().count(), 0, "nothing shows outside");
}

/// As tdx-qgs sets its socket up: `srw-rw----`, of its own group.
#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_socket_of_a_group_is_reached_in_that_group_alone() {
    const GROUP: u32 = 54_321;
    if !geteuid().is_root() {
        eprintln!("skipped: only root gives a program another user and other groups");
        return;
    }
    let given = tempfile::tempdir().unwrap();
    let socket = given.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, mode) in [(given.path(), 0o755), (&socket, 0o660)] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(&socket, None, Some(GROUP)).unwrap();
    let connects = |groups: Vec<u32>| {
        let mut confinement = Confinement { groups, ..Confinement::new(programs()) };
        confinement.readable.push(given.path().to_owned());
        let inside = tempfile::tempdir().unwrap();
        let script = r#"use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); exit !connect($s, sockaddr_un($ARGV[0]))"#;
        let words = ["/usr/bin/perl", "-e", script, socket.to_str().unwrap()].map(str::to_owned);
        let mut child = spawn_in(&words, &BTreeMap::new(), vec![], place(&confinement, inside.path())).unwrap();
        let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&child), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut poll, 5000_u16).unwrap(), 1);
        child.ended().unwrap().unwrap().success()
    };
    assert!(!connects(vec![]));
    assert!(connects(vec![GROUP]));
}

#[test]
fn it_ends_as_the_program_ends_and_its_own_number_is_told() {
    use std::os::unix::process::ExitStatusExt as _;
    let confinement = Confinement::new(programs());
    let run = |script: &str| {
        let inside = tempfile::tempdir().unwrap();
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let mut child = spawn_in(&words, &BTreeMap::new(), vec![], place(&confinement, inside.path())).unwrap();
        let comm = fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
        let mut text = String::new();
        child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
        let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&child), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut poll, 5000_u16).unwrap(), 1);
        (child.ended().unwrap().unwrap(), comm)
    };
    assert_eq!(run("exit 3").0.code(), Some(3));
    let (status, command) = run("read x 2>/dev/null </dev/zero & sleep 0.3; exit 0");
    assert!(command.contains("sleep 0.3"), "{command}");
    assert_eq!(status.code(), Some(0));
    // Of the first process of a namespace the kernel takes no signal that it has not asked for, but from outside.
    let inside = tempfile::tempdir().unwrap();
    let words = ["/bin/sh", "-c", "exec sleep 100"].map(str::to_owned);
    let mut child = spawn_in(&words, &BTreeMap::new(), vec![], place(&confinement, inside.path())).unwrap();
    let id = child.id();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(id).unwrap()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&child), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut poll, 5000_u16).unwrap(), 1);
    assert_eq!(child.ended().unwrap().unwrap().signal(), Some(9));
    // Dropping the supervisor's end ends it, too.
    let words = ["/bin/sh", "-c", "exec sleep 100"].map(str::to_owned);
    let child = spawn_in(&words, &BTreeMap::new(), vec![], place(&confinement, inside.path())).unwrap();
    let id = child.id();
    drop(child);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while Path::new(&format!("/proc/{id}")).exists() {
        assert!(std::time::Instant::now() < deadline, "process {id} outlives its supervisor");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_step_that_fails_is_named() {
    let missing = Path::new("/nonexistent-mount-point");
    let words = ["/bin/true"].map(str::to_owned);
    let error = spawn_in(&words, &BTreeMap::new(), vec![], place(&Confinement::new(programs()), missing)).unwrap_err();
    assert!(error.to_string().starts_with("confining it failed at making its file system: "), "{error}");
}
