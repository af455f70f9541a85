"""CUDA graphs beside single launches: the same numbers, how many kernels a step has, and what a step takes."""

import os
import re
import time

import numpy as np

from _gpu.contestants import Gpunet, workload_of

AGREE = 1e-6
"""How far parameters may lie apart, relative to the largest: cuBLAS may choose otherwise under capture."""
VARIABLE = "GPUNET_GRAPHS"


def counted(dot):
    """Return how many nodes a graph has, and how many of them are kernels, from CUDA's drawing of it."""
    return len(set(re.findall(r"graph_\d+_node_\d+", dot))), dot.count('shape="octagon"')


def trained(name, switch, *, dry):
    """Train three epochs on a workload; return parameters, a step's microseconds and the graphs' sizes."""
    os.environ[VARIABLE] = switch
    workload, networks = workload_of(name, dry=dry)
    run = Gpunet(workload, networks, "cpu" if dry else "cuda")
    run.begin()
    run.train(2)
    start = time.perf_counter()
    run.train(1)
    microseconds = (time.perf_counter() - start) / workload.steps * 1e6
    graphs = getattr(run.backend, "graphs", None)
    recordings = [] if graphs is None else [each.graph for each in graphs.recordings]
    sizes = sorted(counted(graph.debug_dot_str()) for graph in recordings if graph is not None)
    return run.backend.to_host(run.trained.theta), microseconds, sizes


def compare(names, *, dry):
    """Print a line for each workload; return whether all agree."""
    before, agree = os.environ.get(VARIABLE), True
    for name in names:
        theta, with_graphs, sizes = trained(name, "1", dry=dry)
        expected, launched, none = trained(name, "0", dry=dry)
        difference = np.max(np.abs(theta - expected)) / np.max(np.abs(expected))
        agree = agree and difference <= AGREE and (dry or (sizes != [] and none == []))
        parts = ", ".join(f"{kernels} kernels in {nodes} nodes" for nodes, kernels in sizes)
        print(
            f"{name}: {parts or 'no graphs'}; {with_graphs:.1f} microseconds a step, launched {launched:.1f}; "
            f"parameters lie {difference:.1e} apart"
        )
    if before is None:
        del os.environ[VARIABLE]
    return agree
