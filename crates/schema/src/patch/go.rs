//! Trees as Go's `%v` shows them, which messages about patches do: `map[a:1 b:[x y] c:<nil>]`.

use crate::tree::Value;
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
            Value::Float(value) => value.fmt(f),
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

#[cfg(test)]
mod tests {
    #[test]
    fn trees_look_as_in_go() {
        let tree = crate::json::parse(br#"{"b":[1,"x",{}],"a":null,"c":{"d":true,"e":0.5}}"#).expect("json");
        assert_eq!(super::shown(&tree).to_string(), "map[a:<nil> b:[1 x map[]] c:map[d:true e:0.5]]");
    }
}
