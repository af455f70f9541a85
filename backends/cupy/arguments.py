"""What kernels are told about arrays: sizes, how far numbers lie apart, and whether they take them at all."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from gpunet.activations import Activation
from gpunet.typing import Array

from .kernels import ELEMENTWISE, TYPES

NUMBERS = 2**30  # of an array at most: kernels count in int
NULL: Any = np.uintp(0)
ZERO = np.int64(0)


# A step's shapes and settings are always the same few: what is made of them is kept.


@lru_cache(4096)
def ints(*numbers: int) -> tuple[Any, ...]:
    """Return sizes as kernels count them."""
    return tuple(np.int32(number) for number in numbers)


@lru_cache(4096)
def long(number: int) -> Any:
    """Return a distance as kernels count it."""
    return np.int64(number)


@lru_cache(4096)
def with_rest(value: float, char: str) -> tuple[Any, Any]:
    """Return a number and 1 − it, rounded as the reference rounds them."""
    T = np.dtype(char).type
    return T(value), T(1.0 - value)


def real(value: float, like: Array) -> Any:
    """Return a number in an array's dtype."""
    return with_rest(value, like.dtype.char)[0]


def blocks_of(numbers: int, each: int) -> int:
    """Return how many blocks of ``each`` hold all."""
    return -(-numbers // each)


def lanes_of(units: int) -> int:
    """Return how many threads share a column: 1 up to 16 units, then about one for each 16, 32 at most."""
    return min(32, 1 << ((units - 1) // 16).bit_length())


def dense(array: Array) -> bool:
    """Return whether an array's numbers lie one after the other."""
    return bool(array.flags.c_contiguous)


def plain(*arrays: Array, views: tuple[Array, ...] = ()) -> bool:
    """Return whether kernels take the arrays: all of one known dtype, contiguous but for views, not empty."""
    dtype = (arrays or views)[0].dtype
    if dtype.char not in TYPES:
        return False
    for array in arrays:
        if array.dtype != dtype or not dense(array) or not 0 < array.size <= NUMBERS:
            return False
    return all(view.dtype == dtype and 0 < view.size <= NUMBERS for view in views)


def apart(array: Array, axis: int) -> Any:
    """Return how many numbers neighbours along an axis lie apart."""
    return long(array.strides[axis] // array.itemsize)


def side_by_side(array: Array, axis: int) -> bool:
    """Return whether neighbours along an axis are neighbours in memory.

    One number has no neighbours: what a library says how far they lie apart, 0 or anything, says nothing.
    """
    return bool(array.shape[axis] == 1 or array.strides[axis] == array.itemsize)


def network_step(array: Array, inner: int, leading: tuple[int, ...]) -> Any:
    """Return how many numbers the networks' parts lie apart, 0 for a part that all share; None if kernels can't tell.

    ``array`` has ``inner`` axes after the networks'. A bias has to be contiguous in itself.
    """
    if inner == 1 and not side_by_side(array, -1):
        return None
    if array.ndim == inner:
        return ZERO
    if array.shape[:-inner] == leading and len(leading) == 1:
        return apart(array, 0)
    return None


def strided(array: Array, leading: tuple[int, ...]) -> Any:
    """Return how far a matrix's numbers lie apart: from network to network, from row to row, from column to column.

    Returns
    -------
    tuple of int64, or None
        None where kernels can't tell, as in `network_step`.
    """
    networks = None if array.ndim < 2 else network_step(array, 2, leading)
    if networks is None or min(array.strides) < 0:
        return None
    return networks, apart(array, -2), apart(array, -1)


def by_rows(array: Array) -> bool:
    """Return whether matrices lie row after row, each one contiguous in itself."""
    row = array.shape[-1] * array.itemsize
    return side_by_side(array, -1) and bool(array.shape[-2] == 1 or array.strides[-2] == row)


def rate_step(rate: Any, theta: Array) -> Any:
    """Return how many numbers the networks' rates lie apart, or None for what kernels don't take."""
    if not isinstance(rate, type(theta)) or rate.dtype != theta.dtype:
        return None
    if rate.ndim == 0:
        return ZERO
    return apart(rate, 0) if rate.shape == (*theta.shape[:-1], 1) and rate.ndim == 2 else None


def settings_of(activation: Activation, like: Array) -> tuple[Any, Any]:
    """Return an activation's setting and 1 − setting."""
    name = ELEMENTWISE[type(activation)]
    return with_rest(0.0 if name is None else getattr(activation, name), like.dtype.char)


def number_of(value: Any, theta: Array) -> tuple[Any, Any, Any] | None:
    """Return an optimizer's number as a kernel takes it: an array of each network's own, or it and 1 − it."""
    char = theta.dtype.char
    if isinstance(value, float | int):
        return NULL, *with_rest(value, char)
    if not isinstance(value, type(theta)) or value.dtype != theta.dtype:
        return None
    own = value.shape == (*theta.shape[:-1], 1) and dense(value)
    return (value, *with_rest(0.0, char)) if own else None
