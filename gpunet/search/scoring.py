"""The scores of fitted networks: scikit-learn's, without its checks where they can't say anything new."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer
from sklearn.model_selection._validation import _score
from sklearn.utils.multiclass import type_of_target

from gpunet.estimators import MLPClassifier, MLPRegressor
from gpunet.estimators.answers import answers
from gpunet.search.parts import Split
from gpunet.typing import HostArray

Measure = Callable[[Any], float | None]
"""From predictions to their score, as scikit-learn computes it; None where it has more to check."""


class Judge:
    """Scores fitted networks.

    Parameters
    ----------
    scorer : callable
        As ``_get_scorers`` of a search returns it.
    error_score : 'raise' or float
        The score where the scorer fails.
    """

    def __init__(self, scorer: Any, error_score: Any) -> None:
        self._scorer, self._error_score = scorer, error_score
        several = isinstance(scorer, _MultimetricScorer)
        scorers = scorer._scorers.values() if several else [scorer]
        # scikit-learn's scorers ask for predictions; a function may look at the pipeline itself
        self._wants_whole = not all(
            isinstance(one, _BaseScorer | _PassthroughScorer) for one in scorers
        )
        self._direct = None if several else _direct(scorer)

    def failed(self) -> Any:
        """Return the score of what couldn't be fitted."""
        if isinstance(self._scorer, _MultimetricScorer):
            return dict.fromkeys(self._scorer._scorers, self._error_score)
        return self._error_score

    def scores(self, split: Split, estimators: list[Any], which: str) -> list[Any]:
        """Return each estimator's score, or dict of scores, on a split's ``"train"`` or ``"test"`` rows."""
        whole = self._wants_whole
        if not whole:
            try:
                X, y, params = split.seen(which)
            except Exception:  # a transformer's: the scorer is to meet it, too
                whole = True
        if whole:
            return [
                self._score(split.whole(estimator), *split.examples(which))
                for estimator in estimators
            ]
        if self._direct is not None and not params:
            if which not in split.measures:
                split.measures[which] = _measure(y, self._direct)
            measure = split.measures[which]
            found = None if measure is None else self._directly(estimators, X, measure)
            if found is not None:
                return found
        return [self._score(estimator, X, y, params) for estimator in estimators]

    def _score(self, estimator: Any, X: Any, y: Any, params: dict[str, Any]) -> Any:
        return _score(estimator, X, y, self._scorer, params, self._error_score)

    def _directly(
        self, estimators: list[Any], X: Any, measure: Measure
    ) -> list[float | None] | None:
        """Return the scores computed from the predictions, None where scikit-learn has something to check."""
        kind = MLPClassifier if self._direct is accuracy_score else MLPRegressor
        if any(type(estimator) is not kind for estimator in estimators):
            return None
        try:
            found = [measure(predicted) for predicted in answers(estimators, "predict", X)]
        except Exception:
            return None  # the scorer will meet it again, and say so
        return None if None in found else found


def _direct(scorer: Any) -> Any:
    """Return the function behind a scorer that is plainly accuracy or R² of predictions; None for others."""
    if isinstance(scorer, _PassthroughScorer):
        estimator, steps = scorer._estimator, getattr(scorer._estimator, "steps", None)
        last = steps[-1][1] if steps else estimator  # a pipeline's score is its last step's
        return {MLPClassifier: accuracy_score, MLPRegressor: r2_score}.get(type(last))
    function = getattr(scorer, "_score_func", None)
    if function not in (accuracy_score, r2_score) or scorer._kwargs or scorer._sign != 1:
        return None
    return function if scorer._response_method == "predict" else None


def _measure(y: Any, function: Any) -> Measure | None:
    """Return the measure against plain targets (n,); None where scikit-learn's checks have something to say."""
    if not isinstance(getattr(y, "dtype", None), np.dtype):
        return None  # lists, and data frames' own types
    if type(y).__module__.partition(".")[0] not in ("numpy", "pandas"):
        return None  # on a device
    if y.ndim != 1 or len(y) < 2:
        return None
    y = np.asarray(y)
    if function is accuracy_score:
        plainly = y.dtype.kind in "biu" or type_of_target(y) in ("binary", "multiclass")
        return _accuracy_of(y) if plainly else None
    return _r2_of(y.astype(np.float64)) if y.dtype.kind in "fiu" else None


def _accuracy_of(y: HostArray) -> Measure:
    def measure(predicted: Any) -> float | None:
        if type(predicted) is not np.ndarray or predicted.shape != y.shape:
            return None
        return int(np.count_nonzero(predicted == y)) / len(y)

    return measure


def _r2_of(y: HostArray) -> Measure:
    column = y[:, None]  # in this shape, since the order of a sum is part of its rounding
    denominator = float(np.sum((column - np.average(column, axis=0)) ** 2, axis=0)[0])

    def measure(predicted: Any) -> float | None:
        if type(predicted) is not np.ndarray or predicted.shape != y.shape:
            return None
        if predicted.dtype != np.float64:
            return None
        numerator = float(np.sum((column - predicted[:, None]) ** 2, axis=0)[0])
        if not (math.isfinite(numerator) and numerator != 0.0 and denominator != 0.0):
            return None  # scikit-learn's special cases
        return 1 - numerator / denominator

    return measure
