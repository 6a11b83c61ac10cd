//! Public keys as requests and certificates carry them, and whether something was signed with them.

use p521::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ED25519, UnparsedPublicKey};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

const RSA: &str = "1.2.840.113549.1.1.1";
const ELLIPTIC: &str = "1.2.840.10045.2.1";
const EDWARDS: &str = "1.3.101.112";
const P224: &str = "1.3.132.0.33";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";
/// Known, but not to sign with: DSA, X25519.
const OTHERS: [&str; 2] = ["1.2.840.10040.4.1", "1.3.101.110"];
/// Of RSA, in bits.
const MODULI: [usize; 2] = [3072, 4096];

/// A public key in PKIX form.
pub(super) struct PublicKey<'a>(&'a SubjectPublicKeyInfo<'a>);

/// Why a key is not taken.
pub(super) enum Unfit {
    /// It can't be read.
    Malformed,
    /// Its curve is too small: the name.
    Curve(&'static str),
    /// Its modulus is not of a size that is taken: the bits.
    Modulus(usize),
    /// Nothing is signed with keys of its kind.
    Kind,
}

/// Reads a key that stands alone.
pub(super) fn parse(der: &[u8]) -> Option<SubjectPublicKeyInfo<'_>> {
    let (rest, key) = SubjectPublicKeyInfo::from_der(der).ok()?;
    rest.is_empty().then_some(key)
}

/// Whether a request of a certificate was signed with its own key.
pub(super) fn is_signed(request: &X509CertificationRequest<'_>) -> bool {
    let info = &request.certification_request_info;
    let key = PublicKey(&info.subject_pki);
    if key.algorithm() != ELLIPTIC || key.curve() != P521 {
        return request.verify_signature().is_ok();
    }
    let (text, signature) = (info.raw, request.signature_value.data.as_ref());
    match request.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.10045.4.3.2" => key.verify_p521(&Sha256::digest(text), signature),
        "1.2.840.10045.4.3.3" => key.verify_p521(&Sha384::digest(text), signature),
        "1.2.840.10045.4.3.4" => key.verify_p521(&Sha512::digest(text), signature),
        _ => false,
    }
}

impl<'a> PublicKey<'a> {
    pub(super) fn of(info: &'a SubjectPublicKeyInfo<'a>) -> Self {
        PublicKey(info)
    }

    fn algorithm(&self) -> String {
        self.0.algorithm.algorithm.to_id_string()
    }

    fn curve(&self) -> String {
        let parameters = self.0.algorithm.parameters.as_ref();
        parameters.and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string()).unwrap_or_default()
    }

    fn bytes(&self) -> &[u8] {
        self.0.subject_public_key.data.as_ref()
    }

    /// Modulus and exponent of a key of RSA.
    fn numbers(&self) -> Option<(BigUint, BigUint)> {
        match self.0.parsed() {
            Ok(Parsed::RSA(key)) => Some((BigUint::from_bytes_be(key.modulus), BigUint::from_bytes_be(key.exponent))),
            _ => None,
        }
    }

    /// Whether certificates of pods are given for such a key.
    ///
    /// # Errors
    /// Why they are not.
    pub(super) fn fit(&self) -> Result<(), Unfit> {
        match self.algorithm().as_str() {
            EDWARDS if self.bytes().len() == 32 => Ok(()),
            ELLIPTIC => match self.curve().as_str() {
                P224 => Err(Unfit::Curve("P-224")),
                P256 | P384 | P521 if self.is_point() => Ok(()),
                _ => Err(Unfit::Malformed),
            },
            RSA => {
                let (modulus, exponent) = self.numbers().ok_or(Unfit::Malformed)?;
                // As Go reads keys; a longer exponent would also cost whoever verifies with it.
                if !modulus.bit(0) || exponent < BigUint::from(2_u8) || exponent.bits() > 31 {
                    return Err(Unfit::Malformed);
                }
                let bits = modulus.bits().div_ceil(8) as usize * 8;
                if MODULI.contains(&bits) { Ok(()) } else { Err(Unfit::Modulus(bits)) }
            }
            other if OTHERS.contains(&other) => Err(Unfit::Kind),
            _ => Err(Unfit::Malformed),
        }
    }

    /// Whether the bytes have the form of a point of the curve.
    fn is_point(&self) -> bool {
        let size = match self.curve().as_str() {
            P256 => 32,
            P384 => 48,
            _ => 66,
        };
        self.bytes().first() == Some(&4) && self.bytes().len() == 1 + 2 * size
    }

    /// Whether `text` was signed with the key: by Ed25519, by ECDSA of its SHA-256, by RSASSA-PSS with SHA-256.
    pub(super) fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        match (self.algorithm().as_str(), self.curve().as_str()) {
            (EDWARDS, _) => UnparsedPublicKey::new(&ED25519, self.bytes()).verify(text, signature).is_ok(),
            (ELLIPTIC, P256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.bytes()).verify(text, signature).is_ok()
            }
            (ELLIPTIC, P384) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, self.bytes()).verify(text, signature).is_ok()
            }
            (ELLIPTIC, P521) => self.verify_p521(&Sha256::digest(text), signature),
            (RSA, _) => self.numbers().is_some_and(|(n, e)| verify_pss(&n, &e, text, signature)),
            _ => false,
        }
    }

    fn verify_p521(&self, hash: &[u8], signature: &[u8]) -> bool {
        let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(self.bytes());
        let signature = p521::ecdsa::Signature::from_der(signature);
        // The library takes no hash of less than half the curve's size, though as a number it is the same with zeros before it.
        let mut whole = [0; 66];
        whole[66 - hash.len()..].copy_from_slice(hash);
        key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify_prehash(&whole, &signature).is_ok()))
    }
}

/// RSASSA-PSS (RFC 8017) with SHA-256 and a salt of any length, as Go's `VerifyPSS` takes when nobody says which.
fn verify_pss(modulus: &BigUint, exponent: &BigUint, text: &[u8], signature: &[u8]) -> bool {
    const HASH: usize = 32;
    let size = modulus.bits().div_ceil(8) as usize;
    let bits = modulus.bits().saturating_sub(1);
    let length = bits.div_ceil(8) as usize;
    let number = BigUint::from_bytes_be(signature);
    if signature.len() != size || &number >= modulus || length < HASH + 2 {
        return false;
    }
    let opened = number.modpow(exponent, modulus).to_bytes_be();
    if opened.len() > length {
        return false;
    }
    let mut encoded = vec![0; length - opened.len()];
    encoded.extend(opened);
    let [masked @ .., 0xbc] = encoded.as_slice() else { return false };
    let (masked, hash) = masked.split_at(length - HASH - 1);
    // The bits above the modulus's.
    let spare = (8 * length as u64 - bits) as u32;
    let mask = 0xff_u8.checked_shr(spare).unwrap_or(0);
    if masked[0] & !mask != 0 {
        return false;
    }
    let mut data = masked.to_vec();
    for (block, chunk) in (0_u32..).zip(data.chunks_mut(HASH)) {
        let stream = Sha256::new().chain_update(hash).chain_update(block.to_be_bytes()).finalize();
        chunk.iter_mut().zip(stream).for_each(|(byte, other)| *byte ^= other);
    }
    data[0] &= mask;
    let Some(start) = data.iter().position(|byte| *byte != 0).filter(|at| data[*at] == 1) else { return false };
    let salt = &data[start + 1..];
    let expected = Sha256::new().chain_update([0; 8]).chain_update(Sha256::digest(text)).chain_update(salt).finalize();
    expected.as_slice() == hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};

    #[test]
    fn what_was_signed_with_a_key_is_known_by_it() {
        let random = SystemRandom::new();
        let text = b"the uid of a pod";
        let p256 = rcgen::KeyPair::generate().expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &p256.serialize_der(), &random);
        let by_p256 = pair.expect("a pair").sign(&random, text).expect("a signature").as_ref().to_vec();
        let edwards = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&edwards.serialize_der()).expect("a pair");
        let by_edwards = pair.sign(text).as_ref().to_vec();
        for (key, signature, other) in [(&p256, &by_p256, &by_edwards), (&edwards, &by_edwards, &by_p256)] {
            let der = rcgen::PublicKeyData::subject_public_key_info(key);
            let info = parse(&der).expect("a key");
            let key = PublicKey::of(&info);
            assert!(key.fit().is_ok());
            assert!(key.verify(text, signature));
            assert!(!key.verify(b"another", signature) && !key.verify(text, other));
        }
    }

    /// Made by OpenSSL: keys, what signed the text with them, and a request that is signed with its key.
    const RSA_KEY: &str = "MIIBojANBgkqhkiG9w0BAQEFAAOCAY8AMIIBigKCAYEAunzswt4Opizi82hZ0C4UzOFlbiv2itCPzUGCqYWCAvIa4kHIybf/EQjICPH38iAFe9/m4wiLEaq4LDrSFzE8uOIPI1S/Qp2+STUQaFE9jlOsw3zBeKVSajm7MmvUhEczJ7TjdLai5k0LYwxudpu6wAua0lKBn+IO12LP5l8bHHj508VK0oZmiaP9K7scykEG2jxbqsnpR2dhmBB2Mtfpm9ERhy6yfj23SCazjPQalPAqXK+A8wYWLAvamte5SHeB2yaFxCASd7hDo539J/ZDJU8SsLJQ6nEoQ1cEjfUV0VOwKjCIO8+vHIRokZP3Hj6ur74REtrcUPhA4k0TsnjIUEGxbhhpWmrU+lR0AGuskPiMyGX+v7qr/SeWiiQZjpyaWi/sIA2W8UNnqnovWc4rO5S5vCfINqWnGJxA6+xp9ExEuPnL8vQya2FfFiYAbkXgr6IbDYaqr2ndlGbB6VgYJzxGGcDWsbF6q6XPjQXFhvzVFRgNwe/eju8GeQfDG7yxAgMBAAE=";
    const BY_RSA_WITH_SALT_OF_A_HASH: &str = "TqGECH0kFEX2vO5Bqmqb5cwDUXvzjSPOMNL23Nlh1PyzEcQaA6d1oj7t1AGue9EhjDb6NwCTmfG550gQcpVTGE1FZViU5IIX3OgpMPBWpaQ2YhGLLK7s/DEEX1Aulvu8pPkilfmZpa5gHH04MMYa+hLpJ6/pEjktyfjKncmfPcor4sdr8xc7r4uvz1OY8ulDtAMHeWFBenWPtOm19Zd+ulwqbRVb03+iPXLCN3eMfm79IR9ialRdZJg9k00L3pbGp4FK+XXd588JNTQC7Pai8+/P9BZTzqtV98BlAw6NuOUVTD6ENpaa8G161NWaoLnAvFHWu1YASdMg62+hU8n6sOoSrxrcDoUbtg8/cCo+lh4D3DeMS25otXQDe61C7CmnqJefY3boYhSJj0wrThFEPrFVFhN8xNMyYuz4LP99dPP1xj26mFLTdVo5RldeZgcCyJS2wB684dzf+kHztUC6/OCo6yPMK9vJpyoZO2waAIJyrPwJgbExbRBukGNOROew";
    const BY_RSA_WITH_LONGEST_SALT: &str = "XxVtTR1tswtsNvTVS99/xPJsJKrLlazXRJLuSG8Z37TwtYz3I1G4GwYNsh8ufd4kBYYeU+Ke3lmQez7zTVolTBbBSxrYg+GhLDI1P8c7VStMr69xCMHAU7hz3gRcvTeDlSM00cZ+/bzyOBDQx7rBV7aL9xBTHwRp1/Z4KQo+wT4sLY7SmtlfhIkIdfEhW4H5BsL9pTqOO74e45LrzaFmfpoC0XA1+Avsgm6swxDlqpXCF6aazHVSdRTbjSdTyRSHdLB8AaOAds7Kx7poK3U7FzIxsEyhgH2C/FiFSE1rEXPs0sDjFmqRYkI/jTalQAzZiL0FgYae+dyaAT9AcXzHqD4g7YxeR9qbt3nGCyTbhPDw7nk4Zv2TeSgTceKVX/C2H9p3l0vpR8LQgGiQpECP7KSbmYDkDKT4CccB30jtPSDJ6VKv/aZ68neqevEx595GERzowKKKnLGRh5ngaoLURBKcD+DLJJg3LjnIc/vvChIq5rR62WiYC0BYkGZ28PaI";
    const P521_KEY: &str = "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBcxzosy8mhKkpARI9HTea5uCpESDlYfwXfnUGm647VdFehNjVwAO5y2OndpFow6y93wQO9i51ihgVBqszkz+nny4AbE9RYwxhTG/Rm5ebV8ESnaoGR6UZ8fYeu+dCR+mUdx7CyhqlvbJse46Kuxp3ihbksa92zqBbPco/cSdDzck5Iec=";
    const BY_P521: &str = "MIGGAkEPlWLv6aEkxSw7j468MenkE1GkdCuRpLUQ0o5LN/Dyd57BJhDcjGM+xdMxXsUAfMO/hwZS9DjV4tITcim5TVhF7wJBREI0ROGt463tZsLsHVn7yVjR1clHS0n2yHyRBt+BcuU1xfdhV7P3S42/PZFEKrBrep9Gwqf3AoXtG5fqGL7mfaw=";
    const P521_REQUEST: &str = "MIIBQjCBpQIBADAAMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBcxzosy8mhKkpARI9HTea5uCpESDlYfwXfnUGm647VdFehNjVwAO5y2OndpFow6y93wQO9i51ihgVBqszkz+nny4AbE9RYwxhTG/Rm5ebV8ESnaoGR6UZ8fYeu+dCR+mUdx7CyhqlvbJse46Kuxp3ihbksa92zqBbPco/cSdDzck5IeegADAKBggqhkjOPQQDBAOBiwAwgYcCQgEziRlsQMnEraOJDA2zhgpzoeBPk2jfmUEtFumX5yqO9TtXIgJb8Sdqb5i5F1pRZsBAoi8YAV9T+KUDLTVZGRJJrAJBNeBHm7YL6XT+G/aPjnVpXBrs+cng3c0n8XL3deBo/h36osr2Aih3W4TTfy5uz2KUzmGtytEUUhFevWh6RqSYJSw=";

    #[test]
    fn exponents_that_no_key_has_are_refused() {
        let mut der = STANDARD.decode(RSA_KEY).expect("base64");
        let end = der.len() - 3;
        der[end..].copy_from_slice(&[0, 0, 1]);
        let info = parse(&der).expect("a key");
        assert!(matches!(PublicKey::of(&info).fit(), Err(Unfit::Malformed)));
    }

    #[test]
    fn keys_that_others_made_are_read_as_well() {
        let bytes = |text: &str| STANDARD.decode(text).expect("base64");
        let text = b"the uid of a pod";
        // Go's SignPSS makes the salt as long as it can be, when nobody says how long it is.
        for (key, signature) in
            [(RSA_KEY, BY_RSA_WITH_SALT_OF_A_HASH), (RSA_KEY, BY_RSA_WITH_LONGEST_SALT), (P521_KEY, BY_P521)]
        {
            let (der, mut signature) = (bytes(key), bytes(signature));
            let info = parse(&der).expect("a key");
            let key = PublicKey::of(&info);
            assert!(key.fit().is_ok());
            assert!(key.verify(text, &signature));
            assert!(!key.verify(b"another", &signature));
            *signature.last_mut().expect("bytes") ^= 1;
            assert!(!key.verify(text, &signature));
        }
        let mut der = bytes(P521_REQUEST);
        let (_, request) = X509CertificationRequest::from_der(&der).expect("a request");
        assert!(is_signed(&request));
        *der.last_mut().expect("bytes") ^= 1;
        let (_, request) = X509CertificationRequest::from_der(&der).expect("a request");
        assert!(!is_signed(&request));
    }
}
