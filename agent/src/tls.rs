//! What all who connect outwards share: TLS and whom it trusts, and errors told with their causes.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

/// TLS that has yet to be told whom it trusts.
///
/// # Errors
/// The provider of its ciphers knows no version of it.
pub(crate) fn untrusting(
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))
}

/// TLS that trusts whom this machine trusts; `wanted` if an address asks for it.
///
/// # Errors
/// It is wanted and nothing on this machine vouches for anybody; the text says what to install.
pub(crate) fn tls(wanted: bool) -> Result<ClientConfig, String> {
    let tls = untrusting(Arc::new(rustls::crypto::ring::default_provider()))?;
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
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
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
