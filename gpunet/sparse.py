"""Sparse examples: made dense a minibatch at a time, or multiplied as they are where a backend can do that."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

from gpunet.typing import Array


def is_sparse(X: Any) -> bool:
    """Return whether X is one of SciPy's sparse matrices or arrays."""
    return type(X).__module__.startswith("scipy.sparse") and hasattr(X, "tocsr")


def copied_rows(columns: Array) -> int:
    """Return how many numbers of each column a part of the columns holds: they count in a prediction's memory."""
    rows: int = columns.shape[-2]
    return columns.copied_rows if isinstance(columns, SparseColumns) else rows


class SparseColumns:
    """A sparse X (n, d), seen as columns (d, n) by `gpunet.primitives.Primitives.gather`.

    Any part of it is dense, on the device. A backend that multiplies sparse matrices has a subclass whose parts stay
    sparse, and gives it out in `gpunet.backend.Backend.sparse_columns`.

    Parameters
    ----------
    rows : scipy.sparse matrix or array of shape (n, d)
    backend : gpunet.backend.Backend
        Where minibatches go.
    dtype : str
        What they are.
    """

    ndim = 2

    def __init__(self, rows: Any, backend: Any, dtype: str) -> None:
        self._rows = rows.tocsr().astype(dtype, copy=False)
        self._backend = backend
        self._dtype = dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(d, n)."""
        n, d = self._rows.shape
        return d, n

    @property
    def copied_rows(self) -> int:
        """How many numbers a part holds for each of its columns."""
        return self.shape[0]

    def gather(self, examples: Array) -> Array:
        """Return the chosen columns (..., d, m); each network of a stack may choose others."""
        chosen = self._backend.to_host(examples)
        return self._dense(self._rows[chosen.reshape(-1)], chosen.shape)

    def __getitem__(self, key: tuple[EllipsisType, slice]) -> Array:
        """Return a range of columns (d, m)."""
        return self._part(self._rows[key[1]])

    def _part(self, rows: Any) -> Array:
        return self._dense(rows, rows.shape[:1])

    def _dense(self, rows: Any, shape: tuple[int, ...]) -> Array:
        dense = self._backend.asarray(rows.toarray().reshape(*shape, -1), self._dtype)
        return self._backend.xp.matrix_transpose(dense)
