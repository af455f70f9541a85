"""The course of the measurement: a process for each visit to a contestant, in rounds there and back."""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _search.contestants import ENSEMBLES, N_MEMBERS, PEERS, SEARCHES, AbsentError, present
from _search.workloads import CORES, Workload
from gpunet.backend import get_backend

# Users' shells have none of these; where they are set, a library runs other kernels or fewer threads than users' do.
UNSET = (
    "OPENBLAS_",
    "OMP_",
    "GOMP_",
    "MKL_",
    "BLIS_",
    "GOTO_",
    "NUMBA_",
    "XLA_",
    "JAX_",
    "GPUNET_",
)
SET = {"GPUNET_BACKEND": "numpy", "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
PACKAGES = ("gpunet", "numpy", "scipy", "scikit-learn", "joblib", "torch", "jax", "numba")

FOUR_DIGITS = 1e-4

Section = dict[str, Any]
"""What was measured of one workload, as JSON has it."""


@dataclass(frozen=True)
class Thoroughness:
    """How long to measure.

    Attributes
    ----------
    rounds, growth_rounds : int
        Visits to each contestant.
    trials : int
        At a visit, after the first search.
    pause : float
        Seconds before each visit, in which threads of the last one come to rest.
    tune : bool
        Whether to try stacks of several sizes for torch and JAX; they take part with the fastest.
    """

    rounds: int = 6
    growth_rounds: int = 4
    trials: int = 3
    pause: float = 1.5
    tune: bool = True


class Course:
    """Visits contestants, and keeps account of what else the machine was doing.

    Parameters
    ----------
    thoroughness : Thoroughness
    """

    def __init__(self, thoroughness: Thoroughness) -> None:
        self.thoroughness = thoroughness
        self.libraries: dict[str, list[dict[str, Any]]] = {}
        self.others: list[float] = []  # share of the cores that other processes had, at each visit

    def visit(
        self, contestant: str, searches: list[dict[str, Any]], trials: int, **more: Any
    ) -> list[dict[str, Any]]:
        """Return what a contestant answers in a process of its own.

        Raises
        ------
        AbsentError
            If it can't take part.
        """
        time.sleep(self.thoroughness.pause)
        task = {"contestant": contestant, "searches": searches, "trials": trials, **more}
        before = _busy_seconds(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "_search.contestants"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            env=_variables(),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{contestant} has failed:\n{done.stderr}")
        wall = time.perf_counter() - before[1]
        self.others.append(max(0.0, (_busy_seconds() - before[0]) / (wall * CORES)))
        answer = json.loads(done.stdout.splitlines()[-1])
        if "absent" in answer:
            raise AbsentError(answer["absent"])
        self.libraries[contestant] = answer["libraries"]
        return answer["searches"]

    def there_and_back(self, names: Sequence[str], rounds: int) -> Iterator[str]:
        """Yield A B C, C B A, A B C, ..."""
        for i in range(rounds):
            yield from names if i % 2 == 0 else reversed(names)

    def circumstances(self) -> dict[str, Any]:
        """Return what a reader has to know beside the times."""
        return {
            "environment": environment(),
            "libraries": self.libraries,
            "busy_elsewhere": [statistics.median(self.others), max(self.others)],
        }


def _variables() -> dict[str, str]:
    """Return a child's environment variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(UNSET)}
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), kept.get("PYTHONPATH")]))
    return kept | SET | {"PYTHONPATH": path}


def _busy_seconds() -> float:
    """Return the processor time that everybody but this process and its children has had; 0 if nobody tells."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, soft, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    everybody = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return everybody - sum(usage.ru_utime + usage.ru_stime for usage in own)


def environment() -> dict[str, Any]:
    """Return what the measurement runs on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": CORES,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "unset": sorted(name for name in os.environ if name.startswith(UNSET)),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def compete(workload: Workload, course: Course, names: Sequence[str] | None = None) -> Section:
    """Measure whole searches; ``names`` are the contestants, by default all that are installed."""
    names = present(SEARCHES) if names is None else list(names)
    options = {name: _best_stacks(workload, name, course) for name in names if name in PEERS}
    rows = _rounds(workload, names, course, options)
    truths = [
        {"workload": workload.plain(), "options": {"dtype": dtype}}
        for dtype in ("float32", "float64")
    ]
    reference, exact = course.visit("reference", truths, 0, warm_up_each=True)
    for row in rows.values():
        row["agreement"] = _agreement(row.pop("scores"), row.pop("curves"), reference)
    section = {"workload": str(workload), "networks": workload.networks, "rows": rows}
    section["rounding"] = _agreement(exact["scores"], exact["curves"], reference)
    return section | {"baseline": "scikit-learn"} | course.circumstances()


def ensemble(workload: Workload, course: Course) -> Section:
    """Measure ensembles on a workload's data."""
    workload = Workload.of({**workload.plain(), "candidates": [(1e-4, 1e-3)], "folds": 1})
    rows = _rounds(workload, ENSEMBLES, course, {})
    theirs = rows[ENSEMBLES[0]]
    reference = {"scores": theirs["scores"], "curves": None}
    for row in rows.values():
        row["agreement"] = _agreement(row.pop("scores"), row.pop("curves"), reference)
    words = str(workload).partition("of ")[2]
    section = {"workload": f"{N_MEMBERS} members on {words}", "rows": rows}
    return section | {"baseline": ENSEMBLES[0]} | course.circumstances()


def _rounds(
    workload: Workload, names: Sequence[str], course: Course, options: dict[str, Any]
) -> dict[str, Any]:
    """Return each contestant's row: seconds of the first search of a process and of later ones, and what it found."""
    rows: dict[str, Any] = {
        name: {"firsts": [], "seconds": [], "options": options.get(name, {})} for name in names
    }
    for name in course.there_and_back(names, course.thoroughness.rounds):
        if name not in rows:
            continue
        row = rows[name]
        search = {"workload": workload.plain(), "options": row["options"]}
        try:
            answer = course.visit(name, [search], course.thoroughness.trials)[0]
        except AbsentError as reason:
            print(f"{name} is left out: {reason}.", file=sys.stderr)
            del rows[name]
            continue
        row["firsts"].append(answer["first"])
        row["seconds"] += answer["seconds"]
        row |= {"scores": answer["scores"], "curves": answer["curves"]}
    baseline = statistics.median(rows[names[0]]["seconds"])
    for row in rows.values():
        row["median"] = statistics.median(row["seconds"])
        row["first"] = statistics.median(row["firsts"])
        row["ratio"] = baseline / row["median"]
    return rows


def _best_stacks(workload: Workload, name: str, course: Course) -> dict[str, int]:
    """Return the size of a peer's stacks, and on how many threads, that are the fastest of those tried."""
    every, share = workload.networks, len(workload.candidates)
    if not course.thoroughness.tune:
        return {"size": every, "threads": 1}
    sizes = sorted({every, share, -(-share // 2)}, reverse=True)
    tried = [
        {"size": size, "threads": threads}
        for size, threads in itertools.product(sizes, sorted({1, CORES}))
        if size < every or threads == 1
    ]
    searches = [{"workload": workload.plain(), "options": options} for options in tried]
    answers = course.visit(name, searches, 1, warm_up_each=True)
    return min(zip(answers, tried, strict=True), key=lambda pair: min(pair[0]["seconds"]))[1]


def _agreement(scores: Any, curves: Any, reference: Any) -> dict[str, float]:
    """Return how far answers are from scikit-learn's, losses as a share of its own.

    ``scores`` is the largest difference. Where there are curves, ``losses`` is the largest of any epoch, ``first`` of
    the first epoch, and ``same`` the share of the networks whose curves agree to four digits.
    """
    found = {"scores": float(np.abs(np.subtract(scores, reference["scores"])).max())}
    if curves is not None and reference["curves"] is not None:
        losses = np.asarray(reference["curves"])
        off = np.abs(curves - losses) / losses
        found |= {"losses": float(off.max()), "first": float(off[..., 0].max())}
        found["same"] = float((off.max(axis=-1) < FOUR_DIGITS).mean())
    return found


def grow(workload: Workload, course: Course, counts: dict[str, Sequence[int]]) -> Section:
    """Measure searches, without a refit, among so many candidates, for each contestant."""
    seconds = {name: {count: [] for count in each} for name, each in counts.items()}
    visits = course.there_and_back(list(counts), course.thoroughness.growth_rounds)
    for i, name in enumerate(visits):
        order = list(counts[name]) if i // len(counts) % 2 == 0 else list(counts[name])[::-1]
        searches = [{"workload": workload.drawing(count).plain()} for count in (min(order), *order)]
        answers = course.visit(name, searches, 1)[1:]  # the first has warmed up
        for count, answer in zip(order, answers, strict=True):
            seconds[name][count] += answer["seconds"]
    medians = {
        name: {str(count): statistics.median(times) for count, times in each.items()}
        for name, each in seconds.items()
    }
    words = str(workload).partition("folds of ")[2]
    stack_bytes = get_backend("numpy").stacking().bytes
    section = {"workload": words, "folds": workload.folds, "seconds": medians}
    section["stack_bytes"] = stack_bytes
    return section | course.circumstances()
