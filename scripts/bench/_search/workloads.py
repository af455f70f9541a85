"""What is searched: data, candidates and folds, and the settings that all contestants share."""

from __future__ import annotations

import functools
import itertools
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import StratifiedKFold

# As many processes or threads as this process may use cores.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Workload:
    """A search for the best of some candidates.

    Attributes
    ----------
    name : str
    n, d, classes : int
        Examples, features and classes of the data.
    hidden : tuple of int
    batch : int
    candidates : tuple of (float, float)
        Each one's alpha and learning_rate_init.
    epochs, folds : int
    refit : bool
        Whether the best one is fitted to all data in the end.
    """

    name: str
    n: int
    d: int
    classes: int
    hidden: tuple[int, ...]
    batch: int
    candidates: tuple[tuple[float, float], ...]
    epochs: int = 10
    folds: int = 3
    refit: bool = True

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Workload:
        """Return a workload that has been through JSON."""
        hidden, candidates = tuple(plain["hidden"]), tuple(map(tuple, plain["candidates"]))
        return cls(**{**plain, "hidden": hidden, "candidates": candidates})

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{len(self.candidates)} candidates × {self.folds} folds of {self.n:,} examples, {self.d} features, "
            f"{self.classes} classes; hidden layers {self.hidden}, minibatches of {self.batch}, {self.epochs} epochs"
        )

    @property
    def networks(self) -> int:
        """How many networks are trained, without the refit."""
        return len(self.candidates) * self.folds

    @property
    def network(self) -> dict[str, Any]:
        """What is the same for all candidates, as scikit-learn's MLPClassifier and gpunet's call it."""
        return {
            "hidden_layer_sizes": self.hidden,
            "batch_size": self.batch,
            "max_iter": self.epochs,
            "n_iter_no_change": self.epochs,  # so that none stops early
            "random_state": 0,
        }

    @property
    def grid(self) -> list[dict[str, list[float]]]:
        """The candidates, as a search takes them."""
        return [{"alpha": [alpha], "learning_rate_init": [rate]} for alpha, rate in self.candidates]

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return X (n, d) in float32 and labels y (n,)."""
        return _data(self.n, self.d, self.classes)

    def splits(self, X: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the folds' training and test rows, those of `GridSearchCV` with ``cv=folds``."""
        return list(StratifiedKFold(self.folds).split(X, y))

    def drawing(self, count: int) -> Workload:
        """Return the same search among candidates drawn at random, without a refit."""
        random = np.random.RandomState(0)
        alphas, rates = 10 ** random.uniform((-5, -4), (1, -2), (count, 2)).T
        return replace(self, candidates=tuple(zip(alphas, rates, strict=True)), refit=False)


@functools.cache
def _data(n: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(
        n,
        d,
        n_informative=max(2, min(20, d // 2)),
        n_redundant=0,
        n_classes=classes,
        n_clusters_per_class=1,
        flip_y=0.05,
        random_state=0,
    )
    return X.astype(np.float32), y


GRID = tuple(itertools.product((1e-4, 1e-2, 1.0, 10.0), (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)))
WORKLOADS = {
    "A": Workload("A", n=3000, d=50, classes=10, hidden=(100,), batch=200, candidates=GRID),
    "B": Workload("B", n=600, d=10, classes=3, hidden=(16,), batch=32, candidates=GRID),
}
