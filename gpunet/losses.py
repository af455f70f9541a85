"""Losses: the cost of one example and its derivative, side by side.

Predictions a and targets y have the shape (..., K, m): K outputs, m examples as columns. A loss sums over
the K outputs and never mixes networks; the cost J averages over the examples (see
`gpunet.primitives.Primitives.output`).

Each loss knows its canonical output activation. For that pair δ⁽ᴸ⁾ = ∂cost/∂z⁽ᴸ⁾ is a − y (twice that for
`MeanSquaredError`) and the cost is computed from z⁽ᴸ⁾, which stays exact where a rounds to 0 or 1. For any other
output activation δ⁽ᴸ⁾ = ∂cost/∂a pulled back through g'(z⁽ᴸ⁾).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from gpunet.activations import KNOWN as KNOWN_ACTIVATIONS
from gpunet.activations import Activation
from gpunet.typing import Array, Namespace


@dataclass(frozen=True)
class Loss:
    """The base class: cost of each example, and what its derivative is."""

    name: ClassVar[str]
    canonical: ClassVar[str]
    """The output activation for which δ⁽ᴸ⁾ is a − y (times a constant)."""
    classification: ClassVar[bool]
    """Whether targets are 0 and 1 (or shares between them), and outputs probabilities."""
    domain: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    """The interval in which outputs and targets have to lie."""

    def cost(self, xp: Namespace, z: Array, a: Array, y: Array, output: Activation) -> Array:
        """Return the cost of each example, shape (..., m), from output z and a = g(z)."""
        if type(output) is KNOWN_ACTIVATIONS[self.canonical]:  # a name alone could be anybody's
            return self.cost_from_z(xp, z, a, y)
        return self.cost_from_a(xp, a, y)

    def delta(self, xp: Namespace, z: Array, a: Array, y: Array, output: Activation) -> Array:
        """Return δ⁽ᴸ⁾ = ∂cost/∂z of each example, in z's shape, a new array."""
        if type(output) is KNOWN_ACTIVATIONS[self.canonical]:
            return self.canonical_delta(xp, a, y)
        return output.backward(xp, self.derivative(xp, a, y), z, a)

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return the cost of each example as its definition says, from the prediction a."""
        raise NotImplementedError

    def cost_from_z(self, xp: Namespace, z: Array, a: Array, y: Array) -> Array:
        """Return the same from the canonical output's z, exact far out."""
        return self.cost_from_a(xp, a, y)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return ∂cost/∂a, shape (..., K, m), a new array."""
        raise NotImplementedError

    def canonical_delta(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return δ⁽ᴸ⁾ for the canonical output."""
        return a - y


class CrossEntropy(Loss):
    """−Σ_k y_k log a_k + (1 − y_k) log(1 − a_k): K logistic outputs, the notes' classification cost."""

    name = "cross_entropy"
    canonical = "sigmoid"
    classification = True
    domain = (0.0, 1.0)

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        cost = y * _log(xp, a) + (1.0 - y) * _log(xp, 1.0 - a)
        return -xp.sum(cost, axis=-2)

    def cost_from_z(self, xp: Namespace, z: Array, a: Array, y: Array) -> Array:
        """Return Σ_k log(1 + e^{z_k}) − y_k z_k, which is the same and never takes log 0."""
        # In this order a confident right prediction costs its exact e^−|z|: the first two terms cancel.
        cost = (xp.maximum(z, 0.0) - y * z) + xp.log1p(xp.exp(-xp.abs(z)))
        return xp.sum(cost, axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        return (1.0 - y) * _reciprocal(xp, 1.0 - a) - y * _reciprocal(xp, a)


class SoftmaxCrossEntropy(Loss):
    """−Σ_k y_k log a_k: the cross-entropy of K exclusive classes."""

    name = "softmax_cross_entropy"
    canonical = "softmax"
    classification = True
    domain = (0.0, 1.0)

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        return -xp.sum(y * _log(xp, a), axis=-2)

    def cost_from_z(self, xp: Namespace, z: Array, a: Array, y: Array) -> Array:
        """Return Σ_k y_k (log Σ_j e^{z_j} − z_k), the logarithm taken around the largest z."""
        z = z - xp.max(z, axis=-2, keepdims=True)
        log_sum = xp.log(xp.sum(xp.exp(z), axis=-2, keepdims=True))
        return xp.sum(y * (log_sum - z), axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        return -(y * _reciprocal(xp, a))

    def canonical_delta(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return a Σ_k y_k − y: a − y where the targets of an example sum to 1, as they do."""
        return a * xp.sum(y, axis=-2, keepdims=True) - y


class ClippedCrossEntropy(CrossEntropy):
    """The cross-entropy of logistic outputs as scikit-learn reports it: from a within [ε, 1 − ε]."""

    def cost_from_z(self, xp: Namespace, z: Array, a: Array, y: Array) -> Array:
        """Return the cost of the clipped a; the gradient is that of the exact one."""
        return self.cost_from_a(xp, _clipped(xp, a), y)


class ClippedSoftmaxCrossEntropy(SoftmaxCrossEntropy):
    """The same for exclusive classes."""

    def cost_from_z(self, xp: Namespace, z: Array, a: Array, y: Array) -> Array:
        """Return the cost of the clipped a; the gradient is that of the exact one."""
        return self.cost_from_a(xp, _clipped(xp, a), y)


class SquaredError(Loss):
    """½ Σ_k (a_k − y_k)²: with the average over m this is the notes' 1/(2m), and scikit-learn's."""

    name = "squared_error"
    canonical = "identity"
    classification = False

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        error = a - y
        return 0.5 * xp.sum(error * error, axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        return a - y


class AveragedSquaredError(SquaredError):
    """½ (1/K) Σ_k (a_k − y_k)², scikit-learn's report, beside the gradient of the sum over k, which it descends."""

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        return super().cost_from_a(xp, a, y) / a.shape[-2]


class MeanSquaredError(Loss):
    """Σ_k (a_k − y_k)²: with the average over m this is the 1/m form of the notes' first slides."""

    name = "mean_squared_error"
    canonical = "identity"
    classification = False

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        error = a - y
        return xp.sum(error * error, axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        return 2.0 * (a - y)

    def canonical_delta(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return 2 (a − y)."""
        return 2.0 * (a - y)


class AbsoluteError(Loss):
    """Σ_k |a_k − y_k|: a regression to the median. The derivative at 0 is 0."""

    name = "absolute_error"
    canonical = "identity"
    classification = False

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        return xp.sum(xp.abs(a - y), axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        return xp.sign(a - y)

    def canonical_delta(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return sign(a − y)."""
        return xp.sign(a - y)


@dataclass(frozen=True)
class Huber(Loss):
    """Σ_k ½ e² for |e| ≤ t, else t (|e| − t/2), with e = a − y: squared near, absolute far (Huber, 1964).

    Raises
    ------
    ValueError
        For a threshold t that isn't positive.
    """

    name = "huber"
    canonical = "identity"
    classification = False

    threshold: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < math.inf:
            raise ValueError(f"huber needs a finite threshold > 0, not {self.threshold}.")

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        size = xp.abs(a - y)
        near = xp.minimum(size, self.threshold)
        return xp.sum(near * (size - 0.5 * near), axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        return xp.maximum(xp.minimum(a - y, self.threshold), -self.threshold)

    def canonical_delta(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return the error, cut at ± the threshold."""
        return self.derivative(xp, a, y)


@dataclass(frozen=True)
class Quantile(Loss):
    """Σ_q max(q e, (q − 1) e) with e = y − a: output q learns the q-quantile (Koenker & Bassett, 1978).

    With Q levels and K outputs, outputs 0 to K/Q − 1 belong to the first level, the next to the second, and so on; the
    targets have the same K rows.

    Raises
    ------
    ValueError
        For no levels, or one outside (0, 1).
    """

    name = "quantile"
    canonical = "identity"
    classification = False

    levels: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        if not self.levels or not all(0.0 < q < 1.0 for q in self.levels):
            raise ValueError(f"quantiles lie in (0, 1), but given were {list(self.levels)}.")

    def _by_level(self, a: Array, y: Array) -> list[tuple[float, Array]]:
        """Return each level with its outputs' y − a."""
        rows = a.shape[-2] // len(self.levels)
        error = y - a
        return [(q, error[..., i * rows : (i + 1) * rows, :]) for i, q in enumerate(self.levels)]

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        costs = [xp.maximum(q * e, (q - 1.0) * e) for q, e in self._by_level(a, y)]
        return xp.sum(xp.concat(costs, axis=-2), axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        parts = [
            xp.astype(e < 0.0, a.dtype) * (1.0 - q) - xp.astype(e > 0.0, a.dtype) * q
            for q, e in self._by_level(a, y)
        ]
        return xp.concat(parts, axis=-2)

    def canonical_delta(self, xp: Namespace, a: Array, y: Array) -> Array:
        """Return 1 − q above the target and −q below it."""
        return self.derivative(xp, a, y)


class Poisson(Loss):
    """Σ_k y_k log(y_k / a_k) − y_k + a_k: half the Poisson deviance, for counts and rates y ≥ 0.

    Its canonical output eᶻ leaves float32's range at z = 88: large targets are better scaled down first.
    """

    name = "poisson"
    canonical = "exp"
    classification = False
    domain = (0.0, math.inf)

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        return xp.sum(y * (_log(xp, y) - _log(xp, a)) - y + a, axis=-2)

    def cost_from_z(self, xp: Namespace, z: Array, a: Array, y: Array) -> Array:
        """Return the same with z for log a."""
        return xp.sum(y * (_log(xp, y) - z) - y + a, axis=-2)

    def derivative(self, xp: Namespace, a: Array, y: Array) -> Array:
        return 1.0 - y * _reciprocal(xp, a)


def _clipped(xp: Namespace, a: Array) -> Array:
    epsilon = float(xp.finfo(a.dtype).eps)
    return xp.minimum(xp.maximum(a, epsilon), 1.0 - epsilon)


def _log(xp: Namespace, a: Array) -> Array:
    """Return log a, that of the smallest normal number where a has rounded to 0."""
    return xp.log(xp.maximum(a, float(xp.finfo(a.dtype).smallest_normal)))


def _reciprocal(xp: Namespace, a: Array) -> Array:
    """Return 1/a, the derivative of `_log`: 0 where it is flat."""
    tiny = float(xp.finfo(a.dtype).smallest_normal)
    return xp.astype(a > tiny, a.dtype) / xp.maximum(a, tiny)


KNOWN: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        CrossEntropy(),
        SoftmaxCrossEntropy(),
        SquaredError(),
        MeanSquaredError(),
        AbsoluteError(),
        Huber(),
        Quantile(),
        Poisson(),
    )
}


def get(spec: str | Loss) -> Loss:
    """Return the loss that a name or an object stands for.

    Raises
    ------
    ValueError
        For an unknown name; the known ones are listed.

    Examples
    --------
    >>> get("cross_entropy").canonical
    'sigmoid'
    """
    if isinstance(spec, Loss):
        return spec
    if not isinstance(spec, str) or spec not in KNOWN:
        raise ValueError(f"Unknown loss {spec!r}; known are {', '.join(KNOWN)}.")
    return KNOWN[spec]
