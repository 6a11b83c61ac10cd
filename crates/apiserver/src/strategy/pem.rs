//! PEM text as Go's `encoding/pem` reads it: what is no block is passed over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The label of a certificate.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";

/// A block of PEM text.
pub(super) struct Block {
    /// What its first and last line say that it is.
    pub label: String,
    /// Whether it has headers, as encrypted keys of old have.
    pub headers: bool,
    pub der: Vec<u8>,
}

/// The blocks of PEM text.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
        let (headers, base64): (Vec<&str>, Vec<&str>) = body.into_iter().partition(|line| line.contains(':'));
        if let Ok(der) = STANDARD.decode(base64.concat()) {
            blocks.push(Block { label: label.to_owned(), headers: !headers.is_empty(), der });
        }
    }
    blocks
}

impl Block {
    /// The certificates that it holds, one after another; none if it holds anything else.
    pub(super) fn certificates(&self) -> Option<Vec<X509Certificate<'_>>> {
        let mut rest = self.der.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (left, certificate) = X509Certificate::from_der(rest).ok()?;
            found.push(certificate);
            rest = left;
        }
        Some(found)
    }
}
