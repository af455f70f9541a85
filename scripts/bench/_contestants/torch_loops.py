"""PyTorch as its users train it: `nn.Sequential`, fused Adam, data resident, a minibatch by its indices."""

import functools
import math

import torch
from torch import nn
from torch.nn import functional

from _contestants import Contestant, UnsuitedError
from _contestants.workloads import ALPHA, BETA_1, BETA_2, EPSILON, initial, orders

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid}


class Torch(Contestant):
    """Eager PyTorch."""

    lbfgs = "minimize"
    """Whose L-BFGS: a function of `torch_lbfgs`, which loads SciPy and is imported for it only."""

    def __init__(self, workload, X, y):
        super().__init__(workload, X, y)
        self.X = torch.from_numpy(X)
        self.y = torch.from_numpy(y)
        if workload.outputs == 1:
            self.y = self.y.to(self.X.dtype)
        self.start = [tuple(map(torch.from_numpy, layer)) for layer in initial(workload)]
        self.orders = [torch.from_numpy(order) for order in orders(workload)]
        if workload.solver == "lbfgs":
            from _contestants import torch_lbfgs

            torch_lbfgs.use_one_thread()
            self.minimize = getattr(torch_lbfgs, self.lbfgs)

    def cost(self, x, y):
        """Return the mean cross-entropy of a minibatch."""
        z = self.model(x)
        if self.workload.outputs == 1:
            return functional.binary_cross_entropy_with_logits(z[:, 0], y)
        return functional.cross_entropy(z, y)

    def begin(self):
        """Make the model, its parameters the initial ones."""
        activation = ACTIVATIONS[self.workload.activation]
        modules = []
        for inputs, units in self.workload.layers:
            linear = nn.utils.skip_init(nn.Linear, inputs, units, dtype=self.X.dtype)
            modules += [linear, activation()]
        self.model = nn.Sequential(*modules[:-1])
        self.reset()

    @torch.no_grad()
    def reset(self):
        """Set the initial parameters."""
        for layer, (weights, biases) in zip(self.model[::2], self.start, strict=True):
            layer.weight.copy_(weights.T)
            layer.bias.copy_(biases)

    def optimizer(self):
        """Return the optimizer, its first group the weights, which decay, and the biases, which don't."""
        groups = [
            {"params": [layer.weight for layer in self.model[::2]]},
            {"params": [layer.bias for layer in self.model[::2]]},
        ]
        if self.workload.solver == "gradient_descent":
            return torch.optim.SGD(groups, self.workload.rate, fused=True)
        return torch.optim.Adam(groups, self.workload.rate, (BETA_1, BETA_2), EPSILON, fused=True)

    def fit(self, epochs):
        if self.workload.solver == "lbfgs":
            self.begin()
            return self.minimize(self, epochs)
        self.begin()
        optimizer, step, self.losses = self.optimizer(), 0, []
        for epoch in range(epochs):
            order, total = self.orders[epoch % len(self.orders)], torch.zeros(())
            for batch in self.workload.batches:
                x, y = self.minibatch(order, batch)
                step += 1
                self.adjust(optimizer, step, len(y))
                optimizer.zero_grad()
                cost = self.cost(x, y)
                cost.backward()
                optimizer.step()
                total += cost.detach() * len(y)
            self.losses.append(float(total) / self.workload.n)
        return None

    @staticmethod
    def adjust(optimizer, step, m):
        """Let decay and ε be scikit-learn's: α/m, and an ε beside √v that isn't bias-corrected yet."""
        weights, biases = optimizer.param_groups
        weights["weight_decay"] = ALPHA / m
        weights["eps"] = biases["eps"] = EPSILON / math.sqrt(1 - BETA_2**step)

    def minibatch(self, order, batch):
        """Return a minibatch's rows; of all examples, the data themselves."""
        if self.workload.steps == 1:
            return self.X, self.y
        rows = order[batch]
        return self.X.index_select(0, rows), self.y.index_select(0, rows)

    def parameters(self):
        return [
            (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
            for layer in self.model[::2]
        ]

    @torch.inference_mode()
    def predict(self, X):
        z = self.model(torch.from_numpy(X))
        found = z[:, 0] > 0 if self.workload.outputs == 1 else z.argmax(1)
        return found.numpy()


class TorchCompile(Torch):
    """The same with `torch.compile` of the cost, and so of its gradient: a graph for each size of a minibatch."""

    @functools.cached_property
    def compiled(self):
        """The compiled cost of the one model that all fits start anew."""
        super().begin()
        return torch.compile(super().cost, dynamic=False)

    def begin(self):
        self.compiled  # noqa: B018
        self.reset()

    def cost(self, x, y):
        return self.compiled(x, y)


class TorchLBFGS(Torch):
    """The same with torch's own L-BFGS."""

    lbfgs = "minimize_with_torch"


class TorchByHand(Torch):
    """Backpropagation written down for this network, without a tape: softmax or one logistic output, ReLU or tanh.

    Parameters and gradients are views of two flat vectors, weights and biases, which fused Adam updates at once.
    """

    backward = {  # noqa: RUF012
        "relu": lambda delta, a: torch.ops.aten.threshold_backward(delta, a, 0, grad_input=delta),
        "tanh": lambda delta, a: torch.ops.aten.tanh_backward(delta, a, grad_input=delta),
        "logistic": lambda delta, a: torch.ops.aten.sigmoid_backward(delta, a, grad_input=delta),
    }
    forward = {"relu": torch.relu_, "tanh": torch.tanh_, "logistic": torch.sigmoid_}  # noqa: RUF012

    @torch.no_grad()
    def begin(self):
        """Make the flat vectors, their first values the initial ones, and the views of them."""
        flat = [
            torch.cat([part.ravel() for part in parts]) for parts in zip(*self.start, strict=True)
        ]
        self.flat = [nn.Parameter(vector, requires_grad=False) for vector in flat]
        for vector in self.flat:
            vector.grad = torch.empty_like(vector)
        self.layers, self.gradients = (self.views(*each) for each in
                                       (self.flat, [vector.grad for vector in self.flat]))  # fmt: skip
        classes = torch.arange(self.workload.outputs)
        self.targets = self.y[:, None] if self.workload.outputs == 1 else (
            self.y[:, None] == classes).to(self.X.dtype)  # fmt: skip

    def views(self, weights, biases):
        """Return each layer's."""
        shapes = self.workload.layers
        weights = weights.detach().split([inputs * units for inputs, units in shapes])
        biases = biases.detach().split([units for _, units in shapes])
        return [(W.view(shape), b) for W, shape, b in zip(weights, shapes, biases, strict=True)]

    def optimizer(self):
        groups = [{"params": [vector]} for vector in self.flat]
        if self.workload.solver == "gradient_descent":
            return torch.optim.SGD(groups, self.workload.rate, fused=True)
        return torch.optim.Adam(groups, self.workload.rate, (BETA_1, BETA_2), EPSILON, fused=True)

    @torch.no_grad()
    def fit(self, epochs):
        if self.workload.solver == "lbfgs":
            raise UnsuitedError("steps only")
        self.begin()
        optimizer, step, self.losses = self.optimizer(), 0, []
        for epoch in range(epochs):
            order, total = self.orders[epoch % len(self.orders)], torch.zeros(())
            for batch in self.workload.batches:
                x, y = self.minibatch(order, batch)
                step += 1
                self.adjust(optimizer, step, len(y))
                total += self.backpropagate(x, y)
                optimizer.step()
            self.losses.append(float(total) / self.workload.n)

    def minibatch(self, order, batch):
        if self.workload.steps == 1:
            return self.X, self.targets
        rows = order[batch]
        return self.X.index_select(0, rows), self.targets.index_select(0, rows)

    def backpropagate(self, x, y):
        """Put the gradient where the optimizer finds it; return the summed cost."""
        name = self.workload.activation
        below = [x]
        for W, b in self.layers[:-1]:
            below.append(self.forward[name](torch.addmm(b, below[-1], W)))
        W, b = self.layers[-1]
        z = torch.addmm(b, below[-1], W)
        if self.workload.outputs == 1:
            cost = functional.binary_cross_entropy_with_logits(z, y, reduction="sum")
            delta = torch.sigmoid(z)
        else:
            log_a = torch.log_softmax(z, 1)
            cost = -(log_a * y).sum()
            delta = log_a.exp_()
        delta.sub_(y).mul_(1 / len(y))
        for l in reversed(range(len(self.layers))):
            D, D_bias = self.gradients[l]
            torch.mm(below[l].T, delta, out=D)
            torch.sum(delta, 0, out=D_bias)
            if l > 0:
                delta = self.backward[name](delta @ self.layers[l][0].T, below[l])
        return cost

    def parameters(self):
        return [(W.numpy().copy(), b.numpy().copy()) for W, b in self.layers]

    @torch.inference_mode()
    def predict(self, X):
        a = torch.from_numpy(X)
        for W, b in self.layers[:-1]:
            a = self.forward[self.workload.activation](torch.addmm(b, a, W))
        W, b = self.layers[-1]
        z = torch.addmm(b, a, W)
        return (z[:, 0] > 0 if self.workload.outputs == 1 else z.argmax(1)).numpy()
