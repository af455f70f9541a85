"""Optimizers: one update rule each, on the flat parameter vector.

An optimizer is a pair of pure functions and its memory is data: `start` makes the slots (velocity, moments), `update`
takes θ, the gradient and the slots and returns the new θ and slots, having consumed the old. Its numbers
may be arrays of shape (K, 1) instead of floats: K networks with settings of their own.

The learning rate of a step comes in from outside, `rate` having seen the step's number first, on the host
and in double precision: Adam's bias correction depends on nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from types import NoneType
from typing import ClassVar

from gpunet.typing import Array, Namespace

Slots = tuple[Array, ...]


@dataclass(frozen=True)
class Optimizer:
    """The base class. ``learning_rate`` is the step length before any schedule."""

    name: ClassVar[str]
    n_slots: ClassVar[int] = 0

    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        _check_range("learning_rate", self.learning_rate, 0.0, math.inf)

    def start(self, xp: Namespace, theta: Array) -> Slots:
        """Return the memory before the first step: zeros in theta's shape, (..., P) each."""
        return tuple(xp.zeros_like(theta) for _ in range(self.n_slots))

    def rate(self, step: int, learning_rate: float) -> float:
        """Return the factor of update number ``step`` = 1, 2, ... from its learning rate."""
        return learning_rate

    def rates(self, step: int, learning_rate: float) -> tuple[float, ...]:
        """Return all the numbers that `update` takes for a step: `rate`, and what else depends on it.

        Each is proportional to the learning rate.
        """
        return (self.rate(step, learning_rate),)

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        """Return θ and the slots after one step; consumes all but the rates.

        θ, gradient and slots have the shape (..., P); each of the `rates` broadcasts against them.
        """
        raise NotImplementedError


class GradientDescent(Optimizer):
    """θ := θ − α ∂J/∂θ; with all examples in a batch, the lecture's batch gradient descent."""

    name = "gradient_descent"

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        gradient *= rates[0]
        theta -= gradient
        return theta, slots


@dataclass(frozen=True)
class Momentum(Optimizer):
    """v := μ v − α ∂J/∂θ; θ := θ + v (Polyak, 1964)."""

    name = "momentum"
    n_slots = 1

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("momentum", self.momentum, 0.0, 1.0, closed=True)

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        (velocity,) = slots
        gradient *= rates[0]
        velocity *= self.momentum
        velocity -= gradient
        theta += velocity
        return theta, (velocity,)


class Nesterov(Momentum):
    """v := μ v − α ∂J/∂θ; θ := θ + μ v − α ∂J/∂θ (Sutskever et al., 2013, as in scikit-learn)."""

    name = "nesterov"

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        (velocity,) = slots
        gradient *= rates[0]
        velocity *= self.momentum
        velocity -= gradient
        theta -= gradient
        theta += self.momentum * velocity
        return theta, (velocity,)


@dataclass(frozen=True)
class Adam(Optimizer):
    """m := β₁m + (1 − β₁)D; v := β₂v + (1 − β₂)D²; θ := θ − α_t m / (√v + ε) (Kingma & Ba, 2015).

    α_t = α √(1 − β₂ᵗ) / (1 − β₁ᵗ) corrects both moments' bias: the form at the end of the paper's section 2
    and scikit-learn's, where ε isn't corrected.
    """

    name = "adam"
    n_slots = 2

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("beta_1", self.beta_1, 0.0, 1.0, closed=True)
        _check_range("beta_2", self.beta_2, 0.0, 1.0, closed=True)
        _check_range("epsilon", self.epsilon, 0.0, math.inf)

    def rate(self, step: int, learning_rate: float) -> float:
        """Return α_t."""
        correction: float = (1.0 - self.beta_2**step) ** 0.5 / (1.0 - self.beta_1**step)
        return learning_rate * correction

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        m, v = slots
        m *= self.beta_1
        m += (1.0 - self.beta_1) * gradient
        v *= self.beta_2
        gradient *= gradient
        gradient *= 1.0 - self.beta_2
        v += gradient
        step = m / (xp.sqrt(v) + self.epsilon)
        step *= rates[0]
        theta -= step
        return theta, (m, v)


class NAdam(Adam):
    """Adam with Nesterov's momentum: its step takes β₁m + (1 − β₁)D in place of m.

    After Dozat (2016), with Adam's own bias correction in place of his schedule of β₁.
    """

    name = "nadam"

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        m, v = slots
        m *= self.beta_1
        m += (1.0 - self.beta_1) * gradient
        v *= self.beta_2
        v += (1.0 - self.beta_2) * gradient * gradient
        step = self.beta_1 * m + (1.0 - self.beta_1) * gradient
        step /= xp.sqrt(v) + self.epsilon
        step *= rates[0]
        theta -= step
        return theta, (m, v)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled decay: θ := θ − α_t m / (√v + ε) − α w θ (Loshchilov & Hutter, 2019).

    ``decay`` w shrinks all parameters, biases too, as PyTorch's does; it takes the place of λ.
    """

    name = "adamw"

    decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("decay", self.decay, 0.0, math.inf, closed=True)

    def rates(self, step: int, learning_rate: float) -> tuple[float, ...]:
        """Return α_t and α w."""
        return self.rate(step, learning_rate), learning_rate * self.decay

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        rate, shrink = rates
        theta -= shrink * theta
        return super().update(xp, theta, gradient, slots, rate)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """v := ρ v + (1 − ρ) D²; θ := θ − α D / (√v + ε) (Tieleman & Hinton, 2012)."""

    name = "rmsprop"
    n_slots = 1

    learning_rate: float = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("rho", self.rho, 0.0, 1.0, closed=True)
        _check_range("epsilon", self.epsilon, 0.0, math.inf)

    def update(
        self, xp: Namespace, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        (v,) = slots
        v *= self.rho
        v += (1.0 - self.rho) * gradient * gradient
        gradient /= xp.sqrt(v) + self.epsilon
        gradient *= rates[0]
        theta -= gradient
        return theta, (v,)


@dataclass(frozen=True)
class LBFGS:
    """SciPy's L-BFGS-B on the flat vector, all examples at once: see `gpunet.lbfgs.minimize`.

    Parameters
    ----------
    memory : int
        How many past steps approximate the curvature.
    tolerance : float
        It has converged when no component of the gradient is larger.
    """

    name: ClassVar[str] = "lbfgs"

    memory: int = 10
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        _check_range("memory", self.memory, 0, math.inf)
        _check_range("tolerance", self.tolerance, 0.0, math.inf, closed=True)


def _check_range(name: str, value: float, low: float, high: float, *, closed: bool = False) -> None:
    """Refuse a number outside (low, high), or [low, high) where the interval is closed below."""
    if isinstance(value, str | NoneType | bool):
        raise ValueError(f"{name} has to be a number, but is {value!r}.")
    if not isinstance(value, Real):
        return  # an array: one setting for each of many networks
    if not (low < value < high or (closed and value == low)):
        interval = f"{'[' if closed else '('}{low:g}, {high:g})"
        raise ValueError(f"{name} has to lie in {interval}, but is {value}.")


KNOWN: dict[str, type[Optimizer] | type[LBFGS]] = {
    kind.name: kind
    for kind in (GradientDescent, Momentum, Nesterov, Adam, NAdam, AdamW, RMSProp, LBFGS)
}
_ALIASES = {"sgd": "gradient_descent", "gd": "gradient_descent", "l-bfgs": "lbfgs"}


def get(spec: str | Optimizer | LBFGS, learning_rate: float | None = None) -> Optimizer | LBFGS:
    """Return the optimizer that a name or an object stands for.

    Parameters
    ----------
    spec : str, Optimizer or LBFGS
        A known name or an optimizer.
    learning_rate : float, optional
        Goes with a name only; None takes the rule's own default.

    Raises
    ------
    ValueError
        For an unknown name (the known ones are listed), or a learning rate given twice or to L-BFGS.

    Examples
    --------
    >>> get("adam", learning_rate=0.01)
    Adam(learning_rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-08)
    """
    if isinstance(spec, Optimizer | LBFGS):
        if learning_rate is not None:
            raise ValueError(f"Give the learning rate once: inside {spec!r}.")
        return spec
    name = _ALIASES.get(spec, spec) if isinstance(spec, str) else None
    if name not in KNOWN:
        raise ValueError(f"Unknown optimizer {spec!r}; known are {', '.join(KNOWN)}.")
    if learning_rate is None:
        return KNOWN[name]()
    if name == "lbfgs":
        raise ValueError("lbfgs finds its own step length: leave learning_rate out.")
    return KNOWN[name](learning_rate=learning_rate)  # type: ignore[call-arg]
