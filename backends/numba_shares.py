"""A recorded program shared out to threads: each takes a part of every minibatch, and of what is done for all of it.

A network of a middle size has products too small for BLAS to divide well. So its step is recorded with the minibatch in
parts, as where memory is short, and each part is a thread's own: what it computes stays in its core's cache. Sums and
the optimizer's update are cut into as many pieces. Where a thread needs what another one computes, or would
overwrite what another one still reads, all wait for each other: `waits` finds these places from the memory that each
operation touches.

Requires: numba.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product, zip_longest
from typing import NamedTuple

import numpy as np

from .numba_replay import FORMULA, LOOP, NOTHING
from .numba_tape import HostArray, Operation, Tape, Value
from .recording import UnrecordableError

LEAST = 512
"""How many numbers a thread gets of an operation at least, or else one of them does all of it."""

_OPERANDS = {
    "gather_rows": "--W",
    "gather_columns": "--W",
    "transpose": "-W",
    "drop": "-WW---",
    "where": "---W",
    "shift": "W-",
    "shift_relu": "W-",
    "minus_size": "-W",
    "logistic": "--W",
    "relu_back": "W-",
    "tanh_back": "W-",
    "sigmoid_back": "W-",
    "shift_to_largest": "W-W",
    "softmax_output": "-W-W-W",
    "logistic_output": "--W--W",
    "squared_output": "W--W",
    "row_sums": "-W",
    "half_square": "fS",
    "decay": "Ff-",
    "gradient_descent": "Ff-",
    "momentum": "FfF--",
    "nesterov": "FfF--",
    "adam": "FfFF---",
}
"""What a formula does with its operands: a capital letter is written to. It is cut where there is an f, of which a
thread takes its share of as many numbers as the formula's first one says; S is a sum, of which each computes a part."""


class Region(NamedTuple):
    """Memory that an operation touches: so many bytes from a place after a base."""

    base: int
    start: int
    stop: int
    written: bool

    def meets(self, other: Region) -> bool:
        """Return whether one may overwrite what is the other's."""
        return (
            self.base == other.base
            and self.start < other.stop
            and other.start < self.stop
            and (self.written or other.written)
        )


class Share(NamedTuple):
    """What one thread does, and the memory that it touches."""

    operation: Operation
    regions: tuple[Region, ...]

    def meets(self, other: Share) -> bool:
        """Return whether two threads can't do the two at once."""
        return any(mine.meets(theirs) for mine, theirs in product(self.regions, other.regions))


_NOTHING = Share(Operation(NOTHING, 0, (), ()), ())


def shared_out(tape: Tape, threads: int) -> HostArray:
    """Return each thread's operations, shape (threads, operations, WIDTH): see `gpunet.backends.numba_replay`.

    Parameters
    ----------
    tape : Tape
        Of one network, whose step has as many parts as there are threads. It has more memory afterwards.
    threads : int

    Raises
    ------
    UnrecordableError
        If a part of a minibatch needs what is done for all of it in between.
    """
    if threads == 1:
        return np.asarray([[operation.row() for operation in tape.operations]], np.int64)
    before: list[Operation] = []
    parts: list[list[Share]] = [[] for _ in range(threads)]
    after: list[Operation] = []
    for operation in tape.operations:
        if operation.part is None:
            (after if any(parts) else before).append(operation)
            continue
        share = _whole(operation)
        if any(share.meets(_whole(other)) for other in after):
            raise UnrecordableError("parts that depend on each other")
        parts[operation.part].append(share)
    for one, other in combinations(parts, 2):
        if any(mine.meets(theirs) for mine, theirs in product(one, other)):
            raise UnrecordableError("parts that share memory")
    rounds = [
        *_cut(tape, before, threads),
        *zip_longest(*parts, fillvalue=_NOTHING),
        *_cut(tape, after, threads),
    ]
    shares = [
        [share.operation.row(wait=wait) for share in each]
        for each, wait in zip(rounds, waits(rounds), strict=True)
    ]
    return np.ascontiguousarray(np.asarray(shares, np.int64).swapaxes(0, 1))


def waits(rounds: Sequence[Sequence[Share]]) -> list[bool]:
    """Return before which rounds of operations the threads wait for each other, in a step after another one."""
    found = [False] * len(rounds)
    since: list[list[Share]] = [[] for _ in rounds[0]]
    for _ in range(2):  # the second time after itself
        for i, shares in enumerate(rounds):
            if not found[i]:
                found[i] = any(
                    share.meets(other)
                    for thread, share in enumerate(shares)
                    for other in chain(*since[:thread], *since[thread + 1 :])
                )
            if found[i]:
                since = [[] for _ in shares]
            for done, share in zip(since, shares, strict=True):
                done.append(share)
    return found


def _cut(tape: Tape, operations: list[Operation], threads: int) -> Iterator[tuple[Share, ...]]:
    """Return the shares of operations that are for all of a minibatch."""
    sums: list[tuple[Value, Value]] = []
    for operation in operations:
        shares = [_whole(operation), *[_NOTHING] * (threads - 1)]
        new: list[tuple[Value, Value]] = []
        if "f" in _operands(operation).lower() and operation.numbers[0] >= LEAST * threads:
            shares = [_piece(tape, operation, k, threads, new) for k in range(threads)]
        regions, later = [region for share in shares for region in share.regions], []
        for total, part in sums:  # added up where the total is needed, and not before
            if any(map(_region(total, written=True).meets, regions)):
                yield _added(tape, total, part, threads)
            else:
                later.append((total, part))
        sums = later + new
        yield tuple(shares)
    for total, part in sums:
        yield _added(tape, total, part, threads)


def _added(tape: Tape, total: Value, part: Value, threads: int) -> tuple[Share, ...]:
    """Return what adds a part of a sum to it."""
    tape.elementwise(np.add, (total, part), total)
    return _whole(tape.operations.pop()), *[_NOTHING] * (threads - 1)


def _operands(operation: Operation) -> str:
    """Return what is done with each operand, in the letters of `_OPERANDS`."""
    if operation.kind == FORMULA:
        return _OPERANDS[operation.name]
    *given, out = operation.operands
    if (
        operation.kind == LOOP
        and len(out.own) == 1
        and all(each.own in {out.own, ()} for each in given)
    ):
        return "".join("-f"[each.own == out.own] for each in given) + "F"
    return "-" * len(given) + "W"


def _whole(operation: Operation) -> Share:
    """Return an operation as one thread's."""
    regions = (
        _region(value, written=how.isupper())
        for value, how in zip(operation.operands, _operands(operation), strict=True)
    )
    return Share(operation, tuple(regions))


def _piece(
    tape: Tape,
    operation: Operation,
    k: int,
    threads: int,
    sums: list[tuple[Value, Value]],
) -> Share:
    """Return the k-th thread's piece of an operation, and note among the sums what it computes of one."""
    total, *others = operation.numbers
    line = 16  # two threads' numbers are in different lines of the cache
    start, stop = (total // line * i // threads * line for i in (k, k + 1))
    stop = total if k + 1 == threads else stop
    values, regions = [], []
    for value, how in zip(operation.operands, _operands(operation), strict=True):
        mine = value
        if how == "S" and k > 0:
            mine = tape.take((), shared=False)
            sums.append((value, mine))
        if how in "fF":
            mine = value.seen(start, (stop - start,))
        values.append(mine)
        regions.append(_region(mine, written=how.isupper()))
    if operation.name == "adam":  # the weights among its parameters
        others[0] = min(max(others[0] - start, 0), stop - start)
    own = operation._replace(operands=tuple(values), numbers=(stop - start, *others))
    return Share(own, tuple(regions))


def _region(value: Value, *, written: bool) -> Region:
    """Return the memory of a value."""
    base, start, *_ = value.at
    return Region(base, start, start + value.nbytes, written)
