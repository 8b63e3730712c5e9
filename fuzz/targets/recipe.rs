//! A recipe file that extends nothing: parsed, flattened, digested.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::recipe::{RecipeFile, flatten};

fuzz_target!(|text: &str| {
    if let Ok(file) = RecipeFile::parse("x.toml", text)
        && let Ok(recipe) = flatten(&[("x.toml".to_owned(), text.to_owned(), file)])
    {
        let _ = recipe.lock_digest();
    }
});
