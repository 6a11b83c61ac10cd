//! One object as it is held in memory: encoded once, with what selectors and indexes ask for beside it.

use super::fields::Paths;
use super::scan::{self, FieldText, Scanned, Span};
use api::selector::Labels;
use schema::{DecodeError, Encoded, Map, Schema};
use std::sync::Arc;

/// One version of one object. Never changed.
#[derive(Debug)]
pub struct Entry {
    /// `namespace/name`, or `name` of what has no namespace.
    key: Arc<str>,
    /// The store's revision of this version (of a removed object: of its removal).
    revision: u64,
    /// The item: JSON without `kind` and `apiVersion`, with the resourceVersion.
    item: Box<[u8]>,
    /// Where the resourceVersion's member begins and ends in the item.
    version: Span,
    uid: Span,
    deleting: bool,
    /// This process wrote it: it has all defaults that are known.
    filled: bool,
    /// In the order of their keys.
    labels: Box<[(Span, Span)]>,
    fields: Box<[FieldText]>,
    /// Maps that a write may leave as they are, and as text: see [`Scanned::members`].
    members: Box<[Span]>,
}

/// Why a stored value is no object.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoredError {
    #[error("the stored value of {key} is no object of its kind")]
    Undecodable {
        key: String,
        #[source]
        source: DecodeError,
    },
    #[error("the stored value of {key} has a text that cannot be found again")]
    Unscannable { key: String },
    /// Upstream's words alone, to which it adds the key in lists.
    #[error("{0}")]
    Encrypted(String),
}

impl Entry {
    /// Makes an entry of a stored value. `head` is what values of this storage begin with.
    ///
    /// # Errors
    /// [`StoredError`] for a value that is not JSON or protobuf of the schema's kind.
    pub fn from_stored(
        key: &str,
        revision: u64,
        stored: &[u8],
        head: &[u8],
        schema: &Schema,
        paths: &Paths,
    ) -> Result<Entry, StoredError> {
        if stored.starts_with(head)
            && let Some(entry) = Self::build(key, revision, stored, head.len(), paths)
        {
            return Ok(entry);
        }
        if let Some(why) = crate::encryption::unreadable(stored) {
            return Err(StoredError::Encrypted(why));
        }
        if stored.starts_with(crate::encryption::ENCRYPTED) {
            return Err(StoredError::Encrypted("identity transformer tried to read encrypted data".to_owned()));
        }
        let undecodable = |source| StoredError::Undecodable { key: key.to_owned(), source };
        let decoded = if stored.starts_with(b"k8s\0") {
            schema::protobuf::decode(schema.root(), stored)
        } else {
            schema::json::decode(schema.root(), stored)
        };
        let encoded = Encoded::new(&decoded.map_err(undecodable)?.object);
        Self::build(key, revision, encoded.bare(), 1, paths)
            .ok_or_else(|| StoredError::Unscannable { key: key.to_owned() })
    }

    /// The same of what this process wrote just now, and knows.
    pub(super) fn from_known(key: &str, revision: u64, stored: &[u8], head: &[u8], known: Scanned) -> Entry {
        // What was noted are offsets into the text with a brace in place of the head.
        let entry = Self::assemble(key, revision, &stored[head.len() - 1..], 1, known);
        debug_assert!(std::str::from_utf8(&entry.item).is_ok());
        Entry { filled: true, ..entry }
    }

    /// `text[from..]` are the members of the object without its kind, and a closing brace.
    fn build(key: &str, revision: u64, text: &[u8], from: usize, paths: &Paths) -> Option<Entry> {
        let scanned = scan::scan(text, from, paths)?;
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        // What is read as text later must be text.
        std::str::from_utf8(text).ok()?;
        // With the longest resourceVersion, spans can tell where everything is.
        u32::try_from(text.len() + 64).ok()?;
        Some(Self::assemble(key, revision, text, from, scanned))
    }

    fn assemble(key: &str, revision: u64, text: &[u8], from: usize, scanned: Scanned) -> Entry {
        let member = schema::encoded::version(revision, scanned.alone);
        let mut item = Vec::with_capacity(text.len() - from + 1 + member.len());
        item.push(b'{');
        item.extend_from_slice(&text[from..scanned.metadata]);
        let start = item.len();
        item.extend_from_slice(&member);
        let end = item.len();
        item.extend_from_slice(&text[scanned.metadata..]);
        let place = |offset: u32| {
            let offset = offset as usize;
            (if offset < scanned.metadata { offset + 1 - from } else { offset + 1 - from + member.len() }) as u32
        };
        let moved = |span: Span| match span {
            Span { start: 0, end: 0 } => span,
            Span { start, end } => Span { start: place(start), end: place(end) },
        };
        let fields = scanned.fields.into_iter().map(|field| match field {
            FieldText::At(span) => FieldText::At(moved(span)),
            other => other,
        });
        let mut labels: Box<[(Span, Span)]> = scanned.labels.into_iter().map(|(k, v)| (moved(k), moved(v))).collect();
        labels.sort_unstable_by(|(a, _), (b, _)| item[a.range()].cmp(&item[b.range()]));
        Entry {
            key: key.into(),
            revision,
            item: item.into(),
            version: Span { start: start as u32, end: end as u32 },
            uid: moved(scanned.uid),
            deleting: scanned.deleting,
            filled: false,
            labels,
            fields: fields.collect(),
            members: scanned.members.into_iter().map(moved).collect(),
        }
    }

    /// The same object at another revision: what a removal is told with.
    pub fn at_revision(&self, revision: u64) -> Entry {
        let member = schema::encoded::version(revision, self.item[self.version.end as usize - 1] != b',');
        let (start, end) = (self.version.start as usize, self.version.end as usize);
        let mut item = Vec::with_capacity(self.item.len() + member.len());
        item.extend_from_slice(&self.item[..start]);
        item.extend_from_slice(&member);
        item.extend_from_slice(&self.item[end..]);
        let place = |offset: u32| {
            if offset <= self.version.start {
                offset
            } else {
                offset + member.len() as u32 - (self.version.end - self.version.start)
            }
        };
        let moved = |span: Span| Span { start: place(span.start), end: place(span.end) };
        Entry {
            key: self.key.clone(),
            revision,
            item: item.into(),
            version: Span { start: self.version.start, end: self.version.start + member.len() as u32 },
            uid: moved(self.uid),
            deleting: self.deleting,
            filled: self.filled,
            labels: self.labels.iter().map(|(k, v)| (moved(*k), moved(*v))).collect(),
            fields: self
                .fields
                .iter()
                .map(|field| match field {
                    FieldText::At(span) => FieldText::At(moved(*span)),
                    other => other.clone(),
                })
                .collect(),
            members: self.members.iter().map(|member| moved(*member)).collect(),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }
    /// The key, for an index that keeps it.
    pub(super) fn shared_key(&self) -> Arc<str> {
        self.key.clone()
    }
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }
    pub fn revision(&self) -> u64 {
        self.revision
    }
    pub fn uid(&self) -> &str {
        self.text(self.uid)
    }
    /// It has a deletionTimestamp.
    pub fn deleting(&self) -> bool {
        self.deleting
    }
    /// Whether it surely has all its defaults.
    pub(crate) fn filled(&self) -> bool {
        self.filled
    }
    /// JSON without `kind` and `apiVersion`: an item of a list.
    pub fn item(&self) -> &[u8] {
        &self.item
    }
    /// In the order of their keys.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.labels.iter().map(|(key, value)| (self.text(*key), self.text(*value)))
    }

    /// The value of the selectable field of a number, as selectors compare it.
    pub fn field<'a>(&'a self, paths: &'a Paths, number: usize) -> &'a str {
        let slot = |at: usize| match self.fields.get(at) {
            Some(FieldText::At(span)) => self.text(*span),
            Some(FieldText::Owned(text)) => text,
            _ => "",
        };
        let text = match slot(number * 2) {
            "" => slot(number * 2 + 1),
            text => text,
        };
        if text.is_empty() { paths.fields()[number].absent } else { text }
    }

    /// The tree of the object, with `kind` and `apiVersion` of the row it is asked for.
    ///
    /// # Errors
    /// [`DecodeError`] when the item is no object of the schema: it was written under another one.
    pub fn decode(&self, schema: &Schema, api_version: &str, kind: &str) -> Result<Map, DecodeError> {
        let mut object = schema::json::decode(schema.root(), &self.item)?.object;
        object.insert("apiVersion", api_version);
        object.insert("kind", kind);
        Ok(object)
    }

    /// The same, as a write goes out from it: long parts of what this process wrote stay text until they are asked for.
    ///
    /// # Errors
    /// As [`Entry::decode`].
    pub(crate) fn decode_leaving(
        self: &Arc<Self>,
        schema: &Schema,
        api_version: &str,
        kind: &str,
    ) -> Result<Map, DecodeError> {
        let left: Vec<_> = self.members.iter().map(|member| member.range()).collect();
        let mut object = schema::json::decode_leaving(schema, self.clone(), &left)?;
        object.insert("apiVersion", api_version);
        object.insert("kind", kind);
        Ok(object)
    }

    /// What the slot of a selectable field has.
    pub(super) fn text_of(&self, slot: usize) -> &FieldText {
        self.fields.get(slot).unwrap_or(&FieldText::Absent)
    }

    /// What it takes in memory, about.
    pub fn size(&self) -> usize {
        let spans = self.labels.len() * 16 + self.members.len() * 8;
        self.item.len() + self.key.len() + spans + self.fields.len() * 24 + 176
    }

    fn text(&self, span: Span) -> &str {
        // The whole item was found to be UTF-8, and spans end at quotes or other ASCII.
        std::str::from_utf8(&self.item[span.range()]).unwrap_or("")
    }
}

/// Its item.
impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.item
    }
}

impl Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(k, _)| self.item[k.range()].cmp(key.as_bytes())).ok()?;
        Some(self.text(self.labels[found].1))
    }
}
