// What the parts share: the package, clients, patience, expectations of errors, and the list of the parts.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(process.env.NODE_MODULES + '/');
// The package is a module; `import` looks for it beside this file only.
export const k8s = await import(require.resolve('@kubernetes/client-node'));

export const config = new k8s.KubeConfig();
config.loadFromDefault();
export const core = config.makeApiClient(k8s.CoreV1Api);
export const apps = config.makeApiClient(k8s.AppsV1Api);
export const batch = config.makeApiClient(k8s.BatchV1Api);
export const namespace = 'default';

const PATIENCE = 120_000;
const parts = new Map();

export function part(name, run) {
    parts.set(name, run);
}

export async function runAll(only) {
    let failed = 0;
    for (const [name, run] of parts) {
        if (only.length && !only.includes(name)) continue;
        const begun = Date.now();
        try {
            await run();
            console.log(`ok ${name} ${(Date.now() - begun) / 1000} s`);
        } catch (error) {
            failed += 1;
            console.log(`FAILED ${name}\n${error.stack}`);
        }
    }
    return failed;
}

/** Waits until look() gives something true; gives that. */
export async function until(what, look) {
    const deadline = Date.now() + PATIENCE;
    for (;;) {
        const found = await look();
        if (found) return found;
        if (Date.now() > deadline) throw new Error(`still not so: ${what}`);
        await sleep(100);
    }
}

/** The Status of a call that must be refused. */
export async function refused(code, reason, call) {
    let answer;
    try {
        answer = await call();
    } catch (error) {
        const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        assert.deepEqual([error.code, body?.code, body?.reason], [code, code, reason], error.stack);
        return body;
    }
    throw new Error(`was not refused: ${JSON.stringify(answer)}`);
}
