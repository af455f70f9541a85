"""The NumPy backend's primitives as compiled loops, where numba is installed (``pip install gpunet[fast]``).

Each loop does in one pass over memory what takes NumPy several, and holds no lock, so that stacks and parts of large
arrays are worked on side by side. They are compiled when first needed and kept on disk. Formulas that aren't here are
NumPy's.

Requires: numba.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

from gpunet.activations import Activation, Identity, ReLU, Sigmoid, Softmax, Tanh
from gpunet.losses import (
    ClippedSoftmaxCrossEntropy,
    Loss,
    SoftmaxCrossEntropy,
)
from gpunet.optimizers import Adam, Optimizer, Slots

from .numpy_primitives import NumPyPrimitives, Workspace

Array = np.ndarray[Any, Any]

_loop: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


_summing: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})
"""For sums, whose terms may be added in any order, as NumPy and BLAS do."""


@_loop
def _shift(z: Any, bias: Any) -> None:
    """Z += b, for z (K, rows, m) and b (K, rows)."""
    for k in range(z.shape[0]):
        for i in range(z.shape[1]):
            b, row = bias[k, i], z[k, i]
            for j in range(z.shape[2]):
                row[j] += b


@_loop
def _shift_relu(z: Any, bias: Any) -> None:
    """Z := max(z + b, 0); NaN stays NaN."""
    for k in range(z.shape[0]):
        for i in range(z.shape[1]):
            b, row = bias[k, i], z[k, i]
            for j in range(z.shape[2]):
                value = row[j] + b
                row[j] = 0.0 * b if value <= 0.0 else value


@_loop
def _relu_back(delta: Any, a: Any) -> None:
    """δ := 0 where a is 0."""
    for k in range(delta.shape[0]):
        for i in range(delta.shape[1]):
            d, at = delta[k, i], a[k, i]
            for j in range(d.size):
                if at[j] <= 0.0:
                    d[j] = 0.0


@_loop
def _tanh_back(delta: Any, a: Any) -> None:
    """δ := δ (1 − a²)."""
    for k in range(delta.shape[0]):
        for i in range(delta.shape[1]):
            d, at = delta[k, i], a[k, i]
            for j in range(d.size):
                d[j] *= 1 - at[j] * at[j]


@_loop
def _sigmoid_back(delta: Any, a: Any) -> None:
    """δ := δ a (1 − a)."""
    for k in range(delta.shape[0]):
        for i in range(delta.shape[1]):
            d, at = delta[k, i], a[k, i]
            for j in range(d.size):
                d[j] *= at[j] * (1 - at[j])


@_loop
def _shift_to_largest(z: Any, bias: Any) -> None:
    """Z := z + b − max over the units."""
    for k in range(z.shape[0]):
        largest = z[k, 0] + bias[k, 0]
        for i in range(z.shape[1]):
            b, row = bias[k, i], z[k, i]
            for j in range(z.shape[2]):
                row[j] += b
                largest[j] = max(largest[j], row[j])
        for i in range(z.shape[1]):
            row = z[k, i]
            for j in range(z.shape[2]):
                row[j] -= largest[j]


@_loop
def _softmax_output(  # noqa: PLR0917  # a loop's arrays
    z: Any, e: Any, y: Any, share: Any, clip: bool, cost: Any
) -> None:
    """Σ_j share_j cost_j of softmax outputs into ``cost`` (K,), and δ into ``e``, which holds eᶻ.

    z, e (K, classes, m); y and share have a network's axis of length K, or of 1 if all have the same.
    """
    K, classes, m = z.shape
    one = z.dtype.type(1)
    low = z.dtype.type(np.finfo(z.dtype).eps)
    for k in range(K):
        targets, shares = y[min(k, y.shape[0] - 1)], share[min(k, share.shape[0] - 1)]
        total, of_targets, log_total = (
            np.zeros(m, z.dtype),
            np.zeros(m, z.dtype),
            np.zeros(m, z.dtype),
        )
        for i in range(classes):
            for j in range(m):
                total[j] += e[k, i, j]
                of_targets[j] += targets[i, j]
        if not clip:
            for j in range(m):
                log_total[j] = math.log(total[j])
        sum_of_costs = 0.0
        for i in range(classes):
            for j in range(m):
                a = e[k, i, j] / total[j]
                if targets[i, j] != 0.0:
                    exact = z[k, i, j] - log_total[j]
                    log_a = math.log(max(low, min(one - low, a))) if clip else exact
                    sum_of_costs -= shares[j] * targets[i, j] * log_a
                e[k, i, j] = (a * of_targets[j] - targets[i, j]) * shares[j]
        cost[k] = sum_of_costs


@_loop
def _adam(theta: Any, gradient: Any, m: Any, v: Any, rate: Any, numbers: Any) -> None:  # noqa: PLR0917  # a loop's arrays
    """Adam's step on (K, P), with rates (K, 1): see `gpunet.optimizers.Adam`.

    ``numbers`` are β₁, 1 − β₁, β₂, 1 − β₂ and ε: in single precision, 1 − β₂ of a β₂ rounded before is wrong by 10⁻⁵.
    """
    beta_1, rest_1, beta_2, rest_2, epsilon = numbers
    for k in range(theta.shape[0]):
        r, t, g, first, second = rate[k, 0], theta[k], gradient[k], m[k], v[k]
        for i in range(t.size):
            mean = beta_1 * first[i] + rest_1 * g[i]
            square = beta_2 * second[i] + rest_2 * (g[i] * g[i])
            first[i] = mean
            second[i] = square
            t[i] -= r * (mean / (np.sqrt(square) + epsilon))


@_summing
def _row_sums(delta: Any, out: Any) -> None:
    """Σ_i δ_i of (K, rows, m), into (K, rows)."""
    for k in range(delta.shape[0]):
        for i in range(delta.shape[1]):
            row, total = delta[k, i], delta.dtype.type(0)
            for j in range(row.size):
                total += row[j]
            out[k, i] = total


@_loop
def _add_scaled(into: Any, weights: Any, factor: Any) -> None:
    """Into += factor · weights, (K, n), factors (K, 1)."""
    for k in range(into.shape[0]):
        f, g, w = factor[k, 0], into[k], weights[k]
        for i in range(w.size):
            g[i] += f * w[i]


class NumbaPrimitives(NumPyPrimitives):
    """NumPy's, with the passes over memory as compiled loops.

    Parameters
    ----------
    workspace : Workspace
    threads : int
        How many share the work on large arrays.
    """

    large = 2**18
    """How many numbers are worth a second thread."""

    def __init__(self, workspace: Workspace, threads: int = 1) -> None:
        super().__init__(workspace)
        self._space, self._threads = workspace, threads
        self._pool = _pool(threads - 1) if threads > 1 else None

    def _run(
        self, loop: Callable[..., None], axis: int, arrays: tuple[Array, ...], *rest: Any
    ) -> None:
        """Call a loop on arrays of 3 or 2 axes; if they are large, on parts of them side by side."""
        if self._pool is None or arrays[0].size < self.large:
            loop(*arrays, *rest)
            return
        n = arrays[0].shape[axis]
        edges = [n * part // self._threads for part in range(self._threads + 1)]
        parts = [
            tuple(array[(slice(None),) * axis + (slice(start, stop),)] for array in arrays)
            for start, stop in itertools.pairwise(edges)
        ]
        others = [self._pool.submit(loop, *part, *rest) for part in parts[1:]]
        loop(*parts[0], *rest)
        for other in others:
            other.result()

    def activate(self, z: Any, bias: Any, activation: Activation) -> tuple[Any, Any]:
        """Return (z + b, g(z + b)); where g' needs only a, a takes z's place."""
        kind = type(activation)
        if z.dtype != bias.dtype or not z.flags.c_contiguous:
            return super().activate(z, bias, activation)
        stack = _stack(z, bias)
        if kind is ReLU:
            self._run(_shift_relu, 1, stack)
            return z, z
        self._run(_shift, 1, stack)
        if kind is Tanh:
            return z, np.tanh(z, out=z)
        if kind is Sigmoid:
            return z, self._sigmoid(z)
        if kind is Identity:
            return z, z
        return z, activation.g(self.xp, z)

    def pull_back(self, delta: Any, z: Any, a: Any, activation: Activation) -> Any:
        """Return δ times g'."""
        loop = _BACK.get(type(activation))
        if loop is None:
            return super().pull_back(delta, z, a, activation)
        self._run(loop, 1, _stack(delta, a))
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
        """Return the cost and δ⁽ᴸ⁾: for a softmax and its cross-entropy in two loops and NumPy's exp."""
        canonical = type(loss) in (SoftmaxCrossEntropy, ClippedSoftmaxCrossEntropy)
        if not canonical or type(activation) is not Softmax or y.dtype != z.dtype:
            return super().output(z, bias, activation, loss, y, weights, total)
        deep, wide = _stack(z, bias)
        _shift_to_largest(deep, wide)
        e = np.exp(deep, out=self._space.take(deep.shape, deep.dtype))
        m = z.shape[-1]
        if weights is None:
            share = self._space.constant(1.0 / (total or m), (1, m), z.dtype)
        else:
            W = np.add.reduce(weights, axis=-1, keepdims=True) if total is None else total
            share = np.atleast_2d(weights / np.where(W > 0.0, W, 1.0).astype(z.dtype))
        cost = np.empty(deep.shape[0], z.dtype)
        targets = y if y.ndim == 3 else y[None]
        _softmax_output(deep, e, targets, share, type(loss) is ClippedSoftmaxCrossEntropy, cost)
        return (cost[0], e[0]) if z.ndim == 2 else (cost, e)

    def _sum_rows(self, delta: Any, out: Any) -> None:
        _row_sums(*_stack(delta, out) if delta.ndim == 2 else (delta, out))

    def decay(self, gradient: Any, theta: Any, factor: Any, n_weights: int) -> Any:
        """Return the gradient with λ's part, added in place."""
        into, weights = gradient[..., :n_weights], theta[..., :n_weights]
        if theta.ndim == 1:
            into, weights = into[None], weights[None]
        if isinstance(factor, float):
            factor = self._space.constant(factor, (len(into), 1), theta.dtype)
        elif factor.shape != (len(into), 1):
            factor = np.full((len(into), 1), factor, theta.dtype)
        self._run(_add_scaled, 1, (into, weights), factor)
        return gradient

    def update(
        self, optimizer: Optimizer, theta: Any, gradient: Any, slots: Slots, *rates: Any
    ) -> tuple[Any, Slots]:
        """Return θ and the slots after one step: Adam's in one pass."""
        if type(optimizer) is not Adam:
            return super().update(optimizer, theta, gradient, slots, *rates)
        beta_1, beta_2, epsilon = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        if not type(beta_1) is type(beta_2) is type(epsilon) is float:  # a stack's own numbers
            return super().update(optimizer, theta, gradient, slots, *rates)
        arrays: tuple[Array, ...] = (theta, gradient, *slots)
        if theta.ndim == 1:
            arrays = tuple(array[None] for array in arrays)
        dtype, rate = theta.dtype.type, np.asarray(rates[0])
        if rate.size != len(arrays[0]) or rate.ndim != 2:
            rate = np.full((len(arrays[0]), 1), rate)
        numbers = (beta_1, 1.0 - beta_1, beta_2, 1.0 - beta_2, epsilon)
        self._run(_adam, 1, arrays, rate, tuple(dtype(number) for number in numbers))
        return theta, slots


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads for all networks together."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gpunet")


def _stack(*arrays: Array) -> tuple[Array, ...]:
    """Return arrays of one network as those of a stack of one."""
    first = arrays[0]
    return tuple(array[None] for array in arrays) if first.ndim == 2 else arrays


_BACK = {ReLU: _relu_back, Tanh: _tanh_back, Sigmoid: _sigmoid_back}
