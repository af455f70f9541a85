"""Activation functions: g and its derivative g' side by side.

Every function takes the namespace ``xp`` of its arrays, z of shape (..., units, m), and works on any
leading axes. All of them but `Exponential` are safe far out: no overflow and no NaN for |z| up to 1e4 in float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import device

from gpunet.typing import Array, Namespace


@dataclass(frozen=True)
class Activation:
    """The base class: an activation is g, its derivative, and what is known about its values."""

    # Not annotated, so that a subclass can make a field of any of them.
    name = ""
    pieces = 1
    """Rows of z for each unit: 1, but for maxout."""
    range = (-math.inf, math.inf)
    """The smallest interval that holds all values of g. Cross-entropy needs one within [0, 1]."""

    def g(self, xp: Namespace, z: Array) -> Array:
        """Return a = g(z), a new array of shape (..., units, m)."""
        raise NotImplementedError

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        """Return g'(z), of z's shape, from z or from a = g(z), whichever is cheaper."""
        raise NotImplementedError

    def backward(self, xp: Namespace, delta: Array, z: Array, a: Array) -> Array:
        """Pull ∂cost/∂a back to ∂cost/∂z; consumes ``delta``.

        For an activation that works element by element this is δ ∘ g'(z), as in the lecture.
        """
        delta *= self.g_prime(xp, z, a)
        return delta


class Identity(Activation):
    """g(z) = z: the output of a regression."""

    name = "identity"

    def g(self, xp: Namespace, z: Array) -> Array:
        return xp.asarray(z, copy=True)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return xp.ones_like(z)

    def backward(self, xp: Namespace, delta: Array, z: Array, a: Array) -> Array:
        return delta


class Sigmoid(Activation):
    """g(z) = 1 / (1 + e⁻ᶻ), the lecture's logistic neuron; g' = a (1 − a)."""

    name = "sigmoid"
    range = (0.0, 1.0)

    def g(self, xp: Namespace, z: Array) -> Array:
        # e^min(z, 0) / (1 + e^−|z|) is the same number on both sides of 0 and never overflows.
        return xp.exp(xp.minimum(z, 0.0)) / (1.0 + xp.exp(-xp.abs(z)))

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return a * (1.0 - a)


class Tanh(Activation):
    """g(z) = tanh(z); g' = 1 − a²."""

    name = "tanh"
    range = (-1.0, 1.0)

    def g(self, xp: Namespace, z: Array) -> Array:
        return xp.tanh(z)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return 1.0 - a * a


class ReLU(Activation):
    """g(z) = max(0, z); g' is 1 for z > 0 and 0 otherwise, at the kink too."""

    name = "relu"
    range = (0.0, math.inf)

    def g(self, xp: Namespace, z: Array) -> Array:
        return xp.maximum(z, 0.0)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return xp.astype(z > 0.0, z.dtype)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """g(z) = max(slope · z, z), with the notes' slope of 0.1; g' is 1 for z > 0, else the slope.

    Raises
    ------
    ValueError
        For a slope outside [0, 1), where the maximum is another function.
    """

    name = "leaky_relu"

    slope: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.slope < 1.0:
            raise ValueError(f"leaky_relu needs a slope in [0, 1), not {self.slope}.")

    def g(self, xp: Namespace, z: Array) -> Array:
        return xp.maximum(z, self.slope * z)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return self.slope + (1.0 - self.slope) * xp.astype(z > 0.0, z.dtype)


@dataclass(frozen=True)
class ELU(Activation):
    """g(z) = z for z ≥ 0, α (eᶻ − 1) for z < 0; g' = 1, and α eᶻ = a + α.

    The notes call it "always derivable". That holds for α = 1 only: otherwise the one-sided
    derivatives at 0 are α and 1, and g' is 1 there.

    Raises
    ------
    ValueError
        For α that isn't positive.
    """

    name = "elu"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < math.inf:
            raise ValueError(f"elu needs a finite alpha > 0, not {self.alpha}.")

    def g(self, xp: Namespace, z: Array) -> Array:
        return xp.maximum(z, 0.0) + self.alpha * xp.expm1(xp.minimum(z, 0.0))

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return xp.where(z >= 0.0, xp.ones_like(z), a + self.alpha)


@dataclass(frozen=True)
class Maxout(Activation):
    """a_j = max over k affine pieces (w₁ᵀx + b₁, w₂ᵀx + b₂, ...); two pieces in the notes.

    A layer of s units has Θ with k·s rows: row p·s + j is piece p of unit j. Not an elementwise
    function: δ goes to the piece that won, the first of them in a tie.

    Raises
    ------
    ValueError
        For fewer than two pieces.
    """

    name = "maxout"

    pieces: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.pieces, int) or self.pieces < 2:
            raise ValueError(
                f"maxout needs a whole number of at least 2 pieces, not {self.pieces}."
            )

    def _by_piece(self, xp: Namespace, z: Array) -> Array:
        """Return z (..., k·s, m) seen as (..., k, s, m)."""
        *leading, rows, m = z.shape
        return xp.reshape(z, (*leading, self.pieces, rows // self.pieces, m))

    def g(self, xp: Namespace, z: Array) -> Array:
        return xp.max(self._by_piece(xp, z), axis=-3)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        """Return ∂a_j/∂z: 1 for the piece that won, else 0; shape (..., k·s, m)."""
        pieces = self._by_piece(xp, z)
        winner = xp.argmax(pieces, axis=-3, keepdims=True)
        number = xp.arange(self.pieces, dtype=winner.dtype, device=device(z))
        won = xp.astype(winner == number[:, None, None], z.dtype)
        return xp.reshape(won, z.shape)

    def backward(self, xp: Namespace, delta: Array, z: Array, a: Array) -> Array:
        won = self._by_piece(xp, self.g_prime(xp, z, a))
        return xp.reshape(delta[..., None, :, :] * won, z.shape)


class Softmax(Activation):
    """a_k = e^{z_k} / Σ_j e^{z_j} over the units: K exclusive classes.

    Not an elementwise function: its derivative is the matrix diag(a) − a aᵀ for each example.
    """

    name = "softmax"
    range = (0.0, 1.0)

    def g(self, xp: Namespace, z: Array) -> Array:
        e = xp.exp(z - xp.max(z, axis=-2, keepdims=True))
        e /= xp.sum(e, axis=-2, keepdims=True)
        return e

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        """Return the diagonal a (1 − a) of the derivative; `backward` has all of it."""
        return a * (1.0 - a)

    def backward(self, xp: Namespace, delta: Array, z: Array, a: Array) -> Array:
        delta -= xp.sum(delta * a, axis=-2, keepdims=True)
        delta *= a
        return delta


class GELU(Activation):
    """g(z) = z Φ(z) in its usual form ½ z (1 + tanh(√(2/π) (z + 0.044715 z³))) (Hendrycks & Gimpel, 2016)."""

    name = "gelu"

    def _tanh(self, xp: Namespace, z: Array) -> Array:
        return xp.tanh(_GELU_SCALE * (z + 0.044715 * z * z * z))

    def g(self, xp: Namespace, z: Array) -> Array:
        return 0.5 * z * (1.0 + self._tanh(xp, z))

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        tanh = self._tanh(xp, z)
        inner = _GELU_SCALE * (1.0 + 3 * 0.044715 * z * z)
        return 0.5 * (1.0 + tanh) + 0.5 * z * (1.0 - tanh * tanh) * inner


_GELU_SCALE = math.sqrt(2.0 / math.pi)


class SiLU(Activation):
    """g(z) = z σ(z), also called swish; g' = σ(z) + a (1 − σ(z)) (Elfwing et al., 2018)."""

    name = "silu"

    def g(self, xp: Namespace, z: Array) -> Array:
        return z * Sigmoid().g(xp, z)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        sigma = Sigmoid().g(xp, z)
        return sigma + a * (1.0 - sigma)


class Exponential(Activation):
    """g(z) = eᶻ, its own derivative: the output for counts and rates, with the Poisson loss."""

    name = "exp"
    range = (0.0, math.inf)

    def g(self, xp: Namespace, z: Array) -> Array:
        return xp.exp(z)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return xp.asarray(a, copy=True)


@dataclass(frozen=True)
class Custom(Activation):
    """An activation of your own, from g and g'.

    Parameters
    ----------
    function : callable
        ``function(xp, z)`` returns g(z) element by element, a new array.
    derivative : callable
        ``derivative(xp, z, a)`` returns g'(z); a = g(z) is there to save work.
    name : str
        What tables and saved files call it. Code is never saved, so `Network.load` asks for it again.
    range : pair of float
        The smallest interval that holds all values of g; cross-entropy needs one within [0, 1].

    Examples
    --------
    >>> import gpunet
    >>> softsign = gpunet.activations.Custom(
    ...     lambda xp, z: z / (1 + xp.abs(z)),
    ...     lambda xp, z, a: 1 / (1 + xp.abs(z)) ** 2,
    ...     name="softsign",
    ... )
    >>> network = gpunet.Network([2, 3, 1], hidden=softsign, seed=0, backend="numpy")
    >>> checks = network.check_gradient([[0.3, -1.0], [2.0, 0.5]], [1, 0], l2=0.1)
    >>> max(check.difference for check in checks) < 1e-6
    True
    """

    function: Callable[[Namespace, Array], Array]
    derivative: Callable[[Namespace, Array, Array], Array]
    name: str = "custom"
    range: tuple[float, float] = (-math.inf, math.inf)

    def g(self, xp: Namespace, z: Array) -> Array:
        return self.function(xp, z)

    def g_prime(self, xp: Namespace, z: Array, a: Array) -> Array:
        return self.derivative(xp, z, a)


KNOWN: dict[str, type[Activation]] = {
    kind.name: kind
    for kind in (
        Identity,
        Sigmoid,
        Tanh,
        ReLU,
        LeakyReLU,
        ELU,
        Maxout,
        GELU,
        SiLU,
        Softmax,
        Exponential,
    )
}
_ALIASES = {"logistic": "sigmoid", "linear": "identity", "leakyrelu": "leaky_relu", "swish": "silu"}


def get(spec: str | Activation) -> Activation:
    """Return the activation that a name or an object stands for.

    Parameters
    ----------
    spec : str or Activation
        A known name, optionally with its one setting after a colon (``"leaky_relu:0.2"``, ``"elu:0.5"``,
        ``"maxout:3"``), or an activation.

    Raises
    ------
    ValueError
        For an unknown name (the known ones are listed) or a setting that doesn't fit.

    Examples
    --------
    >>> get("leaky_relu:0.2")
    LeakyReLU(slope=0.2)
    >>> get("logistic").name
    'sigmoid'
    """
    if isinstance(spec, Activation):
        return spec
    if not isinstance(spec, str):
        raise TypeError(
            f"An activation is a name ({', '.join(KNOWN)}) or a gpunet.activations.Activation, "
            f"not {spec!r}. For one of your own give gpunet.activations.Custom(g, g_prime)."
        )
    name, colon, setting = spec.lower().partition(":")
    name = _ALIASES.get(name, name)
    if name not in KNOWN:
        raise ValueError(
            f"Unknown activation {spec!r}; known are {', '.join(KNOWN)} (sigmoid is also called logistic)."
        )
    kind = KNOWN[name]
    if not colon:
        return kind()
    fields = dataclasses.fields(kind)
    if not fields:
        raise ValueError(f"Activation {name!r} has no setting, but {spec!r} gives one.")
    try:
        value = int(setting) if kind is Maxout else float(setting)
    except ValueError:
        raise ValueError(
            f"The setting {setting!r} in activation {spec!r} isn't a number for "
            f"{fields[0].name}, such as '{name}:{fields[0].default}'."
        ) from None
    return kind(**{fields[0].name: value})
