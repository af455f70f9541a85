"""Preparation: how a table's columns become a network's inputs, and its outputs predictions.

All of it is plain data that a model's file holds as JSON. What is computed with it are scikit-learn's own transformers:
`StandardScaler` and `SimpleImputer` for numbers, `OneHotEncoder` for categories.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpunet.tabular.tables import Batch, Kind, short
from gpunet.typing import HostArray

Label = str | int | float | bool
"""What a class is called in a target column."""

LARGEST = 1e150
"""The largest number whose square, and a sum of many of them, is still finite."""


@dataclass(frozen=True)
class Number:
    """A column of numbers: (x − mean) / scale, and 0 where a value is missing."""

    name: str
    mean: float
    scale: float


@dataclass(frozen=True)
class Category:
    """A column of text: one input for each of its values. Any other text, and none at all, is 0 in all of them."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Preparation:
    """What a model does to a table before its network, and to the network's outputs after it.

    Parameters
    ----------
    target : str
        The column to predict.
    task : {"binary", "multiclass", "regression"}
    numbers, categories : tuple of Number, tuple of Category
        The columns to predict from. The network's inputs are the numbers, then the categories.
    classes : tuple of str, int, float or bool
        The classes in the order of the network's outputs; empty for a regression.
    mean, scale : float
        Of a regression's target: the network learns (y − mean) / scale.

    Raises
    ------
    ValueError
        For parts that don't fit each other.

    Examples
    --------
    >>> preparation = Preparation(
    ...     target="sold",
    ...     task="binary",
    ...     numbers=(Number("price", mean=10.0, scale=5.0),),
    ...     categories=(Category("colour", ("blue", "red")),),
    ...     classes=("no", "yes"),
    ... )
    >>> price, colour = np.array([20.0, np.nan]), np.array(["red", "pink"], dtype=object)
    >>> preparation.transform(Batch(0, {"price": price, "colour": colour}))
    array([[2., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    >>> preparation.predictions(np.array([[0.7], [0.2]])).tolist()
    ['yes', 'no']
    >>> Preparation.from_dict(preparation.to_dict()) == preparation
    True
    """

    target: str
    task: str
    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    classes: tuple[Label, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        least = {"binary": 2, "multiclass": 2, "regression": 0}.get(self.task)
        if least is None:
            raise ValueError(
                f"Unknown task {self.task!r}; known are binary, multiclass, regression."
            )
        if len(set(self.classes)) != len(self.classes) or (
            len(self.classes) < 2 if self.task == "multiclass" else len(self.classes) != least
        ):
            raise ValueError(f"The classes {self.classes} don't fit the task {self.task!r}.")
        if not self.numbers and not self.categories:
            raise ValueError("There is no column to predict from.")
        if len(self.kinds) < len(self.numbers) + len(self.categories) or self.target in self.kinds:
            raise ValueError(f"The columns {[*self.kinds]} and {self.target!r} have to differ.")
        if not all(c.values and len(set(c.values)) == len(c.values) for c in self.categories):
            raise ValueError("A column of categories has some, and they have to differ.")
        scales = [*((n.mean, n.scale) for n in self.numbers), (self.mean, self.scale)]
        if not all(math.isfinite(mean) and 0.0 < scale < math.inf for mean, scale in scales):
            raise ValueError("Means have to be finite, and scales finite and > 0.")

    @property
    def kinds(self) -> dict[str, Kind]:
        """The columns to predict from and what to read them as, for `Table.batches`."""
        kinds: dict[str, Kind] = {column.name: "number" for column in self.numbers}
        return kinds | {column.name: "category" for column in self.categories}

    @property
    def n_inputs(self) -> int:
        """s_1, the network's inputs."""
        return len(self.numbers) + sum(len(column.values) for column in self.categories)

    @cached_property
    def _number_transformer(self) -> Any:
        from sklearn.impute import SimpleImputer  # slow to import
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        scaler.mean_ = np.array([column.mean for column in self.numbers])
        scaler.scale_ = np.array([column.scale for column in self.numbers])
        scaler.var_ = scaler.scale_**2
        scaler.n_features_in_ = len(self.numbers)
        imputer = SimpleImputer(strategy="constant", fill_value=0.0)
        imputer.fit(np.zeros((1, len(self.numbers))))
        return make_pipeline(scaler, imputer)

    @cached_property
    def _category_transformer(self) -> Any:
        from sklearn.preprocessing import OneHotEncoder  # slow to import

        values = [np.array(column.values, dtype=object) for column in self.categories]
        encoder = OneHotEncoder(
            categories=values, handle_unknown="ignore", sparse_output=False, dtype=np.float32
        )
        return encoder.fit(np.stack([known[:1] for known in values], axis=1))

    def transform(self, batch: Batch, dtype: str = "float32") -> HostArray:
        """Return a table's rows as the network's inputs.

        Parameters
        ----------
        batch : Batch
            With the columns that `kinds` names.
        dtype : str

        Returns
        -------
        array of shape (m, n_inputs)

        Raises
        ------
        ValueError
            If a number is infinite or too large.
        """
        prepared = np.empty((len(batch), self.n_inputs), dtype=dtype)
        if self.numbers:
            numbers = numbers_of(batch, [column.name for column in self.numbers])
            prepared[:, : len(self.numbers)] = self._number_transformer.transform(numbers)
        if self.categories:
            words = np.stack([batch[column.name] for column in self.categories], axis=1)
            prepared[:, len(self.numbers) :] = self._category_transformer.transform(words)
        return prepared

    def encode(self, labels: HostArray) -> HostArray:
        """Return a target column as the network's targets.

        Parameters
        ----------
        labels : array of shape (m,)
            Read as a ``"label"``.

        Returns
        -------
        array of shape (m,)
            Class numbers, or standardised numbers for a regression.

        Raises
        ------
        ValueError
            If a value is missing, infinite, or none of the classes.
        """
        labels = complete(labels, self.target)
        if self.classes:
            return class_numbers(labels, self.classes, self.target)
        return (numeric(labels, self.target) - self.mean) / self.scale

    def decide(self, outputs: HostArray) -> HostArray:
        """Return class numbers, or the numbers a regression predicts, for a network's outputs (m, K); shape (m,)."""
        if not self.classes:
            return self.truth(outputs[:, 0])
        if outputs.shape[1] == 1:
            return (outputs[:, 0] > 0.5).astype(np.int64)
        return outputs.argmax(axis=1)

    def truth(self, targets: HostArray) -> HostArray:
        """Return what `decide` should say for the network's targets (m,): class numbers, or the column's numbers."""
        if self.classes:
            return targets.astype(np.int64)
        return targets.astype(np.float64) * self.scale + self.mean

    def predictions(self, outputs: HostArray) -> HostArray:
        """Return the predicted labels or numbers (m,) for a network's outputs (m, K)."""
        decided = self.decide(outputs)
        if not self.classes:
            return decided
        text = any(isinstance(label, str) for label in self.classes)
        return np.array(self.classes, dtype=object if text else None)[decided]

    def probabilities(self, outputs: HostArray) -> HostArray:
        """Return each class's probability, shape (m, classes), for a network's outputs (m, K)."""
        if outputs.shape[1] == 1:
            return np.concatenate([1.0 - outputs, outputs], axis=1)
        return outputs

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it; nothing is lost."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preparation:
        """Return the preparation that `to_dict` gave, checked.

        Raises
        ------
        ValueError
            If it is none.
        """
        try:
            return cls(
                target=_text(data["target"]),
                task=_text(data["task"]),
                numbers=tuple(
                    Number(_text(n["name"]), _number(n["mean"]), _number(n["scale"]))
                    for n in data["numbers"]
                ),
                categories=tuple(
                    Category(_text(c["name"]), tuple(map(_text, c["values"])))
                    for c in data["categories"]
                ),
                classes=tuple(map(_label, data["classes"])),
                mean=_number(data["mean"]),
                scale=_number(data["scale"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"The preparation of columns is damaged ({error!r}).") from None


def numbers_of(batch: Batch, names: Sequence[str]) -> HostArray:
    """Return columns of a batch as a float64 matrix (m, columns); NaN is a missing value.

    Raises
    ------
    ValueError
        If a number is infinite or so large that its square would be, with its column and row.
    """
    if not names:
        return np.empty((len(batch), 0))
    numbers = np.stack([batch[name] for name in names], axis=1)
    too_large = np.abs(numbers) > LARGEST
    if too_large.any():
        row, column = np.argwhere(too_large)[0].tolist()
        raise ValueError(
            f"Column {names[column]!r} holds {numbers[row, column]:g} in row {batch.start + row + 1}, the header not "
            f"counted: only missing values and finite numbers up to {LARGEST:g} can be used."
        )
    return numbers


def complete(labels: HostArray, target: str) -> HostArray:
    """Return a target column in which no value is missing.

    Raises
    ------
    ValueError
        With the number of missing ones.
    """
    text = labels.dtype == object
    missing = np.array([label is None for label in labels]) if text else np.isnan(labels)
    if missing.any():
        raise ValueError(
            f"Target column {target!r} has no value in {int(missing.sum())} of {len(labels)} rows, the first of them "
            f"row {int(missing.argmax()) + 1}, the header not counted: leave those rows out or fill them in."
        )
    return labels


def numeric(labels: HostArray, target: str) -> HostArray:
    """Return a target column of finite numbers as float64.

    Raises
    ------
    ValueError
        If it holds text or infinity.
    """
    if labels.dtype == object:
        raise ValueError(
            f"Target column {target!r} holds text such as {short(labels[0])!r}, but a regression needs numbers."
        )
    numbers = labels.astype(np.float64)
    too_large = np.abs(numbers) > LARGEST
    if too_large.any():
        row = int(too_large.argmax())
        raise ValueError(
            f"Target column {target!r} holds {numbers[row]:g} in row {row + 1}, the header not counted: a regression "
            f"needs finite numbers up to {LARGEST:g}."
        )
    return numbers


def class_numbers(labels: HostArray, classes: Sequence[Label], target: str) -> HostArray:
    """Return the number of each label's class, int64.

    Raises
    ------
    ValueError
        For a label that is none of the classes.

    Examples
    --------
    >>> class_numbers(np.array(["yes", "no", "yes"], dtype=object), ["no", "yes"], "sold")
    array([1, 0, 1])
    """
    number = {label: k for k, label in enumerate(classes)}
    numbers = np.fromiter((number.get(label, -1) for label in labels.tolist()), np.int64)
    if (numbers < 0).any():
        row = int(numbers.argmin())
        raise ValueError(
            f"Target column {target!r} has {labels.tolist()[row]!r} in row {row + 1}, the header not counted, but the "
            f"model knows only {len(classes)} classes, such as {classes[0]!r}."
        )
    return numbers


def _text(value: Any) -> str:
    """Return a value from a file if it is text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} should be text")
    return value


def _number(value: Any) -> float:
    """Return a value from a file if it is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} should be a number")
    return float(value)


def _label(value: Any) -> Label:
    """Return a value from a file if it may be a class's label."""
    if not isinstance(value, Label):
        raise TypeError(f"{value!r} should be text, a number or a boolean")
    return value
