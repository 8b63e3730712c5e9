//! Where unit tests find values that others computed: `$BULLION_VECTORS`, or the shared folder beside the repository.

use std::path::Path;

/// A vector, or `None` with a line on stderr where there is none.
#[allow(clippy::print_stderr, reason = "says that a test was skipped")]
pub(crate) fn read(name: &str) -> Option<Vec<u8>> {
    let directory = std::env::var_os("BULLION_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), Into::into);
    let vector = std::fs::read(directory.join(name)).ok();
    if vector.is_none() {
        eprintln!("skipped: the vector {name} is not there");
    }
    vector
}
