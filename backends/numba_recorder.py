"""Primitives that note down what a training step does: see `gpunet.backends.numba_program`.

Requires: numba, scipy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet import activations, losses, optimizers
from gpunet.activations import Activation, Identity, ReLU, Sigmoid, Softmax, Tanh
from gpunet.losses import (
    AveragedSquaredError,
    ClippedCrossEntropy,
    ClippedSoftmaxCrossEntropy,
    CrossEntropy,
    Loss,
    SoftmaxCrossEntropy,
    SquaredError,
)
from gpunet.network import Architecture
from gpunet.optimizers import Adam, GradientDescent, Momentum, Optimizer, Slots
from gpunet.primitives import Primitives

from .numba_tape import Namespace, Tape, Value
from .recording import UnrecordableError


class Recorder(Primitives):
    """Primitives that note down what they are to do.

    Formulas that networks spend their time in have a compiled function each. All others are the reference's, noted
    down as the functions of NumPy's that they call.

    Parameters
    ----------
    tape : Tape
    """

    small = 2**15
    """How many numbers a minibatch may have to be copied into columns: see `NumPyPrimitives.gather`."""

    def __init__(self, tape: Tape) -> None:
        super().__init__(Namespace(tape))
        self.tape = tape
        self._copied: tuple[Value | None, Value | None] = None, None
        self._gradient: tuple[Value, list[tuple[Value, Value]]] | None = None
        self._decayed: tuple[int, Value, int] | None = None

    def part(self, k: int) -> Recorder:
        """Return what notes down what is done for a part of a minibatch."""
        self.tape.part = k
        return Recorder(self.tape)

    def add(self, one: Any, other: Any) -> Any:
        """Note down that two parts' costs or gradients are added: for all of the minibatch, as what comes then."""
        self.tape.part = None
        return super().add(one, other)

    def gather(self, columns: Any, examples: Any) -> Any:
        """Note down that a minibatch is gathered; x, which comes first, as rows and columns, or as rows alone."""
        if type(columns) is not np.ndarray or columns.dtype != self.tape.dtype:
            raise UnrecordableError("examples of another kind")
        units, n = columns.shape if columns.ndim == 2 else (1, len(columns))
        if not columns.T.flags.c_contiguous:
            raise UnrecordableError("examples that are no rows in memory")
        return self._gathered(
            self.tape.array(columns), examples, units, n, vector=columns.ndim == 1
        )

    def whole(self, columns: Any) -> Any:
        """Return all examples where they are, x as rows, or copies that a program's formulas can read."""
        if type(columns) is not np.ndarray or columns.dtype != self.tape.dtype:
            raise UnrecordableError("examples of another kind")
        if columns.ndim == 2 and columns.T.flags.c_contiguous and self._copied[0] is None:
            rows = self.tape.array(columns.T)
            self._copied = rows.turned(), rows  # x comes first
            return self._copied[0]
        return self.tape.array(np.ascontiguousarray(columns))

    def _gathered(
        self, of: Value, examples: Value, units: int, n: int, *, vector: bool = False
    ) -> Value:
        m, shared = examples.own[0], examples.shared and of.shared
        numbers = (m, units, n, self.tape.dtype.itemsize)
        if vector or self._copied[0] is not None:
            taken = self.tape.take((m,) if vector else (units, m), shared=shared)
            self.tape.formula("gather_columns", (of, examples, taken), *numbers)
            return taken
        rows = self.tape.take((m, units), shared=shared)
        self.tape.formula("gather_rows", (of, examples, rows), *numbers)
        taken = rows.turned()
        if units * m <= self.small:
            taken = self.tape.take((units, m), shared=shared)
            self.tape.formula("transpose", (rows, taken), m, units)
        self._copied = taken, rows
        return taken

    def gather_weights(self, weights: Any, examples: Any) -> Any:
        """Note down that a minibatch's weights are gathered."""
        if weights.ndim == 1:
            return self.gather(weights, examples)
        if weights.dtype != self.tape.dtype or not weights.flags.c_contiguous:
            raise UnrecordableError("weights of another kind")
        own = self.tape.array(weights, by_network=True)
        return self._gathered(own, examples, 1, weights.shape[1], vector=True)

    def activate(self, z: Any, bias: Any, activation: Activation) -> tuple[Any, Any]:
        """Note down z + b and g of it; where g' needs only a, a takes z's place."""
        _check_ours(activation)
        kind = type(activation)
        if kind is ReLU:
            self.tape.formula("shift_relu", (z, bias), *z.own)
            return z, z
        self.tape.formula("shift", (z, bias), *z.own)
        if kind is Identity:
            return z, z
        if kind is Tanh:
            return z, self.tape.elementwise(np.tanh, (z,), z)
        if kind is Sigmoid:
            return z, self._logistic(z)[0]
        return z, activation.g(self.xp, z)

    def _logistic(self, z: Value) -> tuple[Value, Value]:
        """Note down the logistic function of z; return it and e^−|z|."""
        e, a = (self.tape.take(z.own, shared=z.shared) for _ in range(2))
        self.tape.formula("minus_size", (z, e), math.prod(z.own))
        self.tape.elementwise(np.exp, (e,), e)
        self.tape.formula("logistic", (z, e, a), math.prod(z.own))
        return a, e

    def pull_back(self, delta: Any, z: Any, a: Any, activation: Activation) -> Any:
        """Note down δ times g'."""
        kind = type(activation)
        if kind in _BACK:
            self.tape.formula(_BACK[kind], (delta, a), math.prod(delta.own))
        elif kind is not Identity:
            return activation.backward(self.xp, delta, z, a)
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
        """Note down the cost and δ⁽ᴸ⁾: of the usual pairs as one formula or two."""
        _check_ours(activation, loss)
        kinds = type(activation), type(loss)
        if weights is not None or kinds not in _PAIRS:
            return super().output(z, bias, activation, loss, y, weights, total)
        numbers = [1.0 / (total or z.own[-1]), np.finfo(self.tape.dtype).eps]
        if kinds[0] is Identity:  # the cost's share beside that of δ
            numbers[1] = numbers[0] / (z.own[0] if kinds[1] is AveragedSquaredError else 1)
        share, cost = (
            self.tape.array(np.asarray(numbers, self.tape.dtype)),
            self.tape.take((), shared=False),
        )
        clip = int(kinds[1] in (ClippedCrossEntropy, ClippedSoftmaxCrossEntropy))
        if kinds[0] is Softmax:
            e, sums = (
                self.tape.take(z.own, shared=False),
                self.tape.take((3, z.own[-1]), shared=False),
            )
            self.tape.formula("shift_to_largest", (z, bias, sums), *z.own)
            self.tape.elementwise(np.exp, (z,), e)
            self.tape.formula("softmax_output", (z, e, y, sums, share, cost), *z.own, clip)
            return cost, e
        self.tape.formula("shift", (z, bias), *z.own)
        if kinds[0] is Sigmoid:
            a, e = self._logistic(z)
            self.tape.formula("logistic_output", (z, e, a, y, share, cost), math.prod(z.own), clip)
            return cost, a
        self.tape.formula("squared_output", (z, y, share, cost), math.prod(z.own))
        return cost, z

    def drop(self, a: Any, key: Any, layer: int, rate: Any) -> tuple[Any, Any]:
        """Note down that a share of a is dropped; return the rest and the factor."""
        rate = np.asarray(rate, np.float64)
        threshold = self.tape.array(np.asarray(rate * 2.0**32, np.int64), by_network=rate.ndim > 0)
        into, factor = (self.tape.take(a.own, shared=False) for _ in range(2))
        operands = (a, into, factor, self.tape.constant(1.0 / (1.0 - rate)), threshold, key)
        self.tape.formula(
            "drop", operands, math.prod(a.own), layer * 0x27D4EB2F, self.tape.dtype.itemsize
        )
        return into, factor

    def split(self, architecture: Architecture, theta: Any) -> list[tuple[Any, Any]]:
        """Return each layer's Θ and bias, seen in θ or in the gradient."""
        parts, at, bias_at = [], 0, architecture.n_weights
        for layer in architecture.layers:
            shape = (layer.rows, layer.inputs)
            parts.append((theta.seen(at, shape), theta.seen(bias_at, (layer.rows,))))
            at, bias_at = at + math.prod(shape), bias_at + layer.rows
        return parts

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Any, a: Any
    ) -> tuple[Any, Any]:
        """Note down δ aᵀ and Σ_i δ_i, into the flat gradient."""
        if self._gradient is None:
            flat = self.tape.take((architecture.n_parameters,), shared=False)
            self._gradient = flat, self.split(architecture, flat)
        D, D_bias = self._gradient[1][l]
        columns, rows = self._copied
        self.tape.product(delta, rows if a is columns and rows is not None else a.turned(), D)
        self.tape.formula("row_sums", (delta, D_bias), *delta.own)
        return D, D_bias

    def unroll(self, architecture: Architecture, layers: Any) -> Any:
        """Return the flat gradient, which holds the layers already."""
        assert self._gradient is not None
        return self._gradient[0]

    def half_square(self, weights: Any) -> Any:
        """Note down ½ Σ Θ²."""
        out = self.tape.take((), shared=False)
        self.tape.formula("half_square", (weights, out), *weights.own)
        return out

    def decay(self, gradient: Any, theta: Any, factor: Any, n_weights: int) -> Any:
        """Note down that λ's part is added."""
        value = self.tape.value(factor)
        self.tape.formula("decay", (gradient, theta, value), n_weights)
        self._decayed = len(self.tape.operations) - 1, value, n_weights
        return gradient

    def update(
        self, optimizer: Optimizer, theta: Any, gradient: Any, slots: Slots, *rates: Any
    ) -> tuple[Any, Slots]:
        """Note down the optimizer's step."""
        kind = type(optimizer)
        if kind not in optimizers.KNOWN.values():
            raise UnrecordableError(optimizer.name)
        operands: list[Any] = [theta, gradient, *slots, rates[0]]
        if isinstance(optimizer, Adam) and kind is Adam:
            beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
            numbers = beta_1, 1.0 - beta_1, beta_2, 1.0 - beta_2, optimizer.epsilon
            factor, n_weights = self.tape.constant(0.0), 0
            if self._decayed is not None and self._untouched(gradient, self._decayed[0]):
                at, factor, n_weights = self._decayed
                del self.tape.operations[at]  # λ's part is added in the same pass
            operands += [self._together(*numbers), factor]
            self.tape.formula("adam", operands, theta.own[0], n_weights)
        elif isinstance(optimizer, Momentum):
            operands.append(self._together(optimizer.momentum))
            self.tape.formula(optimizer.name, operands, theta.own[0])
        elif kind is GradientDescent:
            self.tape.formula(optimizer.name, operands, theta.own[0])
        else:
            return super().update(optimizer, theta, gradient, slots, *rates)
        return theta, slots

    def _untouched(self, gradient: Value, since: int) -> bool:
        """Return whether nothing after an operation has to do with the gradient: it isn't clipped, that is."""
        return not any(
            operand.at[0] == gradient.at[0]
            and 0 <= operand.at[1] - gradient.at[1] < gradient.nbytes
            for operation in self.tape.operations[since + 1 :]
            for operand in operation.operands
        )

    def _together(self, *numbers: Any) -> Value:
        """Return an optimizer's numbers, some of which may be a column (networks, 1), in one place."""
        if all(isinstance(number, float) for number in numbers):
            return self.tape.array(np.asarray(numbers, self.tape.dtype))
        columns = [np.broadcast_to(number, (self.tape.networks, 1)) for number in numbers]
        return self.tape.constant(np.concatenate(columns, axis=1))


_BACK = {ReLU: "relu_back", Tanh: "tanh_back", Sigmoid: "sigmoid_back"}
_PAIRS = {
    (Softmax, SoftmaxCrossEntropy),
    (Softmax, ClippedSoftmaxCrossEntropy),
    (Sigmoid, CrossEntropy),
    (Sigmoid, ClippedCrossEntropy),
    (Identity, SquaredError),
    (Identity, AveragedSquaredError),
}


def _check_ours(*parts: Activation | Loss) -> None:
    """Refuse functions of the user's own, which may be others at every call."""
    for part in parts:
        ours = type(part).__module__ in (activations.__name__, losses.__name__)
        if not ours or isinstance(part, activations.Custom):
            raise UnrecordableError(part.name)
