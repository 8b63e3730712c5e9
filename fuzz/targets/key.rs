//! A public key that is accepted comes back from its own text, and a private key's public half does too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sign::{PrivateKey, PublicKey};

fuzz_target!(|text: &str| {
    let private = PrivateKey::from_pem("key", text).ok();
    if let Some(key) = &private {
        let again = PrivateKey::from_pem("key", &key.to_pem().expect("a key has a text")).expect("its own text");
        assert_eq!(again.public(), key.public());
    }
    for key in PublicKey::from_pem("key.pub", text).ok().into_iter().chain(private.map(|key| key.public())) {
        assert_eq!(PublicKey::from_pem("key.pub", &key.to_pem().expect("a key has a text")).ok(), Some(key));
    }
});
