"""NumPy on the CPU: always there.

Requires: numpy.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from gpunet.backend import Backend, BackendUnavailableError, Epoch, Stacking, Step
from gpunet.sparse import SparseColumns
from gpunet.streaming import Feed, put_rows
from gpunet.typing import HostArray

from . import blas_threads
from .numpy_primitives import NumPyPrimitives, Workspace

_STEP = 1e6
"""A step's Python takes as long as so many operations."""
_WORTH_NUMBA = 1e7
"""So many an epoch are worth numba: about a millisecond, with NumPy alone."""
_SPENT = 2e9
"""So many in all are, too: the run has taken about as long as it takes to import numba."""


class NumPyBackend(Backend):
    """NumPy; every array is host memory."""

    name = "numpy"
    library = "numpy"
    install = "pip install numpy"
    types = ("numpy",)

    def __init__(self, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise BackendUnavailableError(f"numpy computes on 'cpu' only, not on {device!r}.")
        self.xp = xp
        self.device = "cpu"
        self.primitives = NumPyPrimitives()

    def asarray(self, values: Any, dtype: str | None = None) -> np.ndarray[Any, Any]:
        """Return values as an array; no copy where none is needed."""
        return np.asarray(values, dtype=dtype)

    @property
    def memory(self) -> tuple[int, int]:
        """The host's."""
        return 1, 0

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """Return the array itself."""
        return np.asarray(array)

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Let infinity and NaN come silently, as on a GPU: a run that diverges is told of once, by gpunet."""
        return np.errstate(over="ignore", invalid="ignore", divide="ignore")

    def sparse_columns(self, rows: Any, dtype: str) -> SparseColumns:
        """Return columns that stay sparse in every product."""
        return NumPySparseColumns(rows, self, dtype)

    def feed(self, arrays: Sequence[HostArray], most: int) -> Feed:
        """Return what gathers rows into the same arrays each time: a recorded step knows them again."""
        return _InPlaceFeed(arrays, most, self)

    def compile(self, step: Step) -> Epoch:
        """Return an epoch that is replayed without Python, or a loop whose steps share memory.

        The first where numba is there and not switched off, the run is work enough, and the step can be recorded.
        """
        return _Compiled(step)

    def epochs(
        self, epoch: Epoch, carry: Any, parts: Any, data: Any, stop: Callable[[], bool]
    ) -> tuple[Any, list[Any]]:
        """Run some epochs; recorded ones without Python in between."""
        replayed = None
        if isinstance(epoch, _Compiled):
            # one epoch's batches in the order of several's, for the same program
            parts = [tuple(map(np.ascontiguousarray, part)) for part in parts]
            if parts[0][0].shape[0] > 1:
                replayed = epoch.replayed(carry, parts, data, stop)
        return replayed or super().epochs(epoch, carry, parts, data, stop)

    def stacking(self) -> Stacking:
        """Return stacks that fit a core's cache, one for each thread that BLAS would take.

        A program goes through a stack network by network, so that only one of them has to fit.
        """
        if _uses_numba():
            return Stacking(2**25, blas_threads.count(), whole_epochs=True)
        return Stacking(2**22, blas_threads.count())

    def one_thread(self) -> contextlib.AbstractContextManager[Any]:
        """Keep matrix products to one thread."""
        return blas_threads.one()

    @classmethod
    def of(cls, array: Any) -> Backend | None:
        """Return None: NumPy arrays are host data, and the user's choice decides for them."""
        return None


class _InPlaceFeed(Feed):
    """Gathers the rows of every chunk into the same arrays, which have ``most`` rows."""

    def __init__(self, arrays: Sequence[HostArray], most: int, backend: Backend) -> None:
        super().__init__(arrays, backend)
        self._chunk = tuple(np.empty((most, *array.shape[1:]), array.dtype) for array in arrays)

    def _brought(self, order: HostArray) -> tuple[HostArray, ...]:
        for array, chunk in zip(self._arrays, self._chunk, strict=True):
            put_rows(array, order, chunk[: order.shape[0]])
        return self._chunk


class _Compiled:
    """A training step's epoch: replayed where it can be recorded, or a loop whose steps share memory."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._workspaces: dict[tuple[int, ...], NumPyPrimitives] = {}
        self._programs: Any = None
        self._waiting = hasattr(step, "architecture") and _uses_numba()
        self._enough = 0.0 if os.environ.get("GPUNET_NUMBA") == "1" else _SPENT
        self._spent = 0.0

    def __call__(self, carry: Any, batches: Any, data: Any, stop: Callable[[], bool]) -> Any:
        if self._waiting:
            work = _work(carry, batches)
            self._spent += work
            self._go_over(work)
        program = None if self._programs is None else self._programs.find(carry, batches, data)
        if program is not None:
            return program.run(carry, batches, stop)
        key = batches[0].shape[1:]  # a partial batch has its own
        if key not in self._workspaces:
            self._workspaces[key] = NumPyPrimitives(Workspace())
        primitives = self._workspaces[key]
        for batch in zip(*batches, strict=True):
            if stop():
                break
            primitives.start()
            carry = self._step(primitives, carry, batch, data)
        return carry

    def replayed(
        self, carry: Any, parts: Any, data: Any, stop: Callable[[], bool]
    ) -> tuple[Any, list[Any]] | None:
        """Run some epochs without Python; None where they can't be or are not to, and nothing was done."""
        if self._waiting:
            work = _work(carry, [array[0, ...] for array in parts[0]])
            self._go_over(work, ahead=parts[0][0].shape[0] * work)
        if self._programs is None or stop():
            return None
        return self._programs.replayed(carry, parts, data)  # type: ignore[no-any-return]

    def _go_over(self, work: float, ahead: float = 0.0) -> None:
        """Go over to programs if an epoch has so many operations that they are worth it, or all of them have."""
        if work >= _WORTH_NUMBA or self._spent + ahead >= self._enough:
            from .numba_program import Programs  # imports numba, for those who train

            self._programs, self._waiting = Programs(self._step), False


def _work(carry: Any, batches: Any) -> float:
    """Return how many operations an epoch takes."""
    steps, m = batches[0].shape[0], batches[0].shape[-1]
    return float(steps * (_STEP + 6 * carry[0].size * m))


def _uses_numba() -> bool:
    """Return whether numba is there and not switched off."""
    return os.environ.get("GPUNET_NUMBA") != "0" and _has_numba()


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


class _SparseFactor:
    """A sparse matrix on the right of `numpy.matmul`: dense (..., r, k) times (k, c) is dense (..., r, c)."""

    def __init__(self, transposed: Any) -> None:
        self._rows = transposed

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        """Multiply; anything else is refused."""
        if ufunc is not np.matmul or method != "__call__" or keywords or inputs[1] is not self:
            return NotImplemented
        return self._multiplied(inputs[0])

    def _multiplied(self, left: Any) -> Any:
        return _product(left, self._rows)


class NumPySparseColumns(SparseColumns, _SparseFactor):
    """Sparse columns whose parts stay sparse, in layer 1's product and in its weights' gradient."""

    copied_rows = 0

    def gather(self, examples: Any) -> Any:
        """Return the chosen columns; dense where each network of a stack has its own."""
        return self._part(self._rows[examples]) if examples.ndim == 1 else super().gather(examples)

    def _part(self, rows: Any) -> NumPySparseColumns:
        return NumPySparseColumns(rows, self._backend, self._dtype)

    def _multiplied(self, left: Any) -> Any:
        rows = self._rows
        if rows.nnz < rows.shape[1] // 8 and not left.flags.f_contiguous:
            # few examples: take the columns of Θ that they meet, as often as they meet them
            left = np.take(left, rows.indices, axis=-1)
            met = np.arange(rows.nnz, dtype=rows.indices.dtype)
            rows = type(rows)((rows.data, met, rows.indptr), shape=(rows.shape[0], rows.nnz))
        return _product(left, rows)

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        """Transpose; anything else is refused."""
        if function not in (np.matrix_transpose, np.swapaxes):  # array_api_compat calls the latter
            return NotImplemented
        return _SparseFactor(self._rows.T)


def _product(left: Any, transposed: Any) -> Any:
    """Return dense (..., r, k) times the transpose of a sparse (c, k).

    SciPy multiplies by a (k, r) in C order, but the left one's rows, Θ's say, lie in memory as (r, k). To copy them all
    into the other order takes longer than the product; a few at a time, it happens in the cache.
    """
    rows = left.reshape(math.prod(left.shape[:-1]), left.shape[-1])  # no -1: k may be 0
    if rows.flags.f_contiguous:
        product = (transposed @ rows.T).T
    else:
        c = transposed.shape[0]
        product = np.empty((rows.shape[0], c), dtype=np.result_type(left, transposed))
        few = max(1, 2**17 // max(c, 2**13))  # 16 rows of Θ, 1 of the gradient if it is very wide
        for start in range(0, rows.shape[0], few):
            product[start : start + few] = (transposed @ rows[start : start + few].T).T
    return product.reshape(*left.shape[:-1], transposed.shape[0])
