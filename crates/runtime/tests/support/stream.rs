//! Clients of the streaming server, as small as can be, written from the protocols and not from the server.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A test that waits longer for an answer has failed.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Opens a URL and upgrades; the answer's head and the connection.
pub async fn upgrade(url: &str, headers: &[(&str, &str)]) -> (String, TcpStream) {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = Vec::new();
    write!(request, "POST /{path} HTTP/1.1\r\nHost: {address}\r\n").unwrap();
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// A WebSocket with channels.
pub struct WebSocket {
    pub stream: TcpStream,
    pub head: String,
}

impl WebSocket {
    pub async fn open(url: &str, protocol: &str) -> Self {
        let mut headers = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        if !protocol.is_empty() {
            headers.push(("Sec-WebSocket-Protocol", protocol));
        }
        let (head, stream) = upgrade(url, &headers).await;
        Self { stream, head }
    }

    pub async fn send_raw(&mut self, payload: &[u8]) {
        let mut frame = vec![0x82];
        match payload.len() {
            n @ 0..126 => frame.push(0x80 | n as u8),
            n => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(n as u16).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        self.stream.write_all(&frame).await.unwrap();
    }

    pub async fn send(&mut self, channel: u8, payload: &[u8]) {
        self.send_raw(&[&[channel], payload].concat()).await;
    }

    /// Operation and payload; `None` at the end.
    pub async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            n => u64::from(n),
        };
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first & 0x0f, payload))
    }

    /// All that comes until the end, by channel.
    pub async fn collect(&mut self) -> Vec<Vec<u8>> {
        let mut channels = vec![Vec::new(); 8];
        while let Some((operation, payload)) = self.receive().await {
            if operation == 8 {
                break;
            }
            let (channel, rest) = payload.split_first().unwrap();
            channels[usize::from(*channel)].extend_from_slice(rest);
        }
        channels
    }

    /// Waits until a channel has said this.
    pub async fn until(&mut self, channel: u8, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            let next = tokio::time::timeout(PATIENCE, self.receive()).await;
            let next = next.unwrap_or_else(|_| panic!("nothing came after {text:?}"));
            let (operation, payload) = next.unwrap_or_else(|| panic!("ended after {text:?}"));
            assert_ne!(operation, 8, "closed after {text:?}");
            if payload[0] == channel {
                text += &String::from_utf8_lossy(&payload[1..]);
            }
        }
        text
    }
}

/// A SPDY connection, over a bare connection or inside of a WebSocket.
pub struct Spdy {
    carrier: Carrier,
    pub head: String,
    compress: Compress,
    next: u32,
    buffer: Vec<u8>,
}

enum Carrier {
    Bare(TcpStream),
    Tunnel(WebSocket),
}

/// What the server sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Data { stream: u32, fin: bool, bytes: Vec<u8> },
    Reply(u32),
    Reset(u32),
    Ping(u32),
    GoAway,
    Other(u16),
}

impl Spdy {
    pub async fn open(url: &str, protocols: &[&str]) -> Self {
        let mut headers = vec![("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
        headers.extend(protocols.iter().map(|p| ("X-Stream-Protocol-Version", *p)));
        let (head, stream) = upgrade(url, &headers).await;
        Self::over(Carrier::Bare(stream), head)
    }

    pub async fn tunnel(url: &str) -> Self {
        let socket = WebSocket::open(url, "SPDY/3.1+portforward.k8s.io").await;
        let head = socket.head.clone();
        Self::over(Carrier::Tunnel(socket), head)
    }

    fn over(carrier: Carrier, head: String) -> Self {
        Self { carrier, head, compress: Compress::new(Compression::default(), true), next: 1, buffer: Vec::new() }
    }

    async fn write(&mut self, bytes: &[u8]) {
        match &mut self.carrier {
            Carrier::Bare(stream) => stream.write_all(bytes).await.unwrap(),
            Carrier::Tunnel(socket) => socket.send_raw(bytes).await,
        }
    }

    pub async fn stream(&mut self, headers: &[(&str, &str)]) -> u32 {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for part in headers.iter().flat_map(|(n, v)| [n, v]) {
            plain.extend_from_slice(&(part.len() as u32).to_be_bytes());
            plain.extend_from_slice(part.as_bytes());
        }
        let mut block = Vec::with_capacity(4096);
        self.compress.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
        let stream = self.next;
        self.next += 2;
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend_from_slice(&(10 + block.len() as u32).to_be_bytes());
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&block);
        self.write(&frame).await;
        stream
    }

    pub async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend_from_slice(&(u32::from(fin) << 24 | bytes.len() as u32).to_be_bytes());
        frame.extend_from_slice(bytes);
        self.write(&frame).await;
    }

    pub async fn ping(&mut self, id: u32) {
        let mut frame = vec![0x80, 3, 0, 6, 0, 0, 0, 4];
        frame.extend_from_slice(&id.to_be_bytes());
        self.write(&frame).await;
    }

    pub async fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<8>() {
                let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                let flags = head[4];
                let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
                if self.buffer.len() >= 8 + length {
                    let frame: Vec<u8> = self.buffer.drain(..8 + length).collect();
                    let body = &frame[8..];
                    let number = || u32::from_be_bytes(body[..4].try_into().unwrap());
                    return Some(if first >> 31 == 0 {
                        Frame::Data { stream: first, fin: flags & 1 != 0, bytes: body.to_vec() }
                    } else {
                        match first as u16 {
                            2 => Frame::Reply(number()),
                            3 => Frame::Reset(number()),
                            6 => Frame::Ping(number()),
                            7 => Frame::GoAway,
                            other => Frame::Other(other),
                        }
                    });
                }
            }
            let mut chunk = vec![0; 4096];
            let more = match &mut self.carrier {
                Carrier::Bare(stream) => {
                    let length = stream.read(&mut chunk).await.ok()?;
                    chunk.truncate(length);
                    chunk
                }
                Carrier::Tunnel(socket) => match socket.receive().await? {
                    (8, _) => return None,
                    (_, payload) => payload,
                },
            };
            if more.is_empty() {
                return None;
            }
            self.buffer.extend(more);
        }
    }

    /// All that comes on a stream until its end.
    pub async fn until_end(&mut self, wanted: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.receive().await {
                Some(Frame::Data { stream, fin, bytes }) if stream == wanted => {
                    all.extend(bytes);
                    if fin {
                        return all;
                    }
                }
                Some(Frame::Reset(stream)) if stream == wanted => return all,
                Some(_) => {}
                None => return all,
            }
        }
    }
}
