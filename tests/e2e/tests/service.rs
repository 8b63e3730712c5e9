//! What an operator puts around VMs: systemd units, metrics, manual pages and completions, each judged by the program that reads it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, bench, judge, names, run, skipped};

fn examples() -> impl Iterator<Item = PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
}

/// Copies a description beside an image directory of its own, so that every path in it is there.
fn prepared(example: &Path, directory: &Path, image: &Path) -> (String, PathBuf) {
    let text = fs::read_to_string(example).unwrap();
    let name = text.lines().find_map(|line| line.strip_prefix("name = \"")).unwrap().trim_end_matches('"').to_owned();
    // The first is the VM's; a workload has one, too.
    let line = text.lines().find(|line| line.starts_with("image = ")).unwrap();
    let text = text.replacen(line, &format!("image = \"{}\"", image.display()), 1);
    let path = directory.join(format!("{name}.vm.toml"));
    fs::write(&path, text).unwrap();
    (name, path)
}

/// Where units of the judge's systemd are, which ours refer to.
fn units_of_systemd(bench: &Bench) -> PathBuf {
    let judges = bench.recipe.with_file_name("judges.lock");
    let lock = spec::Sha256Digest::of(&fs::read(judges).unwrap());
    let cache = std::env::var_os("BULLION_TOOLS").map(PathBuf::from).unwrap();
    let cache = cache.parent().and_then(Path::parent).unwrap().to_owned();
    cache.join("trees").join(lock.to_string()).join("root/usr/lib/systemd/system")
}

#[test]
fn systemd_accepts_the_unit_of_every_example_and_finds_little_exposed() {
    let (Some(bench), Some(_)) = (bench(), judge("systemd-analyze")) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    fs::create_dir(&image).unwrap();
    let root = scratch.path().join("root");
    let mut installed = Vec::new();
    for example in examples() {
        let (name, vm) = prepared(&example, scratch.path(), &image);
        let words = ["vm", "install", &name, vm.to_str().unwrap(), "--dir", root.to_str().unwrap(), "--json"];
        let unit = PathBuf::from(bench.run(words).expect(0, &["systemctl"]).json()["unit"].as_str().unwrap());
        let again = bench.run(words.iter().chain(&["--print"])).expect(0, &[]).stdout;
        assert_eq!(fs::read_to_string(&unit).unwrap(), again);
        installed.push((name, unit));
    }
    assert!(installed.len() >= 10, "{installed:?}");
    let units = units_of_systemd(&bench);
    assert!(units.is_dir(), "{}", units.display());
    let path = format!("{}:{}", root.join("etc/systemd/system").display(), units.display());
    let analyze = |words: &[&str]| {
        let mut command = judge("systemd-analyze").unwrap();
        run(command.args(words).env("SYSTEMD_UNIT_PATH", &path).env("SYSTEMD_PAGER", ""))
    };
    for (name, unit) in &installed {
        let verified = analyze(&["verify", "--man=no", "--recursive-errors=no", unit.to_str().unwrap()]);
        assert_eq!((verified.code, verified.stderr.as_str()), (0, ""), "{name}: {verified:#?}");
        // 10 is a unit without any protection; below 5 is what systemd calls OK. Whoever passes functions must see who has them
        // open, and the right to that counts 0.3.
        let passes = fs::read_to_string(unit).unwrap().contains("CAP_SYS_PTRACE");
        let threshold = if passes { "--threshold=52" } else { "--threshold=50" };
        let security = analyze(&["security", "--offline=true", threshold, unit.to_str().unwrap()]);
        assert_eq!(security.code, 0, "{name}: {security:#?}");
    }
    // What the package ships, with a program that is there.
    for shipped in ["bullion-metrics.service", "bullion-metrics.timer"] {
        let text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(shipped)).unwrap();
        let unit = root.join("etc/systemd/system").join(shipped);
        fs::write(&unit, text.replace("/usr/bin/bullion", bench.bullion.to_str().unwrap())).unwrap();
    }
    for shipped in ["bullion-metrics.service", "bullion-metrics.timer"] {
        let unit = root.join("etc/systemd/system").join(shipped);
        let verified = analyze(&["verify", "--man=no", "--recursive-errors=no", unit.to_str().unwrap()]);
        assert_eq!((verified.code, verified.stderr.as_str()), (0, ""), "{shipped}: {verified:#?}");
    }
    for shipped in ["bullion-metrics.service", "bullion-metrics.timer"] {
        fs::remove_file(root.join("etc/systemd/system").join(shipped)).unwrap();
    }
    for (name, _) in &installed {
        bench.run(["vm", "uninstall", name, "--dir", root.to_str().unwrap()]).expect(0, &["is not stopped"]);
        bench.run(["vm", "uninstall", name, "--dir", root.to_str().unwrap()]).expect(2, &["there is no"]);
    }
    assert_eq!(names(&root.join("etc/systemd/system")), Vec::<String>::new());
}

#[test]
fn a_unit_of_somebody_else_is_not_touched() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("image")).unwrap();
    let vm = bench.vm(scratch.path(), "web", "none", 1, &scratch.path().join("image"));
    let root = scratch.path().to_str().unwrap();
    let directory = scratch.path().join("etc/systemd/system");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("bullion@web.service"), "[Service]\n").unwrap();
    bench.run(["vm", "install", "web", vm.to_str().unwrap(), "--dir", root]).expect(3, &["was not written by Bullion"]);
    bench.run(["vm", "uninstall", "web", "--dir", root]).expect(3, &["was not written by Bullion"]);
    assert_eq!(fs::read_to_string(directory.join("bullion@web.service")).unwrap(), "[Service]\n");
    bench.run(["vm", "install", "other", vm.to_str().unwrap(), "--dir", root]).expect(2, &["a VM named \"web\""]);
}

#[test]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let (Some(bench), Some(_)) = (bench(), judge("promtool")) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (run_dir, state) = (scratch.path().join("run"), scratch.path().join("state"));
    let metrics = |words: &[&str]| {
        let mut command = bench.command(["metrics"]);
        run(command.args(words).env("BULLION_RUN_DIR", &run_dir).env("BULLION_STATE_DIR", &state))
    };
    let check = |text: &str| {
        let mut child = judge("promtool").unwrap();
        child.args(["check", "metrics", "--extended"]).stdin(std::process::Stdio::piped());
        let mut child =
            child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("error"), "{said}\n{text}");
        said
    };
    check(&metrics(&[]).expect(0, &[]).stdout);
    // A VM that is gone has most families.
    let image = bench.image();
    let vm = scratch.path().join("gone.vm.toml");
    let text = format!(
        "schema = 1\nname = \"gone\"\nimage = \"{}\"\ntee = \"none\"\nmemory = \"512MiB\"\n[host]\naccelerator = \"tcg\"\nready_timeout_s = 1\n",
        image.display()
    );
    fs::write(&vm, text).unwrap();
    let mut launch = bench.launching(&vm, &[]);
    let launched = launch.env("BULLION_RUN_DIR", &run_dir).env("BULLION_STATE_DIR", &state);
    run(launched).expect(7, &["was not ready within 1 s"]);
    let file = scratch.path().join("bullion.prom");
    metrics(&["--textfile", file.to_str().unwrap()]).expect(0, &[]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("bullion_vm_exit_code{name=\"gone\"} 7\n"), "{text}");
    let said = check(&text);
    assert!(said.contains("bullion_vm_restarts_total"), "{said}");
}

#[test]
fn mandoc_reads_the_manual_pages_and_there_is_one_for_every_verb() {
    let (Some(bench), Some(_)) = (bench(), judge("mandoc")) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let directories = [scratch.path().join("one"), scratch.path().join("two")];
    for directory in &directories {
        bench.run(["man", directory.to_str().unwrap()]).expect(0, &[]);
    }
    let pages = names(&directories[0]);
    assert!(pages.len() > 40, "{pages:?}");
    for page in &pages {
        let path = directories[0].join(page);
        assert_eq!(fs::read(&path).unwrap(), fs::read(directories[1].join(page)).unwrap());
        let checked = run(judge("mandoc").unwrap().args(["-T", "lint", "-W", "error"]).arg(&path));
        assert_eq!((checked.code, checked.stdout.as_str()), (0, ""), "{page}: {checked:#?}");
    }
    let help = bench.run(["--help"]).expect(0, &[]).stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<_> = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).collect();
    assert!(verbs.len() > 20);
    for verb in verbs.iter().filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help") {
        assert!(pages.contains(&format!("bullion-{verb}.1")), "{verb} has no page");
    }
    let text = run(judge("mandoc").unwrap().args(["-T", "ascii"]).arg(directories[0].join("bullion-vm-install.1")));
    assert!(text.stdout.contains("systemd unit"), "{text:#?}");
}

#[test]
fn shells_read_the_completions() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.run(["completions", shell]).expect(0, &[]).stdout;
        assert!(script.contains("launch") && script.contains("uninstall"), "{shell}");
        let path = scratch.path().join(shell);
        fs::write(&path, script).unwrap();
        let mut command = Command::new(shell);
        command.arg("-n").arg(&path);
        match command.output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => skipped(&format!("{shell} is not here to read its completions")),
        }
    }
    let script = scratch.path().join("ask");
    let ask =
        ". ./bash; COMP_WORDS=(bullion vm inst); COMP_CWORD=2; _bullion bullion inst vm; echo \"${COMPREPLY[@]}\"";
    fs::write(&script, ask).unwrap();
    let answer = run(Command::new("bash").arg(&script).current_dir(scratch.path()));
    assert_eq!(answer.stdout.trim(), "install", "{answer:#?}");
}
