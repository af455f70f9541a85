"""torch's primitives: the same formulas with fewer calls and fewer passes over memory.

A call of torch takes some microseconds, more than the arithmetic of a small network's layer. So its own functions are
called without a layer between; what has one kernel is one call (softmax, g', Adam); results go into what is consumed,
or to where they belong in the flat gradient. Where a formula isn't one of those here, the reference does it.

Requires: torch.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.torch as compat
import torch

from gpunet.activations import Activation, Identity, ReLU, Sigmoid, Softmax, Tanh
from gpunet.losses import ClippedSoftmaxCrossEntropy, Loss, SoftmaxCrossEntropy
from gpunet.network import Architecture
from gpunet.optimizers import Adam, AdamW, Optimizer, Slots
from gpunet.primitives import Primitives, example_share
from gpunet.streaming import HostColumns
from gpunet.typing import Array

Layers = list[tuple[Array, Array]]

_fused_adam = getattr(torch, "_fused_adam_", None)
"""What `torch.optim.Adam(fused=True)` calls: private, so it may go; then the reference does it."""
_CORRECTED = 1e9
"""A step's number so large that the fused kernel corrects no bias: the rate that it is given has it already."""


class _Namespace:
    """torch's functions in the standard's form; the commonest are torch's own, whose arguments are the same."""

    matmul = staticmethod(torch.matmul)
    sqrt = staticmethod(torch.sqrt)

    def __getattr__(self, name: str) -> Any:
        function = getattr(compat, name)
        setattr(self, name, function)  # found at once the next time
        return function

    @staticmethod
    def matrix_transpose(x: Array, /) -> Array:
        """Return the view with the last two axes exchanged."""
        return x.mT


class TorchPrimitives(Primitives):
    """The formulas on torch that keep nothing: for predictions, and for several threads at once."""

    def __init__(self) -> None:
        super().__init__(_Namespace())

    def gather(self, columns: Any, examples: Any) -> Any:
        """Return a minibatch: whole rows are taken, and seen as columns."""
        if isinstance(columns, HostColumns):
            return super().gather(columns, examples)
        if examples.ndim == 1:
            if columns.ndim == 1:
                return columns.index_select(0, examples)
            return columns.mT.index_select(0, examples).mT
        flat = examples.reshape(-1)
        if columns.ndim == 1:
            return columns.index_select(0, flat).reshape(examples.shape)
        rows = columns.mT.index_select(0, flat)
        return rows.reshape(*examples.shape, rows.shape[-1]).mT

    def half_square(self, weights: Any) -> Any:
        """Return ½ Σ Θ² as a product of vectors."""
        return torch.linalg.vecdot(weights, weights).mul_(0.5)


class StepPrimitives(TorchPrimitives):
    """The formulas of an epoch's steps, one after the other: they share views and the gradient's memory."""

    def __init__(self) -> None:
        super().__init__()
        self._split: tuple[Array | None, Layers] = None, []
        self._gradient: tuple[Array | None, Layers] = None, []
        self._corrected: Array | None = None

    def split(self, architecture: Architecture, theta: Any) -> Layers:
        """Return the views of θ; the same θ, updated in place, has the same ones."""
        if self._split[0] is not theta:
            self._split = theta, super().split(architecture, theta)
        return self._split[1]

    def activate(self, z: Any, bias: Any, activation: Activation) -> tuple[Any, Any]:
        """Return (z + b, g(z + b)); where g' needs only a, a takes z's place."""
        z.add_(bias.unsqueeze(-1))
        kind = type(activation)
        if kind is ReLU:
            return z, z.relu_()
        if kind is Tanh:
            return z, z.tanh_()
        if kind is Sigmoid:
            return z, z.sigmoid()  # beside z, from which the cost is computed
        if kind is Identity:
            return z, z
        return z, activation.g(self.xp, z)

    def pull_back(self, delta: Any, z: Any, a: Any, activation: Activation) -> Any:
        """Return δ times g', in δ's place."""
        kind, backward = type(activation), torch.ops.aten
        if kind is ReLU:
            return backward.threshold_backward(delta, a, 0, grad_input=delta)
        if kind is Tanh:
            return backward.tanh_backward(delta, a, grad_input=delta)
        if kind is Sigmoid:
            return backward.sigmoid_backward(delta, a, grad_input=delta)
        return super().pull_back(delta, z, a, activation)

    def output(  # noqa: PLR0917  # as in the reference
        self,
        z: Any,
        bias: Any,
        activation: Activation,
        loss: Loss,
        y: Any,
        weights: Any,
        total: float | None = None,
    ) -> tuple[Any, Any]:
        """Return the cost and δ⁽ᴸ⁾: for a softmax and its cross-entropy with torch's own kernels."""
        clip = type(loss) is ClippedSoftmaxCrossEntropy
        if type(activation) is not Softmax or not (clip or type(loss) is SoftmaxCrossEntropy):
            return super().output(z, bias, activation, loss, y, weights, total)
        z.add_(bias.unsqueeze(-1))
        if clip:
            a = torch.softmax(z, -2)
            epsilon = torch.finfo(z.dtype).eps
            log_a = torch.clamp(a, epsilon, 1.0 - epsilon, out=z).log_()
        else:
            log_a = torch.log_softmax(z, -2)
            a = torch.exp(log_a, out=z)
        log_a.mul_(y)
        share = example_share(self.xp, z, weights, total)
        if weights is None:
            cost = log_a.sum((-2, -1)).mul_(-share)
        else:
            share = share.unsqueeze(-2)
            cost = log_a.mul_(share).sum((-2, -1)).neg_()
        a.mul_(y.sum(-2, keepdim=True)).sub_(y)  # each example's targets sum to 1, as a rule
        return cost, a.mul_(share)

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Any, a: Any
    ) -> tuple[Any, Any]:
        """Return δ aᵀ and Σ_i δ_i, where they belong in the flat gradient."""
        D, D_bias = self._gradient_of(architecture, delta)[l]
        if delta.ndim == a.ndim:
            torch.matmul(delta, a.mT, out=D)
        else:  # one minibatch for all networks: torch takes them as one product, which has another shape
            D.copy_(torch.matmul(delta, a.mT))
        torch.sum(delta, -1, out=D_bias)
        return D, D_bias

    def _gradient_of(self, architecture: Architecture, delta: Array) -> Layers:
        """Return the layers' views of the flat gradient, which all steps share."""
        shape = (*delta.shape[:-2], architecture.n_parameters)
        flat = self._gradient[0]
        if flat is None or flat.shape != shape or flat.dtype != delta.dtype:
            flat = delta.new_empty(shape)
            self._gradient = flat, architecture.split(self.xp, flat)
        return self._gradient[1]

    def unroll(self, architecture: Architecture, layers: Any) -> Any:
        """Return the flat gradient: its memory holds the layers already."""
        return self._gradient[0]

    def decay(self, gradient: Any, theta: Any, factor: Any, n_weights: int) -> Any:
        """Return the gradient with λ's part, added in place."""
        into, weights = gradient[..., :n_weights], theta[..., :n_weights]
        if isinstance(factor, float):
            into.add_(weights, alpha=factor)
        else:
            into.addcmul_(weights, factor)
        return gradient

    def update(
        self, optimizer: Optimizer, theta: Any, gradient: Any, slots: Slots, *rates: Any
    ) -> tuple[Any, Slots]:
        """Return θ and the optimizer's memory: Adam's by one kernel, which goes through them once."""
        if (
            _fused_adam is None
            or not isinstance(optimizer, Adam)
            or type(optimizer) not in (Adam, AdamW)
            or theta.device.type not in ("cpu", "cuda")
            or not theta.is_contiguous()  # the kernel takes for granted that all lie alike
            or not all(isinstance(value, float) for value in vars(optimizer).values())
        ):
            return super().update(optimizer, theta, gradient, slots, *rates)
        if type(optimizer) is AdamW:
            theta.mul_(1.0 - rates[1])
        if self._corrected is None:
            self._corrected = torch.tensor(_CORRECTED, dtype=torch.float32, device=theta.device)
        m, v = slots
        # the kernel takes one rate: for networks with a rate each it makes steps of length 1
        stacked = rates[0].ndim > 0
        into, rate = (torch.zeros_like(theta), 1.0) if stacked else (theta, rates[0])
        _fused_adam(
            [into], [gradient], [m], [v], [], [self._corrected],
            lr=rate, beta1=optimizer.beta_1, beta2=optimizer.beta_2, weight_decay=0.0,
            eps=optimizer.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip
        if stacked:
            theta.addcmul_(into, rates[0])
        return theta, slots
