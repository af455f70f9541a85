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
        if output.name == self.canonical:
            return self.cost_from_z(xp, z, a, y)
        return self.cost_from_a(xp, a, y)

    def delta(self, xp: Namespace, z: Array, a: Array, y: Array, output: Activation) -> Array:
        """Return δ⁽ᴸ⁾ = ∂cost/∂z of each example, in z's shape, a new array."""
        if output.name == self.canonical:
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


class Poisson(Loss):
    """Σ_k y_k log(y_k / a_k) − y_k + a_k: half the Poisson deviance, for counts and rates y ≥ 0."""

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
    if spec not in KNOWN:
        raise ValueError(f"Unknown loss {spec!r}; known are {', '.join(KNOWN)}.")
    return KNOWN[spec]
