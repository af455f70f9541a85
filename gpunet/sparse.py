"""Sparse examples: made dense a minibatch at a time, so that X as a whole never is."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

from gpunet.typing import Array


def is_sparse(X: Any) -> bool:
    """Return whether X is one of SciPy's sparse matrices or arrays."""
    return type(X).__module__.startswith("scipy.sparse") and hasattr(X, "tocsr")


class SparseColumns:
    """A sparse X (n, d), seen as columns (d, n) by `gpunet.primitives.Primitives.gather`.

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
        self._rows = rows.tocsr()
        self._backend = backend
        self._dtype = dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(d, n)."""
        n, d = self._rows.shape
        return d, n

    def gather(self, examples: Array) -> Array:
        """Return the chosen columns, dense (d, m), on the device."""
        return self._dense(self._rows[self._backend.to_host(examples)])

    def __getitem__(self, key: tuple[EllipsisType, slice]) -> Array:
        """Return a range of columns, dense (d, m), on the device."""
        return self._dense(self._rows[key[1]])

    def _dense(self, rows: Any) -> Array:
        dense = self._backend.asarray(rows.toarray(), self._dtype)
        return self._backend.xp.matrix_transpose(dense)
