//! ConfigMaps and Secrets.

use super::fields::{Errors, immutable, problems};
use crate::tree::{Map, Value};
use crate::view::StrMap;
use crate::view::core_v1::{ConfigMap, Secret};
use api::{FieldError, Path, names};

/// 1 MiB for all values.
const MAX_SIZE: usize = 1024 * 1024;
const DATA: Path<'static> = Path::root("data");
const SEALED: &str = "field is immutable when `immutable` is set";
const REDACTED: &str = "<secret contents redacted>";

/// How many bytes a base64 text stands for.
pub(super) fn decoded(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count().min(text.len() / 4 * 3)
}

pub(super) fn config_map(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let map = ConfigMap(object);
    let binary = Path::root("binaryData");
    let mut size = 0;
    let parts = [
        (DATA, map.data(), map.binary_data(), "duplicate of key present in binaryData", false),
        (binary, map.binary_data(), map.data(), "duplicate of key present in data", true),
    ];
    for (path, entries, other, twice, is_binary) in parts {
        for (key, value) in entries.iter() {
            problems(&mut errors, &path.key(key), key, names::config_map_key(key));
            if other.contains_key(key) {
                errors.push(FieldError::invalid(&path.key(key), key, twice));
            }
            size += if is_binary { decoded(value) } else { value.len() };
        }
    }
    if size > MAX_SIZE {
        errors.push(FieldError::too_long(&Path::root(""), MAX_SIZE));
    }
    errors
}

fn sealed(errors: &mut Errors, new: &Map, old: &Map, fields: &[&str]) {
    if old.get("immutable").and_then(Value::as_bool) != Some(true) {
        return;
    }
    if new.get("immutable").and_then(Value::as_bool) != Some(true) {
        errors.push(FieldError::forbidden(&Path::root("immutable"), SEALED));
    }
    for field in fields {
        if !super::fields::same(new.get(field), old.get(field)) {
            errors.push(FieldError::forbidden(&Path::root(field), SEALED));
        }
    }
}

pub(super) fn config_map_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    sealed(&mut errors, new, old, &["data", "binaryData"]);
    errors.extend(config_map(new));
    errors
}

pub(super) fn secret(object: &Map) -> Errors {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let mut errors = Errors::new();
    let secret = Secret(object);
    let data = secret.data();
    let mut size = 0;
    for (key, value) in data.iter() {
        problems(&mut errors, &DATA.key(key), key, names::config_map_key(key));
        size += decoded(value);
    }
    if size > MAX_SIZE {
        errors.push(FieldError::too_long(&DATA, MAX_SIZE));
    }
    match secret.type_().unwrap_or("") {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata().map(|metadata| metadata.annotations());
            if annotations.and_then(|annotations| annotations.get(ACCOUNT)).unwrap_or("").is_empty() {
                let metadata = Path::root("metadata");
                errors.push(FieldError::required(&metadata.child("annotations").key(ACCOUNT), ""));
            }
        }
        "kubernetes.io/dockercfg" => json_key(&mut errors, data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_key(&mut errors, data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            errors.push(FieldError::required(&DATA.key("username"), ""));
            errors.push(FieldError::required(&DATA.key("password"), ""));
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").unwrap_or("").is_empty() => {
            errors.push(FieldError::required(&DATA.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !data.contains_key(key) {
                    errors.push(FieldError::required(&DATA.key(key), ""));
                }
            }
        }
        _ => {}
    }
    errors
}

/// A value that must be a JSON object.
fn json_key(errors: &mut Errors, data: StrMap<'_>, key: &str) {
    use base64::Engine;
    let path = DATA.key(key);
    let Some(text) = data.get(key) else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let why = match crate::json::parse(&bytes) {
        Ok(Value::Map(_) | Value::Null) => return,
        Ok(_) => "json: cannot unmarshal value into Go value of type map[string]interface {}".to_owned(),
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(error) => error.to_string(),
    };
    errors.push(FieldError::invalid(&path, REDACTED, why));
}

pub(super) fn secret_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    immutable(&mut errors, &Path::root("type"), new.get("type"), old.get("type"));
    sealed(&mut errors, new, old, &["data"]);
    errors.extend(secret(new));
    errors
}
