"""What is measured: training, predictions, a fit of next to nothing, imports."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from _contestants import OTHERWISE, PRODUCTS, REFERENCE, TRUTH
from _contestants.workloads import FIXED

from _race.rounds import Race, summary

PREDICTED = (1, 1_000, 100_000)
"""Rows of a prediction."""

HERE = Path(__file__).parents[1]
BARE = "Python itself"
IMPORTS = {
    BARE: "pass",
    "gpunet": "from gpunet import MLPClassifier",
    "scikit-learn": "from sklearn.neural_network import MLPClassifier",
    "torch": "import torch",
    "JAX": "import jax.numpy",
    "skorch": "import skorch",
    "thinc": "import thinc.api",
}
ENDING = f"; import sys; sys.path.insert(0, {str(HERE)!r}); from _race.memory import peak_memory; print(peak_memory())"


def training(race, workload):
    """Return how contestants train a workload."""
    race.prepare(workload)
    checks = race.once("check")
    title = f"{workload.name} {workload.dtype}"
    trials, others = race.rounds(title, "train", race.pace.seconds)
    us = {name: [trial["us"] for trial in each] for name, each in trials.items()}
    rows, by_products = summary(us, REFERENCE), summary(us, PRODUCTS)
    truth = checks.get(TRUTH, checks.get(REFERENCE, {"losses": [None]}))["losses"]
    rounding = None
    if TRUTH in checks and workload.dtype != "float64":
        rounding = deviations(truth, in_double(race, workload))
    for name, row in rows.items():
        check = checks[name]
        row["of the products"] = 1 / by_products[name]["ratio"] if PRODUCTS in us else None
        row |= {
            key: statistics.median(trial[key] for trial in trials[name])
            for key in ("faults", "fixed")
        }
        row |= {key: check[key] for key in ("first", "ready", "memory", "losses")}
        row["deviations"] = deviations(check["losses"], truth) if name not in OTHERWISE else None
    return {
        "title": title,
        "workload": vars(workload),
        "rows": rows,
        "absent": dict(race.absent),
        "rounding": rounding,
        "others": others,
        "libraries": race.once("libraries"),
    }


def in_double(race, workload):
    """Return scikit-learn's losses in double precision: how far rounding alone takes a run is known then."""
    with Race([TRUTH], race.pace) as alone:
        alone.prepare(workload.of("float64"))
        return alone.once("check")[TRUTH]["losses"]


def deviations(losses, truth):
    """Return by what share of it each loss differs from the true one; None where they aren't known."""
    if None in losses or None in truth:
        return None
    return [abs(a / b - 1) for a, b in zip(losses, truth, strict=True)]


def prediction(race, rows, dtype):
    """Return how long a prediction takes with what has just been trained."""
    return _calls(race, f"predict, {rows:,} row{'s' * (rows > 1)}, {dtype}", "predict", rows)


def fixed_cost(race, dtype):
    """Return how long a fit of one epoch on ten rows takes: validation, initial parameters, and the like."""
    race.prepare(FIXED.of(dtype))
    return _calls(race, f"fit, {FIXED.n} rows, 1 epoch, {dtype}", "fit")


def _calls(race, title, *question):
    """Return the microseconds of a call."""
    trials, others = race.rounds(title, *question, race.pace.seconds)
    rows, absent = summary(trials, REFERENCE), dict(race.absent)
    return {"title": title, "rows": rows, "absent": absent, "others": others}


def imports(pace):
    """Return the milliseconds and megabytes that a new process with an import takes, and one without any."""
    trials, memory, absent = {}, {}, {}
    for number in range(pace.rounds):
        names = [name for name in IMPORTS if name not in absent]
        for name in reversed(names) if number % 2 else names:
            command = [sys.executable, "-c", IMPORTS[name] + ENDING]
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            spent = 1e3 * (time.perf_counter() - start)
            if done.returncode:
                absent[name] = done.stderr.strip().rpartition("\n")[2]
                continue
            trials.setdefault(name, []).append(spent)
            memory[name] = float(done.stdout)
    rows = summary(trials, "gpunet")
    for name, row in rows.items():
        row["memory"] = memory[name]
    return {"title": "import", "rows": rows, "absent": absent}
