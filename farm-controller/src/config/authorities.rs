//! Certificate authorities of the operator's own, from a `ca_file` of the site file.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::site_check::Checker;
use super::source::FieldPath;

/// Largest file read: far above the bundle of a whole operating system.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Who vouches for a server, in place of those whom this machine trusts. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// From a file of certificates in PEM form.
    ///
    /// # Errors
    /// In words: it cannot be read, or holds no certificate or one that cannot vouch.
    pub fn read(file: &Path) -> Result<Self, String> {
        let name = file.display();
        let size = std::fs::metadata(file).map_err(|error| format!("{name}: {error}"))?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("{name} is {size} bytes; at most {FILE_BYTES_MAX} are read"));
        }
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| format!("{name}: {error}"))?;
        if certificates.is_empty() {
            return Err(format!("{name} holds no certificate in PEM form"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(Self(certificates))
    }

    /// As TLS wants them.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.0.iter().cloned());
        roots
    }
}

impl Checker<'_> {
    /// The file beside the site file, if one is named.
    pub(super) fn authorities(
        &mut self,
        path: &FieldPath,
        file: Option<&Path>,
    ) -> Option<Authorities> {
        let read = Authorities::read(&self.beside(file?));
        read.map_err(|problem| self.say(&path.key("ca_file"), problem)).ok()
    }
}
