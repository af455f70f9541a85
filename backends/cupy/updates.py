"""The end of a step on CUDA: λ's part, the cost's account, and the update of all parameters as one kernel each."""

from __future__ import annotations

import math
from typing import Any

from gpunet.loss_scaling import LARGEST, PATIENCE, SMALLEST, Scale
from gpunet.optimizers import Optimizer, Slots
from gpunet.typing import Array

from .arguments import NULL, ZERO, dense, ints, number_of, plain, rate_step, real, side_by_side
from .kernels import RULES, THREADS, TYPES
from .launching import ROWS, Launching

FEW = 2**14  # squares that one block adds up


class Updates(Launching):
    """The reference with kernels for all that is done to parameters."""

    def half_square(self, weights: Array) -> Array:
        """Return ½ Σ Θ² from one kernel, or two for many weights."""
        rows = weights.ndim <= 2 and side_by_side(weights, -1)
        if not rows or not plain(views=(weights,)):
            return super().half_square(weights)
        return self._sums(weights, "HalfSquare")

    def decay(self, gradient: Array, theta: Array, factor: Array | float, n_weights: int) -> Array:
        """Return ∂J/∂θ + factor · θ over the weights, from one kernel in the gradient's place."""
        number = number_of(factor, theta)
        if number is None or theta.ndim > 2 or not plain(gradient, theta):
            return super().decay(gradient, theta, factor, n_weights)
        networks, P = math.prod(theta.shape[:-1]), theta.shape[-1]
        arguments = (gradient, theta, *number[:2], *ints(networks, n_weights, P))
        self._by_number(f"decay<{TYPES[theta.dtype.char]}>", networks, n_weights, arguments)
        return gradient

    def account(  # noqa: PLR0917  # as in the base class
        self,
        total: Array,
        cost: Array,
        m: int,
        theta: Array,
        factor: Array | float | None,
        n_weights: int,
    ) -> Array:
        """Return the total with a minibatch's cost and λ's part in its place, from one kernel for small networks."""
        shape = theta.shape[:-1]
        column = factor if factor is None or isinstance(factor, float) else factor[..., None]
        number = number_of(0.0 if column is None else column, theta)
        fits = total.shape == shape == cost.shape[: len(shape)] and len(shape) <= 1
        if number is None or not fits or not plain(total, cost, theta):
            return super().account(total, cost, m, theta, factor, n_weights)
        squared, halves = NULL, NULL
        if factor is not None and n_weights > FEW:
            halves = self.half_square(theta[..., :n_weights])
        elif factor is not None:
            squared = theta
        networks, parts = math.prod(shape), cost.size // math.prod(shape)
        arguments = (
            *(total, cost, squared, halves, *number[:2], real(m, total)),
            *ints(networks, parts, n_weights, theta.shape[-1]),
        )
        name = f"account<{TYPES[theta.dtype.char]}>"
        self._launch(name, (1, min(networks, ROWS)), (THREADS, 1), arguments)
        return total

    def update(
        self, optimizer: Optimizer, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        """Return θ and the optimizer's memory after one step, from one kernel over all of them."""
        if self._updated(None, optimizer, theta, gradient, slots, *rates):
            return theta, slots
        return super().update(optimizer, theta, gradient, slots, *rates)

    def decay_and_update(  # noqa: PLR0917  # as in the base class
        self,
        optimizer: Optimizer,
        theta: Array,
        gradient: Array,
        slots: Slots,
        factor: Array | float,
        n_weights: int,
        *rates: Array,
    ) -> tuple[Array, Slots]:
        """Return the same with λ's part of the gradient, which is added in the same kernel."""
        decay = (factor, n_weights)
        if self._updated(None, optimizer, theta, gradient, slots, *rates, decay=decay):
            return theta, slots
        return super().decay_and_update(optimizer, theta, gradient, slots, *decay, *rates)

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
        if not fits or not plain(factor, steps) or not dense(good):
            return super().rescale(scale, good)
        limits = (real(n, factor) for n in (SMALLEST, LARGEST, PATIENCE))
        arguments = (factor, steps, good, *limits, *ints(networks))
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
        decay: tuple[Array | float, int] = (0.0, 0),
    ) -> bool:
        """Update in place and return True, unless it isn't for a kernel."""
        rule = RULES.get(type(optimizer))
        shape = theta.shape[:-1]
        if rule is None or len(shape) > 1 or not plain(theta, gradient, *slots):
            return False
        numbers: list[Any] = [number_of(getattr(optimizer, name), theta) for name in rule]
        numbers.append(number_of(decay[0], theta))
        steps = [rate_step(rate, theta) for rate in rates]
        if None in numbers or None in steps or gradient.shape != theta.shape:
            return False
        if good is not None and not (good.shape == (*shape, 1) and dense(good)):
            return False
        *numbers, (decays, times, _) = numbers
        first, second, third = [*numbers, *(number_of(0.0, theta),) * 3][:3]
        networks, P = math.prod(shape), theta.shape[-1]
        arguments = (
            *(theta, gradient, *slots, *(NULL,) * (2 - len(slots))),
            *(*rates, *(NULL,) * (2 - len(rates))),
            *(*steps, *(ZERO,) * (2 - len(rates))),
            *(*first, *second, *third),
            *(NULL if good is None else good, decays, times),
            *ints(networks, decay[1], P),
        )
        name = f"update<{TYPES[theta.dtype.char]}, {type(optimizer).__name__}>"
        self._by_number(name, networks, P, arguments)
        return True
