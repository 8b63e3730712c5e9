//! UEFI variables as they are measured (TCG PC Client Platform Firmware Profile 1.06, UEFI_VARIABLE_DATA; edk2
//! `SecurityPkg/Library/DxeTpmMeasureBootLib` and `Tcg2Dxe`).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::varstore::VariableStore;
use crate::digest::Digest384;
use crate::guid::Guid;

/// EFI_GLOBAL_VARIABLE.
pub const GLOBAL: Guid = Guid::new(0x8be4df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
/// EFI_IMAGE_SECURITY_DATABASE_GUID: the vendor of db, dbx and dbt.
pub const SECURITY: Guid = Guid::new(0xd719b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);

/// The name of a variable: UTF-16 without the NUL that ends it. Any sequence of units but NUL is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u16>);

impl Name {
    /// From UTF-16 units without the NUL at the end.
    pub fn from_units(units: Vec<u16>) -> Self {
        Self(units)
    }

    /// The UTF-16 units.
    pub fn units(&self) -> &[u16] {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, text: &str) -> bool {
        self.0.iter().copied().eq(text.encode_utf16())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf16_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// UEFI_VARIABLE_DATA: what is hashed for a variable. One that does not exist is measured with no data.
pub fn variable_data(vendor: &Guid, name: &Name, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(vendor.0);
    bytes.extend((name.units().len() as u64).to_le_bytes());
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend(name.units().iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(data);
    bytes
}

/// The variables that firmware measures before it starts anything, in the order in which it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecureBootVariables {
    /// SecureBoot: `None` where firmware has no Secure Boot, else whether it is on.
    pub secure_boot: Option<bool>,
    /// PK, empty where there is none.
    pub pk: Vec<u8>,
    /// KEK.
    pub kek: Vec<u8>,
    /// db.
    pub db: Vec<u8>,
    /// dbx.
    pub dbx: Vec<u8>,
    /// dbt, which is measured only where it exists.
    pub dbt: Option<Vec<u8>>,
}

impl SecureBootVariables {
    /// What firmware with Secure Boot measures when it starts from this store: on when a platform key is enrolled.
    pub fn of_store(store: &VariableStore<'_>) -> Self {
        let data = |vendor, name| store.get(vendor, name).map(|variable| variable.data.to_vec());
        let pk = data(&GLOBAL, "PK").unwrap_or_default();
        Self {
            secure_boot: Some(!pk.is_empty()),
            pk,
            kek: data(&GLOBAL, "KEK").unwrap_or_default(),
            db: data(&SECURITY, "db").unwrap_or_default(),
            dbx: data(&SECURITY, "dbx").unwrap_or_default(),
            dbt: data(&SECURITY, "dbt"),
        }
    }

    /// The measured variables: name and digest of the event.
    pub fn events(&self) -> Vec<(&'static str, Digest384)> {
        let secure_boot = self.secure_boot.map(|on| [u8::from(on)]);
        let secure_boot = secure_boot.as_ref().map_or(&[][..], |byte| byte);
        let mut variables = Vec::from([
            ("SecureBoot", GLOBAL, secure_boot),
            ("PK", GLOBAL, &self.pk),
            ("KEK", GLOBAL, &self.kek),
            ("db", SECURITY, &self.db),
            ("dbx", SECURITY, &self.dbx),
        ]);
        variables.extend(self.dbt.as_deref().map(|data| ("dbt", SECURITY, data)));
        let digest = |(name, vendor, data): (&'static str, Guid, &[u8])| {
            (name, Digest384::of(&variable_data(&vendor, &name.into(), data)))
        };
        variables.into_iter().map(digest).collect()
    }
}
