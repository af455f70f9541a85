"""What `GPUNET_PRODUCTS` does: accuracy on held-out digits, and what a step of a large network takes."""

import os
import time
import warnings

import numpy as np

from _gpu.contestants import Gpunet, workload_of

VARIABLE = "GPUNET_PRODUCTS"
NAMES = ("float32", "tf32", "bfloat16", "float16")
POINTS = 0.5
"""How far accuracies may lie from float32's, in percent: docs/gpu.md."""


def accuracy(*, dry):
    """Return the mean accuracy on held-out digits, in percent."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from gpunet import MLPClassifier

    X, y = load_digits(return_X_y=True)
    X = (X / 16.0).astype("float32")
    X, held_X, y, held_y = train_test_split(X, y, train_size=1078, random_state=0, stratify=y)
    scores = []
    for seed in range(2 if dry else 8):
        network = MLPClassifier(
            (100, 50), max_iter=2 if dry else 40, random_state=seed, backend="numpy" if dry else "cupy"
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there could be more epochs
            scores.append(network.fit(X, y).score(held_X, held_y))
    return 100.0 * np.mean(scores)


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
    """Print a line for each precision; return whether all learn digits as float32 does."""
    before, agree, points = os.environ.get(VARIABLE), True, {}
    for name in NAMES:
        os.environ[VARIABLE] = name
        points[name], (step, finite) = accuracy(dry=dry), microseconds(dry=dry)
        agree = agree and finite and abs(points[name] - points["float32"]) <= POINTS
        print(f"{name}: {points[name]:.1f} % of held-out digits; W3 {step:.1f} microseconds a step")
    if before is None:
        del os.environ[VARIABLE]
    else:
        os.environ[VARIABLE] = before
    return agree
