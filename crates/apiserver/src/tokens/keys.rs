//! Keys of service account tokens: one signs, several verify, and their JSON Web Key Set.

use super::der::{self, BIT_STRING, CONTEXT_0, CONTEXT_1, INTEGER, OCTET_STRING, OID, SEQUENCE, oid};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde::Serialize;
use thiserror::Error;

/// Why a PEM bundle gives no usable key.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("the token key is not PEM: {0}")]
    Pem(String),
    #[error("the PEM has no {wanted}")]
    Missing { wanted: &'static str },
    #[error("the {kind} cannot be used for tokens: {why} (use RSA of 2048 bits or more, or ECDSA on P-256 or P-384)")]
    Unusable { kind: &'static str, why: String },
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    Es384,
    Rs256,
}

impl Algorithm {
    /// Its name in a token's header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Rs256 => "RS256",
        }
    }
    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

/// A public key that tokens are verified with.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    /// The SHA-256 of the public key's DER form, as upstream names keys.
    id: String,
    /// A curve point, or an RSA key in PKCS#1.
    public: Vec<u8>,
}

impl VerifyingKey {
    /// The `kid` of the tokens it verifies.
    pub fn id(&self) -> &str {
        &self.id
    }
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.verification(), &self.public).verify(message, signature).is_ok()
    }

    fn new(algorithm: Algorithm, public: Vec<u8>) -> Self {
        let null = &[0x05, 0x00][..];
        let identifier = match algorithm {
            Algorithm::Es256 => der::wrap(SEQUENCE, &[&der::wrap(OID, &[oid::EC]), &der::wrap(OID, &[oid::P256])]),
            Algorithm::Es384 => der::wrap(SEQUENCE, &[&der::wrap(OID, &[oid::EC]), &der::wrap(OID, &[oid::P384])]),
            Algorithm::Rs256 => der::wrap(SEQUENCE, &[&der::wrap(OID, &[oid::RSA]), null]),
        };
        let spki = der::wrap(SEQUENCE, &[&identifier, &der::wrap(BIT_STRING, &[&[0], &public])]);
        let digest = ring::digest::digest(&ring::digest::SHA256, &spki);
        VerifyingKey { algorithm, id: URL_SAFE_NO_PAD.encode(digest), public }
    }

    fn from_spki(spki: &[u8]) -> Option<Self> {
        let (spki, _) = der::expect(spki, SEQUENCE)?;
        let (identifier, rest) = der::expect(spki, SEQUENCE)?;
        let (bits, _) = der::expect(rest, BIT_STRING)?;
        let public = bits.strip_prefix(&[0])?.to_vec();
        let (kind, parameters) = der::expect(identifier, OID)?;
        let algorithm = match kind {
            oid::RSA => Algorithm::Rs256,
            oid::EC => curve(der::expect(parameters, OID)?.0)?,
            _ => return None,
        };
        let uncompressed = |size| public.len() == size && public.first() == Some(&4);
        let sound = match algorithm {
            Algorithm::Es256 => uncompressed(65),
            Algorithm::Es384 => uncompressed(97),
            Algorithm::Rs256 => der::expect(&public, SEQUENCE).is_some(),
        };
        sound.then(|| VerifyingKey::new(algorithm, public))
    }

    /// Every key in a PEM bundle: public keys, certificates, and private keys for their public half.
    ///
    /// Fails when the bundle is not PEM, has none, or has one of a kind that no token is signed with.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|e| KeyError::Pem(e.to_string()))?;
            let unusable = |kind, why: &str| KeyError::Unusable { kind, why: why.to_owned() };
            keys.push(match kind {
                SectionKind::PublicKey => {
                    VerifyingKey::from_spki(&der).ok_or_else(|| unusable("public key", "unknown kind of key"))?
                }
                SectionKind::Certificate => {
                    let (_, certificate) = x509_parser::parse_x509_certificate(&der)
                        .map_err(|e| unusable("certificate", &e.to_string()))?;
                    VerifyingKey::from_spki(certificate.public_key().raw)
                        .ok_or_else(|| unusable("certificate", "unknown kind of key"))?
                }
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    SigningKey::from_section(kind, &der)?.public
                }
                _ => continue,
            });
        }
        if keys.is_empty() { Err(KeyError::Missing { wanted: "public key" }) } else { Ok(keys) }
    }

    /// Its entry in a JSON Web Key Set.
    fn jwk(&self) -> Jwk<'_> {
        let mut jwk = Jwk { usage: "sig", kid: &self.id, alg: self.algorithm.name(), ..Jwk::default() };
        let b64 = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        match self.algorithm {
            Algorithm::Es256 | Algorithm::Es384 => {
                jwk.kty = "EC";
                jwk.crv = Some(if self.algorithm == Algorithm::Es256 { "P-256" } else { "P-384" });
                // An uncompressed point: 4, then both coordinates at full width.
                let (x, y) = self.public[1..].split_at((self.public.len() - 1) / 2);
                (jwk.x, jwk.y) = (b64(x), b64(y));
            }
            Algorithm::Rs256 => {
                jwk.kty = "RSA";
                let numbers = der::expect(&self.public, SEQUENCE).and_then(|(inner, _)| {
                    let (n, rest) = der::expect(inner, INTEGER)?;
                    Some((n, der::expect(rest, INTEGER)?.0))
                });
                if let Some((n, e)) = numbers {
                    let unsigned = |i: &[u8]| b64(&i[i.iter().take_while(|b| **b == 0).count()..]);
                    (jwk.n, jwk.e) = (unsigned(n), unsigned(e));
                }
            }
        }
        jwk
    }
}

fn curve(name: &[u8]) -> Option<Algorithm> {
    match name {
        oid::P256 => Some(Algorithm::Es256),
        oid::P384 => Some(Algorithm::Es384),
        _ => None,
    }
}

#[derive(Default, Serialize)]
struct Jwk<'a> {
    #[serde(rename = "use")]
    usage: &'static str,
    kty: &'static str,
    kid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

/// The JSON Web Key Set that holds the keys, each once.
pub(super) fn jwks(keys: &[VerifyingKey]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Set<'a> {
        keys: Vec<Jwk<'a>>,
    }
    let mut set = Set { keys: Vec::with_capacity(keys.len()) };
    for key in keys {
        if !set.keys.iter().any(|k| k.kid == key.id) {
            set.keys.push(key.jwk());
        }
    }
    serde_json::to_vec(&set).unwrap_or_else(|e| unreachable!("strings are always serializable: {e}"))
}

enum Pair {
    Ec(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// The private key that tokens are signed with.
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
    random: SystemRandom,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.public.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// The first private key of a PEM bundle: PKCS#8, SEC1 or PKCS#1.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|e| KeyError::Pem(e.to_string()))?;
            if matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) {
                return SigningKey::from_section(kind, &der);
            }
        }
        Err(KeyError::Missing { wanted: "private key" })
    }

    /// The public half.
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&self.random, message)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &self.random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }

    fn from_section(kind: SectionKind, der: &[u8]) -> Result<Self, KeyError> {
        let unusable = |why: String| KeyError::Unusable { kind: "private key", why };
        let malformed = || unusable("malformed key".to_owned());
        match kind {
            SectionKind::RsaPrivateKey => Self::rsa(der).map_err(unusable),
            SectionKind::EcPrivateKey => Self::sec1(der, None).ok_or_else(malformed)?.map_err(unusable),
            _ => {
                let parsed = || {
                    let (outer, _) = der::expect(der, SEQUENCE)?;
                    let (_version, rest) = der::expect(outer, INTEGER)?;
                    let (identifier, rest) = der::expect(rest, SEQUENCE)?;
                    let (key, _) = der::expect(rest, OCTET_STRING)?;
                    let (algorithm, parameters) = der::expect(identifier, OID)?;
                    Some((algorithm, parameters, key))
                };
                let (algorithm, parameters, key) = parsed().ok_or_else(malformed)?;
                match algorithm {
                    oid::RSA => Self::rsa(key).map_err(unusable),
                    oid::EC => {
                        let named = der::expect(parameters, OID).and_then(|(name, _)| curve(name));
                        Self::sec1(key, named).ok_or_else(malformed)?.map_err(unusable)
                    }
                    _ => Err(unusable("unknown kind of key".to_owned())),
                }
            }
        }
    }

    fn rsa(pkcs1: &[u8]) -> Result<Self, String> {
        let pair = RsaKeyPair::from_der(pkcs1).map_err(|e| e.to_string())?;
        let public = VerifyingKey::new(Algorithm::Rs256, pair.public_key().as_ref().to_vec());
        Ok(SigningKey { pair: Pair::Rsa(Box::new(pair)), public, random: SystemRandom::new() })
    }

    /// Reads SEC1's ECPrivateKey; the curve comes from around it or from inside.
    ///
    /// `None` when the form is wrong, or when the optional public half is left out, which ring cannot work without.
    fn sec1(der: &[u8], named: Option<Algorithm>) -> Option<Result<Self, String>> {
        let (inner, _) = der::expect(der, SEQUENCE)?;
        let (_version, rest) = der::expect(inner, INTEGER)?;
        let (private, mut rest) = der::expect(rest, OCTET_STRING)?;
        let (mut algorithm, mut public) = (named, None);
        while let Some((tag, contents, following)) = der::element(rest) {
            match tag {
                CONTEXT_0 => algorithm = algorithm.or(der::expect(contents, OID).and_then(|(name, _)| curve(name))),
                CONTEXT_1 => public = der::expect(contents, BIT_STRING)?.0.strip_prefix(&[0]),
                _ => {}
            }
            rest = following;
        }
        let (algorithm, public) = (algorithm?, public?);
        let signing = match algorithm {
            Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        };
        let random = SystemRandom::new();
        Some(match EcdsaKeyPair::from_private_key_and_public_key(signing, private, public, &random) {
            Ok(pair) => Ok(SigningKey {
                pair: Pair::Ec(Box::new(pair)),
                public: VerifyingKey::new(algorithm, public.to_vec()),
                random,
            }),
            Err(e) => Err(e.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecdsa_key_signs_what_its_public_half_verifies() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let key = SigningKey::from_pem(pair.serialize_pem().as_bytes()).expect("PKCS#8");
        let signature = key.sign(b"message").expect("a signature");
        let public = VerifyingKey::all_from_pem(pair.public_key_pem().as_bytes()).expect("a public key");
        assert_eq!(public[0].id(), key.public().id());
        assert!(public[0].verifies(b"message", &signature));
        assert!(!public[0].verifies(b"massage", &signature));
        let from_private = VerifyingKey::all_from_pem(pair.serialize_pem().as_bytes()).expect("the public half");
        assert_eq!(from_private[0].id(), key.public().id());
    }

    #[test]
    fn the_key_set_has_each_key_once_with_its_coordinates() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let keys = VerifyingKey::all_from_pem(format!("{0}{0}", pair.public_key_pem()).as_bytes()).expect("keys");
        assert_eq!(keys.len(), 2);
        let set: serde_json::Value = serde_json::from_slice(&jwks(&keys)).expect("JSON");
        let list = set["keys"].as_array().expect("keys");
        assert_eq!(list.len(), 1);
        assert_eq!(list[0]["kty"], "EC");
        assert_eq!(list[0]["x"].as_str().map(str::len), Some(43));
        assert_eq!(list[0]["y"].as_str().map(str::len), Some(43));
    }

    /// Made for this test; it opens nothing.
    const RSA: &[u8] = include_bytes!("testdata/rsa.pem");

    #[test]
    fn an_rsa_key_signs_too() {
        let key = SigningKey::from_pem(RSA).expect("PKCS#1");
        assert_eq!(key.public().algorithm().name(), "RS256");
        let signature = key.sign(b"message").expect("a signature");
        let public = VerifyingKey::all_from_pem(RSA).expect("the public half");
        assert!(public[0].verifies(b"message", &signature) && !public[0].verifies(b"other", &signature));
        // As `openssl pkey -pubout -outform DER | sha256sum` tells, in base64.
        assert_eq!(key.public().id(), "BQOsw75RThOU0Ox40QHIJmbO9WPZPoyZzZKiu-2dCzs");
        let set: serde_json::Value = serde_json::from_slice(&jwks(&public)).expect("JSON");
        assert_eq!(set["keys"][0]["e"], "AQAB");
        assert_eq!(set["keys"][0]["n"].as_str().map(str::len), Some(342));
    }

    #[test]
    fn the_older_form_of_a_curves_key_is_read() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let pkcs8 = pair.serialize_der();
        // The inside of PKCS#8 is SEC1, but for the curve's name, which SEC1 alone must have.
        let (outer, _) = der::expect(&pkcs8, SEQUENCE).expect("PKCS#8");
        let (_, rest) = der::expect(outer, INTEGER).expect("a version");
        let (_, rest) = der::expect(rest, SEQUENCE).expect("an algorithm");
        let (inner, _) = der::expect(rest, OCTET_STRING).expect("a key");
        let (fields, _) = der::expect(inner, SEQUENCE).expect("SEC1");
        let (private, public) = fields.split_at(3 + 34);
        let named = der::wrap(CONTEXT_0, &[&der::wrap(OID, &[oid::P256])]);
        let sec1 = der::wrap(SEQUENCE, &[private, &named, public]);
        let body = base64::engine::general_purpose::STANDARD.encode(sec1);
        let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n");
        let key = SigningKey::from_pem(pem.as_bytes()).expect("SEC1");
        let public = VerifyingKey::all_from_pem(pair.public_key_pem().as_bytes()).expect("a public key");
        assert_eq!(key.public().id(), public[0].id());
    }

    #[test]
    fn what_is_not_a_key_is_named() {
        assert!(matches!(SigningKey::from_pem(b"nothing"), Err(KeyError::Missing { .. })));
        let bad = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert!(matches!(SigningKey::from_pem(bad.as_bytes()), Err(KeyError::Unusable { .. })));
    }
}
