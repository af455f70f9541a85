"""The loop that goes through a program's operations, compiled: see `gpunet.backends.numba_program`.

Requires: numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# An operation is a row of whole numbers: what kind it is, which function to call, whether all networks share it, how
# many operands it has, whether to wait for the other threads first; of each operand base, offset, step from network to
# network and from minibatch to minibatch, in bytes; room for their addresses; the numbers that the function takes.
KIND, ADDRESS, SHARED, COUNT, WAIT, OPERANDS, FOUND, NUMBERS, WIDTH = 0, 1, 2, 3, 4, 5, 37, 45, 59
FORMULA, PRODUCT, LOOP, NOTHING = 0, 1, 2, 3

GIVEN_UP = -(2**62)
"""What the threads' counter says if one of them couldn't begin."""
_PATIENCE = 5000
"""So often, some 20 µs, a thread looks at the counter before it offers its processor to others.

There is no pause instruction between two looks: a virtual machine may take a processor that pauses away.
"""


@intrinsic
def _call(typingctx: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address, with addresses."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function, each = values
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * len(signature.args[1]))
        pointer = builder.inttoptr(function, kind.as_pointer())
        parts = [builder.extract_value(each, i) for i in range(len(signature.args[1]))]
        builder.call(pointer, parts)
        return context.get_dummy_value()

    return types.void(address, arguments), code


@intrinsic
def _arrive(typingctx: Any, counter: Any) -> Any:
    """Add one to the whole number at an address, for all threads to see."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), code


@intrinsic
def _arrived(typingctx: Any, counter: Any) -> Any:
    """Return the whole number at an address, as the other threads left it."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(counter), code


@njit(nogil=True)
def _wait(counter: int, until: int, give_way: int) -> bool:
    """Wait until so many have arrived at the counter; return whether they came."""
    _arrive(counter)
    looks = 0
    while True:
        arrived: int = _arrived(counter)
        if arrived >= until or arrived < 0:
            return arrived >= 0
        looks += 1
        if looks > _PATIENCE:
            _call(give_way, ())


@njit(nogil=True)
def _do(row: Any, found: int, numbers: int) -> None:
    """Call an operation's function, with the addresses of its operands and of its numbers."""
    if row[KIND] == FORMULA:
        _call(row[ADDRESS], (found, numbers))
    elif row[KIND] == PRODUCT:
        left, right, out = row[FOUND], row[FOUND + 1], row[FOUND + 2]
        _call(
            row[ADDRESS],
            (
                numbers, numbers + 8, numbers + 16, numbers + 24, numbers + 32, numbers + 64,
                left, numbers + 40, right, numbers + 48, numbers + 72, out, numbers + 56,
            ),
        )  # fmt: skip
    elif row[KIND] == LOOP:
        for _ in range(row[NUMBERS + 5]):
            _call(row[ADDRESS], (found, numbers, numbers + 8, row[NUMBERS + 4]))
            for i in range(row[COUNT]):
                row[FOUND + i] += row[NUMBERS + 6 + i]


@njit(nogil=True, cache=True)
def replay(  # noqa: PLR0917  # numba's own calls take no keywords
    operations: Any,
    bases: Any,
    networks: int,
    first: int,
    last: int,
    counter: Any,
    threads: int,
    give_way: int,
    epochs: int,
    more_operations: Any,
    more_bases: Any,
    more: int,
    total: int,
    apart: int,
) -> bool:
    """Go through the operations for each minibatch and, those that all share excepted, each network.

    With several ``threads`` each has operations of its own, and ``counter`` says how often they have waited for each
    other. Return False if one of them couldn't begin, and nothing was done.

    With several ``epochs`` each has so many minibatches from ``first`` to ``last``, one epoch's behind the other's, and
    then ``more`` of another size, with operations of their own. ``total`` says which base an epoch's cost is added up
    at, ``apart`` how many bytes further the next one's is. One function does both: to compile one takes long enough.
    """
    meeting, met = counter.ctypes.data, threads
    if threads > 1 and not _wait(meeting, met, give_way):
        return False
    for part in range(2 * epochs):
        epoch, rows, at = part // 2, operations, bases
        start, stop = first + epoch * (last - first), last + epoch * (last - first)
        if part % 2 == 1:
            rows, at = more_operations, more_bases
            start, stop = epoch * more, (epoch + 1) * more
        begin = rows.ctypes.data
        for step in range(start, stop):
            for network in range(networks):
                for o in range(rows.shape[0]):
                    row = rows[o]
                    if network > 0 and row[SHARED] != 0:
                        continue
                    if row[WAIT] != 0:
                        met += threads
                        _wait(meeting, met, give_way)
                    for i in range(row[COUNT]):
                        where = OPERANDS + 4 * i
                        base = at[row[where]] + row[where + 1]
                        row[FOUND + i] = base + network * row[where + 2] + step * row[where + 3]
                    _do(row, begin + 8 * (o * WIDTH + FOUND), begin + 8 * (o * WIDTH + NUMBERS))
        at[total] += apart
    if threads > 1:
        _wait(meeting, met + threads, give_way)
    return True
