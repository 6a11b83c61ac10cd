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
        // What is no block is passed over line by line: another may begin within it.
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let mut after = lines.clone();
        let body: Vec<&str> = after.by_ref().take_while(|line| !line.starts_with("-----")).collect();
        // The line that ended the body is gone with it.
        if lines.clone().nth(body.len()) != Some(end.as_str()) {
            continue;
        }
        let (headers, base64): (Vec<&str>, Vec<&str>) = body.into_iter().partition(|line| line.contains(':'));
        let base64: String = base64.concat().chars().filter(|c| !matches!(c, ' ' | '\t')).collect();
        if let Ok(der) = STANDARD.decode(base64) {
            blocks.push(Block { label: label.to_owned(), headers: !headers.is_empty(), der });
            lines = after;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_count_and_text_around_them_does_not() {
        let labels = |text: &str| blocks(text).into_iter().map(|block| (block.label, block.der)).collect::<Vec<_>>();
        let good = "-----BEGIN A-----\nAQ I\tD\n-----END A-----\n";
        let a = || ("A".to_owned(), vec![1, 2, 3]);
        assert_eq!(labels(&format!("words\n{good}more\n{good}")), [a(), a()]);
        assert!(labels("-----BEGIN A-----\nAQID\n").is_empty(), "it has no end");
        assert_eq!(labels(&format!("-----BEGIN B-----\nAQID\n-----END C-----\n{good}")), [a()]);
        assert_eq!(labels(&format!("-----BEGIN B-----\nAQID\n{good}")), [a()]);
        assert!(blocks("-----BEGIN A-----\nProc-Type: 4\n\nAQID\n-----END A-----")[0].headers);
    }
}
