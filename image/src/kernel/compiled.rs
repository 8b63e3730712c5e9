//! A kernel that a component compiled: no packages, a list of what is built in, and the modules that were compiled with it.

use std::collections::BTreeMap;

use spec::recipe::kernel_output;

use super::{Kernel, KernelError, Shelf, Wanted, module_name, planned};
use crate::content::Content;

/// The longest version that Kbuild makes (`__NEW_UTS_LEN`, Linux `Makefile`).
const MAX_RELEASE: usize = 64;

/// The kernel among the outputs of a component. What the recipe wants loaded must be built in or a module among them.
pub fn find_compiled(outputs: &BTreeMap<String, Vec<u8>>, wanted: &Wanted<'_>) -> Result<Kernel, KernelError> {
    let output = |name: &'static str| outputs.get(name).ok_or(KernelError::NoOutput { name });
    let version = release(output(kernel_output::RELEASE)?).ok_or(KernelError::Release)?;
    let built_in = output(kernel_output::BUILT_IN)?;
    let described = [("modules.builtin".to_owned(), Content::from(built_in.clone()))];
    let mut shelf = Shelf {
        version,
        vmlinuz: Content::from(output(kernel_output::KERNEL)?.clone()),
        files: BTreeMap::new(),
        builtin: String::from_utf8_lossy(built_in).lines().filter_map(module_name).collect(),
        descriptions: described.into(),
    };
    for (name, elf) in outputs.iter().filter(|(name, _)| kernel_output::is_module(name)) {
        shelf.add(name, elf)?;
    }
    planned(shelf, wanted)
}

/// The version: one line, of what can be a part of a path.
fn release(bytes: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(bytes).ok()?.trim_end_matches('\n');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+~_".contains(&byte);
    let fits = (1..=MAX_RELEASE).contains(&line.len()) && line.bytes().all(plain) && !line.starts_with('.');
    fits.then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(release: &str, built_in: &str) -> BTreeMap<String, Vec<u8>> {
        [(kernel_output::KERNEL, "kernel"), (kernel_output::RELEASE, release), (kernel_output::BUILT_IN, built_in)]
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .into()
    }

    const BUILT_IN: &str = "kernel/fs/erofs/erofs.ko\nkernel/drivers/md/dm-verity.ko\n";

    #[test]
    fn what_is_built_in_is_not_loaded_and_what_is_neither_is_missed() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (boot, device) = (names(&["dm_verity"]), names(&["erofs"]));
        let wanted = Wanted { boot: &boot, device: &device, root: &[] };
        let kernel = find_compiled(&outputs("7.3.4\n", BUILT_IN), &wanted).unwrap();
        assert_eq!((kernel.version.as_str(), kernel.vmlinuz.bytes()), ("7.3.4", b"kernel".as_slice()));
        assert_eq!(kernel.plan, crate::kernel::Plan::default());
        assert!(kernel.modules.is_empty() && kernel.root_modules.is_empty());
        let root = names(&["dm_verit"]);
        let error = find_compiled(&outputs("7.3.4", BUILT_IN), &Wanted { root: &root, ..wanted }).unwrap_err();
        let KernelError::NoModule { name, near, builtin_known, .. } = error else { panic!("{error}") };
        assert_eq!((name.as_str(), near, builtin_known), ("dm_verit", names(&["dm_verity"]), true));
    }

    #[test]
    fn outputs_that_no_kernel_has_are_refused() {
        for name in [kernel_output::KERNEL, kernel_output::RELEASE, kernel_output::BUILT_IN] {
            let mut outputs = outputs("7.3.4", BUILT_IN);
            outputs.remove(name);
            assert_eq!(find_compiled(&outputs, &Wanted::default()).unwrap_err(), KernelError::NoOutput { name });
        }
        for release in ["", "\n", "7.3.4\nx", "../7", "7 3", &"7".repeat(65), ".7"] {
            let found = find_compiled(&outputs(release, BUILT_IN), &Wanted::default());
            assert_eq!(found.unwrap_err(), KernelError::Release, "{release}");
        }
    }
}
