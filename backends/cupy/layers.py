"""Whole layers as single kernels, where they are so small that to start a product takes longer than to compute it.

Larger ones go through cuBLAS, with kernels beside it: the primitives of which these are a subclass.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity
from gpunet.losses import Loss
from gpunet.network import Architecture
from gpunet.primitives import Hidden
from gpunet.streaming import HostColumns
from gpunet.typing import Array

from .arguments import (
    NULL,
    ZERO,
    apart,
    blocks_of,
    by_rows,
    ints,
    network_step,
    plain,
    settings_of,
    side_by_side,
    strided,
)
from .kernels import ELEMENTWISE, FROM_Z, THREADS, TILE, TYPES
from .launching import ROWS
from .primitives import CuPyPrimitives

SMALL = 2**22
"""So many multiplications a tiled kernel does about as soon as cuBLAS has been started, some microseconds."""
ROW = 2**12
"""How many numbers of a step one block of threads fetches at most."""


@lru_cache
def places(architecture: Architecture, l: int) -> tuple[int, int, int]:
    """Return where layer l's weights and biases begin in θ, and P."""
    before = architecture.layers[:l]
    return (
        sum(layer.rows * layer.inputs for layer in before),
        architecture.n_weights + sum(layer.rows for layer in before),
        architecture.n_parameters,
    )


class LayerPrimitives(CuPyPrimitives):
    """The primitives of CUDA, with one kernel for a small layer.

    A step of a network whose layers are all small is one for its turn, one for its minibatch, one for each layer on
    the way forward and on the way back, one for the cost and one for the update.
    """

    def minibatch(self, x: Array, y: Array, examples: Array) -> tuple[Array, Array]:
        """Return the chosen columns of x and y, from one kernel."""
        if isinstance(x, HostColumns) or not self._gathers(x, y, examples):
            return super().minibatch(x, y, examples)
        d, outputs = x.shape[0], y.shape[0]
        rows = self.xp.empty((*examples.shape, d), dtype=x.dtype)
        targets = self.xp.empty((*examples.shape, outputs), dtype=x.dtype)
        m = math.prod(examples.shape)
        arguments = (x, y, examples, rows, targets, *ints(m, d, outputs), apart(x, 1), apart(y, 1))
        self._by_row(f"minibatch<{TYPES[x.dtype.char]}>", m, d + outputs, arguments)
        return self.xp.matrix_transpose(rows), self.xp.matrix_transpose(targets)

    @staticmethod
    def _gathers(x: Array, y: Array, examples: Array) -> bool:
        """Return whether x and y are rows of memory, seen as columns."""
        arrays = (x, y)
        return (
            all(array.ndim == 2 and side_by_side(array, 0) for array in arrays)
            and plain(views=arrays)
            and examples.dtype == np.int64
            and bool(examples.flags.c_contiguous)
            and examples.size > 0
        )

    def forward(
        self, Theta: Array, a: Array, bias: Array, activation: Activation
    ) -> tuple[Array, Array]:
        """Return z and g(z) of a small layer from one kernel."""
        kind, found = type(activation), self._read(Theta, a)
        biases = None if found is None else network_step(bias, 1, found[0])
        if kind not in ELEMENTWISE or found is None or biases is None:
            return super().forward(Theta, a, bias, activation)
        leading, networks, (rows, inputs, m), where = found
        into = self.xp.empty((*leading, rows, m), dtype=Theta.dtype)
        z = self.xp.empty_like(into) if kind in FROM_Z else into
        arguments = (
            *(Theta, a, bias, NULL if z is into else z, into, *settings_of(activation, into)),
            *(*ints(networks, rows, inputs, m), *where, biases),
        )
        grid = blocks_of(m, TILE), min(networks * blocks_of(rows, TILE), ROWS)
        name = f"forward<{TYPES[into.dtype.char]}, {kind.__name__}>"
        self._launch(name, grid, (TILE, TILE), arguments)
        return z, into

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
        """Return the cost as parts and δ⁽ᴸ⁾, of a small layer from one kernel."""
        self._begin()
        found = self._read(Theta, a)
        if found is not None:
            leading, _, (rows, inputs, m), where = found
            z = self.xp.empty((*leading, rows, m), dtype=Theta.dtype)
            product = Theta, a, *ints(inputs), *where
            costs = self._output(z, bias, activation, loss, y, weights, total, product)
            if costs is not None:
                return self.xp.reshape(costs, (*leading, costs.shape[-1])), z
        return super().output_layer(Theta, a, bias, activation, loss, y, weights, total)

    def backward(
        self, architecture: Architecture, l: int, Theta: Array, delta: Array, below: Hidden
    ) -> tuple[tuple[Array, Array], Array]:
        """Return a small layer's gradient and δ of the layer below from one kernel."""
        activation = architecture.layers[l - 1].activation
        more = () if below.kept is None else (below.kept,)
        fits = type(activation) in ELEMENTWISE and plain(delta, below.z, below.a, *more)
        pulled = None
        if fits and below.z.shape == below.a.shape:
            pulled = self._back(architecture, l, delta, below.into, (Theta, activation, below))
        if pulled is None:
            return super().backward(architecture, l, Theta, delta, below)
        return self._gradient(architecture, delta)[1][l], pulled

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Array, a: Array
    ) -> tuple[Array, Array]:
        """Return δ aᵀ and Σ_i δ_i, of a small layer from one kernel."""
        if isinstance(a, HostColumns) or self._back(architecture, l, delta, a, None) is None:
            return super().layer_gradient(architecture, l, delta, a)
        return self._gradient(architecture, delta)[1][l]

    def _back(
        self,
        architecture: Architecture,
        l: int,
        delta: Array,
        a: Array,
        under: tuple[Array, Activation, Hidden] | None,
    ) -> Array | None:
        """Write layer l's gradient to its place, and return δ of the layer ``under`` it, or else the one given.

        None says that it is nothing for a kernel, and that nothing has been done.
        """
        (gradient, layers), leading = self._gradient(architecture, delta), delta.shape[:-2]
        where = strided(a, leading) if a.dtype == delta.dtype else None
        (rows, m), inputs, networks = delta.shape[-2:], a.shape[-2], math.prod(leading)
        small = networks * rows * inputs * m <= SMALL
        if not layers or where is None or not small or not plain(delta, views=(a,)):
            return None
        tiles = blocks_of(rows, TILE) * blocks_of(inputs, TILE)
        Theta, pulled = NULL, delta
        activation: Activation = Identity()
        down: tuple[Any, ...] = (NULL,) * 4
        of_Theta = ZERO
        if under is not None:
            Theta, activation, below = under
            read = strided(Theta, leading)
            if read is None or not by_rows(Theta):
                return None
            of_Theta = read[0]
            pulled = self.xp.empty((*leading, inputs, m), dtype=delta.dtype)
            kept = NULL if below.kept is None else below.kept
            down = kept, below.z, below.a, pulled
            tiles += blocks_of(inputs, TILE) * blocks_of(m, TILE)
        arguments = (
            *(Theta, delta, a, gradient, *down, *settings_of(activation, delta)),
            *(*ints(networks, rows, inputs, m, *places(architecture, l)), of_Theta, *where),
        )
        name = f"backward<{TYPES[delta.dtype.char]}, {type(activation).__name__}>"
        self._launch(name, (tiles, min(networks, ROWS)), (TILE, TILE), arguments)
        return pulled

    def _read(self, Theta: Array, a: Array) -> Any:
        """Return how a kernel reads a layer's Θ and what goes into it; None if it isn't for one.

        Returns
        -------
        leading, networks, (rows, inputs, m), where
            ``where`` are the distances: from one network's Θ to the next one's, and those of a.
        """
        if isinstance(a, HostColumns) or not plain(views=(Theta, a)):
            return None
        leading, (rows, inputs), m = Theta.shape[:-2], Theta.shape[-2:], a.shape[-1]
        networks = math.prod(leading)
        of_Theta, of_a = strided(Theta, leading), strided(a, leading)
        small = networks * rows * inputs * m <= SMALL and len(leading) <= 1
        if of_Theta is None or of_a is None or not small or a.shape[-2] != inputs:
            return None
        if not by_rows(Theta):
            return None
        return leading, networks, (rows, inputs, m), (of_Theta[0], *of_a)

    def turn(self, tables: tuple[Array, ...], chosen: tuple[Array, ...], at: Array) -> bool:
        """Put a step's row of each table into ``chosen`` and move its number ``at`` on, from one kernel.

        Returns
        -------
        bool
            Whether it was done: rows that are too long for a block aren't.
        """
        rates = [k for k, table in enumerate(tables) if table.dtype.char in TYPES]
        whole = [k for k in range(len(tables)) if k not in rates]
        dtypes = {tables[k].dtype for k in rates} | {tables[k].dtype for k in whole}
        if len(rates) not in {1, 2} or len(whole) not in {1, 2} or len(dtypes) != 2:
            return False
        if sum(row.size for row in chosen) > ROW or any(tables[k].dtype != np.int64 for k in whole):
            return False
        if not all(array.flags.c_contiguous for array in (*tables, *chosen)):
            return False
        arguments: list[Any] = [at]
        for kinds in (whole, rates):
            for k in [*kinds, None][:2]:
                row = (
                    (NULL, NULL, *ints(0))
                    if k is None
                    else (tables[k], chosen[k], *ints(chosen[k].size))
                )
                arguments += row
        name = f"turn<{TYPES[tables[rates[0]].dtype.char]}>"
        self._launch(name, (1, 1), (THREADS, 1), tuple(arguments))
        return True
