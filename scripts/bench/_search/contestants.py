"""Who takes part, and the process in which one of them is timed: ``python -m _search.contestants``, a task on stdin.

A task is JSON: ``{"contestant": name, "searches": [{"workload": ..., "options": ...}], "trials": 3}``. The answer is
the last line on stdout, in JSON, too.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from _search import peers
from _search.peers import Outcome
from _search.workloads import CORES, Workload

AT_LEAST = 0.3  # seconds of a trial; shorter ones are of the clock and the scheduler
N_SHOWN = 100  # examples whose probabilities are compared
N_MEMBERS = 5


def scikit_learn(workload: Workload) -> Outcome:
    """Search with scikit-learn's GridSearchCV over its own networks."""
    from sklearn.neural_network import MLPClassifier

    return _in_processes(MLPClassifier(**workload.network), workload)


def gpunet_in_scikit_learn(workload: Workload) -> Outcome:
    """Search with scikit-learn's GridSearchCV over gpunet's networks, with numba where it is installed."""
    from gpunet import MLPClassifier

    return _in_processes(MLPClassifier(**workload.network), workload)


def _in_processes(network: Any, workload: Workload) -> Outcome:
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(
        network, workload.grid, cv=workload.folds, n_jobs=CORES, refit=workload.refit
    )
    return Outcome(search.fit(*workload.data()).cv_results_["mean_test_score"])


class AbsentError(Exception):
    """Why a contestant can't take part."""


def gpunet(workload: Workload) -> Outcome:
    """Search with gpunet's GridSearchCV over its networks, on NumPy alone."""
    sys.modules["numba"] = None  # type: ignore[assignment]  # as where it isn't installed
    return _together(workload)


def gpunet_numba(workload: Workload) -> Outcome:
    """Search with gpunet's GridSearchCV where numba is installed, too."""
    outcome = _together(workload)
    if "numba" not in sys.modules:
        raise AbsentError("gpunet has not used numba")
    return outcome


def _together(workload: Workload) -> Outcome:
    from gpunet import GridSearchCV, MLPClassifier

    network = MLPClassifier(**workload.network)
    search = GridSearchCV(network, workload.grid, cv=workload.folds, refit=workload.refit)
    search.fit(*workload.data())
    curves = np.empty((len(workload.candidates), workload.folds, workload.epochs))
    for curve in search.learning_curves_:
        curves[curve["candidate"], curve["split"]] = curve["loss_curve"]
    return Outcome(search.cv_results_["mean_test_score"], curves)


def torch(workload: Workload, size: int | None = None, threads: int = 1) -> Outcome:
    """Search with stacks in torch; of so many networks, on so many threads, that share the cores."""
    from torch import set_num_threads

    from _search.torch_peer import peer

    set_num_threads(max(1, CORES // threads))
    return peers.search(workload, peer, size=size or workload.networks, threads=threads)


def jax(workload: Workload, size: int | None = None, threads: int = 1) -> Outcome:
    """Search with stacks in JAX; of so many networks, on so many threads."""
    from _search.jax_peer import peer

    return peers.search(workload, peer, size=size or workload.networks, threads=threads)


def reference(workload: Workload, dtype: str = "float32") -> Outcome:
    """Train scikit-learn's networks one by one, for the losses that its search doesn't keep."""
    from joblib import Parallel, delayed
    from sklearn.neural_network import MLPClassifier

    X, y = workload.data()
    X = X.astype(dtype)
    splits = workload.splits(X, y)
    fits = Parallel(n_jobs=CORES)(
        delayed(MLPClassifier(**workload.network, alpha=alpha, learning_rate_init=rate).fit)(
            X[train], y[train]
        )
        for alpha, rate in workload.candidates
        for train, _ in splits
    )
    tests = [test for _, test in splits] * len(workload.candidates)
    scores = [fit.score(X[test], y[test]) for fit, test in zip(fits, tests, strict=True)]
    curves = np.reshape([fit.loss_curve_ for fit in fits], (-1, workload.folds, workload.epochs))
    return Outcome(np.reshape(scores, (-1, workload.folds)).mean(axis=1), curves)


def scikit_learn_bagging(workload: Workload) -> Outcome:
    """Fit scikit-learn's ensemble of its own networks to all data, the first candidate's parameters."""
    from sklearn.ensemble import BaggingClassifier
    from sklearn.neural_network import MLPClassifier

    bagging = functools.partial(BaggingClassifier, bootstrap=False, n_jobs=CORES)
    return _ensemble(bagging, MLPClassifier, workload)


def gpunet_ensemble(workload: Workload) -> Outcome:
    """Fit gpunet's ensemble of the same networks."""
    from gpunet import EnsembleClassifier, MLPClassifier

    return _ensemble(EnsembleClassifier, MLPClassifier, workload)


def _ensemble(ensemble: Any, network: Any, workload: Workload) -> Outcome:
    """Return an ensemble's probabilities for some of the data."""
    X, y = workload.data()
    settings = {**workload.network, "random_state": None}
    ensemble = ensemble(network(**settings), n_estimators=N_MEMBERS, random_state=0).fit(X, y)
    return Outcome(ensemble.predict_proba(X[:N_SHOWN]).ravel())


CONTESTANTS: dict[str, Callable[..., Outcome]] = {
    "scikit-learn": scikit_learn,
    "scikit-learn, gpunet's networks": gpunet_in_scikit_learn,
    "gpunet": gpunet,
    "gpunet, numba": gpunet_numba,
    "torch": torch,
    "JAX": jax,
    "reference": reference,
    "BaggingClassifier": scikit_learn_bagging,
    "EnsembleClassifier": gpunet_ensemble,
}
SEARCHES = (
    "scikit-learn",
    "scikit-learn, gpunet's networks",
    "gpunet",
    "gpunet, numba",
    "torch",
    "JAX",
)
PEERS = ("torch", "JAX")  # whose stacks are tried in several sizes
ENSEMBLES = ("BaggingClassifier", "EnsembleClassifier")
LIBRARIES = {
    "torch": "torch",
    "JAX": "jax",
    "gpunet, numba": "numba",
}  # that a contestant can't do without


def present(names: tuple[str, ...]) -> list[str]:
    """Return the contestants whose libraries are installed."""
    return [
        name
        for name in names
        if name not in LIBRARIES or importlib.util.find_spec(LIBRARIES[name]) is not None
    ]


def timed(call: Callable[[], Any], at_least: float = 0.0) -> tuple[float, Any]:
    """Return the seconds that a call takes, the mean over as many as it takes to fill a trial, and its result."""
    calls, result, start = 0, None, time.perf_counter()
    while True:
        result = call()
        calls += 1
        seconds = time.perf_counter() - start
        if seconds >= at_least:
            return seconds / calls, result


def take_part(task: dict[str, Any]) -> dict[str, Any]:
    """Search as a task says, and return when it took how long and what was found."""
    answers = []
    for i, one in enumerate(task["searches"]):
        workload = Workload.of(one["workload"])
        workload.data()  # made before the clock runs
        call = functools.partial(
            CONTESTANTS[task["contestant"]], workload, **one.get("options", {})
        )
        first = outcome = None
        if i == 0 or task.get("warm_up_each"):
            first, outcome = timed(call)
        seconds = []
        for _ in range(task["trials"]):
            each, outcome = timed(call, AT_LEAST)
            seconds.append(each)
        assert outcome is not None
        curves = None if outcome.curves is None else outcome.curves.tolist()
        answers.append(
            {
                "first": first,
                "seconds": seconds,
                "scores": outcome.scores.tolist(),
                "curves": curves,
            }
        )
    libraries = [
        {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpool_info()
    ]
    return {"searches": answers, "libraries": libraries}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # few epochs don't converge
    try:
        print(json.dumps(take_part(json.load(sys.stdin))))
    except AbsentError as reason:
        print(json.dumps({"absent": str(reason)}))
