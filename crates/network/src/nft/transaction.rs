//! Transactions: changes that the kernel carries out as a whole or not at all.

use super::Family;
use super::object::{Chain, ChainKind, Element, Set, SetData, Table, length_of, number_of};
use super::rule::Rule;
use crate::netlink::{Batch, Bytes, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// A message holds at most 64 KiB of elements; what is left out is room for headers.
const ELEMENTS_PER_MESSAGE: usize = 60 << 10;

/// Changes to tables of one owner, in order.
pub struct Transaction {
    pub(super) batch: Batch,
    changes: usize,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    /// No changes.
    pub fn new() -> Self {
        let mut batch = Batch::new();
        batch.push(BATCH_BEGIN, 0, "begin a transaction", |m| m.raw(&header(0, SUBSYSTEM)));
        Self { batch, changes: 0 }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// How many requests the changes take.
    pub fn len(&self) -> usize {
        self.changes
    }

    /// The size of the encoded changes in bytes.
    pub fn size(&self) -> usize {
        self.batch.size()
    }

    pub(super) fn finish(mut self) -> Batch {
        self.batch.push(BATCH_END, 0, "commit a transaction", |m| m.raw(&header(0, SUBSYSTEM)));
        self.batch
    }

    fn push(&mut self, kind: u16, flags: u16, family: Family, operation: String, body: impl FnOnce(&mut Bytes)) {
        self.changes += 1;
        self.batch.push((SUBSYSTEM << 8) | kind, flags, operation, |m| {
            m.raw(&header(family as u8, 0));
            body(m);
        });
    }

    /// Makes a table unless it exists. The comment stays as it is when it does.
    pub fn add_table(&mut self, table: &Table, comment: Option<&str>) {
        let operation = format!("add the table {:?}", table.name);
        self.push(NEW_TABLE, NLM_F_CREATE, table.family, operation, |m| {
            m.string(1, &table.name);
            if let Some(comment) = comment {
                m.attribute(6, &comment_data(comment));
            }
        });
    }

    /// Deletes a table and all that is in it.
    pub fn delete_table(&mut self, table: &Table) {
        let operation = format!("delete the table {:?}", table.name);
        self.push(DELETE_TABLE, 0, table.family, operation, |m| m.string(1, &table.name));
    }

    /// Makes a table that is empty, whatever was there before. What is added later in the same transaction
    /// takes the place of the old contents without a gap.
    pub fn replace_table(&mut self, table: &Table, comment: Option<&str>) {
        self.delete_table_if_any(table);
        self.add_table(table, comment);
    }

    /// Deletes a table and all that is in it, if it exists.
    pub fn delete_table_if_any(&mut self, table: &Table) {
        // Deleting what is not there would fail the whole transaction; adding what is there does nothing.
        self.add_table(table, None);
        self.delete_table(table);
    }

    /// Makes a chain unless it exists.
    pub fn add_chain(&mut self, table: &Table, chain: &Chain<'_>) {
        let operation = format!("add the chain {:?} to the table {:?}", chain.name, table.name);
        self.push(NEW_CHAIN, NLM_F_CREATE, table.family, operation, |m| {
            m.string(1, &table.name);
            m.string(3, &chain.name);
            if let Some((kind, hook, priority)) = chain.hook {
                const DROP: u32 = 0;
                const ACCEPT: u32 = 1;
                m.nested(4, |m| {
                    m.be32(1, hook as u32);
                    m.be32(2, priority as u32);
                });
                m.be32(5, if chain.drops { DROP } else { ACCEPT });
                m.string(7, if kind == ChainKind::Nat { "nat" } else { "filter" });
            }
        });
    }

    /// Deletes a chain. Nothing may lead to it any more, and it must be empty.
    pub fn delete_chain(&mut self, table: &Table, name: &str) {
        let operation = format!("delete the chain {name:?} of the table {:?}", table.name);
        self.push(DELETE_CHAIN, 0, table.family, operation, |m| {
            m.string(1, &table.name);
            m.string(3, name);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, name: &str) {
        let operation = format!("empty the chain {name:?} of the table {:?}", table.name);
        self.push(DELETE_RULE, 0, table.family, operation, |m| {
            m.string(1, &table.name);
            m.string(2, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        let operation = format!("add a rule to the chain {chain:?} of the table {:?}", table.name);
        self.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, table.family, operation, |m| {
            m.string(1, &table.name);
            m.string(2, chain);
            m.nested(4, |m| {
                for expression in &rule.expressions {
                    m.nested(1, |m| expression.encode(m));
                }
            });
            if !rule.comment.is_empty() {
                m.attribute(7, &comment_data(&rule.comment));
            }
        });
    }

    /// Makes a set or map unless one of the same name and type exists.
    pub fn add_set(&mut self, table: &Table, set: &Set<'_>) {
        // The kernel wants a number that is the set's own within the transaction.
        let id = self.changes as u32 + 1;
        let operation = format!("add the set {:?} to the table {:?}", set.name, table.name);
        self.push(NEW_SET, NLM_F_CREATE, table.family, operation, |m| {
            m.string(1, &table.name);
            m.string(2, &set.name);
            m.be32(3, set_flags(set));
            m.be32(4, number_of(&set.key));
            m.be32(5, length_of(&set.key));
            match &set.data {
                SetData::None => {}
                SetData::Fields(fields) => {
                    m.be32(6, number_of(fields));
                    m.be32(7, length_of(fields));
                }
                SetData::Verdict => {
                    const VERDICT: u32 = 0xffff_ff00;
                    m.be32(6, VERDICT);
                    m.be32(7, 16);
                }
            }
            if let Some(size) = set.flags.dynamic {
                m.nested(9, |m| m.be32(1, size));
            }
            m.be32(10, id);
            if let Some(timeout) = set.flags.timeout {
                m.be64(11, timeout.as_millis() as u64);
            }
        });
    }

    /// Deletes a set or map. No rule may use it any more.
    pub fn delete_set(&mut self, table: &Table, name: &str) {
        let operation = format!("delete the set {name:?} of the table {:?}", table.name);
        self.push(DELETE_SET, 0, table.family, operation, |m| {
            m.string(1, &table.name);
            m.string(2, name);
        });
    }

    /// Deletes all elements of a set or map.
    pub fn flush_set(&mut self, table: &Table, name: &str) {
        let operation = format!("empty the set {name:?} of the table {:?}", table.name);
        self.push(DELETE_ELEMENT, 0, table.family, operation, |m| {
            m.string(1, &table.name);
            m.string(2, name);
        });
    }

    /// Adds elements to a set or map. An element that is there already is fine if it is the same, and an
    /// error if it leads elsewhere.
    pub fn add_elements<'a>(&mut self, table: &Table, set: &str, elements: impl IntoIterator<Item = &'a Element>) {
        let operation = || format!("add elements to the set {set:?} of the table {:?}", table.name);
        self.elements(NEW_ELEMENT, NLM_F_CREATE, table, set, operation, elements);
    }

    /// Adds elements that must not be there yet, even the same.
    pub fn create_elements<'a>(&mut self, table: &Table, set: &str, elements: impl IntoIterator<Item = &'a Element>) {
        let operation = || format!("create elements in the set {set:?} of the table {:?}", table.name);
        self.elements(NEW_ELEMENT, NLM_F_CREATE | NLM_F_EXCL, table, set, operation, elements);
    }

    /// Deletes elements of a set or map, which must be there.
    pub fn delete_elements<'a>(&mut self, table: &Table, set: &str, elements: impl IntoIterator<Item = &'a Element>) {
        let operation = || format!("delete elements of the set {set:?} of the table {:?}", table.name);
        self.elements(DELETE_ELEMENT, 0, table, set, operation, elements);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        table: &Table,
        set: &str,
        operation: impl Fn() -> String,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.push(kind, flags, table.family, operation(), |m| {
                m.string(1, &table.name);
                m.string(2, set);
                let start = m.len();
                m.nested(3, |m| {
                    for element in elements.by_ref() {
                        m.nested(1, |m| element.encode(m));
                        if m.len() - start > ELEMENTS_PER_MESSAGE {
                            break;
                        }
                    }
                });
            });
        }
    }
}

pub(super) fn header(family: u8, resource: u16) -> [u8; 4] {
    let resource = resource.to_be_bytes();
    [family, 0, resource[0], resource[1]]
}

fn set_flags(set: &Set<'_>) -> u32 {
    let mut flags = 0;
    if set.flags.interval {
        flags |= 0x4;
    }
    if set.data != SetData::None {
        flags |= 0x8;
    }
    if set.flags.timeout.is_some() {
        flags |= 0x10;
    }
    if set.flags.dynamic.is_some() {
        flags |= 0x20;
    }
    flags
}

/// A comment as `nft` keeps it in the user data of an object: a type, a length, a text with its zero.
fn comment_data(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    const LONGEST: usize = 127;
    let mut end = comment.len().min(LONGEST);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let mut data = vec![COMMENT, end as u8 + 1];
    data.extend_from_slice(&comment.as_bytes()[..end]);
    data.push(0);
    data
}
