"""The formulas a training step spends its time in, besides matrix products.

Each stands here once, written in the Array API standard, and that is the reference. A backend may replace
any of them by something faster (``out=`` into a workspace, one kernel instead of five); `gpunet.network`
calls them through the backend's `Primitives` and never knows.

"Consumes" says that an argument's memory may be overwritten: use the returned value only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gpunet.activations import Activation
from gpunet.dropout import keep
from gpunet.loss_scaling import Scale, after
from gpunet.losses import Loss
from gpunet.optimizers import Optimizer, Slots
from gpunet.streaming import HostColumns
from gpunet.typing import Array, Namespace

if TYPE_CHECKING:
    from gpunet.network import Architecture  # the room above, which calls these


class Hidden(NamedTuple):
    """What the way forward leaves of a hidden layer for the way back.

    Attributes
    ----------
    z : array of shape (..., rows, m)
    a : array of shape (..., units, m)
    kept : array of shape (..., units, m), or None
        The factor that dropped some of the units.
    into : array of shape (..., units, m)
        What the layer above has got: a, or what is left of it.
    """

    z: Array
    a: Array
    kept: Array | None
    into: Array


class Primitives:
    """The reference primitives over one namespace.

    Parameters
    ----------
    xp : namespace
        The functions of the Array API standard, for one array library.
    """

    at_once = 2**22
    """How many numbers of a layer a prediction holds at once; a backend with caches may want fewer."""

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp

    def part(self, k: int) -> Primitives:
        """Return the primitives for part k of a minibatch that is divided, 0 for the first.

        What they return for one part has to outlast the next one: theirs is not the memory that a workspace gives to
        every step.
        """
        return self

    def add(self, one: Array, other: Array) -> Array:
        """Return what two parts of a minibatch add up to: costs or gradients; consumes the first."""
        one += other
        return one

    def gather(self, columns: Array, examples: Array) -> Array:
        """Return a minibatch: the chosen columns of an array shared by all networks.

        Parameters
        ----------
        columns : array of shape (units, n) or (n,)
            All examples. Held as rows and passed as a transposed view, a gather reads whole rows.
        examples : integer array of shape (..., m)
            Which ones; each network of a stack may choose others. Without leading axes all see the same.

        Returns
        -------
        array of shape (..., units, m) or (..., m)
        """
        if isinstance(columns, HostColumns):
            return columns.gather(examples)
        xp = self.xp
        flat = xp.reshape(examples, (-1,))
        if columns.ndim == 1:
            return xp.reshape(xp.take(columns, flat, axis=0), examples.shape)
        rows = xp.take(xp.matrix_transpose(columns), flat, axis=0)
        return xp.matrix_transpose(xp.reshape(rows, (*examples.shape, rows.shape[-1])))

    def minibatch(self, x: Array, y: Array, examples: Array) -> tuple[Array, Array]:
        """Return the chosen columns of x and y: see `gather`."""
        return self.gather(x, examples), self.gather(y, examples)

    def whole(self, columns: Array) -> Array:
        """Return all examples (units, n) or (n,) as they are, for a step that takes them at once."""
        return columns

    def gather_weights(self, weights: Array, examples: Array) -> Array:
        """Return a minibatch's weights (..., m), from weights (n,) or, each network its own, (..., n)."""
        if weights.ndim == 1:
            return self.gather(weights, examples)
        if examples.ndim == 1:
            return self.xp.take(weights, examples, axis=-1)
        return self.xp.take_along_axis(weights, examples, axis=-1)

    def forward(
        self, Theta: Array, a: Array, bias: Array, activation: Activation
    ) -> tuple[Array, Array]:
        """Return z = Θa + b (..., rows, m) and g(z) (..., units, m) from a (..., inputs, m).

        For `backward` to read: where g' is told from g(z) alone, that may take z's place.
        """
        return self.activate(self.xp.matmul(Theta, a), bias, activation)

    def backward(
        self, architecture: Architecture, l: int, Theta: Array, delta: Array, below: Hidden
    ) -> tuple[tuple[Array, Array], Array]:
        """Return layer l's D = δaᵀ and Σ_i δ_i, as `layer_gradient` does, and δ of the layer below, Θᵀδ ∘ g'(z)."""
        D = self.layer_gradient(architecture, l, delta, below.into)
        delta = self.xp.matmul(self.xp.matrix_transpose(Theta), delta)
        if below.kept is not None:
            delta *= below.kept
        return D, self.pull_back(delta, below.z, below.a, architecture.layers[l - 1].activation)

    def activate(self, z: Array, bias: Array, activation: Activation) -> tuple[Array, Array]:
        """Return (z + b, g(z + b)); consumes z.

        z has the shape (..., rows, m), the bias (..., rows), a (..., units, m).
        """
        z += bias[..., None]
        return z, activation.g(self.xp, z)

    def pull_back(self, delta: Array, z: Array, a: Array, activation: Activation) -> Array:
        """Return ∂cost/∂z of shape (..., rows, m) from ∂cost/∂a (..., units, m): δ's factor g'(z).

        Consumes ``delta``.
        """
        return activation.backward(self.xp, delta, z, a)

    def output_layer(  # noqa: PLR0917  # the formula's own parts, on the hot path
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
        """Return what `output` does, from what goes into the layer; of the cost it may be parts, for `summed`."""
        z = self.xp.matmul(Theta, a)
        return self.output(z, bias, activation, loss, y, weights, total)

    def summed(self, cost: Array, theta: Array) -> Array:
        """Return the cost (...) that `output_layer` has returned for θ (..., P), or parts of."""
        return cost

    def output(  # noqa: PLR0917  # the formula's own parts, on the hot path
        self,
        z: Array,
        bias: Array,
        activation: Activation,
        loss: Loss,
        y: Array,
        weights: Array | None,
        total: float | None = None,
    ) -> tuple[Array, Array]:
        """Return the unregularised cost J and δ⁽ᴸ⁾ = ∂J/∂z⁽ᴸ⁾; consumes z.

        J = 1/W Σ_i w_i cost_i with W = Σ_i w_i unless ``total`` gives another; without weights w_i = 1 and W = m. The
        average is in δ⁽ᴸ⁾ already, so what follows needs only sums.

        Parameters
        ----------
        z : array of shape (..., rows, m)
            The output layer's z, before the bias.
        bias : array of shape (..., rows)
        activation : Activation
            The output activation.
        loss : Loss
        y : array of shape (..., K, m)
        weights : array of shape (..., m), optional
        total : float, optional
            W, where it isn't the weights' sum.

        Returns
        -------
        cost : array of shape (...)
        delta : array of shape (..., rows, m)
        """
        z, a = self.activate(z, bias, activation)
        share = example_share(self.xp, z, weights, total)
        cost = mean_cost(self.xp, loss.cost(self.xp, z, a, y, activation), share)
        delta = loss.delta(self.xp, z, a, y, activation)
        delta *= share if weights is None else share[..., None, :]
        return cost, delta

    def drop(self, a: Array, key: Array, layer: int, rate: Array | float) -> tuple[Array, Array]:
        """Return activations (..., units, m) with a share of them dropped, and the factor that did it.

        Keeps ``a``. See `gpunet.dropout.keep`.
        """
        factor = keep(self.xp, a, key, layer, rate)
        return a * factor, factor

    def bias_gradient(self, delta: Array) -> Array:
        """Return Σ_i δ_i, shape (..., rows), from δ (..., rows, m)."""
        return self.xp.sum(delta, axis=-1)

    def split(self, architecture: Architecture, theta: Array) -> list[tuple[Array, Array]]:
        """Return each layer's Θ and bias, seen in θ (..., P)."""
        return architecture.split(self.xp, theta)

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Array, a: Array
    ) -> tuple[Array, Array]:
        """Return ∂J/∂Θ = δ aᵀ (..., rows, inputs) and ∂J/∂b = Σ_i δ_i (..., rows) of layer l = 0, 1, ...

        From δ (..., rows, m) above its weights and a (..., inputs, m) below.
        """
        xp = self.xp
        return xp.matmul(delta, xp.matrix_transpose(a)), self.bias_gradient(delta)

    def unroll(self, architecture: Architecture, layers: Sequence[tuple[Array, Array]]) -> Array:
        """Return the flat gradient (..., P) from what `layer_gradient` has returned for each layer."""
        return architecture.unroll(self.xp, layers)

    def decay(self, gradient: Array, theta: Array, factor: Array | float, n_weights: int) -> Array:
        """Return ∂J/∂θ + factor · θ, over the weights, which come first, and not over the biases.

        Consumes the gradient (..., P); the factor is a number or has the shape (..., 1).
        """
        xp = self.xp
        weights = gradient[..., :n_weights] + factor * theta[..., :n_weights]
        return xp.concat([weights, gradient[..., n_weights:]], axis=-1)

    def half_square(self, weights: Array) -> Array:
        """Return ½ Σ Θ², shape (...), from all weights (..., n)."""
        return 0.5 * self.xp.sum(weights * weights, axis=-1)

    def account(  # noqa: PLR0917  # on the hot path
        self,
        total: Array,
        cost: Array,
        m: int,
        theta: Array,
        factor: Array | float | None,
        n_weights: int,
    ) -> Array:
        """Return Σ cost · examples (...) with a minibatch more, λ's part included: factor · ½ Σ Θ².

        Consumes the total; the cost is what `output_layer` has returned, the factor None, a number or of shape (...).
        """
        cost = self.summed(cost, theta)
        if factor is not None:
            cost = cost + factor * self.half_square(theta[..., :n_weights])
        return total + cost * m

    def decay_and_update(  # noqa: PLR0917  # on the hot path
        self,
        optimizer: Optimizer,
        theta: Array,
        gradient: Array,
        slots: Slots,
        factor: Array | float,
        n_weights: int,
        *rates: Array,
    ) -> tuple[Array, Slots]:
        """Return what `update` does with the gradient that `decay` returns."""
        gradient = self.decay(gradient, theta, factor, n_weights)
        return self.update(optimizer, theta, gradient, slots, *rates)

    def update(
        self, optimizer: Optimizer, theta: Array, gradient: Array, slots: Slots, *rates: Array
    ) -> tuple[Array, Slots]:
        """Return θ and the optimizer's memory after one step; consumes all but the rates."""
        return optimizer.update(self.xp, theta, gradient, slots, *rates)

    def update_where(
        self,
        good: Array,
        optimizer: Optimizer,
        theta: Array,
        gradient: Array,
        slots: Slots,
        *rates: Array,
    ) -> tuple[Array, Slots]:
        """Return what `update` does for networks that are ``good`` (..., 1), and the others' θ and memory as they were.

        Consumes all but ``good`` and the rates.
        """
        xp = self.xp
        before = [xp.asarray(array, copy=True) for array in (theta, *slots)]
        theta, slots = self.update(optimizer, theta, gradient, slots, *rates)
        theta, *kept = (
            xp.where(good, new, old) for new, old in zip((theta, *slots), before, strict=True)
        )
        return theta, tuple(kept)

    def rescale(self, scale: Scale, good: Array) -> Scale:
        """Return the losses' scale after a step that was ``good``, (..., 1), or wasn't; consumes it."""
        return after(self.xp, scale, good)


def example_share(
    xp: Namespace, columns: Array, weights: Array | None, total: float | None = None
) -> Array:
    """Return each example's share in an average: w_i / W, or 1/m for all; 0 where all weights are 0."""
    if weights is None:
        return 1.0 / (columns.shape[-1] if total is None else total)
    if total is not None:
        return weights / total
    W = xp.sum(weights, axis=-1, keepdims=True)
    return weights / xp.where(W > 0.0, W, xp.ones_like(W))


def mean_cost(xp: Namespace, cost: Array, share: Array | float) -> Array:
    """Return Σ_i share_i cost_i, shape (...), from the cost of each example (..., m)."""
    return xp.sum(cost * share, axis=-1)
