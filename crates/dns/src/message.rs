//! Messages on the wire: reading questions, writing answers.

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::answer::Own;

/// The largest answer over UDP to a client that does not say what it takes.
const PLAIN_UDP: u16 = 512;
/// The largest answer over UDP to anyone: what passes every network in one piece.
const LARGEST_UDP: u16 = 1232;

const HEADER: usize = 12;
const OPT_LENGTH: u16 = 11;

/// How a question came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// As a datagram, to which an answer has limited room.
    Udp,
    /// On a connection.
    Tcp,
}

/// A question that can be answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its header.
    pub metadata: Metadata,
    /// What is asked.
    pub query: Query,
    /// How large an answer may be.
    pub limit: u16,
    /// What the client understands beyond plain DNS.
    pub edns: Option<ClientEdns>,
}

/// What a client says in its OPT record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientEdns {
    /// Whether it wants signatures. There are none, but the bit is sent back.
    pub dnssec_ok: bool,
}

/// What came in place of a question that can be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unanswerable {
    /// Nothing that anyone waits for an answer to.
    Silence,
    /// An answer that says what is wrong.
    Reply(Vec<u8>),
}

impl Request {
    /// Reads a message.
    pub fn parse(bytes: &[u8], transport: Transport) -> Result<Self, Unanswerable> {
        let header = bytes.get(..HEADER).ok_or(Unanswerable::Silence)?;
        // Answers are never answered: two servers would go on for ever.
        if header[2] & 0x80 != 0 {
            return Err(Unanswerable::Silence);
        }
        let id = u16::from_be_bytes([header[0], header[1]]);
        let refuse = |code| Unanswerable::Reply(refusal(id, code));
        if header[2] & 0x78 != 0 {
            return Err(refuse(ResponseCode::NotImp));
        }
        let mut message = Message::from_vec(bytes).map_err(|_| refuse(ResponseCode::FormErr))?;
        if message.queries.len() != 1 {
            return Err(refuse(ResponseCode::FormErr));
        }
        let query = message.queries.pop().ok_or(Unanswerable::Silence)?;
        let edns = message.edns.as_ref();
        let request = Self {
            metadata: message.metadata,
            query,
            limit: match transport {
                Transport::Tcp => u16::MAX,
                Transport::Udp => edns.map_or(PLAIN_UDP, |e| e.max_payload().clamp(PLAIN_UDP, LARGEST_UDP)),
            },
            edns: edns.map(|e| ClientEdns { dnssec_ok: e.flags().dnssec_ok }),
        };
        if edns.is_some_and(|e| e.version() != 0) {
            return Err(Unanswerable::Reply(request.bad_version()));
        }
        Ok(request)
    }

    /// An answer of the zone itself.
    pub fn reply(&self, own: Own) -> Vec<u8> {
        self.encode(true, own.code, own.answers, own.authorities, own.additionals)
    }

    /// An answer pieced together from others.
    pub fn reply_with(&self, code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Vec<u8> {
        self.encode(false, code, answers, authorities, Vec::new())
    }

    /// An answer without records.
    pub fn fail(&self, code: ResponseCode) -> Vec<u8> {
        self.encode(false, code, Vec::new(), Vec::new(), Vec::new())
    }

    /// An answer that did not fit: the client is to ask again over TCP.
    pub fn truncated(&self) -> Vec<u8> {
        let mut bytes = self.fail(ResponseCode::NoError);
        bytes[2] |= 0x02;
        bytes
    }

    fn bad_version(&self) -> Vec<u8> {
        let mut bytes = self.fail(ResponseCode::NoError);
        // The upper bits of the code 16 are in the OPT record, which is the last one.
        let extended = bytes.len() - usize::from(OPT_LENGTH) + 5;
        bytes[extended] = 1;
        bytes
    }

    /// As many records as there is room for. The OPT record is always there: clients that sent one wait for
    /// one.
    fn encode(
        &self,
        authoritative: bool,
        code: ResponseCode,
        answers: Vec<Record>,
        authorities: Vec<Record>,
        additionals: Vec<Record>,
    ) -> Vec<u8> {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.authoritative = authoritative;
        metadata.recursion_available = true;
        metadata.response_code = code;
        let mut message = Message::new(metadata.id, MessageType::Response, OpCode::Query);
        message.metadata = metadata;
        message.queries = vec![self.query.clone()];
        message.answers = answers;
        message.authorities = authorities;
        message.additionals = additionals;
        let room = if self.edns.is_some() { self.limit - OPT_LENGTH } else { self.limit };
        let mut bytes = encode(&message, room).unwrap_or_else(|_| refusal(metadata.id, ResponseCode::ServFail));
        if let Some(edns) = self.edns {
            append_opt(&mut bytes, edns);
        }
        bytes
    }
}

fn encode(message: &Message, limit: u16) -> Result<Vec<u8>, hickory_proto::ProtoError> {
    let mut bytes = Vec::with_capacity(256);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    message.emit(&mut encoder)?;
    // Of a record that found no room, a part may have been written.
    let end = encoder.offset();
    bytes.truncate(end);
    Ok(bytes)
}

/// Appends the OPT record and counts it.
fn append_opt(bytes: &mut Vec<u8>, edns: ClientEdns) {
    const OPT: u8 = 41;
    let size = LARGEST_UDP.to_be_bytes();
    let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
    bytes.extend_from_slice(&[0, 0, OPT, size[0], size[1], 0, 0, dnssec_ok, 0, 0, 0]);
    let additionals = u16::from_be_bytes([bytes[10], bytes[11]]) + 1;
    bytes[10..12].copy_from_slice(&additionals.to_be_bytes());
}

/// The shortest answer that says what is wrong.
fn refusal(id: u16, code: ResponseCode) -> Vec<u8> {
    let id = id.to_be_bytes();
    vec![id[0], id[1], 0x80, 0x80 | code.low(), 0, 0, 0, 0, 0, 0, 0, 0]
}
