"""Typed objects of many kinds: made, read, listed, replaced, deleted; pages, dry runs and refusals."""
import json

from kubernetes import client
from support import part, refused, same, until

META = client.V1ObjectMeta
core, apps, batch, rbac = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api(), client.RbacAuthorizationV1Api()
networking, policy, storage = client.NetworkingV1Api(), client.PolicyV1Api(), client.StorageV1Api()
autoscaling, coordination, discovery = client.AutoscalingV2Api(), client.CoordinationV1Api(), client.DiscoveryV1Api()

SELECTOR = client.V1LabelSelector(match_labels={"app": "typed"})


def template(restart="Always"):
    container = client.V1Container(name="main", image="busybox", command=["sleep", "3600"])
    return client.V1PodTemplateSpec(
        metadata=META(labels={"app": "typed"}), spec=client.V1PodSpec(restart_policy=restart, containers=[container]))


def job_spec():
    return client.V1JobSpec(suspend=True, template=client.V1PodTemplateSpec(spec=template("Never").spec))


RULES = [client.V1PolicyRule(api_groups=[""], resources=["pods"], verbs=["get"])]
CLAIM = client.V1PersistentVolumeClaimSpec(
    access_modes=["ReadWriteOnce"], storage_class_name="absent",
    resources=client.V1VolumeResourceRequirements(requests={"storage": "1Gi"}))

# The API, the name of its methods, whether namespaced, the object, and whether it has a status.
KINDS = [
    (core, "config_map", True, client.V1ConfigMap(data={"a": "b"}), False),
    (core, "secret", True, client.V1Secret(string_data={"a": "b"}), False),
    (core, "service_account", True, client.V1ServiceAccount(), False),
    (core, "service", True, client.V1Service(spec=client.V1ServiceSpec(
        selector={"app": "typed"}, ports=[client.V1ServicePort(port=80)])), True),
    (core, "endpoints", True, client.V1Endpoints(subsets=[client.V1EndpointSubset(
        addresses=[client.V1EndpointAddress(ip="192.0.2.9")], ports=[client.CoreV1EndpointPort(port=80)])]), False),
    (core, "limit_range", True, client.V1LimitRange(spec=client.V1LimitRangeSpec(
        limits=[client.V1LimitRangeItem(type="Container", max={"cpu": "8"})])), False),
    (core, "resource_quota", True, client.V1ResourceQuota(spec=client.V1ResourceQuotaSpec(hard={"pods": "100"})), True),
    (core, "persistent_volume_claim", True, client.V1PersistentVolumeClaim(spec=CLAIM), True),
    (core, "persistent_volume", False, client.V1PersistentVolume(spec=client.V1PersistentVolumeSpec(
        capacity={"storage": "1Gi"}, access_modes=["ReadWriteOnce"], storage_class_name="other",
        host_path=client.V1HostPathVolumeSource(path="/tmp/none"))), True),
    (core, "pod_template", True, client.V1PodTemplate(template=template()), False),
    (core, "replication_controller", True, client.V1ReplicationController(spec=client.V1ReplicationControllerSpec(
        replicas=0, selector={"app": "typed"}, template=template())), True),
    (apps, "deployment", True, client.V1Deployment(spec=client.V1DeploymentSpec(
        replicas=0, selector=SELECTOR, template=template())), True),
    (apps, "replica_set", True, client.V1ReplicaSet(spec=client.V1ReplicaSetSpec(
        replicas=0, selector=SELECTOR, template=template())), True),
    (apps, "stateful_set", True, client.V1StatefulSet(spec=client.V1StatefulSetSpec(
        replicas=0, service_name="typed", selector=SELECTOR, template=template())), True),
    (apps, "controller_revision", True, client.V1ControllerRevision(revision=1, data={"a": 1}), False),
    (batch, "job", True, client.V1Job(spec=job_spec()), True),
    (batch, "cron_job", True, client.V1CronJob(spec=client.V1CronJobSpec(
        schedule="0 0 1 1 *", suspend=True, job_template=client.V1JobTemplateSpec(spec=job_spec()))), True),
    (autoscaling, "horizontal_pod_autoscaler", True, client.V2HorizontalPodAutoscaler(
        spec=client.V2HorizontalPodAutoscalerSpec(max_replicas=3, scale_target_ref=client.V2CrossVersionObjectReference(
            api_version="apps/v1", kind="Deployment", name="absent"))), True),
    (networking, "ingress", True, client.V1Ingress(spec=client.V1IngressSpec(default_backend=client.V1IngressBackend(
        service=client.V1IngressServiceBackend(name="s", port=client.V1ServiceBackendPort(number=80))))), True),
    (networking, "network_policy", True, client.V1NetworkPolicy(
        spec=client.V1NetworkPolicySpec(pod_selector=SELECTOR)), False),
    (networking, "ingress_class", False, client.V1IngressClass(
        spec=client.V1IngressClassSpec(controller="example.com/c")), False),
    (rbac, "role", True, client.V1Role(rules=RULES), False),
    (rbac, "cluster_role", False, client.V1ClusterRole(rules=RULES), False),
    (rbac, "role_binding", True, client.V1RoleBinding(
        role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="view"),
        subjects=[client.RbacV1Subject(kind="User", api_group="rbac.authorization.k8s.io", name="u")]), False),
    (rbac, "cluster_role_binding", False, client.V1ClusterRoleBinding(
        role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="view")), False),
    (policy, "pod_disruption_budget", True, client.V1PodDisruptionBudget(
        spec=client.V1PodDisruptionBudgetSpec(min_available="50%", selector=SELECTOR)), True),
    (coordination, "lease", True, client.V1Lease(spec=client.V1LeaseSpec(holder_identity="me")), False),
    (discovery, "endpoint_slice", True, client.V1EndpointSlice(
        address_type="IPv4", endpoints=[client.V1Endpoint(addresses=["192.0.2.9"])], ports=[]), False),
    (storage, "storage_class", False, client.V1StorageClass(provisioner="example.com/p"), False),
    (storage, "csi_driver", False, client.V1CSIDriver(spec=client.V1CSIDriverSpec(attach_required=False)), False),
    (client.SchedulingV1Api(), "priority_class", False, client.V1PriorityClass(value=7), False),
    (client.NodeV1Api(), "runtime_class", False, client.V1RuntimeClass(handler="h"), False),
]


@part
def every_typed_kind_is_made_read_listed_replaced_and_deleted():
    for api, kind, namespaced, obj, has_status in KINDS:
        middle, where = ("namespaced_", ["default"]) if namespaced else ("", [])

        def method(verb, suffix=""):
            return getattr(api, f"{verb}_{middle}{kind}{suffix}")

        name = f"typed-{kind.replace('_', '-')}"
        # By its own name: what the controllers make of one, with its labels, may still be there when the next is looked at.
        own = f"typed={name}"
        obj.metadata = META(name=name, labels={"typed": name})
        made = method("create")(*where, obj)
        assert made.metadata.uid and made.metadata.resource_version and made.metadata.creation_timestamp, made
        read = method("read")(name, *where)
        same(read.metadata.uid, made.metadata.uid)
        items = method("list")(*where, label_selector=own).items
        same([item.metadata.name for item in items], [name])
        if namespaced:
            everywhere = getattr(api, f"list_{kind}_for_all_namespaces")(field_selector=f"metadata.name={name}").items
            same(len(everywhere), 1)

        # A controller may write between the read and the replace.
        def replaced():
            read = method("read")(name, *where)
            read.metadata.annotations = {"example.com/note": "ünïcode"}
            try:
                return method("replace")(name, *where, read)
            except client.ApiException as e:
                same((e.status, json.loads(e.body)["reason"]), (409, "Conflict"))

        same(until(f"{kind} is replaced", replaced).metadata.annotations["example.com/note"], "ünïcode")
        if has_status:
            same(method("read", "_status")(name, *where).metadata.name, name)
        method("delete")(name, *where)
        until(f"{kind} is gone", lambda: not method("list")(*where, label_selector=own).items)
        gone = refused(404, "NotFound", method("read"), name, *where)
        assert f'"{name}" not found' in gone["message"], gone


@part
def lists_come_in_pages_of_one_state():
    for n in range(25):
        core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=META(
            name=f"page-{n:02}", labels={"part": "pages"})))
    names, token, versions = [], None, set()
    while True:
        page = core.list_namespaced_config_map("default", label_selector="part=pages", limit=10, _continue=token)
        names += [item.metadata.name for item in page.items]
        versions.add(page.metadata.resource_version)
        if not names[10:]:
            # Made after the first page was read: not of its state.
            core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=META(
                name="page-99", labels={"part": "pages"})))
        token = page.metadata._continue
        if not token:
            break
    same(names, [f"page-{n:02}" for n in range(25)])
    same(len(versions), 1)
    # Without a selector it is told how many are left.
    page = core.list_namespaced_config_map("default", limit=10)
    same((len(page.items), page.metadata.remaining_item_count >= 16), (10, True))
    wrong = refused(400, "BadRequest", core.list_namespaced_config_map, "default", limit=1, _continue="nonsense")
    assert wrong["message"].startswith("invalid continue token: continue key is not valid"), wrong
    core.delete_collection_namespaced_config_map("default", label_selector="part=pages")
    until("all are gone", lambda: not core.list_namespaced_config_map("default", label_selector="part=pages").items)


@part
def a_dry_run_changes_nothing():
    body = client.V1ConfigMap(metadata=META(name="dry"), data={"a": "b"})
    made = core.create_namespaced_config_map("default", body, dry_run="All")
    assert made.metadata.uid, made
    refused(404, "NotFound", core.read_namespaced_config_map, "dry", "default")
    core.create_namespaced_config_map("default", body)
    core.patch_namespaced_config_map("dry", "default", {"data": {"a": "c"}}, dry_run="All")
    core.delete_namespaced_config_map("dry", "default", dry_run="All")
    same(core.read_namespaced_config_map("dry", "default").data, {"a": "b"})
    wrong = refused(422, "Invalid", core.create_namespaced_config_map, "default", body, dry_run="Some")
    assert "dryRun" in wrong["message"], wrong
    core.delete_namespaced_config_map("dry", "default")


@part
def what_is_refused_tells_why():
    missing = refused(404, "NotFound", core.read_namespaced_pod, "absent", "default")
    same(missing["message"], 'pods "absent" not found')
    same(missing["details"], {"name": "absent", "kind": "pods"})
    body = client.V1ConfigMap(metadata=META(name="twice"))
    made = core.create_namespaced_config_map("default", body)
    twice = refused(409, "AlreadyExists", core.create_namespaced_config_map, "default", body)
    same(twice["message"], 'configmaps "twice" already exists')
    core.patch_namespaced_config_map("twice", "default", {"data": {"a": "b"}})
    stale = refused(409, "Conflict", core.replace_namespaced_config_map, "twice", "default", made)
    same(stale["message"], 'Operation cannot be fulfilled on configmaps "twice": the object has been modified; '
         "please apply your changes to the latest version and try again")
    pod = {"metadata": {"name": "wrong"}, "spec": {"containers": [{"name": "No_Such", "image": ""}]}}
    invalid = refused(422, "Invalid", core.create_namespaced_pod, "default", pod)
    fields = {(cause["field"], cause["reason"]) for cause in invalid["details"]["causes"]}
    same(fields, {("spec.containers[0].name", "FieldValueInvalid"), ("spec.containers[0].image", "FieldValueRequired")})
    strict = refused(400, "BadRequest", core.create_namespaced_pod, "default",
                     {"metadata": {"name": "wrong"}, "spec": {"containers": [], "absent": 1}}, field_validation="Strict")
    assert 'unknown field "spec.absent"' in strict["message"], strict
    refused(400, "BadRequest", core.create_namespaced_config_map, "default", {"data": []})
    nowhere = refused(404, "NotFound", core.create_namespaced_config_map, "absent", body)
    same(nowhere["message"], 'namespaces "absent" not found')
    refused(409, "Conflict", core.delete_namespaced_config_map, "twice", "default",
            body=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another")))
    core.delete_namespaced_config_map("twice", "default")


@part
def who_may_not_is_told_so():
    core.create_namespaced_service_account("default", client.V1ServiceAccount(metadata=META(name="nobody")))
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("nobody", "default", request).status.token
    base = client.Configuration.get_default_copy()
    base.cert_file = base.key_file = None
    base.api_key = {"authorization": f"Bearer {token}"}
    theirs = client.ApiClient(base)
    forbidden = refused(403, "Forbidden", client.CoreV1Api(theirs).list_namespaced_secret, "default")
    same(forbidden["message"], 'secrets is forbidden: User "system:serviceaccount:default:nobody" cannot list resource '
         '"secrets" in API group "" in the namespace "default"')
    review = client.AuthenticationV1Api(theirs).create_self_subject_review(client.V1SelfSubjectReview())
    same(review.status.user_info.username, "system:serviceaccount:default:nobody")
    asked = client.V1ResourceAttributes(namespace="default", verb="list", resource="secrets")
    access = client.AuthorizationV1Api(theirs).create_self_subject_access_review(
        client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked)))
    assert not access.status.allowed, access
    rbac.create_namespaced_role("default", client.V1Role(metadata=META(name="reads-secrets"), rules=[
        client.V1PolicyRule(api_groups=[""], resources=["secrets"], verbs=["list"])]))
    rbac.create_namespaced_role_binding("default", client.V1RoleBinding(
        metadata=META(name="reads-secrets"),
        role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="reads-secrets"),
        subjects=[client.RbacV1Subject(kind="ServiceAccount", name="nobody", namespace="default")]))

    def allowed():
        try:
            return client.CoreV1Api(theirs).list_namespaced_secret("default")
        except client.ApiException as e:
            same(e.status, 403)

    until("the role is known", allowed)
    base.api_key = {"authorization": "Bearer nonsense"}
    refused(401, "Unauthorized", client.CoreV1Api(client.ApiClient(base)).list_namespaced_secret, "default")
    as_another = client.ApiClient(header_name="Impersonate-User", header_value="jane")
    forbidden = refused(403, "Forbidden", client.CoreV1Api(as_another).read_node, "node-1")
    same(forbidden["message"], 'nodes "node-1" is forbidden: User "jane" cannot get resource "nodes" in API group "" at the cluster scope')


@part
def what_the_cluster_says_of_itself_is_understood():
    version = client.VersionApi().get_code()
    same((version.major, version.minor), ("1", "36"))
    groups = client.ApisApi().get_api_versions()
    assert "apps" in {group.name for group in groups.groups}, groups
    resources = client.AppsV1Api().get_api_resources().resources
    assert {"deployments", "deployments/scale", "deployments/status"} <= {r.name for r in resources}, resources
    same(client.CoreApi().get_api_versions().versions, ["v1"])
    node = core.list_node().items[0]
    same({c.type: c.status for c in node.status.conditions}["Ready"], "True")
    assert node.status.allocatable["cpu"] and node.status.node_info.kubelet_version.startswith("v1.36"), node
    assert {"default", "kube-system"} <= {n.metadata.name for n in core.list_namespace().items}
    keys = client.OpenidApi().get_service_account_issuer_open_id_keyset()
    assert "keys" in json.loads(keys.replace("'", '"')), keys
