//! Configuration files of upstream's kinds: fields are taken one by one; what is left at the end has no meaning here, or is
//! unknown.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file that is being read.
#[derive(Debug)]
pub struct ConfigFile {
    file: PathBuf,
    fields: Value,
}

impl ConfigFile {
    /// Reads a file of a kind.
    ///
    /// # Errors
    /// No YAML, or another kind.
    pub fn read(file: &Path, api_version: &str, kind: &str) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read --config {}", file.display()))?;
        Self::parse(file, &text, api_version, kind)
    }

    fn parse(file: &Path, text: &str, api_version: &str, kind: &str) -> Result<Self> {
        let mut fields: Value =
            serde_saphyr::from_str(text).with_context(|| format!("--config {} is not YAML", file.display()))?;
        let said = |field: &str| fields[field].as_str().unwrap_or_default().to_owned();
        let found = (said("apiVersion"), said("kind"));
        if found != (api_version.to_owned(), kind.to_owned()) {
            bail!(
                "--config {} must have apiVersion {api_version} and kind {kind}, not {:?} and {:?}",
                file.display(),
                found.0,
                found.1
            );
        }
        if let Some(map) = fields.as_object_mut() {
            map.remove("apiVersion");
            map.remove("kind");
        }
        Ok(ConfigFile { file: file.to_owned(), fields })
    }

    /// Takes a field by its path, such as `authentication.x509.clientCAFile`.
    ///
    /// # Errors
    /// Its value is not of the wanted kind: path and value are named.
    pub fn take<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>> {
        let Some(value) = remove(&mut self.fields, path).filter(|v| !v.is_null()) else { return Ok(None) };
        let shown = value.to_string();
        serde_json::from_value(value)
            .map(Some)
            .map_err(|e| anyhow::anyhow!("--config {}: {path}: invalid value {shown}: {e}", self.file.display()))
    }

    /// Takes a field that is text of a form, such as a duration.
    pub fn take_text<T>(&mut self, path: &str) -> Result<Option<T>>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        match self.take::<String>(path)?.filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => {
                text.parse().map(Some).map_err(|e| anyhow::anyhow!("--config {}: {path}: {e}", self.file.display()))
            }
        }
    }

    /// Ends the reading: what is left is warned of when it is in `meaningless`, refused when it is in `unsupported` and set,
    /// and else unknown. Both list top-level fields.
    ///
    /// # Errors
    /// The first field that is refused or unknown.
    pub fn finish(self, meaningless: &[&str], unsupported: &[&str]) -> Result<()> {
        let Value::Object(left) = self.fields else { return Ok(()) };
        let file = self.file.display();
        for (field, value) in left {
            if is_empty(&value) {
                continue;
            }
            if unsupported.contains(&field.as_str()) {
                bail!("--config {file}: {field} is not supported yet");
            }
            if !meaningless.contains(&field.as_str()) {
                bail!("--config {file}: unknown field {:?}", deepest(&field, &value));
            }
            tracing::warn!("--config {file}: {} has no effect here", deepest(&field, &value));
        }
        Ok(())
    }
}

/// Whether a value says nothing: so parts of which all fields were taken are gone.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// The path of the first thing that is said within a field.
fn deepest(path: &str, value: &Value) -> String {
    match value {
        Value::Object(map) => match map.iter().find(|(_, v)| !is_empty(v)) {
            Some((key, value)) => deepest(&format!("{path}.{key}"), value),
            None => path.to_owned(),
        },
        _ => path.to_owned(),
    }
}

fn remove(value: &mut Value, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => value.as_object_mut()?.remove(path),
        Some((first, rest)) => remove(value.get_mut(first)?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile> {
        ConfigFile::parse(Path::new("f.yaml"), text, "g/v1", "K")
    }

    #[test]
    fn fields_are_taken_and_the_rest_is_judged() -> Result<()> {
        let mut file = parse("{apiVersion: g/v1, kind: K, a: {b: {c: x}}, n: 3, idle: 1}")?;
        assert_eq!(file.take::<String>("a.b.c")?.as_deref(), Some("x"));
        assert_eq!(file.take::<u16>("n")?, Some(3));
        assert_eq!(file.take::<u16>("absent")?, None);
        file.finish(&["idle"], &[])
    }

    #[test]
    fn what_is_wrong_is_named() -> Result<()> {
        let other = parse("{apiVersion: g/v2, kind: K}").expect_err("another kind").to_string();
        assert!(other.contains("g/v1"), "{other}");
        let mut file = parse("{apiVersion: g/v1, kind: K, n: many}")?;
        let wrong = file.take::<u16>("n").expect_err("no number").to_string();
        assert!(wrong.contains("n: invalid value \"many\""), "{wrong}");
        let unknown =
            parse("{apiVersion: g/v1, kind: K, a: {b: 1}}")?.finish(&[], &[]).expect_err("unknown").to_string();
        assert!(unknown.contains("a.b"), "{unknown}");
        assert!(parse("{apiVersion: g/v1, kind: K, a: 1}")?.finish(&["a"], &["a"]).is_err());
        Ok(())
    }
}
