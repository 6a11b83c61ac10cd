"""Watches as programs use them: from a list, resumed, with bookmarks, with a streamed list, with an end; informers."""
import threading
import time

from kubernetes import client, watch
from kubernetes.informer import SharedInformer
from support import part, refused, same, until

META = client.V1ObjectMeta
core = client.CoreV1Api()


def config_map(name, label="watched", **data):
    return client.V1ConfigMap(metadata=META(name=name, labels={"part": label}), data=data)


def change(name):
    core.create_namespaced_config_map("default", config_map(name))
    core.patch_namespaced_config_map(name, "default", {"data": {"a": "b"}})
    core.delete_namespaced_config_map(name, "default")


@part
def a_watch_goes_on_where_a_list_ended():
    core.create_namespaced_config_map("default", config_map("before"))
    listed = core.list_namespaced_config_map("default", label_selector="part=watched")
    same([i.metadata.name for i in listed.items], ["before"])
    change("first")
    change("second")
    arguments = {"label_selector": "part=watched", "timeout_seconds": 60}
    seen, version = [], listed.metadata.resource_version
    # Each stream is left after two events, and the next resumes at the version of the last.
    while len(seen) < 6:
        stream = watch.Watch()
        taken = 0
        for event in stream.stream(core.list_namespaced_config_map, "default", resource_version=version, **arguments):
            seen.append((event["type"], event["object"].metadata.name))
            version = event["object"].metadata.resource_version
            taken += 1
            if taken == 2:
                stream.stop()
    same(seen, [(kind, name) for name in ("first", "second") for kind in ("ADDED", "MODIFIED", "DELETED")])
    # Without a version: what is there first.
    stream = watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, "default", **arguments):
        same((event["type"], event["object"].metadata.name), ("ADDED", "before"))
        stream.stop()
    core.delete_namespaced_config_map("before", "default")


@part
def a_change_of_labels_enters_and_leaves_a_watch():
    core.create_namespaced_config_map("default", config_map("turns", "other"))
    version = core.list_namespaced_config_map("default").metadata.resource_version
    for label in ("chosen", "chosen", "other"):
        core.patch_namespaced_config_map("turns", "default", {
            "metadata": {"labels": {"part": label}, "annotations": {"n": str(time.monotonic())}}})
    core.delete_namespaced_config_map("turns", "default")
    seen, stream = [], watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, "default", resource_version=version,
                               label_selector="part=chosen", timeout_seconds=60):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            stream.stop()
    same(seen, ["ADDED", "MODIFIED", "DELETED"])


@part
def a_watch_ends_when_its_time_is_up_and_has_told_a_bookmark():
    version = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_secret("default", client.V1Secret(metadata=META(name="elsewhere")))
    begun = time.monotonic()
    events = list(watch.Watch().stream(core.list_namespaced_config_map, "default", label_selector="part=nothing",
                                       resource_version=version, timeout_seconds=4, allow_watch_bookmarks=True))
    assert 3.5 < time.monotonic() - begun < 60, events
    same({event["type"] for event in events}, {"BOOKMARK"})
    bookmark = events[-1]["raw_object"]
    same((bookmark["kind"], bookmark["apiVersion"]), ("ConfigMap", "v1"))
    assert int(bookmark["metadata"]["resourceVersion"]) >= int(version), bookmark
    core.delete_namespaced_secret("elsewhere", "default")


@part
def a_list_is_streamed_and_its_end_is_told():
    for n in range(3):
        core.create_namespaced_config_map("default", config_map(f"streamed-{n}", "streamed"))
    names, stream = [], watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, "default", label_selector="part=streamed",
                               send_initial_events=True, resource_version_match="NotOlderThan",
                               allow_watch_bookmarks=True, timeout_seconds=60):
        if event["type"] == "BOOKMARK":
            same(event["raw_object"]["metadata"]["annotations"], {"k8s.io/initial-events-end": "true"})
            stream.stop()
        else:
            names.append((event["type"], event["object"].metadata.name))
    same(sorted(names), [("ADDED", f"streamed-{n}") for n in range(3)])
    wrong = refused(422, "Invalid", core.list_namespaced_config_map, "default", watch=True, send_initial_events=True)
    assert "resourceVersionMatch" in wrong["message"], wrong
    core.delete_collection_namespaced_config_map("default", label_selector="part=streamed")


@part
def a_watch_of_the_future_and_of_nonsense_is_refused():
    wrong = refused(400, "BadRequest", core.list_namespaced_config_map, "default", resource_version="nonsense", watch=True)
    assert "nonsense" in wrong["message"], wrong
    late = refused(504, "Timeout", core.list_namespaced_config_map, "default", resource_version="999999999999",
                   resource_version_match="NotOlderThan")
    assert late["message"].startswith("Timeout: Too large resource version: 999999999999, current: "), late
    same(late["details"]["causes"][0]["reason"], "ResourceVersionTooLarge")


@part
def an_informer_has_what_the_cluster_has():
    core.create_namespaced_config_map("default", config_map("early", "informed"))
    told, arrived = [], threading.Condition()

    def handler(kind):
        def handle(obj):
            with arrived:
                told.append((kind, obj.metadata.name))
                arrived.notify_all()
        return handle

    informer = SharedInformer(core.list_namespaced_config_map, namespace="default", label_selector="part=informed")
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        informer.add_event_handler(kind, handler(kind))
    informer.start()

    def hears(event):
        with arrived:
            assert arrived.wait_for(lambda: event in told, timeout=120), (event, told)

    hears(("ADDED", "early"))
    core.create_namespaced_config_map("default", config_map("late", "informed"))
    hears(("ADDED", "late"))
    core.patch_namespaced_config_map("early", "default", {"data": {"c": "d"}})
    hears(("MODIFIED", "early"))
    core.delete_namespaced_config_map("late", "default")
    hears(("DELETED", "late"))
    same(informer.cache.list_keys(), ["default/early"])
    same(informer.cache.get_by_key("default/early").data, {"c": "d"})
    informer.stop()
    # It resumes from where it was: nothing is told twice, nothing is missed.
    before = len(told)
    core.patch_namespaced_config_map("early", "default", {"data": {"e": "f"}})
    informer.start()
    hears(("MODIFIED", "early")) if before == len(told) else None
    until("the cache is up to date", lambda: informer.cache.get_by_key("default/early").data == {"c": "d", "e": "f"})
    same(told[before:], [("MODIFIED", "early")])
    informer.stop()
    core.delete_namespaced_config_map("early", "default")
