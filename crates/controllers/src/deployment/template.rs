//! Pod templates: their identity apart from the hash that is written into them.

use serde_json::Value;

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Letters and digits of hashes: no vowels, nothing that looks alike (apimachinery `rand.SafeEncodeString`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Whether two templates are the same but for the hash label, and for how their quantities are written.
pub fn equal_ignoring_hash(a: &Value, b: &Value) -> bool {
    api::pod_template::same(&without_hash(a), &without_hash(b))
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        let empty = metadata.get_mut("labels").and_then(Value::as_object_mut).is_some_and(|labels| {
            labels.remove(HASH_LABEL);
            labels.is_empty()
        });
        if empty {
            metadata.remove("labels");
        }
    }
    template
}

/// The hash of a template: the same for the same template, another when a collision was counted.
pub fn hash(template: &Value, collisions: Option<i32>) -> String {
    // serde_json's maps are sorted, so equal templates have equal text.
    let mut sum = Fnv::default();
    sum.write(without_hash(template).to_string().as_bytes());
    if let Some(n) = collisions {
        sum.write(&n.to_le_bytes());
    }
    sum.0.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// FNV-1a, 32 bits.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0x811c_9dc5)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_label_is_no_part_of_the_identity() {
        let plain = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a"}]}});
        let mut labelled = plain.clone();
        labelled["metadata"]["labels"][HASH_LABEL] = "abc".into();
        assert!(equal_ignoring_hash(&plain, &labelled));
        assert_eq!(hash(&plain, None), hash(&labelled, None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
        let asking = |cpu: &str| {
            let mut template = plain.clone();
            template["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": cpu}});
            template
        };
        assert!(equal_ignoring_hash(&asking("1.234"), &asking("1234m")));
        assert!(!equal_ignoring_hash(&asking("1.234"), &asking("1235m")));
        let mut other = plain.clone();
        other["spec"]["containers"][0]["name"] = "b".into();
        assert!(!equal_ignoring_hash(&plain, &other));
        assert_ne!(hash(&plain, None), hash(&other, None));
        assert!(hash(&plain, None).bytes().all(|b| ALPHABET.contains(&b)));
    }
}
