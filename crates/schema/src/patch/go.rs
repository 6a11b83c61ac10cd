//! Trees as Go shows them, which messages about patches do: by `%v` (`map[a:1 b:[x y] c:<nil>]`), by `%#v`
//! (`map[string]interface {}{"a":1}`) and their types by `%T`.

use crate::tree::Value;
use api::field::go_quote;
use std::fmt::{self, Display, Formatter};

/// Shows a tree as Go's `%v` does.
pub fn shown(value: &Value) -> impl Display + '_ {
    Shown(value)
}

struct Shown<'a>(&'a Value);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Float(value) => number(*value, f),
            Value::Str(text) => f.write_str(text),
            Value::Raw(text) => f.write_str(text),
            Value::List(items) => {
                f.write_str("[")?;
                for (n, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if n > 0 { " " } else { "" }, Shown(item))?;
                }
                f.write_str("]")
            }
            Value::Map(map) => {
                f.write_str("map[")?;
                for (n, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{key}:{}", if n > 0 { " " } else { "" }, Shown(value))?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A number as `%v` has it: as short as it can be, with an exponent for what is large or small.
fn number(value: f64, f: &mut Formatter<'_>) -> fmt::Result {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return f.write_str(&scientific) };
    match exponent.parse::<i32>() {
        Ok(power) if !(-4..6).contains(&power) => {
            write!(f, "{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.unsigned_abs())
        }
        _ => value.fmt(f),
    }
}

/// Shows a tree as Go's `%#v` does: as source text.
pub(crate) fn go_syntax(value: &Value) -> impl Display + '_ {
    Syntax(value)
}

struct Syntax<'a>(&'a Value);

impl Display for Syntax<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("interface {}(nil)"),
            Value::Str(text) => f.write_str(&go_quote(text)),
            Value::List(items) => {
                write!(f, "{}{{", go_type(self.0))?;
                for (n, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if n > 0 { ", " } else { "" }, Syntax(item))?;
                }
                f.write_str("}")
            }
            Value::Map(map) => {
                write!(f, "{}{{", go_type(self.0))?;
                for (n, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{}:{}", if n > 0 { ", " } else { "" }, go_quote(key), Syntax(value))?;
                }
                f.write_str("}")
            }
            plain => Shown(plain).fmt(f),
        }
    }
}

/// The type of a value of a tree, as Go's `%T` shows it.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Str(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) | Value::Raw(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn trees_look_as_in_go() {
        let tree = crate::json::parse(br#"{"b":[1,"x",{}],"a":null,"c":{"d":true,"e":0.5}}"#).expect("json");
        assert_eq!(super::shown(&tree).to_string(), "map[a:<nil> b:[1 x map[]] c:map[d:true e:0.5]]");
        let numbers = crate::json::parse(b"[100000.5,1000000.0,1234567.5,-1e300,0.0001,0.00001,2.0]").expect("json");
        let shown = "[100000.5 1e+06 1.2345675e+06 -1e+300 0.0001 1e-05 2]";
        assert_eq!(super::shown(&numbers).to_string(), shown);
        let text = r#"map[string]interface {}{"a":interface {}(nil), "b":[]interface {}{1, "x", map[string]interface {}{}}, "c":map[string]interface {}{"d":true, "e":0.5}}"#;
        assert_eq!(super::go_syntax(&tree).to_string(), text);
    }
}
