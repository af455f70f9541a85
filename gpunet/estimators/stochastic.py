"""The estimators' training by minibatches: scikit-learn's loop, its stopping rules and its messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from gpunet.backend import dtype_name
from gpunet.estimators.monitor import Monitor
from gpunet.estimators.parameters import dropout_of, optimizer_of, schedule_of
from gpunet.estimators.placement import Placement
from gpunet.estimators.validation import Evaluation, Validation
from gpunet.notices import warn
from gpunet.runs import Interruption
from gpunet.step import Data
from gpunet.training import Epochs, LearningRate, TrainingState
from gpunet.typing import Array


def batch_size_of(estimator: Any, n: int) -> int:
    """Return how many of n examples a step takes."""
    batch_size: Any = estimator.batch_size
    if batch_size == "auto":
        return min(200, n)
    if batch_size > n:
        warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
    return int(min(batch_size, n))


@dataclass(frozen=True)
class _Planned:
    """A schedule's learning rates; equal for the same schedule, so that a stack computes them once."""

    first: float
    factor: Callable[[int, int], float]
    total: int

    def __call__(self, step: int) -> float:
        """Return that of a step."""
        return self.first * self.factor(step, self.total)


class Rules:
    """What scikit-learn notes after an epoch, and when it ends a run: all of its loop but the training.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Its attributes are what scikit-learn's would be after each epoch.
    monitor : Monitor
    n : int
        How many examples are trained on.
    steps : int
        How many steps an epoch has.
    held : bool
        Whether there is validation data.
    incremental : bool
        Whether one epoch is all, for `partial_fit`.

    Attributes
    ----------
    improved : bool
        Whether the last epoch has the best validation score so far.
    warning : str or None
        What is to be warned of at the end.
    """

    def __init__(
        self, estimator: Any, monitor: Monitor, *, n: int, steps: int, held: bool, incremental: bool
    ) -> None:
        self._estimator, self._monitor, self._n = estimator, monitor, n
        self._held, self._incremental = held, incremental
        self._schedule = schedule_of(estimator.learning_rate)
        self._total = estimator.max_iter * steps
        self.improved = False
        self.warning: str | None = None
        estimator.n_iter_ = 0

    @property
    def learning_rate(self) -> LearningRate:
        """The next epoch's."""
        if self._schedule is None:
            return float(self._estimator._learning_rate)
        first = float(self._estimator.learning_rate_init)
        return _Planned(first, self._schedule.factor, self._total)

    @property
    def ahead(self) -> int:
        """How many epochs are sure to come, by the next one's learning rate or schedule, whatever their losses.

        Nobody has to look at the network in between.
        """
        estimator = self._estimator
        looked_at = self._held or estimator.verbose or self._monitor.looked_at
        if looked_at or self._incremental or estimator.track_scores:
            return 1
        if self._descends and estimator.learning_rate == "invscaling":
            return 1
        patience = estimator.n_iter_no_change + 1 - estimator._no_improvement_count
        return int(max(1, min(patience, estimator.max_iter - estimator.n_iter_)))

    def rate(self, step: int) -> float:
        """Return the learning rate of step number 1, 2, ..."""
        rate = self.learning_rate
        return rate if isinstance(rate, float) else rate(step)

    def after_epoch(self, record: dict[str, float], theta: Array, step: int) -> bool:
        """Note what is known of an epoch that has ended with θ and step number ``step``; return whether to go on.

        Consumes the record.
        """
        estimator = self._estimator
        self._note(record)
        estimator.t_ += self._n
        record["learning_rate"] = self.rate(step)
        if self._monitor.end(record, theta):
            return False
        if estimator.learning_rate == "invscaling" and self._descends:
            scale = (estimator.t_ + 1) ** estimator.power_t
            estimator._learning_rate = estimator.learning_rate_init / scale
        if estimator._no_improvement_count > estimator.n_iter_no_change:
            if self._is_stopping():
                return False
            estimator._no_improvement_count = 0
        if self._incremental:
            return False
        if estimator.n_iter_ == estimator.max_iter:
            self.warning = (
                f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization "
                "hasn't converged yet."
            )
            return False
        return True

    @property
    def _descends(self) -> bool:
        """Whether scikit-learn's schedules act."""
        return self._estimator.solver in ("sgd", "gradient_descent")

    def _note(self, record: dict[str, float]) -> None:
        """Note an epoch's loss and score and whether it improved."""
        estimator, loss = self._estimator, record["loss"]
        estimator.loss_ = loss
        estimator.n_iter_ += 1
        estimator.loss_curve_.append(loss)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")  # noqa: T201
        if self._held and not math.isfinite(record["validation_score"]):
            record["validation_score"] = math.nan
        if estimator.early_stopping:
            last = record["validation_score"]
            estimator.validation_scores_.append(last)
            if estimator.verbose:
                print(f"Validation score: {last:f}")  # noqa: T201
            best = estimator.best_validation_score_
            worse = last < best + estimator.tol
            self.improved = last > best
            if self.improved:
                estimator.best_validation_score_ = last
        else:
            best = estimator.best_loss_
            worse = loss > best - estimator.tol
            if loss < best:
                estimator.best_loss_ = loss
        estimator._no_improvement_count = estimator._no_improvement_count + 1 if worse else 0

    def _is_stopping(self) -> bool:
        """Return whether no improvement ends the run, or lowers the learning rate instead."""
        estimator = self._estimator
        what = "Validation score" if estimator.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} "
            "consecutive epochs."
        )
        stopping, then = True, "Stopping."
        if self._descends and estimator.learning_rate == "adaptive":
            if estimator._learning_rate <= 1e-6:
                then = "Learning rate too small. Stopping."
            else:
                estimator._learning_rate /= 5.0
                stopping, then = False, f"Setting learning rate to {estimator._learning_rate:f}"
        if estimator.verbose:
            print(f"{message} {then}")  # noqa: T201
        return stopping


class StochasticFit:
    """One `fit` or `partial_fit` of an estimator by minibatches.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    place : Placement
    data : Data
    rows : array of int, optional
        The examples to train on; None takes all.
    validation : Validation, optional
    monitor : Monitor
    """

    def __init__(
        self,
        estimator: Any,
        place: Placement,
        data: Data,
        *,
        rows: Array | None,
        validation: Validation | None,
        monitor: Monitor,
    ) -> None:
        self._estimator, self._backend, self._monitor = estimator, place.backend, monitor
        architecture = estimator._architecture()
        n: int = data[0].shape[-1] if rows is None else rows.shape[-1]
        optimizer = optimizer_of(estimator)
        self._n_slots = optimizer.n_slots
        self._epochs = Epochs(
            architecture,
            data,
            backend=place.backend,
            optimizer=optimizer,
            batch_size=batch_size_of(estimator, n),
            rows=rows,
            shuffle=estimator.shuffle,
            dropout=dropout_of(estimator.dropout, len(architecture.layers) - 1),
            clip=estimator.clip_norm,
        )
        self._evaluate = Evaluation(
            estimator, place, architecture, data, rows=rows, validation=validation
        )
        self._held = validation is not None

    def run(self, theta: Array, *, incremental: bool) -> Array:
        """Train until scikit-learn's rules, or a callback, say stop; return θ."""
        estimator, xp, epochs = self._estimator, self._backend.xp, self._epochs
        state = self._start(theta, incremental=incremental)
        # What is kept where no epoch improves: at first the initial parameters; in scikit-learn a warm start trains
        # on the very arrays that hold the best ones, and so keeps the last.
        best = xp.asarray(theta, copy=True) if estimator.t_ == 0 else None
        rules = Rules(
            estimator, self._monitor, n=epochs.n, steps=epochs.steps, held=self._held, incremental=incremental
        )  # fmt: skip
        with Interruption() as interruption:
            go_on = True
            while go_on:
                self._monitor.begin()
                step = state.step
                costs = epochs.run_ahead(
                    state, rules.learning_rate, rules.ahead, lambda: interruption.requested
                )
                for record in self._evaluate(costs, state.theta):
                    step += epochs.steps
                    go_on = rules.after_epoch(record, state.theta, step)
                    if rules.improved:
                        best = xp.asarray(state.theta, copy=True)
                if go_on and interruption.requested:
                    warn("Training interrupted by user.")
                    break
        if rules.warning is not None:
            warn(rules.warning, ConvergenceWarning)
        estimator._optimizer_state = (state.slots, state.step)
        return state.theta if best is None or not estimator.early_stopping else best

    def _start(self, theta: Array, *, incremental: bool) -> TrainingState:
        """Return where to start: `partial_fit` goes on with the optimizer's memory."""
        estimator = self._estimator
        state = TrainingState(theta, estimator._random_state)
        slots, step = getattr(estimator, "_optimizer_state", (None, 0))
        # another solver than the last fit's has another memory, and starts anew
        if incremental and slots is not None and len(slots) == self._n_slots:
            asarray = self._backend.asarray
            state.slots = tuple(asarray(slot, dtype_name(theta)) for slot in slots)
            state.step = step
        else:
            estimator._learning_rate = float(estimator.learning_rate_init)
        return state
