//! What the HTTP clients of the engine's side share: whom TLS trusts, and errors told with their causes.

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{ClientConfig, RootCertStore};

/// TLS that trusts whom this machine trusts; `wanted` if an address asks for it.
///
/// # Errors
/// It is wanted and nothing on this machine vouches for anybody; the text says what to install.
pub(super) fn tls(wanted: bool) -> Result<ClientConfig, String> {
    let provider = rustls::crypto::ring::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?;
    match (tls.clone().with_native_roots(), wanted) {
        (Ok(tls), _) => Ok(tls.with_no_client_auth()),
        // Without TLS nobody needs to be vouched for.
        (Err(_none), false) => {
            Ok(tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        }
        (Err(error), true) => Err(format!("no CA certificates ({error}): install ca-certificates")),
    }
}

/// An error and what caused it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}
