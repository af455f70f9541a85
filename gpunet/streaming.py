"""Examples that stay on the host, where a device's memory doesn't hold them all.

A prediction brings them to the device a part at a time (`HostColumns`), an epoch of training in chunks of some
minibatches, in the order in which it sees them (`Chunks`). The steps are the same as ever, and so are their numbers:
the examples' indices are those within a chunk.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from types import EllipsisType
from typing import Any

from array_api_compat import device

from gpunet.typing import Array, HostArray

VARIABLE = "GPUNET_RESIDENT"
"""0: examples on the host stay there; 1: they are all brought to the device; unset: they are where they fit."""

CHUNK = 2**26
"""Bytes of a chunk, about: a millisecond of a PCI bus, in which many small steps are taken."""


def resident() -> bool | None:
    """Return whether examples are all to be brought to the device; None where nobody has decided.

    Raises
    ------
    ValueError
        If the environment variable is anything but 0 or 1.
    """
    chosen = os.environ.get(VARIABLE) or None
    if chosen not in {"0", "1", None}:
        raise ValueError(
            f"{VARIABLE} is 0 (X stays on the host), 1 (all of X is brought to the device) or unset, not {chosen!r}."
        )
    return None if chosen is None else chosen == "1"


class HostColumns:
    """Rows X (n, d) on the host, seen as columns (d, n) by what takes a part of them at a time.

    Any part of it is an array on the device.

    Parameters
    ----------
    rows : NumPy array of shape (n, d)
    backend : gpunet.backend.Backend
        Where the parts go.
    dtype : str
        What they are.
    examples : NumPy array of int, shape (m,), optional
        Which of the rows they are: these aren't copied, however many there are; None is all.
    """

    ndim = 2

    def __init__(
        self, rows: Any, backend: Any, dtype: str, examples: HostArray | None = None
    ) -> None:
        self._rows, self._backend, self._dtype, self._examples = rows, backend, dtype, examples

    @property
    def rows(self) -> Any:
        """X."""
        return self._rows if self._examples is None else self._rows[self._examples]

    @property
    def shape(self) -> tuple[int, int]:
        """(d, n)."""
        n, d = self._rows.shape
        return d, n if self._examples is None else self._examples.shape[0]

    @property
    def copied_rows(self) -> int:
        """How many numbers a part holds for each of its columns."""
        return self.shape[0]

    @property
    def parts(self) -> int:
        """How many parts they are to be brought in, if all are to be seen once."""
        d, n = self.shape
        width = int(self._dtype.removeprefix("float")) // 8
        return max(1, min(n, math.ceil(d * n * width / CHUNK)))

    def gather(self, examples: Array) -> Array:
        """Return the chosen columns (..., d, m); each network of a stack may choose others."""
        chosen = self._backend.to_host(examples)
        rows = self._of_all(chosen.reshape(-1))
        return self._dense(self._rows[rows], chosen.shape)

    def chosen(self, examples: Array) -> Any:
        """Return the chosen columns to keep: as many as they may be, they stay on the host, where they are."""
        rows = self._of_all(self._backend.to_host(examples))
        return HostColumns(self._rows, self._backend, self._dtype, rows)

    def __getitem__(self, key: tuple[EllipsisType, slice]) -> Array:
        """Return a range of columns (d, m)."""
        return self._part(self._rows[self._of_all(key[1])])

    def _of_all(self, chosen: Any) -> Any:
        """Return where in X what is chosen of these columns is."""
        return chosen if self._examples is None else self._examples[chosen]

    def _part(self, rows: Any) -> Array:
        return self._dense(rows, rows.shape[:1])

    def _dense(self, rows: Any, shape: tuple[int, ...]) -> Array:
        dense = self._backend.asarray(rows.reshape(*shape, rows.shape[-1]), self._dtype)
        return self._backend.xp.matrix_transpose(dense)


def copied_rows(columns: Array) -> int:
    """Return how many numbers of each column a part of the columns holds: they count in a prediction's memory."""
    rows: int = columns.shape[-2]
    return columns.copied_rows if isinstance(columns, HostColumns) else rows


class Feed:
    """Brings rows of host arrays to the device, chunk by chunk.

    A backend may bring the next chunk while the last one is computed on: `gpunet.backend.Backend.feed`.

    Parameters
    ----------
    arrays : sequence of NumPy array of shape (n, ...)
    backend : gpunet.backend.Backend
    """

    def __init__(self, arrays: Sequence[HostArray], backend: Any) -> None:
        self._arrays, self._backend = arrays, backend

    def __call__(self, orders: Iterable[HostArray]) -> Iterator[tuple[Array, ...]]:
        """Yield the rows that each of the orders names, of every array.

        With the next chunk the last one's memory may be overwritten. There may be more rows than were asked for, with
        anything in them.
        """
        for order in orders:
            yield self._brought(order)

    def _brought(self, order: HostArray) -> tuple[Array, ...]:
        """Return a chunk."""
        return tuple(self._backend.asarray(array[order]) for array in self._arrays)


def put_rows(array: HostArray, order: HostArray, into: HostArray) -> None:
    """Put the rows of an array that an order names into another one."""
    if array.flags.c_contiguous:
        # clipping indices, of which none needs it, spares a copy of the result
        array.take(order, axis=0, out=into, mode="clip")
    else:  # of which `take` would copy all, every time
        into[...] = array[order]


class Chunks:
    """The minibatches of epochs whose examples stay on the host.

    Parameters
    ----------
    data : tuple
        x, as `HostColumns`, y (K, n) and weights (n,) or None, on the device, which are read to be brought back with
        x, and λ.
    backend : gpunet.backend.Backend
    batch_size : int
        Examples a step.
    rows : integer array of shape (n,), optional
        The examples to train on; None takes all.
    """

    def __init__(
        self, data: tuple[Any, ...], *, backend: Any, batch_size: int, rows: Array | None
    ) -> None:
        x, y, weights, self._l2 = data
        xp, to_host, m = backend.xp, backend.to_host, batch_size
        if rows is None:
            rows = xp.arange(x.shape[-1], dtype=xp.int64, device=device(y))
        self._rows, self._m, self._xp = to_host(rows), m, xp
        arrays = [x.rows, to_host(xp.matrix_transpose(y))]
        arrays += [] if weights is None else [to_host(weights)]
        arrays[0] = arrays[0].astype(arrays[1].dtype, copy=False)
        full, example = self._rows.shape[0] // m, sum(array[:1].nbytes for array in arrays)
        most = max(1, CHUNK // (m * example))
        self._together = math.ceil(full / math.ceil(full / most))  # chunks of one size
        # where a chunk's examples are in it: they come in the order in which they are seen
        self._local = xp.arange(self._together * m, dtype=xp.int64, device=device(y))
        self._feed = backend.feed(arrays, self._together * m)
        # the last chunk's arrays, and the data made of them: a compiled step knows it again by its identity
        self._seen: tuple[tuple[Array, ...], tuple[Any, ...]] = (), ()

    def epoch(
        self, order: HostArray | None, rates: tuple[Array, ...]
    ) -> Iterator[tuple[tuple[Array, ...], tuple[Any, ...]]]:
        """Yield an epoch's minibatches and the data that their indices are of, chunk by chunk.

        Parameters
        ----------
        order : NumPy array of int, shape (n,), optional
            In which the rows are seen; None is one after the other.
        rates : tuple of array of shape (steps, ...)
            What else a step takes.
        """
        rows, m = self._rows if order is None else self._rows[order], self._m
        n, size = rows.shape[0], self._together * m
        full = n - n % m
        cuts = [(start, min(start + size, full)) for start in range(0, full, size)]
        cuts += [(full, n)] if full < n else []
        feed = self._feed(rows[start:stop] for start, stop in cuts)
        for (start, stop), arrays in zip(cuts, feed, strict=True):
            steps = slice(start // m, math.ceil(stop / m))
            shape = (steps.stop - steps.start, min(m, stop - start))
            examples = self._xp.reshape(self._local[: stop - start], shape)
            yield (examples, *(rate[steps, ...] for rate in rates)), self._columns(arrays)

    def _columns(self, arrays: tuple[Array, ...]) -> tuple[Any, ...]:
        """Return the data of a chunk: the very same where the arrays are."""
        if arrays is not self._seen[0]:
            x, y, *weights = arrays
            transpose = self._xp.matrix_transpose
            data = transpose(x), transpose(y), weights[0] if weights else None, self._l2
            self._seen = arrays, data
        return self._seen[1]
