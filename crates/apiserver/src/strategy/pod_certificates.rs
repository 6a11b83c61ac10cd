//! Requests for the certificates of pods: who asks has the key, and what a signer gives is for that key.

use super::keys::{self, PublicKey, Unfit};
use super::{Kind, Rules, Strategy, keep_other_side, pem, validation};
use crate::context::Context;
use api::field::{FieldError, Path, Raw};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use schema::{Map, Resource};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Debug)]
pub struct PodCertificates(pub Rules);

/// Bytes of a key, of a proof, of a request.
const MAX_KEY: usize = 10 * 1024;
const MAX_CHAIN: usize = 100 * 1024;
const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");

impl Strategy for PodCertificates {
    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
    }

    fn validate_create(&self, _: &Context, kind: Kind<'_>, object: &Map) -> Vec<FieldError> {
        let mut errors = validation::create(kind, object);
        errors.extend(key_error(object));
        errors
    }

    fn validate_update(
        &self,
        cx: &Context,
        kind: Kind<'_>,
        subresource: &str,
        object: &Map,
        old: &Map,
    ) -> Vec<FieldError> {
        let mut errors = validation::update(kind, subresource, object, old);
        let issues = subresource == "status" && schema::validation::issues_certificate(object, old);
        if errors.is_empty() && issues {
            errors.extend(chain_errors(object, old, cx.now));
        }
        errors
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

fn bytes(object: &Map, field: &str) -> Vec<u8> {
    STANDARD.decode(object.str_at(&["spec", field])).unwrap_or_default()
}

/// What is wrong with the key of a request: its form, or the proof that who asks has it.
fn key_error(object: &Map) -> Option<FieldError> {
    let fields = ["pkixPublicKey", "proofOfPossession", "stubPKCS10Request"];
    let values = fields.map(|field| bytes(object, field));
    if let Some(at) = values.iter().position(|value| value.len() > MAX_KEY) {
        return Some(FieldError::too_long(&SPEC.child(fields[at]), MAX_KEY));
    }
    let [key, proof, request] = &values;
    match (key.is_empty(), proof.is_empty(), request.is_empty()) {
        (true, true, false) => request_error(request),
        (false, false, true) => proof_error(object, key, proof),
        _ => {
            let why = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            Some(FieldError::invalid_unshown(&SPEC, why))
        }
    }
}

fn request_error(der: &[u8]) -> Option<FieldError> {
    let path = SPEC.child("stubPKCS10Request");
    let parsed = X509CertificationRequest::from_der(der).ok().filter(|(rest, _)| rest.is_empty());
    let Some((_, request)) = parsed else {
        return Some(FieldError::invalid_unshown(&path, "must be a valid PKCS#10 CSR"));
    };
    let key = PublicKey::of(&request.certification_request_info.subject_pki);
    if let Some(error) = unfit(&path, &key, der, "must be a valid PKCS#10 CSR") {
        return Some(error);
    }
    (!keys::is_signed(&request)).then(|| FieldError::invalid_unshown(&path, "could not verify CSR signature"))
}

fn proof_error(object: &Map, key: &[u8], proof: &[u8]) -> Option<FieldError> {
    const MALFORMED: &str = "must be a valid PKIX-serialized public key";
    let path = SPEC.child("pkixPublicKey");
    let Some(info) = keys::parse(key) else {
        return Some(FieldError::invalid(&path, STANDARD.encode(key), MALFORMED));
    };
    let parsed = PublicKey::of(&info);
    if let Some(error) = unfit(&path, &parsed, key, MALFORMED) {
        return Some(error);
    }
    let text = object.str_at(&["spec", "podUID"]);
    (!parsed.verify(text.as_bytes(), proof)).then(|| {
        FieldError::invalid_unshown(&SPEC.child("proofOfPossession"), "could not verify proof-of-possession signature")
    })
}

fn unfit(path: &Path<'_>, key: &PublicKey<'_>, der: &[u8], malformed: &str) -> Option<FieldError> {
    Some(match key.fit().err()? {
        Unfit::Malformed => FieldError::invalid(path, STANDARD.encode(der), malformed),
        Unfit::Curve(curve) => {
            let why = "elliptic public keys must use curve P256 or P384";
            FieldError::invalid(path, format!("curve {curve}"), why)
        }
        Unfit::Modulus(bits) => {
            let why = "RSA keys must have modulus size 3072 or 4096";
            FieldError::invalid(path, format!("{bits}-bit modulus"), why)
        }
        Unfit::Kind => {
            let why = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
            FieldError::invalid(path, STANDARD.encode(der), why)
        }
    })
}

/// What is wrong with a chain of certificates that a signer gives.
fn chain_errors(object: &Map, old: &Map, now: Timestamp) -> Vec<FieldError> {
    let path = STATUS.child("certificateChain");
    let text = object.str_at(&["status", "certificateChain"]);
    if text.len() > MAX_CHAIN {
        return vec![FieldError::too_long(&path, MAX_CHAIN)];
    }
    let refused = |why: &str| vec![FieldError::invalid(&path, text, why)];
    let blocks = pem::blocks(text);
    let Some((leaf, others)) = blocks.split_first() else {
        return refused("issued certificate chain must contain at least one certificate");
    };
    if leaf.label != pem::CERTIFICATE {
        return refused("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Some(certificate) = only_certificate(&leaf.der) else {
        return refused("leaf certificate does not parse as valid X.509");
    };
    let mut errors = name_errors(&path, &certificate);
    if !is_for_key_of(&certificate, old) {
        errors.extend(refused("leaf certificate was not issued to the requested public key"));
        return errors;
    }
    let (times, missing) = times(object);
    errors.extend(missing);
    let Some([since, until, refresh]) = times.filter(|_| errors.is_empty()) else { return errors };
    errors.extend(time_error(object, &certificate, [since, until, refresh], now));
    if !errors.is_empty() {
        return errors;
    }
    for block in others {
        if block.label != pem::CERTIFICATE {
            // Upstream's own spelling.
            return refused("issued certificate chain must consist entirely of CERTFICATE PEM blocks");
        }
        if only_certificate(&block.der).is_none() {
            return refused("intermediate certificate does not parse as valid X.509");
        }
    }
    errors
}

fn only_certificate(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

/// Names of hosts without empty parts, and addresses of mail.
fn name_errors(path: &Path<'_>, certificate: &X509Certificate<'_>) -> Vec<FieldError> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
    let mut errors = Vec::new();
    for name in names.iter().filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None }) {
        let mut refuse = |why: &str| errors.push(FieldError::invalid(path, name, why));
        if name.is_empty() {
            refuse("leaf certificate should not contain empty DNSName");
        }
        if name.contains("..") {
            refuse("leaf certificate's DNSName should not contain '..'");
        }
        if name.starts_with('.') || name.ends_with('.') {
            refuse("leaf certificate's DNSName should not start or end with '.'");
        }
    }
    for name in
        names.iter().filter_map(|name| if let GeneralName::RFC822Name(name) = name { Some(*name) } else { None })
    {
        if !is_address(name) {
            let why = "leaf certificate should not contain invalid EmailAddress";
            errors.push(FieldError::invalid(path, name, why));
        }
    }
    errors
}

/// Whether a text is an address of mail, as certificates have them: without a person's name around it.
fn is_address(text: &str) -> bool {
    let atoms = |text: &str| {
        let special = |c: char| c.is_ascii_control() || c.is_ascii_whitespace() || "()<>[]:;@\\,\"".contains(c);
        text.split('.').all(|atom| !atom.is_empty() && !atom.contains(special))
    };
    let quoted = |text: &str| text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    let literal = |text: &str| text.starts_with('[') && text.ends_with(']');
    let parts = text.rsplit_once('@');
    parts.is_some_and(|(local, domain)| (atoms(local) || quoted(local)) && (atoms(domain) || literal(domain)))
}

/// Whether a certificate is for the key that the request asks for.
fn is_for_key_of(certificate: &X509Certificate<'_>, request: &Map) -> bool {
    let same = |asked: &SubjectPublicKeyInfo<'_>| *asked == certificate.tbs_certificate.subject_pki;
    let stub = bytes(request, "stubPKCS10Request");
    if stub.is_empty() {
        return keys::parse(&bytes(request, "pkixPublicKey")).is_some_and(|asked| same(&asked));
    }
    let parsed = X509CertificationRequest::from_der(&stub);
    parsed.is_ok_and(|(_, request)| same(&request.certification_request_info.subject_pki))
}

/// From when and until when the certificate is good, and when it is to be replaced; and which of these are missing.
fn times(object: &Map) -> (Option<[Timestamp; 3]>, Vec<FieldError>) {
    const CONSISTENT: &str = "must be present and consistent with the issued certificate";
    let mut errors = Vec::new();
    let mut read = |field: &str, why: &str| {
        let time = object.str_at(&["status", field]).parse::<Timestamp>().ok();
        if time.is_none() {
            errors.push(FieldError::required(&STATUS.child(field), why));
        }
        time
    };
    let (since, until) = (read("notBefore", CONSISTENT), read("notAfter", CONSISTENT));
    let refresh = read("beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]");
    (since.zip(until).zip(refresh).map(|((since, until), refresh)| [since, until, refresh]), errors)
}

fn time_error(
    object: &Map,
    certificate: &X509Certificate<'_>,
    [since, until, refresh]: [Timestamp; 3],
    now: Timestamp,
) -> Option<FieldError> {
    let wrong = |field: &str, why: &str| {
        Some(FieldError::invalid(&STATUS.child(field), object.str_at(&["status", field]), why))
    };
    let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    if since.as_second() != from || since.subsec_nanosecond() != 0 {
        return wrong("notBefore", "must be set to the NotBefore time encoded in the leaf certificate");
    }
    if since.duration_since(now).abs() >= SignedDuration::from_mins(5) {
        return wrong("notBefore", "must be set to within 5 minutes of kube-apiserver's current time");
    }
    if until.as_second() != to || until.subsec_nanosecond() != 0 {
        return wrong("notAfter", "must be set to the NotAfter time encoded in the leaf certificate");
    }
    let lifetime = to - from;
    let most = object.at(&["spec", "maxExpirationSeconds"]).and_then(schema::Value::as_i64).unwrap_or(0);
    let why = match lifetime {
        short if short < 3600 => Some("leaf certificate lifetime must be >= 1 hour".to_owned()),
        long if long > most => Some(format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})")),
        _ => None,
    };
    if let Some(why) = why {
        // A duration of Go is a number of nanoseconds.
        let shown = Raw((i128::from(lifetime) * 1_000_000_000).to_string());
        return Some(FieldError::invalid(&STATUS.child("certificateChain"), shown, why));
    }
    let margin = SignedDuration::from_mins(10);
    if refresh.duration_since(since) < margin {
        return wrong("beginRefreshAt", "must be at least 10 minutes after status.notBefore");
    }
    if until.duration_since(refresh) < margin {
        return wrong("beginRefreshAt", "must be at least 10 minutes before status.notAfter");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    fn told(error: impl IntoIterator<Item = FieldError>) -> Vec<String> {
        error.into_iter().map(|error| error.to_string()).collect()
    }

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::new(Vec::new())
            .expect("parameters")
            .serialize_request(key)
            .expect("a request")
            .der()
            .to_vec()
    }

    fn with_key(fields: &[(&'static str, Vec<u8>)]) -> Map {
        let mut object = map("{spec: {podUID: u, maxExpirationSeconds: 86400}}");
        for (field, value) in fields {
            object.set_at(&["spec", field], STANDARD.encode(value));
        }
        object
    }

    #[test]
    fn who_asks_shows_that_he_has_the_key() {
        let key = KeyPair::generate().expect("a key");
        let good = request(&key);
        assert_eq!(told(key_error(&with_key(&[("stubPKCS10Request", good.clone())]))), [""; 0]);
        let mut forged = good.clone();
        *forged.last_mut().expect("bytes") ^= 1;
        assert_eq!(
            told(key_error(&with_key(&[("stubPKCS10Request", forged)]))),
            ["spec.stubPKCS10Request: Invalid value: could not verify CSR signature"]
        );
        assert_eq!(
            told(key_error(&with_key(&[("stubPKCS10Request", vec![1])]))),
            ["spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR"]
        );
        let one =
            "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        let public = key.subject_public_key_info();
        assert_eq!(told(key_error(&with_key(&[]))), [one]);
        assert_eq!(
            told(key_error(&with_key(&[("stubPKCS10Request", good), ("pkixPublicKey", public.clone())]))),
            [one]
        );
        assert_eq!(
            told(key_error(&with_key(&[("pkixPublicKey", public), ("proofOfPossession", vec![1])]))),
            ["spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature"]
        );
        assert_eq!(
            told(key_error(&with_key(&[("pkixPublicKey", vec![1]), ("proofOfPossession", vec![1])]))),
            [r#"spec.pkixPublicKey: Invalid value: "AQ==": must be a valid PKIX-serialized public key"#]
        );
        assert_eq!(
            told(key_error(&with_key(&[("stubPKCS10Request", vec![0; MAX_KEY + 1])]))),
            ["spec.stubPKCS10Request: Too long: may not be more than 10240 bytes"]
        );
    }

    #[test]
    fn what_a_signer_gives_is_for_the_key_and_says_when_it_ends() {
        let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let old = with_key(&[("stubPKCS10Request", request(&key))]);
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let at = |seconds: i64| now.checked_add(SignedDuration::from_secs(seconds)).expect("a time");
        let issue = |key: &KeyPair, hours: i64, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).expect("parameters");
            let time =
                |at: Timestamp| (std::time::UNIX_EPOCH + std::time::Duration::from_secs(at.as_second() as u64)).into();
            (params.not_before, params.not_after) = (time(now), time(at(hours * 3600)));
            params.self_signed(key).expect("a certificate").pem()
        };
        let given = |chain: &str, [since, until, refresh]: [i64; 3]| {
            let mut object = old.clone();
            object.set_at(&["status", "certificateChain"], chain);
            for (field, seconds) in [("notBefore", since), ("notAfter", until), ("beginRefreshAt", refresh)] {
                object.set_at(&["status", field], at(seconds).to_string());
            }
            told(chain_errors(&object, &old, now))
        };
        let good = issue(&key, 2, &["a.example"]);
        let times = [0, 7200, 3600];
        assert_eq!(given(&good, times), [""; 0]);
        assert_eq!(given(&format!("{good}{good}"), times), [""; 0]);
        let ends = |chain: &str, times: [i64; 3], why: &str| {
            let told = given(chain, times);
            assert!(told.len() == 1 && told[0].ends_with(why), "{told:?}");
        };
        ends("", times, "issued certificate chain must contain at least one certificate");
        ends(&key.serialize_pem(), times, "must consist entirely of CERTIFICATE PEM blocks");
        ends(&issue(&other, 2, &[]), times, "leaf certificate was not issued to the requested public key");
        ends(
            &issue(&key, 2, &["a..example"]),
            times,
            r#""a..example": leaf certificate's DNSName should not contain '..'"#,
        );
        ends(&good, [1, 7200, 3600], "must be set to the NotBefore time encoded in the leaf certificate");
        ends(&good, [0, 7201, 3600], "must be set to the NotAfter time encoded in the leaf certificate");
        ends(&good, [0, 7200, 599], "must be at least 10 minutes after status.notBefore");
        ends(&good, [0, 7200, 6601], "must be at least 10 minutes before status.notAfter");
        ends(
            &issue(&key, 0, &[]),
            [0, 0, 0],
            "status.certificateChain: Invalid value: 0: leaf certificate lifetime must be >= 1 hour",
        );
        ends(
            &issue(&key, 25, &[]),
            [0, 90_000, 3600],
            "Invalid value: 90000000000000: leaf certificate lifetime must be <= spec.maxExpirationSeconds (86400)",
        );
        ends(&format!("{good}{}", other.serialize_pem()), times, "must consist entirely of CERTFICATE PEM blocks");
        let mut bare = old.clone();
        bare.set_at(&["status", "certificateChain"], good.as_str());
        assert_eq!(chain_errors(&bare, &old, now).len(), 3, "all times are to be told");
    }

    #[test]
    fn addresses_of_mail() {
        for good in ["a@b", "a.b@c.example", "\"a b\"@c", "a@[192.0.2.1]"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "a", "@b", "a@", "a..b@c", "a b@c", "a@b@c"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
