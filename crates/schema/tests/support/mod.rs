//! Objects made up from the catalogue: any kind, any field.

use schema::{Kind, Map, Resource, TypeRef, Value, resource};

/// Every kind, those that are served only when they are asked for included.
pub(crate) fn kinds() -> impl Iterator<Item = &'static Resource> {
    resource::all().iter().chain(resource::optional())
}

/// One of them.
pub(crate) fn kind(n: usize) -> &'static Resource {
    kinds().nth(n % kinds().count()).expect("there are kinds")
}

pub(crate) struct Generator {
    state: u64,
    /// How many values may still be made.
    budget: u32,
}

impl Generator {
    pub(crate) fn new(seed: u64, budget: u32) -> Self {
        Generator { state: seed.wrapping_mul(2) | 1, budget }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % below
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.next(from.len() as u64) as usize]
    }

    /// An object with its kind.
    pub(crate) fn object(&mut self, ty: TypeRef<'_>, api_version: &str, kind: &str) -> Map {
        let Value::Map(mut map) = self.value(ty) else { panic!("{ty:?} is no struct") };
        map.insert("apiVersion", api_version);
        map.insert("kind", kind);
        map
    }

    fn value(&mut self, ty: TypeRef<'_>) -> Value {
        self.budget = self.budget.saturating_sub(1);
        match ty.kind() {
            Kind::String => {
                self.pick(&["", "a", "some-name", "a longer text with \"quotes\" and ünïcode", "x/y"]).into()
            }
            Kind::Bool => Value::Bool(self.next(2) == 0),
            Kind::Int32 => Value::Int([0, 1, -1, 80, i64::from(i32::MAX), i64::from(i32::MIN)][self.next(6) as usize]),
            Kind::Int64 => Value::Int([0, 1, -1, 1 << 40, i64::MAX, i64::MIN][self.next(6) as usize]),
            Kind::Float => Value::Float([0.0, 1.0, -0.5, 1e30, 1e-9][self.next(5) as usize]),
            Kind::Quantity => {
                self.pick(&["0", "1", "100m", "0.5", "1Gi", "1536Mi", "1e3", "2.5Gi", "-3k", "7n"]).into()
            }
            Kind::IntOrString if self.next(2) == 0 => Value::Int(self.next(65536) as i64),
            Kind::IntOrString => self.pick(&["http", "25%", ""]).into(),
            Kind::Time => {
                self.pick(&["2024-02-29T12:00:00Z", "1969-12-31T23:59:59+01:00", "2030-01-01T00:00:00.25Z"]).into()
            }
            Kind::MicroTime => self.pick(&["2024-02-29T12:00:00.000001Z", "1969-12-31T23:59:59.999999Z"]).into(),
            Kind::Duration => self.pick(&["1m30s", "0s", "1.5s"]).into(),
            Kind::Bytes => self.pick(&["", "aGVsbG8=", "AA==", "/+8="]).into(),
            Kind::Raw | Kind::Fields => {
                schema::json::parse(br#"{"f:a":{},"n":null,"k":[1,1.5,"x",{"y":true}]}"#).unwrap()
            }
            Kind::Json => {
                schema::json::parse(self.pick(&["1", "\"x\"", "{\"a\":[null]}", "true", "[]"]).as_bytes()).unwrap()
            }
            Kind::List(of) => Value::List((0..=self.next(3)).map(|_| self.value(of)).collect()),
            Kind::Map(of) => {
                let keys: Vec<&str> = (0..=self.next(3)).map(|_| self.pick(&["a", "b.c/d", "", "ü", "z"])).collect();
                keys.into_iter().map(|key| (key.into(), self.value(of))).collect::<Map>().into()
            }
            Kind::OrBool(_) if self.next(2) == 0 => Value::Bool(self.next(2) == 0),
            Kind::OrList(of) if self.next(2) == 0 => Value::List(vec![self.value(of)]),
            Kind::OrStrings(_) if self.next(2) == 0 => Value::List(vec!["a".into(), "b".into()]),
            Kind::OrBool(of) | Kind::OrList(of) | Kind::OrStrings(of) => self.value(of),
            Kind::Struct(s) => {
                let mut map = Map::new();
                for field in s.fields().filter(|field| field.number() > 0) {
                    if self.budget > 0 && self.next(3) > 0 {
                        map.insert(field.name(), self.value(field.ty()));
                    }
                }
                map.into()
            }
        }
    }
}
