"""A training run: its epochs, and around them records, early stopping, Ctrl-C, how it ended."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

from gpunet.backend import Backend
from gpunet.training import Epochs, TrainingState
from gpunet.typing import Array

Record = dict[str, float]
"""What is known after an epoch: epoch, cost, learning_rate, seconds, and what was evaluated."""

Callback = Callable[[Record], bool | None]
"""Called after every epoch with its record; returning True stops the run."""


@dataclass
class EarlyStopping:
    """Stops when the validation score hasn't grown by ``tolerance`` for more than ``patience`` epochs in a row.

    The parameters with the best score are kept in any case, of equally good ones those with the lowest validation cost;
    ``patience=None`` never stops.
    """

    patience: int | None = None
    tolerance: float = 1e-4
    best: float = -math.inf
    cost: float = math.inf
    waited: int = 0

    def improved(self, record: Record) -> bool:
        """Take note of an epoch's record; return whether it is the best one so far."""
        score, cost = record["validation_score"], record["validation_cost"]
        self.waited = 0 if score >= self.best + self.tolerance else self.waited + 1
        if score > self.best or (score == self.best and cost < self.cost):
            self.best, self.cost = score, cost
            return True
        return False

    @property
    def exhausted(self) -> bool:
        """Whether it is time to stop."""
        return self.patience is not None and self.waited > self.patience


@dataclass
class Result:
    """How a run ended.

    Attributes
    ----------
    theta : array of shape (P,)
        The parameters to keep: those with the best validation score, or the last finite ones.
    history : list of dict
        One record an epoch.
    reason : str
        ``"epochs"`` (all were run), ``"converged"``, ``"early_stopping"``, ``"callback"``, ``"interrupted"`` (Ctrl-C)
        or ``"diverged"`` (a cost or a parameter was no longer finite).
    epoch : int
        The epoch in which it ended.
    """

    theta: Array
    history: list[Record] = field(default_factory=list)
    reason: str = "epochs"
    epoch: int = 0


class Interruption:
    """Turns Ctrl-C into a request to stop after the step; a second one interrupts at once.

    Only the main thread receives signals; elsewhere this does nothing.
    """

    requested = False

    def __enter__(self) -> Interruption:
        main = threading.current_thread() is threading.main_thread()
        # a run that was started with Ctrl-C ignored, in the background say, goes on ignoring it
        self._mine = main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if self._mine:
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, self._previous)

    def _request(self, _signal: int, _frame: FrameType | None) -> None:
        self.check()
        run: object = self
        while isinstance(run, Interruption):  # what this run is a part of ends, too
            run.requested = True
            run = getattr(run._previous, "__self__", None)

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.requested:
            raise KeyboardInterrupt


Evaluate = Callable[[Array], dict[str, Array]]
"""From θ (P,) to 0-d device arrays by name, such as validation_cost and validation_score."""


@dataclass
class Watch:
    """What any run does after an epoch: read once, record, keep the best, decide."""

    backend: Backend
    evaluate: Evaluate | None
    stopping: EarlyStopping | None
    callbacks: Sequence[Callback]
    result: Result
    started: float = field(default_factory=time.perf_counter)

    def after_epoch(self, epoch: int, theta: Array, cost: Array, rate: float | None) -> bool:
        """Record an epoch; return whether the run goes on. Keeps a copy of θ where it may be needed."""
        xp = self.backend.xp
        values = {"cost": cost, **(self.evaluate(theta) if self.evaluate else {})}
        finite = xp.all(xp.isfinite(theta))
        told = xp.stack([*values.values(), xp.astype(finite, cost.dtype)])
        *numbers, is_finite = self.backend.to_host(told).tolist()  # the epoch's one wait
        record: Record = {"epoch": epoch, **dict(zip(values, numbers, strict=True))}
        self.result.epoch = epoch
        if not (is_finite and math.isfinite(record["cost"])):
            self.result.reason = "diverged"
            return False
        if rate is not None:
            record["learning_rate"] = rate
        record["seconds"] = time.perf_counter() - self.started
        self.result.history.append(record)
        if self.stopping is None or self.stopping.improved(record):
            self.result.theta = xp.asarray(theta, copy=True)
        answers = [callback(record) for callback in self.callbacks]  # all of them are told
        if any(answers):
            self.result.reason = "callback"
        elif self.stopping is not None and self.stopping.exhausted:
            self.result.reason = "early_stopping"
        return self.result.reason == "epochs"


def train(
    epochs: Epochs,
    state: TrainingState,
    *,
    backend: Backend,
    n_epochs: int,
    learning_rate: Callable[[int], float],
    evaluate: Evaluate | None = None,
    stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    on_step: Callable[[int], None] | None = None,
) -> Result:
    """Train for ``n_epochs`` epochs, or until something ends the run.

    Parameters
    ----------
    epochs : Epochs
    state : TrainingState
        Where to start; it is moved along, so that a second call goes on.
    backend : Backend
    n_epochs : int
    learning_rate : callable
        See `Epochs.run`.
    evaluate : callable, optional
        See `gpunet.runs.Evaluate`: what else to know after each epoch.
    stopping : EarlyStopping, optional
    callbacks : sequence of callable
        See `gpunet.runs.Callback`.
    on_step : callable, optional
        Told how many examples each step takes, just before it; for progress bars. A compiled epoch skips it.

    Returns
    -------
    Result
    """
    xp = backend.xp
    result = Result(xp.asarray(state.theta, copy=True), epoch=state.epoch)
    watch = Watch(backend, evaluate, stopping, callbacks, result)
    taken = 0

    with Interruption() as interruption:

        def stop() -> bool:
            nonlocal taken
            if interruption.requested:
                return True
            if on_step is not None:
                on_step(min(epochs.batch_size, epochs.n - taken))
                taken += epochs.batch_size
            return False

        for _ in range(n_epochs):
            taken = 0
            cost = epochs.run(state, learning_rate, stop)
            if interruption.requested:
                break
            if not watch.after_epoch(state.epoch, state.theta, cost, learning_rate(state.step)):
                break
        if interruption.requested and result.reason == "epochs":
            result.reason, result.epoch = "interrupted", state.epoch
            finite = xp.all(xp.isfinite(state.theta))
            if stopping is None and bool(backend.to_host(finite)):
                result.theta = state.theta
    return result
