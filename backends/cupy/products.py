"""Matrix products by cuBLAS, called as NVIDIA's own bindings call it.

CuPy's `matmul` can't be part of a CUDA graph (it refuses while a stream is captured) and copies transposed operands of
stacks. Here nothing is copied that cuBLAS can read as it lies, and nothing is allocated but the result.

Requires: nvmath-python.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from typing import Any

import numpy as np

from gpunet.typing import Array, Namespace

VARIABLE = "GPUNET_PRODUCTS"
PRECISIONS = {
    "float32": "COMPUTE_32F",
    "tf32": "COMPUTE_32F_FAST_TF32",
    "bfloat16": "COMPUTE_32F_FAST_16BF",
    "float16": "COMPUTE_32F_FAST_16F",
}
"""How float32 is multiplied, by what users call it: operands are rounded on their way in, sums are float32 always.

float16's range is so short that training scales its losses for it: `gpunet.loss_scaling`.
"""

WORKSPACE = 2**25
"""Bytes that cuBLAS may work in: what NVIDIA advises for an H100, more than enough for others."""

_TYPES = {"f": 0, "d": 1}  # cudaDataType: CUDA_R_32F, CUDA_R_64F
_SCALARS = {char: (np.ones(1, char), np.zeros(1, char)) for char in _TYPES}  # read by cuBLAS
_NUMBERS = 2**31 - 1


def precision() -> str:
    """Return how float32 is to be multiplied: ``GPUNET_PRODUCTS``, or as it is.

    Raises
    ------
    ValueError
        For a name that isn't known.
    """
    chosen = os.environ.get(VARIABLE, "").lower() or "float32"
    if chosen not in PRECISIONS:
        raise ValueError(f"{VARIABLE} is one of {', '.join(PRECISIONS)}, not {chosen!r}.")
    return chosen


class Products:
    """Multiplies matrices on CuPy's current device and stream.

    Parameters
    ----------
    cupy : module
    cublas : module
        `nvmath.bindings.cublas`.
    """

    def __init__(self, cupy: Any, cublas: Any) -> None:
        self._cupy, self._cublas = cupy, cublas
        self._here = threading.local()  # a handle is for one thread

    def matmul(self, left: Array, right: Array, /, out: Array | None = None) -> Array:
        """Return left @ right; what isn't float32 or float64 in 2 or 3 axes, CuPy multiplies.

        ``out``, where it goes, may be any stack of matrices that are contiguous in themselves.
        """
        if not self._knows(left, right):
            product = self._cupy.matmul(left, right)
            if out is None:
                return product
            out[...] = product
            return out
        (left, left_turned, left_apart), (right, right_turned, right_apart) = (
            self._readable(left),
            self._readable(right),
        )
        rows, columns, inner = left.shape[-2], right.shape[-1], right.shape[-2]
        leading = left.shape[:-2] or right.shape[:-2]
        if out is None:
            out = self._cupy.empty((*leading, rows, columns), dtype=left.dtype)
        networks, (left_step, right_step, step) = math.prod(leading), map(_step, (left, right, out))
        even = not left_turned and left_step == rows * left_apart and step == rows * columns
        if networks > 1 and right.ndim == 2 and even:
            rows, networks = rows * networks, 1  # a stack beside one matrix is one tall matrix
        cublas, char = self._cublas, left.dtype.char
        one, zero = (scalar.ctypes.data for scalar in _SCALARS[char])
        kind = _TYPES[char]
        compute = "COMPUTE_64F" if char == "d" else PRECISIONS[precision()]
        # cuBLAS counts along columns: what is C here is Cᵀ there, which is rightᵀ leftᵀ
        turns = [int(turned) for turned in (right_turned, left_turned)]
        sizes = (self._handle(), *turns, columns, rows, inner, one)
        last = (int(getattr(cublas.ComputeType, compute)), int(cublas.GemmAlgo.DFALT))
        if networks == 1:
            cublas.gemm_ex(
                *(*sizes, right.data.ptr, kind, right_apart, left.data.ptr, kind, left_apart),
                *(zero, out.data.ptr, kind, columns, *last),
            )
        else:
            cublas.gemm_strided_batched_ex(
                *(*sizes, right.data.ptr, kind, right_apart, right_step),
                *(left.data.ptr, kind, left_apart, left_step),
                *(zero, out.data.ptr, kind, columns, step, networks, *last),
            )
        return out

    def _knows(self, left: Array, right: Array) -> bool:
        """Return whether these are two matrices, or stacks of them, that cuBLAS is called for."""
        arrays = (left, right)
        return (
            all(isinstance(array, self._cupy.ndarray) for array in arrays)
            and left.dtype == right.dtype
            and left.dtype.char in _TYPES
            and all(array.ndim in {2, 3} and 0 < array.size <= _NUMBERS for array in arrays)
            and left.shape[-1] == right.shape[-2]
            and (2 in {left.ndim, right.ndim} or left.shape[0] == right.shape[0])
        )

    def _readable(self, array: Array) -> tuple[Array, bool, int]:
        """Return an array, or a copy that cuBLAS can read, and how: see `reading`."""
        found = reading(array)
        if found is None:
            array = self._cupy.ascontiguousarray(array)
            found = False, array.shape[-1]
        return array, *found

    def _handle(self) -> int:
        """Return this thread's handle, on the current stream."""
        here = self._here
        if not hasattr(here, "handle"):
            here.handle = Handle(self._cupy, self._cublas)
        handle: int = here.handle.on(self._cupy.cuda.get_current_stream().ptr)
        return handle


class Handle:
    """cuBLAS's, with memory of its own to work in: under capture it must not allocate any."""

    def __init__(self, cupy: Any, cublas: Any) -> None:
        self._cublas = cublas
        self._workspace = cupy.cuda.Memory(WORKSPACE)  # in nobody's pool
        self._handle: int = cublas.create()
        weakref.finalize(self, _destroy, cublas, self._handle)

    def on(self, stream: int) -> int:
        """Return the handle, set to a stream.

        Each time, which takes less than a microsecond: a new stream may be called as one that is gone.
        """
        self._cublas.set_stream(self._handle, stream)  # which forgets the workspace
        self._cublas.set_workspace(self._handle, self._workspace.ptr, WORKSPACE)
        return self._handle


class Capturable:
    """A namespace without what a CUDA graph can't hold.

    Parameters
    ----------
    xp : namespace
        array-api-compat's for CuPy.
    cupy, products
        CuPy, and what multiplies in its stead.
    """

    def __init__(self, xp: Namespace, cupy: Any, products: Products) -> None:
        self._xp, self._cupy, self.matmul = xp, cupy, products.matmul

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._xp, name)
        setattr(self, name, found)  # found at once the next time
        return found

    def sign(self, x: Array, /) -> Array:
        """Return −1, 0, 1 or NaN of real numbers; array-api-compat's sends a NaN from the host."""
        cupy = self._cupy
        return cupy.where(cupy.isnan(x), x, cupy.sign(x))


def reading(array: Array) -> tuple[bool, int] | None:
    """Return how cuBLAS reads matrices (..., r, c) without a copy; None where it can't.

    Returns
    -------
    turned : bool
        Whether it is the columns that are contiguous, as in a transposed view.
    apart : int
        How many numbers neighbouring rows lie apart; columns where they are turned.
    """
    (r, c), (down, right) = array.shape[-2:], array.strides[-2:]
    down, right = down // array.itemsize, right // array.itemsize
    if (right == 1 or c == 1) and (r == 1 or down >= c):
        return False, c if r == 1 else down
    if (down == 1 or r == 1) and (c == 1 or right >= r):
        return True, r if c == 1 else right
    return None


def _step(array: Array) -> int:
    """Return how many numbers the networks' matrices lie apart; 0 for one that all share."""
    return 0 if array.ndim == 2 else array.strides[0] // array.itemsize


def _destroy(cublas: Any, handle: int) -> None:
    with contextlib.suppress(Exception):  # the driver may have gone first
        cublas.destroy(handle)
