//! `continue` tokens: upstream's format, so that a client that looks inside finds what it expects.

use api::Status;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// `None`: at whatever is newest (the consistent state was too old).
    pub revision: Option<u64>,
    /// The key after which it goes on.
    pub after: String,
    /// How many objects of that state came before, if that was counted: so that those that remain need not be.
    pub seen: Option<Seen>,
}

/// A count of what came before, which holds for the same list alone: it is of all objects, not of selected ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub count: usize,
    /// Empty: in all namespaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
    /// Ours alone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    seen: Option<Seen>,
}

/// What an older server wrote there is as if there was nothing.
fn known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Seen>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(Seen::deserialize(value).ok())
}

impl Token {
    pub fn encode(&self) -> String {
        let wire = Wire {
            v: VERSION.to_owned(),
            rv: self.revision.map_or(-1, u64::cast_signed),
            start: format!("{}\0", self.after),
            seen: self.seen.clone(),
        };
        // A struct of strings and numbers always has a JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// # Errors
    /// 400 as upstream words it.
    pub fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| invalid(&error.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if wire.v != VERSION {
            let why = format!("server does not recognize this encoded version {:?}", wire.v);
            return Err(invalid(&why));
        }
        if wire.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        let Some(after) = wire.start.strip_suffix('\0').filter(|after| !after.is_empty()) else {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        };
        let revision = u64::try_from(wire.rv).ok();
        Ok(Token {
            revision,
            after: after.trim_start_matches('/').to_owned(),
            seen: wire.seen.filter(|_| revision.is_some()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_an_older_server_noted_is_passed_over() {
        let token = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":7,"start":"b\u0000","seen":12}"#);
        let read = Token::decode(&token).expect("a token");
        assert_eq!((read.revision, read.after.as_str()), (Some(7), "b"));
        assert!(read.seen.is_none());
    }

    proptest! {
        #[test]
        fn tokens_survive(revision in proptest::option::of(1_u64..i64::MAX as u64), after in "[a-z0-9.-]{1,20}(/[a-z0-9.-]{1,20})?", seen in proptest::option::of((0..1_000_000_usize, "[a-z]{0,5}"))) {
            let seen = seen.map(|(count, namespace)| Seen { count, namespace });
            let token = Token { revision, after, seen: seen.filter(|_| revision.is_some()) };
            prop_assert_eq!(Token::decode(&token.encode()).expect("our own"), token);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,80}") {
            if let Err(status) = Token::decode(&text) {
                prop_assert_eq!(status.code, 400);
            }
        }
    }
}
