"""One training step: gather a minibatch, backpropagate, update.

A step is a value (`TrainingStep`), called with arrays on the device, of which it consumes some and returns the next:
nothing in it reads a number back to the host. A backend's ``compile`` turns it into an epoch of them, which
`gpunet.training` runs for one network and `gpunet.stacks` for many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gpunet.loss_scaling import Scale, finite
from gpunet.network import (
    Architecture,
    backpropagate,
    cost_and_gradient_in_parts,
    l2_factor,
)
from gpunet.optimizers import Optimizer, Slots
from gpunet.primitives import Primitives
from gpunet.typing import Array, Namespace

Data = tuple[Array, Array, Array | None, Array | float | None]
"""x (s_1, n), y (K, n), sample weights (n,) or None, λ or None."""

Carry = tuple[Array, Slots, Array] | tuple[Array, Slots, Array, Scale]
"""θ (..., P), the optimizer's memory, Σ cost · examples (...), and the losses' scale for a step with ``scaled``."""

Settings = dict[str, Any]
"""What each network of a stack has of its own, in place of the step's: `TrainingStep`."""


@dataclass(frozen=True)
class TrainingStep:
    """One step: gather a minibatch, cost and gradient by backpropagation, update.

    Called as ``step(primitives, carry, batch, data)`` with carry = (θ, slots, Σ cost · examples), batch = (examples'
    indices (..., m), dropout's key if it drops, the optimizer's rates) and `Data`; returns the next carry and consumes
    the old. With leading axes on θ it trains many networks, each with its own examples, key and rates, λ (...) and
    weights (..., n). Data may then end with `Settings` of their own: "optimizer", its numbers by name, (..., 1) each;
    "dropout", the layers' shares, (...) each in float64; "clip" (..., 1).

    The cost of a minibatch is the average over it, λ and sample weights included, as in scikit-learn. With ``whole``
    it is an unbiased estimate of the cost over all examples, the lecture's J: `of_the_whole` prepares the data for it.
    With several ``parts`` a minibatch is divided, and its gradient is the sum of theirs: for short memory, or for
    several threads (and without dropout, which draws for a whole minibatch). With ``scaled`` δ is kept within
    float16's range, and a step that leaves it is left out: see `gpunet.loss_scaling`.
    """

    architecture: Architecture
    optimizer: Optimizer
    dropout: tuple[float, ...] = ()
    clip: float | None = None
    whole: bool = False
    parts: int = 1
    scaled: bool = False

    def __call__(
        self,
        primitives: Primitives,
        carry: Carry,
        batch: tuple[Array, ...],
        data: Data | tuple[Any, ...],
    ) -> Carry:
        theta, slots, total, *more_state = carry
        scale: Scale | None = more_state[0] if self.scaled else None
        examples, *rates = batch
        key = rates.pop(0) if self.dropout else None
        x, y, weights, l2, *more = data
        own: Settings = more[0] if more else {}
        optimizer = self.optimizer
        if "optimizer" in own:
            optimizer = replace(optimizer, **own["optimizer"])
        m = examples.shape[-1]
        total_weight = m if self.whole else None
        if weights is not None:
            weights = primitives.gather_weights(weights, examples)
        if self.parts > 1:
            cost, gradient = cost_and_gradient_in_parts(
                self.architecture,
                theta,
                m,
                lambda of, start, stop: of.minibatch(x, y, examples[..., start:stop]),
                primitives,
                parts=self.parts,
                weights=weights,
                total=total_weight,
                scale=None if scale is None else scale[0],
            )
        else:
            cost, gradient = backpropagate(
                self.architecture,
                theta,
                *primitives.minibatch(x, y, examples),
                primitives,
                weights=weights,
                total=total_weight,
                dropout=own.get("dropout", self.dropout),
                key=key,
                scale=None if scale is None else scale[0],
            )
        decay = self._decay(primitives.xp, l2, m, weights)
        n = self.architecture.n_weights
        total = primitives.account(total, cost, m, theta, decay, n)
        column = decay if decay is None or isinstance(decay, float) else decay[..., None]
        if column is not None and (scale is not None or self.clip is not None):
            gradient, column = primitives.decay(gradient, theta, column, n), None
        if scale is not None:
            good = finite(primitives.xp, gradient)
        if self.clip is not None:
            gradient = clipped(primitives.xp, gradient, own.get("clip", self.clip))
        if scale is not None:
            theta, slots = primitives.update_where(good, optimizer, theta, gradient, slots, *rates)
            return theta, slots, total, primitives.rescale(scale, good)
        if column is None:
            theta, slots = primitives.update(optimizer, theta, gradient, slots, *rates)
        else:
            theta, slots = primitives.decay_and_update(
                optimizer, theta, gradient, slots, column, n, *rates
            )
        return theta, slots, total

    def _decay(
        self, xp: Namespace, l2: Array | float | None, m: int, weights: Array | None
    ) -> Array | float | None:
        """Return λ/W of a minibatch of m, by which its weights decay."""
        if l2 is None or self.whole:
            return l2
        return l2 / m if weights is None else l2_factor(xp, l2, weights, weights)


def of_the_whole(xp: Namespace, data: Data, rows: Array | None) -> Data:
    """Return data with weights of mean 1 and λ/W for λ, for a `TrainingStep` with ``whole``.

    Then a minibatch of m examples has the cost 1/m Σ_i w_i cost_i + m (λ/W) / (2m) Σ Θ², whose expectation is J over
    all of them: what a run minimises doesn't depend on its batch size.
    """
    x, y, weights, l2 = data
    if weights is None:
        n = x.shape[-1] if rows is None else rows.shape[-1]
        return x, y, None, None if l2 is None else l2 / n
    counted = weights if rows is None else xp.take(weights, rows, axis=0)
    W = xp.sum(counted)
    return x, y, weights * (counted.shape[0] / W), None if l2 is None else l2 / W


def clipped(xp: Namespace, gradient: Array, norm: Array | float) -> Array:
    """Return gradients (..., P) no longer than ``norm``, shortened where they were; consumes them.

    Pascanu et al., 2013: ∂J/∂θ · min(1, norm / ‖∂J/∂θ‖).
    """
    length = xp.sqrt(xp.sum(gradient * gradient, axis=-1, keepdims=True))
    gradient *= norm / xp.maximum(length, norm)
    return gradient
