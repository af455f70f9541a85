"""A progress bar for training: epoch, cost, validation score, examples per second, time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from gpunet.runs import Record


class Silent:
    """Shows nothing."""

    def step(self, examples: int) -> None:
        """Take note that a step takes this many examples."""

    def epoch(self, record: Record) -> bool:
        """Take note of an epoch; never asks to stop."""
        return False


class ProgressBar(Silent):
    """Shows a `rich` progress bar; use `progress_bar`.

    Parameters
    ----------
    epochs : int
        Planned epochs.
    examples : int
        Examples an epoch.
    """

    def __init__(self, epochs: int, examples: int) -> None:
        from rich.progress import (  # rich is for those who watch
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._examples = examples
        self._seen = 0
        self._epochs_done = 0
        self._since_epoch = 0
        self._started = time.perf_counter()
        self._shown = 0.0
        self.progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[speed]} examples/s"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self._task = self.progress.add_task("", total=epochs, speed="–")

    def step(self, examples: int) -> None:
        """Move the bar within an epoch, ten times a second at most."""
        self._since_epoch += examples
        now = time.perf_counter()
        if now - self._shown > 0.1:
            self._shown = now
            self._show(now, self._epochs_done + self._since_epoch / self._examples)

    def epoch(self, record: Record) -> bool:
        """Show an epoch's cost and score."""
        self._epochs_done += 1
        self._seen += self._examples
        self._since_epoch = 0
        text = f"cost {record['cost']:.4g}"
        if "validation_score" in record:
            text += f"  validation {record['validation_score']:.4f}"
        self.progress.update(self._task, description=text)
        now = time.perf_counter()
        if now - self._shown > 0.1 or self._epochs_done >= (self.progress.tasks[0].total or 0):
            self._shown = now
            self._show(now, self._epochs_done)
        return False

    def _show(self, now: float, completed: float) -> None:
        speed = (self._seen + self._since_epoch) / max(now - self._started, 1e-9)
        self.progress.update(self._task, completed=completed, speed=f"{speed:,.0f}")


@contextlib.contextmanager
def progress_bar(epochs: int, examples: int, *, enabled: bool) -> Iterator[Silent]:
    """Show a progress bar within a ``with`` block, or nothing.

    Examples
    --------
    >>> with progress_bar(3, 100, enabled=False) as bar:
    ...     bar.step(100)
    ...     bar.epoch({"cost": 0.1})
    False
    """
    if not enabled:
        yield Silent()
        return
    bar = ProgressBar(epochs, examples)
    with bar.progress:
        yield bar
