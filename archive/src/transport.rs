//! Bytes from a mirror: HTTP, HTTPS or a directory. Nothing here is trusted; callers verify what arrives.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spec::{Diagnostic, Outcome};
use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

use crate::apt_sources::is_security;
use crate::mirror::{Mirror, Patience};
use crate::resolver::RememberingResolver;

/// What Bullion calls itself.
const USER_AGENT: &str = "bullion/0.1";
/// Where Debian, and most others, keep the certificates that the host trusts. Mirrors inside a company have their own.
const HOST_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A transfer that failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The mirror does not have the file.
    #[error("{url} is not there")]
    Gone {
        /// The file's address.
        url: String,
    },
    /// The mirror answered, but not with the file.
    #[error("{url}: the mirror answered {status}")]
    Refused {
        /// The file's address.
        url: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// The mirror cannot be reached, or the transfer broke off.
    #[error("reading {url}")]
    Broken {
        /// The file's address.
        url: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file is larger than any such file can be.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// The file's address.
        url: String,
        /// How much was allowed.
        limit: u64,
    },
}

impl TransportError {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::TooLarge { .. } => false,
            Self::Refused { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Broken { url, .. } => !url.starts_with("file:"),
        }
    }
}

impl Diagnostic for TransportError {
    fn outcome(&self) -> Outcome {
        Outcome::InputMismatch
    }

    fn hint(&self) -> Option<String> {
        Some("check the network and the mirror, or name another one with --mirror URL (of suites of the security archive: BULLION_SECURITY_MIRROR=URL)".to_owned())
    }
}

/// An answer that is being read.
pub(crate) struct Body {
    /// Where in the file the answer starts: what was asked for, or 0 if the mirror cannot start in the middle.
    pub offset: u64,
    pub reader: Box<dyn Read + Send>,
}

/// The HTTP client for the roots of a mirror. Connections are kept open and shared by its clones. The usual variables (`http_proxy`,
/// `no_proxy`, ...) name a proxy, which must allow CONNECT to the mirror's port.
pub(crate) fn agent(bases: [&str; 2], patience: Patience) -> ureq::Agent {
    let roots = if bases.iter().any(|base| base.starts_with("https:")) { host_certificates() } else { None };
    let tls = TlsConfig::builder().root_certs(roots.unwrap_or(RootCerts::WebPki)).build();
    let connect = patience.silence.min(Duration::from_secs(15));
    let config = ureq::Agent::config_builder()
        .user_agent(USER_AGENT)
        .http_status_as_error(false)
        .tls_config(tls)
        .timeout_resolve(Some(connect))
        .timeout_connect(Some(connect))
        .timeout_recv_response(Some(patience.silence))
        .timeout_per_read(Some(patience.silence))
        .max_idle_connections_per_host(8)
        .build();
    ureq::Agent::with_parts(config, DefaultConnector::default(), RememberingResolver::default())
}

fn host_certificates() -> Option<RootCerts> {
    let pem = std::fs::read(HOST_CERTIFICATES).ok()?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then(|| RootCerts::Specific(Arc::new(certificates)))
}

impl Mirror {
    /// The root that has a file: the paths of the security archive's suites and packages are none of the main one's.
    fn base_of(&self, path: &str) -> &str {
        let suite = path.strip_prefix("dists/").and_then(|rest| rest.split('/').next());
        let security = path.starts_with("pool/updates/") || suite.is_some_and(is_security);
        if security { &self.security } else { &self.base }
    }

    /// The address of a file, with everything that is not plainly allowed in a path percent-encoded, `+` included.
    pub(crate) fn url(&self, path: &str) -> String {
        let mut url = format!("{}/", self.base_of(path));
        for byte in path.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                url.push(char::from(byte));
            } else {
                url.push_str(&format!("%{byte:02x}"));
            }
        }
        url
    }

    /// Starts reading a file at `offset`. One attempt.
    pub(crate) fn open(&self, path: &str, offset: u64) -> Result<Body, TransportError> {
        match self.base_of(path).strip_prefix("file://") {
            Some(root) => open_file(PathBuf::from(root).join(path), offset),
            None => self.open_http(self.url(path), offset),
        }
    }

    fn open_http(&self, url: String, offset: u64) -> Result<Body, TransportError> {
        let mut request = self.agent.get(&url);
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let response =
            request.call().map_err(|error| TransportError::Broken { url: url.clone(), source: error.into() })?;
        let status = response.status();
        let offset = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                let header = response.headers().get("Content-Range").and_then(|value| value.to_str().ok());
                let start = header.and_then(range_start);
                start.ok_or_else(|| TransportError::Refused { url, status })?
            }
            // What is there already reaches beyond the file's end: start again.
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => return self.open_http(url, 0),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(TransportError::Gone { url }),
            _ => return Err(TransportError::Refused { url, status }),
        };
        Ok(Body { offset, reader: Box::new(response.into_body().into_reader()) })
    }

    /// A whole small file, tried as often as the mirror's patience says.
    pub(crate) fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        self.retrying(|| {
            let url = self.url(path);
            let body = self.open(path, 0)?;
            let mut bytes = Vec::new();
            let read = body.reader.take(limit + 1).read_to_end(&mut bytes);
            read.map_err(|error| TransportError::Broken { url: url.clone(), source: error.into() })?;
            if bytes.len() as u64 > limit {
                return Err(TransportError::TooLarge { url, limit });
            }
            Ok(bytes)
        })
    }

    /// Does `attempt` until it succeeds, fails for good, or patience runs out.
    fn retrying<T>(&self, attempt: impl Fn() -> Result<T, TransportError>) -> Result<T, TransportError> {
        let mut failures = 0;
        loop {
            match attempt() {
                Err(error) if error.is_passing() && self.may_retry(&mut failures) => {}
                other => return other,
            }
        }
    }

    /// Counts a failure; pauses and says true if there may be another attempt.
    pub(crate) fn may_retry(&self, failures: &mut u32) -> bool {
        *failures += 1;
        if *failures >= self.patience.attempts {
            return false;
        }
        std::thread::sleep(self.patience.first_pause * 2u32.saturating_pow(*failures - 1));
        true
    }
}

/// The first position of `Content-Range: bytes 100-199/200` (RFC 9110, 14.4).
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

fn open_file(path: PathBuf, offset: u64) -> Result<Body, TransportError> {
    let url = format!("file://{}", path.display());
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TransportError::Gone { url }),
        Err(error) => return Err(TransportError::Broken { url, source: error.into() }),
    };
    file.seek(SeekFrom::Start(offset)).map_err(|error| TransportError::Broken { url, source: error.into() })?;
    Ok(Body { offset, reader: Box::new(file) })
}
