"""The learning-rate range test: which learning rates does a network learn with? (Smith, 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone

from gpunet.dropout import key_of
from gpunet.estimators.parameters import SOLVERS, dropout_of, optimizer_of
from gpunet.loss_scaling import start
from gpunet.step import TrainingStep
from gpunet.typing import Array, HostArray


@dataclass(frozen=True)
class RateRange:
    """What a learning-rate range test found.

    Attributes
    ----------
    rates : NumPy array of shape (n,)
        The learning rate of each step, as far as the loss stayed finite and below four times that of the first.
    losses : NumPy array of shape (n,)
        The loss of each step's minibatch before the step, averaged over a tenth of the steps around it.
    """

    rates: HostArray
    losses: HostArray

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest on the way to its minimum: a good ``learning_rate_init``.

        Falls after the loss has once grown by a fifth don't count: training has left where it started.
        """
        grown = self.losses > 1.2 * self.losses[0]
        end = int(np.argmax(grown)) if grown.any() else len(self.losses)
        end = int(np.argmin(self.losses[:end])) + 1
        if end < 2:
            return float(self.rates[0])
        slope = np.gradient(self.losses[:end], np.log(self.rates[:end]))
        return float(self.rates[np.argmin(slope)])

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss over the learning rate; needs matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; None makes a new Figure.

        Returns
        -------
        Axes
        """
        if ax is None:
            try:
                from matplotlib.figure import Figure  # optional
            except ImportError as error:
                raise ImportError("Drawing needs matplotlib: pip install 'gpunet[plot]'") from error
            ax = Figure(figsize=(6.0, 4.0), layout="constrained").add_subplot()
        ax.plot(self.rates, self.losses)
        ax.axvline(self.steepest, linestyle=":", label=f"steepest at {self.steepest:.2g}")
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss, smoothed")
        ax.legend()
        return ax


def learning_rate_range(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> RateRange:
    """Train from the initial parameters while the learning rate grows geometrically, a minibatch a step.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        A clone of it is trained; it stays as it is.
    X, y, sample_weight
        As for `fit`.
    low, high : float
        The first and the last learning rate.
    steps : int
        How many steps are taken.

    Returns
    -------
    RateRange

    Raises
    ------
    ValueError
        For rates that don't grow, fewer than two steps, and L-BFGS, which has no learning rate.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from gpunet import MLPClassifier
    >>> found = MLPClassifier(random_state=0).learning_rate_range(*load_iris(return_X_y=True))
    >>> bool(found.rates[0] == 1e-6), 1e-6 < found.steepest < 1
    (True, True)
    """
    if estimator.solver == "lbfgs":
        others = ", ".join(repr(solver) for solver in SOLVERS[1:])
        raise ValueError(f"solver='lbfgs' has no learning rate to test: use one of {others}.")
    if not 0.0 < low < high < math.inf:
        raise ValueError(
            f"The learning rate grows from low > 0 to high, but low={low} and high={high}."
        )
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 2:
        raise ValueError(f"steps is a whole number of at least 2 steps, not {steps!r}.")
    trial = clone(estimator)
    trial._validate_params()
    rates = np.geomspace(low, high, steps)
    losses = _trained(trial, trial._prepare(X, y, sample_weight, first=True), rates.tolist())
    learned = np.asarray(losses) <= 4.0 * losses[0]
    n = steps if learned.all() else max(int(np.argmin(learned)), 1)
    return RateRange(rates[:n], _smoothed(np.asarray(losses[:n]), steps // 20))


def _smoothed(losses: HostArray, reach: int) -> HostArray:
    """Return each loss averaged with ``reach`` others on both sides; a running mean would shift them."""
    window = np.ones(2 * reach + 1)
    counts = np.convolve(np.ones_like(losses), window)
    averaged: HostArray = np.convolve(losses, window) / counts
    return averaged[reach : reach + len(losses)]


def _trained(trial: Any, prepared: tuple[Any, Any, Array], rates: list[float]) -> list[float]:
    """Return the loss before each step, all read at the end."""
    place, data, theta = prepared
    backend, architecture = place.backend, trial._architecture()
    xp, n = backend.xp, data[0].shape[-1]
    m = min(200 if trial.batch_size == "auto" else trial.batch_size, n)
    optimizer = optimizer_of(trial)
    dropout = dropout_of(trial.dropout, len(architecture.layers) - 1)
    scaled = backend.scales_losses(place.dtype)
    step = TrainingStep(architecture, optimizer, dropout, trial.clip_norm, scaled=scaled)
    epochs = math.ceil(len(rates) * m / n)
    order = np.concatenate([trial._random_state.permutation(n) for _ in range(epochs)])
    losses = []
    with backend.active(), np.errstate(all="ignore"):  # it is to diverge in the end
        slots, nothing = optimizer.start(xp, theta), xp.zeros_like(theta[0])
        scale: Any = (start(xp, theta),) if scaled else ()
        for number, rate in enumerate(rates, start=1):
            examples = backend.asarray(order[(number - 1) * m : number * m])
            numbers = optimizer.rates(number, rate)
            batch = [backend.asarray(np.asarray(value), place.dtype) for value in numbers]
            if dropout:
                batch.insert(0, backend.asarray(np.asarray(key_of(0, number)), "int64"))
            theta, slots, cost, *scale = step(
                backend.primitives, (theta, slots, nothing, *scale), (examples, *batch), data
            )
            losses.append(cost / m)
        told: list[float] = backend.to_host(xp.stack(losses)).tolist()
    return told
