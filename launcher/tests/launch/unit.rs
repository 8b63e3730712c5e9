//! Units as text; what systemd says about them is asked in `e2e` `unit`.

use std::path::{Path, PathBuf};

use launcher::unit::{Unit, file_name};
use spec::Diagnostic;
use spec::vm::Vm;

use crate::fixture::vm;
use crate::golden::agrees_at;

fn unit(vm: &Vm, image: &str, words: &[&str]) -> Unit<'static> {
    let leak = |path: &str| Box::leak(PathBuf::from(path).into_boxed_path()) as &Path;
    Unit {
        vm: Box::leak(Box::new(vm.clone())),
        description: leak("/etc/bullion/vms/vm.toml"),
        image: leak(image),
        program: leak("/usr/bin/bullion"),
        words: Box::leak(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into_boxed_slice()),
        cache: leak("/var/cache/bullion"),
        reads: &[],
    }
}

fn agrees(name: &str, unit: &Unit<'_>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launch/golden").join(format!("{name}.service"));
    agrees_at(&path, &unit.text().unwrap());
}

#[test]
fn a_unit_allows_what_the_description_asks_for() {
    agrees("plain", &unit(&vm("none", "accelerator = \"tcg\""), "/var/lib/bullion/images/minimal", &[]));
    let more = "limits = { memory = \"1GiB\", cpu_percent = 250, threads = 64 }\nready_timeout_s = 300\nrestart = { policy = \"always\" }\nvsock = {}\n\
        nic = [{ bridge = \"br0\" }]\npci = [{ address = \"0000:c1:00.0\" }]\n\
        [[host.volume]]\nname = \"tmp\"\npath = \"/dev/disk/by-id/nvme-one\"\n\
        [[host.volume]]\nname = \"data\"\npath = \"/images/data.erofs\"\n\
        [[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/tmp\"\n\
        [[guest.volume]]\nname = \"data\"\nuse = \"archive\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\nsize_bytes = 10485760\n";
    let snp = vm("snp", more);
    agrees("everything", &unit(&snp, "/run/user/1000/minimal", &["--trust", "/etc/bullion/keys"]));
}

#[test]
fn what_would_mean_something_else_in_a_unit_is_refused() {
    for word in ["/a b", "/a%n", "/a$HOME", "/a\nExecStart=/bin/sh", "-rf", "/a\"b", "/a:b", ""] {
        let error = unit(&vm("none", ""), "/image", &[word]).text().unwrap_err();
        assert!(error.hint().is_some(), "{word}");
    }
    assert_eq!(file_name("web"), "bullion@web.service");
}
