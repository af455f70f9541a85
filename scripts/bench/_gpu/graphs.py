"""CUDA graphs beside single launches: the same numbers, how many kernels a step has, and what a step takes."""

import os
import re
import time

import numpy as np

from _gpu.contestants import Gpunet, workload_of

AGREE = 1e-6
"""How far parameters may lie apart, relative to the largest: cuBLAS may choose otherwise under capture."""
GRAPHS = {"GPUNET_ON_CHIP": "0", "GPUNET_GRAPHS": "1"}
LAUNCHES = {"GPUNET_ON_CHIP": "0", "GPUNET_GRAPHS": "0"}


def counted(dot):
    """Return how many nodes a graph has, and how many of them are kernels, from CUDA's drawing of it."""
    return len(set(re.findall(r"graph_\d+_node_\d+", dot))), dot.count('shape="octagon"')


def trained(name, switches, *, dry):
    """Train three epochs on a workload; return the run and a step's microseconds."""
    before = dict(os.environ)
    os.environ.update(switches)
    try:
        return _trained(name, dry=dry)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _trained(name, *, dry):
    workload, networks = workload_of(name, dry=dry)
    run = Gpunet(workload, networks, "cpu" if dry else "cuda")
    run.begin()
    run.train(2)
    start = time.perf_counter()
    run.train(1)
    microseconds = (time.perf_counter() - start) / workload.steps * 1e6
    return run, microseconds


def parameters(run):
    """Return all parameters of a run, on the host."""
    return run.backend.to_host(run.trained.theta)


def sizes_of(run):
    """Return how large the graphs are that a run trains with."""
    graphs = getattr(run.backend, "graphs", None)
    recordings = [] if graphs is None else [each.graph for each in graphs.recordings]
    return sorted(counted(graph.debug_dot_str()) for graph in recordings if graph is not None)


def compare(names, *, dry):
    """Print a line for each workload; return whether all agree."""
    agree = True
    for name in names:
        run, with_graphs = trained(name, GRAPHS, dry=dry)
        theta, sizes = parameters(run), sizes_of(run)
        del run
        run, launched = trained(name, LAUNCHES, dry=dry)
        expected, none = parameters(run), sizes_of(run)
        del run
        difference = np.max(np.abs(theta - expected)) / np.max(np.abs(expected))
        agree = agree and difference <= AGREE and (dry or (sizes != [] and none == []))
        parts = ", ".join(f"{kernels} kernels in {nodes} nodes" for nodes, kernels in sizes)
        print(
            f"{name}: {parts or 'no graphs'}; {with_graphs:.1f} microseconds a step, launched {launched:.1f}; "
            f"parameters lie {difference:.1e} apart"
        )
    return agree
