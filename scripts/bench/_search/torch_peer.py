"""Stacks of networks in torch: `torch.func` over stacked modules, Adam by hand on all networks at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional

from _search.peers import BETA_1, BETA_2, EPSILON, LOSS_RANGE, Stack, Train


def peer(X: np.ndarray, y: np.ndarray, device: str = "cpu") -> Train:
    """Return what trains stacks on these data, on a device."""
    X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    return lambda stack: _train(stack, X, y)


@torch.no_grad()
def _train(stack: Stack, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    device = X.device
    module = _module(stack).to(device)
    n_networks, epochs, n = stack.rows.shape
    theta = {
        name: parameter.detach()
        for name, parameter in stack_module_state([module] * n_networks)[0].items()
    }

    def cost(theta: Any, X: Any, y: Any, alpha: Any) -> tuple[Any, Any]:
        """Return a network's cost, and as scikit-learn reports it."""
        losses = functional.cross_entropy(functional_call(module, theta, (X,)), y, reduction="none")
        squares = sum((W * W).sum() for name, W in theta.items() if name.endswith("weight"))
        penalty = alpha * squares / (2 * len(X))
        return losses.mean() + penalty, losses.clamp(*LOSS_RANGE).mean() + penalty

    gradient = vmap(grad_and_value(cost, has_aux=True))
    rows, test, alphas, rates = (
        torch.from_numpy(part).to(device)
        for part in (stack.rows, stack.test, stack.alphas, stack.rates)
    )
    m, v = ({name: torch.zeros_like(W) for name, W in theta.items()} for _ in range(2))
    rates = {name: rates.reshape(-1, *[1] * (W.ndim - 1)) for name, W in theta.items()}
    losses = torch.zeros(n_networks, epochs, device=device)
    for epoch in range(epochs):
        minibatches = rows[:, epoch].split(stack.batch, dim=1)
        for batch, correction in zip(minibatches, stack.corrections[epoch].tolist(), strict=True):
            gradients, (_, loss) = gradient(theta, X[batch], y[batch], alphas)
            losses[:, epoch] += loss * (batch.shape[1] / n)
            for name, W in theta.items():
                g = gradients[name]
                m[name].lerp_(g, 1 - BETA_1)
                v[name].mul_(BETA_2).addcmul_(g, g, value=1 - BETA_2)
                step = m[name].div(v[name].sqrt().add_(EPSILON))
                W.addcmul_(step, rates[name], value=-correction)
    scores = losses[:, 0]
    if test.shape[1]:
        outputs = vmap(lambda theta, X: functional_call(module, theta, (X,)))(theta, X[test])
        scores = (outputs.argmax(dim=2) == y[test]).double().mean(dim=1)
    return losses.cpu().numpy(), scores.cpu().numpy()


def _module(stack: Stack) -> torch.nn.Module:
    """Return one network with the first weights."""
    layers: list[torch.nn.Module] = []
    for W, b in stack.weights:
        layer = torch.nn.Linear(*W.shape)
        layer.weight.copy_(torch.from_numpy(W.T))
        layer.bias.copy_(torch.from_numpy(b))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
