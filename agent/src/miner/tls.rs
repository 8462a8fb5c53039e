//! TLS to a pool: whom it trusts.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

use crate::config::PoolTrust;
use crate::tls::{tls, untrusting};

/// TLS that trusts as configured.
///
/// # Errors
/// Nobody can be trusted: what is missing or wrong.
pub fn connector(trust: &PoolTrust) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = untrusting(Arc::clone(&provider))?;
    let pinned = |fingerprint| Arc::new(Pinned { provider, fingerprint });
    let config = match trust {
        PoolTrust::System => return Ok(TlsConnector::from(Arc::new(tls(true)?))),
        PoolTrust::Authorities(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added =
                    certificate.map_err(|error| error.to_string()).and_then(|certificate| {
                        roots.add(certificate).map_err(|error| error.to_string())
                    });
                added.map_err(|error| format!("tls.ca_file: {error}"))?;
            }
            if roots.is_empty() {
                return Err("tls.ca_file holds no certificate in PEM form".into());
            }
            builder.with_root_certificates(roots)
        }
        PoolTrust::Fingerprint(fingerprint) => {
            builder.dangerous().with_custom_certificate_verifier(pinned(Some(*fingerprint)))
        }
        PoolTrust::Anybody => builder.dangerous().with_custom_certificate_verifier(pinned(None)),
    };
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

/// Trusts one certificate whatever it says of itself, or any; who shows it must own its key in either case.
#[derive(Debug)]
struct Pinned {
    provider: Arc<CryptoProvider>,
    fingerprint: Option<[u8; 32]>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen: [u8; 32] = Sha256::digest(end_entity).into();
        match self.fingerprint {
            Some(wanted) if wanted != seen => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
