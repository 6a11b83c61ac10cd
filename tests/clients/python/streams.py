"""Containers from the inside: exec, attach, port-forward, logs, and what is proxied to pods."""
import json
import threading
import traceback

from kubernetes import client, watch
from kubernetes.stream import portforward, stream
from support import part, same, until

META = client.V1ObjectMeta
core = client.CoreV1Api()
TALKER = "echo ready; while read line; do echo heard $line; done; echo over; sleep 3600"
SERVER = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www"


def ready(name):
    def look():
        conditions = core.read_namespaced_pod(name, "default").status.conditions or []
        return any(c.type == "Ready" and c.status == "True" for c in conditions)
    until(f"{name} is ready", look)


def pods():
    """The pods that the parts talk to, made once."""
    if not core.list_namespaced_pod("default", label_selector="part=streams").items:
        containers = [client.V1Container(name="talker", image="busybox", stdin=True, command=["sh", "-c", TALKER]),
                      client.V1Container(name="server", image="busybox", command=["sh", "-c", SERVER])]
        core.create_namespaced_pod("default", client.V1Pod(
            metadata=META(name="streams", labels={"part": "streams"}),
            spec=client.V1PodSpec(termination_grace_period_seconds=0, containers=containers)))
    ready("streams")


def run(*command, **options):
    arguments = {"stderr": True, "stdin": False, "stdout": True, "tty": False, "container": "server", **options}
    return stream(core.connect_get_namespaced_pod_exec, "streams", "default", command=list(command), **arguments)


@part
def commands_are_run_in_containers():
    pods()
    same(run("echo", "a b", "c"), "a b c\n")
    process = run("sh", "-c", "echo out; echo err >&2; exit 42", _preload_content=False)
    process.run_forever(timeout=120)
    same((process.read_stdout(), process.read_stderr(), process.returncode), ("out\n", "err\n", 42))
    status = run("true", _preload_content=False)
    status.run_forever(timeout=120)
    same(status.returncode, 0)
    shell = run("sh", stdin=True, _preload_content=False)
    shell.write_stdin("echo one; read line; echo got $line\n")
    same(shell.readline_stdout(timeout=120), "one")
    shell.write_stdin("two\n")
    same(shell.readline_stdout(timeout=120), "got two")
    shell.write_stdin("exit 3\n")
    shell.run_forever(timeout=120)
    same(shell.returncode, 3)
    terminal = run("sh", stdin=True, tty=True, _preload_content=False)
    terminal.write_channel(4, json.dumps({"Width": 132, "Height": 43}))
    terminal.write_stdin("until [ \"$(stty size)\" = '43 132' ]; do sleep 0.1; done; echo si''zed; exit\n")
    terminal.run_forever(timeout=120)
    said = terminal.read_stdout()
    assert "sized" in said, said
    # More than any buffer on the way, as it is.
    much = run("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x", _preload_content=False, binary=True)
    much.run_forever(timeout=120)
    same(len(much.read_stdout()), 1000000)
    try:
        run("true", container="absent")
    except Exception:
        # The package stumbles over its own exception.
        said = traceback.format_exc()
        assert "Handshake status 400 Bad Request" in said and "container absent is not valid for pod streams" in said, said
    else:
        raise AssertionError("a container that is not there was entered")


@part
def a_container_is_attached_to_and_its_log_followed():
    pods()
    attached = stream(core.connect_get_namespaced_pod_attach, "streams", "default", container="talker",
                      stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
    lines, follower = [], watch.Watch()

    def follow():
        for line in follower.stream(core.read_namespaced_pod_log, "streams", "default", container="talker"):
            lines.append(line)
            if line.endswith("two"):
                follower.stop()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    attached.write_stdin("one\n")
    same(attached.readline_stdout(timeout=120), "heard one")
    attached.write_stdin("two\n")
    same(attached.readline_stdout(timeout=120), "heard two")
    attached.close()
    thread.join(120)
    same(lines, ["ready", "heard one", "heard two"])

    def log(*args, **options):
        # Left to itself, the package gives the text of bytes.
        return core.read_namespaced_pod_log(*args, _preload_content=False, **options).data.decode()

    same(log("streams", "default", container="talker", tail_lines=1), "heard two\n")
    same(log("streams", "default", container="talker", limit_bytes=5), "ready")
    stamped = log("streams", "default", container="talker", timestamps=True, tail_lines=1)
    assert stamped.startswith("20") and stamped.endswith("Z heard two\n"), stamped
    try:
        log("streams", "default")
    except client.ApiException as e:
        same((e.status, json.loads(e.body)["message"]), (
            400, "a container name must be specified for pod streams, choose one of: [talker server]"))
    else:
        raise AssertionError("a log was read of nobody knows which container")


@part
def ports_are_forwarded_and_proxied():
    pods()
    forward = portforward(core.connect_get_namespaced_pod_portforward, "streams", "default", ports="8080")
    connection = forward.socket(8080)
    connection.setblocking(True)
    connection.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    connection.close()
    assert b" 200 OK\r\n" in answer and answer.endswith(b"served\n"), answer
    same(forward.error(8080), None)
    proxied = core.connect_get_namespaced_pod_proxy_with_path("streams:8080", "default", "index.html", _preload_content=False)
    same((proxied.status, proxied.data), (200, b"served\n"))
