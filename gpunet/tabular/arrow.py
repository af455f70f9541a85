"""CSV and Parquet tables, streamed by pyarrow: ``pip install 'gpunet[tables]'``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from gpunet.tabular.tables import (
    MICROSECONDS_A_DAY,
    ROWS_AT_ONCE,
    Batch,
    Column,
    Kind,
    Table,
    parse,
    short,
)
from gpunet.typing import HostArray


class CSV(Table):
    """A CSV file in UTF-8: a header line, then rows.

    The columns' types are settled by reading through the file once: pyarrow guesses them from the first block, and a
    column whose later values don't fit is then read as real numbers, and if they don't fit either, as text.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        When it is read: if it is empty, has rows of different lengths, isn't UTF-8, or is damaged.
    """

    block_size = 2**20
    """How many bytes are read at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source, self.name = str(path), path.name.partition(".")[0]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._settled[0]

    @property
    def rows(self) -> int:
        return self._settled[1]

    @cached_property
    def _settled(self) -> tuple[tuple[Column, ...], int, dict[str, Any]]:
        with _named(self.source, "CSV"):
            return self._settle()

    def _settle(self) -> tuple[tuple[Column, ...], int, dict[str, Any]]:
        """Return the columns, the number of rows, and the columns' types for pyarrow."""
        types: dict[str, Any] = {}
        names: list[str] = []
        while True:
            try:
                reader = self._open(types)
                names = reader.schema.names
                columns = self._checked(
                    Column(f.name, _holds(f.type) if f.name else "row labels without a name")
                    for f in reader.schema
                )
                if any(pa.types.is_binary(field.type) for field in reader.schema):
                    raise pa.ArrowInvalid("invalid UTF8 data")
                rows = sum(batch.num_rows for batch in reader)
            except pa.ArrowInvalid as error:
                self._widen(types, names, str(error))
            else:
                return columns, rows, {field.name: field.type for field in reader.schema}

    def _open(self, types: Mapping[str, Any], include: Iterable[str] = ()) -> Any:
        return csv.open_csv(
            self.path,
            # Threads gain nothing in streaming, and without them errors come with the row's number.
            read_options=csv.ReadOptions(use_threads=False, block_size=self.block_size),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict(types),
                include_columns=list(include),
                null_values=[*csv.ConvertOptions().null_values, "?", "<NA>"],
                strings_can_be_null=True,
            ),
        )

    def _widen(self, types: dict[str, Any], names: list[str], problem: str) -> None:
        """Give the column that pyarrow couldn't read a wider type; raise if no type would help."""
        if "straddl" in problem:  # a row longer than a block
            self.block_size *= 2
            return
        if "mpty CSV" in problem:
            raise ValueError(
                f"{self.source} is empty: a CSV has a header line with the columns' names, then rows."
            )
        ragged = re.search(
            r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", problem, re.DOTALL
        )
        if ragged:
            number, expected, got, text = ragged.groups()
            raise ValueError(
                f"{self.source} has rows of different lengths: row {int(number) - 1}, the header not counted, has "
                f"{got} values where the header names {expected} columns: {short(text)!r}."
            )
        failed = re.search(r"CSV column #(\d+): .*conversion error to ([a-z]+)", problem)
        if failed is None or failed[2] == "string":
            remedy = ": save it as UTF-8" if "UTF8" in problem else ""
            raise ValueError(f"{self.source} can't be read as CSV{remedy} ({problem}).")
        wider = {"null": pa.int64(), "int": pa.float64(), "date": pa.timestamp("ns")}
        types[names[int(failed[1])]] = wider.get(failed[2], pa.string())

    def batches(self, kinds: Mapping[str, Kind]) -> Iterator[Batch]:
        self.require(kinds)
        columns, _, settled = self._settled
        text = {column.name for column in columns if column.type == "text"}
        types = {
            # a category is read as it is written: 01 stays 01
            name: pa.string() if kind == "category" or name in text else settled[name]
            for name, kind in kinds.items()
        }
        with _named(self.source, "CSV"):
            yield from _convert(self.source, self._open(types, kinds), kinds)


class Parquet(Table):
    """A Parquet file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        If it is none, or when it is read, if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.source, self.name = str(path), path.stem
        with _named(self.source, "Parquet"):
            self._file = parquet.ParquetFile(path)
        self._columns = self._checked(
            Column(field.name, _holds(field.type, field.name)) for field in self._file.schema_arrow
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._columns

    @property
    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    def batches(self, kinds: Mapping[str, Kind]) -> Iterator[Batch]:
        self.require(kinds)
        with _named(self.source, "Parquet"):
            batches = self._file.iter_batches(ROWS_AT_ONCE, columns=list(kinds))
            yield from _convert(self.source, batches, kinds)


@contextmanager
def _named(source: str, format_: str) -> Iterator[None]:
    """Name the file in what pyarrow says of it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None):  # the system's own refusal has the name
            raise
        remedy = (
            "save it as UTF-8"
            if isinstance(error, UnicodeDecodeError)
            else f"it is damaged, cut off, or no {format_}"
        )
        problem = str(error).strip().rstrip(".")
        raise ValueError(f"{source} can't be read as {format_}: {remedy} ({problem}).") from None


def _convert(source: str, batches: Iterable[Any], kinds: Mapping[str, Kind]) -> Iterator[Batch]:
    """Turn pyarrow's batches into ours."""
    start = 0
    for batch in batches:
        columns = {
            name: _numpy(batch[name], kind, f"Column {name!r} of {source}", start)
            for name, kind in kinds.items()
        }
        yield Batch(start, columns)
        start += batch.num_rows


def _numpy(values: Any, kind: Kind, name: str, start: int) -> HostArray:
    """Return a pyarrow array as a NumPy array of what ``kind`` says."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    holds = _holds(values.type)
    if kind == "category" or (kind == "label" and holds == "text"):
        # one str for each different value of the batch, and None at the end for index -1
        encoded = values.cast(pa.string()).dictionary_encode()
        words = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
        return words[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    if kind == "label" and holds in ("integer", "boolean") and values.null_count == 0:
        return values.to_numpy(zero_copy_only=False)
    if holds == "text":
        return parse(values.to_pylist(), name, start)
    if holds == "time":
        zone = getattr(values.type, "tz", None)
        values = values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers / MICROSECONDS_A_DAY if holds == "time" else numbers


def _holds(type_: Any, name: str = "") -> str:
    """Return what a column of a pyarrow type holds, as in `gpunet.tabular.tables.Column`."""
    types = pa.types
    if types.is_dictionary(type_):
        return _holds(type_.value_type, name)
    if re.fullmatch(r"__index_level_\d+__", name):
        return "row labels of pandas"
    known = {
        "integer": [types.is_integer],
        "real": [types.is_floating, types.is_decimal, types.is_null],
        "boolean": [types.is_boolean],
        "time": [types.is_date, types.is_timestamp],
        "text": [types.is_string, types.is_large_string, types.is_string_view, types.is_time],
    }
    for holds, tests in known.items():
        if any(test(type_) for test in tests):
            return holds
    return f"values of type {type_}"
