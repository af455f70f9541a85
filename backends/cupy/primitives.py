"""The primitives on CUDA: one kernel each, where the reference takes a handful.

What a kernel doesn't know goes to the reference: an activation, loss or optimizer of somebody's own (a subclass of
gpunet's too), another dtype, arrays that aren't laid out as a training step lays them out. So a kernel is never more
than a faster way to the same numbers. Nothing here reads a value back to the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity, Maxout, Softmax
from gpunet.losses import Loss
from gpunet.network import Architecture
from gpunet.primitives import Hidden
from gpunet.typing import Array

from .arguments import (
    NULL,
    ZERO,
    apart,
    blocks_of,
    dense,
    ints,
    lanes_of,
    network_step,
    plain,
    real,
    settings_of,
)
from .kernels import ELEMENTWISE, FROM_Z, OUTPUTS, THREADS, TILE, TYPES
from .launching import PART, ROWS
from .products import Capturable
from .updates import Updates

_WIDE = 2**7  # rows


class CuPyPrimitives(Updates):
    """The reference with a kernel in place of most of its formulas.

    Parameters
    ----------
    xp : namespace
        CuPy's.
    launch : callable
        See `gpunet.backends.cupy.kernels.Launch`.
    """

    def forward(
        self, Theta: Array, a: Array, bias: Array, activation: Activation
    ) -> tuple[Array, Array]:
        """Return z and g(z), which takes z's place where g' can be told from it."""
        z, kind = self.xp.matmul(Theta, a), type(activation)
        in_place = kind in ELEMENTWISE and kind not in FROM_Z
        return self._activated(z, bias, activation, z if in_place else None)

    def activate(self, z: Array, bias: Array, activation: Activation) -> tuple[Array, Array]:
        """Return (z + b, g(z + b)) from one kernel; consumes z."""
        return self._activated(z, bias, activation, None)

    def _activated(
        self, z: Array, bias: Array, activation: Activation, a: Array | None
    ) -> tuple[Array, Array]:
        """Return the same, g(z + b) in an array that is given."""
        kind, step = type(activation), network_step(bias, 1, z.shape[:-2])
        known = kind in ELEMENTWISE or kind in (Maxout, Softmax)
        fits = step is not None and bias.shape[-1] == z.shape[-2]
        if not known or not fits or not plain(z, views=(bias,)):
            return super().activate(z, bias, activation)
        *leading, rows, m = z.shape
        networks, units = math.prod(leading), rows // activation.pieces
        if a is None:
            a = self.xp.empty((*leading, units, m), dtype=z.dtype)
        T, size = TYPES[z.dtype.char], ints(networks, units, m)
        arrays = (z, bias, a)
        if kind is Maxout:
            pieces = np.int32(activation.pieces)
            self._by_row(
                f"activate_maxout<{T}>", networks * units, m, (*arrays, pieces, *size, step)
            )
        elif kind is Softmax:
            self._by_column(f"activate_softmax<{T}>", networks, units, m, (*arrays, *size, step))
        else:
            name, numbers = f"activate<{T}, {kind.__name__}>", settings_of(activation, z)
            self._by_row(name, networks * units, m, (*arrays, *numbers, *size, step))
        return z, a

    def pull_back(self, delta: Array, z: Array, a: Array, activation: Activation) -> Array:
        """Return δ's factor g' applied, from one kernel, or none for the identity."""
        kind = type(activation)
        if kind is Identity:
            return delta
        known = kind in ELEMENTWISE or kind in (Maxout, Softmax)
        if not known or not plain(delta, z, a) or delta.shape != a.shape:
            return super().pull_back(delta, z, a, activation)
        *leading, units, m = a.shape
        networks = math.prod(leading)
        T, size = TYPES[z.dtype.char], ints(networks, units, m)
        if kind is Maxout:
            pulled, pieces = self.xp.empty(z.shape, dtype=z.dtype), np.int32(activation.pieces)
            arguments = (delta, z, pulled, pieces, *size)
            self._by_row(f"pull_back_maxout<{T}>", networks * units, m, arguments)
            return pulled
        if kind is Softmax:
            self._by_column(f"pull_back_softmax<{T}>", networks, units, m, (delta, a, *size))
        else:
            arguments = (delta, z, a, *settings_of(activation, z), np.int32(z.size))
            name = f"pull_back<{T}, {kind.__name__}>"
            self._launch(name, (blocks_of(z.size, THREADS), 1), (THREADS, 1), arguments)
        return delta

    def output(  # noqa: PLR0917  # as in the base class
        self,
        z: Array,
        bias: Array,
        activation: Activation,
        loss: Loss,
        y: Array,
        weights: Array | None,
        total: float | None = None,
    ) -> tuple[Array, Array]:
        """Return cost and δ⁽ᴸ⁾, which takes z's place, from one kernel for a canonical pair.

        With more examples than a block of threads has columns a second kernel adds up the blocks' costs; with sample
        weights one goes before it that adds up these.
        """
        costs = self._output(z, bias, activation, loss, y, weights, total)
        if costs is None:
            return super().output(z, bias, activation, loss, y, weights, total)
        if costs.shape[-1] > 1:
            costs = self._sums(costs)
        return self.xp.reshape(costs, z.shape[:-2]), z

    def output_layer(  # noqa: PLR0917  # as in the base class
        self,
        Theta: Array,
        a: Array,
        bias: Array,
        activation: Activation,
        loss: Loss,
        y: Array,
        weights: Array | None,
        total: float | None = None,
    ) -> tuple[Array, Array]:
        """Return the cost as parts, one of each block of threads, and δ⁽ᴸ⁾."""
        self._begin()
        z = self.xp.matmul(Theta, a)
        costs = self._output(z, bias, activation, loss, y, weights, total)
        if costs is None:
            return super().output(z, bias, activation, loss, y, weights, total)
        return self.xp.reshape(costs, (*z.shape[:-2], costs.shape[-1])), z

    def summed(self, cost: Array, theta: Array) -> Array:
        """Return the sum of a cost's parts."""
        return self._sums(cost) if cost.ndim == theta.ndim else cost

    def _output(  # noqa: PLR0917  # as in the base class
        self,
        z: Array,
        bias: Array,
        activation: Activation,
        loss: Loss,
        y: Array,
        weights: Array | None,
        total: float | None,
        product: tuple[Any, ...] = (),
    ) -> Array | None:
        """Put δ⁽ᴸ⁾ into z's place and return the blocks' costs (networks, blocks); None if it isn't for a kernel.

        With a ``product``, Θ, a and what `output_layer` takes at the end, z is computed first.
        """
        shape, (units, m) = z.shape[:-2], z.shape[-2:]
        steps = [network_step(bias, 1, shape), network_step(y, 2, shape), ZERO]
        fits = bias.shape[-1] == units and y.shape[-2:] == (units, m)
        arrays = [z]
        if weights is not None:
            steps[2] = network_step(weights, 1, shape)
            fits = fits and weights.shape[-1] == m
            arrays.append(weights)
        known = OUTPUTS.get(type(loss)) is type(activation) and None not in steps
        if not known or not fits or not plain(*arrays, views=(bias, y)):
            return None
        totals, number = NULL, total or 0.0  # with weights, W where it is given
        if weights is None:
            number = 1.0 / (m if total is None else total)
        elif total is None:
            totals = self._sums(weights)
        networks = math.prod(shape)
        columns = TILE if product else THREADS // lanes_of(units)
        costs = self.xp.empty((networks, blocks_of(m, columns)), dtype=z.dtype)
        arguments = (
            *(*product[:2], z, bias, y, NULL if weights is None else weights, totals, costs),
            *(real(number, z), *ints(networks, units, m)),
            *(steps[0], steps[1], apart(y, -2), apart(y, -1), steps[2], *product[2:]),
        )
        name = f"{TYPES[z.dtype.char]}, {type(loss).__name__}>"
        if product:
            grid = costs.shape[-1], min(networks, ROWS)
            self._launch(f"output_layer<{name}", grid, (TILE, TILE), arguments)
        else:
            self._by_column(f"output<{name}", networks, units, m, arguments)
        return costs

    def drop(self, a: Array, key: Array, layer: int, rate: Array | float) -> tuple[Array, Array]:
        """Return what is left of the activations, and the factor that did it, from one kernel; keeps ``a``."""
        shape = a.shape[:-2]
        fits = key.shape == shape and len(shape) <= 1 and key.dtype == np.int64
        rates, threshold, scale = NULL, 0, 0.0
        if isinstance(rate, float):
            threshold, scale = int(rate * 2**32), 1.0 / (1.0 - rate)
        else:
            rates = rate
            fits = fits and rate.shape == shape and rate.dtype == np.float64 and dense(rate)
        if not fits or not plain(a):
            return super().drop(a, key, layer, rate)
        networks, size = math.prod(shape), math.prod(a.shape[-2:])
        dropped, factor = self.xp.empty_like(a), self.xp.empty_like(a)
        arguments = (
            *(a, key, dropped, factor),
            *(np.uint32(layer * 0x27D4EB2F & 0xFFFFFFFF), np.uint32(threshold)),
            *(real(scale, a), rates, *ints(networks, size), apart(key, 0) if shape else ZERO),
        )
        self._by_number(f"drop<{TYPES[a.dtype.char]}>", networks, size, arguments)
        return dropped, factor

    def bias_gradient(self, delta: Array) -> Array:
        """Return Σ_i δ_i from one kernel, which adds in an order of its own, always the same."""
        return self._sums(delta) if plain(delta) else super().bias_gradient(delta)

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Array, a: Array
    ) -> tuple[Array, Array]:
        """Return δ aᵀ and Σ_i δ_i, where they belong in the flat gradient."""
        layers = self._gradient(architecture, delta)[1]
        if not layers or not plain(delta):
            return super().layer_gradient(architecture, l, delta, a)
        D, D_bias = layers[l]
        self.xp.matmul(delta, self.xp.matrix_transpose(a), out=D)
        if self._here.__dict__.pop("summed", None) is not delta:
            self._sums(delta, out=D_bias)
        return D, D_bias

    def backward(
        self, architecture: Architecture, l: int, Theta: Array, delta: Array, below: Hidden
    ) -> tuple[tuple[Array, Array], Array]:
        """Return layer l's gradient and δ of the layer below; its factor g' and its bias gradient are one kernel."""
        activation = architecture.layers[l - 1].activation
        kind, mine = type(activation), self._gradient(architecture, delta)[1]
        *leading, units, m = below.a.shape
        rows = math.prod(leading) * units
        wide = rows >= _WIDE or m <= PART  # a block to a row keeps the device busy, or is soon done
        if not mine or kind not in ELEMENTWISE or kind is Identity or not wide:
            return super().backward(architecture, l, Theta, delta, below)
        D = self.layer_gradient(architecture, l, delta, below.into)
        pulled = self.xp.matmul(self.xp.matrix_transpose(Theta), delta)
        if below.kept is not None:
            pulled *= below.kept
        if not plain(pulled, below.z, below.a) or pulled.shape != below.a.shape:
            return D, self.pull_back(pulled, below.z, below.a, activation)
        D_bias = mine[l - 1][1]
        lanes = 32 if m <= 1024 else THREADS
        self._launch(
            f"pull_back_and_sum<{TYPES[pulled.dtype.char]}, {kind.__name__}>",
            (blocks_of(rows, THREADS // lanes), 1),
            (lanes, THREADS // lanes),
            (pulled, below.z, below.a, D_bias, *settings_of(activation, pulled), *ints(rows, m, units),
             apart(D_bias, 0) if leading else ZERO),
        )  # fmt: skip
        self._here.summed = pulled
        return D, pulled

    def unroll(self, architecture: Architecture, layers: Sequence[tuple[Array, Array]]) -> Array:
        """Return the flat gradient, which holds the layers already."""
        flat, mine = self._here.__dict__.pop("gradient", (None, ()))
        self._here.__dict__.pop("summed", None)
        if len(mine) == len(layers) and all(
            D is part for (D, _), (part, _) in zip(layers, mine, strict=True)
        ):
            return flat
        return super().unroll(architecture, layers)

    def _begin(self) -> None:
        """Forget the gradient of a step that has ended in an error."""
        for name in ("gradient", "summed"):
            self._here.__dict__.pop(name, None)

    def _gradient(
        self, architecture: Architecture, delta: Array
    ) -> tuple[Array, Sequence[tuple[Array, Array]]]:
        """Return this step's flat gradient and its layers' views, none where a product can't write there.

        The layer that comes first allocates it.
        """
        here, leading = self._here.__dict__, delta.shape[:-2]
        if "gradient" not in here:
            here["gradient"] = None, ()
            if isinstance(self.xp, Capturable) and len(leading) <= 1 and plain(delta):
                shape = (*leading, architecture.n_parameters)
                flat = self.xp.empty(shape, dtype=delta.dtype)
                here["gradient"] = flat, architecture.split(self.xp, flat)
        found: tuple[Array, Sequence[tuple[Array, Array]]] = here.get("gradient", (None, ()))
        return found
