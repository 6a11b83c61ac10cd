//! Whose certificates are trusted: the machine's authorities, and a registry's own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Where distributions keep all authorities in one file; the first that exists is read.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client's configuration that trusts the machine's authorities and those that the directories
/// `own` hold for the registry `authority`. Files are read now, so a change needs no restart.
///
/// # Errors
///
/// When a certificate that somebody put there for this registry can't be read. The machine's
/// bundle may be absent or hold odd entries: then fewer certificates are trusted.
pub(super) fn config(own: &[PathBuf], authority: &str) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let asked = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = asked.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()));
    if let Some(Ok(certificates)) = bundle.map(CertificateDer::pem_file_iter) {
        roots.add_parsable_certificates(certificates.flatten());
    }
    for file in own.iter().flat_map(|dir| authority_files(&dir.join(authority))) {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", file.display()));
        let certificates = CertificateDer::pem_file_iter(&file).map_err(|e| wrong(e.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn authority_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    files.sort();
    files
}
