//! What of an image is compiled: the guest binary, the kernel where the recipe names a component for it, modules of the distribution's kernel, and
//! files of the root file system. A release has all of components; another build has the guest that it is given, and the distribution's kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{BuildRequest, CompiledKernel, CompiledPart, Guest};
use serde::{Deserialize, Serialize};
use spec::component::Component;
use spec::lock::Lock;
use spec::manifest::AcpiAdmission;
use spec::recipe::{GUEST_OUTPUT, ImageRecipe, kernel_output};
use spec::{Outcome, Sha256Digest};
use store::Store;

use super::{admission, refuse_open};
use crate::args::{Arguments, Build};
use crate::component::{self, LoadedComponent};
use crate::failure::Failure;
use crate::inputs::{self, LoadedLock, LoadedRecipe};
use crate::printer::Printer;

/// The compiled parts of an image.
pub(super) struct Compiled {
    guest: Vec<u8>,
    guest_component: Option<Component>,
    kernel: Option<(Component, BTreeMap<String, Vec<u8>>)>,
    acpi: Option<AcpiAdmission>,
    parts: Vec<CompiledPart>,
}

/// What the second build of `--verify` is told of the first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::verbs) struct Given {
    /// The components that the guest, the kernel and other parts are from.
    pub(in crate::verbs) components: Vec<Component>,
    /// The ACPI tables that the kernel admits.
    pub(in crate::verbs) acpi: Option<AcpiAdmission>,
}

impl Given {
    /// What an image was built with.
    pub(in crate::verbs) fn of(request: &BuildRequest<'_>) -> Self {
        let kernel = request.kernel.as_ref();
        let components = request.guest.component.into_iter().chain(kernel.map(|kernel| kernel.component));
        let parts = request.parts.iter().map(|part| &part.component);
        Self {
            components: components.chain(parts).cloned().collect(),
            acpi: kernel.and_then(|kernel| kernel.acpi).cloned(),
        }
    }
}

impl Compiled {
    /// For the builder.
    pub(super) fn guest(&self) -> Guest<'_> {
        Guest { bytes: &self.guest, component: self.guest_component.as_ref() }
    }

    /// For the builder.
    pub(super) fn kernel(&self) -> Option<CompiledKernel<'_>> {
        self.kernel.as_ref().map(|(component, outputs)| CompiledKernel { component, outputs, acpi: self.acpi.as_ref() })
    }

    /// For the builder.
    pub(super) fn parts(&self) -> &[CompiledPart] {
        &self.parts
    }

    /// Of the recipe's components; refused, before anything is compiled, where the image could not be of class release all
    /// the same.
    pub(super) fn release(
        arguments: &Arguments,
        verb: &Build,
        loaded: &LoadedRecipe,
        lock: &Lock,
        store: &Store,
        printer: &Printer,
    ) -> Result<Self, Failure> {
        let image = loaded.recipe.image.as_ref();
        let guest = image.and_then(|image| image.guest.as_ref()).ok_or_else(|| {
            Failure::new(Outcome::Usage, format!("{} names no guest component", verb.recipe.display()))
                .with_hint("add [guest] component = \"components/guest.toml\" to the recipe")
        })?;
        let load = |path: &String| component::load(&loaded.directory.join(path));
        let guest = load(&guest.component)?;
        let kernel = image.and_then(|image| image.kernel_component.as_ref()).map(load).transpose()?;
        if let Some(kernel) = &kernel
            && image.is_some_and(|image| !image.module_components.is_empty())
            && !kernel
                .loaded
                .recipe
                .component
                .iter()
                .flat_map(|made| &made.outputs)
                .any(|name| kernel_output::is_module(name))
        {
            let name = &kernel.loaded.recipe.name;
            let why = format!(
                "its kernel.module_components are of the distribution's kernel, and its kernel's component \"{name}\" makes no modules"
            );
            refuse_open(verb, &[why])?;
        }
        let parts = image.map(|image| image.parts(kernel.is_some())).unwrap_or_default();
        let parts: Vec<(&str, LoadedComponent)> = parts
            .into_iter()
            .map(|path| Ok::<_, Failure>((path, component::load(&loaded.directory.join(path))?)))
            .collect::<Result<_, _>>()?;
        let standing = |component: &LoadedComponent| component.lock.lock.standing;
        let of_parts = parts.iter().map(|(path, part)| (*path, standing(part)));
        refuse_open(verb, &image::open_origins(lock, Some(standing(&guest)), kernel.as_ref().map(standing), of_parts))?;
        component::check_cache(store)?;
        let build = |component: &LoadedComponent| {
            let described = component.describe()?;
            component.build(&described, inputs::jobs(verb.jobs), false, arguments, store, printer)
        };
        let guest_component = build(&guest)?;
        let mut outputs = outputs(&guest_component, &[GUEST_OUTPUT], store)?;
        let kernel = kernel.as_ref().map(build).transpose()?;
        let kernel = kernel.map(|built| {
            let files = self::outputs(&built, &of_kernel(&built), store)?;
            Ok::<_, Failure>((built, files))
        });
        let kernel = kernel.transpose()?;
        let acpi = match image.filter(|_| kernel.is_some()) {
            Some(image) => admission::of(image, lock, &verb.qemu, store, arguments.cache_dir.is_none())?,
            None => None,
        };
        let parts = match image {
            Some(image) => parts
                .iter()
                .map(|(path, component)| part(image, path, build(component)?, store))
                .collect::<Result<_, Failure>>()?,
            None => Vec::new(),
        };
        let guest = outputs.remove(GUEST_OUTPUT).unwrap_or_default();
        Ok(Self { guest, guest_component: Some(guest_component), kernel, acpi, parts })
    }

    /// What the caller gives: a guest binary in a file, and, in the second build of `--verify`, the components that the first
    /// was built with, whose results are in the store. Else other parts than guest and kernel are compiled.
    pub(super) fn given(
        arguments: &Arguments,
        verb: &Build,
        loaded: &LoadedRecipe,
        given: &Given,
        store: &Store,
        printer: &Printer,
    ) -> Result<Self, Failure> {
        let of = |output: &str| given.components.iter().find(|component| component.outputs.contains_key(output));
        let make = |image: &ImageRecipe, path: &str| {
            let component = component::load(&loaded.directory.join(path))?;
            let described = component.describe()?;
            let made = given.components.iter().find(|made| made.key == described.key());
            let built = match made {
                Some(made) => made.clone(),
                None => component.build(&described, inputs::jobs(verb.jobs), false, arguments, store, printer)?,
            };
            part(image, path, built, store)
        };
        let image = loaded.recipe.image.iter();
        let kernel = of(kernel_output::KERNEL);
        let parts = image.flat_map(|image| image.parts(kernel.is_some()).into_iter().map(|path| make(image, path)));
        let kernel = kernel
            .map(|component| Ok::<_, Failure>((component.clone(), outputs(component, &of_kernel(component), store)?)));
        Ok(Self {
            guest: read_guest(verb.guest.as_deref())?,
            guest_component: of(GUEST_OUTPUT).cloned(),
            kernel: kernel.transpose()?,
            acpi: given.acpi.clone(),
            parts: parts.collect::<Result<_, Failure>>()?,
        })
    }
}

/// What an image takes of a kernel's component: what every kernel has, and its modules.
fn of_kernel(component: &Component) -> Vec<&str> {
    let modules = component.outputs.keys().map(String::as_str).filter(|name| kernel_output::is_module(name));
    kernel_output::ALL.into_iter().chain(modules).collect()
}

/// What the image takes of a component.
fn part(image: &ImageRecipe, path: &str, component: Component, store: &Store) -> Result<CompiledPart, Failure> {
    let names: Vec<&str> = CompiledPart::taken(image, path, &component).into_iter().collect();
    let files = outputs(&component, &names, store)?.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
    Ok(CompiledPart { recipe: path.to_owned(), component, files })
}

/// The outputs with these names, out of the store.
fn outputs(component: &Component, names: &[&str], store: &Store) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let read = |name: &&str| {
        let missing = || {
            let message = format!("the component \"{}\" has no output {name}", component.inputs.name);
            Failure::new(Outcome::Usage, message)
        };
        let output = component.outputs.get(*name).ok_or_else(missing)?;
        Ok(((*name).to_owned(), image::component::output(output, store)?))
    };
    names.iter().map(read).collect()
}

/// Finds and reads the guest binary: where the caller says, where `scripts/build-guest` or a package puts it, else beside this
/// program.
fn read_guest(given: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let variable = std::env::var_os("BULLION_GUEST").filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory =
        std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf)).unwrap_or_default();
    let places = ["../guest/bullion-guest", "../lib/bullion/bullion-guest"].map(|place| directory.join(place));
    let path = given
        .map(Path::to_path_buf)
        .or(variable)
        .or_else(|| places.into_iter().find(|place| place.is_file()))
        .unwrap_or_else(|| directory.join("bullion-guest"));
    std::fs::read(&path).map_err(|error| {
        Failure::new(Outcome::HostCannot, format!("reading the guest binary {}: {error}", path.display()))
            .with_hint("build it with scripts/build-guest, or name one with --guest FILE")
    })
}

/// Refuses components that are not the recipe's, as their sources and locks are now. What they made is not looked at: an
/// image of them is of class dev, whatever they say.
pub(in crate::verbs) fn check_given(given: &Given, recipe: &Path) -> Result<(), Failure> {
    let loaded = inputs::recipe(recipe)?;
    let Some(image) = &loaded.recipe.image else {
        return given.components.first().map_or(Ok(()), |_| Err(refused("is none of this recipe")));
    };
    let guest: Vec<&str> = image.guest.iter().map(|guest| guest.component.as_str()).collect();
    let kernel = image.kernel_component.iter().map(String::as_str).collect();
    let is_kernel = |component: &Component| component.outputs.contains_key(kernel_output::KERNEL);
    let parts = image.parts(given.components.iter().any(is_kernel));
    for component in &given.components {
        let paths = match () {
            () if component.outputs.contains_key(GUEST_OUTPUT) => &guest,
            () if is_kernel(component) => &kernel,
            () => &parts,
        };
        let own = paths.iter().map(|path| component::load(&loaded.directory.join(path)));
        check_is_one_of(component, &own.collect::<Result<Vec<_>, _>>()?)?;
    }
    Ok(())
}

/// Refuses a component that is none of these. Several may have one name: what is compiled is told by the key.
fn check_is_one_of(component: &Component, own: &[LoadedComponent]) -> Result<(), Failure> {
    let (mut is_named, mut same) = (false, Vec::new());
    for own in own.iter().filter(|own| own.loaded.recipe.name == component.inputs.name) {
        is_named = true;
        let described = own.describe()?;
        if component.key == described.key() && component.inputs == *described.inputs() {
            same.push(&own.lock);
        }
    }
    let has = |lock: &LoadedLock| {
        let digest = Sha256Digest::of(lock.text.as_bytes());
        component.standing == lock.lock.standing && component.lock_sha256 == digest
    };
    match (is_named, same.is_empty()) {
        (false, _) => Err(refused("is none of this recipe")),
        (true, true) => Err(refused("has another key than the recipe's")),
        (true, false) if same.into_iter().any(has) => Ok(()),
        (true, false) => Err(refused("has another lock than the recipe's")),
    }
}

fn refused(what: &str) -> Failure {
    Failure::new(Outcome::Refused, format!("the component that was given {what}"))
}

#[cfg(test)]
mod tests;
