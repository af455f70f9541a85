"""What `GPUNET_PRODUCTS` does: accuracy on held-out examples, and what a step of a large network takes."""

import contextlib
import os
import time
import warnings

import numpy as np

from _gpu.held_out import SETS, split
from _gpu.ours import Gpunet
from _gpu.workloads import workload_of

VARIABLE = "GPUNET_PRODUCTS"
NAMES = ("float32", "tf32", "bfloat16", "float16")
POINTS = 0.5
"""How far accuracies may lie from float32's, in percent: docs/gpu.md."""
SEEDS = {"digits": 8, "overlapping classes": 16}
"""How many networks' mean that is: on the hard set they lie half a point apart by themselves."""


@contextlib.contextmanager
def rounded():
    """Let cuBLAS multiply small layers too: gpunet's own kernels, which do that otherwise, don't round."""
    from gpunet.backends.cupy import layers

    switches = {"GPUNET_ON_CHIP": "0"}
    before, usual = {name: os.environ.get(name) for name in (*switches, VARIABLE)}, layers.SMALL
    os.environ.update(switches)
    layers.SMALL = 0
    try:
        yield
    finally:
        layers.SMALL = usual
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def accuracies(name, *, dry):
    """Return each seed's accuracy on a set's held-out examples, in percent."""
    from gpunet import MLPClassifier

    X, y, n = SETS[name]()
    X, held_X, y, held_y = split((X[: 2 * n // 10], y[: 2 * n // 10], n // 10) if dry else (X, y, n))  # fmt: skip
    scores = []
    for seed in range(2 if dry else SEEDS[name]):
        network = MLPClassifier(
            (100, 50), max_iter=2 if dry else 40, random_state=seed, backend="numpy" if dry else "cupy"
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there could be more epochs
            scores.append(100.0 * network.fit(X, y).score(held_X, held_y))
    return scores


def microseconds(*, dry):
    """Return what a step of W3 takes, and whether its parameters are finite."""
    workload, networks = workload_of("W3", dry=dry)
    run = Gpunet(workload, networks, "cpu" if dry else "cuda")
    run.begin()
    run.train(2)
    start = time.perf_counter()
    run.train(1)
    step = (time.perf_counter() - start) / workload.steps * 1e6
    return step, bool(np.isfinite(run.backend.to_host(run.trained.theta)).all())


def compare(*, dry):
    """Print a line for each precision; return whether all learn both sets as float32 does."""
    agree, points = True, {}
    with rounded():
        for name in NAMES:
            os.environ[VARIABLE] = name
            found = {each: accuracies(each, dry=dry) for each in SETS}
            points[name] = {each: float(np.mean(scores)) for each, scores in found.items()}
            step, finite = microseconds(dry=dry)
            apart = [abs(points[name][each] - points["float32"][each]) for each in SETS]
            agree = agree and finite and all(far <= POINTS for far in apart)
            told = ", ".join(
                f"{points[name][each]:.1f} % ({np.std(scores):.1f}) of {each}"
                for each, scores in found.items()
            )
            print(f"{name}: {told}; W3 {step:.1f} microseconds a step", flush=True)
    return agree
