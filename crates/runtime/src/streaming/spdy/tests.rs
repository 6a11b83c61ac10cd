//! Tests of the connection.

use proptest::prelude::*;

use super::*;

/// The other side: writes frames, and reads what the connection says.
#[derive(Default)]
struct Client {
    writer: HeaderWriter,
    reader: HeaderReader,
    input: BytesMut,
}

impl Client {
    fn open(&mut self, stream: StreamId, headers: &[(&str, &str)], fin: bool) -> BytesMut {
        let mut out = BytesMut::new();
        let block = self.writer.write(headers);
        frame::put_syn_stream(stream, fin, &block, &mut out);
        out
    }

    fn read(&mut self, connection: &mut Connection) -> Vec<Frame> {
        self.input.extend_from_slice(&connection.take_output());
        let mut frames = Vec::new();
        while let Some(frame) = frame::decode(&mut self.input).unwrap() {
            if let Frame::SynReply { block, .. } = &frame {
                self.reader.read(block).unwrap();
            }
            frames.push(frame);
        }
        frames
    }
}

fn data(stream: StreamId, bytes: &[u8], fin: bool) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put_data(stream, fin, bytes, &mut out);
    out
}

#[test]
fn streams_open_carry_and_end() {
    let (mut client, mut server) = (Client::default(), Connection::default());
    let events = server.receive(&client.open(1, &[("streamType", "stdin")], false)).unwrap();
    let headers = vec![("streamtype".to_owned(), "stdin".to_owned())];
    assert_eq!(events, [Event::Opened { stream: 1, headers }]);
    assert!(matches!(client.read(&mut server)[..], [Frame::SynReply { stream: 1, .. }]));
    let events = server.receive(&data(1, b"hi", true)).unwrap();
    let bytes = Bytes::from_static(b"hi");
    assert_eq!(events, [Event::Data { stream: 1, bytes }, Event::Ended { stream: 1 }]);
    server.send(1, Bytes::from_static(b"yo"));
    server.end(1);
    server.end(1);
    server.send(1, Bytes::from_static(b"late"));
    assert_eq!(
        client.read(&mut server),
        [
            Frame::Data { stream: 1, fin: false, bytes: Bytes::from_static(b"yo") },
            Frame::Data { stream: 1, fin: true, bytes: Bytes::new() },
        ]
    );
    assert!(server.streams.is_empty());
}

#[test]
fn pings_are_answered_and_nonsense_is_reset() {
    let (mut client, mut server) = (Client::default(), Connection::default());
    let mut bytes = BytesMut::new();
    frame::put_ping(1, &mut bytes);
    frame::put_ping(2, &mut bytes);
    bytes.unsplit(data(9, b"x", false));
    server.receive(&bytes).unwrap();
    server.receive(&client.open(2, &[], false)).unwrap();
    server.receive(&client.open(3, &[], false)).unwrap();
    server.receive(&client.open(3, &[], false)).unwrap();
    let frames = client.read(&mut server);
    assert!(matches!(
        frames[..],
        [
            Frame::Ping { id: 1 },
            Frame::RstStream { stream: 9, .. },
            Frame::RstStream { stream: 2, .. },
            Frame::SynReply { stream: 3, .. },
            Frame::RstStream { stream: 3, .. },
        ]
    ));
}

#[test]
fn windows_hold_for_those_who_know_them() {
    let (mut client, mut server) = (Client::default(), Connection::default());
    server.receive(&client.open(1, &[], true)).unwrap();
    client.read(&mut server);
    let mut bytes = BytesMut::new();
    frame::put_window_update(1, 10, &mut bytes);
    server.receive(&bytes).unwrap();
    let total = INITIAL_WINDOW as usize + 10;
    server.send(1, Bytes::from(vec![0; total + 5]));
    server.end(1);
    let sent = |frames: Vec<Frame>| -> (usize, bool) {
        frames.iter().fold((0, false), |(sum, end), frame| match frame {
            Frame::Data { bytes, fin, .. } => (sum + bytes.len(), end || *fin),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(sent(client.read(&mut server)), (total, false));
    assert_eq!(server.backlog(), 5);
    server.receive(&bytes).unwrap();
    assert_eq!(sent(client.read(&mut server)), (5, true));
}

proptest! {
    #[test]
    fn everything_sent_arrives_whatever_the_cuts(
        messages in proptest::collection::vec((0usize..3, proptest::collection::vec(any::<u8>(), 0..500)), 0..20),
        cut in 1usize..64,
    ) {
        let (mut client, mut server) = (Client::default(), Connection::default());
        let mut bytes = BytesMut::new();
        for id in [1, 3, 5] {
            bytes.unsplit(client.open(id, &[("port", "80"), ("requestID", "1")], false));
        }
        let mut expected = vec![Vec::new(); 3];
        for (which, payload) in &messages {
            bytes.unsplit(data(*which as u32 * 2 + 1, payload, false));
            expected[*which].extend_from_slice(payload);
        }
        let mut received = vec![Vec::new(); 3];
        for piece in bytes.chunks(cut) {
            for event in server.receive(piece).unwrap() {
                if let Event::Data { stream, bytes } = event {
                    received[(stream as usize - 1) / 2].extend_from_slice(&bytes);
                }
            }
        }
        prop_assert_eq!(received, expected);
    }

    #[test]
    fn rubbish_never_panics(bytes: Vec<u8>) {
        let _ = Connection::default().receive(&bytes);
    }
}
