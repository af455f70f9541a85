"""The loop that goes through a program's operations, compiled: see `gpunet.backends.numba_program`.

Requires: numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# An operation is a row of whole numbers: what kind it is, which function to call, whether all networks share it, how
# many operands it has; of each of them base, offset, step from network to network and from minibatch to minibatch, in
# bytes; room for their addresses; the numbers that the function takes.
KIND, ADDRESS, SHARED, COUNT, OPERANDS, FOUND, NUMBERS, WIDTH = 0, 1, 2, 3, 4, 36, 44, 58
FORMULA, PRODUCT, LOOP = 0, 1, 2


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


@njit(nogil=True, cache=True)
def replay(operations: Any, bases: Any, networks: int, first: int, last: int) -> None:
    """Go through the operations for each minibatch and, those that all share excepted, each network."""
    start = operations.ctypes.data
    for step in range(first, last):
        for network in range(networks):
            for o in range(operations.shape[0]):
                row = operations[o]
                if network > 0 and row[SHARED] != 0:
                    continue
                for i in range(row[COUNT]):
                    at = OPERANDS + 4 * i
                    base = bases[row[at]] + row[at + 1]
                    row[FOUND + i] = base + network * row[at + 2] + step * row[at + 3]
                found, numbers = start + 8 * (o * WIDTH + FOUND), start + 8 * (o * WIDTH + NUMBERS)
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
                else:
                    for _ in range(row[NUMBERS + 5]):
                        _call(row[ADDRESS], (found, numbers, numbers + 8, row[NUMBERS + 4]))
                        for i in range(row[COUNT]):
                            row[FOUND + i] += row[NUMBERS + 6 + i]
