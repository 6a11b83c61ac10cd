//! Committing transactions and asking what the kernel has.

use super::Family;
use super::object::{Element, ElementData, Table, Verdict};
use super::transaction::{Transaction, header};
use crate::Result;
use crate::netlink::{Attributes, Batch, NLM_F_DUMP, Protocol, Socket, read_be32, read_string};

const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = (SUBSYSTEM << 8) | 1;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const GET_CHAIN: u16 = (SUBSYSTEM << 8) | 4;
const NEW_SET: u16 = (SUBSYSTEM << 8) | 9;
const GET_SET: u16 = (SUBSYSTEM << 8) | 10;
const NEW_ELEMENT: u16 = (SUBSYSTEM << 8) | 12;
const GET_ELEMENT: u16 = (SUBSYSTEM << 8) | 13;

/// A socket for the nftables of one network namespace: the one in which it was opened.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

/// A base chain of anybody's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseChain {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// The number of its hook; see [`super::Hook`].
    pub hook: u32,
    /// Whether what reaches its end is dropped.
    pub drops: bool,
    /// How many rules it has.
    pub rules: u32,
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Carries out a transaction as a whole or, on an error, not at all. The error is that of the first
    /// change that was refused.
    pub fn commit(&mut self, transaction: Transaction) -> Result<()> {
        if transaction.is_empty() {
            return Ok(());
        }
        self.socket.transact(&transaction.finish())
    }

    /// Deletes elements of a set or map of which some may be gone, such as those that expire.
    pub fn delete_elements_if_any(&mut self, table: &Table, set: &str, elements: &[Element]) -> Result<()> {
        let delete = |elements: &[Element]| {
            let mut t = Transaction::new();
            t.delete_elements(table, set, elements);
            t
        };
        match self.commit(delete(elements)) {
            Err(error) if error.is_not_found() => {}
            result => return result,
        }
        for element in elements {
            match self.commit(delete(std::slice::from_ref(element))) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All tables of all families with their comments.
    pub fn tables(&mut self) -> Result<Vec<(Table, String)>> {
        let mut batch = Batch::new();
        batch.push(GET_TABLE, NLM_F_DUMP, "list the nftables tables", |m| m.raw(&header(0, 0)));
        self.socket.dump(&batch, |kind, body| {
            let family = Family::from_number(*body.first()?)?;
            let attributes = Attributes::new(body.get(4..)?);
            (kind == NEW_TABLE).then_some(())?;
            let name = read_string(attributes.get(1)?);
            Some((Table { family, name }, attributes.get(6).map(comment).unwrap_or_default()))
        })
    }

    /// All base chains of all tables.
    pub fn base_chains(&mut self) -> Result<Vec<BaseChain>> {
        let mut batch = Batch::new();
        batch.push(GET_CHAIN, NLM_F_DUMP, "list the nftables chains", |m| m.raw(&header(0, 0)));
        self.socket.dump(&batch, |kind, body| {
            (kind == NEW_CHAIN).then_some(())?;
            let family = Family::from_number(*body.first()?)?;
            let attributes = Attributes::new(body.get(4..)?);
            let hook = Attributes::new(attributes.get(4)?);
            Some(BaseChain {
                table: Table { family, name: read_string(attributes.get(1)?) },
                name: read_string(attributes.get(3)?),
                hook: read_be32(hook.get(1)?)?,
                drops: attributes.get(5).and_then(read_be32) == Some(0),
                // Its uses; nothing can lead to a base chain, so these are its rules.
                rules: attributes.get(6).and_then(read_be32)?,
            })
        })
    }

    /// Whether a table has base chains, and rules in each: not once somebody deleted or flushed it, as
    /// firewall services do to all tables when they are reloaded.
    pub fn is_intact(&mut self, table: &Table) -> Result<bool> {
        let mut chains = self.base_chains()?;
        chains.retain(|chain| chain.table == *table);
        Ok(!chains.is_empty() && chains.iter().all(|chain| chain.rules > 0))
    }

    /// The names of the chains of a table.
    pub fn chains(&mut self, table: &Table) -> Result<Vec<String>> {
        self.names(GET_CHAIN, NEW_CHAIN, 3, table, "list the chains of a table")
    }

    /// The names of the sets and maps of a table.
    pub fn sets(&mut self, table: &Table) -> Result<Vec<String>> {
        self.names(GET_SET, NEW_SET, 2, table, "list the sets of a table")
    }

    fn names(&mut self, get: u16, new: u16, attribute: u16, table: &Table, operation: &str) -> Result<Vec<String>> {
        let mut batch = Batch::new();
        batch.push(get, NLM_F_DUMP, operation, |m| {
            m.raw(&header(table.family as u8, 0));
            m.string(1, &table.name);
        });
        self.socket.dump(&batch, |kind, body| {
            (kind == new).then_some(())?;
            let attributes = Attributes::new(body.get(4..)?);
            // Not every kernel filters a dump by its table.
            (read_string(attributes.get(1)?) == table.name).then(|| attributes.get(attribute).map(read_string))?
        })
    }

    /// The elements of a set or map.
    pub fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>> {
        let mut batch = Batch::new();
        batch.push(GET_ELEMENT, NLM_F_DUMP, format!("list the elements of the set {set:?}"), |m| {
            m.raw(&header(table.family as u8, 0));
            m.string(1, &table.name);
            m.string(2, set);
        });
        let messages = self.socket.dump(&batch, |kind, body| {
            (kind == NEW_ELEMENT).then_some(())?;
            let list = Attributes::new(body.get(4..)?).get(3)?;
            Some(Attributes::new(list).filter_map(|(_, element)| parse_element(element)).collect::<Vec<_>>())
        })?;
        Ok(messages.into_iter().flatten().collect())
    }
}

fn parse_element(element: &[u8]) -> Option<Element> {
    let attributes = Attributes::new(element);
    let data = match attributes.get(2).and_then(|data| Attributes::new(data).next()) {
        Some((1, value)) => ElementData::Value(value.to_vec()),
        Some((2, verdict)) => ElementData::Verdict(parse_verdict(verdict)?),
        _ => ElementData::None,
    };
    Some(Element {
        key: Attributes::new(attributes.get(1)?).get(1)?.to_vec(),
        range_end: attributes.get(3).and_then(read_be32).is_some_and(|flags| flags & 1 != 0),
        data,
    })
}

fn parse_verdict(verdict: &[u8]) -> Option<Verdict> {
    let attributes = Attributes::new(verdict);
    let chain = || attributes.get(2).map(read_string);
    match read_be32(attributes.get(1)?)? as i32 {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -3 => Some(Verdict::Jump(chain()?)),
        -4 => Some(Verdict::Goto(chain()?)),
        -5 => Some(Verdict::Return),
        _ => None,
    }
}

fn comment(user_data: &[u8]) -> String {
    match user_data {
        [0, length, text @ ..] => read_string(&text[..text.len().min(usize::from(*length))]),
        _ => String::new(),
    }
}
