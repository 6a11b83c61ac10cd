//! Containers as pods have them: started, seen, executed in, stopped.

mod support;

use support::{Server, shell};

#[tokio::test]
async fn a_container_runs_and_its_output_is_logged() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("hello")).await;
    let (output, code) = pod.script("greet", "echo hello; echo world >&2; exit 3").await;
    assert_eq!((output.as_str(), code), ("hello\nworld\n", 3));
    let container = pod.run(shell("server", "echo up; sleep 1000")).await;
    container.prints("up").await;
    let (out, err, code) = container.exec(&["sh", "-c", "hostname; echo e >&2; exit 4"]).await.unwrap();
    assert_eq!((out.as_str(), err.as_str(), code), ("hello\n", "e\n", 4));
    container.stop(0).await;
    assert_eq!(container.ended().await.exit_code, 137);
    pod.stop().await;
    pod.remove().await;
}
