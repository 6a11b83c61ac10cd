//! What objects use of what quotas bound: the one set of rules for admission, which works on trees, and for the controller,
//! which works on JSON. A [`View`] is how they see an object.

pub mod scope;
pub mod usage;

use crate::Quantity;
use crate::quantity::Format;
use std::collections::BTreeMap;

/// An object or a part of it, whatever it is held in. A null is as if it were not there.
pub trait View<'a>: Copy {
    fn get(self, key: &str) -> Option<Self>;
    fn text(self) -> Option<&'a str>;
    fn int(self) -> Option<i64>;
    fn flag(self) -> Option<bool>;
    /// The elements of a list; none of anything else.
    fn items(self) -> impl Iterator<Item = Self>;
    /// The members of an object; none of anything else.
    fn members(self) -> impl Iterator<Item = (&'a str, Self)>;

    fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |view, key| view.get(key))
    }
    /// The text at a path, or `""`.
    fn text_at(self, path: &[&str]) -> &'a str {
        self.at(path).and_then(Self::text).unwrap_or("")
    }
    /// The elements of the list at a path.
    fn items_at(self, path: &[&str]) -> impl Iterator<Item = Self> {
        self.at(path).into_iter().flat_map(Self::items)
    }
}

impl<'a> View<'a> for &'a serde_json::Value {
    fn get(self, key: &str) -> Option<Self> {
        serde_json::Value::get(self, key).filter(|value| !value.is_null())
    }
    fn text(self) -> Option<&'a str> {
        self.as_str()
    }
    fn int(self) -> Option<i64> {
        self.as_i64()
    }
    fn flag(self) -> Option<bool> {
        self.as_bool()
    }
    fn items(self) -> impl Iterator<Item = Self> {
        self.as_array().into_iter().flatten()
    }
    fn members(self) -> impl Iterator<Item = (&'a str, Self)> {
        self.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }
}

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

fn count(n: usize) -> Quantity {
    Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// Reads a resource list.
pub fn amounts<'a, V: View<'a>>(view: V, path: &[&str]) -> Amounts {
    let list = view.at(path).into_iter().flat_map(V::members);
    list.filter_map(|(name, value)| Some((name.to_owned(), amount(value)?))).collect()
}

/// A quantity as it is written: text, or a bare number in an object that was not normalised.
fn amount<'a, V: View<'a>>(value: V) -> Option<Quantity> {
    match value.text() {
        Some(text) => Quantity::parse(text).ok(),
        None => value.int().map(|number| Quantity::from_units(number, Format::DecimalSi)),
    }
}

/// What a pod asks for altogether (`which` is `requests` or `limits`): its containers and sidecars at once, or one init
/// container with the sidecars before it; what is said for the pod as a whole goes before that.
pub fn of_pod<'a, V: View<'a>>(pod: V, which: &str) -> Amounts {
    let mut total = pod.get("spec").map(|spec| of_containers(spec, which)).unwrap_or_default();
    total.extend(amounts(pod, &["spec", "resources", which]));
    total
}

/// What the containers of a pod's spec ask for altogether, whatever is said for the pod as a whole.
pub fn of_containers<'a, V: View<'a>>(spec: V, which: &str) -> Amounts {
    let path = ["resources", which];
    let mut total = Amounts::new();
    for container in spec.items_at(&["containers"]) {
        add(&mut total, &amounts(container, &path));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.items_at(&["initContainers"]) {
        let mut at_once = amounts(container, &path);
        if container.text_at(&["restartPolicy"]) == "Always" {
            add(&mut total, &at_once);
            add(&mut sidecars, &at_once);
            at_once = sidecars.clone();
        } else {
            add(&mut at_once, &sidecars);
        }
        raise(&mut most, at_once);
    }
    raise(&mut total, most);
    total
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, value) in more {
        let sum = total.get(name).map_or(*value, |held| held.add(value));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, least: Amounts) {
    for (name, value) in least {
        let entry = total.entry(name).or_insert(value);
        *entry = (*entry).max(value);
    }
}

/// As refusals show it: `cpu=1,memory=2Gi`.
pub fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_sum_counts_sidecars_and_the_greediest_init_container() {
        let cpu = |n: &str| json!({"limits": {"cpu": n}});
        let mut pod = json!({"spec": {"containers": [{"resources": cpu("1")}], "initContainers": [
            {"restartPolicy": "Always", "resources": cpu("1")}, {"resources": cpu("5")}]}});
        assert_eq!(of_pod(&pod, "limits").get("cpu").map(ToString::to_string).as_deref(), Some("6"));
        pod["spec"]["resources"] = cpu("4");
        assert_eq!(
            of_pod(&pod, "limits").get("cpu").map(ToString::to_string).as_deref(),
            Some("4"),
            "the pod's own word"
        );
    }
}
