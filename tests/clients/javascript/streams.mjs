// Containers from the inside: exec, attach, port-forward and logs.
import assert from 'node:assert/strict';
import net from 'node:net';
import { PassThrough, Writable } from 'node:stream';
import { config, core, k8s, namespace, part, until } from './support.mjs';

const name = 'streams';
const TALKER = 'echo ready; while read line; do echo heard $line; done; echo over; sleep 3600';
const SERVER = 'mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www';

async function pod() {
    if (!(await core.listNamespacedPod({ namespace, labelSelector: 'part=streams' })).items.length) {
        const containers = [
            { name: 'talker', image: 'busybox', stdin: true, command: ['sh', '-c', TALKER] },
            { name: 'server', image: 'busybox', command: ['sh', '-c', SERVER] },
        ];
        const metadata = { name, labels: { part: 'streams' } };
        await core.createNamespacedPod({ namespace, body: { metadata, spec: { terminationGracePeriodSeconds: 0, containers } } });
    }
    await until('the pod is ready', async () => {
        const { conditions } = (await core.readNamespacedPod({ namespace, name })).status;
        return conditions?.some((c) => c.type === 'Ready' && c.status === 'True');
    });
}

class Collected extends Writable {
    text = '';
    _write(chunk, _encoding, done) {
        this.text += chunk;
        done();
    }
}

/** What a command prints, and the Status it ends with. */
async function run(command, stdin = null, tty = false) {
    const [out, err] = [new Collected(), new Collected()];
    const status = await new Promise((resolve, reject) =>
        new k8s.Exec(config).exec(namespace, name, 'server', command, out, tty ? null : err, stdin, tty, resolve).catch(reject));
    return { out: out.text, err: err.text, status };
}

part('commands are run in containers', async () => {
    await pod();
    const said = await run(['sh', '-c', 'echo out; echo err >&2']);
    assert.deepEqual([said.out, said.err, said.status.status], ['out\n', 'err\n', 'Success']);
    const failed = await run(['sh', '-c', 'exit 42']);
    assert.deepEqual([failed.status.status, failed.status.reason, failed.status.details.causes], [
        'Failure', 'NonZeroExitCode', [{ reason: 'ExitCode', message: '42' }]]);
    assert.equal(failed.status.message, 'command terminated with non-zero exit code: error executing command [sh -c exit 42], exit code 42');
    const stdin = new PassThrough();
    stdin.end('to upper case\n');
    assert.equal((await run(['tr', 'a-z', 'A-Z'], stdin)).out, 'TO UPPER CASE\n');
    assert.match((await run(['sh', '-c', 'test -t 1 && echo a terminal'], null, true)).out, /a terminal/);
    await assert.rejects(() => new k8s.Exec(config).exec(namespace, name, 'absent', ['true'], null, null, null, false), (error) => /400/.test(error.message));
});

part('a container is attached to, and its log followed', async () => {
    await pod();
    const [stdin, heard, log] = [new PassThrough(), new Collected(), new Collected()];
    const socket = await new k8s.Attach(config).attach(namespace, name, 'talker', heard, null, stdin, false);
    const follower = await new k8s.Log(config).log(namespace, name, 'talker', log, { follow: true });
    stdin.write('one\n');
    await until('one is heard', () => heard.text.includes('heard one'));
    stdin.write('two\n');
    await until('two is in the log', () => log.text.endsWith('heard two\n'));
    assert.equal(log.text, 'ready\nheard one\nheard two\n');
    socket.close();
    follower.abort();
    assert.equal(await core.readNamespacedPodLog({ namespace, name, container: 'talker', tailLines: 1 }), 'heard two\n');
});

part('ports are forwarded', async () => {
    await pod();
    const forward = new k8s.PortForward(config);
    const listener = net.createServer((socket) => forward.portForward(namespace, name, [8080], socket, null, socket));
    await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
    for (let n = 0; n < 3; n += 1) {
        const answer = await new Promise((resolve, reject) => {
            const socket = net.connect(listener.address().port, '127.0.0.1', () => socket.write('GET / HTTP/1.0\r\n\r\n'));
            let text = '';
            socket.on('data', (chunk) => {
                text += chunk;
                if (text.endsWith('served\n')) {
                    resolve(text);
                    socket.destroy();
                }
            });
            socket.on('error', reject);
        });
        assert.match(answer, / 200 OK/);
    }
    listener.close();
});
