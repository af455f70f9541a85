"""Experiments: networks trained on tables and asked about tables, as the command line does it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpunet import description, initializers, losses, optimizers
from gpunet.backend import Backend
from gpunet.fitting import TrainingInterruptedWarning
from gpunet.losses import Loss
from gpunet.model import Network
from gpunet.tabular.datasets import DataSets
from gpunet.tabular.preparation import Preparation
from gpunet.tabular.tables import Kind, Table
from gpunet.typing import HostArray

_CANONICAL = {
    "binary": "cross_entropy",
    "multiclass": "softmax_cross_entropy",
    "regression": "squared_error",
}
RECTIFIERS = ("relu", "leaky_relu", "elu", "maxout", "gelu", "silu")
"""The activations for which He's initial weights are the usual ones."""


@dataclass(frozen=True)
class Settings:
    """What a network for a table is made of, and how it is trained.

    Parameters
    ----------
    backend : Backend
    hidden : tuple of int
        Units of each hidden layer.
    activation : str or sequence of str
        Of the hidden layers: one for all, or one for each.
    loss : str, optional
        None takes the one that suits the task.
    init : str, optional
        None takes He's for rectifying activations, else Xavier's.
    optimizer : str
    learning_rate : float, optional
        None takes the optimizer's own.
    l2 : float
        λ.
    epochs : int
        At most.
    batch_size : int, optional
        None takes a 50th of the examples to train on, within 8 to 512.
    patience : int
        Epochs without an improvement in validation before training stops.
    seed : int
    precision : str

    Raises
    ------
    ValueError
        For unknown names and numbers that make no sense.

    Examples
    --------
    >>> from gpunet import get_backend
    >>> from gpunet.tabular.tables import open_table
    >>> from gpunet.tabular.datasets import prepare
    >>> settings = Settings(get_backend("numpy"), hidden=(8,))
    >>> preparation = prepare(open_table("iris"), "target").preparation
    >>> settings.network(preparation)
    Network([4, 8, 3]: relu, softmax; softmax_cross_entropy, float32 on numpy:cpu)
    """

    backend: Backend
    hidden: tuple[int, ...] = (100,)
    activation: str | Sequence[str] = "relu"
    loss: str | None = None
    init: str | None = None
    optimizer: str = "adam"
    learning_rate: float | None = None
    l2: float = 5.0
    epochs: int = 200
    batch_size: int | None = None
    patience: int = 40
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        optimizers.get(self.optimizer, self.learning_rate)
        initializers.get(self._init)
        if self.loss is not None:
            losses.get(self.loss)

    @cached_property
    def _init(self) -> str:
        # Any number of inputs and outputs will do to check the rest.
        sizes = [1, *self.hidden, 1]
        sketch = description.architecture_of(sizes, self.activation, None, "squared_error")
        rectifies = any(g.name in RECTIFIERS for g in sketch.activations)
        return self.init or ("he" if rectifies else "xavier")

    def loss_for(self, preparation: Preparation) -> Loss:
        """Return the loss to train on.

        Raises
        ------
        ValueError
            For a loss of classes where there are none.
        """
        loss = losses.get(self.loss or _CANONICAL[preparation.task])
        if loss.classification and not preparation.classes:
            raise ValueError(
                f"Loss {loss.name!r} is for classes, but predicting {preparation.target!r} is a regression: use "
                "squared_error, or say that the task is one of classes."
            )
        return loss

    @property
    def centre(self) -> bool:
        """Whether the loss takes targets of any sign."""
        return self.loss is None or losses.get(self.loss).domain[0] < 0.0

    def fitted(self, preparation: Preparation) -> Preparation:
        """Return the preparation as the loss needs it: two classes are two outputs for a softmax."""
        if self.loss_for(preparation).canonical == "softmax":
            return dataclasses.replace(preparation, task="multiclass")
        return preparation

    def network(self, preparation: Preparation) -> Network:
        """Return a network with random parameters for the columns and the task of a preparation.

        Raises
        ------
        ValueError
            For parts that don't fit each other.
        """
        loss = self.loss_for(preparation)
        outputs = len(preparation.classes) if preparation.task == "multiclass" else 1
        squared = preparation.classes and not loss.classification
        return Network(
            [preparation.n_inputs, *self.hidden, outputs],
            hidden=self.activation,
            output="sigmoid" if squared else None,
            loss=loss,
            task=preparation.task,
            init=self._init,
            seed=self.seed,
            dtype=self.precision,
            backend=self.backend,
        )

    def fit(self, network: Network, sets: DataSets, *, progress: bool = False) -> str | None:
        """Train a network, stopping early where there is a validation set.

        Returns
        -------
        str or None
            What to say if it was interrupted; the network has its best parameters then, too.

        Raises
        ------
        DivergenceError
        """
        X, y = sets.train
        watched = len(sets.validation[1]) > 0
        # NumPy needn't warn of a cost that overflows: DivergenceError says it.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # An error can't be overlooked, and fit warns only when the best parameters are in place.
            warnings.simplefilter("error", TrainingInterruptedWarning)
            try:
                network.fit(
                    X,
                    y,
                    optimizer=self.optimizer,
                    learning_rate=self.learning_rate,
                    epochs=self.epochs,
                    batch_size=self.batch_size or min(max(len(y) // 50, 8), 512),
                    l2=self.l2,
                    validation=sets.validation if watched else None,
                    patience=self.patience if watched else None,
                    progress=progress,
                )
            except TrainingInterruptedWarning as warning:
                return str(warning)
        return None


def predictions(
    network: Network, preparation: Preparation, table: Table
) -> Iterator[dict[str, HostArray]]:
    """Predict every row of a table, batch by batch.

    Yields
    ------
    dict of str to array of shape (m,)
        ``prediction`` and, for classes, ``probability_<class>`` for each of them.

    Raises
    ------
    ValueError
        At the first batch: if a column is missing or doesn't hold what it should, or there is no row.
    """
    _require_rows(table, preparation.kinds)
    for batch in table.batches(preparation.kinds):
        outputs = network.forward(preparation.transform(batch, network.dtype))
        columns = {"prediction": preparation.predictions(outputs)}
        if preparation.classes:
            shares = preparation.probabilities(outputs)
            for k, label in enumerate(preparation.classes):
                columns[f"probability_{label}"] = shares[:, k]
        yield columns


def judge(
    network: Network, preparation: Preparation, table: Table, target: str
) -> tuple[HostArray, HostArray]:
    """Return the truth in a table and what a network predicts, to be scored.

    Returns
    -------
    truth, predicted : array of shape (m,)
        Class numbers, or a regression's numbers in the target column's units.

    Raises
    ------
    ValueError
        If a column is missing or doesn't hold what it should, or there is no row.
    """
    if target in preparation.kinds:
        raise ValueError(
            f"Column {target!r} is one that the model predicts from: it can't be the truth."
        )
    _require_rows(table, [target, *preparation.kinds])
    preparation = dataclasses.replace(preparation, target=target)
    text = any(isinstance(label, str) for label in preparation.classes)
    kinds: dict[str, Kind] = {**preparation.kinds, target: "category" if text else "label"}
    labels, predicted = [], []
    for batch in table.batches(kinds):
        labels.append(batch[target])
        outputs = network.forward(preparation.transform(batch, network.dtype))
        predicted.append(preparation.decide(outputs))
    truth = preparation.truth(preparation.encode(np.concatenate(labels)))
    return truth, np.concatenate(predicted)


def _require_rows(table: Table, names: Iterable[str]) -> None:
    """Refuse a table that lacks a column or has no rows."""
    table.require(names)
    if not table.rows:
        raise ValueError(f"{table.source} has no rows: there is nothing to predict.")


def random_examples(network: Network, m: int, seed: int) -> tuple[HostArray, HostArray]:
    """Return examples that fit a network, for a gradient check: X (m, s_1) and Y, (m,) for classes, else (m, K)."""
    random = np.random.default_rng(seed)
    K = network.architecture.sizes[-1]
    X = random.normal(size=(m, network.architecture.sizes[0]))
    if network.task == "regression":
        Y = random.normal(size=(m, K))
        return X, Y if network.architecture.loss.domain[0] < 0.0 else np.abs(Y)
    return X, np.arange(m) % max(K, 2)
