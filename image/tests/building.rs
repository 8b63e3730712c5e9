//! Whole builds of a small image: the same bits every time, and nothing half-written whatever goes wrong.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use image::{BuildError, BuildRequest, Guest, Staged, build, compare_images};
use spec::manifest::{Manifest, artifact};
use spec::{Diagnostic as _, Outcome, Sha256Digest};
use support::{Deb, IMAGE_RECIPE, STATIC_PROGRAM, World, image_world, image_world_with};

fn built(world: &World, name: &str) -> Manifest {
    build(&world.request(&world.path(name)), &world.store).and_then(Staged::commit).unwrap()
}

fn fails(world: &World) -> BuildError {
    let output = world.path("out");
    let error = build(&world.request(&output), &world.store).map(|_| ()).unwrap_err();
    assert!(!output.exists());
    assert_eq!(leftovers(world), 0);
    error
}

/// Staging directories beside the output.
fn leftovers(world: &World) -> usize {
    let entries = std::fs::read_dir(world.directory.path()).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count()
}

#[test]
fn an_image_has_every_artifact_and_a_manifest_that_holds() {
    let world = image_world();
    let manifest = built(&world, "out");
    let out = world.path("out");
    store::verify(&out, &manifest).unwrap();
    let bytes = std::fs::read(out.join("manifest.json")).unwrap();
    assert_eq!(Manifest::parse("manifest.json", &bytes).unwrap(), manifest);
    assert_eq!(
        manifest.artifacts.keys().collect::<Vec<_>>(),
        ["cmdline", "firmware-snp.fd", "initrd", "rootfs", "vmlinuz"]
    );
    assert_eq!(std::fs::read(out.join(artifact::KERNEL)).unwrap(), b"a bzImage");
    assert_eq!(std::fs::read_to_string(out.join("recipe.lock")).unwrap(), world.lock_text);
    assert_eq!(manifest.lock_sha256, Sha256Digest::of(world.lock_text.as_bytes()));
    assert_eq!(manifest.guest.sha256, Sha256Digest::of(&STATIC_PROGRAM));
    let line = format!(
        "console=ttyS0 bullion.root={} bullion.salt={} bullion.blocks={}",
        manifest.verity.root_hash, manifest.verity.salt, manifest.verity.data_blocks
    );
    assert_eq!(std::fs::read_to_string(out.join("cmdline")).unwrap(), line);
    assert_eq!(leftovers(&world), 0);
}

#[test]
fn the_root_file_system_is_what_packages_effects_and_recipe_say() {
    let world = image_world();
    built(&world, "out");
    let rootfs = std::fs::read(world.path("out/rootfs")).unwrap();
    let nodes = image::erofs::read(&rootfs).unwrap();
    let content = |path: &str| nodes[path].content().unwrap();
    assert_eq!(content("etc/motd"), b"hello\n");
    assert_eq!(nodes["etc/motd"].mode & 0o7777, 0o600);
    assert_eq!(content("etc/localtime"), b"../usr/share/zoneinfo/UTC");
    assert_eq!(content("etc/ssl/certs/ca-certificates.crt"), b"CERTIFICATE\n");
    assert_eq!(content("etc/machine-id"), b"");
    assert_eq!(nodes["usr/bin/tool"].nid, nodes["usr/bin/same"].nid);
    assert_eq!(nodes["usr/bin/tool"].links, 2);
    assert!(nodes.contains_key("proc") && nodes.contains_key("etc/passwd"));
    assert!(!nodes.keys().any(|path| path.starts_with("usr/share/doc")));
}

#[test]
fn the_bits_do_not_depend_on_path_umask_jobs_or_cache() {
    let (first, second) = (image_world(), image_world());
    built(&first, "out");
    let a = first.path("out");
    // A warm cache, more threads, a longer path.
    std::fs::create_dir(second.path("elsewhere")).unwrap();
    for (name, jobs) in [("elsewhere/one", 1), ("elsewhere/seven", 7)] {
        let output = second.path(name);
        let request = BuildRequest { jobs, ..second.request(&output) };
        let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let staged = build(&request, &second.store);
        nix::sys::stat::umask(umask);
        staged.and_then(Staged::commit).unwrap();
        let differences = compare_images(&a, &output).unwrap();
        let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
        assert_eq!(output.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(output.join("rootfs").metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn differences_are_shown_file_by_file() {
    let world = image_world();
    built(&world, "a");
    let changed = image_world_with(
        &IMAGE_RECIPE.replace("0600", "0644").replace("hello", "goodbye").replace("\"dm_c\"", "\"b\""),
    );
    built(&changed, "b");
    let differences = compare_images(&world.path("a"), &changed.path("b")).unwrap();
    let text = differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for line in [
        "rootfs: /etc/motd: mode 100600 and 100644",
        "rootfs: /etc/motd: size 6 and 8",
        "initrd: /modules/dm_c.ko: only in the first image",
        "initrd: /etc/bullion/modules: size",
        "cmdline:",
        "manifest.json:",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("tool") && !text.contains("vmlinuz"), "{text}");
}

#[test]
fn a_recipe_gives_a_program_its_capabilities_under_all_its_names() {
    let recipe = |path: &str| {
        let entry = format!("[[rootfs.capabilities]]\npath = \"{path}\"\nset = \"cap_net_raw+ep\"\n[firmware.snp]");
        image_world_with(&IMAGE_RECIPE.replace("[firmware.snp]", &entry))
    };
    let (plain, given) = (image_world(), recipe("/usr/bin/tool"));
    built(&plain, "out");
    built(&given, "out");
    let rootfs = std::fs::read(given.path("out/rootfs")).unwrap();
    let nodes = image::erofs::read(&rootfs).unwrap();
    for name in ["usr/bin/tool", "usr/bin/same"] {
        let value = &nodes[name].xattrs().unwrap()["security.capability"];
        assert_eq!(spec::digest::encode_hex(value), "0100000200200000000000000000000000000000", "{name}");
    }
    let differences = compare_images(&plain.path("out"), &given.path("out")).unwrap();
    let text = differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let line = "rootfs: /usr/bin/tool: extended attributes none and security.capability=0x01000002";
    assert!(text.contains(line), "{text}");
    for missing in ["/usr/bin/none", "/usr/bin", "/bin/tool"] {
        assert!(fails(&recipe(missing)).to_string().contains("no regular file"), "{missing}");
    }
}

#[test]
fn an_output_that_is_there_is_kept_unless_it_is_to_be_replaced() {
    let world = image_world();
    built(&world, "out");
    let out = world.path("out");
    std::fs::write(out.join("mark"), "old").unwrap();
    let error = build(&world.request(&out), &world.store).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::OutputExists(_)));
    assert_eq!(error.outcome(), Outcome::Usage);
    assert!(error.hint().unwrap().contains("--replace"));
    assert!(out.join("mark").exists());

    let staged = build(&BuildRequest { replace: true, ..world.request(&out) }, &world.store).unwrap();
    assert!(out.join("mark").exists(), "the old image is there until the new one is committed");
    staged.commit().unwrap();
    assert!(!out.join("mark").exists());
    assert_eq!(leftovers(&world), 0);
}

#[test]
fn a_directory_that_is_no_image_is_never_replaced() {
    let world = image_world();
    let out = world.path("photos");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("cat.jpg"), "cat").unwrap();
    let error = build(&BuildRequest { replace: true, ..world.request(&out) }, &world.store).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::NotReplaceable(_)), "{error}");
    // Without it, nothing that will not be done is advised.
    let error = build(&world.request(&out), &world.store).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::NotReplaceable(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::Usage);
    assert_eq!(error.hint().unwrap(), "choose another output directory");
    assert!(out.join("cat.jpg").exists());
    // Many programs have a manifest.json.
    for foreign in ["{\"manifest_version\": 3, \"name\": \"an extension\"}", "[]", "", "{\"schema\": 1}"] {
        std::fs::write(out.join("manifest.json"), foreign).unwrap();
        for replace in [false, true] {
            let request = BuildRequest { replace, ..world.request(&out) };
            let error = build(&request, &world.store).map(|_| ()).unwrap_err();
            assert!(matches!(error, BuildError::OutputDamaged { .. }), "{error}");
            assert_eq!(error.outcome(), Outcome::Usage);
            let hint = error.hint().unwrap();
            assert!(hint.contains("by hand") && !hint.contains("--replace"), "{hint}");
            assert!(out.join("cat.jpg").exists());
        }
    }
}

#[test]
fn an_image_is_replaced_if_an_artifact_is_damaged_and_kept_if_its_manifest_is() {
    let world = image_world();
    built(&world, "out");
    let out = world.path("out");
    let replace = || build(&BuildRequest { replace: true, ..world.request(&out) }, &world.store);
    std::fs::write(out.join(artifact::ROOTFS), "damaged").unwrap();
    std::fs::remove_file(out.join(artifact::KERNEL)).unwrap();
    let manifest = replace().and_then(Staged::commit).unwrap();
    store::verify(&out, &manifest).unwrap();
    let bytes = std::fs::read(out.join("manifest.json")).unwrap();
    std::fs::write(out.join("manifest.json"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(replace().map(|_| ()).unwrap_err(), BuildError::OutputDamaged { .. }));
    // It is looked at again just before it would go.
    std::fs::write(out.join("manifest.json"), &bytes).unwrap();
    let staged = replace().unwrap();
    std::fs::write(out.join("manifest.json"), "").unwrap();
    assert!(matches!(staged.commit().unwrap_err(), BuildError::OutputDamaged { .. }));
    assert!(out.join(artifact::ROOTFS).exists());
    assert_eq!(leftovers(&world), 0);
}

#[test]
fn a_manifest_that_no_reader_would_take_is_not_written() {
    let world = image_world();
    let mut staged = build(&world.request(&world.path("out")), &world.store).unwrap();
    staged.manifest.name = "a\u{1b}[2Jb".to_owned();
    let error = staged.commit().unwrap_err();
    assert!(matches!(&error, BuildError::ManifestContent(source) if source.to_string().contains("\\u{1b}")), "{error}");
    assert!(!world.path("out").exists());
    assert_eq!(leftovers(&world), 0);
}

#[test]
fn a_guest_that_cannot_start_is_refused_before_anything_is_written() {
    let world = image_world();
    let output = world.path("out");
    let guest = Guest { bytes: b"#!/bin/sh\n", component: None };
    let error = build(&BuildRequest { guest, ..world.request(&output) }, &world.store).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::Guest { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Usage);
    assert!(error.hint().unwrap().contains("build it with scripts/build-guest"));
    assert!(!output.exists());
    assert_eq!(leftovers(&world), 0);
}

#[test]
fn the_guest_that_the_script_builds_is_taken() {
    let path = std::env::var_os("BULLION_GUEST").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/bullion-guest"),
        std::path::PathBuf::from,
    );
    let Ok(bytes) = std::fs::read(path) else {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: scripts/build-guest has not been run");
        return;
    };
    let world = image_world();
    let guest = Guest { bytes: &bytes, component: None };
    let output = world.path("out");
    let staged = build(&BuildRequest { guest, ..world.request(&output) }, &world.store).unwrap();
    assert_eq!(staged.manifest.guest.sha256, Sha256Digest::of(&bytes));
}

#[test]
fn an_artifact_that_is_a_pipe_or_a_device_is_refused_without_waiting() {
    let world = image_world();
    built(&world, "good");
    let manifest = built(&world, "out");
    let rootfs = world.path("out/rootfs");
    let refused = || {
        let error = store::verify(&world.path("out"), &manifest).unwrap_err();
        assert_eq!(error.outcome(), Outcome::InputMismatch);
        assert!(error.to_string().contains("rootfs is not a regular file"), "{error}");
        assert!(store::hash_file(&rootfs).is_err());
        assert!(compare_images(&world.path("out"), &world.path("good")).is_err());
    };
    std::fs::remove_file(&rootfs).unwrap();
    nix::unistd::mkfifo(&rootfs, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused();
    std::fs::remove_file(&rootfs).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &rootfs).unwrap();
    refused();
    std::fs::remove_file(&rootfs).unwrap();
    // More zeros than anybody would wait for: told from its size alone.
    std::fs::File::create(&rootfs).unwrap().set_len(1 << 42).unwrap();
    let error = store::verify(&world.path("out"), &manifest).unwrap_err();
    assert!(error.to_string().contains(&format!("found {}", 1u64 << 42)), "{error}");
}

#[test]
fn two_builds_of_one_output_at_once_are_refused_and_a_dead_one_is_cleared() {
    let world = image_world();
    let out = world.path("out");
    let staged = build(&world.request(&out), &world.store).unwrap();
    let error = build(&world.request(&out), &world.store).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::OutputBusy(_)), "{error}");
    // Like a killed process: the lock goes, the directory stays.
    let remains = staged.directory().to_owned();
    drop(staged);
    std::fs::create_dir(&remains).unwrap();
    std::fs::write(remains.join("rootfs"), "half").unwrap();
    built(&world, "out");
    assert_eq!(leftovers(&world), 0);
    assert!(!out.join("half").exists());
}

#[test]
fn a_build_that_is_not_committed_leaves_nothing() {
    let world = image_world();
    for output in [world.path("out"), world.path("new/out")] {
        let staged = build(&world.request(&output), &world.store).unwrap();
        assert!(staged.artifact_path(artifact::ROOTFS).is_file());
        drop(staged);
        assert_eq!(leftovers(&world), 0);
        assert!(!output.exists() && !world.path("new").exists());
    }
}

#[test]
fn the_manifest_says_what_the_caller_made_of_it() {
    let world = image_world();
    let mut staged = build(&world.request(&world.path("out")), &world.store).unwrap();
    staged.manifest.name = "renamed".to_owned();
    staged.commit().unwrap();
    let bytes = std::fs::read(world.path("out/manifest.json")).unwrap();
    assert_eq!(Manifest::parse("manifest.json", &bytes).unwrap().name, "renamed");
}

#[test]
fn a_lock_of_another_recipe_is_refused() {
    let mut world = image_world();
    world.recipe = image_world_with(&IMAGE_RECIPE.replace("\"other\"]", "\"other\", \"more\"]")).recipe;
    let error = fails(&world);
    assert!(matches!(error, BuildError::OtherRecipe { .. }));
    assert_eq!((error.outcome(), error.hint().unwrap().contains("bullion lock")), (Outcome::Usage, true));
}

#[test]
fn inputs_that_are_missing_damaged_or_swapped_are_input_mismatches() {
    let mut world = image_world();
    let package = &world.lock.package[0];
    let blob = world.store.blob_path(&package.sha256);
    let good = std::fs::read(&blob).unwrap();
    for bad in [None, Some(good[..good.len() / 2].to_vec()), Some(vec![0; good.len()])] {
        match bad {
            Some(bytes) => std::fs::write(&blob, bytes).unwrap(),
            None => std::fs::remove_file(&blob).unwrap(),
        }
        let error = fails(&world);
        assert_eq!(error.outcome(), Outcome::InputMismatch, "{error}");
        assert!(error.to_string().contains("base-files"), "{error}");
        assert!(error.hint().is_some());
    }
    // The right hash of the wrong package.
    std::fs::write(&blob, good).unwrap();
    world.lock.package[0].version = "2.0-1".to_owned();
    let error = fails(&world);
    assert!(matches!(error, BuildError::OtherPackage { .. }), "{error}");
}

#[test]
fn what_the_recipe_asks_for_and_nobody_has_is_a_usage_error() {
    for (from, to, word) in [
        ("/usr/share/ovmf/OVMF.fd", "/usr/share/ovmf/none.fd", "has no file /usr/share/ovmf/none.fd"),
        ("\"dm_c\"", "\"dm_d\"", "no module \"dm_d\""),
        ("\"/usr/share/doc/**\"", "\"/usr/**/doc\"", "\"**\" elsewhere"),
        ("console=ttyS0", &"x".repeat(2000), "command line has"),
        ("path = \"/etc/motd\"", "path = \"/usr\"", "would replace a directory"),
    ] {
        let error = fails(&image_world_with(&IMAGE_RECIPE.replace(from, to)));
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.outcome(), Outcome::Usage, "{error}");
    }
}

#[test]
fn source_files_must_have_the_digest_of_the_recipe() {
    let source = format!("source = \"extra\"\nsha256 = \"{}\"", Sha256Digest::of(b"extra"));
    let world = image_world_with(&IMAGE_RECIPE.replace("content = \"hello\\n\"", &source));
    assert!(matches!(fails(&world), BuildError::Overlay(error) if error.outcome() == Outcome::Usage));
    std::fs::write(world.path("extra"), "other").unwrap();
    assert_eq!(fails(&world).outcome(), Outcome::InputMismatch);
    std::fs::write(world.path("extra"), "extra").unwrap();
    built(&world, "out");
}

#[test]
fn a_kept_initrd_that_was_tampered_with_is_not_used() {
    let world = image_world();
    let good = built(&world, "a").artifacts[artifact::INITRD].clone();
    let forged = image::initrd::compress(b"something else").unwrap();
    let sha256 = world.store.insert_bytes(&forged).unwrap();
    let note = std::fs::read_dir(world.store.verdicts_dir()).unwrap().next().unwrap().unwrap().path();
    std::fs::write(note, format!("{sha256} {}\n", forged.len())).unwrap();
    assert_eq!(built(&world, "b").artifacts[artifact::INITRD], good);
}

#[test]
fn a_full_disk_says_so_and_leaves_nothing() {
    let world = image_world();
    let small = world.path("small");
    std::fs::create_dir(&small).unwrap();
    let flags = nix::mount::MsFlags::empty();
    if nix::mount::mount(Some("none"), &small, Some("tmpfs"), flags, Some("size=12k")).is_err() {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: mounting a small file system needs privileges");
        return;
    }
    let result = build(&world.request(&small.join("out")), &world.store).map(|_| ());
    let left = std::fs::read_dir(&small).unwrap().count();
    nix::mount::umount(&small).unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.outcome(), Outcome::HostCannot, "{error}");
    assert!(error.hint().unwrap().contains("disk is full"));
    assert_eq!(left, 0);
}

#[test]
fn a_changed_artifact_is_found() {
    let world = image_world();
    let manifest = built(&world, "out");
    let rootfs = world.path("out/rootfs");
    let mut bytes = std::fs::read(&rootfs).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&rootfs, &bytes).unwrap();
    let error = store::verify(&world.path("out"), &manifest).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    assert!(text.contains("rootfs") && text.contains(&manifest.artifacts["rootfs"].sha256.to_string()), "{text}");
    assert!(text.contains(&Sha256Digest::of(&bytes).to_string()), "{text}");
    std::fs::write(&rootfs, "short").unwrap();
    assert!(store::verify(&world.path("out"), &manifest).unwrap_err().to_string().contains("found 5"));
}

#[test]
fn firmware_without_a_variable_store_cannot_be_made_keyless() {
    let world = image_world_with(&format!("{IMAGE_RECIPE}derive = \"without-keys\"\n"));
    let error = fails(&world);
    assert!(matches!(error, BuildError::Derive { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Usage);
    assert!(error.hint().is_some_and(|hint| hint.contains("derive")));
}

#[test]
fn a_command_line_that_the_kernel_would_cut_is_refused() {
    let with = |length: usize| {
        let word = "x".repeat(length);
        image_world_with(&IMAGE_RECIPE.replace("\"console=ttyS0\"", &format!("\"console=ttyS0\", \"{word}\"")))
    };
    built(&with(1500), "out");
    let error = fails(&with(2000));
    assert!(matches!(error, BuildError::CommandLine { .. }), "{error}");
    assert!(error.to_string().contains("the kernel takes 2047"), "{error}");
    assert_eq!(error.outcome(), Outcome::Usage);
    assert!(error.hint().unwrap().contains("kernel.command_line"));
}

#[test]
fn packages_that_a_build_kept_make_the_same_image_and_damaged_ones_make_none() {
    let mut world = image_world();
    let noise: Vec<u8> = (0..8_000u32).flat_map(|number| Sha256Digest::of(&number.to_le_bytes()).0).collect();
    let deb = Deb::new("other").file("./usr/lib/noise", noise).build();
    let locked = world.lock.package.iter_mut().find(|package| package.name == "other").unwrap();
    (locked.sha256, locked.size) = (world.store.insert_bytes(&deb).unwrap(), deb.len() as u64);
    let sha256 = locked.sha256;
    world.lock_text = world.lock.to_text().unwrap();
    let build = |name: &str, believe_cache: bool| {
        let output = world.path(name);
        build(&BuildRequest { believe_cache, ..world.request(&output) }, &world.store).and_then(Staged::commit)
    };
    let first = build("first", false).unwrap();
    assert_eq!(build("keeping", true).unwrap(), first);
    // Without the locked package, what was kept is all there is: enough for those who may believe it.
    world.store.discard(&sha256).unwrap();
    assert_eq!(build("kept", true).unwrap(), first);
    assert!(matches!(build("not kept", false).unwrap_err(), BuildError::Store { .. }));
    world.store.insert_bytes(&deb).unwrap();
    let mut notes = std::fs::read_dir(world.store.verdicts_dir()).unwrap().map(|entry| entry.unwrap().path());
    let note = notes.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("repacked-")).unwrap();
    let kept: Sha256Digest = std::fs::read_to_string(&note).unwrap().split_once(' ').unwrap().0.parse().unwrap();
    let path = world.store.blob_path(&kept);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(build("damaged", true).unwrap(), first);
    // A package of another name is not taken for this one.
    let other = Deb::new("base-files").build();
    let other_sha256 = world.store.insert_bytes(&other).unwrap();
    std::fs::write(&note, format!("{other_sha256} {}\n", other.len())).unwrap();
    assert_eq!(build("swapped", true).unwrap(), first);
}
