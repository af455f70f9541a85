"""Fitting a network: what is set aside, what is watched, and what is said of the end."""

from __future__ import annotations

import functools
import math
import numbers
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpunet.examples import Border
from gpunet.lbfgs import minimize
from gpunet.memory import explained, hypothesis_within, step_too_large
from gpunet.notices import warn
from gpunet.optimizers import LBFGS, Optimizer
from gpunet.primitives import example_share, mean_cost
from gpunet.runs import Callback, EarlyStopping, Result, train
from gpunet.schedules import Schedule
from gpunet.scores import decide, score
from gpunet.step import Data
from gpunet.streaming import HostColumns
from gpunet.training import Epochs, TrainingState
from gpunet.typing import Array

Held = tuple[Array, Array, Array | None]
"""x (s_1, m), y (K, m) and sample weights (m,) or None, to validate on."""


class DivergenceError(ArithmeticError):
    """The cost or a parameter was no longer finite. The network has kept its last finite parameters."""


class TrainingInterruptedWarning(UserWarning):
    """Training ended with Ctrl-C."""


def fit(
    border: Border,
    state: TrainingState,
    data: Data,
    *,
    optimizer: Optimizer | LBFGS,
    schedule: Schedule,
    epochs: int,
    batch_size: int | None,
    shuffle: bool,
    dropout: Any,
    clip_norm: float | None,
    validation: Any,
    patience: int | None,
    tolerance: float,
    callbacks: Sequence[Callback],
    progress: bool,
) -> Result:
    """Train on checked data; the settings are those of `gpunet.Network.fit`.

    Raises
    ------
    ValueError
        For settings that don't fit.
    OutOfMemoryError
        If the device's memory is short even for what can't be made smaller.
    """
    from gpunet.progress import progress_bar  # rich is for those who watch

    for name, number in {
        "epochs": epochs,
        "batch_size": 1 if batch_size is None else batch_size,
    }.items():
        if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < 1:
            raise ValueError(f"{name} has to be a whole number >= 1, but is {number!r}.")
    if patience is not None and not (isinstance(patience, numbers.Integral) and patience >= 0):
        raise ValueError(f"patience has to be a whole number >= 0, or None, but is {patience!r}.")
    if not (isinstance(tolerance, numbers.Real) and 0.0 <= tolerance < math.inf):
        raise ValueError(f"tolerance has to be a finite number >= 0, but is {tolerance!r}.")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data to watch: give validation=0.1, say.")
    dropout = _dropout_of(dropout, len(border.architecture.layers) - 1)
    if clip_norm is not None and not (isinstance(clip_norm, numbers.Real) and clip_norm > 0.0):
        raise ValueError(f"clip_norm has to be a number > 0, or None, but is {clip_norm!r}.")
    if isinstance(optimizer, LBFGS) and (any(dropout) or clip_norm is not None):
        raise ValueError(
            "lbfgs takes whole gradients: leave dropout and clip_norm out, or use another optimizer."
        )

    def too_large() -> str:
        n = data[0].shape[-1]
        whole = isinstance(optimizer, LBFGS) or batch_size is None
        return step_too_large(
            border.architecture,
            border.backend,
            n=n,
            m=n if whole else min(n, batch_size),
            n_slots=0 if isinstance(optimizer, LBFGS) else optimizer.n_slots,
            width=int(border.dtype.removeprefix("float")) // 8,
            on_host=isinstance(data[0], HostColumns),
        )

    with explained(border.backend, too_large):
        border.exclusive(data[1])
        rows, held = hold_out(border, data, validation, state.random)
        m = data[0].shape[-1] if rows is None else rows.shape[-1]
        with progress_bar(epochs, m, enabled=progress) as bar:
            watched: dict[str, Any] = {
                "backend": border.backend,
                "n_epochs": epochs,
                "evaluate": functools.partial(evaluate, border, data, rows, held),
                "stopping": None if held is None else EarlyStopping(patience, tolerance),
                "callbacks": [bar.epoch, *callbacks],
            }
            if isinstance(optimizer, LBFGS):
                return minimize(
                    border.architecture, state, data, optimizer=optimizer, rows=rows, **watched
                )
            run = Epochs(
                border.architecture,
                data,
                backend=border.backend,
                optimizer=optimizer,
                batch_size=batch_size or m,
                rows=rows,
                shuffle=shuffle,
                dropout=dropout,
                clip=clip_norm,
                whole=True,
            )
            planned = state.step + epochs * run.steps

            def learning_rate(step: int) -> float:
                return optimizer.learning_rate * schedule.factor(step, planned)

            return train(run, state, learning_rate=learning_rate, on_step=bar.step, **watched)


def _dropout_of(dropout: Any, n_hidden: int) -> tuple[float, ...]:
    """Return the share to drop of each hidden layer; one that is given for all is repeated."""
    shares = [dropout] * n_hidden if isinstance(dropout, numbers.Real) else list(dropout)
    if len(shares) != n_hidden:
        raise ValueError(
            f"dropout gives {len(shares)} shares, but there are {n_hidden} hidden layers (layers 2 to "
            f"{n_hidden + 1}): give one for all, or one for each."
        )
    if not all(isinstance(share, numbers.Real) and 0.0 <= float(share) < 1.0 for share in shares):
        raise ValueError(f"dropout is a share of the units in [0, 1), but is {dropout!r}.")
    return tuple(map(float, shares))


def report(result: Result) -> None:
    """Say what needs saying about how a run ended.

    Raises
    ------
    DivergenceError
    """
    if result.reason == "diverged":
        kept = "last finite" if result.history else "initial"
        raise DivergenceError(
            f"Training diverged: in epoch {result.epoch} the cost or a parameter was no longer finite. The network "
            f"keeps its {kept} parameters. Try a smaller learning rate, standardised inputs (scikit-learn's "
            "StandardScaler), or a smaller initialization."
        )
    if result.reason == "interrupted":
        warn(
            f"Training was interrupted in epoch {result.epoch}; the best parameters so far are kept.",
            TrainingInterruptedWarning,
        )


def hold_out(
    border: Border, data: Data, validation: Any, random: Any
) -> tuple[Array | None, Held | None]:
    """Return the rows to train on (None: all of them) and what to validate on.

    Parameters
    ----------
    border : Border
    data : Data
    validation : float, pair (X, Y) or None
        A share of the examples, stratified by class where every class fits on both sides, or data of one's own.
    random : numpy.random.RandomState

    Raises
    ------
    ValueError
        For a share that isn't one or holds no example, and for data that doesn't fit.
    """
    x, y, weights, _ = data
    if validation is None:
        return None, None
    if isinstance(validation, tuple | list) and len(validation) == 2:
        x_held = border.columns(validation[0], "validation X", in_parts=True)
        return None, (x_held, border.targets(validation[1], x_held.shape[-1], "validation Y"), None)
    m = x.shape[-1]
    share = float(validation) if isinstance(validation, numbers.Real) else 0.0
    if not (0.0 < share < 1.0 and m * share >= 1.0):
        raise ValueError(
            f"validation is a share of the m = {m} examples in (0, 1) that holds one at least, or a pair (X, Y), "
            f"but is {validation!r}."
        )
    from sklearn.model_selection import train_test_split  # slow to import

    labels = None
    if border.task in ("binary", "multiclass"):
        xp = border.backend.xp
        decided = xp.reshape(decide(xp, border.task, y), (-1,))
        labels = border.backend.to_host(decided).tolist()
        counts = Counter(labels)
        if min(counts.values()) < 2 or min(m * share, m * (1 - share)) < len(counts):
            labels = None
    train_rows, held_rows = train_test_split(
        list(range(m)), test_size=share, random_state=random, stratify=labels
    )
    gather = border.backend.primitives.gather
    held = border.backend.asarray(held_rows, "int64")
    held_columns = x.chosen(held) if isinstance(x, HostColumns) else gather(x, held)
    return (
        border.backend.asarray(train_rows, "int64"),
        (held_columns, gather(y, held), None if weights is None else gather(weights, held)),
    )


def evaluate(
    border: Border, data: Data, rows: Array | None, held: Held | None, theta: Array
) -> dict[str, Array]:
    """Return ``score`` on the training rows, ``validation_cost`` (without λ) and ``validation_score``.

    0-d arrays on the device; the validation's only where there is something to validate on.
    """
    xp, primitives, architecture = border.backend.xp, border.backend.primitives, border.architecture
    x, y, weights, _ = data
    if rows is not None:
        y = primitives.gather(y, rows)
        weights = None if weights is None else primitives.gather(weights, rows)
        if isinstance(x, HostColumns):  # rows are read back once, and not for each part
            x, rows = x.chosen(rows), None
    _, h = hypothesis_within(border.backend, architecture, theta, x, examples=rows)
    values = {"score": score(xp, border.task, h, y, weights)}
    if held is not None:
        x, y, weights = held
        z, h = hypothesis_within(border.backend, architecture, theta, x)
        each = architecture.loss.cost(xp, z, h, y, architecture.activations[-1])
        values["validation_cost"] = mean_cost(xp, each, example_share(xp, y, weights))
        values["validation_score"] = score(xp, border.task, h, y, weights)
    return values
