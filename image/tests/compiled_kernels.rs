//! Images whose kernel a component compiled: what of it is taken, and which kernels are refused.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use image::{BuildError, BuildRequest, CompiledKernel, build};
use proptest::prelude::*;
use spec::component::{Component, ComponentInputs};
use spec::lock::Standing;
use spec::manifest::{AcpiAdmission, Artifact, Manifest, artifact};
use spec::recipe::kernel_output;
use spec::{Diagnostic as _, Outcome, Sha256Digest};
use support::{IMAGE_RECIPE, World, image_world_with};

/// Three lines that the table speaks of, and what no kernel can be without.
const CONFIG: &str = "CONFIG_SMP=y
CONFIG_PANIC_TIMEOUT=-1
# CONFIG_KEXEC is not set
CONFIG_ACPI_ADMISSION=y
CONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y
CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y
CONFIG_STRICT_KERNEL_RWX=y
CONFIG_PANIC_ON_OOPS=y
";
const TABLE: &str = r#"schema = 1
option = [
    { name = "SMP", value = "y", why = "for speed", source = "own" },
    { name = "KEXEC", value = "n", why = "another kernel", source = "own" },
    { name = "PANIC_TIMEOUT", value = "-1", why = "gone at once", source = "own" },
]
"#;

fn world() -> World {
    image_world_with(&IMAGE_RECIPE.replace("[kernel]", "[kernel]\ncomponent = \"components/kernel.toml\""))
}

/// What a component with this configuration leaves.
fn outputs(config: &str) -> BTreeMap<String, Vec<u8>> {
    let built_in = "kernel/virtio_pci.ko\nkernel/dm-c.ko\nkernel/wisher.ko\n";
    [
        (kernel_output::KERNEL, "compiled"),
        (kernel_output::RELEASE, "7.3.4\n"),
        (kernel_output::BUILT_IN, built_in),
        (kernel_output::CONFIGURATION, config),
        (kernel_output::HARDENING, TABLE),
    ]
    .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
    .into()
}

fn component(outputs: &BTreeMap<String, Vec<u8>>) -> Component {
    let inputs = ComponentInputs {
        name: "kernel".to_owned(),
        sandbox: 1,
        script: "make".to_owned(),
        outputs: outputs.keys().cloned().collect(),
        packages: Vec::new(),
        crates: Vec::new(),
        sources: Vec::new(),
        files: BTreeMap::new(),
    };
    let artifact = |bytes: &Vec<u8>| Artifact { size: bytes.len() as u64, sha256: Sha256Digest::of(bytes) };
    Component {
        key: inputs.key().unwrap(),
        lock_sha256: Sha256Digest::of(b"lock"),
        standing: Standing::Published,
        inputs,
        outputs: outputs.iter().map(|(name, bytes)| (name.clone(), artifact(bytes))).collect(),
    }
}

fn built(
    world: &World,
    kernel: Option<CompiledKernel<'_>>,
    output: &Path,
) -> Result<(Manifest, Vec<String>), BuildError> {
    let request = BuildRequest { kernel, ..world.request(output) };
    let mut staged = build(&request, &world.store)?;
    let open = std::mem::take(&mut staged.open_origins);
    Ok((staged.commit()?, open))
}

#[test]
fn the_compiled_kernel_takes_the_place_of_the_packages() {
    let world = world();
    let outputs = outputs(CONFIG);
    let component = component(&outputs);
    let digests = vec![Sha256Digest([1; 32]), Sha256Digest([0xab; 32])];
    let lock = Sha256Digest::of(b"lock of QEMU");
    let admitted = AcpiAdmission { qemu_version: "11.1.0".to_owned(), qemu_lock_sha256: lock, digests };
    let kernel = CompiledKernel { component: &component, outputs: &outputs, acpi: Some(&admitted) };
    let (manifest, open) = built(&world, Some(kernel), &world.path("own")).unwrap();
    assert_eq!(std::fs::read(world.path("own/vmlinuz")).unwrap(), b"compiled");
    assert_eq!(std::fs::read(world.path("own/kernel.config")).unwrap(), CONFIG.as_bytes());
    assert_eq!(std::fs::read(world.path("own/kernel.hardening.toml")).unwrap(), TABLE.as_bytes());
    assert!(manifest.documents.contains_key("kernel.config"));
    assert_eq!((manifest.kernel_version.as_str(), manifest.components.len()), ("7.3.4", 1));
    assert!(manifest.inputs.iter().all(|package| package.name != "linux"), "the package has no part in it");
    let word = format!(" bullion.acpi={},{} bullion.root=", "01".repeat(32), "ab".repeat(32));
    assert!(manifest.command_line.contains(&word), "{}", manifest.command_line);
    assert_eq!(manifest.acpi, Some(admitted.clone()));
    assert!(!open.iter().any(|why| why.contains("kernel")), "{open:?}");

    let (packaged, open) = built(&world, None, &world.path("packaged")).unwrap();
    assert!(packaged.inputs.iter().any(|package| package.name == "linux"));
    assert!(!packaged.command_line.contains("bullion.acpi"));
    assert!(open.iter().any(|why| why.contains("the kernel is the distribution's")), "{open:?}");
    let initrd = |manifest: &Manifest| manifest.artifacts[artifact::INITRD].size;
    assert!(initrd(&manifest) < initrd(&packaged), "what is built in is not carried");

    let unchecked = CompiledKernel { acpi: None, ..kernel };
    let (manifest, _) = built(&world, Some(unchecked), &world.path("unchecked")).unwrap();
    assert!(manifest.command_line.contains(" bullion.acpi=unchecked "), "{}", manifest.command_line);
}

#[test]
fn modules_that_were_compiled_with_the_kernel_are_admitted_by_name() {
    let recipe =
        |modules: &str| IMAGE_RECIPE.replace("boot_modules =", &format!("root_modules = [{modules}]\nboot_modules ="));
    let module = |name: &str, needs: &str| support::module_for("7.3.4", name, needs, &[]);
    let mut outputs = outputs(&format!("{CONFIG}CONFIG_MODULES=y\nCONFIG_MODULE_ADMISSION=y\n"));
    let (first, second) = (module("first", ""), module("second", "first"));
    outputs.insert("first.ko".to_owned(), first.clone());
    outputs.insert("second.ko".to_owned(), second.clone());
    let built_of = |outputs: &BTreeMap<String, Vec<u8>>, modules: &str| {
        let (world, component) = (image_world_with(&recipe(modules)), component(outputs));
        let kernel = CompiledKernel { component: &component, outputs, acpi: None };
        let (manifest, _) = built(&world, Some(kernel), &world.path("out"))?;
        let rootfs = std::fs::read(world.path("out/rootfs")).unwrap();
        let paths: Vec<String> = image::erofs::read(&rootfs).unwrap().into_keys().collect();
        Ok::<_, BuildError>((manifest.command_line, paths))
    };
    let word = |line: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix("bullion.modules="))?;
        Some(word.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let (line, paths) = built_of(&outputs, "\"second\"").unwrap();
    let mut expected = [Sha256Digest::of(&first).to_string(), Sha256Digest::of(&second).to_string()];
    expected.sort();
    assert_eq!(word(&line).unwrap(), expected, "{line}");
    for path in ["first.ko", "second.ko"] {
        assert!(paths.contains(&format!("usr/lib/modules/7.3.4/updates/{path}")), "{path}");
    }
    assert!(paths.contains(&"usr/lib/modules/7.3.4/modules.builtin".to_owned()));
    let (line, paths) = built_of(&outputs, "\"first\"").unwrap();
    assert_eq!(word(&line).unwrap(), [Sha256Digest::of(&first).to_string()], "what is not loaded is not admitted");
    assert!(!paths.contains(&"usr/lib/modules/7.3.4/updates/second.ko".to_owned()));
    let (line, _) = built_of(&outputs, "").unwrap();
    assert_eq!(word(&line), None, "{line}");

    outputs.insert("second.ko".to_owned(), support::module_for("7.3.5", "second", "", &[]));
    let error = built_of(&outputs, "").map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("7.3.5"), "{error}");
    outputs.insert("second.ko".to_owned(), second);
    outputs.insert(kernel_output::CONFIGURATION.to_owned(), format!("{CONFIG}CONFIG_MODULES=y\n").into_bytes());
    let error = built_of(&outputs, "\"first\"").map(|_| ()).unwrap_err();
    let expected = "CONFIG_MODULE_ADMISSION is n, expected y: of modules, only those that the command line names";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_kernel_that_does_not_keep_to_its_table_is_refused_line_by_line() {
    let world = world();
    let config = CONFIG.replace("# CONFIG_KEXEC is not set", "CONFIG_KEXEC=y").replace("CONFIG_SMP=y\n", "");
    let outputs = outputs(&config);
    let component = component(&outputs);
    let kernel = CompiledKernel { component: &component, outputs: &outputs, acpi: None };
    let error = built(&world, Some(kernel), &world.path("out")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Refused);
    assert_eq!(
        error.to_string(),
        "the kernel of component \"kernel\" is not hardened as its table, or the floor that no table lowers, asks:\
         \n  CONFIG_SMP is n, expected y: for speed\
         \n  CONFIG_KEXEC is y, expected n: another kernel"
    );
    assert!(error.hint().unwrap().contains("Kconfig takes an option back"));
    assert!(!world.path("out").exists());
}

#[test]
fn files_that_the_component_did_not_make_are_refused() {
    let world = world();
    let outputs = outputs(CONFIG);
    let component = component(&outputs);
    for name in kernel_output::ALL {
        let mut other = outputs.clone();
        other.get_mut(name).unwrap().push(b'\n');
        let mut less = outputs.clone();
        less.remove(name);
        for outputs in [&other, &less] {
            let kernel = CompiledKernel { component: &component, outputs, acpi: None };
            let error = built(&world, Some(kernel), &world.path("out")).unwrap_err();
            assert!(matches!(&error, BuildError::OtherKernel { output, .. } if output == name), "{error}");
        }
    }
    let mut damaged = outputs;
    damaged.insert(kernel_output::CONFIGURATION.to_owned(), b"CONFIG_SMP=y\nCONFIG_SMP=n\n".to_vec());
    let component = self::component(&damaged);
    let kernel = CompiledKernel { component: &component, outputs: &damaged, acpi: None };
    let error = built(&world, Some(kernel), &world.path("out")).unwrap_err();
    assert!(matches!(error, BuildError::KernelText(_)), "{error}");
}

#[test]
fn a_table_that_asks_for_less_than_the_floor_lowers_nothing() {
    let world = world();
    let mut outputs = outputs(&CONFIG.replace("# CONFIG_KEXEC is not set", "CONFIG_KEXEC=y\nCONFIG_DEVMEM=y"));
    // It says so itself, and keeps to it.
    let table = TABLE.replace("\"KEXEC\", value = \"n\"", "\"KEXEC\", value = \"y\"");
    outputs.insert(kernel_output::HARDENING.to_owned(), table.into_bytes());
    let component = component(&outputs);
    let kernel = CompiledKernel { component: &component, outputs: &outputs, acpi: None };
    let error = built(&world, Some(kernel), &world.path("out")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel of component \"kernel\" is not hardened as its table, or the floor that no table lowers, asks:\
         \n  CONFIG_KEXEC is y, expected n: another kernel could take this one's place\
         \n  CONFIG_DEVMEM is y, expected n: physical memory as a file"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_line_that_is_changed_or_lost_is_never_built_into_an_image(
        line in 0usize..3,
        value in prop_oneof![Just(String::new()), "[a-z]{2,5}", "-?[2-9]"],
    ) {
        let names = ["SMP", "PANIC_TIMEOUT", "KEXEC"];
        let lines: Vec<String> = CONFIG.lines().map(str::to_owned).collect();
        let mut changed = lines;
        // To lose the line of what must not be set changes nothing.
        prop_assume!(line < 2 || !value.is_empty());
        changed[line] = if value.is_empty() { String::new() } else { format!("CONFIG_{}={value}", names[line]) };
        let world = world();
        let outputs = outputs(&changed.join("\n"));
        let component = component(&outputs);
        let kernel = CompiledKernel { component: &component, outputs: &outputs, acpi: None };
        let error = built(&world, Some(kernel), &world.path("out")).unwrap_err();
        let BuildError::Hardening { deviations, .. } = error else { panic!("{error}") };
        prop_assert_eq!(deviations.len(), 1);
        prop_assert_eq!(deviations[0].name.as_str(), names[line]);
    }
}
