"""Every way to change an object: the four patches, apply with conflicts, status, scale, and deletion's options."""
import json

from kubernetes import client
from support import part, refused, same, until

META = client.V1ObjectMeta
core, apps = client.CoreV1Api(), client.AppsV1Api()
APPLY = "application/apply-patch+yaml"


def deployment(name, **spec):
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "busybox", "command": ["sleep", "3600"]}]}}, **spec}}


@part
def patches_of_each_type_do_what_they_say():
    apps.create_namespaced_deployment("default", deployment("patched"))
    patch = apps.patch_namespaced_deployment
    # A strategic merge patch, the package's own choice for a dict: containers are merged by name.
    got = patch("patched", "default", {"spec": {"template": {"spec": {"containers": [
        {"name": "side", "image": "busybox"}, {"name": "main", "env": [{"name": "A", "value": "b"}]}]}}}})
    same([(c.name, c.image) for c in got.spec.template.spec.containers], [("side", "busybox"), ("main", "busybox")])
    same(got.spec.template.spec.containers[1].env[0].value, "b")
    got = patch("patched", "default", {"spec": {"template": {"spec": {"containers": [
        {"$patch": "delete", "name": "side"}]}}}})
    same([c.name for c in got.spec.template.spec.containers], ["main"])
    # A JSON patch, its choice for a list.
    got = patch("patched", "default", [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "add", "path": "/metadata/annotations", "value": {"example.com/a": "1"}},
        {"op": "replace", "path": "/spec/template/spec/containers/0/command/1", "value": "60"}])
    same(got.metadata.annotations["example.com/a"], "1")
    same(got.spec.template.spec.containers[0].command, ["sleep", "60"])
    failed = refused(422, "Invalid", patch, "patched", "default", [{"op": "test", "path": "/spec/replicas", "value": 9}])
    same(failed["message"], "the server rejected our request due to an error in our request")
    # A merge patch replaces lists and takes away what is null.
    got = patch("patched", "default", {"metadata": {"annotations": {"example.com/a": None, "example.com/b": "2"}},
                                       "spec": {"template": {"spec": {"containers": [{"name": "only", "image": "busybox"}]}}}},
                _content_type="application/merge-patch+json")
    assert "example.com/a" not in got.metadata.annotations and got.metadata.annotations["example.com/b"] == "2", got
    same([(c.name, c.command) for c in got.spec.template.spec.containers], [("only", None)])
    refused(415, "UnsupportedMediaType", patch, "patched", "default", {}, _content_type="application/json")
    immutable = refused(422, "Invalid", patch, "patched", "default", {"spec": {"selector": {"matchLabels": {"app": "x"}}}})
    assert "field is immutable" in immutable["message"], immutable
    apps.delete_namespaced_deployment("patched", "default")


@part
def apply_keeps_fields_with_their_owners():
    def apply(manager, force=None, **spec):
        body = deployment("applied", **spec)
        return apps.patch_namespaced_deployment("applied", "default", body, field_manager=manager, force=force, _content_type=APPLY)

    made = apply("one", minReadySeconds=1)
    same([(m.manager, m.operation) for m in made.metadata.managed_fields], [("one", "Apply")])
    conflict = refused(409, "Conflict", apply, "two", minReadySeconds=2)
    same(conflict["details"]["causes"], [{
        "reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".spec.minReadySeconds"}])
    same(conflict["message"], 'Apply failed with 1 conflict: conflict with "one": .spec.minReadySeconds')
    got = apply("two", force=True, minReadySeconds=2)
    same(got.spec.min_ready_seconds, 2)
    # What its last owner leaves out is gone; what somebody else has stays.
    got = apply("one", revisionHistoryLimit=3)
    same((got.spec.min_ready_seconds, got.spec.revision_history_limit), (2, 3))
    got = apply("two")
    same(got.spec.min_ready_seconds, None)
    got = apply("one")
    same(got.spec.revision_history_limit, 10)
    other = deployment("applied")
    other["metadata"]["name"] = "other"
    wrong = refused(400, "BadRequest", apps.patch_namespaced_deployment, "applied", "default", other,
                    field_manager="one", _content_type=APPLY)
    same(wrong["message"], "the name of the object (other) does not match the name on the URL (applied)")
    apps.delete_namespaced_deployment("applied", "default")


@part
def scale_and_status_are_changed_on_their_own():
    apps.create_namespaced_deployment("default", deployment("scaled", paused=True))
    scale = apps.read_namespaced_deployment_scale("scaled", "default")
    same((scale.spec.replicas, scale.status.selector), (None, "app=scaled"))
    apps.patch_namespaced_deployment_scale("scaled", "default", {"spec": {"replicas": 0}})

    def replaced():
        # Between reading and replacing, the Deployment's controller may have written.
        fresh = apps.read_namespaced_deployment_scale("scaled", "default")
        try:
            return apps.replace_namespaced_deployment_scale("scaled", "default", fresh)
        except client.ApiException as e:
            same(e.status, 409)

    same(until("the scale is replaced", replaced).kind, "Scale")
    core.create_namespaced_resource_quota("default", client.V1ResourceQuota(
        metadata=META(name="status"), spec=client.V1ResourceQuotaSpec(hard={"count/widgets.example.com": "1"})))
    got = core.patch_namespaced_resource_quota_status("status", "default", {
        "status": {"used": {"count/widgets.example.com": "7"}}, "spec": {"hard": {"pods": "9"}}})
    same((got.status.used.get("count/widgets.example.com"), got.spec.hard), ("7", {"count/widgets.example.com": "1"}))
    core.delete_namespaced_resource_quota("status", "default")
    apps.delete_namespaced_deployment("scaled", "default")


@part
def deletion_does_what_its_options_say():
    body = client.V1ConfigMap(metadata=META(generate_name="held-", finalizers=["example.com/hold"]))
    held = core.create_namespaced_config_map("default", body)
    assert held.metadata.name.startswith("held-") and len(held.metadata.name) == 10, held
    core.delete_namespaced_config_map(held.metadata.name, "default")
    waiting = core.read_namespaced_config_map(held.metadata.name, "default")
    assert waiting.metadata.deletion_timestamp, waiting
    core.patch_namespaced_config_map(held.metadata.name, "default", {"metadata": {"finalizers": None}})
    refused(404, "NotFound", core.read_namespaced_config_map, held.metadata.name, "default")
    # Owner and dependent, orphaned and not.
    for policy, stays in [("Background", False), ("Orphan", True), ("Foreground", False)]:
        name = f"owner-{policy.lower()}"
        owner = core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=META(name=name)))
        reference = client.V1OwnerReference(
            api_version="v1", kind="ConfigMap", name=name, uid=owner.metadata.uid, block_owner_deletion=True)
        core.create_namespaced_secret("default", client.V1Secret(metadata=META(
            name=name, labels={"part": "owned"}, owner_references=[reference])))
        core.delete_namespaced_config_map(name, "default", propagation_policy=policy)

        def secrets():
            return core.list_namespaced_secret("default", field_selector=f"metadata.name={name}").items

        until(f"{name} is gone", lambda: not core.list_namespaced_config_map(
            "default", field_selector=f"metadata.name={name}").items)
        if stays:
            until("the dependent has no owner", lambda: not secrets()[0].metadata.owner_references)
            core.delete_namespaced_secret(name, "default")
        else:
            until("the dependent is gone", lambda: not secrets())
    core.create_namespace(client.V1Namespace(metadata=META(name="short-lived")))
    core.create_namespaced_config_map("short-lived", client.V1ConfigMap(metadata=META(name="inside")))
    core.delete_namespace("short-lived")
    until("the namespace is gone", lambda: "short-lived" not in [n.metadata.name for n in core.list_namespace().items])


@part
def a_pod_is_bound_evicted_and_given_another_container():
    pod = client.V1Pod(metadata=META(name="moved", labels={"app": "moved"}), spec=client.V1PodSpec(
        scheduler_name="nobody", termination_grace_period_seconds=0,
        containers=[client.V1Container(name="main", image="busybox", command=["sleep", "3600"])]))
    core.create_namespaced_pod("default", pod)
    binding = client.V1Binding(metadata=META(name="moved"), target=client.V1ObjectReference(kind="Node", name="node-1"))
    core.create_namespaced_pod_binding("moved", "default", binding, _preload_content=False)
    until("it runs", lambda: core.read_namespaced_pod("moved", "default").status.phase == "Running")
    core.patch_namespaced_pod_ephemeralcontainers("moved", "default", {"spec": {"ephemeralContainers": [
        {"name": "look", "image": "busybox", "command": ["sh", "-c", "echo looked"]}]}})

    def looked():
        statuses = core.read_namespaced_pod("moved", "default").status.ephemeral_container_statuses or []
        return statuses and statuses[0].state.terminated

    same(until("the ephemeral container has run", looked).exit_code, 0)
    policy = client.PolicyV1Api()
    policy.create_namespaced_pod_disruption_budget("default", client.V1PodDisruptionBudget(
        metadata=META(name="moved"), spec=client.V1PodDisruptionBudgetSpec(
            min_available=1, selector=client.V1LabelSelector(match_labels={"app": "moved"}))))
    until("the budget is counted", lambda: policy.read_namespaced_pod_disruption_budget(
        "moved", "default").status.observed_generation)
    eviction = client.V1Eviction(metadata=META(name="moved"))
    kept = refused(429, "TooManyRequests", core.create_namespaced_pod_eviction, "moved", "default", eviction)
    same(kept["details"]["causes"][0]["reason"], "DisruptionBudget")
    policy.delete_namespaced_pod_disruption_budget("moved", "default")

    def evicted():
        try:
            return core.create_namespaced_pod_eviction("moved", "default", eviction)
        except client.ApiException as e:
            same(json.loads(e.body)["reason"], "TooManyRequests")

    until("it is evicted", evicted)
    until("it is gone", lambda: "moved" not in [p.metadata.name for p in core.list_namespaced_pod("default").items])
