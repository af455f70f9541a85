"""Training: minibatches, epochs, stopping, history.

One training step is a pure function over device arrays (`TrainingStep`), and a backend's ``compile`` turns it into
an epoch of them. Nothing inside reads a value back to the host; the host reads once an epoch, all it wants to know at
once. What a run is made of, the generator of its shuffles included, is plain data (`TrainingState`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Backend
from gpunet.network import Architecture, cost_and_gradient
from gpunet.optimizers import Optimizer, Slots
from gpunet.primitives import Primitives
from gpunet.runs import Callback, EarlyStopping, Evaluate, Interruption, Result, Watch
from gpunet.schedules import Schedule
from gpunet.typing import Array, HostArray

Data = tuple[Array, Array, Array | None, Array | float | None]
"""x (s_1, n), y (K, n), sample weights (n,) or None, λ or None."""


@dataclass(frozen=True)
class TrainingStep:
    """One step: gather a minibatch, cost and gradient by backpropagation, update.

    Called as ``step(primitives, carry, batch, data)`` with carry = (θ, slots, Σ cost · examples), batch = (examples'
    indices (..., m), rate) and `Data`; returns the next carry and consumes the old. With leading axes on θ it
    trains many networks, each with its own examples and rate.
    """

    architecture: Architecture
    optimizer: Optimizer

    def __call__(
        self,
        primitives: Primitives,
        carry: tuple[Array, Slots, Array],
        batch: tuple[Array, Array],
        data: Data,
    ) -> tuple[Array, Slots, Array]:
        theta, slots, total = carry
        examples, rate = batch
        x, y, weights, l2 = data
        cost, gradient = cost_and_gradient(
            self.architecture,
            theta,
            primitives.gather(x, examples),
            primitives.gather(y, examples),
            primitives,
            l2=l2,
            weights=None if weights is None else primitives.gather(weights, examples),
        )
        theta, slots = primitives.update(self.optimizer, theta, gradient, slots, rate)
        total = total + cost * examples.shape[-1]
        return theta, slots, total


@dataclass
class TrainingState:
    """All that a run needs to go on exactly where it is.

    Attributes
    ----------
    theta : array of shape (P,)
        The parameters, on the device.
    random : numpy.random.RandomState
        Draws the shuffles; ``random.get_state()`` is plain data.
    slots : tuple of array
        The optimizer's memory; None before the first step.
    order : NumPy array of int, shape (n,)
        The last epoch's order: each shuffle shuffles it again, as scikit-learn does.
    step, epoch : int
        How many steps and epochs there were.
    """

    theta: Array
    random: Any
    slots: Slots | None = None
    order: HostArray | None = None
    step: int = 0
    epoch: int = 0


def train(
    architecture: Architecture,
    state: TrainingState,
    data: Data,
    *,
    backend: Backend,
    optimizer: Optimizer,
    schedule: Schedule,
    epochs: int,
    batch_size: int,
    rows: Array | None = None,
    shuffle: bool = True,
    evaluate: Evaluate | None = None,
    stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    on_step: Callable[[int], None] | None = None,
) -> Result:
    """Train by minibatches, shuffled every epoch.

    Parameters
    ----------
    architecture : Architecture
    state : TrainingState
        Where to start; it is moved along, so that a second call goes on.
    data : Data
        On the backend's device.
    backend : Backend
    optimizer : Optimizer
    schedule : Schedule
    epochs, batch_size : int
    rows : integer array of shape (n,), optional
        The examples to train on; None takes all.
    shuffle : bool
        Whether each epoch sees the examples in a new order.
    evaluate : callable, optional
        See `Evaluate`: what else to know after each epoch.
    stopping : EarlyStopping, optional
    callbacks : sequence of callable
        See `Callback`.
    on_step : callable, optional
        Told how many examples each step takes, just before it; for progress bars. A compiled epoch skips it.

    Returns
    -------
    Result
    """
    xp = backend.xp
    n = data[0].shape[-1] if rows is None else rows.shape[-1]
    batch_size = min(batch_size, n)
    steps = math.ceil(n / batch_size)
    total_steps = state.step + epochs * steps
    dtype = str(backend.to_host(state.theta[:0]).dtype)
    run = backend.compile(TrainingStep(architecture, optimizer))
    if state.slots is None:
        state.slots = optimizer.start(xp, state.theta)
    result = Result(xp.asarray(state.theta, copy=True), epoch=state.epoch)
    watch = Watch(backend, evaluate, stopping, callbacks, result)
    taken = 0

    with Interruption() as interruption:

        def stop() -> bool:
            nonlocal taken
            if interruption.requested:
                return True
            if on_step is not None:
                on_step(batch_size if taken < steps - 1 else n - (steps - 1) * batch_size)
            taken += 1
            return False

        for _ in range(epochs):
            if shuffle:
                drawn = state.random.permutation(n)
                state.order = drawn if state.order is None else state.order[drawn]
                order = backend.asarray(state.order)
            else:
                order = backend.asarray(list(range(n)), "int64")
            if rows is not None:
                order = xp.take(rows, order, axis=0)
            numbers = range(state.step + 1, state.step + 1 + steps)
            learning_rates = [
                optimizer.learning_rate * schedule.factor(number, total_steps) for number in numbers
            ]
            rates = backend.asarray(
                [optimizer.rate(*pair) for pair in zip(numbers, learning_rates, strict=True)], dtype
            )
            total, taken = xp.zeros_like(state.theta[0]), 0
            carry = (state.theta, state.slots, total)
            for batches in _batches(xp, order, rates, batch_size):
                carry = run(carry, batches, data, stop)
            state.theta, state.slots, total = carry
            if interruption.requested:
                result.reason, result.epoch = "interrupted", state.epoch + 1
                if stopping is None:
                    result.theta = _finite(backend, state.theta, result.theta)
                break
            state.step += steps
            state.epoch += 1
            if not watch.after_epoch(state.epoch, state.theta, total / n, learning_rates[-1]):
                break
    return result


def _batches(xp: Any, order: Array, rates: Array, batch_size: int) -> list[tuple[Array, Array]]:
    """Return an epoch's batches: the full ones as rows of one array, then the partial last one."""
    full = order.shape[0] // batch_size
    parts = []
    if full:
        whole = xp.reshape(order[: full * batch_size], (full, batch_size))
        parts.append((whole, rates[:full]))
    if full * batch_size < order.shape[0]:
        parts.append((order[None, full * batch_size :], rates[full:]))
    return parts


def _finite(backend: Backend, theta: Array, otherwise: Array) -> Array:
    """Return θ if it is finite; reads it back, so only once a run."""
    xp = backend.xp
    return theta if bool(backend.to_host(xp.all(xp.isfinite(theta)))) else otherwise
