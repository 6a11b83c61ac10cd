//! A tiny web server, the command of the built-in image: it says where it runs and who asked.

use crate::cli::DemoServerArgs;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Longest request head that is read.
const HEAD_MAX: u64 = 16 * 1024;

/// Serves until the process is told to end.
pub fn run(args: &DemoServerArgs) -> Result<()> {
    let listener = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, args.port))
        .or_else(|_| TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, args.port)))
        .with_context(|| format!("cannot listen on port {}", args.port))?;
    end_on_signals()?;
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    say(&format!("listening on port {} as {host}", args.port));
    for connection in listener.incoming() {
        match connection.map_err(anyhow::Error::from).and_then(|c| answer(c, &host)) {
            Ok(line) => say(&line),
            Err(e) => say(&format!("a request failed: {e:#}")),
        }
    }
    Ok(())
}

/// A container's log is its standard output; nobody may read it.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// As pid 1 of a container a signal without a handler is ignored: so SIGTERM and SIGINT are waited for and end the process.
fn end_on_signals() -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let code = if set.wait().is_ok() { 0 } else { 1 };
        std::process::exit(code);
    })?;
    Ok(())
}

fn answer(connection: TcpStream, host: &str) -> Result<String> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.set_write_timeout(Some(Duration::from_secs(5)))?;
    let peer = connection.peer_addr()?;
    let mut reader = BufReader::new((&connection).take(HEAD_MAX));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    let request = request.trim_end();
    let path = request.split(' ').nth(1).unwrap_or("/");
    let body = match path {
        "/healthz" => "ok\n".to_owned(),
        "/hostname" => format!("{host}\n"),
        _ => format!(
            "Hello from {host}.\nYou asked for {path} from {}.\nThis is Pilothouse's demonstration server.\n",
            peer.ip()
        ),
    };
    write!(
        &connection,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(format!("{} {request}", peer.ip()))
}
