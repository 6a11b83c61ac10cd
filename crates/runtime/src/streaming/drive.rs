//! The thin IO under the protocols.

use std::{collections::VecDeque, io, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::protocol::Protocol;

/// Output that is kept before the session has to wait.
const OUTPUT_LIMIT: usize = 256 << 10;

const READ_SIZE: usize = 32 << 10;

/// How long a client may take to close after everything is said. Closing first could throw away what it
/// hasn't read yet.
const FAREWELL: Duration = Duration::from_secs(5);

/// Carries a protocol over a connection until either side is done. The session ends when its event channel
/// closes, the client's connection when the command channel does.
pub(crate) async fn drive<P: Protocol>(
    mut protocol: P,
    io: impl AsyncRead + AsyncWrite + Send,
    events: mpsc::Sender<P::Event>,
    mut commands: mpsc::Receiver<P::Command>,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut input = BytesMut::with_capacity(READ_SIZE);
    let mut output = BytesMut::new();
    let mut pending: VecDeque<P::Event> = protocol.start().into();
    let mut session_over = false;
    loop {
        output.extend_from_slice(&protocol.take_output());
        if output.is_empty() && (protocol.finished() || session_over) {
            break;
        }
        let may_say_more = !session_over && output.len() + protocol.backlog() < OUTPUT_LIMIT;
        tokio::select! {
            permit = events.reserve(), if !pending.is_empty() => {
                match permit {
                    Ok(permit) => {
                        if let Some(event) = pending.pop_front() {
                            permit.send(event);
                        }
                    }
                    // The session doesn't listen any more, but may still have something to say.
                    Err(_) => pending.clear(),
                }
            }
            // The session can't keep up with more than it has.
            length = reader.read_buf(&mut input), if pending.is_empty() => {
                if length? == 0 {
                    return Ok(());
                }
                match protocol.receive(&input) {
                    Ok(events) => pending.extend(events),
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                }
                input.clear();
            }
            command = commands.recv(), if may_say_more => {
                match command {
                    Some(command) => protocol.command(command),
                    None => session_over = true,
                }
            }
            written = writer.write(&output), if !output.is_empty() => {
                output.advance(written?);
            }
        }
    }
    drop(events);
    writer.shutdown().await?;
    // Whatever it still says doesn't matter.
    let farewell = async {
        while reader.read_buf(&mut input).await? > 0 {
            input.clear();
        }
        Ok(())
    };
    timeout(FAREWELL, farewell).await.unwrap_or(Ok(()))
}
