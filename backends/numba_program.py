"""A training step of the NumPy backend as a program: recorded once, then replayed without Python.

Between two of NumPy's calls Python takes as long as a small network's arithmetic, and holds the lock that another
thread waits for. So the step of `gpunet.training`, the only one there is, is called once with a `Recorder` in place of
primitives and arrays of shapes in place of numbers. What it calls is noted down as operations on memory; `Program` goes
through them network by network, minibatch by minibatch, and one network's intermediate results stay in the cache.

An operation is a compiled formula (`gpunet.backends.numba_kernels`), a matrix product by SciPy's BLAS, or one of
NumPy's own loops. What can't be recorded (a loss without a formula there, a gradient's clipping) says so, and is left
to `NumbaPrimitives`.

Requires: numba, scipy.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import get_cython_function_address, intrinsic

from gpunet.activations import Activation, Identity, ReLU, Sigmoid, Softmax, Tanh
from gpunet.losses import (
    ClippedCrossEntropy,
    ClippedSoftmaxCrossEntropy,
    CrossEntropy,
    Loss,
    SoftmaxCrossEntropy,
    SquaredError,
)
from gpunet.network import Architecture
from gpunet.optimizers import Adam, GradientDescent, Momentum, Nesterov, Optimizer, Slots
from gpunet.primitives import Primitives

from .numba_kernels import compiled

HostArray = np.ndarray[Any, Any]

# The columns of an operation, 8 bytes each.
_KIND, _ADDRESS, _SHARED, _COUNT, _OPERANDS, _FOUND, _NUMBERS, _WIDTH = 0, 1, 2, 3, 4, 28, 34, 48
_FORMULA, _PRODUCT, _LOOP = 0, 1, 2


class UnrecordableError(Exception):
    """A step does what a program can't hold."""


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
def _replay(operations: Any, bases: Any, networks: int, first: int, last: int) -> None:
    """Go through the operations for each minibatch and, those that all share excepted, each network."""
    start = operations.ctypes.data
    for step in range(first, last):
        for network in range(networks):
            for o in range(operations.shape[0]):
                row = operations[o]
                if network > 0 and row[_SHARED] != 0:
                    continue
                for i in range(row[_COUNT]):
                    at = _OPERANDS + 4 * i
                    base = bases[row[at]] + row[at + 1]
                    row[_FOUND + i] = base + network * row[at + 2] + step * row[at + 3]
                found, numbers = (
                    start + 8 * (o * _WIDTH + _FOUND),
                    start + 8 * (o * _WIDTH + _NUMBERS),
                )
                if row[_KIND] == _FORMULA:
                    _call(row[_ADDRESS], (found, numbers))
                elif row[_KIND] == _PRODUCT:
                    left, right, out = row[_FOUND], row[_FOUND + 1], row[_FOUND + 2]
                    _call(
                        row[_ADDRESS],
                        # for BLAS, which reads columns, out's transpose is right's times left's
                        (
                            numbers, numbers + 8, numbers + 16, numbers + 24, numbers + 32, numbers + 64, right,
                            numbers + 40, left, numbers + 48, numbers + 72, out, numbers + 56,
                        ),
                    )  # fmt: skip
                else:
                    _call(row[_ADDRESS], (found, numbers, numbers + 8, row[_NUMBERS + 3]))


@functools.cache
def _product(dtype: str) -> int:
    """Return the address of BLAS's matrix product."""
    name = {"float32": "sgemm", "float64": "dgemm"}[dtype]
    address: int = get_cython_function_address("scipy.linalg.cython_blas", name)
    return address


@functools.cache
def _loop(name: str, dtype: str) -> tuple[int, int]:
    """Return the addresses of the loop behind a function of NumPy's, and of the data that it takes.

    As `PyUFuncObject` of NumPy's C interface has them: after the object's head, four ints, the functions, their data.
    """
    function, kind = getattr(np, name), np.dtype(dtype).char
    which = function.types.index(f"{kind}->{kind}")
    head = (ctypes.c_int64 * 6).from_address(id(function))
    functions, data = ((ctypes.c_int64 * (which + 1)).from_address(head[at]) for at in (4, 5))
    return functions[which], data[which]


class Value:
    """An array of a step as the program knows it: its shape, and where it is.

    Its ``at`` is (base, offset, by_network, by_step) in bytes, ``base`` the number of an address that is told when the
    program runs. ``shared`` ones are the same for all networks, and have no axis for them. Of a ``transposed`` one, the
    memory has the last two axes the other way round.
    """

    __array_ufunc__ = None  # so that NumPy leaves operators to this class

    def __init__(
        self,
        recorder: Recorder,
        shape: tuple[int, ...],
        at: tuple[int, int, int, int],
        *,
        shared: bool,
        transposed: bool = False,
    ) -> None:
        self._recorder, self.at = recorder, at
        self.own, self.shared, self.transposed = shape, shared, transposed
        self.shape = shape if shared else (*recorder.leading, *shape)
        self.ndim = len(self.shape)

    def part(self, start: int, shape: tuple[int, ...]) -> Value:
        """Return a part of a vector in another shape."""
        base, offset, by_network, by_step = self.at
        at = (base, offset + start * self._recorder.dtype.itemsize, by_network, by_step)
        return Value(self._recorder, shape, at, shared=self.shared)

    def turned(self) -> Value:
        """Return the transpose of a matrix."""
        rows, columns = self.own
        return Value(
            self._recorder, (columns, rows), self.at, shared=self.shared, transposed=not self.transposed
        )  # fmt: skip

    def __getitem__(self, key: Any) -> Value:
        """Return the first numbers of a vector."""
        _, until = key
        return self.part(0, (until.stop,))

    def __mul__(self, factor: Any) -> Value:
        """Return a number times a constant one."""
        return self._recorder.number("scaled", self, self._recorder.constant(factor))

    __rmul__ = __mul__

    def __add__(self, other: Value) -> Value:
        """Return the sum of two numbers."""
        return self._recorder.number("added", self, other)


class _Products:
    """The namespace that a recorded step sees: what isn't here can't be recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getattr__(self, name: str) -> NoReturn:
        raise UnrecordableError(name)

    def matmul(self, left: Value, right: Value) -> Value:
        """Return left @ right."""
        shape = (left.own[0], right.own[1])
        out = self._recorder.take(shape, shared=left.shared and right.shared)
        self._recorder.product(left, right, out)
        return out

    def matrix_transpose(self, value: Value) -> Value:
        """Return the transpose."""
        return value.turned()


class Recorder(Primitives):
    """Primitives that note down what they are to do.

    Parameters
    ----------
    carry, batches, data : tuple
        What an epoch is called with: `gpunet.training.TrainingStep`.

    Attributes
    ----------
    rows : list of list of int
        The operations.
    constants : list of array
        Arrays with the addresses that come after those of carry and batches.
    size : int
        How many bytes the intermediate results of one network take.
    products : int
        How many multiplications one network's matrix products take.
    """

    small = 2**15
    """How many numbers a minibatch may have to be copied into columns: see `NumPyPrimitives.gather`."""

    def __init__(self, carry: Any, batches: Sequence[HostArray]) -> None:
        super().__init__(_Products(self))
        theta, slots, total = carry
        self.dtype: np.dtype[Any] = theta.dtype
        self.leading: tuple[int, ...] = theta.shape[:-1]
        self.networks = math.prod(self.leading)
        self.rows: list[list[int]] = []
        self.constants: list[HostArray] = []
        self.size, self.products = 0, 0
        self._kept: dict[Any, int] = {}
        self._rows_of: tuple[Value | None, Value | None] = None, None
        self._gradient: tuple[Value, list[tuple[Value, Value]]] | None = None
        arrays = [theta, *slots, total]
        given = [self._given(1 + i, array) for i, array in enumerate(arrays)]
        self.carry = given[0], tuple(given[1:-1]), given[-1]
        self.batch = tuple(
            self._minibatch(1 + len(arrays) + i, array) for i, array in enumerate(batches)
        )
        self._n_given = 1 + len(arrays) + len(batches)

    def _given(self, base: int, array: HostArray) -> Value:
        """Return what stands for an array of the carry."""
        if array.dtype != self.dtype or not array.flags.c_contiguous:
            raise UnrecordableError(f"{array.dtype} in a strange order")
        own = array.shape[len(self.leading) :]
        by_network = array.strides[0] if self.leading else 0
        return Value(self, own, (base, 0, by_network, 0), shared=False)

    def _minibatch(self, base: int, array: HostArray) -> Value:
        """Return what stands for a step's part of the batches: examples or rates."""
        examples = array.dtype.kind == "i"
        if array.dtype != (np.int64 if examples else self.dtype):
            raise UnrecordableError(str(array.dtype))
        axes = array.ndim - 1
        shared = bool(self.leading) and axes == 1 and examples
        own = array.shape[1:] if shared or not self.leading else array.shape[2:]
        if own and array.shape[-1] > 1 and array.strides[-1] != array.itemsize:
            raise UnrecordableError("examples with gaps between them")
        by_network = array.strides[1] if self.leading and not shared else 0
        return Value(self, own, (base, 0, by_network, array.strides[0]), shared=shared)

    def take(self, shape: tuple[int, ...], *, shared: bool) -> Value:
        """Return memory for an intermediate result, every network's the same."""
        at, size = self.size, math.prod(shape) * self.dtype.itemsize
        self.size += -(-size // 64) * 64
        return Value(self, shape, (0, at, 0, 0), shared=shared)

    def array(self, values: HostArray, *, by_network: bool = False) -> Value:
        """Return a constant array, whose first axis may be the networks'."""
        if id(values) not in self._kept:
            self._kept[id(values)] = self._n_given + len(self.constants)
            self.constants.append(values)
        own = values.shape[1:] if by_network else values.shape
        stride = values.strides[0] if by_network and len(values) > 1 else 0
        return Value(self, own, (self._kept[id(values)], 0, stride, 0), shared=not by_network)

    def constant(self, numbers: Any) -> Value:
        """Return constant numbers: one or several, or of each network its own, with a leading axis."""
        values = np.ascontiguousarray(np.atleast_1d(np.asarray(numbers, self.dtype)))
        return self.array(values, by_network=np.ndim(numbers) > 0)

    def formula(self, name: str, operands: Sequence[Value], *numbers: int) -> None:
        """Note down a formula of `gpunet.backends.numba_kernels`; the results are among the operands."""
        self._note(_FORMULA, compiled(name, self.dtype.name).address, operands, numbers)

    def number(self, name: str, *operands: Value) -> Value:
        """Note down a formula that gives one number, and return it."""
        out = self.take((), shared=False)
        self.formula(name, (*operands, out))
        return out

    def loop(self, name: str, value: Value, out: Value) -> None:
        """Note down a function of NumPy's, number by number."""
        address, data = _loop(name, self.dtype.name)
        count, step = math.prod(value.own), self.dtype.itemsize
        self._note(_LOOP, address, (value, out), (count, step, step, data))

    def product(self, left: Value, right: Value, out: Value) -> None:
        """Note down out := left @ right."""
        (r, k), c = left.own, right.own[1]
        self.products += r * k * c
        kinds = [ord("T") if value.transposed else ord("N") for value in (right, left)]
        gaps = [k if right.transposed else c, r if left.transposed else k, c]
        one_zero = np.zeros(2, np.int64)
        for i in range(2):
            one_zero[i : i + 1].view(self.dtype)[0] = 1 - i
        numbers = (*kinds, c, r, k, *gaps, *(int(each) for each in one_zero))
        self._note(_PRODUCT, _product(self.dtype.name), (left, right, out), numbers)

    def _note(
        self, kind: int, address: int, operands: Sequence[Value], numbers: Sequence[int]
    ) -> None:
        shared = int(all(operand.shared for operand in operands))
        row = [kind, address, shared, len(operands)]
        for operand in operands:
            row += operand.at
        row += [0] * (_NUMBERS - len(row))
        row += numbers
        self.rows.append(row + [0] * (_WIDTH - len(row)))

    def start(self) -> None:
        """Begin a step: there is but one."""

    def gather(self, columns: Any, examples: Any) -> Any:
        """Note down that a minibatch is to be gathered; x, which comes first, as rows and columns, or rows alone."""
        if type(columns) is not np.ndarray or columns.ndim != 2 or columns.dtype != self.dtype:
            raise UnrecordableError("examples of another kind")
        if not columns.T.flags.c_contiguous:
            raise UnrecordableError("examples that are no rows in memory")
        units, n = columns.shape
        m, shared = examples.own[0], examples.shared
        of = self.array(columns)
        numbers = (m, units, n, self.dtype.itemsize)
        if self._rows_of[0] is not None:
            taken = self.take((units, m), shared=shared)
            self.formula("gather_columns", (of, examples, taken), *numbers)
            return taken
        rows = self.take((m, units), shared=shared)
        self.formula("gather_rows", (of, examples, rows), *numbers)
        taken = rows.turned()
        if units * m <= self.small:
            taken = self.take((units, m), shared=shared)
            self.formula("transpose", (rows, taken), m, units)
        self._rows_of = taken, rows
        return taken

    def gather_weights(self, weights: Any, examples: Any) -> NoReturn:
        """Refuse: a minibatch's weights have formulas of their own."""
        raise UnrecordableError("weights")

    def activate(self, z: Any, bias: Any, activation: Activation) -> tuple[Any, Any]:
        """Note down z + b and g of it; where g' needs only a, a takes z's place."""
        kind, count = type(activation), math.prod(z.own)
        if kind is ReLU:
            self.formula("shift_relu", (z, bias), *z.own)
            return z, z
        if kind not in _BACK:
            raise UnrecordableError(activation.name)
        self.formula("shift", (z, bias), *z.own)
        if kind is Tanh:
            self.loop("tanh", z, z)
        if kind is Sigmoid:
            return z, self._logistic(z, count)[0]
        return z, z

    def _logistic(self, z: Value, count: int) -> tuple[Value, Value]:
        """Note down the logistic function of z; return it and e^−|z|."""
        e, a = (self.take(z.own, shared=z.shared) for _ in range(2))
        self.formula("minus_size", (z, e), count)
        self.loop("exp", e, e)
        self.formula("logistic", (z, e, a), count)
        return a, e

    def pull_back(self, delta: Any, z: Any, a: Any, activation: Activation) -> Any:
        """Note down δ times g'."""
        formula = _BACK[type(activation)]
        if formula is not None:
            self.formula(formula, (delta, a), math.prod(delta.own))
        return delta

    def output(  # noqa: PLR0917  # as in the reference
        self,
        z: Any,
        bias: Any,
        activation: Activation,
        loss: Loss,
        y: Any,
        weights: Any,
        total: float | None = None,
    ) -> tuple[Any, Any]:
        """Note down the cost and δ⁽ᴸ⁾ of a canonical output."""
        pair, count = (type(activation), type(loss)), math.prod(z.own)
        clip = int(pair[1] in (ClippedCrossEntropy, ClippedSoftmaxCrossEntropy))
        cost = self.take((), shared=False)
        numbers = [1.0 / (total or z.own[-1]), np.finfo(self.dtype).eps]
        share = self.array(np.asarray(numbers, self.dtype))
        if pair in ((Softmax, SoftmaxCrossEntropy), (Softmax, ClippedSoftmaxCrossEntropy)):
            sums = self.take((3, z.own[-1]), shared=False)
            e = self.take(z.own, shared=False)
            self.formula("shift_to_largest", (z, bias, sums), *z.own)
            self.loop("exp", z, e)
            self.formula("softmax_output", (z, e, y, sums, share, cost), *z.own, clip)
            return cost, e
        if pair in ((Sigmoid, CrossEntropy), (Sigmoid, ClippedCrossEntropy)):
            self.formula("shift", (z, bias), *z.own)
            a, e = self._logistic(z, count)
            self.formula("logistic_output", (z, e, a, y, share, cost), count, clip)
            return cost, a
        if pair == (Identity, SquaredError):
            self.formula("shift", (z, bias), *z.own)
            self.formula("squared_output", (z, y, share, cost), count)
            return cost, z
        raise UnrecordableError(f"{loss.name} of {activation.name}")

    def split(self, architecture: Architecture, theta: Any) -> list[tuple[Any, Any]]:
        """Return each layer's Θ and bias, seen in θ or in the gradient."""
        parts, at, bias_at = [], 0, architecture.n_weights
        for layer in architecture.layers:
            shape = (layer.rows, layer.inputs)
            parts.append((theta.part(at, shape), theta.part(bias_at, (layer.rows,))))
            at, bias_at = at + math.prod(shape), bias_at + layer.rows
        return parts

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Any, a: Any
    ) -> tuple[Any, Any]:
        """Note down δ aᵀ and Σ_i δ_i, into the flat gradient."""
        if self._gradient is None:
            flat = self.take((architecture.n_parameters,), shared=False)
            self._gradient = flat, self.split(architecture, flat)
        D, D_bias = self._gradient[1][l]
        columns, rows = self._rows_of
        self.product(delta, rows if a is columns and rows is not None else a.turned(), D)
        self.formula("row_sums", (delta, D_bias), *delta.own)
        return D, D_bias

    def unroll(self, architecture: Architecture, layers: Any) -> Any:
        """Return the flat gradient, which holds the layers already."""
        assert self._gradient is not None
        return self._gradient[0]

    def decay(self, gradient: Any, theta: Any, factor: Any, n_weights: int) -> Any:
        """Note down that λ's part is to be added."""
        self.formula("decay", (gradient, theta, self.constant(factor)), n_weights)
        return gradient

    def half_square(self, weights: Any) -> Any:
        """Note down ½ Σ Θ²."""
        out = self.take((), shared=False)
        self.formula("half_square", (weights, out), *weights.own)
        return out

    def update(
        self, optimizer: Optimizer, theta: Any, gradient: Any, slots: Slots, *rates: Any
    ) -> tuple[Any, Slots]:
        """Note down the optimizer's step."""
        if type(optimizer) not in (GradientDescent, Momentum, Nesterov, Adam):
            raise UnrecordableError(optimizer.name)
        operands: list[Any] = [theta, gradient, *slots, rates[0]]
        if isinstance(optimizer, Adam):
            beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
            operands.append(
                self._own(beta_1, 1.0 - beta_1, beta_2, 1.0 - beta_2, optimizer.epsilon)
            )
        elif isinstance(optimizer, Momentum):
            operands.append(self._own(optimizer.momentum))
        self.formula(optimizer.name, operands, theta.own[0])
        return theta, slots

    def _own(self, *numbers: Any) -> Value:
        """Return an optimizer's numbers, some of which may be a column (networks, 1)."""
        if all(isinstance(number, float) for number in numbers):
            return self.array(np.asarray(numbers, self.dtype))
        columns = [np.broadcast_to(number, (self.networks, 1)) for number in numbers]
        return self.constant(np.concatenate(columns, axis=1))


_BACK = {ReLU: "relu_back", Tanh: "tanh_back", Sigmoid: "sigmoid_back", Identity: None}


class Programs:
    """The programs of one step: one for each shape that it meets.

    Parameters
    ----------
    step : callable
        `gpunet.training.TrainingStep`.
    """

    def __init__(self, step: Any) -> None:
        self._step = step
        self._known: dict[Any, Program | None] = {}

    def find(self, carry: Any, batches: Any, data: Any) -> Program | None:
        """Return the program for an epoch's arguments, None where the step can't be recorded for them."""
        key = (carry[0].shape, *((array.shape[1:], array.strides) for array in batches))
        program = self._known.get(key)
        if key not in self._known or (program is not None and not program.knows(data)):
            try:
                program = Program(self._step, carry, batches, data)
            except UnrecordableError:
                program = None
            self._known[key] = program
        return program


class Program:
    """A recorded step.

    Parameters
    ----------
    step : callable
    carry, batches, data : tuple
        What an epoch of it is called with; those of later epochs have the same shapes, and the very same data.

    Raises
    ------
    UnrecordableError
        If the step does what a program can't hold.
    """

    at_once = 1e9
    """How many operations go by between two looks at whether to stop: some 20 ms."""

    def __init__(self, step: Any, carry: Any, batches: Any, data: Any) -> None:
        if sys.byteorder != "little":  # whole numbers are passed as the first half of long ones
            raise UnrecordableError("an order of bytes")
        recorder = Recorder(carry, batches)
        _, _, total = step(recorder, recorder.carry, recorder.batch, data)
        recorder.formula("copy", (total, recorder.carry[2]))
        self._operations = np.asarray(recorder.rows, np.int64)
        self._networks, self._data = recorder.networks, data
        self._memory = np.empty(recorder.size + 64, np.uint8)
        self._constants = recorder.constants  # kept, as their addresses are
        self._arena = -(-_address(self._memory) // 64) * 64
        self._fixed = [_address(constant) for constant in recorder.constants]
        self._steps = max(1, int(self.at_once / (2 * recorder.products * self._networks)))

    def knows(self, data: Any) -> bool:
        """Return whether it was recorded with this data."""
        return all(mine is theirs for mine, theirs in zip(self._data, data, strict=True))

    def run(self, carry: Any, batches: Any, stop: Callable[[], bool]) -> Any:
        """Go through an epoch's minibatches; return the carry, changed in place."""
        theta, slots, total = carry
        given = [_address(array) for array in (theta, *slots, total, *batches)]
        bases = np.asarray([self._arena, *given, *self._fixed], np.int64)
        steps = batches[0].shape[0]
        for first in range(0, steps, self._steps):
            if stop():
                break
            last = min(first + self._steps, steps)
            _replay(self._operations, bases, self._networks, first, last)
        return carry


def _address(array: HostArray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
