//! Effects against the programs that maintainer scripts call: the same tree, once through ours, once through theirs.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::effects;
use image::tree::{Kind, Node, Tree};
use support::{run, tool};

fn tree_of(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "test"));
    }
    tree.finish().unwrap();
    tree
}

/// Writes a tree to disk; owners are those of the user who runs the test.
fn write(tree: &Tree, root: &Path) {
    for (path, node) in tree.iter() {
        let place = root.join(path);
        match &node.kind {
            Kind::Directory => fs::create_dir_all(&place).unwrap(),
            Kind::File { content, .. } => fs::write(&place, content.bytes()).unwrap(),
            Kind::Symlink(target) => symlink(target, &place).unwrap(),
            Kind::CharDevice { .. } => continue,
        }
        if !matches!(node.kind, Kind::Symlink(_)) {
            fs::set_permissions(&place, fs::Permissions::from_mode(u32::from(node.mode))).unwrap();
        }
    }
}

/// Kind, mode, owner (where root runs the test) and content below `root`, by path.
fn on_disk(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let place = root.join(&path);
        let data = place.symlink_metadata().unwrap();
        let text = if data.is_symlink() {
            format!("-> {}", fs::read_link(&place).unwrap().display())
        } else if data.is_dir() {
            open.extend(fs::read_dir(&place).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            format!("{:o} {}:{}", data.mode() & 0o7777, data.uid(), data.gid())
        } else {
            let content = String::from_utf8_lossy(&fs::read(&place).unwrap()).into_owned();
            format!("{:o} {}:{} {content}", data.mode() & 0o7777, data.uid(), data.gid())
        };
        found.insert(path.to_str().unwrap().to_owned(), text);
    }
    found
}

fn in_memory(tree: &Tree) -> BTreeMap<String, String> {
    let text = |node: &Node| match &node.kind {
        Kind::Symlink(target) => format!("-> {target}"),
        Kind::File { content, .. } => {
            format!("{:o} {}:{} {}", node.mode, node.uid, node.gid, String::from_utf8_lossy(content.bytes()))
        }
        _ => format!("{:o} {}:{}", node.mode, node.uid, node.gid),
    };
    tree.iter().map(|(path, node)| (path.to_owned(), text(node))).collect()
}

const PASSWD: &str = "root:*:0:0:root:/root:/bin/bash\ndaemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:*:0:\ndaemon:*:1:\nadm:*:4:\nutmp:*:43:\nnogroup:*:65534:\n";

#[test]
fn system_users_are_those_that_systemd_sysusers_makes() {
    let Some(sysusers) = tool("systemd-sysusers") else { return };
    for ranges in ["", "r - 600-700\nr - 450\nr - 650-720\n"] {
        system_users(&sysusers, ranges);
    }
}

fn system_users(sysusers: &Path, ranges: &str) {
    let declared = [
        ("usr/lib/sysusers.d/ranges.conf", ranges),
        (
            "usr/lib/sysusers.d/basic.conf",
            "g adm 4\ng input - -\nu root 0 \"Super User\" /root\nu! locked - \"Locked one\"\n",
        ),
        ("usr/lib/sysusers.d/dbus.conf", "# Comment\nu messagebus - \"System Message Bus\" - -\n"),
        (
            "usr/lib/sysusers.d/more.conf",
            "u fixed 321 'Fixed number' /var/lib/fixed /bin/sh\nu in - - -\nu own 400:adm - /x\nu any -:utmp\ng fixed-group 999\nm in adm\nm new newer\n",
        ),
        ("usr/lib/sysusers.d/masked.conf", "u never - -\n"),
        ("etc/sysusers.d/masked.conf", "u instead 500 -\n"),
    ];
    let mut files =
        vec![("usr/share/base-passwd/passwd.master", PASSWD), ("usr/share/base-passwd/group.master", GROUP)];
    files.extend(declared);
    let mut tree = tree_of(&files);
    effects::apply(&mut tree, &[], &[]).unwrap();

    let directory = tempfile::tempdir().unwrap();
    files.extend([("etc/passwd", PASSWD), ("etc/group", GROUP)]);
    write(&tree_of(&files), directory.path());
    run(Command::new(sysusers).arg(format!("--root={}", directory.path().display())));
    for path in ["etc/passwd", "etc/group"] {
        // Theirs has an `x` where the password is in another file, which only the passwd package brings for us.
        let lines = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(|line| line.replacen(":x:", ":*:", 1)).collect();
            lines.sort();
            lines
        };
        let theirs = fs::read_to_string(directory.path().join(path)).unwrap();
        assert_eq!(lines(std::str::from_utf8(tree.file(path).unwrap()).unwrap()), lines(&theirs), "{path}");
    }
}

#[test]
fn directories_are_those_that_systemd_tmpfiles_makes() {
    let Some(tmpfiles) = tool("systemd-tmpfiles") else { return };
    let lines = "d /var/lib/a/b 0750 root root - -\nd /var/log/c 2775\nf /etc/f 0600 - - - some words\nL /etc/l - - - - ../usr/l\n\
                 L+ /etc/there - - - - x\nf+ /etc/other 0640 - - - new\nf /etc/same 0600 - - - new\nd /run/no\nd! /var/no\n\
                 D /var/spool/d 1777\nq /var/q 0700\nx /var/x\nr /etc/there2\nd /etc/deep/er/est :0711\ne /var/none 0700\n";
    let files = [
        ("usr/lib/tmpfiles.d/a.conf", lines),
        ("etc/there", "t"),
        ("etc/other", "o"),
        ("etc/same", "s"),
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/machine-id", ""),
        ("var/k", ""),
        ("run/k", ""),
    ];
    let mut tree = tree_of(&files);
    let directory = tempfile::tempdir().unwrap();
    write(&tree, directory.path());
    run(Command::new(tmpfiles).arg("--create").arg(format!("--root={}", directory.path().display())));
    effects::apply(&mut tree, &[], &[]).unwrap();
    let inside = |found: BTreeMap<String, String>| -> BTreeMap<String, String> {
        let wanted = |path: &str| path.starts_with("etc/") || path.starts_with("var/");
        let uid = nix_uid();
        found
            .into_iter()
            .filter(|(path, _)| wanted(path))
            .map(|(path, text)| (path, text.replacen(&uid, " 0:0", 1)))
            .collect()
    };
    assert_eq!(inside(in_memory(&tree)), inside(on_disk(directory.path())));
}

/// The owner of new files, as `on_disk` shows it.
fn nix_uid() -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let data = file.as_file().metadata().unwrap();
    format!(" {}:{}", data.uid(), data.gid())
}

/// The root of the tree that the judges run from, with its shared libraries and certificates: `scripts/test-tools` writes
/// the recipe of the tree into each program, and a tree is named after its lock.
fn judges_root() -> Option<PathBuf> {
    let ldconfig = tool("ldconfig")?;
    let wrapper = fs::read_to_string(&ldconfig).unwrap();
    let recipe = wrapper.split('\'').find(|word| word.ends_with(".toml"))?;
    let lock = fs::read(Path::new(recipe).with_extension("lock")).unwrap();
    let cache = store::Store::default_dir()?;
    Some(cache.join("trees").join(spec::Sha256Digest::of(&lock).to_string()).join("root"))
}

/// The files and links of a real directory as part of a tree.
fn take(tree: &mut Tree, root: &Path, directory: &str) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        let data = entry.metadata().unwrap();
        if data.is_symlink() {
            tree.insert(&path, Node::symlink(fs::read_link(entry.path()).unwrap().to_str().unwrap(), "judges"));
        } else if data.is_file() {
            tree.insert(&path, Node::file(fs::read(entry.path()).unwrap(), 0o644, "judges"));
        }
    }
}

#[test]
fn the_loader_cache_is_the_one_that_ldconfig_writes() {
    let (Some(ldconfig), Some(root)) = (tool("ldconfig"), judges_root()) else { return };
    let mut tree = tree_of(&[
        ("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n"),
        ("etc/ld.so.conf.d/libc.conf", "# libc\n/usr/local/lib\n"),
        (
            "etc/ld.so.conf.d/x86_64-linux-gnu.conf",
            "/usr/local/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n",
        ),
        ("usr/local/lib/k", ""),
        ("usr/sbin/ldconfig", ""),
    ]);
    take(&mut tree, &root, "usr/lib/x86_64-linux-gnu");
    take(&mut tree, &root, "usr/lib");
    // Not a library, a library for the linker only, and one without its soname link.
    tree.insert("usr/lib/libtext.so", Node::file(b"INPUT(-lc)".to_vec(), 0o644, "test"));
    let libz = tree.get("usr/lib/x86_64-linux-gnu/libz.so.1").cloned().unwrap();
    let Kind::Symlink(target) = &libz.kind else { panic!("libz.so.1 is a link") };
    tree.insert("usr/lib/x86_64-linux-gnu/libz.so", Node::symlink(target, "test"));
    let content = tree.get(&format!("usr/lib/x86_64-linux-gnu/{target}")).cloned().unwrap();
    // For processors that can do more; one of the names is nobody's.
    for (name, hwcaps) in [("libz.so.1.98", "x86-64-v3"), ("libz.so.1.97", "x86-64-v2"), ("no-library", "x86-64-v4")] {
        let path = format!("usr/lib/x86_64-linux-gnu/glibc-hwcaps/{hwcaps}/{name}");
        tree.insert(&path, content.clone());
        tree.finish().unwrap();
    }
    tree.insert("usr/local/lib/libz.so.1.99", content);
    tree.finish().unwrap();

    let directory = tempfile::tempdir().unwrap();
    write(&tree, directory.path());
    run(Command::new(&ldconfig).arg("-r").arg(directory.path()));
    effects::index(&mut tree, |_| false, None).unwrap();
    let ours = tree.file("etc/ld.so.cache").unwrap();
    let cache = directory.path().join("etc/ld.so.cache");
    let theirs = fs::read(&cache).unwrap();
    let listed = |path: &Path| {
        let output = run(Command::new(&ldconfig).arg("-p").arg("-C").arg(path));
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter(|line| line.contains("=>"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let own = directory.path().join("ours");
    fs::write(&own, ours).unwrap();
    assert_eq!(listed(&own), listed(&cache));
    // Up to the name of the program that wrote it, which is the last thing in the file.
    let extension = u32::from_le_bytes(theirs[32..36].try_into().unwrap()) as usize;
    assert_eq!(ours[..extension + 20], theirs[..extension + 20]);
    let generator = u32::from_le_bytes(theirs[extension + 16..extension + 20].try_into().unwrap()) as usize;
    assert_eq!(ours[extension + 24..generator], theirs[extension + 24..generator]);
    assert!(listed(&own).contains("x86-64-v3"));
    assert!(tree.get("usr/local/lib/libz.so.1").is_some(), "the missing link is made");
    assert!(directory.path().join("usr/local/lib/libz.so.1").is_symlink());
    assert!(ours.len() > 2000);
}

#[test]
fn certificates_are_linked_as_openssl_rehash_does() {
    let (Some(openssl), Some(root)) = (tool("openssl"), judges_root()) else { return };
    let source = "usr/share/ca-certificates/mozilla";
    let mut tree = tree_of(&[]);
    take(&mut tree, &root, source);
    tree.finish().unwrap();
    effects::apply(&mut tree, &[], &[]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (path, node) in tree.below("etc/ssl/certs") {
        let Kind::Symlink(target) = &node.kind else { continue };
        if let Some(target) = target.strip_prefix('/') {
            let name = path.rsplit('/').next().unwrap();
            fs::write(directory.path().join(name), tree.file(target).unwrap()).unwrap();
        }
    }
    run(Command::new(openssl).arg("rehash").arg(directory.path()));
    let theirs: BTreeMap<String, String> =
        on_disk(directory.path()).into_iter().filter(|(_, text)| text.starts_with("-> ")).collect();
    let ours: BTreeMap<String, String> = tree
        .below("etc/ssl/certs")
        .filter_map(|(path, node)| match &node.kind {
            Kind::Symlink(target) if !target.starts_with('/') => {
                Some((path.strip_prefix("etc/ssl/certs/")?.to_owned(), format!("-> {target}")))
            }
            _ => None,
        })
        .collect();
    assert!(ours.len() > 100);
    assert_eq!(ours, theirs);
}

#[test]
fn alternatives_are_those_that_update_alternatives_installs() {
    let Some(program) = tool("update-alternatives") else { return };
    let script = "if [ \"$1\" = configure ]; then\n\
        update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 --slave /usr/bin/nawk nawk /usr/bin/mawk \\\n\
          --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz\n\
        update-alternatives --install /usr/bin/awk awk /usr/bin/gawk 10 --slave /usr/bin/nawk nawk /usr/bin/gawk\n\
        update-alternatives --install /usr/sbin/t t /usr/sbin/t-b 20 --slave /usr/sbin/t-save t-save /usr/sbin/t-b-save \\\n\
          --slave /usr/sbin/a-save a-save /usr/sbin/none\n\
        update-alternatives --install /usr/sbin/t t /usr/sbin/t-a 20 --slave /usr/sbin/t-save t-save /usr/sbin/t-a-save\nfi\n";
    let programs = ["bin/mawk", "bin/gawk", "sbin/t-a", "sbin/t-a-save", "sbin/t-b", "sbin/t-b-save"];
    let files: Vec<(String, &str)> = programs.iter().map(|path| (format!("usr/{path}"), "")).collect();
    let mut files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    files.extend([("usr/share/man/man1/x", ""), ("var/lib/dpkg/x", ""), ("etc/x", ""), ("var/log/x", "")]);
    let mut tree = tree_of(&files);
    let directory = tempfile::tempdir().unwrap();
    write(&tree, directory.path());
    for call in script.replace("\\\n", " ").lines().filter(|line| line.contains("--install")) {
        let words = call.split_whitespace().skip(1);
        run(Command::new(&program).arg("--root").arg(directory.path()).arg("--quiet").args(words));
    }
    let control = image::deb::Control {
        scripts: BTreeMap::from([("postinst".to_owned(), script.to_owned())]),
        ..image::deb::Control::default()
    };
    let package = image::deb::Package {
        name: "t".to_owned(),
        version: "1".to_owned(),
        architecture: "all".to_owned(),
        control,
        entries: Vec::new(),
    };
    effects::link(&mut tree, &[package]);
    tree.finish().unwrap();
    let links = |found: BTreeMap<String, String>| -> Vec<(String, String)> {
        let wanted = |path: &str, text: &str| text.starts_with("-> ") || path.starts_with("var/lib/dpkg/alternatives/");
        let owner = nix_uid();
        let found = found.into_iter().filter(|(path, text)| wanted(path, text));
        found.map(|(path, text)| (path, text.replacen(&owner, " 0:0", 1))).collect()
    };
    assert_eq!(links(in_memory(&tree)), links(on_disk(directory.path())));
}

/// What depmod writes, besides what a kernel's build describes.
const MODULE_INDEXES: [&str; 11] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.devname",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.weakdep",
];

#[test]
fn indexes_of_odd_modules_are_those_that_depmod_writes() {
    let Some(depmod) = tool("depmod") else { return };
    let node = ["alias=devname:odd/node", "alias=char-major-10-123", "alias=pci:v0000-d[0-9a-f]*", "alias=un[matched"];
    let soft = [
        "softdep=pre: a-b post: c",
        "softdep=post: d",
        "weakdep=e",
        "alias=pci:v0000-d[0-9a-f]*",
        "alias=a",
        "alias=abc",
    ];
    let late = ["alias=abd", "alias=block-major-7-*", "alias=devname:no-number", "alias=ab"];
    let directory = format!("usr/lib/modules/{}", support::KERNEL);
    let mut tree = tree_of(&[]);
    for (path, name, extra) in [
        ("kernel/odd-name.ko", "odd_name", node.as_slice()),
        ("updates/soft.ko", "soft", soft.as_slice()),
        ("kernel/deep/er/late.ko", "late", late.as_slice()),
        ("kernel/none.ko", "none", &[]),
    ] {
        let module = support::module(name, "", extra);
        tree.insert(&format!("{directory}/{path}"), Node::file(module, 0o644, "test"));
    }
    // Names what is not there, one module twice, and not all.
    let order = "kernel/gone.ko\nkernel/none.ko\nkernel/odd-name.ko\nkernel/none.ko\n";
    let builtin = "kernel/fs/built-in.ko\n#no\nkernel/fs/ext4.ko\nkernel/fs/ext4-more.ko\n";
    let modinfo =
        "ext4.alias=fs-ext4\0ext4.alias=un[matched\0ext4.license=GPL\0other.alias=fs-ext4\0x.alias=fs-[a-b]-c\0";
    for (name, text) in [("order", order), ("builtin", builtin), ("builtin.modinfo", modinfo)] {
        let path = format!("{directory}/modules.{name}");
        tree.insert(&path, Node::file(text.as_bytes().to_vec(), 0o644, "test"));
    }
    tree.finish().unwrap();
    let root = tempfile::tempdir().unwrap();
    write(&tree, root.path());
    run(Command::new(depmod).arg("-b").arg(root.path()).arg(support::KERNEL));
    let mut kept = Vec::new();
    // As made for the first time, as kept, and as taken from what was kept.
    let cache = tempfile::tempdir().unwrap();
    let store = store::Store::open(cache.path()).unwrap();
    for _ in 0..2 {
        let mut tree = tree.clone();
        effects::index(&mut tree, |_| false, Some(&store)).unwrap();
        kept.push(in_memory(&tree));
    }
    let mut whole = tree.clone();
    effects::index(&mut whole, |_| false, None).unwrap();
    assert_eq!(kept, [in_memory(&whole), in_memory(&whole)]);
    assert!(fs::read_dir(store.verdicts_dir()).unwrap().count() == 1, "something was kept");
    effects::index(&mut tree, |path| path.ends_with("modules.weakdep"), None).unwrap();
    for name in MODULE_INDEXES.iter().filter(|name| **name != "modules.weakdep") {
        let theirs = fs::read(root.path().join(&directory).join(name)).unwrap();
        let ours = tree.file(&format!("{directory}/{name}")).unwrap();
        assert_eq!(String::from_utf8_lossy(ours), String::from_utf8_lossy(&theirs), "{name}");
        assert_eq!(ours, theirs, "{name}");
    }
    assert!(tree.file(&format!("{directory}/modules.weakdep")).is_none(), "what the recipe leaves out is left out");
}

#[test]
fn a_module_that_cannot_be_indexed_is_named() {
    let mut tree = tree_of(&[("usr/lib/modules/1/kernel/a.ko", "no module")]);
    let error = effects::index(&mut tree, |_| false, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the module-index effect: /usr/lib/modules/1/kernel/a.ko: it is no ELF file of 64 bits"
    );
    let mut tree = tree_of(&[]);
    for path in ["usr/lib/modules/1/a.ko", "usr/lib/modules/1/updates/a.ko"] {
        tree.insert(path, Node::file(support::module("a", "", &["alias=\u{e4}"]), 0o644, "test"));
    }
    tree.finish().unwrap();
    let error = effects::index(&mut tree, |_| false, None).unwrap_err();
    assert!(error.to_string().ends_with("the module \"a\" is there twice: a.ko and updates/a.ko"), "{error}");
    tree.retain(|path| !path.contains("updates"));
    let error = effects::index(&mut tree, |_| false, None).unwrap_err();
    assert!(error.to_string().contains("modules.alias.bin: \"\u{e4}\" cannot be indexed"), "{error}");
}

/// The links below `/etc/systemd` that systemctl makes in a tree, and those that we make.
fn enabled(systemctl: &Path, tree: &mut Tree) -> [BTreeMap<String, String>; 2] {
    tree.insert("usr/lib/systemd/systemd", Node::file(b"".to_vec(), 0o755, "test"));
    tree.finish().unwrap();
    let directory = tempfile::tempdir().unwrap();
    write(tree, directory.path());
    for words in [&["preset-all"][..], &["--global", "preset-all"]] {
        // It fails where a unit is masked, after it has done its work.
        let root = format!("--root={}", directory.path().display());
        Command::new(systemctl).arg(root).args(words).output().unwrap();
    }
    let links = |(path, text): (String, String)| {
        let text = text.strip_prefix("-> ").map(str::to_owned);
        path.starts_with("etc/systemd").then_some(path).zip(text)
    };
    let theirs = on_disk(directory.path()).into_iter().filter_map(links).collect();
    effects::index(tree, |_| false, None).unwrap();
    [theirs, in_memory(tree).into_iter().filter_map(links).collect()]
}

#[test]
fn units_are_enabled_as_systemctl_presets_them() {
    let Some(systemctl) = tool("systemctl") else { return };
    let unit = |name: &str, text: &str| (format!("usr/lib/systemd/system/{name}"), text.to_owned());
    let wanted = "[Install]\nWantedBy=a.target\n";
    let files = [
        unit(
            "plain.service",
            "[Unit]\nDescription=x\n[Service]\nExecStart=/x\n[Install]\nWantedBy=a.target  b.target\nWantedBy=c.target\n",
        ),
        unit("reset.service", "[Install]\nWantedBy=a.target\nWantedBy=\nRequiredBy=d.target\nUpheldBy=e.target\n"),
        unit("dropped.service", "[Service]\nExecStart=/x\n"),
        unit("dropped.service.d/10.conf", wanted),
        unit(
            "continued.service",
            "[Install]\nWantedBy=a.target \\\n  b.target\n# WantedBy=c.target\n;x\nAlias=other.service dbus-%N.service\n",
        ),
        unit("template@.service", "[Install]\nWantedBy=a.target\nDefaultInstance=one\nAlias=again@.service\n"),
        unit("without@.service", wanted),
        unit("instances@.service", "[Install]\nWantedBy=%i.target\n"),
        unit("also.service", "[Install]\nAlso=off.socket missing.service\nWantedBy=a.target\n"),
        unit("gone@.service", wanted),
        unit("off.socket", "[Install]\nWantedBy=sockets.target\n"),
        unit("off.timer", wanted),
        unit("named.service", "[Install]\nWantedBy=%p-%n.target\n"),
        unit("no-unit.txt", wanted),
        unit("empty.service", ""),
        unit("masked.service", wanted),
        unit("q1.service", wanted),
        unit("set1.service", wanted),
        unit("set3.service", wanted),
        unit("set4.service", wanted),
        unit("other1.service", wanted),
        unit("otherx.service", wanted),
        unit("class7.service", wanted),
        unit("class_.service", wanted),
        unit("classx.service", wanted),
        unit("elsewhere.service", wanted),
        ("etc/systemd/system/elsewhere.service".to_owned(), "[Install]\nWantedBy=etc.target\n".to_owned()),
        ("usr/lib/systemd/user/of-user.service".to_owned(), "[Install]\nWantedBy=default.target\n".to_owned()),
        ("usr/lib/systemd/user/not-of-user.service".to_owned(), "[Install]\nWantedBy=default.target\n".to_owned()),
        ("usr/lib/systemd/user-preset/50.preset".to_owned(), "disable not-*\n".to_owned()),
        (
            "usr/lib/systemd/system-preset/50.preset".to_owned(),
            "# x\nenable instances@.service one two\nignore plain.*\ndisable off.*\ndisable q?.service\n\
             disable set[0-24].service\ndisable other[!a-z].service\ndisable class[[:digit:]_].service\ndisable open[.service\n\
             disable gone@*\n"
                .to_owned(),
        ),
        ("usr/lib/systemd/system-preset/60.preset".to_owned(), "enable off.socket\n".to_owned()),
        ("usr/lib/systemd/system-preset/70.preset".to_owned(), "disable *\n".to_owned()),
        ("etc/systemd/system-preset/70.preset".to_owned(), "enable named.service\n".to_owned()),
    ];
    let mut tree = tree_of(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>());
    tree.insert("etc/systemd/system/masked.service", Node::symlink("/dev/null", "test"));
    tree.insert("usr/lib/systemd/system/alias.service", Node::symlink("plain.service", "test"));
    tree.insert("usr/lib/systemd/system/gone.service", Node::symlink("/opt/gone.service", "test"));
    // What packages brought enabled: some of it is to be disabled.
    for (link, target) in [
        ("a.target.wants/off.timer", "/usr/lib/systemd/system/off.timer"),
        ("b.target.requires/set4.service", "../../../../usr/lib/systemd/system/set4.service"),
        ("by-alias.service", "/usr/lib/systemd/system/q1.service"),
        ("a.target.wants/instances@three.service", "/usr/lib/systemd/system/instances@.service"),
        ("a.target.wants/gone@one.service", "/usr/lib/systemd/system/gone@.service"),
        ("z.target.wants/plain.service", "/usr/lib/systemd/system/plain.service"),
        ("z.target.wants/reset.service", "/usr/lib/systemd/system/reset.service"),
    ] {
        tree.insert(&format!("etc/systemd/system/{link}"), Node::symlink(target, "test"));
    }
    let [theirs, ours] = enabled(&systemctl, &mut tree);
    assert_eq!(ours, theirs);
    assert!(ours.len() > 15, "{ours:#?}");

    // All units of systemd and what comes with it.
    let Some(root) = judges_root() else { return };
    let mut tree = Tree::default();
    for directory in ["system", "user", "system-preset", "user-preset"] {
        take(&mut tree, &root, &format!("usr/lib/systemd/{directory}"));
    }
    let [theirs, ours] = enabled(&systemctl, &mut tree);
    assert_eq!(ours, theirs);
    assert!(ours.len() > 30, "{ours:#?}");
}
