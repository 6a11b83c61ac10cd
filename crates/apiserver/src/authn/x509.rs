//! Client certificates: the common name is the user, the organizations are its groups.

use super::{Authenticator, AuthnError, Chain, Peer};
use crate::measure::{Histogram, head};
use crate::registry::measures::Tells;
use crate::user::UserInfo;
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid;

/// Certificates remembered as good; above this many, the memory forgets everything rather than grow.
const MOST: usize = 1024;

/// Verifies chains of client certificates against authorities that may be replaced.
pub struct ClientCertificates {
    authorities: ArcSwapOption<Authorities>,
    /// How long the certificates that requests showed were still good.
    left: Histogram,
}

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
const LEFT: &[f64] = &[
    0.0,
    HOUR / 2.0,
    HOUR,
    2.0 * HOUR,
    6.0 * HOUR,
    12.0 * HOUR,
    DAY,
    2.0 * DAY,
    4.0 * DAY,
    7.0 * DAY,
    30.0 * DAY,
    90.0 * DAY,
    180.0 * DAY,
    360.0 * DAY,
];

impl Tells for ClientCertificates {
    fn render(&self, out: &mut String) -> std::fmt::Result {
        let name = "apiserver_client_certificate_expiration_seconds";
        head(
            out,
            name,
            "histogram",
            "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.",
        )?;
        self.left.write(out, name, "")
    }
}

struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// By the digest of the whole chain: until when it is good, and whose it is.
    good: Mutex<HashMap<[u8; 32], (u64, Option<UserInfo>)>>,
}

impl ClientCertificates {
    /// `authorities` is a PEM bundle; empty: no certificate is good.
    ///
    /// # Errors
    /// The bundle cannot be read.
    pub fn new(authorities: &[u8]) -> Result<Self, crate::tls::TlsError> {
        let new = ClientCertificates { authorities: ArcSwapOption::empty(), left: Histogram::of_counts(LEFT) };
        new.replace(authorities)?;
        Ok(new)
    }

    /// Accepts other authorities from now on, also on connections that are open.
    ///
    /// # Errors
    /// The bundle cannot be read; the present authorities stay.
    pub fn replace(&self, authorities: &[u8]) -> Result<(), crate::tls::TlsError> {
        if authorities.is_empty() {
            self.authorities.store(None);
            return Ok(());
        }
        let mut roots = rustls::RootCertStore::empty();
        for certificate in crate::tls::certificates("client CA bundle", authorities)? {
            roots.add(certificate)?;
        }
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto)
            .build()
            .map_err(|e| crate::tls::TlsError::Pem { what: "client CA bundle", why: e.to_string() })?;
        self.authorities.store(Some(Arc::new(Authorities { verifier, good: Mutex::default() })));
        Ok(())
    }

    /// Whose certificate the chain is; `None` when it has no common name.
    ///
    /// # Errors
    /// It is of none of the authorities, not for clients, or not valid now.
    pub fn verify(&self, chain: &Chain) -> Result<Option<UserInfo>, AuthnError> {
        let Some((own, intermediates)) = chain.split_first() else { return Ok(None) };
        let authorities = self.authorities.load();
        let Some(authorities) = authorities.as_ref() else { return Ok(None) };
        let now = UnixTime::now();
        let digest = *chain.digest();
        let mut good = authorities.good.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, user)) = good.get(&digest)
            && now.as_secs() <= *until
        {
            self.left.observe(*until - now.as_secs());
            return Ok(user.clone());
        }
        let refuse = |why: String| AuthnError(format!("verifying the client certificate failed: {why}"));
        authorities.verifier.verify_client_cert(own, intermediates, now).map_err(|e| refuse(e.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(own).map_err(|e| refuse(e.to_string()))?;
        let user = user_of(&parsed, own);
        // An intermediate that ends sooner than the certificate itself is looked at again then.
        let ends = chain.iter().filter_map(|c| x509_parser::parse_x509_certificate(c).ok());
        let until = ends.map(|(_, c)| c.validity().not_after.timestamp()).min().unwrap_or(0);
        if good.len() >= MOST {
            good.clear();
        }
        let left = u64::try_from(until).unwrap_or(0).saturating_sub(now.as_secs());
        self.left.observe(left);
        good.insert(digest, (u64::try_from(until).unwrap_or(0), user.clone()));
        Ok(user)
    }
}

fn user_of(parsed: &X509Certificate<'_>, der: &CertificateDer<'_>) -> Option<UserInfo> {
    let subject = parsed.subject();
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
    let name = subject.iter_common_name().filter_map(text).last().filter(|n| !n.is_empty())?;
    let groups = subject.iter_organization().filter_map(text).collect();
    // kubernetes.io's own attribute of a subject.
    let uid = subject.iter_by_oid(&oid!(1.3.6.1.4.1.57683.2)).filter_map(text).next().unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let credential = ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={hex}")]);
    Some(UserInfo { name, uid, groups, extra: BTreeMap::from([credential]) })
}

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(
        &self,
        _request: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        match peer {
            Some(peer) => self.verify(&peer.certificates),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    }

    fn client(
        authority: &CertifiedIssuer<'static, KeyPair>,
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "devs");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "uid-1");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        params.signed_by(&key, authority).expect("a certificate").der().clone()
    }

    #[test]
    fn the_subject_is_the_user() {
        let authority = authority();
        let known = ClientCertificates::new(authority.pem().as_bytes()).expect("authorities");
        let chain = Chain::from_iter([client(&authority, ExtendedKeyUsagePurpose::ClientAuth)]);
        for _ in 0..2 {
            let user = known.verify(&chain).expect("good").expect("a user");
            assert_eq!(
                (user.name.as_str(), user.groups.as_slice(), user.uid.as_str()),
                ("jane", &["devs".to_owned()][..], "uid-1")
            );
            assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        }
    }

    #[test]
    fn foreign_and_server_certificates_are_refused() {
        let authority = authority();
        let known = ClientCertificates::new(authority.pem().as_bytes()).expect("authorities");
        for (authority, usage) in [
            (&self::authority(), ExtendedKeyUsagePurpose::ClientAuth),
            (&authority, ExtendedKeyUsagePurpose::ServerAuth),
        ] {
            assert!(known.verify(&Chain::from_iter([client(authority, usage)])).is_err());
        }
        assert_eq!(known.verify(&Chain::default()).ok(), Some(None));
    }

    #[test]
    fn replaced_authorities_count_at_once() {
        let (old, new) = (authority(), authority());
        let known = ClientCertificates::new(old.pem().as_bytes()).expect("authorities");
        let chain = Chain::from_iter([client(&old, ExtendedKeyUsagePurpose::ClientAuth)]);
        assert!(known.verify(&chain).is_ok());
        known.replace(new.pem().as_bytes()).expect("authorities");
        assert!(known.verify(&chain).is_err());
    }
}
