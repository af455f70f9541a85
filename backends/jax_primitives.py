"""JAX's primitives: minibatches taken from rows, and parameters held layer by layer.

XLA copies a vector that it slices or puts together, several times in a step of training: of 235,000 parameters that
is a third of the step. So a compiled epoch holds θ, its gradient and the optimizer's memory as `Pieces`, one for each
layer's weights and one for each layer's biases, and the formulas that see all of θ go through them one by one.

Requires: jax.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from types import EllipsisType
from typing import Any

import jax
import jax.numpy as xp

from gpunet.network import Architecture
from gpunet.optimizers import Optimizer, Slots
from gpunet.primitives import Primitives
from gpunet.streaming import HostColumns
from gpunet.typing import Array


@jax.tree_util.register_pytree_node_class
class Pieces:
    """A vector (..., P) in pieces: an array (..., n) for all weights of each layer, then one for each layer's biases.

    Parameters
    ----------
    arrays : sequence of array
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.arrays = tuple(arrays)

    @classmethod
    def of(cls, architecture: Architecture, vector: Array) -> Pieces:
        """Return an array (..., P) in pieces."""
        layers = architecture.layers
        sizes = [layer.rows * layer.inputs for layer in layers] + [layer.rows for layer in layers]
        return cls(xp.split(vector, [*accumulate(sizes)][:-1], axis=-1))

    def joined(self) -> Array:
        """Return the array (..., P)."""
        return xp.concat(self.arrays, axis=-1)

    def __getitem__(self, key: tuple[EllipsisType, slice]) -> Pieces:
        """Return the first n numbers, ``[..., :n]``, which whole pieces hold."""
        ends = accumulate(array.shape[-1] for array in self.arrays)
        return Pieces(self.arrays[: 1 + [*ends].index(key[1].stop)])

    def tree_flatten(self) -> tuple[tuple[Array, ...], None]:
        """Return the arrays, as JAX asks for them."""
        return self.arrays, None

    @classmethod
    def tree_unflatten(cls, _: None, arrays: tuple[Array, ...]) -> Pieces:
        """Return what holds the arrays."""
        return cls(arrays)


class JAXPrimitives(Primitives):
    """The formulas of a step on JAX, on arrays (..., P) or on `Pieces`."""

    def __init__(self) -> None:
        super().__init__(xp)

    def gather(self, columns: Any, examples: Any) -> Any:
        """Return a minibatch, its indices taken at their word."""
        if isinstance(columns, HostColumns):
            return super().gather(columns, examples)
        return _gather(columns, examples)

    def split(self, architecture: Architecture, theta: Any) -> list[tuple[Any, Any]]:
        """Return each layer's Θ and bias."""
        if not isinstance(theta, Pieces):
            return super().split(architecture, theta)
        layers = architecture.layers
        weights, biases = theta.arrays[: len(layers)], theta.arrays[len(layers) :]
        return [
            (xp.reshape(Theta, (*Theta.shape[:-1], layer.rows, layer.inputs)), bias)
            for layer, Theta, bias in zip(layers, weights, biases, strict=True)
        ]

    def decay(self, gradient: Any, theta: Any, factor: Any, n_weights: int) -> Any:
        """Return the gradient with λ's part."""
        if not isinstance(theta, Pieces):
            return super().decay(gradient, theta, factor, n_weights)
        weights = theta[..., :n_weights].arrays
        decayed = [D + factor * Theta for D, Theta in zip(gradient.arrays, weights, strict=False)]
        return Pieces([*decayed, *gradient.arrays[len(weights) :]])

    def half_square(self, weights: Any) -> Any:
        """Return ½ Σ Θ²."""
        if not isinstance(weights, Pieces):
            return super().half_square(weights)
        return sum(map(super().half_square, weights.arrays))

    def update(
        self, optimizer: Optimizer, theta: Any, gradient: Any, slots: Slots, *rates: Any
    ) -> tuple[Any, Slots]:
        """Update all parameters, piece by piece: of rules that go element by element only."""
        if not isinstance(theta, Pieces):
            return super().update(optimizer, theta, gradient, slots, *rates)
        updated = [
            optimizer.update(xp, part, D, tuple(memory), *rates)
            for part, D, *memory in zip(
                theta.arrays, gradient.arrays, *(slot.arrays for slot in slots), strict=True
            )
        ]
        thetas, memories = zip(*updated, strict=True)
        return Pieces(thetas), tuple(map(Pieces, zip(*memories, strict=True)))


class JAXPieces(JAXPrimitives):
    """The same, with gradients in pieces too."""

    def unroll(self, architecture: Architecture, layers: Sequence[tuple[Any, Any]]) -> Any:
        """Return the gradient from that of each layer."""
        leading = layers[0][1].shape[:-1]
        weights = [xp.reshape(D, (*leading, math.prod(D.shape[-2:]))) for D, _ in layers]
        return Pieces([*weights, *(bias for _, bias in layers)])


@jax.jit  # type: ignore[untyped-decorator]
def _gather(columns: Array, examples: Array) -> Array:
    """Return the chosen columns (..., units, m). In one program, all of them aren't transposed for a few."""
    if columns.ndim == 1:
        return columns.at[examples].get(mode="promise_in_bounds")
    rows = xp.matrix_transpose(columns).at[examples].get(mode="promise_in_bounds")
    return xp.matrix_transpose(rows)
