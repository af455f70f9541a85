"""CUDA graphs beside single launches: the same numbers, how many kernels a step has, and what a step takes."""

import os
import re
import sys
import time

import numpy as np

from _gpu.ours import Gpunet
from _gpu.workloads import workload_of

AGREE = 1e-3
"""How far parameters may lie apart: float32, sums in other orders (cuBLAS may choose otherwise under capture), three
epochs."""
GRAPHS = {"GPUNET_ON_CHIP": "0", "GPUNET_GRAPHS": "1"}
LAUNCHES = {"GPUNET_ON_CHIP": "0", "GPUNET_GRAPHS": "0"}
SINGLE, SEVERAL = sys.maxsize, 0
"""After how many steps a graph of several is made: never, at once."""


def apart(theta, expected):
    """Return the length of parameters' difference, relative to theirs.

    Not the largest: Adam takes a whole step by a gradient that is nothing but rounding.
    """
    return np.linalg.norm(theta - expected) / np.linalg.norm(expected)


def counted(dot):
    """Return how many nodes a graph has, and how many of them are kernels, from CUDA's drawing of it."""
    return len(set(re.findall(r"graph_\d+_node_\d+", dot))), dot.count('shape="octagon"')


def trained(name, switches, *, dry, patience=None):
    """Train three epochs on a workload; return the run and a step's microseconds."""
    from gpunet.backends.cupy import graphs

    before, usual = dict(os.environ), graphs.PATIENCE
    os.environ.update(switches)
    graphs.PATIENCE = usual if patience is None else patience
    try:
        return _trained(name, dry=dry)
    finally:
        graphs.PATIENCE = usual
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
    """Return how large the graphs are that a run trains with: those of a step, those of several."""
    graphs = getattr(run.backend, "graphs", None)
    recordings = [] if graphs is None else [*graphs.recordings]
    found = [each.graph for each in recordings], [each._several for each in recordings]
    return [
        sorted(counted(graph.debug_dot_str()) for graph in kind if graph is not None)
        for kind in found
    ]


def words_on(sizes, kind):
    """Return words on graphs' sizes."""
    return [f"{kernels} kernels in {nodes} nodes{kind}" for nodes, kernels in sizes]


def compare(names, *, dry):
    """Print a line for each workload; return whether all agree and there were graphs, of several steps as well."""
    agree, together = True, dry
    for name in names:
        run, launched = trained(name, LAUNCHES, dry=dry)
        expected, none = parameters(run), sizes_of(run)
        del run
        run, with_graphs = trained(name, GRAPHS, dry=dry, patience=SINGLE)
        differences, (steps, _) = [apart(parameters(run), expected)], sizes_of(run)
        del run
        run, at_once = trained(name, GRAPHS, dry=dry, patience=SEVERAL)
        differences.append(apart(parameters(run), expected))
        several = sizes_of(run)[1]
        del run
        # not max, for which what is no number may be less
        agree = agree and all(each <= AGREE for each in differences)
        agree = agree and (dry or (steps != [] and none == [[], []]))
        together = together or several != []
        parts = ", ".join([*words_on(steps, ""), *words_on(several, " (several steps)")])
        print(
            f"{name}: {parts or 'no graphs'}; {with_graphs:.1f} microseconds a step, {at_once:.1f} by several, "
            f"launched {launched:.1f}; parameters lie {differences[0]:.1e} and {differences[1]:.1e} apart"
        )
    if not together:
        print("No graph of several steps was made.")
    return agree and together
