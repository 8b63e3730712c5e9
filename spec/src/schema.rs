//! JSON Schemas of the file formats, generated from the types. Checked in under `docs/schemas/`.

use schemars::{Schema, schema_for};

/// The schemas by file name.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("recipe.schema.json", schema_for!(crate::recipe::RecipeFile)),
        ("lock.schema.json", schema_for!(crate::lock::Lock)),
        ("vm.schema.json", schema_for!(crate::vm::Vm)),
        ("manifest.schema.json", schema_for!(crate::manifest::Manifest)),
        ("pins.schema.json", schema_for!(crate::pins::Pins)),
        ("hardening.schema.json", schema_for!(crate::hardening::Hardening)),
    ]
}
