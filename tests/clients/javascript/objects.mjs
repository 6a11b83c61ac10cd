// Typed objects: made, read, listed, replaced, deleted; any kind by KubernetesObjectApi; pages and refusals.
import assert from 'node:assert/strict';
import { apps, batch, config, core, k8s, namespace, part, refused, until } from './support.mjs';

const template = { metadata: { labels: { app: 'typed' } }, spec: { containers: [{ name: 'main', image: 'busybox' }] } };
const selector = { matchLabels: { app: 'typed' } };

// The client, the name of its methods, the object.
const KINDS = [
    [core, 'ConfigMap', { data: { a: 'b' } }],
    [core, 'Secret', { stringData: { a: 'b' } }],
    [core, 'ServiceAccount', {}],
    [core, 'Service', { spec: { ports: [{ port: 80, targetPort: 'http' }], selector: { app: 'typed' } } }],
    [core, 'LimitRange', { spec: { limits: [{ type: 'Container', max: { cpu: '8' } }] } }],
    [core, 'ResourceQuota', { spec: { hard: { pods: '100' } } }],
    [core, 'ReplicationController', { spec: { replicas: 0, selector: { app: 'typed' }, template } }],
    [apps, 'Deployment', { spec: { replicas: 0, selector, template, strategy: { rollingUpdate: { maxSurge: '25%', maxUnavailable: 1 } } } }],
    [apps, 'ReplicaSet', { spec: { replicas: 0, selector, template } }],
    [apps, 'StatefulSet', { spec: { replicas: 0, serviceName: 's', selector, template } }],
    [batch, 'Job', { spec: { suspend: true, template: { spec: { ...template.spec, restartPolicy: 'Never' } } } }],
    [batch, 'CronJob', { spec: { schedule: '0 0 1 1 *', suspend: true, jobTemplate: { spec: { template: { spec: { ...template.spec, restartPolicy: 'Never' } } } } } }],
    [config.makeApiClient(k8s.NetworkingV1Api), 'Ingress', { spec: { defaultBackend: { service: { name: 's', port: { number: 80 } } } } }],
    [config.makeApiClient(k8s.NetworkingV1Api), 'NetworkPolicy', { spec: { podSelector: {} } }],
    [config.makeApiClient(k8s.RbacAuthorizationV1Api), 'Role', { rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] }],
    [config.makeApiClient(k8s.PolicyV1Api), 'PodDisruptionBudget', { spec: { minAvailable: '50%', selector } }],
    [config.makeApiClient(k8s.CoordinationV1Api), 'Lease', { spec: { holderIdentity: 'me', renewTime: new k8s.V1MicroTime(Date.now()) } }],
    [config.makeApiClient(k8s.AutoscalingV2Api), 'HorizontalPodAutoscaler', { spec: { maxReplicas: 3, scaleTargetRef: { kind: 'Deployment', name: 'absent', apiVersion: 'apps/v1' } } }],
];

part('every typed kind is made, read, listed, replaced and deleted', async () => {
    for (const [api, kind, body] of KINDS) {
        const name = `typed-${kind.toLowerCase()}`;
        body.metadata = { name, labels: { part: 'typed' } };
        const made = await api[`createNamespaced${kind}`]({ namespace, body });
        assert.ok(made.metadata.uid && made.metadata.creationTimestamp instanceof Date, kind);
        const replaced = await until(`${kind} is replaced`, async () => {
            const read = await api[`readNamespaced${kind}`]({ namespace, name });
            read.metadata.annotations = { ...read.metadata.annotations, 'example.com/note': 'ünïcode' };
            try {
                return await api[`replaceNamespaced${kind}`]({ namespace, name, body: read });
            } catch (error) {
                assert.equal(error.code, 409, error.stack);
            }
        });
        assert.equal(replaced.metadata.annotations['example.com/note'], 'ünïcode');
        const listed = await api[`listNamespaced${kind}`]({ namespace, labelSelector: 'part=typed' });
        assert.deepEqual(listed.items.map((item) => item.metadata.name), [name]);
        await api[`deleteNamespaced${kind}`]({ namespace, name });
        await until(`${kind} is gone`, async () => !(await api[`listNamespaced${kind}`]({ namespace, labelSelector: 'part=typed' })).items.length);
        const gone = await refused(404, 'NotFound', () => api[`readNamespaced${kind}`]({ namespace, name }));
        assert.match(gone.message, new RegExp(`"${name}" not found`));
    }
});

part('any kind is handled by its name', async () => {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const [deployment, service] = k8s.loadAllYaml(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: any, labels: {part: any}}
spec:
  replicas: 1
  selector: {matchLabels: {app: any}}
  template:
    metadata: {labels: {app: any}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: busybox, command: [sleep, "3600"]}]}
---
apiVersion: v1
kind: Service
metadata: {name: any, labels: {part: any}}
spec: {selector: {app: any}, ports: [{port: 80}]}
`);
    assert.equal((await objects.create(deployment)).kind, 'Deployment');
    assert.match((await objects.create(service)).spec.clusterIP, /^10\./);
    await until('it is available', async () => (await objects.read(deployment)).status?.availableReplicas === 1);
    const patched = await objects.patch({ ...deployment, spec: { ...deployment.spec, replicas: 2 } });
    assert.equal(patched.spec.replicas, 2);
    const applied = await objects.patch(service, undefined, undefined, 'any', true, k8s.PatchStrategy.ServerSideApply);
    assert.ok(applied.metadata.managedFields.some((m) => m.manager === 'any' && m.operation === 'Apply'));
    const current = await objects.read(service);
    current.spec.ports[0].port = 81;
    assert.equal((await objects.replace(current)).spec.ports[0].port, 81);
    const listed = await objects.list('apps/v1', 'Deployment', namespace, undefined, undefined, undefined, undefined, 'part=any');
    assert.deepEqual([listed.kind, listed.items.map((item) => item.metadata.name)], ['DeploymentList', ['any']]);
    await refused(409, 'AlreadyExists', () => objects.create(service));
    await objects.delete(deployment, undefined, undefined, undefined, undefined, 'Foreground');
    await until('it is gone', async () => !(await apps.listNamespacedDeployment({ namespace, labelSelector: 'part=any' })).items.length);
    assert.equal((await core.listNamespacedPod({ namespace, labelSelector: 'app=any' })).items.length, 0);
    assert.ok(await objects.delete(service));
});

part('lists come in pages of one state', async () => {
    for (let n = 0; n < 12; n += 1) {
        await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: `page-${10 + n}`, labels: { part: 'pages' } } } });
    }
    const [names, versions] = [[], new Set()];
    let _continue;
    do {
        const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'part=pages', limit: 5, _continue });
        names.push(...page.items.map((item) => item.metadata.name));
        versions.add(page.metadata.resourceVersion);
        _continue = page.metadata._continue;
        await core.createNamespacedConfigMap({ namespace, body: { metadata: { generateName: 'page-9', labels: { part: 'pages' } } } });
    } while (_continue);
    assert.deepEqual(names, Array.from({ length: 12 }, (_, n) => `page-${10 + n}`));
    assert.equal(versions.size, 1);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'part=pages' });
});

part('what is refused tells why', async () => {
    const body = { metadata: { name: 'wrong' }, spec: { containers: [{ name: 'No_Such', image: '' }] } };
    const invalid = await refused(422, 'Invalid', () => core.createNamespacedPod({ namespace, body }));
    assert.deepEqual(invalid.details.causes.map((cause) => cause.field).sort(), ['spec.containers[0].image', 'spec.containers[0].name']);
    const dry = await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'dry' } }, dryRun: 'All' });
    assert.ok(dry.metadata.uid);
    await refused(404, 'NotFound', () => core.readNamespacedConfigMap({ namespace, name: 'dry' }));
    const asJane = new k8s.KubeConfig();
    asJane.loadFromString(config.exportConfig());
    asJane.getCurrentUser().impersonateUser = 'jane';
    const forbidden = await refused(403, 'Forbidden', () => asJane.makeApiClient(k8s.CoreV1Api).listNamespacedSecret({ namespace }));
    assert.match(forbidden.message, /^secrets is forbidden: User "jane" cannot list resource "secrets"/);
    const version = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.deepEqual([version.major, version.minor], ['1', '36']);
});
