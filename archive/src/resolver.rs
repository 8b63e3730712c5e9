//! Host names are looked up once in a program's life. ureq asks before every request, open connection or not, and with a
//! hundred packages one lost DNS answer (the C library waits 5 s for it) is likely.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// What is looked up: the scheme, which decides the port where none is written, and the host with its port.
type Asked = (Option<String>, String);

/// ureq's own resolver, with a memory.
#[derive(Debug, Default)]
pub(crate) struct RememberingResolver {
    asked: DefaultResolver,
    known: Mutex<HashMap<Asked, Vec<SocketAddr>>>,
}

impl Resolver for RememberingResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let key = (uri.scheme_str().map(str::to_owned), authority);
        // Held during the look-up: the threads that start together need not all ask.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = known.get(&key) {
            let mut resolved = self.empty();
            addresses.iter().for_each(|address| resolved.push(*address));
            return Ok(resolved);
        }
        let resolved = self.asked.resolve(uri, config, timeout)?;
        known.insert(key, resolved.iter().copied().collect());
        Ok(resolved)
    }
}
