"""PyTorch on the GPU: eager, by `torch.compile`, and compiled and captured as one CUDA graph an epoch.

Single networks are `nn.Sequential` with fused Adam; stacks are `vmap` over stacked modules, Adam by hand on all
networks at once, since torch's has one rate for all of them.
"""

import numpy as np
import torch
from _contestants import torch_loops
from _contestants.workloads import ALPHA, BETA_1, BETA_2, EPSILON, examples
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional

from _gpu.contestants import AbsentError, products
from _gpu.workloads import learning_rates

PRECISIONS = {"float32": "highest", "tf32": "high"}
WARM = 3
"""Epochs before a capture, as torch's documentation has it: they compile, allocate and choose."""


def prepare(device):
    """Look whether torch has the device, and let it multiply as everyone does."""
    if device == "cuda" and not torch.cuda.is_available():
        raise AbsentError(f"torch {torch.__version__} finds no GPU here")
    torch.set_float32_matmul_precision(PRECISIONS[products()])


class Torch:
    """Eager PyTorch: the loop of scripts/bench/train on a device."""

    compiled = False

    def __init__(self, workload, networks, device):
        prepare(device)
        self.workload, self.device = workload, torch.device(device)
        self.loop = loop = torch_loops.Torch(workload, *examples(workload))
        loop.X, loop.y = loop.X.to(device), loop.y.to(device)
        loop.orders = [order.to(device) for order in loop.orders]
        loop.begin()
        loop.model.to(device)
        loop.start = [(W.to(device), b.to(device)) for W, b in loop.start]
        self.cost = loop.cost
        if self.compiled:
            self.cost = torch.compile(loop.cost, mode="reduce-overhead", dynamic=False)

    def begin(self):
        """Start anew."""
        self.loop.reset()
        self.optimizer, self.steps, self.epoch = self.loop.optimizer(), 0, 0

    def train(self, epochs):
        """Train on; return when all is computed."""
        loop = self.loop
        for _ in range(epochs):
            order = loop.orders[self.epoch % len(loop.orders)]
            total = torch.zeros((), device=self.device)
            for batch in self.workload.batches:
                x, y = loop.minibatch(order, batch)
                self.steps += 1
                loop.adjust(self.optimizer, self.steps, len(y))
                self.optimizer.zero_grad()
                if self.compiled:  # what the last step's graph has left may be written over
                    torch.compiler.cudagraph_mark_step_begin()
                cost = self.cost(x, y)
                cost.backward()
                self.optimizer.step()
                total += cost.detach() * len(y)
            float(total)
            self.epoch += 1

    def parameters(self, which=0):
        """Return weights (inputs, units) and biases."""
        return [
            (layer.weight.detach().cpu().numpy().T, layer.bias.detach().cpu().numpy())
            for layer in self.loop.model[::2]
        ]


class TorchCompile(Torch):
    """The same with `torch.compile(mode="reduce-overhead")`: CUDA graphs of cost and gradient."""

    compiled = True


class Stacked:
    """Networks as functions of their parameters: a stack by `vmap`, or a single one."""

    def __init__(self, workload, networks, device):
        prepare(device)
        self.workload, self.networks, self.device = workload, networks, torch.device(device)
        loop = torch_loops.Torch(workload, *examples(workload))
        loop.begin()
        self.X, self.y = loop.X.to(device), loop.y.to(device)
        self.orders = [order.to(device) for order in loop.orders]
        self.model = loop.model.to(device)
        start = {name: W.detach() for name, W in self.model.named_parameters()}
        if networks is not None:
            stacked = stack_module_state([self.model] * networks)[0]
            start = {name: W.detach() for name, W in stacked.items()}
        self.names, self.start = [*start], [*start.values()]
        self.theta, self.m, self.v = ([W.clone() for W in self.start] for _ in range(3))
        # each step's rates lie where a graph finds them; compiled code would copy what isn't aligned to 16 bytes
        self.learning_rates = learning_rates(workload, networks or 1)
        aligned = -(-len(self.learning_rates) // 4) * 4
        self.rates = torch.zeros(workload.steps, aligned, device=device)
        self.order = torch.zeros_like(self.orders[0])
        self.total = torch.zeros(() if networks is None else networks, device=device)
        gradient = grad_and_value(self.cost)
        self.gradient = gradient if networks is None else vmap(gradient, in_dims=(0, None, None))
        self.step = self.step_of

    def cost(self, theta, x, y):
        """Return a network's mean cross-entropy."""
        return functional.cross_entropy(functional_call(self.model, theta, (x,)), y)

    def step_of(self, state, rows, rates):
        """Take a step of scikit-learn's Adam with decaying weights, in place."""
        theta, m, v, total = state
        gradients, costs = self.gradient(
            dict(zip(self.names, theta, strict=True)), self.X[rows], self.y[rows]
        )
        g = [gradients[name] for name in self.names]
        weights = [place for place, name in enumerate(self.names) if name.endswith("weight")]
        decaying = [g[place] for place in weights]
        torch._foreach_add_(decaying, [theta[place] for place in weights], alpha=ALPHA / len(rows))
        torch._foreach_lerp_(m, g, 1 - BETA_1)
        torch._foreach_mul_(v, BETA_2)
        torch._foreach_addcmul_(v, g, g, 1 - BETA_2)
        below = torch._foreach_sqrt(v)
        torch._foreach_add_(below, EPSILON)
        steps = torch._foreach_div(m, below)
        torch._foreach_mul_(steps, [rates.reshape(-1, *[1] * (W.ndim - 1)) for W in theta])
        torch._foreach_sub_(theta, steps)
        total.add_(costs, alpha=len(rows))

    @torch.no_grad()
    def begin(self):
        """Start anew, in the same memory."""
        for W, start in zip(self.theta, self.start, strict=True):
            W.copy_(start)
        for moment in (*self.m, *self.v):
            moment.zero_()
        self.epoch = 0

    def run(self):
        """Take an epoch's steps, of which all that changes lies in memory that stays."""
        self.total.zero_()
        for number, batch in enumerate(self.workload.batches):
            state = self.theta, self.m, self.v, self.total
            rates = self.rates[number, : len(self.learning_rates)]
            self.step(state, self.order[batch], rates)

    @torch.no_grad()
    def train(self, epochs):
        """Train on; return when all is computed."""
        for _ in range(epochs):
            steps = self.workload.steps
            t = 1.0 + np.arange(self.epoch * steps, (self.epoch + 1) * steps)
            rates = np.outer(np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t), self.learning_rates)
            self.rates[:, : rates.shape[1]].copy_(torch.from_numpy(rates))
            self.order.copy_(self.orders[self.epoch % len(self.orders)])
            self.run()
            self.total.cpu()
            self.epoch += 1

    def parameters(self, which=0):
        """Return a network's weights (inputs, units) and biases."""
        found = [W.cpu() if self.networks is None else W[which].cpu() for W in self.theta]
        return [(W.numpy().T, b.numpy()) for W, b in zip(found[::2], found[1::2], strict=True)]


class TorchGraph(Stacked):
    """The same compiled as a whole step, an epoch of which is one CUDA graph; on a processor, compiled alone."""

    graph = None

    def __init__(self, workload, networks, device):
        super().__init__(workload, networks, device)
        self.step = torch.compile(self.step_of, dynamic=False)

    @torch.no_grad()
    def begin(self):
        super().begin()
        if self.device.type == "cuda" and self.graph is None:
            self.capture()
            super().begin()

    def capture(self):
        """Compile, and capture an epoch."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                super().run()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            super().run()

    def run(self):
        if self.graph is None:
            super().run()
        else:
            self.graph.replay()
