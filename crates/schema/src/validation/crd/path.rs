//! Paths of fields in a schema: `.spec.colour`, `.spec['my-field']`.

use crate::tree::Value;
use crate::view::apiextensions_v1::JSONSchemaProps;

/// Where a path leads.
pub(super) struct Found<'a> {
    pub names: Vec<String>,
    /// None for the values of a map that may have any.
    pub schema: Option<JSONSchemaProps<'a>>,
}

/// Follows a path; the error says what is wrong with it.
pub(super) fn find<'a>(text: &str, root: JSONSchemaProps<'a>, brackets: bool) -> Result<Found<'a>, String> {
    const END: &str = "unexpected end of JSON path";
    const NOTHING: &str = "does not refer to a valid field";
    let mut tokens = tokens(text).into_iter();
    let mut found = Found { names: Vec::new(), schema: Some(root) };
    while let Some(token) = tokens.next() {
        let name = match token {
            "." => tokens.next().ok_or(END)?.to_owned(),
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = tokens.next().ok_or(END)?;
                let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let inner = inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                match tokens.next().ok_or(END)? {
                    "]" => unescape(inner),
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let at = found.schema.ok_or(NOTHING)?;
        found.schema = if at.properties().is_empty() {
            match at.additional_properties() {
                None => return Err(NOTHING.to_owned()),
                of => super::single(of),
            }
        } else {
            Some(at.properties().get(&name).ok_or(NOTHING)?)
        };
        found.names.push(name);
    }
    Ok(found)
}

/// Delimiters, quoted strings, and what is between.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = if let Some(quoted) = rest.strip_prefix('\'') {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '\'' && !escaped;
                escaped = c == '\\';
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            rest.find(['.', '[', ']']).map_or(rest.len(), |at| at.max(1))
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after;
    }
    tokens
}

fn unescape(text: &str) -> String {
    text.replace("\\'", "'").replace("\\\\", "\\")
}

/// Whether a path leads anywhere in a schema that may be an object's or a map's.
pub(super) fn leads(text: &str, root: JSONSchemaProps<'_>) -> bool {
    // A schema that can't be followed at all is refused elsewhere.
    root.0.get("items").is_some_and(|items| matches!(items, Value::List(_))) || find(text, root, true).is_ok()
}
