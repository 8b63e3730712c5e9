//! `bullion build --replace` of what is there already: nothing is built where nothing has changed.
//!
//! A build notes in the cache which manifest came of which inputs. The note is believed only together with an image directory
//! whose every file hashes to that very manifest, and never for an image of class release, which is always built.

use std::path::PathBuf;

use image::BuildRequest;
use spec::Sha256Digest;
use spec::manifest::{FILE_NAME, Manifest};
use store::{Image, Store};

use crate::args::{Arguments, Build};

/// Where it is noted what comes of these inputs.
pub(super) struct Unchanged {
    note: PathBuf,
}

impl Unchanged {
    /// `None` where a note is not to be believed, or where an input has no digest.
    pub(super) fn of(arguments: &Arguments, verb: &Build, request: &BuildRequest<'_>, store: &Store) -> Option<Self> {
        let own_inputs = arguments.cache_dir.is_none() && verb.qemu.qemu.is_none() && verb.qemu.vmm.is_none();
        if verb.release || verb.verify || !own_inputs {
            return None;
        }
        let note = store.verdicts_dir().join(format!("image-{}", key(verb, request)?));
        Some(Self { note })
    }

    /// The image that is there, if it is the one that would be built.
    pub(super) fn image(&self, verb: &Build) -> Option<Manifest> {
        if !verb.replace {
            return None;
        }
        let noted: Sha256Digest = std::fs::read_to_string(&self.note).ok()?.trim_end().parse().ok()?;
        let image = Image::open(&verb.output).ok().filter(|image| image.manifest_sha256 == noted)?;
        store::verify_all(&verb.output, &image.manifest).ok()?;
        // What is in the way of nothing, but would be gone after a build.
        let files = std::fs::read_dir(&verb.output).ok()?.count();
        (files == image.manifest.files().count() + 1).then_some(image.manifest)
    }

    /// Notes what was built. A cache that cannot be written makes the next build slower and nothing else.
    pub(super) fn keep(&self, verb: &Build) {
        if let Ok((_, sha256)) = store::hash_file(&verb.output.join(FILE_NAME)) {
            let _ = store::write_atomically(&self.note, format!("{sha256}\n").as_bytes());
        }
    }
}

/// The digest of all that decides about an image: this program, the recipe with its files, the lock, the guest binary,
/// what components made, and whether measurements are wanted.
fn key(verb: &Build, request: &BuildRequest<'_>) -> Option<Sha256Digest> {
    let (_, program) = store::hash_file(&std::env::current_exe().ok()?).ok()?;
    let mut parts = vec![
        program.to_string(),
        serde_json::to_string(request.recipe).ok()?,
        request.lock_text.to_owned(),
        Sha256Digest::of(request.guest.bytes).to_string(),
        verb.no_references.to_string(),
    ];
    parts.extend(request.parts.iter().map(|part| part.component.key.to_string()));
    let files = request.recipe.image.iter().flat_map(|image| &image.files);
    for source in files.filter_map(|file| file.source.as_ref()) {
        parts.push(store::hash_file(&request.recipe_dir.join(source)).ok()?.1.to_string());
    }
    Some(Sha256Digest::of(serde_json::to_string(&parts).ok()?.as_bytes()))
}
