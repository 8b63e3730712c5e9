//! What components make of an image beside its guest binary and its kernel.

use std::collections::{BTreeMap, BTreeSet};

use spec::component::Component;
use spec::recipe::ImageRecipe;
use spec::recipe::kernel_output::is_module;

use crate::content::Content;

/// What a component made of an image.
#[derive(Clone, Debug)]
pub struct CompiledPart {
    /// The component's recipe, as the image's names it.
    pub recipe: String,
    /// The component.
    pub component: Component,
    /// Its outputs that the image takes, by name.
    pub files: BTreeMap<String, Content>,
}

impl CompiledPart {
    /// The outputs that `image` takes of a component whose recipe it calls `recipe`: modules, where it is named for these, and what goes
    /// into the root file system.
    pub fn taken<'a>(image: &'a ImageRecipe, recipe: &str, component: &'a Component) -> BTreeSet<&'a str> {
        let has_modules = image.module_components.iter().any(|path| path == recipe);
        let modules = component.outputs.keys().map(String::as_str).filter(|name| has_modules && is_module(name));
        let files = image.component_files.iter().filter(|file| file.recipe == recipe);
        modules.chain(files.map(|file| file.output.as_str())).collect()
    }
}
