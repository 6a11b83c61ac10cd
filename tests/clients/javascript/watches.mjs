// Watches and informers; an informer whose connection is cut goes on where it was.
import assert from 'node:assert/strict';
import net from 'node:net';
import { config, core, k8s, namespace, part, until } from './support.mjs';

const path = `/api/v1/namespaces/${namespace}/configmaps`;
const make = (name, label) => core.createNamespacedConfigMap({ namespace, body: { metadata: { name, labels: { part: label } }, data: { a: 'b' } } });
const touch = (name, data) =>
    core.patchNamespacedConfigMap({ namespace, name, body: { data } }, k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch));

/** All events of a watch until it ends by itself. */
function watched(query) {
    const seen = [];
    return new Promise((resolve, reject) => {
        const done = (error) => (error ? reject(error) : resolve(seen));
        new k8s.Watch(config).watch(path, query, (type, object) => seen.push([type, object]), done);
    });
}

part('a watch tells every change in order, a bookmark, and ends', async () => {
    const { resourceVersion } = (await core.listNamespacedConfigMap({ namespace })).metadata;
    await make('seen', 'watched');
    await touch('seen', { a: 'c' });
    await core.deleteNamespacedConfigMap({ namespace, name: 'seen' });
    const seen = await watched({ resourceVersion, labelSelector: 'part=watched', allowWatchBookmarks: true, timeoutSeconds: 4 });
    const changes = seen.filter(([type]) => type !== 'BOOKMARK').map(([type, object]) => [type, object.metadata.name, object.data.a]);
    assert.deepEqual(changes, [['ADDED', 'seen', 'b'], ['MODIFIED', 'seen', 'c'], ['DELETED', 'seen', 'c']]);
    assert.equal(seen.at(-1)[0], 'BOOKMARK');
});

part('a list is streamed', async () => {
    await make('streamed', 'streamed');
    const query = { labelSelector: 'part=streamed', sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan', allowWatchBookmarks: true, timeoutSeconds: 1 };
    const seen = await watched(query);
    assert.deepEqual(seen.slice(0, 2).map(([type, object]) => [type, object.metadata.name, object.metadata.annotations]), [
        ['ADDED', 'streamed', undefined],
        ['BOOKMARK', undefined, { 'k8s.io/initial-events-end': 'true' }],
    ]);
    await core.deleteNamespacedConfigMap({ namespace, name: 'streamed' });
});

/** A way to the server that can be cut. */
async function cuttable() {
    const server = new URL(config.getCurrentCluster().server);
    const sockets = new Set();
    const listener = net.createServer((near) => {
        const far = net.connect(Number(server.port), server.hostname);
        for (const [one, other] of [[near, far], [far, near]]) {
            sockets.add(one);
            one.pipe(other);
            one.on('error', () => other.destroy());
            one.on('close', () => (sockets.delete(one), other.destroy()));
        }
    });
    await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
    const through = new k8s.KubeConfig();
    const text = config.exportConfig();
    through.loadFromString(text.replaceAll(config.getCurrentCluster().server, `https://127.0.0.1:${listener.address().port}`));
    return { through, close: () => listener.close(), cut: () => sockets.forEach((socket) => socket.destroy()) };
}

part('an informer survives the loss of its connection', async () => {
    const way = await cuttable();
    const reader = way.through.makeApiClient(k8s.CoreV1Api);
    const [told, errors] = [[], []];
    let lists = 0;
    const list = () => ((lists += 1), reader.listNamespacedConfigMap({ namespace, labelSelector: 'part=informed' }));
    const informer = k8s.makeInformer(way.through, path, list, 'part=informed');
    for (const event of ['add', 'update', 'delete']) informer.on(event, (object) => told.push(`${event} ${object.metadata.name}`));
    informer.on('error', (error) => {
        errors.push(error);
        setTimeout(() => informer.start(), 100);
    });
    await make('early', 'informed');
    await informer.start();
    await make('late', 'informed');
    await touch('early', { a: 'c' });
    await until('all is told', () => told.length === 3);
    assert.deepEqual(told, ['add early', 'add late', 'update early']);
    const known = informer.latestResourceVersion?.();
    way.cut();
    await make('meanwhile', 'informed');
    await core.deleteNamespacedConfigMap({ namespace, name: 'late' });
    await until('what happened meanwhile is told', () => told.length === 5);
    assert.deepEqual(told.slice(3), ['add meanwhile', 'delete late']);
    assert.ok(lists === 1 || errors.length > 0, 'it listed again without an error');
    assert.notEqual(informer.latestResourceVersion?.() ?? 'unknown', known);
    assert.deepEqual(informer.list(namespace).map((object) => object.metadata.name).sort(), ['early', 'meanwhile']);
    assert.equal(informer.get('early', namespace).data.a, 'c');
    await informer.stop();
    way.close();
    way.cut();
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'part=informed' });
});
