//! Where the daemon answers browsers and monitoring.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::layer::Layers;
use super::value;

/// Where the daemon answers when nothing says otherwise: this machine only.
const DEFAULT_LISTEN: &str = "127.0.0.1:8432";

/// Where the daemon answers browsers and monitoring, and whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The address; `None` if it does not.
    pub listen: Option<SocketAddr>,
    /// The file with the token that callers must show.
    pub token_file: Option<PathBuf>,
    /// The certificate, and those between it and its root, in PEM.
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's key, in PEM.
    pub tls_key_file: Option<PathBuf>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        let listen = DEFAULT_LISTEN.parse().ok();
        Self { listen, token_file: None, tls_cert_file: None, tls_key_file: None }
    }
}

impl HttpSettings {
    pub(super) fn resolve(layers: &mut Layers<'_>) -> Self {
        let default = Self::default();
        let settings = Self {
            listen: layers.value("listen", value::listen).unwrap_or(default.listen),
            token_file: layers.value("token_file", value::path),
            tls_cert_file: layers.value("tls_cert_file", value::path),
            tls_key_file: layers.value("tls_key_file", value::path),
        };
        let tls = (&settings.tls_cert_file, &settings.tls_key_file);
        if settings.listen.is_some_and(|address| !address.ip().is_loopback()) {
            if tls.0.is_none() || tls.1.is_none() || settings.token_file.is_none() {
                layers.mistake(
                    "listen",
                    "who can reach this address would see everything",
                    "set `tls_cert_file`, `tls_key_file` and `token_file`, too, or listen on \
                     127.0.0.1",
                );
            }
        } else if tls.0.is_some() != tls.1.is_some() {
            for key in ["tls_cert_file", "tls_key_file"] {
                layers.mistake(key, "a certificate and its key belong together", "set both");
            }
        }
        settings
    }
}
