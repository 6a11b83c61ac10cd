// The four patches, scale, eviction, and the budget that holds it up.
import assert from 'node:assert/strict';
import { apps, config, core, k8s, namespace, part, refused, until } from './support.mjs';

const name = 'changed';
const as = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);

function deployment(spec = {}) {
    const containers = [{ name: 'main', image: 'busybox', command: ['sleep', '3600'] }];
    const template = { metadata: { labels: { app: name } }, spec: { terminationGracePeriodSeconds: 0, containers } };
    return { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name }, spec: { replicas: 0, selector: { matchLabels: { app: name } }, template, ...spec } };
}

part('an object is patched four ways', async () => {
    await apps.createNamespacedDeployment({ namespace, body: deployment() });
    const patch = (strategy, body, more = {}) => apps.patchNamespacedDeployment({ namespace, name, body, ...more }, as(strategy));
    const containers = (got) => got.spec.template.spec.containers.map((c) => c.name);
    let got = await patch(k8s.PatchStrategy.StrategicMergePatch, { spec: { template: { spec: { containers: [{ name: 'side', image: 'busybox' }] } } } });
    assert.deepEqual(containers(got), ['side', 'main']);
    got = await patch(k8s.PatchStrategy.JsonPatch, [
        { op: 'test', path: '/spec/template/spec/containers/0/name', value: 'side' },
        { op: 'remove', path: '/spec/template/spec/containers/0' },
    ]);
    assert.deepEqual(containers(got), ['main']);
    got = await patch(k8s.PatchStrategy.MergePatch, { spec: { minReadySeconds: 3, template: { spec: { containers: [{ name: 'only', image: 'busybox' }] } } } });
    assert.deepEqual([containers(got), got.spec.minReadySeconds], [['only'], 3]);
    const conflict = await refused(409, 'Conflict', () =>
        patch(k8s.PatchStrategy.ServerSideApply, deployment({ minReadySeconds: 5 }), { fieldManager: 'applier' }));
    assert.match(conflict.message, /conflicts? with "[^"]+" using apps\/v1/);
    assert.ok(conflict.details.causes.some((cause) => cause.field === '.spec.minReadySeconds'));
    got = await patch(k8s.PatchStrategy.ServerSideApply, deployment({ minReadySeconds: 5 }), { fieldManager: 'applier', force: true });
    assert.deepEqual([containers(got).sort(), got.spec.minReadySeconds], [['main', 'only'], 5]);
    await refused(415, 'UnsupportedMediaType', () => patch('text/plain', {}));
    await apps.deleteNamespacedDeployment({ namespace, name });
});

part('a deployment is scaled and a pod evicted when its budget allows it', async () => {
    const labelSelector = `app=${name}`;
    await apps.createNamespacedDeployment({ namespace, body: deployment({ replicas: 1 }) });
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name });
    scale.spec.replicas = 2;
    await until('the scale is replaced', async () => {
        try {
            const fresh = await apps.readNamespacedDeploymentScale({ namespace, name });
            fresh.spec.replicas = 2;
            return await apps.replaceNamespacedDeploymentScale({ namespace, name, body: fresh });
        } catch (error) {
            assert.equal(error.code, 409, error.stack);
        }
    });
    await until('both run', async () => (await apps.readNamespacedDeploymentStatus({ namespace, name })).status.readyReplicas === 2);
    const policy = config.makeApiClient(k8s.PolicyV1Api);
    await policy.createNamespacedPodDisruptionBudget({ namespace, body: { metadata: { name }, spec: { minAvailable: 2, selector: { matchLabels: { app: name } } } } });
    await until('the budget is counted', async () => (await policy.readNamespacedPodDisruptionBudget({ namespace, name })).status?.currentHealthy === 2);
    const pod = (await core.listNamespacedPod({ namespace, labelSelector })).items[0].metadata.name;
    const evict = () => core.createNamespacedPodEviction({ namespace, name: pod, body: { metadata: { name: pod, namespace } } });
    const kept = await refused(429, 'TooManyRequests', evict);
    assert.equal(kept.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    await policy.patchNamespacedPodDisruptionBudget({ namespace, name, body: { spec: { minAvailable: 1 } } }, as(k8s.PatchStrategy.MergePatch));
    await until('it is evicted', () => evict().catch((error) => assert.equal(error.code, 429, error.stack)));
    await until('another replaces it', async () => {
        const pods = (await core.listNamespacedPod({ namespace, labelSelector })).items;
        return !pods.some((p) => p.metadata.name === pod) && pods.length === 2;
    });
    await apps.deleteNamespacedDeployment({ namespace, name });
    await policy.deleteNamespacedPodDisruptionBudget({ namespace, name });
});
