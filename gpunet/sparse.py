"""Sparse examples: made dense a minibatch at a time, or multiplied as they are where a backend can do that."""

from __future__ import annotations

from typing import Any

from gpunet.streaming import HostColumns
from gpunet.typing import Array


def is_sparse(X: Any) -> bool:
    """Return whether X is one of SciPy's sparse matrices or arrays."""
    return type(X).__module__.startswith("scipy.sparse") and hasattr(X, "tocsr")


class SparseColumns(HostColumns):
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

    def __init__(self, rows: Any, backend: Any, dtype: str) -> None:
        super().__init__(rows.tocsr().astype(dtype, copy=False), backend, dtype)

    def chosen(self, examples: Array) -> Any:
        """Return the chosen columns."""
        return self.gather(examples)

    def _dense(self, rows: Any, shape: tuple[int, ...]) -> Array:
        return super()._dense(rows.toarray(), shape)
