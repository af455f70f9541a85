"""The tape on which a training step is recorded, and the arrays and functions that the step sees meanwhile.

See `gpunet.backends.numba_program`.

Requires: numba, scipy.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numba.extending import get_cython_function_address
from numpy.lib.mixins import NDArrayOperatorsMixin

from .numba_kernels import compiled
from .numba_replay import FORMULA, LOOP, NUMBERS, PRODUCT, WIDTH
from .recording import UnrecordableError

HostArray = np.ndarray[Any, Any]


class Value(NDArrayOperatorsMixin):
    """An array of a step as the program knows it: its shape, and where it is.

    NumPy's functions of it, and Python's operators, are noted down by its tape.

    Parameters
    ----------
    tape : Tape
    own : tuple of int
        One network's shape.
    at : tuple of int
        The number of a base address, and in bytes the offset from there, the way to the next network's and to the next
        minibatch's.
    shared : bool
        Whether it is the same for all networks, without an axis for them.
    transposed : bool
        Whether the last two axes are the other way round in memory.
    dtype : numpy.dtype, optional
        Other than the tape's.
    """

    def __init__(  # noqa: PLR0917  # only a tape makes them
        self,
        tape: Tape,
        own: tuple[int, ...],
        at: tuple[int, int, int, int],
        shared: bool,
        transposed: bool = False,
        dtype: Any = None,
    ) -> None:
        self._tape, self.own, self.at = tape, own, at
        self.shared, self.transposed, self.dtype = shared, transposed, dtype or tape.dtype
        self.shape = own if shared else (*tape.leading, *own)
        self.ndim = len(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes one network's numbers take."""
        return math.prod(self.own) * self.dtype.itemsize

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **keywords: Any) -> Value:
        """Note a function of NumPy's down."""
        (out,) = keywords.pop("out", (None,))
        if method != "__call__" or keywords or function.signature is not None:
            raise UnrecordableError(f"{function.__name__} {method}")
        return self._tape.elementwise(function, inputs, out)

    def __array__(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Refuse: there are no numbers yet."""
        raise UnrecordableError("numbers")

    def __bool__(self) -> NoReturn:
        """Refuse, too."""
        raise UnrecordableError("a choice")

    def seen(self, start: int, own: tuple[int, ...]) -> Value:
        """Return what begins at one of its numbers, in another shape."""
        base, offset, *steps = self.at
        at = (base, offset + start * self.dtype.itemsize, *steps)
        return Value(self._tape, own, at, self.shared, dtype=self.dtype)  # type: ignore[arg-type]

    def turned(self) -> Value:
        """Return the transpose of a matrix."""
        rows, columns = self.own
        return Value(self._tape, (columns, rows), self.at, self.shared, not self.transposed)

    def __getitem__(self, key: Any) -> Value:
        """Return the first numbers of a vector, some rows of a matrix, or the same with an axis of length 1."""
        if self.transposed or type(key) is not tuple or key[0] is not ...:
            raise UnrecordableError(f"[{key}]")
        everything = slice(None)
        if None in key:
            sizes = iter(self.own)
            return self.seen(0, tuple(1 if part is None else next(sizes) for part in key[1:]))
        if len(key) == 3 and key[2] == everything:
            start, stop, _ = key[1].indices(self.own[0])
            return self.seen(start * self.own[1], (stop - start, self.own[1]))
        if len(key) == 2 and len(self.own) == 1:
            start, stop, _ = key[1].indices(self.own[0])
            return self.seen(start, (stop - start,))
        raise UnrecordableError(f"[{key}]")


class Operation(NamedTuple):
    """What a program does with one call: see `gpunet.backends.numba_replay`.

    The last operand of a product and of a loop is the result; which of a formula's are, the formula knows. ``part`` is
    the number of the minibatch's part that it is for, None for all of it.
    """

    kind: int
    address: int
    operands: tuple[Value, ...]
    numbers: tuple[int, ...]
    name: str = ""
    part: int | None = None

    def row(self, *, wait: bool = False) -> list[int]:
        """Return it as the replaying loop reads it."""
        shared = all(each.shared for each in self.operands)
        row = [self.kind, self.address, int(shared), len(self.operands), int(wait)]
        for operand in self.operands:
            row += operand.at
        row += [0] * (NUMBERS - len(row))
        row += self.numbers
        return row + [0] * (WIDTH - len(row))


class Namespace:
    """The functions that a recorded step sees: those of the standard that gpunet's own formulas take."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name, None)
        if name == "finfo" or isinstance(function, np.ufunc):
            return function
        raise UnrecordableError(name)

    def matmul(self, left: Value, right: Value) -> Value:
        """Return left @ right."""
        own = (left.own[0], right.own[1])
        out = self._tape.take(own, shared=left.shared and right.shared)
        self._tape.product(left, right, out)
        return out

    def matrix_transpose(self, value: Value) -> Value:
        """Return the transpose."""
        return value.turned()

    def sum(self, value: Value, *, axis: int, keepdims: bool = False) -> Value:
        """Return the sum along an axis."""
        tape, *outer = self._tape, *value.own[:-1]
        if axis == -2:
            return self._rows_together(np.add, value, tape.constant(0.0), keepdims=keepdims)
        if axis != -1:
            raise UnrecordableError(f"a sum along axis {axis}")
        out = tape.take((*outer, 1), shared=value.shared)
        tape.formula("row_sums", (value, out), math.prod(outer), value.own[-1])
        return out if keepdims else out.seen(0, tuple(outer))

    def max(self, value: Value, *, axis: int, keepdims: bool = False) -> Value:
        """Return the largest along an axis."""
        if axis != -2:
            raise UnrecordableError(f"the largest along axis {axis}")
        return self._rows_together(
            np.maximum, value, value.seen(0, value.own[-1:]), keepdims=keepdims
        )

    def _rows_together(self, function: Any, value: Value, first: Value, *, keepdims: bool) -> Value:
        tape, (rows, m) = self._tape, value.own
        out = tape.take((m,), shared=value.shared)
        tape.elementwise(np.positive, (first,), out)
        for i in range(rows):
            tape.elementwise(function, (out, value.seen(i * m, (m,))), out)
        return out.seen(0, (1, m)) if keepdims else out

    def where(self, mask: Value, one: Any, other: Any) -> Value:
        """Return one where the mask is true, else the other."""
        tape = self._tape
        given = [tape.value(one), tape.value(other)]
        shared = all(each.shared for each in (mask, *given))
        out = tape.take(mask.own, shared=shared)
        apart = [int(each.own == mask.own) for each in given]
        tape.formula("where", (mask, *given, out), math.prod(mask.own), *apart)
        return out

    def astype(self, mask: Value, dtype: Any) -> Value:
        """Return 1 where a mask is true, else 0."""
        return self.where(mask, 1.0, 0.0)

    def asarray(self, value: Value, *, copy: bool) -> Value:
        """Return a copy."""
        return self._tape.elementwise(np.positive, (value,), None)

    def ones_like(self, value: Value) -> Value:
        """Return a one, which goes with any shape."""
        return self._tape.constant(1.0)

    def zeros_like(self, value: Value) -> Value:
        """Return a zero, which goes with any shape."""
        return self._tape.constant(0.0)

    def concat(self, values: Sequence[Value], *, axis: int) -> Value:
        """Return matrices one below the other."""
        if axis != -2:
            raise UnrecordableError(f"concat along axis {axis}")
        tape, m = self._tape, values[0].own[1]
        out = tape.take((sum(value.own[0] for value in values), m), shared=False)
        at = 0
        for value in values:
            tape.elementwise(np.positive, (value,), out.seen(at * m, value.own))
            at += value.own[0]
        return out


class Tape:
    """Operations as they are noted down, and the memory for their results.

    Parameters
    ----------
    carry, batches : tuple
        What an epoch is called with: `gpunet.step.TrainingStep`.

    Attributes
    ----------
    carry, batch : tuple
        What stands for the step's.
    operations : list of Operation
    constants : list of array
        Arrays whose addresses come after those of the carry and the batches.
    part : int or None
        What the operations are for that are noted down now.
    size : int
        How many bytes the intermediate results of one network take.
    multiplications, largest : int
        How many one network's matrix products take, and the largest of them.
    """

    def __init__(self, carry: Any, batches: Sequence[HostArray]) -> None:
        theta, slots, total = carry
        self.dtype: np.dtype[Any] = theta.dtype
        self.precision = self.dtype.name  # which takes longer to find than to use
        self.leading: tuple[int, ...] = theta.shape[:-1]
        self.networks = math.prod(self.leading)
        self.operations: list[Operation] = []
        self.constants: list[HostArray] = []
        self.size, self.multiplications, self.largest = 0, 0, 0
        self.part: int | None = None
        self._bases: dict[int, int] = {}
        arrays = [theta, *slots, total]
        given = [self._given(1 + i, array) for i, array in enumerate(arrays)]
        self.carry = given[0], tuple(given[1:-1]), given[-1]
        start = 1 + len(arrays)
        self.batch = tuple(
            self._minibatch(start + i, array, examples=i == 0) for i, array in enumerate(batches)
        )
        self._n_given = start + len(batches)

    def _given(self, base: int, array: HostArray) -> Value:
        """Return what stands for an array of the carry."""
        if array.dtype != self.dtype or not array.flags.c_contiguous:
            raise UnrecordableError(f"{array.dtype} in a strange order")
        by_network = array.strides[0] if self.leading else 0
        own = array.shape[len(self.leading) :]
        return Value(self, own, (base, 0, by_network, 0), shared=False)

    def _minibatch(self, base: int, array: HostArray, *, examples: bool) -> Value:
        """Return what stands for a step's part of the batches: examples, dropout's keys or rates."""
        if examples and array.dtype != np.int64:
            raise UnrecordableError(f"examples as {array.dtype}")
        shared = bool(self.leading) and examples and array.ndim == 2
        own = array.shape[1:] if shared or not self.leading else array.shape[2:]
        if own and array.shape[-1] > 1 and array.strides[-1] != array.itemsize:
            raise UnrecordableError("examples with gaps between them")
        by_network = array.strides[1] if self.leading and not shared else 0
        at = (base, 0, by_network, strides(array)[0])
        return Value(self, own, at, shared, dtype=array.dtype)

    # values

    def take(self, own: tuple[int, ...], *, shared: bool, dtype: Any = None) -> Value:
        """Return memory for an intermediate result: the same for every network."""
        at = self.size
        size = math.prod(own) * (dtype or self.dtype).itemsize
        self.size += -(-size // 64) * 64
        return Value(self, own, (0, at, 0, 0), shared, dtype=dtype)

    def array(self, values: HostArray, *, by_network: bool = False) -> Value:
        """Return a constant array, whose first axis may be the networks'."""
        if id(values) not in self._bases:
            self._bases[id(values)] = self._n_given + len(self.constants)
            self.constants.append(values)
        own = values.shape[1:] if by_network else values.shape
        stride = values.strides[0] if by_network and len(values) > 1 else 0
        at = (self._bases[id(values)], 0, stride, 0)
        return Value(self, own, at, shared=not by_network, dtype=values.dtype)

    def constant(self, numbers: Any) -> Value:
        """Return constant numbers: one, or some for each network, (networks, ...)."""
        values = np.array(numbers, self.dtype, order="C")
        if values.ndim and values.shape[:1] != self.leading:
            raise UnrecordableError(f"numbers of shape {values.shape}")
        return self.array(values, by_network=values.ndim > 0)

    def value(self, given: Any) -> Value:
        """Return what stands for a number, or an array that the step was given."""
        return given if isinstance(given, Value) else self.constant(given)

    # operations

    def _note(
        self,
        kind: int,
        address: int,
        operands: Sequence[Value],
        numbers: tuple[int, ...],
        name: str = "",
    ) -> None:
        noted = Operation(kind, address, tuple(operands), numbers, name, self.part)
        self.operations.append(noted)

    def formula(self, name: str, operands: Sequence[Value], *numbers: int) -> None:
        """Note down a formula of `gpunet.backends.numba_kernels`; its results are among the operands."""
        if any(operand.transposed for operand in operands):
            raise UnrecordableError(f"{name} of a transpose")
        self._note(FORMULA, compiled(name, self.precision).address, operands, numbers, name)

    def product(self, left: Value, right: Value, out: Value) -> None:
        """Note down out := left @ right."""
        (r, k), c = left.own, right.own[1]
        self.multiplications += r * k * c
        self.largest = max(self.largest, r * k * c)
        # for BLAS, which reads columns, out's transpose is right's times left's
        kinds = [ord("T") if value.transposed else ord("N") for value in (right, left)]
        gaps = [k if right.transposed else c, r if left.transposed else k, c]
        one_and_zero = np.zeros(2, np.int64)
        one_and_zero[:1].view(self.dtype)[0] = 1
        numbers = (*kinds, c, r, k, *gaps, *one_and_zero.tolist())
        self._note(PRODUCT, _product(self.precision), (right, left, out), numbers)

    def elementwise(self, function: Any, inputs: Sequence[Any], out: Value | None) -> Value:
        """Note down a function of NumPy's, number by number, and return its result."""
        given = [self.value(each) for each in inputs]
        own = _together(*(each.own for each in given)) if out is None else out.own
        if len(own) > 2 or any(each.transposed or each.dtype != self.dtype for each in given):
            raise UnrecordableError(function.__name__)
        kinds = self.dtype.char * len(given)
        result = _result(function.__name__, kinds)
        if result is None:
            raise UnrecordableError(function.__name__)
        if out is None:
            shared = all(each.shared for each in given)
            out = self.take(own, shared=shared, dtype=np.dtype(result))
        address, data = _loop(function.__name__, f"{kinds}->{result}")
        operands, shape = (*given, out), _matrix(own)
        shapes = [_matrix(each.own) for each in operands]
        sizes = [each.dtype.itemsize for each in operands]
        if all(each in (shape, (1, 1)) for each in shapes):
            shape, inner = (1, math.prod(shape)), [each == shape for each in shapes]
            outer = [0 for _ in shapes]
        else:
            inner = [columns > 1 for _, columns in shapes]
            outer = [columns * (rows > 1) for rows, columns in shapes]
        steps, ways = (
            [int(way) * size for way, size in zip(each, sizes, strict=True)]
            + [0] * (3 - len(sizes))
            for each in (inner, outer)
        )
        self._note(LOOP, address, operands, (shape[1], *steps, data, shape[0], *ways))
        return out


@functools.cache
def _together(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that these are broadcast to."""
    return np.broadcast_shapes(*shapes)


def strides(array: HostArray) -> tuple[int, ...]:
    """Return how many bytes lie between an array's numbers; where it has one row, as if there were more behind it."""
    if array.shape[0] > 1:
        return array.strides
    return (math.prod(array.shape[1:]) * array.itemsize, *array.strides[1:])


def _matrix(own: tuple[int, ...]) -> tuple[int, int]:
    """Return a shape of two axes at most as one of two."""
    rows, columns = (1, 1, *own)[-2:]
    return rows, columns


@functools.cache
def _product(dtype: str) -> int:
    """Return the address of BLAS's matrix product."""
    name = {"float32": "sgemm", "float64": "dgemm"}[dtype]
    address: int = get_cython_function_address("scipy.linalg.cython_blas", name)
    return address


@functools.cache
def _result(name: str, kinds: str) -> str | None:
    """Return the type of what a function of NumPy's makes of numbers of these types; None where it has no such loop."""
    return next((t[-1] for t in getattr(np, name).types if t[:-1] == f"{kinds}->"), None)


@functools.cache
def _loop(name: str, kinds: str) -> tuple[int, int]:
    """Return the address of the loop behind a function of NumPy's, and that of the data it takes.

    As NumPy's C interface has them in `PyUFuncObject`: after the object's head and four ints, functions and data.
    """
    function = getattr(np, name)
    which = function.types.index(kinds)
    head = (ctypes.c_int64 * 6).from_address(id(function))
    functions, data = ((ctypes.c_int64 * (which + 1)).from_address(head[at]) for at in (4, 5))
    return functions[which], data[which]
