//! Key files: `FILE` of mode 0600 with the private key, `FILE.pub` with the public one.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use store::{StoreError, open_regular, write_new};
use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::key::{PrivateKey, PublicKey};

/// What the names of public key files end in.
pub const PUBLIC_SUFFIX: &str = ".pub";

/// No key file is larger.
const MAX_BYTES: u64 = 64 << 10;

/// Where the public key of the private key `path` is.
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(PUBLIC_SUFFIX);
    name.into()
}

impl PrivateKey {
    /// Writes both halves. Refuses where either file is there already.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let public = public_path(path);
        if path.symlink_metadata().is_ok() {
            return Err(KeyError::Exists(path.to_owned()));
        }
        write_half(&public, self.public().to_pem()?.as_bytes(), 0o644)?;
        write_half(path, self.to_pem()?.as_bytes(), 0o600).inspect_err(|_| {
            // Written above: a public key without its private half would only mislead.
            let _ = fs::remove_file(&public);
        })
    }

    /// Reads a private key that nobody else may read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let file = open_regular(path).map_err(KeyError::io(path))?;
        let mode = file.metadata().map_err(KeyError::io(path))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        Self::from_pem(&path.display().to_string(), &read_text(path, file)?)
    }
}

impl PublicKey {
    /// Reads a public key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let file = open_regular(path).map_err(KeyError::io(path))?;
        Self::from_pem(&path.display().to_string(), &read_text(path, file)?)
    }
}

fn write_half(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    write_new(path, bytes, mode).map_err(|error| match error {
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            KeyError::Exists(path.to_owned())
        }
        error => error.into(),
    })
}

fn read_text(path: &Path, file: fs::File) -> Result<Zeroizing<String>, KeyError> {
    // As large as it gets from the start: a buffer that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(1 + usize::try_from(MAX_BYTES).unwrap_or_default()));
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(KeyError::io(path))?;
    Ok(text)
}
