//! Kernels and modules, in both of Debian's layouts.

mod support;

use image::deb::{self, Package};
use image::kernel::{Kernel, KernelError, Wanted, find};
use spec::Diagnostic as _;
use support::{Deb, KERNEL, kernel_package, module, module_for};

fn find_in(packages: Vec<Deb>, boot: &[&str], device: &[&str]) -> Result<Kernel, KernelError> {
    let packages: Vec<Package> =
        packages.into_iter().map(|package| deb::read(&package.build_as("")).unwrap()).collect();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let wanted = Wanted { boot: &owned(boot), device: &owned(device), root: &[] };
    find(&packages.iter().collect::<Vec<_>>(), [], &wanted)
}

fn kernel(boot: &[&str], device: &[&str]) -> Result<Kernel, KernelError> {
    find_in(vec![kernel_package(Deb::new("linux"))], boot, device)
}

#[test]
fn what_a_module_needs_comes_before_it() {
    let kernel = kernel(&["virtio_pci", "dm-c"], &["wisher", "b"]).unwrap();
    assert_eq!(kernel.version, KERNEL);
    assert_eq!(kernel.vmlinuz.bytes(), b"a bzImage");
    assert_eq!(kernel.plan.boot, ["a", "b", "dm_c"]);
    assert_eq!(
        image::initrd::module_list(&kernel.plan),
        "boot a\nboot b\nboot dm_c\ndevice wisher wisher\n",
        "what is loaded at boot is not loaded again"
    );
    assert_eq!(kernel.modules["b"], module("b", "a,virtio-pci", &[]));
    assert_eq!(kernel.modules.len(), 4);
}

#[test]
fn device_modules_bring_what_they_need() {
    let kernel = kernel(&[], &["dm_c", "wisher"]).unwrap();
    assert_eq!(image::initrd::module_list(&kernel.plan), "device dm_c a,b,dm_c\ndevice wisher a,wisher\n");
}

#[test]
fn modules_of_the_root_file_system_come_with_what_is_not_loaded_at_boot() {
    let package = deb::read(&kernel_package(Deb::new("linux")).build_as("")).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let wanted = Wanted { boot: &names(&["a"]), device: &names(&["wisher"]), root: &names(&["dm-c", "virtio_pci"]) };
    let kernel = find(&[&package], [], &wanted).unwrap();
    assert_eq!(kernel.plan.root, ["b", "dm_c"], "a is loaded at boot, virtio_pci is built in");
    assert_eq!(kernel.root_modules.keys().collect::<Vec<_>>(), ["b", "dm_c"]);
    assert_eq!(kernel.modules.keys().collect::<Vec<_>>(), ["a", "wisher"], "the initrd has nothing of it");

    let mut tree = image::tree::Tree::default();
    image::root_modules::add(&mut tree, &kernel);
    assert_eq!(tree.file("usr/lib/bullion/modules/list"), Some(b"boot b\nboot dm_c\n".as_slice()));
    tree.finish().unwrap();
    let (path, node) = tree.follow("usr/lib/bullion/modules/b.ko").unwrap();
    assert_eq!(path, format!("usr/lib/modules/{KERNEL}/kernel/b.ko"));
    assert_eq!(tree.file(&path), Some(module("b", "a,virtio-pci", &[]).as_slice()), "{node:?}");
    assert!(tree.file(&format!("usr/lib/modules/{KERNEL}/modules.builtin")).is_some());
    let mut none = image::tree::Tree::default();
    image::root_modules::add(&mut none, &find(&[&package], [], &Wanted::default()).unwrap());
    assert_eq!(none, image::tree::Tree::default());
}

#[test]
fn the_layout_of_linux_6_12_is_known_too() {
    let at = |name: &str| format!("./usr/lib/modules/{KERNEL}/kernel/{name}");
    let package =
        Deb::new("linux-image").file(&format!("./boot/vmlinuz-{KERNEL}"), "k").file(&at("a.ko"), module("a", "", &[]));
    let kernel = find_in(vec![package], &["a"], &[]).unwrap();
    assert_eq!((kernel.version.as_str(), kernel.vmlinuz.bytes()), (KERNEL, b"k".as_slice()));
}

#[test]
fn a_missing_module_is_named_with_its_neighbours() {
    let error = kernel(&["virtio_pcj"], &[]).unwrap_err();
    assert_eq!(error.to_string(), format!("kernel {KERNEL} has no module \"virtio_pcj\""));
    assert_eq!(error.hint().unwrap(), "did you mean \"virtio_pci\"?");

    let needs =
        kernel_package(Deb::new("linux")).file(&format!("./usr/lib/modules/{KERNEL}/n.ko"), module("n", "gone", &[]));
    let error = find_in(vec![needs], &["n"], &[]).unwrap_err();
    assert!(error.to_string().ends_with("has no module \"gone\", which n needs"), "{error}");
}

#[test]
fn modules_that_were_compiled_apart_fit_the_kernel_or_are_refused() {
    let package = deb::read(&kernel_package(Deb::new("linux")).build_as("")).unwrap();
    let root = ["gpu-uvm".to_owned()];
    let wanted = Wanted { root: &root, ..Wanted::default() };
    let found =
        |files: &[(&str, Vec<u8>)]| find(&[&package], files.iter().map(|(name, elf)| (*name, elf.as_slice())), &wanted);
    let (gpu, uvm) = (module("gpu", "a", &[]), module("gpu_uvm", "gpu", &[]));
    let kernel = found(&[("gpu.ko", gpu.clone()), ("gpu-uvm.ko", uvm.clone())]).unwrap();
    assert_eq!(kernel.plan.root, ["a", "gpu", "gpu_uvm"], "what it needs of the kernel's own comes with it");
    assert_eq!(kernel.root_modules["gpu"].path, format!("usr/lib/modules/{KERNEL}/updates/gpu.ko"));

    let error = found(&[("gpu.ko", gpu.clone()), ("gpu-uvm.ko", module_for("6.1.0", "gpu_uvm", "gpu", &[]))]);
    assert!(matches!(error, Err(KernelError::OtherKernel { found, .. }) if found == "6.1.0"));
    // Although nobody wants it loaded.
    let error = found(&[("gpu-uvm.ko", uvm.clone()), ("gpu.ko", gpu.clone()), ("other.ko", b"text".to_vec())]);
    assert!(matches!(error, Err(KernelError::Module { path, .. }) if path.ends_with("updates/other.ko")));
    let error = found(&[("gpu.ko", gpu), ("gpu-uvm.ko", uvm), ("a.ko", module("a", "", &[]))]);
    assert!(
        matches!(error, Err(KernelError::Twice { name, .. }) if name == "a"),
        "no module of the kernel's is replaced"
    );
}

#[test]
fn modules_of_another_kernel_and_damaged_ones_are_refused() {
    let with = |content: Vec<u8>| {
        let package = kernel_package(Deb::new("linux")).file(&format!("./usr/lib/modules/{KERNEL}/m.ko"), content);
        find_in(vec![package], &["m"], &[]).unwrap_err()
    };
    assert!(matches!(with(module_for("6.1", "m", "", &[])), KernelError::OtherKernel { found, .. } if found == "6.1"));
    assert!(with(module("other", "", &[])).to_string().contains("calls itself \"other\""));
    assert!(with(b"not elf".to_vec()).to_string().contains("no ELF file"));
    assert!(matches!(with(module("m", "m", &[])), KernelError::Cycle(name) if name == "m"));
}

#[test]
fn there_must_be_exactly_one_kernel() {
    assert!(
        matches!(find_in(vec![Deb::new("empty")], &[], &[]), Err(KernelError::NoKernel { packages }) if packages == ["empty"])
    );
    let two = Deb::new("two").file("./boot/vmlinuz-1", "k").file("./boot/vmlinuz-2", "k");
    assert!(
        matches!(find_in(vec![two], &[], &[]), Err(KernelError::SeveralKernels { versions }) if versions == ["1", "2"])
    );
    let copy = Deb::new("copy").file(&format!("./usr/lib/modules/{KERNEL}/extra/a.ko"), module("a", "", &[]));
    let error = find_in(vec![kernel_package(Deb::new("linux")), copy], &["a"], &[]).unwrap_err();
    assert!(matches!(error, KernelError::Twice { name, .. } if name == "a"));
}
