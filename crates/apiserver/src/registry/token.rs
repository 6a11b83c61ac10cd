//! `continue` tokens: upstream's format, so that a client that looks inside finds what it expects.

use api::Status;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use base64::{Engine, alphabet};
use schema::{Map, Value};
use serde::Serialize;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    pub count: usize,
    /// Empty: in all namespaces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

#[derive(Serialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
    /// Ours alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
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
        let because =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = decoded(text).map_err(|at| because(&format!("illegal base64 data at input byte {at}")))?;
        let wire = Wire::read(&bytes).map_err(|why| because(&why))?;
        if wire.v != VERSION {
            return Err(because(&format!("server does not recognize this encoded version {}", wire.v)));
        }
        if wire.rv == 0 {
            return Err(because("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if wire.start.is_empty() {
            return Err(because("encoded start key empty (version meta.k8s.io/v1)"));
        }
        let start = wire.start.strip_prefix('/').unwrap_or(&wire.start);
        // No way out of what is listed.
        if !start.is_empty() && start.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(because(&wire.start));
        }
        let revision = u64::try_from(wire.rv).ok();
        Ok(Token { revision, after: before(start), seen: wire.seen.filter(|_| revision.is_some()) })
    }
}

/// The bytes of a text; the place that Go's decoder stops at otherwise. Bits behind the last byte may be anything.
fn decoded(text: &str) -> Result<Vec<u8>, usize> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));
    let foreign = |b: u8| !(b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if let Some(at) = text.bytes().position(foreign) {
        return Err(at);
    }
    LENIENT.decode(text).map_err(|_| text.len().saturating_sub(1))
}

/// What all keys from `start` on come after. Our own tokens, and upstream's, start right behind a key; others at one.
fn before(start: &str) -> String {
    if let Some(after) = start.strip_suffix('\0') {
        return after.to_owned();
    }
    let mut chars = start.chars();
    // Keys are ASCII: none has a character that is larger.
    match chars.next_back().and_then(|last| char::from_u32(u32::from(last).checked_sub(1)?)) {
        Some(smaller) => format!("{}{smaller}{}", chars.as_str(), char::MAX),
        None => String::new(),
    }
}

impl Wire {
    /// Reads it, or says why not in the words of Go's decoder.
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let value = schema::json::parse(bytes).map_err(|error| error.to_string())?;
        let map = match &value {
            Value::Map(map) => map,
            Value::Null => &Map::new(),
            other => return Err(schema::json::mismatch(other, "value of type storage.continueToken")),
        };
        let text = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::Str(text)) => Ok(text.to_string()),
            Some(other) => {
                Err(schema::json::mismatch(other, &format!("struct field continueToken.{key} of type string")))
            }
        };
        let rv = match map.get("rv") {
            None | Some(Value::Null) => 0,
            Some(Value::Int(rv)) => *rv,
            Some(other) => return Err(schema::json::mismatch(other, "struct field continueToken.rv of type int64")),
        };
        // What an older server wrote there is as if there was nothing.
        let seen = map.get("seen").and_then(Value::as_map).and_then(|seen| {
            let count = usize::try_from(seen.get("count").and_then(Value::as_i64)?).ok()?;
            Some(Seen { count, namespace: seen.str_at(&["namespace"]).to_owned() })
        });
        Ok(Wire { v: text("v")?, rv, start: text("start")?, seen })
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

    #[test]
    fn a_bad_token_is_refused_in_gos_words() {
        let json = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for (token, why) in [
            ("abc".to_owned(), "invalid character 'i' looking for beginning of value"),
            ("a=".to_owned(), "illegal base64 data at input byte 1"),
            ("a".to_owned(), "illegal base64 data at input byte 0"),
            (format!("{}==", json("{}")), "illegal base64 data at input byte 3"),
            (
                json(r#"{"v":"meta.k8s.io/v2","rv":1,"start":"x"}"#),
                "server does not recognize this encoded version meta.k8s.io/v2",
            ),
            (json("{}"), "server does not recognize this encoded version "),
            (json("[]"), "json: cannot unmarshal array into Go value of type storage.continueToken"),
            (
                json(r#"{"rv":"1"}"#),
                "json: cannot unmarshal string into Go struct field continueToken.rv of type int64",
            ),
            (
                json(r#"{"v":"meta.k8s.io/v1","start":"x"}"#),
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (json(r#"{"v":"meta.k8s.io/v1","rv":1}"#), "encoded start key empty (version meta.k8s.io/v1)"),
            (json(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../x"}"#), "../x"),
            (json(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a//x"}"#), "a//x"),
        ] {
            let status = Token::decode(&token).expect_err("refused");
            let message = format!("invalid continue token: continue key is not valid: {why}");
            assert_eq!((status.code, status.message), (400, message));
        }
    }

    #[test]
    fn a_list_goes_on_at_any_key() {
        let token = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a/x"}"#);
        let after = Token::decode(&token).expect("a token").after;
        assert!(after.as_str() < "a/x" && after.as_str() > "a/wzz", "{after}");
    }

    proptest! {
        #[test]
        fn tokens_survive(revision in proptest::option::of(1_u64..i64::MAX as u64), after in "[a-z0-9][a-z0-9.-]{0,19}(/[a-z0-9][a-z0-9.-]{0,19})?", seen in proptest::option::of((0..1_000_000_usize, "[a-z]{0,5}"))) {
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
