"""Examples larger than the device's memory: the next chunk is copied while the last one is trained on."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpunet.streaming import CHUNK, Feed, put_rows
from gpunet.typing import Array, HostArray

SHARE = 0.7
"""How much of the free memory examples may take: the rest is for targets, parameters, and what a step computes."""

MOST_THREADS = 8
"""One thread gathers some 6 GB of rows in a second, a bus has ten times that."""
WORTH_A_THREAD = 2**22
"""Bytes that take a thread some hundred times as long as it takes to wake it."""


LARGE = 4 * CHUNK
"""Bytes of an array that is brought to the device in chunks."""


def brought(cupy: Any, array: HostArray, backend: Any) -> Array:
    """Return a large array of the host on the device, brought there through buffers of a chunk's size.

    CuPy's own `asarray` copies all of it to pinned memory first, which its pool keeps, of the next power of 2 in size:
    for 70 GB more than most hosts have left.
    """
    n = array.shape[0]
    rows = max(1, min(n, CHUNK * n // array.nbytes))
    made, starts = cupy.empty(array.shape, dtype=array.dtype), range(0, n, rows)
    chunks = PinnedFeed(cupy, [array], rows, backend)(
        np.arange(start, min(start + rows, n)) for start in starts
    )
    for start, (chunk,) in zip(starts, chunks, strict=True):
        made[start : start + rows] = chunk[: n - start]
    return made


def room(cupy: Any, device: Any) -> int:
    """Return how many bytes of a device are free, those that CuPy's pool keeps for arrays to come among them."""
    with device:
        pool = cupy.get_default_memory_pool()
        free = int(device.mem_info[0]) + int(pool.free_bytes())
        limit = int(pool.get_limit())
        return min(free, limit - int(pool.used_bytes())) if limit else free


class PinnedFeed(Feed):
    """Brings rows through two buffers in the host's pinned memory and one on the device, on a stream of its own.

    The host gathers rows into one buffer while the other one is on its way, and the chunk that is computed on is copied
    from the device's buffer, much faster than over a bus. So its arrays are always the same, as CUDA graphs need them.

    Parameters
    ----------
    cupy : module
    arrays : sequence of NumPy array of shape (n, ...)
    most : int
        How many rows a chunk may have.
    backend : gpunet.backend.Backend
    """

    def __init__(self, cupy: Any, arrays: Sequence[HostArray], most: int, backend: Any) -> None:
        super().__init__(arrays, backend)
        self._cupy = cupy
        shapes = [((most, *array.shape[1:]), array.dtype) for array in arrays]
        self._pinned = [[_pinned(cupy, shape, dtype) for shape, dtype in shapes] for _ in range(2)]
        self._sent: list[Any] = [None, None]  # when a pinned buffer may be written again
        self._turns = itertools.cycle((0, 1))  # which goes on from epoch to epoch
        self._arriving = [cupy.empty(shape, dtype=dtype) for shape, dtype in shapes]
        self._chunk = tuple(cupy.empty(shape, dtype=dtype) for shape, dtype in shapes)
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._n_threads = min(MOST_THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self._n_threads)  # which starts them when it needs them

    def __call__(self, orders: Iterable[HostArray]) -> Iterator[tuple[Array, ...]]:
        """Yield the chunks, without waiting for the device but where it is two of them behind."""
        here = self._cupy.cuda.get_current_stream()
        taken = here.record()  # what was computed before in the device's buffer
        try:
            for order, which in zip(orders, self._turns, strict=False):
                rows = slice(order.shape[0])
                if self._sent[which] is not None:
                    self._sent[which].synchronize()
                self._copies.wait_event(taken)
                for array, pinned, arriving in zip(
                    self._arrays, self._pinned[which], self._arriving, strict=True
                ):
                    self._gather(array, order, pinned[rows])
                    arriving[rows].set(pinned[rows], stream=self._copies)
                self._sent[which] = self._copies.record()
                here.wait_event(self._sent[which])
                for arriving, chunk in zip(self._arriving, self._chunk, strict=True):
                    chunk[rows] = arriving[rows]
                taken = here.record()
                yield self._chunk
        finally:  # however it ends: CuPy's pools don't know that a copy still reads and writes these buffers
            self._copies.synchronize()

    def _gather(self, array: HostArray, order: HostArray, into: HostArray) -> None:
        """Gather rows, a share of them in each thread."""
        shares = max(1, min(self._n_threads, into.nbytes // WORTH_A_THREAD))
        cuts = [order.shape[0] * k // shares for k in range(shares + 1)]

        def gather(start: int, stop: int) -> None:  # NumPy lets go of Python's lock
            put_rows(array, order[start:stop], into[start:stop])

        if shares == 1:
            gather(*cuts)
        else:
            list(self._threads.map(gather, cuts, cuts[1:]))


def _pinned(cupy: Any, shape: tuple[int, ...], dtype: Any) -> HostArray:
    """Return an array in memory that the device reads by itself, from CuPy's pool of it."""
    size = math.prod(shape) * dtype.itemsize
    return np.ndarray(shape, dtype, buffer=cupy.cuda.alloc_pinned_memory(size))
