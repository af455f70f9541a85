"""The estimators' training by minibatches: scikit-learn's loop, its stopping rules and its messages."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from gpunet.backend import dtype_name
from gpunet.estimators.monitor import Monitor
from gpunet.estimators.parameters import dropout_of, optimizer_of, schedule_of
from gpunet.estimators.placement import Placement
from gpunet.estimators.validation import Evaluation, Validation
from gpunet.network import Architecture
from gpunet.runs import Interruption
from gpunet.training import Data, Epochs, TrainingState
from gpunet.typing import Array


class StochasticFit:
    """One `fit` or `partial_fit` of an estimator by minibatches.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Its attributes are what scikit-learn's would be after each epoch.
    place : Placement
    architecture : Architecture
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
        architecture: Architecture,
        data: Data,
        *,
        rows: Array | None,
        validation: Validation | None,
        monitor: Monitor,
    ) -> None:
        self._estimator, self._backend, self._monitor = estimator, place.backend, monitor
        self.n: int = data[0].shape[-1] if rows is None else rows.shape[-1]
        optimizer = optimizer_of(estimator)
        self._n_slots = optimizer.n_slots
        self._epochs = Epochs(
            architecture,
            data,
            backend=place.backend,
            optimizer=optimizer,
            batch_size=self._batch_size(),
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
        estimator, xp = self._estimator, self._backend.xp
        state = self._start(theta, incremental=incremental)
        rate = self._rate()
        # What is kept where no epoch improves: at first the initial parameters; in scikit-learn a warm start trains
        # on the very arrays that hold the best ones, and so keeps the last.
        best = xp.asarray(theta, copy=True) if estimator.t_ == 0 else None
        estimator.n_iter_ = 0
        with Interruption() as interruption:
            for _ in range(estimator.max_iter):
                self._monitor.begin()
                cost = self._epochs.run(state, rate, lambda: interruption.requested)
                if interruption.requested:
                    warnings.warn("Training interrupted by user.", stacklevel=5)
                    break
                record = self._record(cost, state.theta)
                estimator.t_ += self.n
                if (
                    estimator.early_stopping
                    and estimator.validation_scores_[-1] > estimator.best_validation_score_
                ):
                    estimator.best_validation_score_ = estimator.validation_scores_[-1]
                    best = xp.asarray(state.theta, copy=True)
                if self._monitor.end({**record, "learning_rate": rate(state.step)}, state.theta):
                    break
                if self._descends and estimator.learning_rate == "invscaling":
                    scale = (estimator.t_ + 1) ** estimator.power_t
                    estimator._learning_rate = estimator.learning_rate_init / scale
                if estimator._no_improvement_count > estimator.n_iter_no_change:
                    if self._is_stopping():
                        break
                    estimator._no_improvement_count = 0
                if incremental:
                    break
                if estimator.n_iter_ == estimator.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization "
                        "hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=5,
                    )
        estimator._optimizer_state = (state.slots, state.step)
        return state.theta if best is None or not estimator.early_stopping else best

    @property
    def _descends(self) -> bool:
        """Whether scikit-learn's schedules act."""
        return self._estimator.solver in ("sgd", "gradient_descent")

    def _start(self, theta: Array, *, incremental: bool) -> TrainingState:
        """Return where to start: `partial_fit` goes on with the optimizer's memory."""
        estimator = self._estimator
        state = TrainingState(theta, estimator._random_state)
        slots, step = getattr(estimator, "_optimizer_state", (None, 0))
        # another solver than the last fit's has another memory, and starts anew
        if incremental and len(slots or ()) == self._n_slots:
            asarray = self._backend.asarray
            state.slots = tuple(asarray(slot, dtype_name(theta)) for slot in slots or ())
            state.step = step
        else:
            estimator._learning_rate = float(estimator.learning_rate_init)
        return state

    def _rate(self) -> Callable[[int], float]:
        """Return the learning rate as a function of the step's number."""
        estimator = self._estimator
        schedule = schedule_of(estimator.learning_rate)
        if schedule is None:
            return lambda _: estimator._learning_rate
        total = estimator.max_iter * self._epochs.steps
        first = float(estimator.learning_rate_init)
        return lambda step: first * schedule.factor(step, total)

    def _batch_size(self) -> int:
        batch_size: Any = self._estimator.batch_size
        if batch_size == "auto":
            return min(200, self.n)
        if batch_size > self.n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=6,
            )
        return int(min(batch_size, self.n))

    def _record(self, cost: Array, theta: Array) -> dict[str, float]:
        """Note an epoch's loss and score and whether it improved; return all that is known of it."""
        estimator = self._estimator
        record = self._evaluate(cost, theta)
        estimator.loss_ = record["loss"]
        estimator.n_iter_ += 1
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")  # noqa: T201
        if self._held and not math.isfinite(record["validation_score"]):
            record["validation_score"] = math.nan
        if estimator.early_stopping:
            last = record["validation_score"]
            estimator.validation_scores_.append(last)
            if estimator.verbose:
                print(f"Validation score: {last:f}")  # noqa: T201
            worse = last < estimator.best_validation_score_ + estimator.tol
        else:
            worse = estimator.loss_ > estimator.best_loss_ - estimator.tol
            estimator.best_loss_ = min(estimator.best_loss_, estimator.loss_)
        estimator._no_improvement_count = estimator._no_improvement_count + 1 if worse else 0
        return record

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
