//! Scripts that somebody has read. The digest is that of what `fragments` leaves of the script, so that it stays the same
//! when only debhelper's parts, comments or spaces change.
//!
//! To extend it: `cargo run -p bullion-image --example script_rest -- FILE.deb...` prints what is left and its digest.

use super::fragments::Answer;

/// What stands for a known script.
enum Known {
    Effect(&'static str),
    Ignored(&'static str),
    /// An effect does a part; the reason is for the rest.
    Both(&'static str, &'static str),
}
use Known::{Both, Effect, Ignored};

/// Package, script, digest, answer; sorted.
#[rustfmt::skip]
const KNOWN: &[(&str, &str, &str, Known)] = &[
    ("adduser", "preinst", "0f9cbcf37db90cad5afdb23df14dcfbe2ce64d6d96036d978db5fc32ee6bd5bf", Ignored("it matters for upgrades only")),
    ("apt", "postinst", "ada3e14b742ed847a99fc75e7ce8a598bd1eeeb2ace1a9f1d604749073ff53b6", Ignored("base-passwd declares the account _apt; the rest matters for upgrades only")),
    ("base-files", "postinst", "a5727b94085f0018444d2081428d86f09b1f9a84b01949bcc480cbe0b61ceb92", Effect("base-files")),
    ("base-files", "preinst", "78b48252e4862f168206a8fabaea690790c851f6ccd07f16e518a04221d37437", Ignored("it only checks that /usr is merged")),
    ("base-passwd", "postinst", "dd5643b019447b1a616d84003babc3d6e0558d5176bd8cc675abecde37da49ee", Effect("accounts")),
    ("base-passwd", "preinst", "5ab6fdffe4ff58be22e944758fd782e877f78d7b912057ec392f6d84a70f9a2f", Effect("accounts")),
    ("ca-certificates", "postinst", "e66780313f521e658ce49a565ac38e71fe6d93add4bc501ee5748df8dba598f9", Both("certificates", "every certificate is trusted, as without questions")),
    ("dbus", "postinst", "62b5b956fadeef24d85402ce106b4b83cb2ad8e592b39cd4e01d291da99d7ef1", Both("modes", "no service manager runs in the guest")),
    ("dbus-daemon", "postinst", "0795fc31bf6ba430e1f6182eff379976aeafc28fc67e881e63208a9d343b894f", Ignored("the machine gets its identity when it starts")),
    ("dbus-system-bus-common", "postinst", "6777e851391cb07f8d404b4ff83a7e9854fc2f3928b6c73cdd0b7075a520e2f9", Effect("accounts")),
    ("debconf", "postinst", "3197e7f1e8003b7ad20ebbda92124e217d27f4d2a2f6da7556f3c1c7e508fc1c", Ignored("no question is asked: defaults are taken")),
    ("debian-archive-keyring", "postinst", "d67c47fed83ab77f138f096ce22c768dafb15717b8e3788d1ff059621fb9dae9", Ignored("it matters for upgrades only")),
    ("debianutils", "postinst", "0b9daeb368bd4bda3f5f55c695e9561afeed64b91c628c583ed5e335e10d39b5", Effect("shells")),
    ("dpkg", "postinst", "6cb56dcb7953ee94699404ec4f1fa4f1895a867b471bf1b8e776ad61a61d799a", Ignored("nothing is installed in the guest")),
    ("e2fsprogs", "postinst", "a0c36e2c218f1e909bc976c6f6dfba85b68154f98b20133d911673e51c74cd67", Ignored("the builder makes the initrd")),
    ("e2fsprogs", "preinst", "4c6f8785f96390def2ce4b8c86c109bf1f64303843b715978d1d6203b305345c", Ignored("it matters for upgrades only")),
    ("fuse3", "postinst", "7e7eca2c6bbf1b16efeae4d51f218bce867495fccb7f022cfcd08ebe05b11438", Both("modes", "the guest loads modules, the builder makes the initrd")),
    ("fuse3", "preinst", "f14d6e364141da4110c1e3249660577856467204a5163cfca1d1328a7591824a", Ignored("it moves files for upgrades to a merged /usr")),
    ("init-system-helpers", "postinst", "25bd97e4a6f33b06d33d01f5dc9ed2b3041434bd2590d52dbf3d69c9014e1614", Ignored("it matters for upgrades only")),
    ("iproute2", "postinst", "aeec1a91cc4dd8f1a4bd5c0fadf421b1cea8eee60b9ef942fcbcd10a23b069e5", Ignored("ip gets no capabilities, as without questions")),
    ("kmod", "postinst", "c03ae9aa9b06000db29c961dd05fdb7317332d10f920fab45117f1d228d25674", Ignored("/etc/modules would hold comments only")),
    ("libc-bin", "postinst", "a3f13a6576d607c67fe92b01fe0887bbc5381db65f81d486a5023c2e34834cd1", Both("loader-cache", "nsswitch.conf is copied by the base-files effect")),
    ("libc6", "postinst", "6eeda565fe2f6df888a075d9e5dce6d3ed4b495d8193826a008203a10d72f789", Ignored("it restarts services after an upgrade")),
    ("libc6", "preinst", "89259cbdc653f2f1efdf5b427f68abb9c027f6ec7cd2c97f22273e08471326e7", Ignored("it checks the running kernel before an upgrade")),
    ("libext2fs2t64", "preinst", "f97a62a2659537a1dd80d2ab2d1011a935ae1e66c72ab5855b5d20e8f44360a2", Ignored("it moves files for upgrades to a merged /usr")),
    ("libgcrypt20", "postinst", "cacafb3a1c597f8e5312504c83bc90ce9dc8603bcfebcbc49959b63666722830", Ignored("it matters for upgrades only")),
    ("libglib2.0-0t64", "postinst", "1f6d2596fadb2388c7c2d837ea066fb3bb672623f2cd892298ca01eb816efe4d", Ignored("caches of schemas and modules are left out")),
    ("libglib2.0-0t64", "preinst", "e08d2d3541724ffa4358d82a15646b0e79e5ee67ee9c044b0675e1cf97c3eefc", Ignored("it matters for upgrades only")),
    ("libgssapi-krb5-2", "postinst", "f2d0d1835c28a9c9d314144c1aebda0be414b06f67e5b1214840d5b2ee6e946e", Ignored("it matters for upgrades only")),
    ("libpam-modules", "postinst", "6f56ea9ca6372aa7f0c787df89cec6dbb19bb5094bd0d939f6c9e71bd3fc7948", Effect("base-files")),
    ("libpam-modules", "preinst", "bb44229fbe538c4f82f1feef1f8b606bf3bdda6264abb3378c1003317f9606fd", Ignored("it matters for upgrades only")),
    ("libpam-runtime", "postinst", "4cbc969373eee983d61d22588060553d4d4c27957fde17c9498991c8d7f28ace", Effect("pam")),
    ("libpam0g", "postinst", "35061708d6b8585737b8b37dbab5b1569d2ed2e8b105570a69984424f6243315", Ignored("it restarts services after an upgrade")),
    ("libreadline8t64", "preinst", "6abc6d3715ffd2e8eee011696c7189c6367e491c7a19c7ba9d1b0deba114cb4c", Ignored("it moves files for upgrades to a merged /usr")),
    ("libselinux1", "postinst", "8e760cb6a51b23b6396e1a45a73a1f069ffb281768aa6a56077a429d72d646aa", Ignored("it matters for upgrades only")),
    ("libtirpc3t64", "preinst", "e8a5bd36d845938996400f8fc70b4dac06841bbde658c4a28029990d6806e2a4", Ignored("it moves files for upgrades to a merged /usr")),
    ("login.defs", "postinst", "e32b9dd22894ea331ae687da4bc9f9384296fe193fe3a5cbd23b50f4b0e6743a", Ignored("it matters for upgrades only")),
    ("netbase", "postinst", "db323cfdef3294eb3c84bf759876b817406e768766dde6c925a74a0e01050f09", Effect("base-files")),
    ("openssl", "postinst", "2cf35c30f1dbaf9222490b158807601f5bae4f7aae1ab64616bd42d3fcaa3247", Ignored("the package brings /usr/lib/ssl")),
    ("passwd", "postinst", "7dc7db8dc6bc71d20edd276dd146f4b8ce3afc2ece0a369e0be51f065bc87103", Effect("accounts")),
    ("podman", "postinst", "ea3a823f684fb502fbf0cd5fe1244e2f57670e42c704b785ba591226fbe4f221", Ignored("it matters for upgrades only")),
    ("podman", "preinst", "c77e04dc051d7fd573470966796e6cc99d9bdf76fcc7bde21210c55f6ce2ed95", Ignored("it matters for upgrades only")),
    ("python3", "postinst", "a0a6db32398eaa8618baec212fd5d3aabc14efcfa01f5f493b938f986f9b82b4", Ignored("Python compiles what it runs")),
    ("python3", "preinst", "5cc057dd618c80b00723367553d22dace3f1880b040ff19c2e0ce14d69aa501d", Ignored("it matters for upgrades only")),
    ("python3-minimal", "postinst", "468632b2002cda0d9be5c7c559a0ae87082c047058dc9452a9bd2124ddd276a6", Ignored("Python compiles what it runs")),
    ("python3.13", "postinst", "927a74a6db7229b182e2529ced84cc1606e368be90ad214c61184e909f73540a", Ignored("Python compiles what it runs")),
    ("python3.13-minimal", "postinst", "2f85704dba6a702a583415de8ee24b1bf61d21360fefb8165838ac206fb9118a", Ignored("Python compiles what it runs")),
    ("python3.13-minimal", "preinst", "77fa49fea365617d8c4ed03f14a18a7e19e067af5fd3c85c89b5629193046549", Ignored("Python compiles what it runs")),
    ("readline-common", "postinst", "6bd5c720d8176c2baf3df072fb74eb10bab2ca59f0cf1ebeea74053de292b05a", Effect("base-files")),
    ("systemd", "postinst", "6c4ffbce3b28a212164e3cc1ae1f2ccbabf0c692269e183ea2d775aca3031e0c", Ignored("no service manager runs in the guest")),
    ("systemd", "preinst", "3b466b7d7bfc21b6f798ccca179e8ec0e9b7184f1cc34130a577e18fd7a2155b", Ignored("it only checks that /usr is merged")),
    ("tzdata", "postinst", "b0187d24148275b6de20552ddebc7d5b16c89f16a339dadcf777ff05676f5bc5", Effect("base-files")),
    ("udev", "postinst", "bda78e68b8b373e545b945c7947883c053d32e410bee4c9d88bc981def5cd44d", Ignored("the hardware database is left out")),
    ("udev", "preinst", "33ff347c9f1a8c9aa34e971f572c8b7f0055f6f9f119b90b24934d735b057a46", Ignored("it only checks that /usr is merged")),
];

pub(super) fn answer(package: &str, script: &str, digest: &str) -> Option<Answer> {
    let found = KNOWN.iter().find(|(name, kind, sha256, _)| (*name, *kind, *sha256) == (package, script, digest))?;
    Some(match found.3 {
        Effect(name) => Answer::effect(name),
        Ignored(reason) => Answer::ignored(reason),
        Both(name, reason) => Answer::effect(name).and(Answer::ignored(reason)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_by_package_name_and_content() {
        let (package, script, digest, _) = &KNOWN[0];
        assert!(answer(package, script, digest).is_some());
        assert!(answer("other", script, digest).is_none());
        assert!(answer(package, script, &"0".repeat(64)).is_none());
    }

    #[test]
    fn every_entry_has_a_digest_and_an_effect_that_there_is() {
        for (package, script, digest, known) in KNOWN {
            assert!(spec::digest::decode_hex(digest).is_some_and(|bytes| bytes.len() == 32), "{package} {script}");
            if let Effect(name) | Both(name, _) = known {
                assert!(crate::effects::NAMES.contains(name), "{package} {script}: {name}");
            }
        }
    }
}
