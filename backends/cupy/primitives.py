"""The primitives on CUDA: one kernel each, where the reference takes a handful.

What a kernel doesn't know goes to the reference: an activation, loss or optimizer of somebody's own (a subclass of
gpunet's too), another dtype, arrays that aren't laid out as a training step lays them out. So a kernel is never more
than a faster way to the same numbers. Nothing here reads a value back to the host.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity, Maxout, Softmax
from gpunet.loss_scaling import LARGEST, PATIENCE, SMALLEST, Scale
from gpunet.losses import Loss
from gpunet.network import Architecture
from gpunet.optimizers import Optimizer, Slots
from gpunet.primitives import Primitives
from gpunet.typing import Array, Namespace

from .kernels import ELEMENTWISE, OUTPUTS, RULES, THREADS, TYPES, Launch
from .products import Capturable

_NUMBERS = 2**30  # of an array at most: kernels count in int
_ROWS = 2**16 - 1  # of a grid at most; kernels go round
_PART = 2**13  # of a row that is summed by one block
_NULL: Any = np.uintp(0)
_ZERO = np.int64(0)


class CuPyPrimitives(Primitives):
    """The reference with a kernel in place of most of its formulas.

    Parameters
    ----------
    xp : namespace
        CuPy's.
    launch : callable
        See `gpunet.backends.cupy.kernels.Launch`.
    """

    def __init__(self, xp: Namespace, launch: Launch) -> None:
        super().__init__(xp)
        self._launch = launch
        self._here = threading.local()  # the gradient of the step that this thread is in

    def activate(self, z: Array, bias: Array, activation: Activation) -> tuple[Array, Array]:
        """Return (z + b, g(z + b)) from one kernel; consumes z."""
        kind, step = type(activation), _network_step(bias, 1, z.shape[:-2])
        known = kind in ELEMENTWISE or kind in (Maxout, Softmax)
        fits = step is not None and bias.shape[-1] == z.shape[-2]
        if not known or not fits or not _plain(z, views=(bias,)):
            return super().activate(z, bias, activation)
        *leading, rows, m = z.shape
        networks, units = math.prod(leading), rows // activation.pieces
        a = self.xp.empty((*leading, units, m), dtype=z.dtype)
        T, size = TYPES[z.dtype.char], _ints(networks, units, m)
        arrays = (z, bias, a)
        if kind is Maxout:
            pieces = np.int32(activation.pieces)
            self._by_row(
                f"activate_maxout<{T}>", networks * units, m, (*arrays, pieces, *size, step)
            )
        elif kind is Softmax:
            self._by_column(f"activate_softmax<{T}>", networks, units, m, (*arrays, *size, step))
        else:
            name, settings = f"activate<{T}, {kind.__name__}>", _settings(activation, z)
            self._by_row(name, networks * units, m, (*arrays, *settings, *size, step))
        return z, a

    def pull_back(self, delta: Array, z: Array, a: Array, activation: Activation) -> Array:
        """Return δ's factor g' applied, from one kernel, or none for the identity."""
        kind = type(activation)
        if kind is Identity:
            return delta
        known = kind in ELEMENTWISE or kind in (Maxout, Softmax)
        if not known or not _plain(delta, z, a) or delta.shape != a.shape:
            return super().pull_back(delta, z, a, activation)
        *leading, units, m = a.shape
        networks = math.prod(leading)
        T, size = TYPES[z.dtype.char], _ints(networks, units, m)
        if kind is Maxout:
            pulled, pieces = self.xp.empty(z.shape, dtype=z.dtype), np.int32(activation.pieces)
            arguments = (delta, z, pulled, pieces, *size)
            self._by_row(f"pull_back_maxout<{T}>", networks * units, m, arguments)
            return pulled
        if kind is Softmax:
            self._by_column(f"pull_back_softmax<{T}>", networks, units, m, (delta, a, *size))
        else:
            arguments = (delta, z, a, *_settings(activation, z), np.int32(z.size))
            name = f"pull_back<{T}, {kind.__name__}>"
            self._launch(name, (_blocks(z.size, THREADS), 1), (THREADS, 1), arguments)
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
        shape, (units, m) = z.shape[:-2], z.shape[-2:]
        steps = [_network_step(bias, 1, shape), _network_step(y, 2, shape), _ZERO]
        fits = bias.shape[-1] == units and y.shape[-2:] == (units, m)
        arrays = [z]
        if weights is not None:
            steps[2] = _network_step(weights, 1, shape)
            fits = fits and weights.shape[-1] == m
            arrays.append(weights)
        known = OUTPUTS.get(type(loss)) is type(activation) and None not in steps
        if not known or not fits or not _plain(*arrays, views=(bias, y)):
            return super().output(z, bias, activation, loss, y, weights, total)
        totals, number = _NULL, total or 0.0  # with weights, W where it is given
        if weights is None:
            number = 1.0 / (m if total is None else total)
        elif total is None:
            totals = self._sums(weights)
        networks = math.prod(shape)
        costs = self.xp.empty((networks, _blocks(m, THREADS // _lanes(units))), dtype=z.dtype)
        arguments = (
            *(z, bias, y, _NULL if weights is None else weights, totals, costs),
            *(_real(number, z), *_ints(networks, units, m)),
            *(steps[0], steps[1], _step(y, -2), _step(y, -1), steps[2]),
        )
        name = f"output<{TYPES[z.dtype.char]}, {type(loss).__name__}>"
        self._by_column(name, networks, units, m, arguments)
        cost = costs if costs.shape[-1] == 1 else self._sums(costs)
        return self.xp.reshape(cost, shape), z

    def drop(self, a: Array, key: Array, layer: int, rate: Array | float) -> tuple[Array, Array]:
        """Return what is left of the activations, and the factor that did it, from one kernel; keeps ``a``."""
        shape = a.shape[:-2]
        fits = key.shape == shape and len(shape) <= 1 and key.dtype == np.int64
        rates, threshold, scale = _NULL, 0, 0.0
        if isinstance(rate, float):
            threshold, scale = int(rate * 2**32), 1.0 / (1.0 - rate)
        else:
            rates = rate
            fits = fits and rate.shape == shape and rate.dtype == np.float64 and _dense(rate)
        if not fits or not _plain(a):
            return super().drop(a, key, layer, rate)
        networks, size = math.prod(shape), math.prod(a.shape[-2:])
        dropped, factor = self.xp.empty_like(a), self.xp.empty_like(a)
        arguments = (
            *(a, key, dropped, factor),
            *(np.uint32(layer * 0x27D4EB2F & 0xFFFFFFFF), np.uint32(threshold)),
            *(_real(scale, a), rates, *_ints(networks, size), _step(key, 0) if shape else _ZERO),
        )
        self._by_number(f"drop<{TYPES[a.dtype.char]}>", networks, size, arguments)
        return dropped, factor

    def bias_gradient(self, delta: Array) -> Array:
        """Return Σ_i δ_i from one kernel, which adds in an order of its own, always the same."""
        return self._sums(delta) if _plain(delta) else super().bias_gradient(delta)

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Array, a: Array
    ) -> tuple[Array, Array]:
        """Return δ aᵀ and Σ_i δ_i, where they belong in the flat gradient."""
        layers = self._gradient(architecture, l, delta)[1]
        if not layers or not _plain(delta):
            return super().layer_gradient(architecture, l, delta, a)
        D, D_bias = layers[l]
        self.xp.matmul(delta, self.xp.matrix_transpose(a), out=D)
        return D, self._sums(delta, out=D_bias)

    def unroll(self, architecture: Architecture, layers: Sequence[tuple[Array, Array]]) -> Array:
        """Return the flat gradient, which holds the layers already."""
        flat, mine = self._here.__dict__.pop("gradient", (None, ()))
        if len(mine) == len(layers) and all(
            D is part for (D, _), (part, _) in zip(layers, mine, strict=True)
        ):
            return flat
        return super().unroll(architecture, layers)

    def _gradient(
        self, architecture: Architecture, l: int, delta: Array
    ) -> tuple[Array, Sequence[tuple[Array, Array]]]:
        """Return this step's flat gradient and its layers' views, none where a product can't write there.

        The last layer comes first, and allocates it.
        """
        here, leading = self._here.__dict__, delta.shape[:-2]
        if l == len(architecture.layers) - 1:
            here["gradient"] = None, ()
            if isinstance(self.xp, Capturable) and len(leading) <= 1 and _plain(delta):
                shape = (*leading, architecture.n_parameters)
                flat = self.xp.empty(shape, dtype=delta.dtype)
                here["gradient"] = flat, architecture.split(self.xp, flat)
        found: tuple[Array, Sequence[tuple[Array, Array]]] = here.get("gradient", (None, ()))
        return found

    def half_square(self, weights: Array) -> Array:
        """Return ½ Σ Θ² from one kernel, or two for many weights."""
        rows = weights.ndim <= 2 and weights.strides[-1] == weights.itemsize
        if not rows or not _plain(views=(weights,)):
            return super().half_square(weights)
        return self._sums(weights, "HalfSquare")

    def decay(self, gradient: Array, theta: Array, factor: Array | float, n_weights: int) -> Array:
        """Return ∂J/∂θ + factor · θ over the weights, from one kernel in the gradient's place."""
        number = _number(factor, theta)
        if number is None or theta.ndim > 2 or not _plain(gradient, theta):
            return super().decay(gradient, theta, factor, n_weights)
        networks, P = math.prod(theta.shape[:-1]), theta.shape[-1]
        arguments = (gradient, theta, *number[:2], *_ints(networks, n_weights, P))
        self._by_number(f"decay<{TYPES[theta.dtype.char]}>", networks, n_weights, arguments)
        return gradient

    def update(
        self, optimizer: Optimizer, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        """Return θ and the optimizer's memory after one step, from one kernel over all of them."""
        if self._updated(None, optimizer, theta, gradient, slots, *rates):
            return theta, slots
        return super().update(optimizer, theta, gradient, slots, *rates)

    def update_where(
        self,
        good: Array,
        optimizer: Optimizer,
        theta: Array,
        gradient: Array,
        slots: Slots,
        *rates: Array,
    ) -> tuple[Array, Slots]:
        """Return the same for networks that are ``good``, from the same kernel; the others stay as they are."""
        if self._updated(good, optimizer, theta, gradient, slots, *rates):
            return theta, slots
        return super().update_where(good, optimizer, theta, gradient, slots, *rates)

    def rescale(self, scale: Scale, good: Array) -> Scale:
        """Return the losses' scale after a step, in its place, from one kernel."""
        factor, steps = scale
        networks, fits = factor.size, factor.shape == steps.shape == good.shape
        if not fits or not _plain(factor, steps) or not _dense(good):
            return super().rescale(scale, good)
        limits = (_real(n, factor) for n in (SMALLEST, LARGEST, PATIENCE))
        arguments = (factor, steps, good, *limits, *_ints(networks))
        self._by_number(f"rescale<{TYPES[factor.dtype.char]}>", 1, networks, arguments)
        return scale

    def _updated(
        self,
        good: Array | None,
        optimizer: Optimizer,
        theta: Array,
        gradient: Array,
        slots: Slots,
        *rates: Array,
    ) -> bool:
        """Update in place and return True, unless it isn't for a kernel."""
        rule = RULES.get(type(optimizer))
        shape = theta.shape[:-1]
        if rule is None or len(shape) > 1 or not _plain(theta, gradient, *slots):
            return False
        numbers: list[Any] = [_number(getattr(optimizer, name), theta) for name in rule]
        steps = [_rate_step(rate, theta) for rate in rates]
        if None in numbers or None in steps or gradient.shape != theta.shape:
            return False
        if good is not None and not (good.shape == (*shape, 1) and _dense(good)):
            return False
        first, second, third = [*numbers, *(_number(0.0, theta),) * 3][:3]
        networks, P = math.prod(shape), theta.shape[-1]
        arguments = (
            *(theta, gradient, *slots, *(_NULL,) * (2 - len(slots))),
            *(*rates, *(_NULL,) * (2 - len(rates))),
            *(*steps, *(_ZERO,) * (2 - len(rates))),
            *(*first, *second, *third),
            _NULL if good is None else good,
            *_ints(networks, P),
        )
        name = f"update<{TYPES[theta.dtype.char]}, {type(optimizer).__name__}>"
        self._by_number(name, networks, P, arguments)
        return True

    def _sums(self, values: Array, what: str = "Itself", out: Array | None = None) -> Array:
        """Return the sum over the last axis of an array whose rows are contiguous in themselves.

        A long row is added up in parts by many blocks, and then the parts.
        """
        *leading, m = values.shape
        rows, parts = math.prod(leading), min(_blocks(m, _PART), THREADS)
        sums, group, group_apart = out, rows, _ZERO
        if out is None or parts > 1:
            sums = self.xp.empty((*leading, parts), dtype=values.dtype)
        elif out.ndim > 1:
            group, group_apart = out.shape[-1], _step(out, 0)
        lanes = 32 if m <= 1024 else THREADS  # a warp to a row, or a block to a long one
        apart = _step(values, -2) if rows > 1 else _ZERO
        self._launch(
            f"sums<{TYPES[values.dtype.char]}, {what}>",
            (_blocks(rows, THREADS // lanes), parts),
            (lanes, THREADS // lanes),
            (values, sums, *_ints(rows, m), apart, *_ints(group), group_apart),
        )
        if parts > 1:
            return self._sums(sums, out=out)
        return self.xp.reshape(sums, tuple(leading)) if out is None else out

    def _by_row(self, name: str, rows: int, m: int, arguments: tuple[Any, ...]) -> None:
        """Launch with a warp to 32 neighbours of a row."""
        grid = (_blocks(m, 32), min(_blocks(rows, 8), _ROWS))
        self._launch(name, grid, (32, 8), arguments)

    def _by_column(
        self, name: str, networks: int, units: int, m: int, arguments: tuple[Any, ...]
    ) -> None:
        """Launch with some threads to each column."""
        lanes = _lanes(units)
        block = (THREADS // lanes, lanes)
        self._launch(name, (_blocks(m, block[0]), min(networks, _ROWS)), block, arguments)

    def _by_number(self, name: str, networks: int, size: int, arguments: tuple[Any, ...]) -> None:
        """Launch with a thread to each number of each network."""
        grid = (_blocks(size, THREADS), min(networks, _ROWS))
        self._launch(name, grid, (THREADS, 1), arguments)


# A step's shapes and settings are always the same few: what is made of them is kept.


@lru_cache(4096)
def _ints(*numbers: int) -> tuple[Any, ...]:
    return tuple(np.int32(number) for number in numbers)


@lru_cache(4096)
def _long(number: int) -> Any:
    return np.int64(number)


@lru_cache(4096)
def _with_rest(value: float, char: str) -> tuple[Any, Any]:
    """Return a number and 1 − it, rounded as the reference rounds them."""
    T = np.dtype(char).type
    return T(value), T(1.0 - value)


def _real(value: float, like: Array) -> Any:
    return _with_rest(value, like.dtype.char)[0]


def _blocks(numbers: int, each: int) -> int:
    """Return how many blocks of ``each`` hold all."""
    return -(-numbers // each)


def _lanes(units: int) -> int:
    """Return how many threads share a column: 1 up to 16 units, then about one for each 16, 32 at most."""
    return min(32, 1 << ((units - 1) // 16).bit_length())


def _dense(array: Array) -> bool:
    return bool(array.flags.c_contiguous)


def _plain(*arrays: Array, views: tuple[Array, ...] = ()) -> bool:
    """Return whether kernels take the arrays: all of one known dtype, contiguous but for views, not empty."""
    dtype = (arrays or views)[0].dtype
    if dtype.char not in TYPES:
        return False
    for array in arrays:
        if array.dtype != dtype or not _dense(array) or not 0 < array.size <= _NUMBERS:
            return False
    return all(view.dtype == dtype and 0 < view.size <= _NUMBERS for view in views)


def _step(array: Array, axis: int) -> Any:
    """Return how many numbers neighbours along an axis lie apart."""
    return _long(array.strides[axis] // array.itemsize)


def _network_step(array: Array, inner: int, leading: tuple[int, ...]) -> Any:
    """Return how many numbers the networks' parts lie apart, 0 for a part that all share; None if kernels can't tell.

    ``array`` has ``inner`` axes after the networks'. A bias has to be contiguous in itself.
    """
    if inner == 1 and array.strides[-1] != array.itemsize:
        return None
    if array.ndim == inner:
        return _ZERO
    if array.shape[:-inner] == leading and len(leading) == 1:
        return _step(array, 0)
    return None


def _rate_step(rate: Any, theta: Array) -> Any:
    """Return how many numbers the networks' rates lie apart, or None for what kernels don't take."""
    if not isinstance(rate, type(theta)) or rate.dtype != theta.dtype:
        return None
    if rate.ndim == 0:
        return _ZERO
    return _step(rate, 0) if rate.shape == (*theta.shape[:-1], 1) and rate.ndim == 2 else None


def _settings(activation: Activation, like: Array) -> tuple[Any, Any]:
    """Return an activation's setting and 1 − setting."""
    name = ELEMENTWISE[type(activation)]
    return _with_rest(0.0 if name is None else getattr(activation, name), like.dtype.char)


def _number(value: Any, theta: Array) -> tuple[Any, Any, Any] | None:
    """Return an optimizer's number as a kernel takes it: an array of each network's own, or it and 1 − it."""
    char = theta.dtype.char
    if isinstance(value, float | int):
        return _NULL, *_with_rest(value, char)
    if not isinstance(value, type(theta)) or value.dtype != theta.dtype:
        return None
    own = value.shape == (*theta.shape[:-1], 1) and _dense(value)
    return (value, *_with_rest(0.0, char)) if own else None
