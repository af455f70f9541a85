"""What is trained on a GPU: networks alone, stacks of them, and searches; and how a result is checked."""

import dataclasses

import numpy as np
from _contestants.workloads import WORKLOADS, Workload, loss

SMALL = Workload("small", n=3_000, d=10, hidden=(16,), classes=3, batch=32)
WIDE = Workload("4x8192", n=4_096, d=1_024, hidden=(8_192,) * 4, classes=10, batch=1_024, rate=1e-5)
"""Its rate is that of a wide network: with 1e-3, sums in another order make another network within some steps."""
SINGLE = {name: WORKLOADS[name] for name in ("W1", "W2", "W3")} | {"4x8192": WIDE, "small": SMALL}
STACKS = {"1000 of W1": 1_000, "72 of W1": 72, "1000 of small": 1_000}
SEARCHES = {"search of 72": None, "search of 3000": 1_000}
"""The search A of scripts/bench/search, 24 candidates on 3 folds, and among so many drawn at random."""
NAMES = [
    "W1", "W2", "1000 of W1", "W3", "4x8192", "72 of W1", "search of 72", "search of 3000", "small", "1000 of small"
]  # fmt: skip
"""All, what matters most first: a process that is ended early has measured that."""
TINY = {"n": 700, "d": 10}
"""What a dry run makes of every workload, beside hidden layers of 16 units."""
CHECKED = 128
"""Examples whose loss is compared: a network of 4x8192 takes a processor long to ask."""


def workload_of(name, *, dry):
    """Return a workload, and how many networks train on it; None for one."""
    networks = STACKS.get(name)
    workload = SINGLE[name.rpartition(" of ")[2]]
    if dry:
        hidden = (16,) * len(workload.hidden)
        batch = min(200, workload.batch)
        workload = dataclasses.replace(workload, **TINY, hidden=hidden, batch=batch)
        networks = networks and 3
    return workload, networks


def search_of(name, *, dry):
    """Return a search, a workload of scripts/bench/search."""
    from _search import workloads

    search, count = workloads.WORKLOADS["A"], SEARCHES[name]
    if dry:
        search = dataclasses.replace(search, n=600, hidden=(8,), epochs=2)
        count = count and 4
    # which would be one network more
    search = dataclasses.replace(search, refit=False)
    return search.drawing(count) if count else search


def learning_rates(workload, networks):
    """Return those of a stack's networks; the first has the workload's."""
    return workload.rate * np.linspace(1.0, 2.0, networks)


def checked(workload, parameters):
    """Return the loss of a network on examples of its classes, the same for everyone and by one formula."""
    return loss(dataclasses.replace(workload, n=CHECKED), parameters)


def bytes_of(workload, networks):
    """Return the bytes that a step moves besides its products' operands, if nothing of them stays on the chip.

    θ and the gradient are read and the optimizer's memory is updated (9 times the parameters); a hidden layer's z, a
    and δ are written and read ten times in all, the minibatch thrice.
    """
    parameters = sum((inputs + 1) * units for inputs, units in workload.layers)
    units = 10 * sum(workload.hidden) + 3 * workload.d
    return 4 * (networks or 1) * (9 * parameters + workload.batch * units)
