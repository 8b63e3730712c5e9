//! Which versions of NVIDIA's driver may be locked: those that NVIDIA published reference values (a RIM) of. A GPU whose driver has none
//! attests to nobody ("No RIM found"), and that is found out on the server, months after the image was cast.

use spec::Outcome;
use spec::lock::Lock;
use spec::recipe::SourceFile;

use crate::failure::Failure;

/// Versions whose RIM was seen, by the chip that it is of: the document itself, or its name in a list of the service's. A RIM is of one chip
/// (`NV_GPU_DRIVER_GH100_VERSION`, and for Blackwell `NV_GPU_CC_DRIVER_GB100_VERSION`), and one chip's says nothing of another.
const PUBLISHED: [(&str, &[&str]); 2] = [
    ("GH100", &["550.90.07", "550.144.03", "550.163.01", "570.124.03", "580.95.05", "595.71.05"]),
    ("GB100", &["580.178.04", "595.91.07"]),
];

/// The packages of the driver that have its version: the kernel modules' source, and the library that needs just these modules.
const PACKAGES: [&str; 3] = ["nvidia-open-kernel-dkms", "nvidia-open-kernel-source", "libcuda1"];

/// Refuses a driver without published reference values, and two versions of it, among packages and files of NVIDIA's own archive. Gives what
/// the user should know of the driver that is locked, where there is one.
pub(super) fn check(lock: &Lock, sources: &[SourceFile]) -> Result<Option<String>, Failure> {
    let mut first: Option<(&str, &str)> = None;
    let packages = lock.package.iter().filter(|package| PACKAGES.contains(&package.name.as_str()));
    let packages = packages.map(|package| (package.name.as_str(), upstream(&package.version)));
    let files = sources.iter().filter_map(|file| Some((file.name(), of_file(file.name())?)));
    for (name, version) in packages.chain(files) {
        if chips(version).next().is_none() {
            let message = format!(
                "{name}: NVIDIA is not known to have published reference values (a RIM) of the driver {version}"
            );
            let known = PUBLISHED.map(|(chip, versions)| format!("for {chip} {}", versions.join(", ")));
            let hint = format!("no relying party could verify such a GPU; known are {}", known.join("; "));
            return Err(Failure::new(Outcome::Refused, message).with_hint(hint));
        }
        match first {
            Some((other, known)) if known != version => {
                let message =
                    format!("{other} is of the driver {known}, {name} of {version}: they do not work together");
                return Err(Failure::new(Outcome::Refused, message).with_hint("name one version of both in the recipe"));
            }
            _ => first = Some((name, version)),
        }
    }
    Ok(first.map(|(_, version)| {
        let of: Vec<&str> = chips(version).collect();
        let others: Vec<&str> = PUBLISHED.iter().map(|(chip, _)| *chip).filter(|chip| !of.contains(chip)).collect();
        let others =
            if others.is_empty() { String::new() } else { format!(", none are known for {}", others.join(", ")) };
        format!("NVIDIA's driver {version}: reference values (RIMs) are published for {}{others}", of.join(", "))
    }))
}

/// The chips that a driver has published reference values for.
fn chips(version: &str) -> impl Iterator<Item = &'static str> {
    PUBLISHED.iter().filter(move |(_, versions)| versions.contains(&version)).map(|(chip, _)| *chip)
}

/// The driver in a file of NVIDIA's archive (`NVIDIA-Linux-x86_64-VERSION.run`, with `-no-compat32` for 64 bits alone), or of the source that
/// NVIDIA publishes (`open-gpu-kernel-modules-VERSION.tar.gz`).
fn of_file(name: &str) -> Option<&str> {
    let installer = name.strip_prefix("NVIDIA-Linux-x86_64-").and_then(|rest| rest.strip_suffix(".run"));
    let installer = installer.map(|rest| rest.strip_suffix("-no-compat32").unwrap_or(rest));
    let source = || name.strip_prefix("open-gpu-kernel-modules-")?.strip_suffix(".tar.gz");
    installer.or_else(source)
}

/// The upstream part of a Debian version (deb-version(7)).
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(packages: &[(&str, &str)]) -> Lock {
        let head = format!(
            "schema = 1\nrecipe = \"x\"\nrecipe_sha256 = \"{0}\"\nstanding = \"published\"\n\
             [[release]]\nsuite = \"trixie\"\ndate = \"x\"\nsha256 = \"{0}\"\nsigned_by = []\n",
            "00".repeat(32)
        );
        let package = |(name, version): &(&str, &str)| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\narchitecture = \"amd64\"\nsuite = \"trixie\"\n\
                 uses = [\"tree\"]\npath = \"pool/{name}.deb\"\nsize = 1\nsha256 = \"{}\"\n",
                "00".repeat(32)
            )
        };
        Lock::parse("x.lock", &(head + &packages.iter().map(package).collect::<String>())).unwrap()
    }

    #[test]
    fn a_driver_without_reference_values_is_refused_and_so_are_two_drivers() {
        assert_eq!(check(&lock(&[("libc6", "2.41-12")]), &[]).unwrap(), None);
        for (fine, version) in [
            (&[("libcuda1", "550.163.01-2"), ("nvidia-open-kernel-dkms", "550.163.01-4~bpo13+1")][..], "550.163.01"),
            (&[("libcuda1", "1:570.124.03-1")], "570.124.03"),
        ] {
            let note = check(&lock(fine), &[]).unwrap().unwrap();
            let of =
                format!("driver {version}: reference values (RIMs) are published for GH100, none are known for GB100");
            assert!(note.ends_with(&of), "{note}");
        }
        let note = check(&lock(&[("libcuda1", "580.178.04-1")]), &[]).unwrap().unwrap();
        assert!(note.ends_with("published for GB100, none are known for GH100"), "{note}");
        let error = check(&lock(&[("libcuda1", "535.261.03-1")]), &[]).unwrap_err();
        assert_eq!(error.outcome, Outcome::Refused);
        assert!(error.messages[0].contains("(a RIM) of the driver 535.261.03"), "{:?}", error.messages);
        assert!(error.hint.unwrap().ends_with("595.71.05; for GB100 580.178.04, 595.91.07"));
        let error = check(&lock(&[("libcuda1", "550.90.07-1"), ("nvidia-open-kernel-dkms", "550.163.01-2")]), &[]);
        assert!(error.unwrap_err().messages[0].contains("libcuda1 is of the driver 550.90.07"));

        let file = |name: &str| SourceFile {
            url: format!("https://example.org/570/{name}"),
            size: 1,
            sha256: spec::Sha256Digest([0; 32]),
            licence: "MIT".to_owned(),
        };
        let (installer, source) =
            ("NVIDIA-Linux-x86_64-570.124.03-no-compat32.run", "open-gpu-kernel-modules-570.124.03.tar.gz");
        let none = [("libc6", "2.41-12")];
        check(&lock(&none), &[file(installer), file(source), file("other-1.0.tar.gz")]).unwrap();
        let own = include_str!("../../../../image-recipes/components/gpu-580.toml");
        let own = spec::recipe::RecipeFile::parse("gpu-580.toml", own).unwrap().component.unwrap();
        let note = check(&lock(&none), &own.sources).unwrap().unwrap();
        assert!(note.starts_with("NVIDIA's driver 580.95.05: ") && note.contains("for GH100"), "{note}");
        let error = check(&lock(&none), &[file("NVIDIA-Linux-x86_64-570.999.01.run")]).unwrap_err();
        assert!(error.messages[0].ends_with("(a RIM) of the driver 570.999.01"), "{:?}", error.messages);
        let error = check(&lock(&[("libcuda1", "550.163.01-2")]), &[file(source)]).unwrap_err();
        assert!(error.messages[0].contains("libcuda1 is of the driver 550.163.01"), "{:?}", error.messages);
    }
}
