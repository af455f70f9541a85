"""How a network lies on a chip: what fits a block's shared memory, and who computes which part of a product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from ..recording import UnrecordableError
from .kernels import THREADS

_FEW = 32
"""Columns at a time below which what isn't needed all the time leaves the chip: products would be too narrow."""

_REGISTERS = {"f": 80, "d": 40}
"""How many numbers of a product a thread adds up at a time at most."""


@dataclass(frozen=True)
class Layout:
    """What lies where.

    Attributes
    ----------
    part : int
        How many columns of a minibatch are on the chip at a time.
    apart : int
        How many numbers neighbouring rows lie apart.
    threads, lanes : int
        A block's, and how many of them share a column of the output.
    slots : bool
        Whether the optimizer's memory is on the chip, too.
    bytes : int
        Of shared memory in all.
    """

    part: int
    apart: int
    threads: int
    lanes: int
    slots: bool
    bytes: int


def layout(  # noqa: PLR0917  # sizes, all of them
    parameters: int,
    slots: int,
    rows: int,
    m: int,
    itemsize: int,
    limit: int,
    *,
    threads: int,
    lanes: int,
) -> Layout:
    """Return how a network with as many parameters and rows of columns fits ``limit`` bytes.

    Raises
    ------
    UnrecordableError
        If it doesn't.
    """
    for on_chip in (True, False):
        fixed = THREADS + (2 + slots * on_chip) * parameters
        width = (limit // itemsize - fixed) // rows
        most = width if width % 2 else width - 1  # rows lie an odd number of numbers apart
        if most >= min(m, _FEW if on_chip else _FEW // 2):
            part = math.ceil(m / math.ceil(m / most))
            apart = part | 1
            size = (fixed + rows * apart) * itemsize
            return Layout(part, apart, threads, lanes, on_chip, size)
    raise UnrecordableError("more than the chip holds")


@lru_cache(4096)
def tiles(
    rows: int, columns: int, inner: int, threads: int, char: str, *, shared: bool
) -> tuple[int, int, int, int, int]:
    """Return how threads share a product: (tall, wide, down, across, groups), see `product` in block.cuh.

    A warp reads tall + wide numbers from shared memory, one read at a time for the whole processor, for tall · wide
    multiplications, four at a time. So large tiles are best, as long as no thread is left without; where the inner sum
    may be ``shared`` by groups of threads, these have the larger ones. Times are in cycles.
    """
    best: tuple[float, tuple[int, int, int, int, int]] | None = None
    for groups in (1, 2, 4, 8) if shared else (1,):
        most = threads // groups
        hand_on = groups * (rows * columns / 16 + 40.0)
        for across in range(1, min(most, columns) + 1) if most >= 32 else ():
            down = min(most // across, rows)
            warps = groups * math.ceil(down * across / 32)
            for tall, wide in product(_heights(rows, down), _heights(columns, across)):
                rounds = math.ceil(rows / (down * tall)) * math.ceil(columns / (across * wide))
                if tall * wide > _REGISTERS[char] or (groups > 1 and rounds > 1):
                    continue
                reads = (tall + wide) * warps
                issued = (tall * wide + tall + wide) * math.ceil(warps / 4)
                time = rounds * math.ceil(inner / groups) * max(reads, issued) + hand_on
                if best is None or time < best[0]:
                    best = time, (tall, wide, down, across, groups)
    assert best is not None  # one row and one column always do
    return best[1]


def _heights(numbers: int, threads: int) -> list[int]:
    """Return how many numbers each of so many threads may take at a time."""
    all_at_once = math.ceil(numbers / threads)
    return sorted(
        {math.ceil(all_at_once / rounds) for rounds in (1, 2, 3, 4, 6, 8, 12, 16, all_at_once)}
    )
