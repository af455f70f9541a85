"""One contestant's process: what it takes, workload by workload, a line of JSON for each as soon as it is known."""

import gc
import json
import statistics
import time

from _gpu.contestants import CEILINGS, CONTESTANTS, AbsentError, found
from _gpu.workloads import SEARCHES, checked, search_of, workload_of

WARM_STEPS, WARM_SECONDS = 600, 0.5
"""Training before the clock counts: so many steps, or so long. gpunet's graph of several steps comes after 500."""
TRIAL, TRIALS = 0.15, 5
"""The seconds of a trial at least, and how many there are."""


def measure(contestant, name, *, dry):
    """Return what one contestant takes on one workload, in this process."""
    device = "cpu" if dry else "cuda"
    if name == CEILINGS:
        from _gpu.ceilings import ceilings

        return ceilings(dry=dry)
    there = found(CONTESTANTS[contestant].place(name))
    if name in SEARCHES:
        return searched(there, search_of(name, dry=dry), device)
    return trained(there, *workload_of(name, dry=dry), device, dry=dry)


def trained(kind, workload, networks, device, *, dry):
    """Return what training takes: the median of some trials, after some that warm up."""
    start = time.perf_counter()
    run = kind(workload, networks, device)
    run.begin()
    run.train(1)
    answer = {"first_epoch_seconds": time.perf_counter() - start, "networks": networks or 1}
    if hasattr(run, "parameters"):
        answer["loss"] = checked(workload, run.parameters())
        if networks is not None:
            answer["last_loss"] = checked(workload, run.parameters(networks - 1))
    steps, once = 0, 0.0
    start = time.perf_counter()
    while steps < (2 if dry else WARM_STEPS) and time.perf_counter() - start < WARM_SECONDS:
        began = time.perf_counter()
        run.train(1)
        steps, once = steps + workload.steps, time.perf_counter() - began
    epochs = 1 if dry else max(1, round(TRIAL / once))
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        run.train(epochs)
        times.append((time.perf_counter() - start) / epochs / workload.steps * 1e6)
    kernels = run.kernels() if hasattr(run, "kernels") else None
    return answer | spread(times) | ({"kernels": kernels} if kernels else {})


def searched(kind, search, device):
    """Return what a search takes, for each step that all of its networks take together."""
    call = kind(search, device)
    start = time.perf_counter()
    curves = call()
    first = time.perf_counter() - start
    steps = search.epochs * -(-(search.n - search.n // search.folds) // search.batch)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) / steps * 1e6)
    return spread(times) | {
        "first_epoch_seconds": first,
        "networks": search.networks,
        "seconds": statistics.median(times) * steps / 1e6,
        "loss": float(curves[0, 0, 0]),
        "last_loss": float(curves[-1, -1, 0]),
    }


def spread(times):
    """Return the median of times, and the extremes."""
    return {
        "microseconds": statistics.median(times),
        "fastest": min(times),
        "slowest": max(times),
    }


def answer(contestant, names, *, dry):
    """Print what this contestant takes, a line for each workload, up to the first that fails.

    After an error a GPU may refuse everything in this process; the workloads that are left get another one.
    """
    for name in names:
        try:
            told = measure(contestant, name, dry=dry)
        except AbsentError as error:
            told = {"problem": str(error)[:200], "absent": True}
        except Exception as error:
            words = str(error).strip().partition("\n")[0]
            told = {"problem": f"{type(error).__name__}: {words}"[:200]}
        print(json.dumps([name, told]), flush=True)
        gc.collect()  # so that nothing of it is left on the device, or counted with the next
        if "problem" in told:
            return
