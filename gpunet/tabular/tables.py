"""Tables: rows of named columns, read batch by batch from CSV, Parquet, NPZ or a bundled data set.

A file is never held as a whole (but for NPZ), so that it may be larger than the memory. A column holds numbers or text:

- whole numbers, real numbers and booleans are numbers, and so are dates and times: days since 1970-01-01;
- all else is text. Empty fields, ``NA``, ``NaN``, ``NULL``, ``?`` and the like are missing values in a CSV.
"""

from __future__ import annotations

import difflib
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from gpunet.typing import HostArray

Kind = Literal["number", "category", "label"]
"""What to read a column as: float64 with NaN where a value is missing; str with None there; or just as it is."""

BUNDLED = ("digits", "iris", "wine", "breast_cancer", "diabetes")
"""scikit-learn's data sets that need no download; their target column is called ``target``."""

NPZ_FAILURES = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OSError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise for bytes that are no NPZ file, or a damaged one."""

ROWS_AT_ONCE = 2**14
MICROSECONDS_A_DAY = 86_400e6


@dataclass(frozen=True)
class Column:
    """A column's name and what it holds.

    Attributes
    ----------
    name : str
    type : str
        ``"integer"``, ``"real"``, ``"boolean"``, ``"time"``, ``"text"``, or what it holds that can't be used.
    """

    name: str
    type: str

    @property
    def kind(self) -> Kind | None:
        """How a network takes it: as a number, a category, or (None) not at all."""
        if self.type == "text":
            return "category"
        return "number" if self.type in ("integer", "real", "boolean", "time") else None


@dataclass(frozen=True)
class Batch:
    """Some rows of a table.

    Attributes
    ----------
    start : int
        How many rows come before.
    columns : dict of str to array of shape (rows,)
    """

    start: int
    columns: dict[str, HostArray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> HostArray:
        return self.columns[name]


class Table:
    """The base class: columns, and batches of their rows that can be read any number of times.

    Attributes
    ----------
    source : str
        What errors call it.
    name : str
        What its results are called.
    target : str or None
        The column to predict, where the format says which.
    """

    source: str
    name: str
    target: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in their order."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def batches(self, kinds: Mapping[str, Kind]) -> Iterator[Batch]:
        """Read the rows of some columns, from the first.

        Parameters
        ----------
        kinds : dict of str to {"number", "category", "label"}
            The columns' names, and what to read each as.

        Raises
        ------
        ValueError
            If there is no such column, or text where numbers are asked for.
        """
        raise NotImplementedError

    def require(self, names: Iterable[str]) -> None:
        """Refuse to go on without these columns.

        Raises
        ------
        ValueError
        """
        known = {column.name: column for column in self.columns}
        missing = [name for name in names if name not in known]
        if not missing:
            return
        close = difflib.get_close_matches(missing[0], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; it has {_some(list(known))}."
        raise ValueError(
            f"{self.source} has no column{'s' if len(missing) > 1 else ''} {_some(missing)}{hint}"
        )

    def _checked(self, columns: Iterable[Column]) -> tuple[Column, ...]:
        """Refuse columns of the same name."""
        columns = tuple(columns)
        counts = Counter(column.name for column in columns)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(
                f"{self.source} has several columns called {_some(twice)}: names must differ."
            )
        return columns


class Arrays(Table):
    """A table of NumPy arrays in memory.

    Parameters
    ----------
    source, name : str
    columns : dict of str to array of shape (rows,)
    target : str, optional

    Examples
    --------
    >>> table = Arrays("example", "example", {"x": np.array([1, 2, 3]), "y": np.array(["a", "b", "a"])})
    >>> table.columns
    (Column(name='x', type='integer'), Column(name='y', type='text'))
    >>> [batch["y"].tolist() for batch in table.batches({"y": "category"})]
    [['a', 'b', 'a']]
    """

    def __init__(
        self, source: str, name: str, columns: dict[str, HostArray], target: str | None = None
    ) -> None:
        self.source, self.name, self.target = source, name, target
        self._arrays = columns
        self._columns = tuple(Column(n, self._type(array)) for n, array in columns.items())

    @staticmethod
    def _type(array: HostArray) -> str:
        types = {
            "i": "integer",
            "u": "integer",
            "f": "real",
            "b": "boolean",
            "M": "time",
            "U": "text",
        }
        return types.get(array.dtype.kind, f"values of dtype {array.dtype}")

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._columns

    @property
    def rows(self) -> int:
        return len(next(iter(self._arrays.values())))

    def batches(self, kinds: Mapping[str, Kind]) -> Iterator[Batch]:
        self.require(kinds)
        for start in range(0, self.rows, ROWS_AT_ONCE):
            yield Batch(
                start,
                {
                    name: self._read(name, kind, slice(start, start + ROWS_AT_ONCE))
                    for name, kind in kinds.items()
                },
            )

    def _read(self, name: str, kind: Kind, rows: slice) -> HostArray:
        values = self._arrays[name][rows]
        if kind == "category":
            missing = values != values  # noqa: PLR0124  # NaN and NaT differ from themselves
            return np.where(missing, None, values.astype(str).astype(object))
        if values.dtype.kind == "M":
            days = values.astype("datetime64[us]").astype(np.int64) / MICROSECONDS_A_DAY
            return np.where(np.isnat(values), np.nan, days)
        if kind == "label":
            return values.astype(object) if values.dtype.kind == "U" else values
        if values.dtype.kind == "U":
            return parse(values.tolist(), f"Column {name!r} of {self.source}", rows.start)
        return values.astype(np.float64)


def open_table(data: str | PathLike[str]) -> Table:
    """Open a file, or a bundled data set by its name.

    Parameters
    ----------
    data : str or path
        A ``.csv`` (or ``.csv.gz``), ``.parquet`` or ``.npz`` file, or one of `BUNDLED`.

    Raises
    ------
    FileNotFoundError
        If it is neither a file nor a data set.
    ValueError
        If it can't be read.
    ImportError
        If pyarrow is needed and not installed.

    Examples
    --------
    >>> iris = open_table("iris")
    >>> iris.rows, iris.target, iris.columns[0]
    (150, 'target', Column(name='sepal length (cm)', type='real'))
    """
    if str(data) in BUNDLED:
        return _bundled(str(data))
    path = Path(data)
    if not path.is_file():
        found = ", which is a folder" if os.path.isdir(data) else ""
        raise FileNotFoundError(
            f"No data {str(data)!r}{found}: expected a CSV, Parquet or NPZ file, or one of the data sets "
            f"{', '.join(BUNDLED)}."
        )
    if path.suffix.lower() == ".npz":
        return _npz(path)
    if not path.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        raise ValueError(
            f"{path} should end with .csv, .csv.gz, .parquet or .npz to say how it is read."
        )
    try:
        from gpunet.tabular.arrow import CSV, Parquet  # pyarrow is an extra
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs pyarrow ({error}): pip install 'gpunet[tables]'"
        ) from None
    return Parquet(path) if path.suffix.lower() == ".parquet" else CSV(path)


def _bundled(name: str) -> Arrays:
    """Return one of scikit-learn's data sets, its classes by name where they have one."""
    from sklearn import datasets  # slow to import

    bunch = getattr(datasets, f"load_{name}")()
    classes = bunch.get("target_names")
    target = bunch.target if classes is None else np.asarray(classes)[bunch.target]
    columns = dict(zip(map(str, bunch.feature_names), bunch.data.T, strict=True))
    return Arrays(name, name, {**columns, "target": target}, target="target")


def _npz(path: Path) -> Arrays:
    """Return the arrays X (m, s_1), y (m,) if it is there, and feature_names (s_1,) if they are."""
    expected = "an NPZ file has the arrays X (m, n), y (m,) and, if you like, feature_names (n,)"
    with path.open("rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:  # a pickle may hold code
                arrays = {name: file[name] for name in ("X", "y", "feature_names") if name in file}
        except NPZ_FAILURES:
            raise ValueError(
                f"{path} isn't an NPZ file of plain arrays, or it is damaged: {expected}."
            ) from None
    X = arrays.get("X")
    if X is None or X.ndim != 2:
        found = "no array X" if X is None else f"an X of shape {X.shape}"
        raise ValueError(f"{path} has {found}; {expected}.")
    names = arrays.get("feature_names", np.array([f"x{j}" for j in range(1, X.shape[1] + 1)]))
    y = arrays.get("y")
    if y is not None and y.shape == (len(X), 1):
        y = y[:, 0]
    if names.shape != X.shape[1:] or (y is not None and y.shape != X.shape[:1]):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"The arrays of {path} don't fit each other: {shapes}; {expected}.")
    columns = dict(zip(names.astype(str).tolist(), X.T, strict=True))
    if len(columns) < X.shape[1] or "y" in columns:
        raise ValueError(
            f"The feature_names of {path} have to differ from each other and from 'y'."
        )
    return Arrays(
        str(path),
        path.stem,
        columns if y is None else {**columns, "y": y},
        None if y is None else "y",
    )


def parse(words: list[str | None], name: str, start: int) -> HostArray:
    """Return words as numbers, NaN for None.

    Raises
    ------
    ValueError
        If a word is no number, with its row.

    Examples
    --------
    >>> parse(["1.5", None, "-2"], "Column 'x'", 0)
    array([ 1.5,  nan, -2. ])
    """
    numbers = np.full(len(words), np.nan)
    for row, word in enumerate(words):
        try:
            numbers[row] = np.nan if word is None else float(word)
        except ValueError:
            raise ValueError(
                f"{name} should hold numbers, but has {short(str(word))!r} in row {start + row + 1}, the header not "
                "counted."
            ) from None
    return numbers


def _some(names: list[str], at_most: int = 10) -> str:
    """Return names for an error, not all of them if there are many."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(map(repr, names[:at_most])) + more


def short(text: str, width: int = 60) -> str:
    """Return a text for an error, cut if it is long."""
    return text if len(text) <= width else text[: width - 1] + "…"
