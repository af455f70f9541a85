"""How an epoch's time grows with the examples, the width, the depth, the batch, the classes."""

import math
import statistics
from dataclasses import dataclass, replace
from itertools import pairwise

from _contestants.workloads import W1, Workload

from _race.rounds import Race

COMPARED = ["gpunet", "gpunet, numba", "scikit-learn", "torch", "JAX, scan"]
BASE = Workload("growth", n=4_096, d=64, hidden=(64,), classes=10, batch=256)


@dataclass(frozen=True)
class Ladder:
    """Workloads of growing size: ``at(size)``."""

    title: str
    about: str
    sizes: tuple
    at: object


def _powers(first, last):
    """Return powers of 2, every other one."""
    return tuple(2**k for k in range(first, last + 1, 2))


LADDERS = {
    ladder.title: ladder
    for ladder in (
        Ladder(
            "examples", "W1: d=50, hidden (100,), batch 200",
            (50, 100, 200, 500, 1_000, 5_000, 20_000, 100_000, 500_000, 1_000_000),
            lambda n: replace(W1, n=n, batch=min(n, 200)),
        ),
        Ladder(
            "width", "n=4,096, d=64, two hidden layers of this width, batch 256",
            _powers(0, 12),
            lambda units: replace(BASE, hidden=(units, units)),
        ),
        Ladder(
            "depth", "n=4,096, d=64, hidden layers of 64 units, batch 256",
            (1, 2, 4, 8, 16, 32, 64, 128),
            lambda layers: replace(BASE, hidden=(64,) * layers),
        ),
        Ladder(
            "batch", "n=4,096, d=64, hidden (64,)",
            _powers(0, 12),
            lambda m: replace(BASE, batch=m),
        ),
        Ladder(
            "classes", "n=16,384, d=64, hidden (64,), batch 256",
            (3, 10, 30, 100, 300, 1_000, 3_000, 10_000),
            lambda classes: replace(BASE, n=16_384, classes=classes),
        ),
    )
}  # fmt: skip


def climb(names, pace, ladder, *, longest, megabytes):
    """Return how contestants climb a ladder, as far as each can afford.

    Parameters
    ----------
    names : list of str
    pace : Pace
    ladder : Ladder
    longest : float
        Seconds that an epoch may take.
    megabytes : float
        What all contestants together may hold.
    """
    workloads = [ladder.at(size) for size in ladder.sizes]
    counts = [workload.operations for workload in workloads]
    curves = {name: {"sizes": [], "seconds": [], "memory": []} for name in names}
    ends, limit = {}, megabytes / len(names)
    with Race(names, pace) as race:
        for size, workload, more in zip(ladder.sizes, workloads, _ratios(counts), strict=True):
            race.prepare(workload)
            trials, _ = race.rounds(f"{ladder.title} {size:,}", "train", pace.seconds)
            memory = race.once("memory")
            for name, reason in race.absent.items():
                ends.setdefault(name, reason)
                race.dismiss(name)
            for name, answers in trials.items():
                us = statistics.median(answer["us"] for answer in answers)
                seconds, held = us * workload.steps / 1e6, memory[name]
                for key, value in (("sizes", size), ("seconds", seconds), ("memory", held)):
                    curves[name][key].append(value)
                if seconds * more > longest or expected(curves[name]["memory"], more) > limit:
                    ends[name] = (
                        f"ended at {size:,}, with {seconds:.2g} s an epoch and {held:.0f} MB"
                    )
                    race.dismiss(name)
    for curve in curves.values():
        curve["exponent"] = exponent(curve["sizes"], curve["seconds"])
    return {
        "title": ladder.title,
        "about": ladder.about,
        "sizes": ladder.sizes,
        "operations": counts,
        "exponent": exponent(ladder.sizes, counts),
        "curves": {name: curve for name, curve in curves.items() if curve["sizes"]},
        "absent": ends,
    }


def expected(memory, more):
    """Return what a process will hold on the next rung, in MB, if all but the first rung's memory grows ``more`` times.

    The first rung is small: what it holds is the interpreter and the libraries, which don't grow.
    """
    return memory[0] + (memory[-1] - memory[0]) * more


def _ratios(counts):
    """Return by what each count is followed; nothing follows the last."""
    return [*(max(1, after / before) for before, after in pairwise(counts)), 0]


def exponent(sizes, values):
    """Return p of values ~ sizesᵖ, fitted to the upper half of at least three; None for fewer."""
    half = len(sizes) // 2
    if len(sizes) - half < 2:
        return None
    logs = ([math.log(number) for number in numbers[half:]] for numbers in (sizes, values))
    return statistics.linear_regression(*logs).slope
