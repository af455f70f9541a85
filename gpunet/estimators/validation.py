"""Validation data of the estimators: a share set aside as scikit-learn does, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing

from gpunet.estimators.placement import Placement
from gpunet.memory import hypothesis_within
from gpunet.network import Architecture
from gpunet.primitives import example_share, mean_cost
from gpunet.scores import score
from gpunet.step import Data
from gpunet.streaming import HostColumns
from gpunet.typing import Array


@dataclass
class Validation:
    """Examples that aren't trained on.

    Parameters
    ----------
    x, y : array of shape (s_1, n) and (K, n)
        On the device.
    weights : array of shape (n,), optional
    given : tuple
        X, y and the sample weights in the user's form, for a scorer.
    """

    x: Array
    y: Array
    weights: Array | None
    given: tuple[Any, Any, Any]

    @classmethod
    def split(
        cls, estimator: Any, place: Placement, data: Data, given: tuple[Any, Any, Any]
    ) -> tuple[Array, Validation]:
        """Return the rows to train on, and the others to validate on, split as scikit-learn splits."""
        backend, (x, y, weights, _) = place.backend, data
        stratify = None
        if estimator._task() == "binary":  # scikit-learn stratifies when there is one output
            stratify = backend.to_host(y[0, :])
        train_rows, held_rows = train_test_split(
            np.arange(x.shape[-1]),
            random_state=estimator._random_state,
            test_size=estimator.validation_fraction,
            stratify=stratify,
        )
        if held_rows.size < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        held, gather = backend.asarray(held_rows), backend.primitives.gather
        if estimator.scoring is not None:
            given = tuple(_rows(place, part, held_rows) for part in given)
        w_held = None if weights is None else gather(weights, held)
        x_held = x.chosen(held) if isinstance(x, HostColumns) else gather(x, held)
        return backend.asarray(train_rows), cls(x_held, gather(y, held), w_held, given)

    @classmethod
    def of(cls, estimator: Any, place: Placement, X: Any, y: Any, n_outputs: int) -> Validation:
        """Return the user's own, checked against the data of the fit.

        Raises
        ------
        ValueError
            For one of X_val and y_val without the other, another place, other columns or other targets.
        """
        if X is None or y is None:
            there, missing = ("y_val", "X_val") if X is None else ("X_val", "y_val")
            raise ValueError(f"{there} was given without {missing}: give both, or neither.")
        X_checked, targets = place.validate_more(estimator, X, y, "X_val", "y_val")
        targets = place.targets(estimator._encode_more(place, targets, "y_val"))
        if targets.shape[0] != n_outputs:
            raise ValueError(
                f"y_val has {targets.shape[0]} outputs, but y has {n_outputs}: give the same columns."
            )
        weights = estimator._weigh_more(place, targets)
        return cls(place.columns(X_checked), targets, weights, (X, y, None))


def _rows(place: Placement, values: Any, rows: Any) -> Any:
    """Return the chosen rows of X, y or weights in the user's form; None for None."""
    if values is None or place.host:
        return None if values is None else _safe_indexing(values, rows)
    values = place.backend.asarray(values)
    return place.backend.xp.take(values, place.backend.asarray(rows), axis=0)


class Evaluation:
    """What is known of θ after an epoch: its loss, and what else is asked for.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Its ``scoring`` and ``track_scores`` say what.
    place : Placement
    architecture : Architecture
    data : Data
        What is trained on.
    rows : array of int, optional
        Those of its examples; None is all.
    validation : Validation, optional
    """

    def __init__(
        self,
        estimator: Any,
        place: Placement,
        architecture: Architecture,
        data: Data,
        *,
        rows: Array | None = None,
        validation: Validation | None = None,
    ) -> None:
        self._estimator, self._place, self._architecture = estimator, place, architecture
        self._validation, self._rows, self._data = validation, rows, data
        self._scorer = None
        if estimator.scoring is not None:
            self._scorer = check_scoring(estimator, scoring=estimator.scoring)

    def __call__(self, costs: Sequence[Array], theta: Array) -> list[dict[str, float]]:
        """Return each epoch's loss and, of the last one, what else is asked for, all read from the device at once."""
        backend, held = self._place.backend, self._validation
        track = self._estimator.track_scores
        if not costs:
            return []
        if held is None and not track:
            losses = backend.to_host(backend.xp.stack(costs)).tolist()
            return [{"loss": loss} for loss in losses]
        *_, cost = costs
        told = {"loss": cost}
        if held is not None and (track or self._scorer is None):
            z, h = self._hypothesis(theta, held.x)
            if self._scorer is None:
                told["validation_score"] = self._score(h, held.y, held.weights)
            if track:
                told["validation_loss"] = self._cost(z, h, held.y, held.weights)
        if track:
            told["score"] = self._training_score(theta)
        numbers = backend.to_host(backend.xp.stack([*told.values()])).tolist()
        record = dict(zip(told, numbers, strict=True))
        if held is not None and self._scorer is not None:
            record["validation_score"] = self._scored(theta, held)
        return [record]

    def _hypothesis(
        self, theta: Array, x: Array, examples: Array | None = None
    ) -> tuple[Array, Array]:
        backend = self._place.backend
        return hypothesis_within(backend, self._architecture, theta, x, examples=examples)

    def _score(self, h: Array, y: Array, weights: Array | None) -> Array:
        rows = self._estimator._scored_rows()
        h, y = h[..., rows, :], y[..., rows, :]
        xp = self._place.backend.xp
        classes = getattr(self._estimator, "classes_", None)
        if classes is not None and classes.shape[0] == 1:
            h = xp.zeros_like(
                h
            )  # where there is one class, it is predicted whatever the output says
        return score(xp, self._estimator._task(), h, y, weights)

    def _cost(self, z: Array, h: Array, y: Array, weights: Array | None) -> Array:
        xp, loss = self._place.backend.xp, self._architecture.loss
        cost = loss.cost(xp, z, h, y, self._architecture.activations[-1])
        return mean_cost(xp, cost, example_share(xp, h, weights))

    def _training_score(self, theta: Array) -> Array:
        x, y, weights, _ = self._data
        _, h = self._hypothesis(theta, x, self._rows)
        if self._rows is not None:
            gather = self._place.backend.primitives.gather
            y = gather(y, self._rows)
            weights = None if weights is None else gather(weights, self._rows)
        return self._score(h, y, weights)

    def _scored(self, theta: Array, held: Validation) -> float:
        """Return the user's score, of the estimator with these parameters on the data as the user gave them."""
        X, y, weights = held.given
        estimator = self._estimator
        estimator._set_coefs(self._place, theta)
        extra = {} if weights is None else {"sample_weight": weights}
        assert self._scorer is not None
        return float(self._scorer(estimator, X, y, **extra))
