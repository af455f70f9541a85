"""Who is told of an estimator's epochs: its history, plain callbacks, and scikit-learn's (SLEP023)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Monitor:
    """Tells of each epoch, or iteration of L-BFGS, and asks whether to go on.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Its ``history_`` is written; its ``callbacks`` and those of ``set_callbacks`` are called.
    given : tuple
        X, y and the sample weights in the user's form.
    fitted : callable
        Returns the fitted attributes that stand for a θ; asked only if a callback wants to see them.
    tasks : bool
        Whether scikit-learn's callbacks are called, which is for `fit` only.
    """

    def __init__(
        self,
        estimator: Any,
        given: tuple[Any, Any, Any],
        fitted: Callable[[Any], dict[str, Any]],
        *,
        tasks: bool,
    ) -> None:
        self._estimator, self._fitted = estimator, fitted
        history = estimator.history_
        self._started = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
        X, y, weights = given
        metadata = None if weights is None else {"sample_weight": weights}
        self._about = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._root: Any = None
        self._task: Any = None
        if tasks and hasattr(estimator, "_skl_callbacks"):
            self._root = estimator._init_callback_context(max_subtasks=estimator.max_iter)
            self._root.call_on_fit_task_begin(**self._about)

    @property
    def looked_at(self) -> bool:
        """Whether somebody wants to be told of every epoch when it ends."""
        return bool(self._estimator.callbacks) or self._root is not None

    def begin(self) -> None:
        """Tell scikit-learn's callbacks that an epoch begins, unless one has begun."""
        if self._root is not None and self._task is None:
            self._task = self._root.subcontext(task_name="epoch")
            self._task.call_on_fit_task_begin(**self._about)

    def end(self, record: dict[str, float], theta: Any) -> bool:
        """Write an epoch's record and tell of it; return whether somebody wants training to end."""
        estimator = self._estimator
        history = estimator.history_
        seconds = time.perf_counter() - self._started
        record = {"epoch": len(history) + 1, **record, "seconds": seconds}
        history.append(record)
        stop = False
        for callback in estimator.callbacks:  # all of them are told
            stop = bool(callback(record)) or stop
        if self._task is not None:
            ended = self._task.call_on_fit_task_end(
                **self._about, reconstruction_attributes=lambda: self._fitted(theta)
            )
            self._task = None
            stop = ended or stop
        return stop

    def close(self) -> None:
        """Tell scikit-learn's callbacks that the fit is over; the estimator is fitted by now."""
        # where training was cut short, an epoch has begun and not ended
        for task in (self._task, self._root):
            if task is not None:
                task.call_on_fit_task_end(**self._about, reconstruction_attributes={})
