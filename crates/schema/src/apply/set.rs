//! Sets of paths, and their algebra; written as `fieldsV1`.

use super::path::Element;
use crate::tree::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths below one place. The place itself is a member or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    member: bool,
    children: BTreeMap<Element, Set>,
}

impl Set {
    pub fn new() -> Self {
        Set::default()
    }
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Set::is_empty)
    }
    /// Whether the place itself is a member.
    pub fn is_member(&self) -> bool {
        self.member
    }
    pub fn insert_here(&mut self) {
        self.member = true;
    }
    /// The set below an element, made when there was none.
    pub fn below(&mut self, element: Element) -> &mut Set {
        self.children.entry(element).or_default()
    }
    /// Puts a set below an element, unless it is empty.
    pub fn put(&mut self, element: Element, set: Set) {
        if !set.is_empty() {
            self.children.insert(element, set);
        }
    }
    pub fn get(&self, element: &Element) -> Option<&Set> {
        self.children.get(element)
    }
    pub fn children(&self) -> impl Iterator<Item = (&Element, &Set)> {
        self.children.iter()
    }

    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        let mut result = self.clone();
        result.member |= other.member;
        for (element, set) in &other.children {
            let slot = result.children.entry(element.clone()).or_default();
            *slot = slot.union(set);
        }
        result
    }

    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let mut result = Set { member: self.member && other.member, ..Set::default() };
        for (element, set) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                result.put(element.clone(), set.intersection(theirs));
            }
        }
        result
    }

    /// The members that are no members of the other.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        let mut result = Set { member: self.member && !other.member, ..Set::default() };
        for (element, set) in &self.children {
            let left = other.children.get(element).map_or_else(|| set.clone(), |theirs| set.difference(theirs));
            result.put(element.clone(), left);
        }
        result
    }

    /// The members that are neither members of the other nor below one.
    #[must_use]
    pub fn recursive_difference(&self, other: &Set) -> Set {
        if other.member {
            return Set::default();
        }
        let mut result = Set { member: self.member, ..Set::default() };
        for (element, set) in &self.children {
            let left =
                other.children.get(element).map_or_else(|| set.clone(), |theirs| set.recursive_difference(theirs));
            result.put(element.clone(), left);
        }
        result
    }

    /// The paths of all members, as messages show them.
    pub fn paths(&self) -> Vec<String> {
        fn collect(set: &Set, prefix: &str, out: &mut Vec<String>) {
            if set.member {
                out.push(prefix.to_owned());
            }
            for (element, child) in &set.children {
                collect(child, &format!("{prefix}{element}"), out);
            }
        }
        let mut out = Vec::new();
        collect(self, "", &mut out);
        out
    }

    /// As `fieldsV1`.
    pub fn to_fields(&self) -> Map {
        let mut fields = Map::new();
        for (element, set) in &self.children {
            if set.is_empty() {
                continue;
            }
            let mut below = set.to_fields();
            if set.member && !below.is_empty() {
                below.insert(".", Value::Map(Map::new()));
            }
            fields.insert(element.spelled(), Value::Map(below));
        }
        fields
    }

    /// Reads `fieldsV1`.
    ///
    /// # Errors
    /// The key that is no path element.
    pub fn from_fields(fields: &Map) -> Result<Set, String> {
        let mut set = Set::default();
        for (key, value) in fields.iter() {
            if key == "." {
                set.member = true;
                continue;
            }
            let element = Element::parse(key).ok_or_else(|| format!("{key:?} is no path element"))?;
            let child = match value {
                Value::Map(map) if map.is_empty() => Set { member: true, ..Set::default() },
                Value::Map(map) => Set::from_fields(map)?,
                _ => return Err(format!("the value of {key:?} is no object")),
            };
            set.children.insert(element, child);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = Set> {
        let leaf = any::<bool>().prop_map(|member| Set { member, ..Set::default() });
        leaf.prop_recursive(3, 24, 4, |inner| {
            (any::<bool>(), proptest::collection::btree_map("[a-c]".prop_map(Element::Field), inner, 0..4))
                .prop_map(|(member, children)| Set { member, children })
        })
    }

    fn members(set: &Set) -> std::collections::BTreeSet<String> {
        set.paths().into_iter().collect()
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in set(), b in set()) {
            let (ma, mb) = (members(&a), members(&b));
            prop_assert_eq!(members(&a.union(&b)), &ma | &mb);
            prop_assert_eq!(members(&a.intersection(&b)), &ma & &mb);
            prop_assert_eq!(members(&a.difference(&b)), &ma - &mb);
        }

        #[test]
        fn fields_are_read_as_they_are_written(a in set()) {
            let mut a = a;
            // The root has no name of its own in fieldsV1.
            a.member = false;
            let back = Set::from_fields(&a.to_fields()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(members(&back), members(&a));
        }
    }
}
