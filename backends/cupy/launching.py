"""What all of CUDA's primitives launch with: grids, and the sums that many of them need."""

from __future__ import annotations

import math
import threading
from typing import Any

from gpunet.primitives import Primitives
from gpunet.typing import Array, Namespace

from .arguments import ZERO, apart, blocks_of, ints, lanes_of
from .kernels import THREADS, TYPES, Launch

ROWS = 2**16 - 1  # of a grid at most; kernels go round
PART = 2**13  # of a row that is summed by one block


class Launching(Primitives):
    """The reference, and ways to launch kernels.

    Parameters
    ----------
    xp : namespace
        CuPy's.
    launch : callable
        See `gpunet.backends.cupy.kernels.Launch`.
    """

    def __init__(self, xp: Namespace, launch: Launch) -> None:
        super().__init__(xp)
        self._launch = launch
        self._here = threading.local()  # the gradient of the step that this thread is in

    def _sums(self, values: Array, what: str = "Itself", out: Array | None = None) -> Array:
        """Return the sum over the last axis of an array whose rows are contiguous in themselves.

        A long row is added up in parts by many blocks, and then the parts.
        """
        *leading, m = values.shape
        rows, parts = math.prod(leading), min(blocks_of(m, PART), THREADS)
        sums, group, group_apart = out, rows, ZERO
        if out is None or parts > 1:
            sums = self.xp.empty((*leading, parts), dtype=values.dtype)
        elif out.ndim > 1:
            group, group_apart = out.shape[-1], apart(out, 0)
        lanes = 32 if m <= 1024 else THREADS  # a warp to a row, or a block to a long one
        rows_apart = apart(values, -2) if rows > 1 else ZERO
        self._launch(
            f"sums<{TYPES[values.dtype.char]}, {what}>",
            (blocks_of(rows, THREADS // lanes), parts),
            (lanes, THREADS // lanes),
            (values, sums, *ints(rows, m), rows_apart, *ints(group), group_apart),
        )
        if parts > 1:
            return self._sums(sums, out=out)
        return self.xp.reshape(sums, tuple(leading)) if out is None else out

    def _by_row(self, name: str, rows: int, m: int, arguments: tuple[Any, ...]) -> None:
        """Launch with a warp to 32 neighbours of a row."""
        grid = (blocks_of(m, 32), min(blocks_of(rows, 8), ROWS))
        self._launch(name, grid, (32, 8), arguments)

    def _by_column(
        self, name: str, networks: int, units: int, m: int, arguments: tuple[Any, ...]
    ) -> None:
        """Launch with some threads to each column."""
        lanes = lanes_of(units)
        block = (THREADS // lanes, lanes)
        self._launch(name, (blocks_of(m, block[0]), min(networks, ROWS)), block, arguments)

    def _by_number(self, name: str, networks: int, size: int, arguments: tuple[Any, ...]) -> None:
        """Launch with a thread to each number of each network."""
        grid = (blocks_of(size, THREADS), min(networks, ROWS))
        self._launch(name, grid, (THREADS, 1), arguments)
