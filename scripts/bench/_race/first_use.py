"""What the first use of a library takes: with an empty cache on disk, and with what that has left there."""

import os
import statistics
import tempfile
from contextlib import contextmanager

from _contestants import REFERENCE

from _race.rounds import Race, summary, tell

COLD, CACHED = "cold", "cached"
COMPILING = {
    REFERENCE: (),
    "gpunet, numba": (COLD, CACHED),
    "gpunet, JAX": (),
    "JAX, scan": (),
    "torch.compile": (COLD, CACHED),
}
"""Contestants and the states of their caches; those without any on disk compile in each process. gpunet's NumPy, which
doesn't compile, is what to compare them with."""
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


def first_use(names, pace, workload):
    """Return what the first fit of a process takes, each time in a new one.

    Parameters
    ----------
    names : list of str
        Of contestants; those that compile nothing are left out.
    pace : Pace
    workload : Workload
    """
    title = f"first use, {workload.name} {workload.dtype}"
    compiling = [name for name in names if name in COMPILING]
    found, absent = {}, {}
    for number in range(pace.rounds):
        tell(f"{title}: round {number + 1} of {pace.rounds}", end="")
        for name in reversed(compiling) if number % 2 else compiling:
            with tempfile.TemporaryDirectory() as folder, _set(dict.fromkeys(CACHES, folder)):
                for state in COMPILING[name] or ("",):
                    with Race([name], pace) as alone:
                        alone.prepare(workload)
                        answer = alone.once("first_use").get(name)
                    absent |= alone.absent
                    if answer is not None:
                        found.setdefault(", ".join(filter(None, (name, state))), []).append(answer)
    tell("", end="")
    found = {row: answers for row, answers in found.items() if len(answers) == pace.rounds}
    rows = summary({row: [each["first"] for each in found[row]] for row in found}, REFERENCE)
    for name, row in rows.items():
        row["compiling"] = statistics.median(each["first"] - each["again"] for each in found[name])
        row |= {
            key: statistics.median(each[key] for each in found[name]) for key in ("again", "load")
        }
    return {"title": title, "workload": vars(workload), "rows": rows, "absent": absent}


@contextmanager
def _set(variables):
    """Let processes that are started meanwhile find these in their environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
