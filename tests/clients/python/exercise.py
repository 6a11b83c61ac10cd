"""Drives a cluster with the unmodified Python package `kubernetes`: what programs written with it rely on.

usage: exercise.py [PART...]      with KUBECONFIG set; the cluster must be able to run the image busybox
"""
import logging
import sys

from kubernetes import config
from support import run_all


def main():
    # An informer that is stopped reports its own closing as an error.
    logging.disable()
    config.load_kube_config()
    # Their clients take the configuration that is the default when they are made.
    import objects, changes, watches, streams, programs  # noqa: E401, F401

    return 1 if run_all(sys.argv[1:]) else 0


# Candidates for leader are processes that read this file again.
if __name__ == "__main__":
    sys.exit(main())
