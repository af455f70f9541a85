"""Data sets: a table's rows as examples to train on, to validate on and to test with.

The table is read three times, a batch at a time, so that no more of it is ever held than one matrix of prepared
numbers: its target column, to split the rows; the training rows, for the statistics of the preparation; and all rows,
each prepared and put in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gpunet.tabular.preparation import (
    Category,
    Label,
    Number,
    Preparation,
    class_numbers,
    complete,
    numbers_of,
    numeric,
)
from gpunet.tabular.tables import Batch, Column, Kind, Table, short
from gpunet.typing import HostArray

MOST_CATEGORIES = 100
"""How many categories of a column are told apart."""
MOST_INTEGER_CLASSES = 20
"""A target of whole numbers is taken for a regression if it has more values than this."""


@dataclass(frozen=True)
class DataSets:
    """Prepared examples in three parts, each a view of the same matrix.

    Attributes
    ----------
    preparation : Preparation
        Its statistics are those of the training rows only.
    train, validation, test : pair of array of shape (m, s_1) and array of shape (m,)
        X and y, as `gpunet.Network.fit` takes them; validation and test may have m = 0.
    notes : list of str
        What a user should know of columns that were left out or cut.
    """

    preparation: Preparation
    train: tuple[HostArray, HostArray]
    validation: tuple[HostArray, HostArray]
    test: tuple[HostArray, HostArray]
    notes: list[str]


def prepare(
    table: Table,
    target: str,
    *,
    task: str | None = None,
    drop: Iterable[str] = (),
    validation: float = 0.1,
    test: float = 0.2,
    centre: bool = True,
    seed: int = 0,
    dtype: str = "float32",
) -> DataSets:
    """Read a table and prepare it for training.

    Parameters
    ----------
    table : Table
    target : str
        The column to predict.
    task : {"binary", "multiclass", "regression"}, optional
        None infers it: text, booleans and whole numbers of at most 20 values are classes, other numbers a regression.
    drop : iterable of str
        Columns not to predict from.
    validation, test : float
        The shares of all rows to validate on and to test with, stratified by class where possible.
    centre : bool
        Whether the mean of a regression's target is taken off. Without it a positive target stays positive, and is only
        scaled, by its mean.
    seed : int
        For the split.
    dtype : str
        Of the examples.

    Returns
    -------
    DataSets

    Raises
    ------
    ValueError
        For columns that aren't there, a target that doesn't fit the task or holds a single class, missing targets,
        infinity, and tables with too few rows or columns.

    Examples
    --------
    >>> from gpunet.tabular.tables import open_table
    >>> sets = prepare(open_table("iris"), "target")
    >>> sets.preparation.task, sets.preparation.classes
    ('multiclass', ('setosa', 'versicolor', 'virginica'))
    >>> sets.train[0].shape, sets.validation[0].shape, sets.test[0].shape
    ((105, 4), (15, 4), (30, 4))
    """
    drop = list(drop)
    table.require([target, *drop])
    for column in table.columns:
        if column.name == target and column.kind is None:
            raise ValueError(
                f"Column {target!r} of {table.source} holds {column.type}, which can't be predicted: a target is "
                "numbers, booleans or text."
            )
    features = [column for column in table.columns if column.name not in (target, *drop)]
    labels = _labels(table, target)
    task, classes = _task(labels, target, task)
    y = class_numbers(labels, classes, target) if classes else numeric(labels, target)
    part = _split(y if classes else None, len(y), validation, test, seed)

    statistics = Statistics(features)
    if statistics.kinds:
        for batch in table.batches(statistics.kinds):
            statistics.update(batch, part[batch.start : batch.start + len(batch)] == 0)
    numbers, categories, notes = statistics.result()
    if not numbers and not categories:
        told = "".join(f"; {note}" for note in notes)
        raise ValueError(f"{table.source} has no column to predict {target!r} from{told}.")
    mean, scale = (0.0, 1.0) if classes else _standard(y[part == 0], centre)
    preparation = Preparation(target, task, numbers, categories, classes, mean, scale)

    y = np.concatenate([y[part == p] for p in range(3)])
    y = ((y - mean) / scale).astype(dtype)
    X = np.empty((len(y), preparation.n_inputs), dtype=dtype)
    stops = np.cumsum(np.bincount(part, minlength=3)).tolist()
    filled = [0, *stops[:-1]]
    for batch in table.batches(preparation.kinds):
        prepared = preparation.transform(batch, dtype)
        parts = part[batch.start : batch.start + len(batch)]
        for p in range(3):
            rows = prepared[parts == p]
            X[filled[p] : filled[p] + len(rows)] = rows
            filled[p] += len(rows)
    train, held, tested = (
        (X[start:stop], y[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)
    )
    return DataSets(preparation, train, held, tested, notes)


def _labels(table: Table, target: str) -> HostArray:
    """Return the target column (m,), every value there."""
    parts = [batch[target] for batch in table.batches({target: "label"})]
    if not parts or not sum(map(len, parts)):
        raise ValueError(f"{table.source} has no rows: there is nothing to learn from.")
    return complete(np.concatenate(parts), target)


def _task(labels: HostArray, target: str, task: str | None) -> tuple[str, tuple[Label, ...]]:
    """Return the task that was asked for, or the one that fits, and its classes."""
    if task not in (None, "binary", "multiclass", "regression"):
        raise ValueError(f"Unknown task {task!r}; known are binary, multiclass, regression.")
    # sorting objects compares them one by one: a set first
    values: HostArray = sorted(set(labels)) if labels.dtype == object else np.unique(labels)
    if len(values) == 1:
        holds = "number" if task == "regression" or labels.dtype.kind == "f" else "class"
        raise ValueError(
            f"Target column {target!r} holds a single {holds}, {values[0]!s}: there is nothing to learn."
        )
    if task is None:
        many = labels.dtype.kind in "iu" and len(values) > MOST_INTEGER_CLASSES
        inferred = "binary" if len(values) == 2 else "multiclass"
        task = "regression" if labels.dtype.kind == "f" or many else inferred
    if task == "regression":
        return task, ()
    if task == "binary" and len(values) > 2:
        raise ValueError(
            f"Target column {target!r} has {len(values)} classes, but a binary task has 2: use the task 'multiclass'."
        )
    if len(values) > max(2, len(labels) / 2):
        remedy = (
            "for a regression it has to hold numbers only"
            if labels.dtype == object
            else "use the task 'regression'"
        )
        raise ValueError(
            f"Target column {target!r} has {len(values)} different values in {len(labels)} rows, such as "
            f"{short(str(values[0]))!r}: too many for classes; {remedy}."
        )
    classes = list(values) if labels.dtype == object else values.tolist()
    if labels.dtype.kind == "f" and all(value.is_integer() for value in classes):
        classes = [int(value) for value in classes]
    return task, tuple(classes)


def _split(
    classes: HostArray | None, m: int, validation: float, test: float, seed: int
) -> HostArray:
    """Return each row's part: 0 to train on, 1 to validate on, 2 to test with; int8, shape (m,).

    Stratified by the rows' ``classes``, whole numbers (m,), where every class fits into every part.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    part = np.zeros(m, dtype=np.int8)
    for number, name, share in ((2, "test", test), (1, "validation", validation)):
        if not 0.0 <= share < 1.0:
            raise ValueError(f"The {name} share has to lie in [0, 1), but is {share}.")
        if share == 0.0:
            continue
        rows = np.flatnonzero(part == 0)
        held = max(1, round(share * m))
        if len(rows) - held < 1:
            raise ValueError(
                f"No row is left to train on: there are {m}, of which a share of {validation:g} is to validate on and "
                f"{test:g} to test with, at least one each. Make these shares smaller."
            )
        among = None if classes is None else classes[rows]
        if among is not None:
            counts = np.unique_counts(among).counts
            if counts.min() < 2 or min(held, len(rows) - held) < len(counts):
                among = None
        _, chosen = train_test_split(rows, test_size=held, random_state=seed, stratify=among)
        part[chosen] = number
    return part


def _standard(values: HostArray, centre: bool) -> tuple[float, float]:
    """Return what to take off a regression's target, and its scale."""
    if not centre:
        mean = float(values.mean())
        return 0.0, mean if mean > 0.0 else 1.0
    from sklearn.preprocessing import StandardScaler  # slow to import

    scaler = StandardScaler().fit(values[:, None])
    return float(scaler.mean_[0]), float(scaler.scale_[0])


class Statistics:
    """What a preparation has to know of the columns, gathered batch by batch.

    Parameters
    ----------
    columns : sequence of Column
        The columns to predict from.

    Examples
    --------
    >>> statistics = Statistics([Column("x", "real"), Column("colour", "text")])
    >>> words = np.array(["red", "blue", "red"], dtype=object)
    >>> statistics.update(Batch(0, {"x": np.array([0.0, 4.0, np.nan]), "colour": words}))
    >>> numbers, categories, notes = statistics.result()
    >>> numbers, categories
    ((Number(name='x', mean=2.0, scale=2.0),), (Category(name='colour', values=('blue', 'red')),))
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        from sklearn.preprocessing import StandardScaler  # slow to import

        self._unusable = [column for column in columns if column.kind is None]
        self._names = [column.name for column in columns if column.kind == "number"]
        self._scaler = StandardScaler()
        self._tallies = {column.name: _Tally() for column in columns if column.kind == "category"}

    @property
    def kinds(self) -> dict[str, Kind]:
        """The columns and what to read them as, for `Table.batches`."""
        kinds: dict[str, Kind] = dict.fromkeys(self._names, "number")
        return kinds | dict.fromkeys(self._tallies, "category")

    def update(self, batch: Batch, rows: HostArray | slice = slice(None)) -> None:
        """Take note of some of a batch's rows.

        Raises
        ------
        ValueError
            If a number is infinite or too large.
        """
        numbers = numbers_of(batch, self._names)[rows]
        if numbers.size:
            # A column without a value has 0/0 as its mean, which would stay NaN in all later batches.
            with np.errstate(invalid="ignore", divide="ignore"):
                self._scaler.partial_fit(numbers)
            np.nan_to_num(self._scaler.mean_, copy=False)
            np.nan_to_num(self._scaler.var_, copy=False)
        for name, tally in self._tallies.items():
            tally.update(batch[name][rows])

    def result(self) -> tuple[tuple[Number, ...], tuple[Category, ...], list[str]]:
        """Return the columns to predict from, and notes on those that were left out or cut."""
        notes = [f"column {c.name!r} is left out: it holds {c.type}" for c in self._unusable]
        numbers, categories = [], []
        counts = (
            np.broadcast_to(self._scaler.n_samples_seen_, len(self._names)) if self._names else ()
        )
        for j, (name, count) in enumerate(zip(self._names, counts, strict=True)):
            if count:
                mean, scale = float(self._scaler.mean_[j]), float(self._scaler.scale_[j])
                numbers.append(Number(name, mean, scale))
            else:
                notes.append(f"column {name!r} is left out: it has no value")
        for name, tally in self._tallies.items():
            stray = tally.stray()
            if stray is not None:
                notes.append(
                    f"column {name!r} is read as text, since it has {stray!r} among numbers"
                )
            if not tally.counts:
                notes.append(f"column {name!r} is left out: it has no value")
            elif not tally.repeated:
                notes.append(
                    f"column {name!r} is left out: its text is different in every row, as an identifier's is"
                )
            else:
                categories.append(Category(name, tally.most_frequent()))
                if len(tally.counts) > MOST_CATEGORIES:
                    notes.append(
                        f"column {name!r} has many categories: the {MOST_CATEGORIES} most frequent are told apart"
                    )
        return tuple(numbers), tuple(categories), notes


class _Tally:
    """Counts a column's values, in little memory however many there are."""

    most = 10_000

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.repeated = False

    def update(self, values: HostArray) -> None:
        self.counts.update(value for value in values.tolist() if value is not None)
        self.repeated = self.repeated or any(count > 1 for count in self.counts.values())
        if len(self.counts) > self.most:  # from here on the rare ones' counts are approximate
            self.counts = Counter(dict(self.counts.most_common(self.most // 2)))

    def stray(self) -> str | None:
        """Return a value that is no number, where most are."""
        others = [value for value in self.counts if not _is_number(value)]
        return short(others[0]) if 0 < len(others) < len(self.counts) / 2 else None

    def most_frequent(self) -> tuple[str, ...]:
        """Return the most frequent values in alphabetical order; of equally frequent ones the first."""
        ranked = sorted(self.counts, key=lambda value: (-self.counts[value], value))
        return tuple(sorted(ranked[:MOST_CATEGORIES]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
