//! `--tls-cipher-suites`: Go's names, and which of them are spoken here. As in Go they are of TLS 1.2: those of 1.3 are always
//! offered.

use anyhow::{Result, bail};
use rustls::SupportedCipherSuite;
use rustls::crypto::ring;

/// What upstream takes: Go's names and their numbers.
#[rustfmt::skip]
const NAMES: &[(&str, u16)] = &[
    ("TLS_AES_128_GCM_SHA256", 0x1301),
    ("TLS_AES_256_GCM_SHA384", 0x1302),
    ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", 0xc009),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", 0xc023),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", 0xc00a),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", 0xcca9),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", 0xc007),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", 0xc012),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", 0xc013),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", 0xc027),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", 0xc014),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", 0xcca8),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", 0xc011),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", 0x000a),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", 0x002f),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", 0x003c),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", 0x009c),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", 0x0035),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", 0x009d),
    ("TLS_RSA_WITH_RC4_128_SHA", 0x0005),
];

/// What is offered when these are asked for; `None` when none is: all that are spoken. What is asked for and not spoken is told in
/// the log.
///
/// # Errors
/// A name that upstream does not know either, or only suites that are not spoken here.
pub fn offered(names: &[String]) -> Result<Option<Vec<SupportedCipherSuite>>> {
    // `--tls-cipher-suites=` asks for nothing.
    let names: Vec<&String> = names.iter().filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let spoken = ring::default_provider().cipher_suites;
    let mut wanted = Vec::new();
    let mut unspoken: Vec<&str> = Vec::new();
    for name in &names {
        let Some((_, number)) = NAMES.iter().find(|(known, _)| known == *name) else {
            bail!("--tls-cipher-suites: Cipher suite {name} not supported or doesn't exist");
        };
        match spoken.iter().any(|suite| u16::from(suite.suite()) == *number) {
            true => wanted.push(*number),
            false => unspoken.push(name),
        }
    }
    if wanted.is_empty() {
        bail!(
            "--tls-cipher-suites: none of {} is spoken here: ask for one with ECDHE and GCM or ChaCha20",
            unspoken.join(",")
        );
    }
    if !unspoken.is_empty() {
        tracing::warn!(suites = unspoken.join(","), "--tls-cipher-suites: these are not spoken here, and not offered");
    }
    let is_offered =
        |suite: &SupportedCipherSuite| suite.tls13().is_some() || wanted.contains(&u16::from(suite.suite()));
    Ok(Some(spoken.into_iter().filter(is_offered).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<Option<Vec<u16>>> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let offered = offered(&names)?;
        Ok(offered.map(|suites| {
            let old = suites.iter().filter(|suite| suite.tls13().is_none());
            assert_eq!(suites.len() - old.clone().count(), 3, "those of TLS 1.3 are always offered");
            old.map(|suite| u16::from(suite.suite())).collect()
        }))
    }

    #[test]
    fn what_is_asked_for_and_spoken_is_offered() {
        const ECDSA: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
        assert_eq!(of(&[]).expect("all"), None);
        assert_eq!(of(&[""]).expect("all"), None);
        assert_eq!(of(&[ECDSA, "TLS_RSA_WITH_AES_128_CBC_SHA"]).expect("one"), Some(vec![0xc02b]));
        let both = of(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]);
        assert_eq!(both.expect("one"), Some(vec![0xcca8]));
        assert_eq!(of(&["TLS_AES_128_GCM_SHA256"]).expect("none of 1.2"), Some(Vec::new()));
        let unknown = of(&[ECDSA, "BOGUS"]).expect_err("unknown").to_string();
        assert_eq!(unknown, "--tls-cipher-suites: Cipher suite BOGUS not supported or doesn't exist");
        let none = of(&["TLS_RSA_WITH_AES_128_CBC_SHA"]).expect_err("none").to_string();
        assert!(none.starts_with("--tls-cipher-suites: none of TLS_RSA_WITH_AES_128_CBC_SHA is spoken here"), "{none}");
    }
}
