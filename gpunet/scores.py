"""Scores of predictions, computed where the predictions live: higher is better, 1 is perfect."""

from __future__ import annotations

from gpunet.primitives import example_share
from gpunet.typing import Array, Namespace

TASKS = ("binary", "multiclass", "multilabel", "regression")


def decide(xp: Namespace, task: str, h: Array) -> Array:
    """Return what the outputs h (..., K, m) decide on.

    Returns
    -------
    array
        multiclass: the number of the largest output, shape (..., m). binary and multilabel: whether an output is
        above 0.5, shape (..., K, m). regression: h itself.
    """
    if task == "multiclass":
        return xp.argmax(h, axis=-2)
    if task == "regression":
        return h
    return h > 0.5


def score(xp: Namespace, task: str, h: Array, y: Array, weights: Array | None) -> Array:
    """Return the score of outputs h against targets y, both (..., K, m); shape (...).

    The share of examples whose decision is right (for multilabel: all of whose labels are), or for a regression R²
    averaged over the outputs, 1 − Σ(y − h)² / Σ(y − ȳ)², as scikit-learn defines both. A constant target has
    R² 1 if predicted exactly, else 0. ``weights`` (..., m) counts examples unequally.
    """
    share = example_share(xp, y, weights)
    if task != "regression":
        right = xp.astype(decide(xp, task, h) == decide(xp, task, y), h.dtype)
        if task != "multiclass":
            right = xp.min(right, axis=-2)
        if weights is None:
            return xp.sum(right, axis=-1) / y.shape[-1]  # exactly 1 where all are right
        return xp.sum(right * share, axis=-1)
    if weights is not None:
        share = share[..., None, :]
    residual = xp.sum(share * (y - h) ** 2, axis=-1)
    first = y[..., :1]  # so that the mean of a constant is that constant, without rounding
    mean = first + xp.sum(share * (y - first), axis=-1, keepdims=True)
    deviation = xp.sum(share * (y - mean) ** 2, axis=-1)
    constant = deviation == 0.0
    r2 = 1.0 - residual / xp.where(constant, xp.ones_like(deviation), deviation)
    exact = xp.astype(residual == 0.0, h.dtype)
    return xp.mean(xp.where(constant, exact, r2), axis=-1)
