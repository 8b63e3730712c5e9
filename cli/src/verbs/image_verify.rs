//! `bullion image verify`: whether a bundle is whole, signed by somebody trusted, current and not a step back.

use launcher::{Directories, Image};
use serde_json::json;

use crate::args::ImageVerify;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::trust;

pub(crate) fn run(verb: &ImageVerify, printer: &Printer) -> Result<u8, Failure> {
    let image = Image::open(&verb.bundle)?;
    // The files first: a damaged bundle is not recorded as seen.
    store::verify_all(&image.directory, &image.manifest)?;
    let release = trust::accept(&image, &verb.trust, &Directories::from_environment())?;
    let signed = release.release();
    printer.line(format_args!("{}: release {} of {}", verb.bundle.display(), signed.sequence, signed.name));
    printer
        .line(format_args!("  class {}, guest SVN {}, good until {}", signed.class, signed.guest_svn, signed.expires));
    printer.line(format_args!("  signed by {}", release.key()));
    printer.line(format_args!("  manifest  {}", release.manifest_sha256()));
    printer.line(format_args!("  {} files match the manifest", image.manifest.files().count()));
    printer.value(&json!({
        "release": signed,
        "key_id": release.key(),
        "manifest_sha256": release.manifest_sha256(),
        "files": image.manifest.files().count(),
    }));
    Ok(0)
}
