"""Training: epochs of minibatches.

An epoch is what a backend's ``compile`` makes of the training step (`gpunet.step`). Nothing inside reads a value back
to the host; the host reads once an epoch, or once for several, all it wants to know at once. What a run is made of, the
generator of its shuffles included, is plain data (`TrainingState`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from array_api_compat import array_namespace, device

from gpunet.backend import Backend, dtype_name
from gpunet.dropout import key_of
from gpunet.loss_scaling import Scale
from gpunet.loss_scaling import start as first_scale
from gpunet.memory import PARTS, chunk_too_large, explained, step_too_large, with_less
from gpunet.network import Architecture
from gpunet.optimizers import Optimizer, Slots
from gpunet.sparse import SparseColumns
from gpunet.step import Carry, Data, TrainingStep, of_the_whole
from gpunet.streaming import Chunks, HostColumns
from gpunet.typing import Array, HostArray, Namespace

AHEAD = 0.02
"""As many seconds as epochs may take that are run without a look in between."""

LearningRate = Callable[[int], float] | float
"""An epoch's: one for all of its steps, or a function of each one's number, 1 for the very first of a run."""


def at_once(backend: Backend, epochs: int, steps: int, theta: Array, m: int) -> int:
    """Return how many of these epochs to run without a look in between, of so many steps of m examples each."""
    seconds = steps * backend.step_seconds(theta.shape, m)
    return max(1, min(epochs, int(AHEAD / seconds)))


def of_each(learning_rate: LearningRate, numbers: range) -> Iterable[float]:
    """Return the learning rates of the steps with these numbers."""
    if callable(learning_rate):
        return map(learning_rate, numbers)
    return [learning_rate] * len(numbers)


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
    scale : tuple of array, optional
        The losses', where they are scaled: see `gpunet.loss_scaling`.
    order : NumPy array of int, shape (n,)
        The last epoch's order: each shuffle shuffles it again, as scikit-learn does.
    step, epoch : int
        How many steps and epochs there were.
    seed : int
        Dropout's; drawn from ``random`` when it is first needed.
    """

    theta: Array
    random: Any
    slots: Slots | None = None
    scale: Scale | None = None
    order: HostArray | None = None
    step: int = 0
    epoch: int = 0
    seed: int | None = None


class Epochs:
    """Runs epochs of minibatches.

    Parameters
    ----------
    architecture : Architecture
    data : Data
        On the backend's device; x may stay on the host, as `gpunet.streaming.HostColumns`.
    backend : Backend
    optimizer : Optimizer
    batch_size : int
        Examples a step; the last step of an epoch takes what is left.
    rows : integer array of shape (n,), optional
        The examples to train on; None takes all.
    shuffle : bool
        Whether each epoch sees the examples in a new order.
    dropout : tuple of float
        The share of units to drop, one for each hidden layer; () drops none.
    clip : float, optional
        The length that a gradient may have.
    whole : bool
        Whether minibatches estimate the cost over all examples: see `gpunet.step.TrainingStep`.
    """

    def __init__(
        self,
        architecture: Architecture,
        data: Data,
        *,
        backend: Backend,
        optimizer: Optimizer,
        batch_size: int,
        rows: Array | None = None,
        shuffle: bool = True,
        dropout: tuple[float, ...] = (),
        clip: float | None = None,
        whole: bool = False,
    ) -> None:
        self.n: int = data[0].shape[-1] if rows is None else rows.shape[-1]
        self.batch_size = min(batch_size, self.n)
        self.steps = math.ceil(self.n / self.batch_size)
        self._data = of_the_whole(backend.xp, data, rows) if whole else data
        self._backend, self._optimizer = backend, optimizer
        self._rows, self._shuffle = rows, shuffle
        self._drops = any(dropout)
        drops = dropout if self._drops else ()
        step = TrainingStep(
            architecture,
            optimizer,
            drops,
            clip,
            whole,
            scaled=backend.scales_losses(dtype_name(data[1])),
        )
        if isinstance(data[0], SparseColumns):  # gathered on the host, which can't be compiled
            self._run = Backend.compile(backend, step)
        else:
            self._run = backend.compile(step)
        self._chunks: Chunks | None = None
        if isinstance(data[0], HostColumns) and not isinstance(data[0], SparseColumns):
            with explained(backend, self._chunk_too_large):
                self._chunks = Chunks(
                    self._data, backend=backend, batch_size=self.batch_size, rows=rows
                )
        self._step, self._fits = step, False

    def run(
        self,
        state: TrainingState,
        learning_rate: LearningRate,
        stop: Callable[[], bool] = lambda: False,
    ) -> Array:
        """Move the state on by an epoch and return the mean cost of its examples, on the device.

        Parameters
        ----------
        state : TrainingState
        learning_rate : float or callable
            A callable is called on the host with the number of each step, 1 for the very first.
        stop : callable
            Asked before each step whether to end the epoch here; a compiled epoch asks once.
        """
        carry, rates = self._begin(state, learning_rate)
        minibatches = partial(self._minibatches, self._drawn(state, 1), rates)
        with explained(self._backend, lambda: self._too_large(carry[0])):
            carry = self._taken(carry, minibatches, stop)
        return self._end(state, carry, 1)

    def run_ahead(
        self,
        state: TrainingState,
        learning_rate: LearningRate,
        epochs: int,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Array]:
        """Move the state on by up to so many epochs, which nobody looks at in between; return each one's mean cost.

        It may be fewer: one where they take long, and of the first ones, for which memory may be short; and fewer again
        if it is asked to stop, which may leave the state within an epoch, and its generator behind all of them.
        """
        count = at_once(self._backend, epochs, self.steps, state.theta, self.batch_size)
        first = not (self._fits or self._drops or self.batch_size == 1)
        if count == 1 or first or self._chunks is not None:
            cut = False

            def asked() -> bool:
                nonlocal cut
                cut = cut or stop()
                return cut

            cost = self.run(state, learning_rate, asked)
            return [] if cut else [cost]
        carry, rates = self._begin(state, learning_rate, count)
        parts = self._batches(self._drawn(state, count), rates, (count,))
        with explained(self._backend, lambda: self._too_large(carry[0])):
            carry, totals = self._backend.epochs(self._run, carry, parts, self._data, stop)
        self._end(state, carry, min(count, len(totals) + 1))  # one that was cut short counts
        return [total / self.n for total in totals]

    def _begin(
        self, state: TrainingState, learning_rate: LearningRate, epochs: int = 1
    ) -> tuple[Carry, tuple[Array, ...]]:
        """Return a step's carry, and what its optimizer and dropout take for each step of the next epochs."""
        xp, theta = self._backend.xp, state.theta
        if state.slots is None:
            state.slots = self._optimizer.start(xp, theta)
        numbers = range(state.step + 1, state.step + 1 + epochs * self.steps)
        steps = map(self._optimizer.rates, numbers, of_each(learning_rate, numbers))
        rates = tuple(self._like(rate, theta) for rate in zip(*steps, strict=True))
        if self._drops:
            if state.seed is None:
                state.seed = int(state.random.randint(2**31 - 1))
            keys = [key_of(state.seed, number) for number in numbers]
            rates = (self._backend.asarray(keys, "int64"), *rates)
        carry: Carry = (theta, state.slots, self._like(0.0, theta))
        if self._step.scaled:
            scale = state.scale or first_scale(self._backend.xp, theta)
            carry = (theta, state.slots, self._like(0.0, theta), scale)
        return carry, rates

    def _end(self, state: TrainingState, carry: Carry, epochs: int) -> Array:
        """Move the state on behind so many epochs; return the last one's mean cost."""
        state.theta, state.slots, total, *more = carry
        state.scale = more[0] if more else None
        state.step += epochs * self.steps
        state.epoch += epochs
        return total / self.n

    def _taken(
        self,
        carry: Carry,
        minibatches: Callable[[], Iterable[tuple[tuple[Array, ...], Data]]],
        stop: Callable[[], bool],
    ) -> Carry:
        """Return what the steps make of the carry, which they consume.

        Where the memory is short for a run's first epoch, its steps are taken in parts from then on.
        """

        def taken(carry: Carry) -> Carry:
            stopped = False

            def asked() -> bool:
                nonlocal stopped
                stopped = stopped or stop()
                return stopped

            for part, data in minibatches():
                carry = self._run(carry, part, data, asked)
                if stopped:  # no other chunk need come
                    break
            return carry

        if self._fits or self._drops or self.batch_size == 1:
            return taken(carry)
        self._fits = True  # what memory there was for once, there is again
        before = _copied(self._backend.xp, carry)

        def in_parts() -> Carry:
            self._run = Backend.compile(self._backend, replace(self._step, parts=PARTS))
            return taken(before)

        return with_less(
            self._backend,
            lambda: taken(carry),
            in_parts,
            lambda: (
                f"A minibatch of {self.batch_size:,} examples didn't fit the memory of {self._backend.spec}: its "
                f"gradient is added up from {PARTS} parts, which gives the same and takes longer. A smaller batch_size "
                "would fit."
            ),
        )

    def _too_large(self, theta: Array) -> str:
        """Return what to say where memory is short in spite of that."""
        width = int(dtype_name(theta).removeprefix("float")) // 8
        words = step_too_large(
            self._step.architecture, self._backend, n=self._data[0].shape[-1], m=self.batch_size,
            n_slots=self._optimizer.n_slots, width=width, on_host=isinstance(self._data[0], HostColumns),
        )  # fmt: skip
        if self._drops:
            words += " Dropout draws for a whole minibatch, so that it can't be divided."
        return words

    def _chunk_too_large(self) -> str:
        """Return what to say where memory is short for examples that come from the host."""
        x, y, *_ = self._data
        return chunk_too_large(
            self._backend, x.shape[0] + y.shape[0], m=self.batch_size, dtype=dtype_name(y)
        )

    def _like(self, numbers: Any, theta: Array) -> Array:
        """Return numbers as an array of θ's dtype on the device."""
        return self._backend.asarray(numbers, dtype_name(theta))

    def _drawn(self, state: TrainingState, epochs: int) -> list[HostArray] | None:
        """Return the order of the examples in each of the next epochs; None is one after the other."""
        if not self._shuffle:
            return None
        drawn = []
        for _ in range(epochs):
            state.order = state.random.permutation(self.n if state.order is None else state.order)
            drawn.append(state.order)
        return drawn

    def _minibatches(
        self, orders: list[HostArray] | None, rates: tuple[Array, ...]
    ) -> Iterable[tuple[tuple[Array, ...], Data]]:
        """Return an epoch's minibatches by step, in parts, each with the data that its indices are of."""
        if self._chunks is not None:
            return self._brought(self._chunks.epoch(None if orders is None else orders[0], rates))
        return [(part, self._data) for part in self._batches(orders, rates)]

    def _brought(
        self, chunks: Iterator[tuple[tuple[Array, ...], Data]]
    ) -> Iterator[tuple[tuple[Array, ...], Data]]:
        """Yield the chunks; one for which there is no room wouldn't be smaller if its minibatches were divided."""
        while True:
            with explained(self._backend, self._chunk_too_large):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def _batches(
        self,
        orders: list[HostArray] | None,
        rates: tuple[Array, ...],
        epochs: tuple[int, ...] = (),
    ) -> list[tuple[Array, ...]]:
        """Return the full batches, (steps, ...), then the partial last one; of some epochs (epochs, steps, ...)."""
        if epochs:
            shape = (*epochs, self.steps)
            rates = tuple(self._backend.xp.reshape(rate, shape) for rate in rates)
        full = self.n // self.batch_size
        if full == self.steps:
            return [(self._examples(orders, epochs, 0, full), *rates)]
        return [
            (
                self._examples(orders, epochs, start, stop),
                *[rate[..., start:stop] for rate in rates],
            )
            for start, stop in ((0, full), (full, self.steps))
        ]

    def _examples(
        self, orders: list[HostArray] | None, epochs: tuple[int, ...], start: int, stop: int
    ) -> Array:
        """Return the examples of some steps, (..., steps, m) on the device."""
        xp, first, last = self._backend.xp, start * self.batch_size, stop * self.batch_size
        last = min(last, self.n)
        shape = (*epochs, stop - start, (last - first) // (stop - start))
        if orders is None:
            order = xp.arange(first, last, dtype=xp.int64, device=device(self._data[1]))
            examples = xp.reshape(xp.broadcast_to(order, (*epochs, last - first)), shape)
        else:  # one way to the device for all of them
            order = array_namespace(*orders).stack(orders) if epochs else orders[0]
            examples = self._backend.asarray(order[..., first:last].reshape(shape))
        if self._rows is None:
            return examples
        return xp.reshape(xp.take(self._rows, xp.reshape(examples, (-1,)), axis=0), shape)


def _copied(xp: Namespace, tree: Any) -> Any:
    """Return a copy of arrays in tuples."""
    if isinstance(tree, tuple):
        return tuple(_copied(xp, part) for part in tree)
    return xp.asarray(tree, copy=True)
