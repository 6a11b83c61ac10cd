"""What larger programs are made of: the dynamic client, manifests, leader election, asyncio, every operation by name."""
import asyncio
import inspect
import json
import multiprocessing
import pathlib
import re
import tempfile

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from support import part, same, until

core, apps = client.CoreV1Api(), client.AppsV1Api()


@part
def kinds_are_found_by_discovery():
    found = dynamic.DynamicClient(client.ApiClient(), cache_file=tempfile.mktemp())
    same(found.version["kubernetes"]["minor"], "36")
    deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
    same((deployments.name, deployments.namespaced, "scale" in deployments.subresources), ("deployments", True, True))
    same(found.resources.get(kind="Ingress").group_version, "networking.k8s.io/v1")
    assert len(found.resources.search(kind="Event")) >= 2
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic", "labels": {"part": "dynamic"}}, "data": {"a": "b"}}
    version = maps.get(namespace="default").metadata.resourceVersion
    made = maps.create(body=body, namespace="default")
    same(made.data.a, "b")
    changed = made.to_dict()
    changed["data"] = {"a": "c"}
    same(maps.replace(body=changed, namespace="default").data.a, "c")
    try:
        maps.replace(body=changed, namespace="default")
    except ConflictError as e:
        same(e.status, 409)
    else:
        raise AssertionError("an old version was not refused")
    same(maps.patch(body={"data": {"d": "e"}}, name="dynamic", namespace="default").data.to_dict(), {"a": "c", "d": "e"})
    body["data"] = {"f": "g"}
    got = maps.server_side_apply(body=body, name="dynamic", namespace="default", field_manager="dynamic", force_conflicts=True)
    same(got.data.f, "g")
    listed = maps.get(namespace="default", label_selector="part=dynamic")
    same((listed.kind, [i.metadata.name for i in listed.items]), ("ConfigMapList", ["dynamic"]))
    maps.delete(name="dynamic", namespace="default")
    seen, watcher = [], watch.Watch()
    for event in maps.watch(namespace="default", name="dynamic", resource_version=version, timeout=60, watcher=watcher):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    same((seen[0], seen[-1]), ("ADDED", "DELETED"))
    try:
        maps.get(name="dynamic", namespace="default")
    except NotFoundError as e:
        same(e.status, 404)
    else:
        raise AssertionError("what was deleted is still there")


MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: from-a-file}
spec:
  replicas: 2
  selector: {matchLabels: {app: from-a-file}}
  template:
    metadata: {labels: {app: from-a-file}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: busybox, command: [sleep, "3600"], resources: {requests: {cpu: 5m, memory: 1Mi}}}]
---
apiVersion: v1
kind: Service
metadata: {name: from-a-file}
spec: {selector: {app: from-a-file}, ports: [{port: 80}]}
"""


@part
def manifests_are_created_and_deleted():
    api = client.ApiClient()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(MANIFEST)
        file.flush()
        made = utils.create_from_yaml(api, file.name)
        same([objects[0].kind for objects in made], ["Deployment", "Service"])
        until("both run", lambda: apps.read_namespaced_deployment_status("from-a-file", "default").status.available_replicas == 2)
        slices = client.DiscoveryV1Api().list_namespaced_endpoint_slice
        until("both are endpoints", lambda: [len(s.endpoints or []) for s in slices(
            "default", label_selector="kubernetes.io/service-name=from-a-file").items] == [2])
        pod = core.list_namespaced_pod("default", label_selector="app=from-a-file", field_selector="status.phase=Running").items[0]
        same(utils.parse_quantity(pod.spec.containers[0].resources.requests["memory"]), 2**20)
        events = core.list_namespaced_event("default", field_selector=f"involvedObject.name={pod.metadata.name}").items
        assert {"Scheduled", "Started"} <= {e.reason for e in events}, events
        try:
            utils.create_from_yaml(api, file.name)
        except utils.FailToCreateError as e:
            same([json.loads(x.body)["reason"] for x in e.api_exceptions], ["AlreadyExists"] * 2)
        else:
            raise AssertionError("what is there was created")
        apps.patch_namespaced_deployment_scale("from-a-file", "default", {"spec": {"replicas": 1}})
        until("one runs", lambda: apps.read_namespaced_deployment("from-a-file", "default").status.replicas == 1)
    apps.delete_namespaced_deployment("from-a-file", "default")
    core.delete_namespaced_service("from-a-file", "default")
    until("the pods are gone", lambda: not core.list_namespaced_pod("default", label_selector="app=from-a-file").items)


def candidate(name, directory):
    """One of those who want to lead, as a process; it says in a file that it does."""
    config.load_kube_config()
    lock = ConfigMapLock("election", "default", name)
    terms = electionconfig.Config(lock, lease_duration=4, renew_deadline=3, retry_period=1,
                                  onstarted_leading=(directory / name).touch, onstopped_leading=lambda: None)
    leaderelection.LeaderElection(terms).run()


@part
def one_leads_at_a_time():
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        candidates = {name: context.Process(target=candidate, args=(name, directory), daemon=True) for name in ("one", "two")}
        for process in candidates.values():
            process.start()
        first = until("one leads", lambda: [file.name for file in directory.iterdir()])[0]
        record = json.loads(core.read_namespaced_config_map("election", "default").metadata.annotations[
            "control-plane.alpha.kubernetes.io/leader"])
        same(record["holderIdentity"], first)
        candidates[first].kill()
        until("the other leads", lambda: len(list(directory.iterdir())) == 2)
        for process in candidates.values():
            process.kill()
            process.join()


@part
def asyncio_lists_and_watches():
    from kubernetes import aio
    from kubernetes.aio.config import load_kube_config

    async def main():
        await load_kube_config()
        async with aio.client.ApiClient() as api:
            v1 = aio.client.CoreV1Api(api)
            names = await asyncio.gather(*[v1.create_namespaced_config_map(
                "default", {"metadata": {"name": f"aio-{n}", "labels": {"part": "aio"}}}) for n in range(8)])
            same(len(names), 8)
            listed = await v1.list_namespaced_config_map("default", label_selector="part=aio")
            same(len(listed.items), 8)
            await v1.delete_collection_namespaced_config_map("default", label_selector="part=aio")

    asyncio.run(main())


def operations():
    """What each method of the package asks for: the path and the verb, as its own code says it."""
    for name, api in vars(client).items():
        if not (inspect.isclass(api) and name.endswith("Api")) or name == "CustomObjectsApi":
            continue
        for method, function in vars(api).items():
            if method.endswith("_with_http_info"):
                found = re.search(r"call_api\(\s*'([^']+)', '([A-Z]+)'", inspect.getsource(function))
                yield method.removesuffix("_with_http_info"), found.group(1), found.group(2).lower()


@part
def every_operation_that_the_package_knows_is_published():
    paths = client.ApiClient().call_api("/openapi/v2", "GET", response_types_map={200: "object"},
                                        header_params={"Accept": "application/json"}, _return_http_data_only=True)["paths"]
    known = missing = ""
    for method, path, verb in operations():
        # Versions that are not yet stable are served when they are asked for; discovery is asked for above.
        if re.search(r"/v\d+(alpha|beta)\d+/|/proxy|/$", path) or path.startswith(("/logs", "/openid", "/.well-known")):
            continue
        known += f"{method}\n"
        if verb not in paths.get(path, {}):
            missing += f"{method}: {verb} {path}\n"
    assert len(known.splitlines()) > 500, known
    assert not missing, missing
