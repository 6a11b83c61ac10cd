// Drives a cluster with the unmodified package `@kubernetes/client-node`: what programs written with it rely on.
//
// usage: exercise.mjs [PART...]      with KUBECONFIG set and NODE_MODULES naming the directory of the packages
import { runAll } from './support.mjs';
import './changes.mjs';
import './objects.mjs';
import './streams.mjs';
import './watches.mjs';

process.exit((await runAll(process.argv.slice(2))) ? 1 : 0);
