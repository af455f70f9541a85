"""What networks are trained and scored on: the rows of a split, as they are or through transformers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from traceback import format_exc
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils._array_api import device, get_namespace
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params, _num_samples

from gpunet.estimators.together import Job, Later
from gpunet.search.recipes import Recipe
from gpunet.typing import HostArray

Examples = tuple[Any, Any, dict[str, Any]]
"""X, y and the parameters of the scorer."""


@dataclass(eq=False)
class Given:
    """What the search was given.

    Attributes
    ----------
    estimator : estimator
        The search's.
    X, y : array-like
    fit_params, score_params : dict
        For every fit, and for every call of the scorer.
    """

    estimator: Any
    X: Any
    y: Any
    fit_params: Mapping[str, Any]
    score_params: Mapping[str, Any]


class Split:
    """The rows of one split of the data, sliced for all networks that are scored together.

    Parameters
    ----------
    given : Given
    index : int
        Which split.
    train, test : array-like of int or bool

    Raises
    ------
    IndexError
        For rows that X doesn't have.
    """

    error: str | None = None  # what the transformers raised, as a traceback
    exception: Exception | None = None
    seconds = 0.0  # that the transformers took

    def __init__(self, given: Given, index: int, train: Any, test: Any) -> None:
        self.given, self.index = given, index
        # masks and rows counted from the end as plain indices; NumPy refuses what is out of range
        everything = np.arange(_num_samples(given.X))
        rows = {"train": everything[np.asarray(train)], "test": everything[np.asarray(test)]}
        self.rows: HostArray = rows["train"]
        self.n_test = rows["test"].size
        xp, _ = get_namespace(given.X)  # as scikit-learn indexes data of every kind
        here = device(given.X)
        self._indices = {which: xp.asarray(some, device=here) for which, some in rows.items()}
        self._seen: dict[str, Examples] = {}
        self.measures: dict[str, Any] = {}  # against what is seen
        self.users = 0  # networks trained on it

    def job(self, estimator: Any, tag: Any) -> Job:
        """Return the job of fitting an estimator to the training rows."""
        given = self.given
        weights = given.fit_params.get("sample_weight")
        return Job(estimator, given.X, given.y, weights, self.rows, tag)

    def examples(self, which: str) -> Examples:
        """Return a new slice of the ``"train"`` or ``"test"`` rows."""
        given, rows = self.given, self._indices[which]
        X, y = _safe_split(given.estimator, given.X, given.y, rows)
        return X, y, _check_method_params(given.X, params=given.score_params, indices=rows)

    def seen(self, which: str) -> Examples:
        """Return the rows as every network sees them."""
        if which not in self._seen:
            self._seen[which] = self.examples(which)
        return self._seen[which]

    def scored(self, n: int) -> None:
        """Take note that n networks more are scored, or won't be: the slices are let go."""
        self._seen.clear()
        self.measures.clear()

    def whole(self, estimator: Any) -> Any:
        """Return what predicts from `examples`: the network, and the transformers before it."""
        return estimator


class TransformedSplit(Split):
    """A split's rows through a pipeline's transformers, fitted to the training rows when these are needed.

    They are held until the last network is scored.

    Parameters
    ----------
    split : Split
    recipe : Recipe
    """

    def __init__(self, split: Split, recipe: Recipe) -> None:
        self.__dict__.update(split.__dict__)
        self._seen, self.measures, self.users, self._scored = {}, {}, 0, 0
        self._pipeline, self._transformers = recipe.pipeline, recipe.transformers
        self._fitted: dict[str, Any] = {}
        self._trained_on = Later(self._transformed)

    def _transformed(self) -> tuple[Any, Any]:
        """Return the training rows, having fitted the transformers to them."""
        if self.exception is not None:
            raise self.exception
        started = time.perf_counter()
        try:
            X, y, _ = self.examples("train")
            for name, transformer in self._transformers:
                fitted = self._fitted[name] = clone(transformer)
                X = (
                    fitted.fit_transform(X, y)
                    if hasattr(fitted, "fit_transform")
                    else fitted.fit(X, y).transform(X)
                )
        except Exception as error:
            self.error, self.exception = format_exc(), error
            raise
        finally:
            self.seconds = time.perf_counter() - started
        return X, y

    def job(self, estimator: Any, tag: Any) -> Job:
        return Job(estimator, self._trained_on, tag=tag)

    def seen(self, which: str) -> Examples:
        if which not in self._seen:
            # a new slice, since a transformer with copy=False writes on it, and transformed anew for the training rows
            # too, since fit_transform may treat what it fits in another way
            X, y, params = self.examples(which)
            for transformer in self._fitted.values():
                X = transformer.transform(X)
            self._seen[which] = X, y, params
        return self._seen[which]

    def scored(self, n: int) -> None:
        self._scored += n
        if self._scored == self.users:
            super().scored(n)
            self._trained_on.forget()
            self._fitted.clear()

    def whole(self, estimator: Any) -> Any:
        *before, (last, _) = self._pipeline.steps
        steps = [(name, self._fitted.get(name, step)) for name, step in before]
        return type(self._pipeline)([*steps, (last, estimator)])
