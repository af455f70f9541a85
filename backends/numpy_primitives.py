"""NumPy's primitives: the same formulas with ``out=``, into memory that every step finds again.

What a step allocates and frees, the C library returns to the system and gets back page by page: up to a thousand page
faults and half the time. So an epoch's steps have a `Workspace`, and where a formula isn't one of those here, or there
is no workspace (in a prediction, say), the reference does it.

Requires: numpy.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from gpunet import optimizers
from gpunet.activations import Activation, Identity, ReLU, Sigmoid, Softmax, Tanh
from gpunet.losses import ClippedSoftmaxCrossEntropy, Loss, SoftmaxCrossEntropy
from gpunet.network import Architecture
from gpunet.optimizers import Optimizer, Slots
from gpunet.primitives import Primitives, example_share
from gpunet.streaming import HostColumns

Array = np.ndarray[Any, Any]


class Workspace:
    """Memory given out in the order of the calls: a step that starts again gets the same."""

    def __init__(self) -> None:
        self._buffers: list[Array] = []
        self._next = 0
        self._constants: dict[Any, Array] = {}

    def rewind(self) -> None:
        """Start a step: what the last one was given may be overwritten."""
        self._next = 0

    def take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return memory of this shape, its contents undefined."""
        at = self._next
        self._next += 1
        if at < len(self._buffers):
            found = self._buffers[at]
            if found.shape == shape and found.dtype == dtype:
                return found
            del self._buffers[at:]
        self._buffers.append(np.empty(shape, dtype))
        return self._buffers[at]

    def constant(self, value: float, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array full of a value, which nobody writes to."""
        key = (value, shape, dtype)
        if key not in self._constants:
            self._constants[key] = np.full(shape, value, dtype)
        return self._constants[key]


class _Namespace:
    """NumPy's functions, with matrix products into a workspace, and sums and maxima without their checks."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __getattr__(self, name: str) -> Any:
        function = getattr(compat, name)
        setattr(self, name, function)  # found at once the next time
        return function

    def matmul(self, left: Any, right: Any) -> Any:
        """Return left @ right."""
        if type(right) is not np.ndarray or left.ndim < 2:
            return compat.matmul(left, right)
        leading = left.shape[:-2]
        if right.ndim > 2 and right.shape[:-2] != leading:
            leading = np.broadcast_shapes(leading, right.shape[:-2])
        out = self._workspace.take((*leading, left.shape[-2], right.shape[-1]), left.dtype)
        return np.matmul(left, right, out=out)

    def sum(self, x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Any:
        """Return the sum of real numbers, along an axis or of all."""
        return np.add.reduce(x, axis=axis, keepdims=keepdims)

    def max(self, x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Any:
        """Return the largest along an axis."""
        return np.maximum.reduce(x, axis=axis, keepdims=keepdims)


class NumPyPrimitives(Primitives):
    """The formulas of a step on NumPy.

    Parameters
    ----------
    workspace : Workspace, optional
        Where results go that a step needs no longer than itself.
    """

    at_once = 2**16  # measured up to 3 times faster than 2**22
    block = 2**16
    """How many parameters are updated at once: measured 1.3 times faster than ten million."""
    small, middle = 2**15, 2**20
    """How many numbers an x may have to be copied, and any other part of a minibatch: targets of many classes."""

    def __init__(self, workspace: Workspace | None = None) -> None:
        super().__init__(compat if workspace is None else _Namespace(workspace))
        self._workspace = workspace
        self._copied: tuple[Array | None, Array | None] = None, None
        self._split: tuple[Any, list[tuple[Array, Array]]] | None = None
        self._gradient: tuple[Array, list[tuple[Array, Array]]] | None = None

    def start(self) -> None:
        """Begin a step: what the last one computed may be overwritten."""
        if self._workspace is not None:
            self._workspace.rewind()
            self._copied = None, None

    def split(self, architecture: Architecture, theta: Any) -> list[tuple[Any, Any]]:
        """Return the views of θ; the same θ, updated in place, has the same ones."""
        if self._workspace is None:
            return super().split(architecture, theta)
        if self._split is None or self._split[0] is not theta:
            self._split = theta, super().split(architecture, theta)
        return self._split[1]

    def gather(self, columns: Any, examples: Any) -> Any:
        """Return a minibatch: whole rows are taken, and seen as columns.

        A small x is copied into columns besides: the first layer's product takes the columns, its gradient the rows,
        and BLAS is up to twice as fast with each.
        """
        workspace = self._workspace
        if workspace is None or isinstance(columns, HostColumns):
            return super().gather(columns, examples)
        if columns.ndim == 1:
            out = workspace.take(examples.shape, columns.dtype)
            return columns.take(examples, out=out, mode="clip")  # indices are never out of range
        units = columns.shape[0]
        rows = workspace.take((*examples.shape, units), columns.dtype)
        columns.T.take(examples, axis=0, out=rows, mode="clip")
        taken, size = rows.swapaxes(-1, -2), units * examples.shape[-1]
        is_x = self._copied[0] is None  # the first that a step gathers
        if size <= (self.small if is_x else self.middle):
            seen, taken = taken, workspace.take(taken.shape, taken.dtype)
            m = taken.shape[-1]
            block = m if size <= self.small else 16  # a cache line of each column at a time
            for start in range(0, m, block):
                np.copyto(taken[..., start : start + block], seen[..., start : start + block])
        if is_x:
            self._copied = taken, rows
        return taken

    def activate(self, z: Any, bias: Any, activation: Activation) -> tuple[Any, Any]:
        """Return (z + b, g(z + b)); where g' needs only a, a takes z's place."""
        z += bias[..., None]
        if self._workspace is None:
            return z, activation.g(self.xp, z)
        kind = type(activation)
        if kind is ReLU:
            return z, np.maximum(z, self._zeros(z), out=z)
        if kind is Tanh:
            return z, np.tanh(z, out=z)
        if kind is Identity:
            return z, z
        if kind is Sigmoid:
            return z, self._sigmoid(z)
        return z, activation.g(self.xp, z)

    def _zeros(self, z: Array) -> Array:
        """Return zeros in the shape of one network's z: an array beside an array is faster than a number."""
        assert self._workspace is not None
        return self._workspace.constant(0.0, z.shape[-2:], z.dtype)

    def _sigmoid(self, z: Array) -> Array:
        """Return e^min(z, 0) / (1 + e^−|z|), beside z, from which the cost is computed."""
        assert self._workspace is not None
        a, below = (self._workspace.take(z.shape, z.dtype) for _ in range(2))
        np.exp(np.minimum(z, self._zeros(z), out=a), out=a)
        np.exp(np.negative(np.abs(z, out=below), out=below), out=below)
        below += 1.0
        a /= below
        return a

    def pull_back(self, delta: Any, z: Any, a: Any, activation: Activation) -> Any:
        """Return δ times g'."""
        workspace, kind = self._workspace, type(activation)
        if workspace is None:
            return super().pull_back(delta, z, a, activation)
        if kind is ReLU:
            delta *= np.greater(a, self._zeros(a), out=workspace.take(a.shape, np.bool_))
            return delta
        if kind is Identity:
            return delta
        if kind is Tanh or kind is Sigmoid:
            slope = workspace.take(a.shape, a.dtype)
            if kind is Tanh:
                np.multiply(a, a, out=slope)
                np.subtract(1.0, slope, out=slope)
            else:
                np.subtract(1.0, a, out=slope)
                slope *= a
            delta *= slope
            return delta
        return super().pull_back(delta, z, a, activation)

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
        """Return the cost and δ⁽ᴸ⁾: for a softmax and its cross-entropy with half the passes over memory."""
        workspace, clip = self._workspace, type(loss) is ClippedSoftmaxCrossEntropy
        if (
            workspace is None
            or type(activation) is not Softmax
            or not (clip or type(loss) is SoftmaxCrossEntropy)
        ):
            return super().output(z, bias, activation, loss, y, weights, total)
        z += bias[..., None]
        z -= np.maximum.reduce(z, axis=-2, keepdims=True)
        a = np.exp(z, out=workspace.take(z.shape, z.dtype))
        sums = np.add.reduce(a, axis=-2, keepdims=True)
        a /= sums
        if clip:
            epsilon = np.finfo(z.dtype).eps
            log_a = np.clip(a, epsilon, 1.0 - epsilon, out=z)
            np.log(log_a, out=log_a)
        else:
            log_a = np.subtract(z, np.log(sums), out=z)
        log_a *= y
        share = example_share(self.xp, z, weights, total)
        if weights is None:
            cost = -share * np.add.reduce(log_a, axis=(-2, -1))
        else:
            share = share[..., None, :]
            log_a *= share
            cost = -np.add.reduce(log_a, axis=(-2, -1))
        of_targets = np.add.reduce(y, axis=-2, keepdims=True)
        if not (of_targets == 1.0).all():  # each example's targets sum to 1, as a rule
            a *= of_targets
        a -= y
        a *= share
        return cost, a

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Any, a: Any
    ) -> tuple[Any, Any]:
        """Return δ aᵀ and Σ_i δ_i, where they belong in the flat gradient."""
        if self._workspace is None:
            return super().layer_gradient(architecture, l, delta, a)
        D, D_bias = self._gradient_of(architecture, delta)[1][l]
        copied, rows = self._copied
        if a is copied and rows is not None:
            np.matmul(delta, rows, out=D)
        elif type(a) is np.ndarray:
            np.matmul(delta, a.swapaxes(-1, -2), out=D)
        else:  # sparse columns
            D[...] = np.matmul(delta, np.matrix_transpose(a))
        self._sum_rows(delta, D_bias)
        return D, D_bias

    def _sum_rows(self, delta: Any, out: Any) -> None:
        """Put Σ_i δ_i into ``out``: a product with ones, which BLAS does sooner than `sum`."""
        assert self._workspace is not None
        np.matmul(delta, self._workspace.constant(1.0, delta.shape[-1:], delta.dtype), out=out)

    def _gradient_of(
        self, architecture: Architecture, delta: Array
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """Return the memory of the flat gradient and its layers' views."""
        shape = (*delta.shape[:-2], architecture.n_parameters)
        if self._gradient is None or self._gradient[0].shape != shape:
            flat = np.empty(shape, delta.dtype)
            self._gradient = flat, architecture.split(compat, flat)
        return self._gradient

    def unroll(self, architecture: Architecture, layers: Any) -> Any:
        """Return the flat gradient: its memory holds the layers already."""
        if self._gradient is None or layers[0][0] is not self._gradient[1][0][0]:
            return super().unroll(architecture, layers)
        return self._gradient[0]

    def decay(self, gradient: Any, theta: Any, factor: Any, n_weights: int) -> Any:
        """Return the gradient with λ's part, added in place."""
        weights = theta[..., :n_weights]
        into = gradient[..., :n_weights]
        if self._workspace is None:
            into += factor * weights
        else:
            out = self._workspace.take(weights.shape, weights.dtype)
            into += np.multiply(weights, factor, out=out)
        return gradient

    def half_square(self, weights: Any) -> Any:
        """Return ½ Σ Θ² as a product of vectors."""
        return 0.5 * np.vecdot(weights, weights)

    def update(
        self, optimizer: Optimizer, theta: Any, gradient: Any, slots: Slots, *rates: Any
    ) -> tuple[Any, Slots]:
        """Update block by block, where each parameter's update depends on nothing else."""
        networks, (n, size) = theta.ndim - 1, (theta.shape[-1], theta.size)
        if size <= self.block or type(optimizer) not in optimizers.KNOWN.values():
            return super().update(optimizer, theta, gradient, slots, *rates)
        if networks and not any(
            isinstance(value, np.ndarray) for value in vars(optimizer).values()
        ):
            # whole networks of a stack, one after the other in memory
            for k in range(len(theta)):
                parts = (slot[k] for slot in slots)
                own = (rate[k] if rate.ndim > 1 else rate for rate in rates)
                self.update(optimizer, theta[k], gradient[k], tuple(parts), *own)
            return theta, slots
        block = max(1, self.block * n // size)
        for start in range(0, n, block):
            at = (..., slice(start, start + block))
            # gpunet's own rules update in place, views too
            optimizer.update(
                self.xp, theta[at], gradient[at], tuple(slot[at] for slot in slots), *rates
            )
        return theta, slots
