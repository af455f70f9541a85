"""`EnsembleRegressor`: the mean prediction of several networks, and how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from gpunet.backend import Backend
from gpunet.ensembles.base import ATTRIBUTES, PARAMETERS, Ensemble
from gpunet.estimators import MLPRegressor
from gpunet.estimators.answers import answers
from gpunet.typing import Array, HostArray, Namespace


class EnsembleRegressor(RegressorMixin, Ensemble):  # type: ignore[misc]
    """Several `MLPRegressor` with different seeds, whose predictions are averaged.

    Used like `sklearn.ensemble.BaggingRegressor`, but all members are trained at once.

    Parameters
    ----------
    estimator : MLPRegressor, default=None
        What the members are copies of, but for ``random_state``; None is ``MLPRegressor()``.
    {parameters}

    Attributes
    ----------
    {attributes}
    oob_prediction_ : array of shape (n_samples,) or (n_samples, n_outputs)
        With ``oob_score``, the mean prediction by the members whose bootstrap sample lacks a row; NaN if none does.
    oof_prediction_ : array of shape (n_samples,) or (n_samples, n_outputs)
        With ``cv``, the mean prediction by the members of the folds that hold a row out; NaN if none does.
    oob_score_, oof_score_ : float
        R² of these, over the rows that have them.

    Notes
    -----
    The members' spread is the uncertainty of the model without the noise of y: an interval for y has to be wider.
    With ``bootstrap``, copies of a row may come to both sides of the split of a member's ``early_stopping``.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from gpunet import EnsembleRegressor, MLPRegressor
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=0)
    >>> members = MLPRegressor(hidden_layer_sizes=8, solver="lbfgs", max_iter=1000, tol=0.1)
    >>> ensemble = EnsembleRegressor(members, n_estimators=3, cv=4, random_state=0).fit(X, y)
    >>> len(ensemble.estimators_), ensemble.oof_prediction_.shape
    (12, (100,))
    >>> mean, std = ensemble.predict(X, return_std=True)
    >>> ensemble.predict(X, quantiles=[0.1, 0.9]).shape
    (100, 2)
    """

    _member = MLPRegressor
    _their_bagging = "BaggingRegressor"
    _oob_name = "oob_prediction_"

    def predict(self, X: Any, *, return_std: bool = False, quantiles: Any = None) -> Any:
        """Return the mean of the members' predictions, its spread or their quantiles.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to return the members' standard deviation, too.
        quantiles : float or list of float, optional
            Instead of the mean, the quantiles of the members' predictions, in [0, 1]: interpolated linearly, a list of
            them along a last axis.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs), a pair of them, or with one more axis for quantiles

        Raises
        ------
        ValueError
            For quantiles that are none, or together with ``return_std``.
        """
        if quantiles is not None:
            _check(quantiles)
            if return_std:
                raise ValueError("return_std=True and quantiles are two answers: ask for one.")
        backend, X = self._ready(X, "predict")
        xp = backend.xp
        with backend.active():
            each = self._predictions(backend, self.estimators_, X)
            if quantiles is not None:
                return _quantiles(xp, each, quantiles)
            mean = xp.mean(each, axis=0)
            return (mean, xp.std(each, axis=0)) if return_std else mean

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² of `predict`; of the level nearest the median, where members predict several quantiles."""
        return float(r2_score(y, self._scored(self.predict(X)), sample_weight=sample_weight))

    def _predictions(self, backend: Backend, members: Sequence[Any], X: Any) -> Array:
        return backend.xp.stack(answers(members, "predict", X))

    def _score_of(self, y: HostArray, mean: HostArray) -> float:
        return float(r2_score(y, self._scored(mean)))

    def _scored(self, predicted: Any) -> Any:
        """Return the part of a prediction that scores are about."""
        member = self.estimators_[0]
        return predicted if member._fitted_levels is None else predicted[..., member._median()]


EnsembleRegressor.__doc__ = (EnsembleRegressor.__doc__ or "").format(
    parameters=PARAMETERS, attributes=ATTRIBUTES
)


def _check(quantiles: Any) -> None:
    """Refuse what are no quantiles."""
    levels = np.asarray(quantiles)
    real = levels.dtype.kind in "iuf" and levels.ndim <= 1 and levels.size > 0
    if not (real and np.all((levels >= 0.0) & (levels <= 1.0))):
        raise ValueError(
            f"quantiles is a number in [0, 1] or a list of them, such as [0.1, 0.9], but is {quantiles!r}."
        )


def _quantiles(xp: Namespace, each: Array, quantiles: Any) -> Array:
    """Return quantiles over the first axis (M, ...), as `numpy.quantile` interpolates them: (..., Q)."""
    ordered, last = xp.sort(each, axis=0), each.shape[0] - 1
    found = []
    for level in np.atleast_1d(quantiles).tolist():
        below = math.floor(level * last)
        above = min(below + 1, last)
        low, high = ordered[below, ...], ordered[above, ...]
        found.append(low + (level * last - below) * (high - low))
    return xp.stack(found, axis=-1) if np.ndim(quantiles) else found[0]
