//! Containers as pods have them: started, seen, executed in, limited, stopped.

mod support;

use cri::v1::*;
use support::{Server, context, eventually, shell};
use tonic::Code;

#[tokio::test]
async fn a_container_runs_and_its_output_is_logged() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("hello")).await;
    let (output, code) = pod.script("greet", "echo hello; echo world >&2; exit 3").await;
    assert_eq!(code, 3);
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["hello", "world"]);
    let container = pod.run(shell("server", "echo up; sleep 1000")).await;
    container.prints("up").await;
    let (out, err, code) = container.exec(&["sh", "-c", "hostname; echo e >&2; exit 4"]).await.unwrap();
    assert_eq!((out.as_str(), err.as_str(), code), ("hello\n", "e\n", 4));
    container.stop(0).await;
    let status = container.ended().await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    pod.stop().await;
    pod.remove().await;
}

#[tokio::test]
async fn the_image_says_what_the_request_leaves_out() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("image")).await;
    let plain = ContainerConfig { command: vec![], ..shell("plain", "") };
    assert_eq!(pod.finished(plain).await, ("default command\n".into(), 0));
    let mut asked = shell("asked", "pwd; echo $FROM_IMAGE $HOME $MINE; ls -ld $PWD | cut -c1-10");
    asked.envs = vec![KeyValue { key: "MINE".into(), value: "a b".into() }];
    asked.working_dir = "/made/for/me".into();
    let (output, _) = pod.finished(asked).await;
    assert_eq!(output, "/made/for/me\nyes /root a b\ndrwxr-xr-x\n");
    let stopped = pod.run(shell("stopped", "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done")).await;
    stopped.prints("up").await;
    stopped.stop(30).await;
    assert_eq!(stopped.ended().await.exit_code, 9);
}

#[tokio::test]
async fn a_life_is_told_step_by_step() {
    let server = Server::start().await;
    let mut events = server.client.runtime().get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let pod = server.run_pod(server.pod("life")).await;
    let container = pod.create(shell("c", "exit 0")).await.unwrap();
    let created = container.status().await;
    assert_eq!(created.state(), ContainerState::ContainerCreated);
    container.start().await.unwrap();
    let ended = container.ended().await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (0, "Completed"));
    assert!(created.created_at <= ended.started_at && ended.started_at <= ended.finished_at);
    assert_eq!(ended.image_ref, ended.image_id, "a loaded image has no digest of a registry");
    container.remove().await;
    pod.stop().await;
    pod.remove().await;
    use ContainerEventType::*;
    let expected = [
        (&pod.id, ContainerCreatedEvent),
        (&pod.id, ContainerStartedEvent),
        (&container.id, ContainerCreatedEvent),
        (&container.id, ContainerStartedEvent),
        (&container.id, ContainerStoppedEvent),
        (&container.id, ContainerDeletedEvent),
        (&pod.id, ContainerStoppedEvent),
        (&pod.id, ContainerDeletedEvent),
    ];
    for (id, kind) in expected {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!((&event.container_id, event.container_event_type()), (id, kind));
        if kind == ContainerStoppedEvent && *id == container.id {
            assert_eq!(event.containers_statuses[0].state(), ContainerState::ContainerExited);
            assert_eq!(event.pod_sandbox_status.unwrap().id, pod.id);
        }
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("bad")).await;
    let bad = |name: &str, command: &[&str]| ContainerConfig {
        command: command.iter().map(|s| (*s).to_owned()).collect(),
        ..shell(name, "")
    };
    for (name, command, message) in [
        ("none", "nope", "exec: \"nope\": executable file not found in $PATH"),
        ("path", "/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("plain", "/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("dir", "/etc", "exec: \"/etc\": is a directory"),
    ] {
        let container = pod.create(bad(name, &[command])).await.unwrap();
        let error = container.start().await.unwrap_err();
        assert!(error.message().contains(message), "{}", error.message());
        let status = container.status().await;
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert_eq!((status.reason.as_str(), status.exit_code), ("StartError", 128));
        assert!(status.message.contains(message));
    }
    let mut missing = shell("missing", "true");
    missing.mounts.push(Mount {
        host_path: "/proc/1/no-such".into(),
        container_path: "/x".into(),
        ..Default::default()
    });
    let error = pod.create(missing).await.err().unwrap();
    assert!(error.message().contains("make a mount's source"), "{}", error.message());
    let unknown = ContainerConfig {
        image: Some(ImageSpec { image: "unknown".into(), ..Default::default() }),
        ..shell("unknown", "true")
    };
    assert_eq!(pod.create(unknown).await.err().unwrap().code(), Code::NotFound);
    // None of the failures holds its name.
    pod.create(shell("missing", "true")).await.unwrap();
    let again = pod.create(shell("missing", "true")).await.err().unwrap();
    assert_eq!(again.code(), Code::AlreadyExists);
    assert!(again.message().contains("failed to reserve container name"), "{}", again.message());
}

#[tokio::test]
async fn executed_commands_fail_and_time_out() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("exec")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let error = container.exec(&["nope"]).await.unwrap_err();
    assert!(
        error.message().contains(
            "exec failed: unable to start container process: exec: \"nope\": executable file not found in $PATH"
        ),
        "{}",
        error.message()
    );
    let error = container.exec_within(&["sleep", "77"], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    eventually("the end of the command", async || {
        let (out, _, _) = container.exec(&["ps"]).await.unwrap();
        (!out.contains("sleep 77")).then_some(())
    })
    .await;
    let (out, _, _) = container.exec(&["sh", "-c", "yes | head -c 20000000; echo end >&2"]).await.unwrap();
    assert!(out.len() > 8_000_000 && out.len() < 9_000_000, "{}", out.len());
    let (out, _, code) = container.exec(&["sh", "-c", "kill -9 $$"]).await.unwrap();
    assert_eq!((out.as_str(), code), ("", 137));
    container.stop(0).await;
    assert_eq!(container.exec(&["true"]).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_stop_is_kind_first() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("stop")).await;
    let mut kind = shell("kind", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done");
    kind.stop_signal = Signal::Sigterm.into();
    let kind = pod.run(kind).await;
    kind.prints("up").await;
    kind.stop(30).await;
    assert_eq!(kind.status().await.exit_code, 7);
    kind.prints("bye").await;
    // Again, and of one that never was, is fine.
    kind.stop(30).await;
    let mut deaf = shell("deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done");
    deaf.stop_signal = Signal::Sigterm.into();
    let deaf = pod.run(deaf).await;
    deaf.prints("up").await;
    deaf.stop(1).await;
    assert_eq!(deaf.status().await.exit_code, 137);
    let unknown = StopContainerRequest { container_id: "0123".into(), timeout: 0 };
    server.client.runtime().stop_container(unknown).await.unwrap();
}

#[tokio::test]
async fn logs_are_in_the_format_of_the_cri() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("logs")).await;
    let script = "printf 'no end'; head -c 40000 /dev/zero | tr '\\0' x; echo; echo second >&2; printf tail";
    let container = pod.run(shell("c", script)).await;
    container.ended().await;
    let log = std::fs::read_to_string(&container.log).unwrap();
    let entries: Vec<Vec<&str>> = log.lines().map(|l| l.splitn(4, ' ').collect()).collect();
    let out: Vec<_> = entries.iter().filter(|e| e[1] == "stdout").collect();
    assert_eq!(out.iter().map(|e| e[2]).collect::<Vec<_>>(), ["P", "P", "F", "F"]);
    assert!(out.iter().all(|e| e[0].len() == 30 && e[0].ends_with('Z')));
    assert!(out[0][3].starts_with("no endxxx") && out[0][3].len() == 16 << 10);
    assert_eq!(out[3][3], "tail");
    assert!(entries.iter().any(|e| e[1..] == ["stderr", "F", "second"]));

    let counting = pod.run(shell("counting", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done")).await;
    counting.prints("line 3").await;
    let old = counting.log.with_extension("old");
    std::fs::rename(&counting.log, &old).unwrap();
    let request = ReopenContainerLogRequest { container_id: counting.id.clone() };
    server.client.runtime().reopen_container_log(request).await.unwrap();
    counting.prints("line").await;
    let last = |path: &std::path::Path, first: bool| -> u32 {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let line = if first { lines.next() } else { lines.last() };
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(last(&old, false) + 1, last(&counting.log, true), "no line is lost or doubled");
}

#[tokio::test]
async fn processes_are_who_they_shall_be() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("who")).await;
    let script = "id -u; id -g; id -G; echo $HOME; echo fine > /dev/stdout";
    let mut by_name = shell("name", script);
    context(&mut by_name).run_as_username = "web".into();
    context(&mut by_name).supplemental_groups = vec![7];
    let (output, _) = pod.finished(by_name).await;
    assert_eq!(output, "1000\n1001\n1001 7 2000\n/home/web\nfine\n");
    let mut strict = shell("strict", script);
    context(&mut strict).run_as_user = Some(Int64Value { value: 1000 });
    context(&mut strict).run_as_group = Some(Int64Value { value: 5 });
    context(&mut strict).supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
    let container = pod.run(strict).await;
    let status = container.ended().await;
    assert_eq!(container.output(), "1000\n5\n5\n/home/web\nfine\n");
    let user = status.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 5, vec![5]));
    let mut unknown = shell("unknown", "true");
    context(&mut unknown).run_as_username = "ghost".into();
    let error = pod.create(unknown).await.err().unwrap();
    assert!(error.message().contains("unable to find user ghost"), "{}", error.message());
    let mut runs = shell("runs", "sleep 1000");
    context(&mut runs).run_as_user = Some(Int64Value { value: 4711 });
    let (out, _, _) = pod.run(runs).await.exec(&["id", "-u"]).await.unwrap();
    assert_eq!(out, "4711\n");
}

#[tokio::test]
async fn names_filters_and_prefixes() {
    let server = Server::start().await;
    let mut config = server.pod("list");
    config.labels.insert("app".into(), "a".into());
    let pod = server.run_pod(config.clone()).await;
    let other = server.run_pod(server.pod("other")).await;
    let again = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let error = server.client.runtime().run_pod_sandbox(again).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    let mut labelled = shell("c", "sleep 1000");
    labelled.labels.insert("tier".into(), "x".into());
    let container = pod.run(labelled).await;
    let created = pod.create(shell("d", "true")).await.unwrap();

    let list = async |filter: ContainerFilter| -> Vec<String> {
        let request = ListContainersRequest { filter: Some(filter) };
        let response = server.client.runtime().list_containers(request).await;
        response.unwrap().into_inner().containers.into_iter().map(|c| c.id).collect()
    };
    assert_eq!(list(ContainerFilter::default()).await.len(), 2);
    let by_label =
        ContainerFilter { label_selector: [("tier".to_owned(), "x".to_owned())].into(), ..Default::default() };
    assert_eq!(list(by_label).await, std::slice::from_ref(&container.id));
    let by_state = ContainerFilter {
        state: Some(ContainerStateValue { state: ContainerState::ContainerCreated.into() }),
        ..Default::default()
    };
    assert_eq!(list(by_state).await, std::slice::from_ref(&created.id));
    let by_pod = ContainerFilter { pod_sandbox_id: other.id[..12].into(), ..Default::default() };
    assert!(list(by_pod).await.is_empty());
    let by_prefix = ContainerFilter { id: container.id[..12].into(), ..Default::default() };
    assert_eq!(list(by_prefix).await, std::slice::from_ref(&container.id));

    let request = ListPodSandboxRequest {
        filter: Some(PodSandboxFilter {
            label_selector: [("app".to_owned(), "a".to_owned())].into(),
            ..Default::default()
        }),
    };
    let pods = server.client.runtime().list_pod_sandbox(request).await.unwrap().into_inner();
    assert_eq!(pods.items.iter().map(|p| &p.id).collect::<Vec<_>>(), [&pod.id]);
    let missing = ContainerStatusRequest { container_id: "ffff".into(), verbose: false };
    let error = server.client.runtime().container_status(missing).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    // Removing runs over everything, and again over nothing.
    pod.remove().await;
    pod.remove().await;
    container.stop(0).await;
    container.remove().await;
    assert_eq!(list(ContainerFilter::default()).await.len(), 0);
}

#[tokio::test]
async fn input_and_terminals() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("tty")).await;
    let mut config = shell(
        "tty",
        "tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo $TERM; test -c /dev/console && echo console",
    );
    config.tty = true;
    let (output, code) = pod.finished(config).await;
    assert_eq!((output.replace('\r', "").as_str(), code), ("/dev/pts/0\nall\nxterm\nconsole\n", 0));
    // Without input, reading meets the end at once.
    assert_eq!(pod.script("eof", "cat; echo end").await.0, "end\n");
}
