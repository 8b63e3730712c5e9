//! `bullion publish`: a signed release of an image, as a bundle directory.

use std::path::PathBuf;

use image::PublishRequest;
use image::inspect::root_content;
use launcher::Image;
use serde_json::json;
use sign::PrivateKey;
use spec::Outcome;
use spec::manifest::Class;
use spec::release::Release;
use spec::time::Timestamp;

use crate::args::{Expiry, Publish};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::trust;

const DAY: u64 = 86_400;

/// What was typed, which must be what the image's ID blocks say; else what they say.
fn guest_svn(typed: Option<u32>, image: &Image) -> Result<u32, Failure> {
    let blocks = image.manifest.references.snp.iter().filter_map(|reference| reference.id_block.as_ref());
    let signed: Vec<u32> = blocks.map(|block| block.guest_svn).collect();
    let svn = typed.or(signed.first().copied()).unwrap_or(0);
    match signed.iter().find(|signed| **signed != svn) {
        None => Ok(svn),
        Some(other) => {
            let message = format!("the release would say guest SVN {svn}, an ID block of the image says {other}");
            Err(Failure::new(Outcome::Usage, message)
                .with_hint("leave --guest-svn out, or make the ID blocks again with the new one"))
        }
    }
}

pub(crate) fn run(verb: &Publish, printer: &Printer) -> Result<u8, Failure> {
    let key = PrivateKey::read(&verb.key)?;
    let image = Image::open(&verb.image)?;
    if let Some(shell) = root_content(&image.directory)?.shell {
        let message = format!("{} has a shell on its serial line ({shell}): it is not published", verb.image.display());
        return Err(
            Failure::new(Outcome::Refused, message).with_hint("publish the image that this one is an overlay of")
        );
    }
    let now = trust::now()?;
    let release = Release {
        name: image.manifest.name.clone(),
        class: image.manifest.class,
        sequence: verb.sequence.unwrap_or_else(|| now.seconds()),
        expires: expires(verb.expires, now)?,
        guest_svn: guest_svn(verb.guest_svn, &image)?,
    };
    let output = verb.output.clone().unwrap_or_else(|| beside(&image));
    let request =
        PublishRequest { image: &image, release: &release, key: &key, output: &output, replace: verb.replace };
    image::publish(&request)?;
    let id = key.public().id()?;
    printer.line(format_args!("{}: release {} of {}", output.display(), release.sequence, release.name));
    printer.line(format_args!(
        "  class {}, guest SVN {}, good until {}",
        release.class, release.guest_svn, release.expires
    ));
    printer.line(format_args!("  signed by {id}"));
    if release.class == Class::Dev {
        printer.warning("the image is of class dev: a TEE takes it with --dangerously-allow-dev only");
    }
    printer.value(
        &json!({ "bundle": output, "release": release, "key_id": id, "manifest_sha256": image.manifest_sha256 }),
    );
    Ok(0)
}

fn expires(words: Expiry, now: Timestamp) -> Result<Timestamp, Failure> {
    let time = match words {
        Expiry::At(time) => Some(time),
        Expiry::Days(days) => Timestamp::from_seconds(now.seconds() + days * DAY),
    };
    match time {
        Some(time) if time > now => Ok(time),
        Some(time) => Err(Failure::new(Outcome::Usage, format!("--expires {time} is past: it is {now} now"))),
        None => Err(Failure::new(Outcome::Usage, "--expires is after the year 9999")),
    }
}

fn beside(image: &Image) -> PathBuf {
    let mut name = image.directory.clone().into_os_string();
    name.push(".bundle");
    name.into()
}
