//! Exec, attach and port-forward as clients speak them, against real containers.

mod support;

use cri::v1::*;
use support::{
    Ctr, Pod, Server, eventually, shell,
    stream::{Frame, Spdy, WebSocket, upgrade},
};

async fn exec_url(server: &Server, container: &Ctr, command: &[&str], tty: bool) -> String {
    let request = ExecRequest {
        container_id: container.id.clone(),
        cmd: command.iter().map(|s| (*s).to_owned()).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
        ..Default::default()
    };
    server.client.runtime().exec(request).await.unwrap().into_inner().url
}

async fn attach_url(server: &Server, container: &Ctr, tty: bool) -> String {
    let request = AttachRequest {
        container_id: container.id.clone(),
        stdin: true,
        stdout: true,
        stderr: !tty,
        tty,
        ..Default::default()
    };
    server.client.runtime().attach(request).await.unwrap().into_inner().url
}

async fn forward_url(server: &Server, pod: &Pod, port: &[i32]) -> String {
    let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: port.into() };
    server.client.runtime().port_forward(request).await.unwrap().into_inner().url
}

fn status(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

#[tokio::test]
async fn exec_over_websocket() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("ws")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let script = ["sh", "-c", "cat; echo err >&2; exit 3"];
    // Version 5 knows the end of the input.
    let url = exec_url(&server, &container, &script, false).await;
    let mut socket = WebSocket::open(&url, "v5.channel.k8s.io").await;
    assert!(socket.head.starts_with("HTTP/1.1 101 "), "{}", socket.head);
    assert!(socket.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(socket.head.to_lowercase().contains("sec-websocket-protocol: v5.channel.k8s.io"));
    socket.send(0, b"typed ").await;
    socket.send(0, &vec![b'x'; 100_000][..60_000]).await;
    socket.send(255, &[0]).await;
    let channels = socket.collect().await;
    assert_eq!(channels[1].len(), 60_006);
    assert!(channels[1].starts_with(b"typed xxx"));
    assert_eq!(channels[2], b"err\n");
    let outcome = status(&channels[3]);
    assert_eq!(outcome["reason"], "NonZeroExitCode");
    assert_eq!(outcome["details"]["causes"][0]["message"], "3");
    // Version 4, success; and a command that isn't there.
    let url = exec_url(&server, &container, &["true"], false).await;
    let channels = WebSocket::open(&url, "v4.channel.k8s.io").await.collect().await;
    assert_eq!(status(&channels[3])["status"], "Success");
    let url = exec_url(&server, &container, &["nope"], false).await;
    let channels = WebSocket::open(&url, "v4.channel.k8s.io").await.collect().await;
    let outcome = status(&channels[3]);
    assert_eq!((&outcome["reason"], &outcome["code"]), (&"InternalError".into(), &500.into()));
    assert!(outcome["message"].as_str().unwrap().contains("executable file not found in $PATH"));
    // A lot of output, through a client that reads slowly at first.
    let url = exec_url(&server, &container, &["head", "-c", "5000000", "/dev/zero"], false).await;
    let mut socket = WebSocket::open(&url, "v4.channel.k8s.io").await;
    socket.receive().await.unwrap();
    tokio::task::yield_now().await;
    let channels = socket.collect().await;
    assert_eq!(channels[1].len(), 5_000_000);
}

#[tokio::test]
async fn a_terminal_over_websocket() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("tty")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    // A shell without an editor for its lines, which would ask the terminal where it is.
    let script = "stty -echo; trap 'echo INT' INT; echo READY; while read line; do eval \"$line\"; echo END; done";
    let shell = ["sh", "-c", script];
    let url = exec_url(&server, &container, &shell, true).await;
    let mut socket = WebSocket::open(&url, "v4.channel.k8s.io").await;
    socket.until(1, "READY").await;
    socket.send(4, br#"{"Width":101,"Height":37}"#).await;
    socket.send(0, b"stty size; tty\n").await;
    let text = socket.until(1, "END").await;
    assert!(text.contains("37 101") && text.contains("/dev/pts/"), "{text}");
    // Its keys work: an interrupt ends the command and not the shell.
    socket.send(0, b"echo SLEEPING; sleep 1234\n").await;
    socket.until(1, "SLEEPING").await;
    eventually("the command", async || {
        let (out, _, _) = container.exec(&["ps"]).await.unwrap();
        out.contains("sleep 1234").then_some(())
    })
    .await;
    socket.send(0, b"\x03").await;
    socket.until(1, "END").await;
    socket.send(0, b"exit 7\n").await;
    let channels = socket.collect().await;
    assert_eq!(status(&channels[3])["details"]["causes"][0]["message"], "7");
    // A client that goes away takes the terminal along.
    let url = exec_url(&server, &container, &shell, true).await;
    let mut socket = WebSocket::open(&url, "v4.channel.k8s.io").await;
    socket.until(1, "READY").await;
    drop(socket);
    eventually("the shell's end", async || {
        let (out, _, _) = container.exec(&["ps", "-o", "args"]).await.unwrap();
        (!out.contains("READY")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn exec_over_spdy() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("spdy")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let url = exec_url(&server, &container, &["sh", "-c", "cat; echo err >&2; exit 4"], false).await;
    let mut client = Spdy::open(&url, &["v9.channel.k8s.io", "v4.channel.k8s.io"]).await;
    assert!(client.head.to_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io"), "{}", client.head);
    let error = client.stream(&[("streamType", "error")]).await;
    let stdin = client.stream(&[("streamType", "stdin")]).await;
    let stdout = client.stream(&[("streamType", "stdout")]).await;
    let stderr = client.stream(&[("streamType", "stderr")]).await;
    client.ping(1).await;
    client.data(stdin, b"typed", true).await;
    let (mut pinged, mut seen) = (false, std::collections::HashMap::<u32, Vec<u8>>::new());
    while let Some(frame) = client.receive().await {
        match frame {
            Frame::Ping(1) => pinged = true,
            Frame::Data { stream, bytes, .. } => seen.entry(stream).or_default().extend(bytes),
            _ => {}
        }
    }
    assert!(pinged);
    assert_eq!((seen[&stdout].as_slice(), seen[&stderr].as_slice()), (&b"typed"[..], &b"err\n"[..]));
    assert_eq!(status(&seen[&error])["details"]["causes"][0]["message"], "4");
    // An old client reads plain text from the error stream.
    let url = exec_url(&server, &container, &["sh", "-c", "exit 5"], true).await;
    let mut client = Spdy::open(&url, &[]).await;
    let error = client.stream(&[("streamType", "error")]).await;
    client.stream(&[("streamType", "stdin")]).await;
    client.stream(&[("streamType", "stdout")]).await;
    let text = String::from_utf8(client.until_end(error).await).unwrap();
    assert!(text.contains("exit code 5"), "{text}");
}

#[tokio::test]
async fn attach_takes_part() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("attach")).await;
    let mut config = shell("c", "while read line; do echo \"got $line\"; done; echo over >&2");
    config.stdin = true;
    config.stdin_once = true;
    let container = pod.run(config).await;
    let url = attach_url(&server, &container, false).await;
    let mut socket = WebSocket::open(&url, "v5.channel.k8s.io").await;
    socket.send(0, b"one\n").await;
    socket.until(1, "got one\n").await;
    // A second one sees the same.
    let url = attach_url(&server, &container, false).await;
    let mut second = WebSocket::open(&url, "v4.channel.k8s.io").await;
    second.receive().await.unwrap();
    // It takes part from some moment on.
    let saying = async {
        for number in 0.. {
            socket.send(0, format!("more {number}\n").as_bytes()).await;
            socket.until(1, &format!("got more {number}\n")).await;
        }
    };
    tokio::select! {
        () = saying => {}
        text = second.until(1, "got more") => assert!(text.starts_with("got more"), "{text}"),
    }
    socket.send(255, &[0]).await;
    let channels = socket.collect().await;
    assert_eq!(channels[2], b"over\n");
    assert_eq!(status(&channels[3])["status"], "Success");
    assert_eq!(container.ended().await.exit_code, 0);
    let output = container.output();
    assert!(output.starts_with("got one\ngot more 0\n") && output.ends_with("over\n"), "{output}");

    let mut config = shell("tty", "stty -echo; while read line; do stty size; done");
    config.tty = true;
    config.stdin = true;
    let container = pod.run(config).await;
    let url = attach_url(&server, &container, true).await;
    let mut socket = WebSocket::open(&url, "v4.channel.k8s.io").await;
    socket.send(4, br#"{"Width":90,"Height":20}"#).await;
    eventually("the size", async || {
        socket.send(0, b"\n").await;
        let text = socket.until(1, "\n").await;
        text.contains("20 90").then_some(())
    })
    .await;
    drop(socket);
    assert_eq!(container.status().await.state(), ContainerState::ContainerRunning);
}

#[tokio::test]
async fn ports_are_forwarded() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("forward")).await;
    let web = pod.run(shell("c", "echo up; while :; do nc -l -p 8080 -e cat; done")).await;
    web.prints("up").await;
    let headers = |kind: &'static str, port: &'static str, request: &'static str| {
        [("streamType", kind), ("port", port), ("requestID", request)]
    };
    for tunnelled in [false, true] {
        let url = forward_url(&server, &pod, &[]).await;
        let mut client =
            if tunnelled { Spdy::tunnel(&url).await } else { Spdy::open(&url, &["portforward.k8s.io"]).await };
        assert!(client.head.starts_with("HTTP/1.1 101 "), "{}", client.head);
        for request in ["0", "1"] {
            eventually("a listener", async || {
                let (out, _, _) = web.exec(&["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]).await.unwrap();
                out.lines().any(|l| l.contains(":1F90 ") && l.contains(" 0A ")).then_some(())
            })
            .await;
            let error = client.stream(&headers("error", "8080", request)).await;
            let data = client.stream(&headers("data", "8080", request)).await;
            client.data(error, &[], true).await;
            client.data(data, b"echo this", false).await;
            let mut seen = Vec::new();
            while seen.len() < 9 {
                match client.receive().await {
                    Some(Frame::Data { stream, bytes, .. }) if stream == data => seen.extend(bytes),
                    Some(Frame::Data { bytes, .. }) => assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes)),
                    Some(_) => {}
                    None => panic!("the connection ended"),
                }
            }
            assert_eq!(seen, b"echo this");
            client.data(data, &[], true).await;
            assert!(client.until_end(data).await.is_empty());
        }
        let error = client.stream(&headers("error", "9", "2")).await;
        client.stream(&headers("data", "9", "2")).await;
        let text = String::from_utf8(client.until_end(error).await).unwrap();
        assert!(text.contains("error forwarding port 9 to pod") && text.contains("refused"), "{text}");
    }
    let url = forward_url(&server, &pod, &[8080]).await;
    let mut socket = WebSocket::open(&url, "v4.channel.k8s.io").await;
    assert_eq!(socket.receive().await.unwrap().1, [0, 0x90, 0x1f]);
    assert_eq!(socket.receive().await.unwrap().1, [1, 0x90, 0x1f]);
    socket.send(0, b"over a channel").await;
    assert_eq!(socket.receive().await.unwrap().1, b"\x00over a channel");
}

#[tokio::test]
async fn only_a_ticket_opens_a_stream() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("tickets")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let url = exec_url(&server, &container, &["true"], false).await;
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let guess = format!("{}/{}", url.rsplit_once('/').unwrap().0, "0".repeat(64));
    assert!(WebSocket::open(&guess, "v4.channel.k8s.io").await.head.starts_with("HTTP/1.1 404 "));
    let elsewhere = url.replace("/exec/", "/attach/");
    assert!(WebSocket::open(&elsewhere, "v4.channel.k8s.io").await.head.starts_with("HTTP/1.1 404 "));
    let (head, _) = upgrade(&url, &[]).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    // Nothing of this has used it up; its use does.
    assert!(WebSocket::open(&url, "v4.channel.k8s.io").await.head.starts_with("HTTP/1.1 101 "));
    assert!(WebSocket::open(&url, "v4.channel.k8s.io").await.head.starts_with("HTTP/1.1 404 "));
    let senseless = ExecRequest { container_id: container.id.clone(), cmd: vec!["true".into()], ..Default::default() };
    assert!(server.client.runtime().exec(senseless).await.is_err());
}
