//! What components make of an image beside guest and kernel, and NVIDIA's driver, whose parts must be of one version wherever they come from.

mod support;

use std::collections::BTreeMap;

use image::{BuildError, BuildRequest, CompiledPart, Staged, build};
use spec::component::{Component, ComponentInputs};
use spec::lock::{Standing, Use};
use spec::manifest::{Artifact, Manifest};
use spec::{Diagnostic as _, Outcome, Sha256Digest};
use support::{Deb, IMAGE_RECIPE, KERNEL, World};

const RECIPE: &str = "components/driver.toml";

/// The image, and why it is of class dev.
fn built_with(world: &World, parts: &[CompiledPart]) -> Result<(Manifest, Vec<String>), BuildError> {
    let output = world.path("out");
    let request = BuildRequest { parts, replace: true, ..world.request(&output) };
    let mut staged: Staged = build(&request, &world.store)?;
    let open = std::mem::take(&mut staged.open_origins);
    Ok((staged.commit()?, open))
}

fn built(world: &World) -> Result<Manifest, BuildError> {
    built_with(world, &[]).map(|(manifest, _)| manifest)
}

/// What a component with these outputs gives to the image of `world`.
fn part(world: &World, standing: Standing, outputs: &[(&str, Vec<u8>)]) -> CompiledPart {
    let inputs = ComponentInputs {
        name: "driver".to_owned(),
        sandbox: 1,
        script: "make".to_owned(),
        outputs: outputs.iter().map(|(name, _)| (*name).to_owned()).collect(),
        packages: Vec::new(),
        crates: Vec::new(),
        sources: Vec::new(),
        files: BTreeMap::new(),
    };
    let artifact = |bytes: &[u8]| Artifact { size: bytes.len() as u64, sha256: Sha256Digest::of(bytes) };
    let component = Component {
        key: inputs.key().unwrap(),
        lock_sha256: Sha256Digest::of(b"lock"),
        standing,
        inputs,
        outputs: outputs.iter().map(|(name, bytes)| ((*name).to_owned(), artifact(bytes))).collect(),
    };
    let taken = CompiledPart::taken(world.recipe.image.as_ref().unwrap(), RECIPE, &component);
    let files = outputs.iter().filter(|(name, _)| taken.contains(name));
    let files = files.map(|(name, bytes)| ((*name).to_owned(), bytes.clone().into())).collect();
    CompiledPart { recipe: RECIPE.to_owned(), component, files }
}

/// A world whose image has these files of the component, by output and path, and these modules from its root.
fn world(files: &[(&str, &str)], modules: &str) -> World {
    let entry = |(output, path): &(&str, &str)| {
        format!(
            "[[rootfs.component]]\nrecipe = \"{RECIPE}\"\noutput = \"{output}\"\npath = \"{path}\"\nmode = \"0755\"\n"
        )
    };
    let entries: String = files.iter().map(entry).collect();
    let kernel = format!("{modules}boot_modules =");
    support::image_world_with(&(IMAGE_RECIPE.replace("boot_modules =", &kernel) + &entries))
}

#[test]
fn files_of_a_component_are_in_the_root_file_system_and_the_component_in_the_manifest() {
    let world = world(&[("smi", "/usr/bin/smi")], "");
    let outputs = [("smi", b"a program".to_vec()), ("x.ko", b"no module".to_vec()), ("log", b"others".to_vec())];
    let part = part(&world, Standing::Published, &outputs);
    assert_eq!(part.files.keys().collect::<Vec<_>>(), ["smi"], "a module is taken where the recipe asks for modules");
    let (manifest, open) = built_with(&world, std::slice::from_ref(&part)).unwrap();
    assert!(!open.iter().any(|why| why.contains(RECIPE)), "{open:?}");
    assert_eq!(manifest.components, std::slice::from_ref(&part.component));
    let rootfs = std::fs::read(world.path("out/rootfs")).unwrap();
    let nodes = image::erofs::read(&rootfs).unwrap();
    let node = &nodes["usr/bin/smi"];
    assert_eq!((node.mode & 0o7777, node.size), (0o755, 9));
    assert!(!nodes.contains_key("usr/bin/log"));

    let unpublished = CompiledPart {
        component: Component { standing: Standing::Unpublished, ..part.component.clone() },
        ..part.clone()
    };
    let (_, open) = built_with(&world, &[unpublished]).unwrap();
    assert!(open.contains(&format!("the lock of {RECIPE} is unpublished")), "{open:?}");

    for parts in [Vec::new(), vec![CompiledPart { files: BTreeMap::new(), ..part }]] {
        let error = built_with(&world, &parts).unwrap_err();
        let expected =
            format!("the file /usr/bin/smi in [rootfs] is the output smi of {RECIPE}, which makes no such file");
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(error.outcome(), Outcome::Usage);
    }
}

#[test]
fn a_driver_of_one_component_holds_together() {
    let modules = format!("module_components = [\"{RECIPE}\"]\nroot_modules = [\"nvidia\"]\n");
    let firmware = ("gsp_ga10x.bin", "/usr/lib/firmware/nvidia/580.95.05/gsp_ga10x.bin");
    let library = ("libcuda.so.580.95.05", "/usr/lib/libcuda.so.580.95.05");
    let world = world(&[firmware, library], &modules);
    let outputs = |version: &str| {
        [
            ("nvidia.ko", support::module("nvidia", "", &["version=580.95.05"])),
            ("gsp_ga10x.bin", support::elf(".fwversion", format!("{version}\0").as_bytes())),
            ("libcuda.so.580.95.05", b"ELF".to_vec()),
        ]
    };
    let own = part(&world, Standing::Published, &outputs("580.95.05"));
    let (manifest, open) = built_with(&world, std::slice::from_ref(&own)).unwrap();
    assert_eq!(manifest.components, [own.component], "once, although it gives modules and files");
    assert!(open.iter().any(|why| why.contains("the distribution's")), "{open:?}");
    let error = built_with(&world, &[part(&world, Standing::Published, &outputs("580.105.08"))]).unwrap_err();
    let expected = format!("(gsp_ga10x.bin of {RECIPE}) of 580.105.08");
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(error.outcome(), Outcome::Refused);
}

#[test]
fn a_driver_whose_parts_are_of_two_versions_is_refused() {
    let recipe = IMAGE_RECIPE.replace("boot_modules =", "root_modules = [\"nvidia\", \"nvidia_uvm\"]\nboot_modules =");
    let world = |uvm: &str, library: &str, firmware: Option<(&str, Vec<u8>)>| {
        let at = |name: &str| format!("./usr/lib/modules/{KERNEL}/updates/{name}.ko");
        let kernel = support::kernel_package(Deb::new("linux"))
            .file(&at("nvidia"), support::module("nvidia", "", &["version=550.163.01"]))
            .file(&at("nvidia-uvm"), support::module("nvidia_uvm", "nvidia", &[uvm]));
        let base = Deb::new("base-files").directory("./usr/").file(&format!("./usr/lib/{library}"), "ELF");
        let gsp = |version: &str| format!("./usr/lib/firmware/nvidia/{version}/gsp_ga10x.bin");
        let other = firmware.map_or(Deb::new("other"), |(version, elf)| Deb::new("other").file(&gsp(version), elf));
        let ovmf = Deb::new("ovmf").file("./usr/share/ovmf/OVMF.fd", vec![0xea; 4096]);
        let packages = [
            ("base-files", &[Use::Tree][..], base.build()),
            ("linux", &[Use::Kernel], kernel.build()),
            ("other", &[Use::Tree], other.build()),
            ("ovmf", &[Use::Firmware], ovmf.build()),
        ];
        World::new(&recipe, &packages)
    };
    let gsp = |version: &str| support::elf(".fwversion", format!("{version}\0").as_bytes());
    let fits = || Some(("550.163.01", gsp("550.163.01")));
    let (same, libcuda) = ("version=550.163.01", "libcuda.so.550.163.01");
    for library in [libcuda, "libnvidia-ml.so.1", "libnvidia-egl-wayland.so.1.1.17"] {
        built(&world(same, library, fits())).unwrap();
    }
    for (uvm, library, firmware, words) in [
        (same, "libcuda.so.570.124.03", fits(), "/usr/lib/libcuda.so.570.124.03 (base-files) of 570.124.03"),
        (
            same,
            libcuda,
            Some(("535.54.03", gsp("535.54.03"))),
            "/usr/lib/firmware/nvidia/535.54.03/gsp_ga10x.bin (other) of 535.54.03",
        ),
        (
            "version=550.90.07",
            libcuda,
            fits(),
            "the module nvidia is of 550.163.01, the module nvidia_uvm of 550.90.07",
        ),
        ("alias=x", libcuda, fits(), "the module nvidia_uvm of NVIDIA's driver does not say its version"),
        // The right directory, and what another driver would load.
        (same, libcuda, Some(("550.163.01", gsp("570.124.03"))), "/gsp_ga10x.bin (other) of 570.124.03"),
        (same, libcuda, Some(("550.163.01", support::elf(".fwversion", b"550.163.01"))), "in a section .fwversion"),
        (same, libcuda, Some(("550.163.01", b"GSP".to_vec())), "in a section .fwversion"),
        (same, libcuda, None, "there is nothing in /usr/lib/firmware/nvidia/550.163.01"),
    ] {
        let error = built(&world(uvm, library, firmware)).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Refused);
        assert!(error.to_string().contains(words), "{error}");
    }
}
