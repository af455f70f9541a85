"""`EnsembleClassifier`: the mean probability of several networks."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from gpunet.backend import Backend
from gpunet.ensembles.base import ATTRIBUTES, PARAMETERS, Ensemble
from gpunet.estimators import MLPClassifier, labels
from gpunet.estimators.answers import answers
from gpunet.estimators.placement import Placement, to_numpy
from gpunet.typing import Array, HostArray, Namespace


class EnsembleClassifier(ClassifierMixin, Ensemble):  # type: ignore[misc]
    """Several `MLPClassifier` with different seeds, whose probabilities are averaged.

    Used like `sklearn.ensemble.BaggingClassifier`, but all members are trained at once.

    Parameters
    ----------
    estimator : MLPClassifier, default=None
        What the members are copies of, but for ``random_state``; None is ``MLPClassifier()``.
    {parameters}

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        The labels.
    {attributes}
    oob_decision_function_ : array of shape (n_samples, n_classes)
        With ``oob_score``, the mean probabilities by the members whose bootstrap sample lacks a row; NaN if none does.
    oof_prediction_ : array of shape (n_samples, n_classes)
        With ``cv``, the mean probabilities by the members of the folds that hold a row out; NaN if none does.
    oob_score_, oof_score_ : float
        The accuracy of these, over the rows that have them.

    Notes
    -----
    A member that hasn't seen a class gives it the probability 0. With ``bootstrap``, copies of a row may come to both
    sides of the split of a member's ``early_stopping``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from gpunet import EnsembleClassifier, MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> members = MLPClassifier((8,), solver="lbfgs", alpha=1.0, max_iter=1000)
    >>> ensemble = EnsembleClassifier(members, n_estimators=3, random_state=0).fit(X, y)
    >>> ensemble.score(X, y) > 0.95
    True
    >>> p, std = ensemble.predict_proba(X, return_std=True)
    >>> p.shape == std.shape == (150, 3)
    True
    """

    _member = MLPClassifier
    _their_bagging = "BaggingClassifier"
    _oob_name = "oob_decision_function_"

    def predict(self, X: Any, *, return_std: bool = False) -> Any:
        """Return the class of each example that is likeliest on average, or label indicators for multi-label data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        return_std : bool, default=False
            Is refused: `predict_proba` has it.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_labels)
        """
        if return_std:
            raise TypeError(
                "Classes have no standard deviation; predict_proba(X, return_std=True) returns that of their "
                "probabilities."
            )
        backend, X = self._ready(X, "predict")
        with backend.active():
            p = backend.xp.mean(self._predictions(backend, self.estimators_, X), axis=0)
            chosen = self._decide(backend.xp, p)
            if self._label_task == "multilabel":
                return chosen
            if isinstance(self.classes_, np.ndarray):
                return self.classes_[backend.to_host(chosen)]
            return backend.xp.take(self.classes_, chosen, axis=0)

    def predict_proba(self, X: Any, *, return_std: bool = False) -> Any:
        """Return the mean probability of each class over the members.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to return the members' standard deviation, too.

        Returns
        -------
        array of shape (n_samples, n_classes), or a pair of them
        """
        backend, X = self._ready(X, "predict_proba")
        xp = backend.xp
        with backend.active():
            p = self._predictions(backend, self.estimators_, X)
            mean = xp.mean(p, axis=0)
            return (mean, xp.std(p, axis=0)) if return_std else mean

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`, without its rounding to 0."""
        return self._log_proba(X, "predict_log_proba")[0]

    def decision_function(self, X: Any) -> Any:
        """Return the logits of the mean probability, which are finite where it rounds to 0 or 1.

        For two classes the log-odds of the second, shape (n_samples,); for multi-label data those of each label; else
        the logarithm of each class's probability, (n_samples, n_classes).
        """
        log_p, log_not = self._log_proba(X, "decision_function")
        if log_not is not None:
            return log_p - log_not
        if self.classes_.shape[0] > 2:
            return log_p
        return log_p[:, -1] - log_p[:, 0]

    def _log_proba(self, X: Any, method: str) -> tuple[Array, Array | None]:
        """Return the logarithm of the mean probabilities, and of 1 minus them for multi-label data."""
        backend, X = self._ready(X, method)
        xp, members = backend.xp, self.estimators_
        with backend.active():
            logits = answers(members, "decision_function", X)
            if self._label_task == "multilabel":
                signed = (logits, [-z for z in logits])
                log_p, log_not = (_log_mean(xp, [_log_sigmoid(xp, z) for z in zs]) for zs in signed)
                return log_p, log_not
            logs = [
                self._aligned(xp, member, _log_softmax(xp, member, z), only=0.0, absent=-math.inf)
                for member, z in zip(members, logits, strict=True)
            ]
            return _log_mean(xp, logs), None

    def _predictions(self, backend: Backend, members: Sequence[Any], X: Any) -> Array:
        xp = backend.xp
        each = [
            self._aligned(xp, member, p, only=1.0, absent=0.0)
            for member, p in zip(members, answers(members, "predict_proba", X), strict=True)
        ]
        return xp.stack(each)

    def _aligned(
        self, xp: Namespace, member: Any, values: Array, *, only: float, absent: float
    ) -> Array:
        """Return a member's values of its classes as values of the ensemble's.

        Parameters
        ----------
        xp : namespace
        member : MLPClassifier
        values : array of shape (n, K)
        only : float
            The value of a member's only class, which it always predicts.
        absent : float
            The value of a class that the member hasn't seen.
        """
        known, classes = member.classes_, self.classes_
        if self._label_task == "multilabel":
            return values
        if known.shape[0] == 1:
            values = xp.full_like(values[:, :1], only)
        if known.shape[0] == classes.shape[0]:
            return values
        column = {label: k for k, label in enumerate(to_numpy(known).tolist())}
        missing = xp.full_like(values[:, 0], absent)
        return xp.stack(
            [
                values[:, column[label]] if label in column else missing
                for label in to_numpy(classes).tolist()
            ],
            axis=1,
        )

    def _decide(self, xp: Namespace, p: Array) -> Array:
        """Return the numbers of the likeliest classes, or label indicators."""
        if self._label_task == "multilabel":
            return xp.astype(p > 0.5, xp.int64)
        return xp.argmax(p, axis=1)

    def _learn(self, place: Placement, y: Any) -> None:
        self.classes_, self._label_task = labels.classes_of(place, y)

    def _score_of(self, y: HostArray, mean: HostArray) -> float:
        chosen = self._decide(np, mean)
        if self._label_task != "multilabel":
            chosen = to_numpy(self.classes_)[chosen]
        return float(accuracy_score(y, chosen))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


EnsembleClassifier.__doc__ = (EnsembleClassifier.__doc__ or "").format(
    parameters=PARAMETERS, attributes=ATTRIBUTES
)


def _log_sigmoid(xp: Namespace, z: Array) -> Array:
    """Return log σ(z)."""
    return -xp.logaddexp(xp.zeros_like(z), -z)


def _log_softmax(xp: Namespace, member: Any, z: Array) -> Array:
    """Return the logarithm of `predict_proba` for logits z: (n,) of two classes, else (n, K)."""
    if z.ndim == 1:
        return xp.stack([_log_sigmoid(xp, -z), _log_sigmoid(xp, z)], axis=1)
    if member.out_activation_ == "logistic":  # one-vs-all, divided by the sum
        z = _log_sigmoid(xp, z)
    z = z - xp.max(z, axis=1, keepdims=True)
    return z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))


def _log_mean(xp: Namespace, logs: Sequence[Array]) -> Array:
    """Return log((Σ exp lₘ) / M)."""
    total: Array = functools.reduce(xp.logaddexp, logs)
    return total - math.log(len(logs))
