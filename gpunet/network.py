"""A network's description, forward propagation and backpropagation.

Examples are columns, as in the lecture: a⁽ˡ⁾ has the shape (..., s_l, m). Any array may carry leading axes:
many networks at once. Parameters are one flat vector θ of shape (..., P), first the weights of all layers, then the
biases of all layers; each Θ⁽ˡ⁾ and b⁽ˡ⁾ is a view of it. Everything is a pure function over such arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from gpunet.activations import Activation, Softmax
from gpunet.losses import Loss
from gpunet.primitives import Hidden, Primitives, example_share, mean_cost
from gpunet.streaming import copied_rows
from gpunet.typing import Array, Namespace


@dataclass(frozen=True)
class Layer:
    """The weights between two layers: from ``inputs`` units to ``units``, through ``activation``.

    ``rows`` is the height of Θ: units, or units × pieces for maxout.
    """

    inputs: int
    units: int
    activation: Activation

    @property
    def rows(self) -> int:
        """The height of Θ and z."""
        return self.units * self.activation.pieces


@dataclass(frozen=True)
class Architecture:
    """What a network is, without its parameters: immutable, hashable, the same on every backend.

    Parameters
    ----------
    sizes : tuple of int
        (s_1, ..., s_L): units of each layer, the bias not counted.
    activations : tuple of Activation
        One for each layer after the first, the output's last.
    loss : Loss
        What the network is trained on.

    Raises
    ------
    ValueError
        For sizes that are no network, a number of activations other than L − 1, and outputs that the loss can't take.

    Examples
    --------
    >>> from gpunet.activations import Sigmoid
    >>> from gpunet.losses import CrossEntropy
    >>> xor = Architecture((2, 2, 1), (Sigmoid(), Sigmoid()), CrossEntropy())
    >>> xor.n_parameters  # Θ⁽¹⁾ is 2 × 3, Θ⁽²⁾ is 1 × 3
    9
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss

    def __post_init__(self) -> None:
        sizes = self.sizes
        if len(sizes) < 2 or not all(isinstance(s, int) and s > 0 for s in sizes):
            raise ValueError(
                f"A network has at least an input and an output layer, each with a whole number of units "
                f"s_l >= 1; given were {list(sizes)}."
            )
        if len(self.activations) != len(sizes) - 1:
            raise ValueError(
                f"L = {len(sizes)} layers {list(sizes)} need L - 1 = {len(sizes) - 1} activations (layers 2 to "
                f"{len(sizes)}, the output's last), but {len(self.activations)} were given."
            )
        output = self.activations[-1]
        (low, high), (lowest, highest) = output.range, self.loss.domain
        if low < lowest or high > highest:
            raise ValueError(
                f"Loss {self.loss.name!r} needs outputs in [{lowest:g}, {highest:g}], but {output.name!r} gives values "
                f"in [{low:g}, {high:g}]. Use output={self.loss.canonical!r} or loss='squared_error'."
            )
        if isinstance(output, Softmax) and sizes[-1] == 1:
            raise ValueError(
                "softmax over s_L = 1 output unit is always 1. Use output='sigmoid' with loss='cross_entropy', or two "
                "output units."
            )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Θ⁽¹⁾ to Θ⁽ᴸ⁻¹⁾: where they lead from and to."""
        return tuple(
            Layer(inputs, units, activation)
            for inputs, units, activation in zip(
                self.sizes, self.sizes[1:], self.activations, strict=False
            )
        )

    @cached_property
    def n_weights(self) -> int:
        """How many weights there are, biases not counted."""
        return sum(layer.rows * layer.inputs for layer in self.layers)

    @cached_property
    def n_parameters(self) -> int:
        """P: how many parameters there are, weights and biases."""
        return self.n_weights + sum(layer.rows for layer in self.layers)

    def split(self, xp: Namespace, theta: Array) -> list[tuple[Array, Array]]:
        """Return each layer's Θ (..., rows, inputs) and bias (..., rows), seen in θ (..., P)."""
        split = []
        at, bias_at = 0, self.n_weights
        for layer in self.layers:
            size = layer.rows * layer.inputs
            Theta = theta[..., at : at + size]
            bias = theta[..., bias_at : bias_at + layer.rows]
            split.append((xp.reshape(Theta, (*theta.shape[:-1], layer.rows, layer.inputs)), bias))
            at, bias_at = at + size, bias_at + layer.rows
        return split

    def unroll(self, xp: Namespace, layers: Sequence[tuple[Array, Array]]) -> Array:
        """Return θ (..., P) from each layer's Θ and bias: the inverse of `split`."""
        leading = layers[0][1].shape[:-1]
        weights = [xp.reshape(Theta, (*leading, -1)) for Theta, _ in layers]
        return xp.concat([*weights, *(bias for _, bias in layers)], axis=-1)


def propagate(
    architecture: Architecture, theta: Array, x: Array, primitives: Primitives
) -> Iterator[tuple[Array, Array]]:
    """Propagate forward: z⁽ˡ⁺¹⁾ = Θ⁽ˡ⁾a⁽ˡ⁾ + b⁽ˡ⁾ and a⁽ˡ⁺¹⁾ = g(z⁽ˡ⁺¹⁾), layer by layer.

    Parameters
    ----------
    architecture : Architecture
    theta : array of shape (..., P)
    x : array of shape (..., s_1, m)
    primitives : Primitives

    Yields
    ------
    z : array of shape (..., rows, m)
    a : array of shape (..., s_{l+1}, m)
        The last one is h_Θ(x).
    """
    a = x
    for (Theta, bias), layer in zip(
        architecture.split(primitives.xp, theta), architecture.layers, strict=True
    ):
        z, a = primitives.activate(primitives.xp.matmul(Theta, a), bias, layer.activation)
        yield z, a


def hypothesis(
    architecture: Architecture,
    theta: Array,
    x: Array,
    primitives: Primitives,
    *,
    examples: Array | None = None,
    at_once: int | None = None,
) -> tuple[Array, Array]:
    """Return z⁽ᴸ⁾ and h_Θ(x) = a⁽ᴸ⁾, holding no more than ``at_once`` numbers of a hidden layer.

    x has the shape (..., s_1, m); z⁽ᴸ⁾ has (..., rows, m) and h_Θ(x) (..., K, m). With ``examples``, indices of
    shape (m,), only those columns of an x (s_1, n) are propagated.
    """
    xp = primitives.xp
    m = x.shape[-1] if examples is None else examples.shape[-1]
    networks = math.prod(theta.shape[:-1])
    # a gathered x is copied chunk by chunk, so its rows count too
    widest = max(copied_rows(x), *(layer.rows for layer in architecture.layers))
    chunk = max(1, (at_once or primitives.at_once) // (widest * networks))
    parts = []
    for start in range(0, m, chunk):
        stop = min(start + chunk, m)
        part = (
            x[..., start:stop] if examples is None else primitives.gather(x, examples[start:stop])
        )
        for z, a in propagate(architecture, theta, part, primitives):  # noqa: B007
            pass  # only the last layer's are kept
        parts.append((z, a))
    if len(parts) == 1:
        return parts[0]
    zs, hs = zip(*parts, strict=True)
    return xp.concat(zs, axis=-1), xp.concat(hs, axis=-1)


def cost(
    architecture: Architecture,
    theta: Array,
    x: Array,
    y: Array,
    primitives: Primitives,
    *,
    l2: Array | float | None = None,
    weights: Array | None = None,
) -> Array:
    """Return J(Θ) = 1/W Σ_i w_i cost_i + λ/(2W) Σ Θ², the bias left out of the second sum.

    Parameters
    ----------
    architecture : Architecture
    theta : array of shape (..., P)
    x : array of shape (..., s_1, m)
    y : array of shape (..., K, m)
    primitives : Primitives
    l2 : float or array of shape (...), optional
        λ. None is 0 and saves the work.
    weights : array of shape (..., m), optional
        Sample weights w_i, W is their sum; without them w_i = 1 and W = m.

    Returns
    -------
    array of shape (...)
    """
    xp = primitives.xp
    z, a = hypothesis(architecture, theta, x, primitives)
    each = architecture.loss.cost(xp, z, a, y, architecture.activations[-1])
    J = mean_cost(xp, each, example_share(xp, x, weights))
    if l2 is not None:
        n = architecture.n_weights
        J = J + l2_factor(xp, l2, x, weights) * primitives.half_square(theta[..., :n])
    return J


def cost_and_gradient(
    architecture: Architecture,
    theta: Array,
    x: Array,
    y: Array,
    primitives: Primitives,
    *,
    l2: Array | float | None = None,
    weights: Array | None = None,
    total: float | None = None,
    dropout: tuple[Array | float, ...] = (),
    key: Array | None = None,
    scale: Array | float | None = None,
) -> tuple[Array, Array]:
    """Return J(Θ), shape (...), and ∂J/∂θ, shape (..., P), by backpropagation.

    The lecture's recursion over all examples at once: δ⁽ˡ⁾ = Θ⁽ˡ⁾ᵀ δ⁽ˡ⁺¹⁾ ∘ g'(z⁽ˡ⁾) and
    D⁽ˡ⁾ = δ⁽ˡ⁺¹⁾ a⁽ˡ⁾ᵀ + λ/m Θ⁽ˡ⁾. The 1/m is in δ⁽ᴸ⁾ already. Parameters as for `cost`, and:

    Parameters
    ----------
    total : float, optional
        W, where it isn't the weights' sum: a minibatch's costs and λ may be divided by another number.
    dropout : tuple of float, or of array of shape (...)
        The share of each hidden layer's units that is dropped; () drops none.
    key : int64 array of shape (...), optional
        Which of them: see `gpunet.dropout.keep`.
    scale : float, or array of shape (..., 1), optional
        A power of 2 by which every δ is larger on its way down: see `gpunet.loss_scaling`. The gradient isn't.
    """
    without = backpropagate(
        architecture,
        theta,
        x,
        y,
        primitives,
        weights=weights,
        total=total,
        dropout=dropout,
        key=key,
        scale=scale,
    )
    J, gradient = primitives.summed(without[0], theta), without[1]
    if l2 is None:
        return J, gradient
    factor = l2 / total if total is not None else l2_factor(primitives.xp, l2, x, weights)
    return _with_decay(architecture, theta, (J, gradient), primitives, factor)


def backpropagate(
    architecture: Architecture,
    theta: Array,
    x: Array,
    y: Array,
    primitives: Primitives,
    *,
    weights: Array | None = None,
    total: float | None = None,
    dropout: tuple[Array | float, ...] = (),
    key: Array | None = None,
    scale: Array | float | None = None,
) -> tuple[Array, Array]:
    """Return what `cost_and_gradient` does without λ's part; the cost as `Primitives.output_layer` has it."""
    layers = architecture.layers
    *hidden, (Theta, bias) = primitives.split(architecture, theta)

    # forward: keep what every layer was made of
    below, states = x, []
    for l, (Theta_l, bias_l) in enumerate(hidden):
        z, a = primitives.forward(Theta_l, below, bias_l, layers[l].activation)
        into, kept = primitives.drop(a, key, l, dropout[l]) if dropout else (a, None)
        states.append(Hidden(z, a, kept, into))
        below = into
    J, delta = primitives.output_layer(
        Theta, below, bias, layers[-1].activation, architecture.loss, y, weights, total
    )
    if scale is not None:
        delta *= scale if isinstance(scale, float) else scale[..., None]

    # backward: D of each layer, and δ of the layer below
    D = []
    for l in reversed(range(1, len(layers))):
        Theta = Theta if l == len(hidden) else hidden[l][0]
        D_l, delta = primitives.backward(architecture, l, Theta, delta, states[l - 1])
        D.append(D_l)
    D.append(primitives.layer_gradient(architecture, 0, delta, x))
    D.reverse()
    gradient = primitives.unroll(architecture, D)
    if scale is not None:
        gradient *= 1.0 / scale
    return J, gradient


def _with_decay(
    architecture: Architecture,
    theta: Array,
    without: tuple[Array, Array],
    primitives: Primitives,
    factor: Array | float,
) -> tuple[Array, Array]:
    """Return a cost and a gradient with λ's part, for λ/W."""
    (J, gradient), n = without, architecture.n_weights
    J = J + factor * primitives.half_square(theta[..., :n])
    column = factor if isinstance(factor, float) else factor[..., None]
    return J, primitives.decay(gradient, theta, column, n)


def cost_and_gradient_in_parts(
    architecture: Architecture,
    theta: Array,
    m: int,
    part: Callable[[Primitives, int, int], tuple[Array, Array]],
    primitives: Primitives,
    *,
    parts: int,
    l2: Array | float | None = None,
    weights: Array | None = None,
    total: float | None = None,
    scale: Array | float | None = None,
) -> tuple[Array, Array]:
    """Return what `cost_and_gradient` returns, as the sum of what parts of the examples add to it.

    Only one part is held at once, unless the parts' primitives compute them side by side.

    Parameters
    ----------
    architecture, theta, primitives, l2, total, scale
        As there.
    m : int
        How many examples there are.
    part : callable
        ``part(primitives, start, stop)`` returns some of them, x (..., s_1, stop - start) and y (..., K, stop - start).
    parts : int
    weights : array of shape (..., m), optional
        Of all of them.
    """
    xp = primitives.xp
    if total is None and weights is not None:
        l2 = None if l2 is None else l2_factor(xp, l2, weights, weights)
        weights, total = example_share(xp, weights, weights), 1.0
    total = m if total is None else total
    parts = min(parts, m)
    J = gradient = None
    for k in range(parts):
        start, stop = m * k // parts, m * (k + 1) // parts
        of = primitives.part(k)
        J_part, more = cost_and_gradient(
            architecture,
            theta,
            *part(of, start, stop),
            of,
            weights=None if weights is None else weights[..., start:stop],
            total=total,
            scale=scale,
        )
        if gradient is None:
            J, gradient = J_part, more
        else:
            J, gradient = primitives.add(J, J_part), primitives.add(gradient, more)
    if l2 is None:
        return J, gradient
    return _with_decay(architecture, theta, (J, gradient), primitives, l2 / total)


def gradient_by_example(
    architecture: Architecture,
    theta: Array,
    x: Array,
    y: Array,
    primitives: Primitives,
    *,
    l2: float = 0.0,
) -> list[tuple[Array, Array]]:
    """Return each layer's D⁽ˡ⁾ (Θ's part, the bias's part) as the notes' algorithm computes it.

    The readable reference: a loop over the examples that accumulates Δ⁽ˡ⁾. `cost_and_gradient` gives the same
    numbers for all examples at once. One network only; x has the shape (s_1, m), y (K, m).
    """
    xp, m = primitives.xp, x.shape[-1]
    thetas = architecture.split(xp, theta)
    # Set Δ⁽ˡ⁾ = 0 for all l
    Delta = [(xp.zeros_like(Theta), xp.zeros_like(bias)) for Theta, bias in thetas]
    # For i = 1 to m
    for i in range(m):
        x_i, y_i = x[:, i : i + 1], y[:, i : i + 1]
        # set a⁽¹⁾ = x⁽ⁱ⁾ and propagate forward to a⁽ˡ⁾, l = 2, ..., L
        zs: list[Array] = [None]
        activated = [x_i]
        for z, a in propagate(architecture, theta, x_i, primitives):
            zs.append(z)
            activated.append(a)
        # using y⁽ⁱ⁾, compute δ⁽ᴸ⁾ (a⁽ᴸ⁾ − y⁽ⁱ⁾ for the canonical pairs)
        delta = architecture.loss.delta(
            xp, zs[-1], activated[-1], y_i, architecture.activations[-1]
        )
        # Δ⁽ˡ⁾ := Δ⁽ˡ⁾ + δ⁽ˡ⁺¹⁾ a⁽ˡ⁾ᵀ, and δ⁽ˡ⁾ = Θ⁽ˡ⁾ᵀ δ⁽ˡ⁺¹⁾ ∘ g'(z⁽ˡ⁾)
        for l in reversed(range(len(thetas))):
            Delta_Theta, Delta_bias = Delta[l]
            Delta_Theta += xp.matmul(delta, xp.matrix_transpose(activated[l]))
            Delta_bias += delta[:, 0]
            Delta[l] = (Delta_Theta, Delta_bias)
            if l > 0:
                delta = xp.matmul(xp.matrix_transpose(thetas[l][0]), delta)
                delta = architecture.activations[l - 1].backward(xp, delta, zs[l], activated[l])
    # D⁽ˡ⁾ = 1/m Δ⁽ˡ⁾ + λ/m Θ⁽ˡ⁾, the bias without its second term
    return [
        (Delta_Theta / m + l2 / m * Theta, Delta_bias / m)
        for (Delta_Theta, Delta_bias), (Theta, _) in zip(Delta, thetas, strict=True)
    ]


def l2_factor(xp: Namespace, l2: Array | float, x: Array, weights: Array | None) -> Array | float:
    """Return λ/W, shape (...); 0 where all weights are 0, as in a minibatch of examples that don't count."""
    if weights is None:
        return l2 / x.shape[-1]
    total = xp.sum(weights, axis=-1)
    counts = xp.astype(total > 0.0, total.dtype)
    return l2 * counts / xp.where(total > 0.0, total, xp.ones_like(total))
