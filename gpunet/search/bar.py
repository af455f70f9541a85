"""A progress bar for a search: networks trained, networks in training, the best score so far, time left."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gpunet.estimators.together import Job


class Silent:
    """Shows nothing."""

    after_epoch: Any = None  # `fit_all` needn't tell

    def plan(self, n: int) -> None:
        """Take note that n more networks are to be trained."""

    def finished(self, task: Any, n_splits: int, score: Any) -> None:
        """Take note of the score of one candidate on one of its splits."""


class SearchBar(Silent):
    """Shows a `rich` progress bar; use `search_bar`.

    Parameters
    ----------
    metric : str, optional
        Which of several scores to show.
    """

    def __init__(self, metric: str | None = None) -> None:
        from rich.progress import (  # rich is for those who watch
            BarColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._metric = metric
        self._lock = threading.Lock()
        self._planned, self._done, self._best = 0, 0, -math.inf
        self._epochs: dict[Any, float] = {}  # of tasks in training, as a share of max_iter
        self._alive: dict[int, int] = {}  # in each thread's stack
        self._scores: dict[int, list[float]] = {}
        self._shown = 0.0
        self.after_epoch = self._after_epoch
        self.progress = Progress(
            TextColumn("networks {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self._task = self.progress.add_task("", total=0)

    def plan(self, n: int) -> None:
        self._planned += n
        self._scores = {}
        self.progress.update(self._task, total=self._planned)

    def _after_epoch(self, jobs: Sequence[Job]) -> None:
        """Take note of another epoch of these networks; from any thread."""
        with self._lock:
            self._alive[threading.get_ident()] = len(jobs)
            for job in jobs:
                share = 1.0 / job.estimator.max_iter
                self._epochs[job.tag] = self._epochs.get(job.tag, 0.0) + share
            self._show()

    def finished(self, task: Any, n_splits: int, score: Any) -> None:
        with self._lock:
            self._done += 1
            self._epochs.pop(task, None)
            if isinstance(score, dict):
                score = score.get(self._metric, math.nan)
            scores = self._scores.setdefault(task.candidate, [])
            scores.append(score)
            if len(scores) == n_splits:
                mean = sum(scores) / n_splits
                self._best = max(self._best, mean)  # NaN is no better
            self._show()

    def _show(self) -> None:
        """Move the bar, ten times a second at most."""
        now = time.perf_counter()
        if now - self._shown < 0.1 and self._done < self._planned:
            return
        self._shown = now
        alive = min(sum(self._alive.values()), self._planned - self._done)
        text = f"{alive} in training"
        if self._best > -math.inf:
            text += f"  best {self._best:.4f}"
        self.progress.update(
            self._task, completed=self._done + sum(self._epochs.values()), description=text
        )


@contextlib.contextmanager
def search_bar(metric: Any = None, *, enabled: bool) -> Iterator[Silent]:
    """Show a progress bar within a ``with`` block, or nothing; nothing either where there is no terminal.

    Examples
    --------
    >>> with search_bar(enabled=False) as bar:
    ...     bar.plan(10)
    """
    bar = SearchBar(metric if isinstance(metric, str) else None) if enabled else None
    if bar is None or not bar.progress.console.is_terminal:
        yield Silent()
        return
    with bar.progress:
        yield bar
