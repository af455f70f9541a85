"""Who trains on the GPU: gpunet, PyTorch and JAX, one network or a stack of them, data resident on the device.

All start from the same parameters and see the same minibatches in float32; TF32 is off everywhere. A stack's networks
differ in their learning rates and see the same minibatches, as a search's candidates on one fold do.
"""

import dataclasses
import importlib
import os

import numpy as np
from _contestants.workloads import (
    ALPHA,
    BETA_1,
    BETA_2,
    EPSILON,
    SEED,
    WORKLOADS,
    Workload,
    examples,
    initial,
    orders,
)

CONTESTANTS = {
    "gpunet": "Gpunet",
    "torch": "Torch",
    "JAX": "JAX",
    "torch.compile": "TorchCompile",
    "gpunet, graphs": "GpunetGraphs",
    "gpunet, launched": "GpunetLaunched",
    "gpunet, plain": "GpunetPlain",
}
SHARES = {"gpunet": 3, "torch": 2, "JAX": 2, "torch.compile": 3}
"""Of the time that is left, beside 1 for each of the others: the last say what a part of gpunet is worth."""
SMALL = Workload("small", n=3_000, d=10, hidden=(16,), classes=3, batch=32)
SINGLE = ["W1", "W2", "W3", "small"]
STACKS = {"72 of W1": 72, "1000 of W1": 1_000, "1000 of small": 1_000}
TINY = {"n": 700, "d": 10, "hidden": (16,)}
"""What a dry run makes of every workload."""


def workload_of(name, *, dry):
    """Return a workload, and how many networks train on it; None for one."""
    networks = STACKS.get(name)
    workload = {**WORKLOADS, "small": SMALL}[name.rpartition(" of ")[2]]
    if networks:
        workload = dataclasses.replace(workload, n=3_000)
    if dry:
        workload = dataclasses.replace(workload, **TINY)
        networks = networks and 3
    return workload, networks


def learning_rates(workload, networks):
    """Return those of a stack's networks; the first has the workload's."""
    return workload.rate * np.linspace(1.0, 2.0, networks)


class Gpunet:
    """gpunet as a fit runs it: an epoch at a time, one read back after each."""

    def __init__(self, workload, networks, device):
        from gpunet import activations, losses
        from gpunet.backend import get_backend
        from gpunet.network import Architecture
        from gpunet.optimizers import Adam
        from gpunet.stacks import Member, Stack
        from gpunet.training import Epochs

        self.workload, self.networks = workload, networks
        self.backend = backend = self.backend_of(
            get_backend("cupy" if device == "cuda" else "numpy")
        )
        X, y = examples(workload)
        one_hot = np.eye(workload.classes, dtype=workload.dtype)[y]
        transpose = backend.xp.matrix_transpose
        self.x, self.y = transpose(backend.asarray(X)), transpose(backend.asarray(one_hot))
        layers = activations.ReLU(), activations.Softmax()
        hidden = len(workload.hidden)
        self.architecture = architecture = Architecture(
            workload.sizes, (*layers[:1] * hidden, layers[1]), losses.SoftmaxCrossEntropy()
        )
        weights = [(W.T.reshape(-1), b) for W, b in initial(workload)]
        theta = np.concatenate([W for W, _ in weights] + [b for _, b in weights])
        self.theta, adam = backend.asarray(theta, workload.dtype), Adam(workload.rate)
        rows = np.arange(workload.n)
        with backend.active():
            if networks is None:
                self.epochs = Epochs(
                    architecture, (self.x, self.y, None, ALPHA), backend=backend, optimizer=adam,
                    batch_size=workload.batch,
                )  # fmt: skip
                return
            self.members = lambda: [
                Member(
                    self.theta,
                    adam,
                    np.random.RandomState(SEED),
                    rows,
                    l2=ALPHA,
                    learning_rate=float(rate),
                )
                for rate in learning_rates(workload, networks)
            ]
            self.stack = lambda: Stack(
                architecture,
                self.x,
                self.y,
                self.members(),
                backend=backend,
                batch_size=workload.batch,
            )

    def backend_of(self, backend):
        """Return the backend as it is."""
        return backend

    def begin(self):
        """Start anew."""
        from gpunet.training import TrainingState

        if self.networks is not None:
            self.trained = self.stack()
            return
        copy = self.backend.xp.asarray(self.theta, copy=True)
        random = np.random.RandomState(SEED)
        for inputs, units in self.workload.layers:  # what the initial parameters took
            random.uniform(size=(inputs + 1) * units)
        self.trained = TrainingState(copy, random)

    def train(self, epochs):
        """Train on; return when all is computed."""
        with self.backend.active():
            for _ in range(epochs):
                if self.networks is None:
                    cost = self.epochs.run(self.trained, lambda step: self.workload.rate)
                else:
                    cost = self.trained.run()
                self.backend.to_host(cost)

    def parameters(self):
        """Return the (first) network's weights (inputs, units) and biases."""
        theta = self.backend.to_host(self.trained.theta)
        split = self.architecture.split(np, theta if theta.ndim == 1 else theta[0])
        return [(Theta.T, bias) for Theta, bias in split]


class GpunetGraphs(Gpunet):
    """The same with nothing on the chip: what that is worth for small networks."""

    def backend_of(self, backend):
        os.environ["GPUNET_ON_CHIP"] = "0"  # of this process
        return backend


class GpunetLaunched(Gpunet):
    """The same with each kernel started by itself: what the graphs are worth."""

    def backend_of(self, backend):
        os.environ["GPUNET_ON_CHIP"] = os.environ["GPUNET_GRAPHS"] = "0"  # of this process
        return backend


class GpunetPlain(Gpunet):
    """The same with the reference's primitives: what the kernels are worth."""

    def backend_of(self, backend):
        from gpunet.primitives import Primitives

        os.environ["GPUNET_ON_CHIP"] = "0"
        backend.primitives = Primitives(backend.xp)  # of this process
        return backend


class Torch:
    """PyTorch, eager: parameters of a stack lie in one tensor, and a product is a batched one."""

    compiled = False

    def __init__(self, workload, networks, device):
        import torch

        self.torch, self.workload, self.networks, self.device = torch, workload, networks, device
        torch.backends.cuda.matmul.allow_tf32 = False
        X, y = examples(workload)
        self.X, self.y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
        self.orders = [torch.from_numpy(order).to(device) for order in orders(workload)]
        cost = (
            torch.compile(self.cost, mode="reduce-overhead", dynamic=False)
            if self.compiled
            else self.cost
        )
        self.cost_of = cost
        self.layers = [[tensor.requires_grad_() for tensor in layer] for layer in self.start()]

    def start(self):
        torch = self.torch
        layers = [tuple(map(torch.from_numpy, layer)) for layer in initial(self.workload)]
        if self.networks is not None:
            layers = [
                (W.repeat(self.networks, 1, 1), b.repeat(self.networks, 1, 1)) for W, b in layers
            ]
        return [(W.to(self.device), b.to(self.device)) for W, b in layers]

    def cost(self, x, y):
        """Return the mean cross-entropy, the sum over a stack."""
        functional = self.torch.nn.functional
        for number, (W, b) in enumerate(self.layers):
            x = x @ W + b if W.ndim == 3 else self.torch.addmm(b, x, W)
            x = functional.relu(x) if number + 1 < len(self.layers) else x
        if x.ndim == 2:
            return functional.cross_entropy(x, y)
        each = functional.cross_entropy(x.flatten(0, 1), y.repeat(x.shape[0]), reduction="sum")
        return each / y.shape[0]

    def begin(self):
        torch = self.torch
        with torch.no_grad():
            for layer, start in zip(self.layers, self.start(), strict=True):
                for tensor, value in zip(layer, start, strict=True):
                    tensor.copy_(value)
        groups = [{"params": [layer[which] for layer in self.layers]} for which in (0, 1)]
        # one rate for a stack: torch has none of each network's own, which makes its work less
        self.optimizer = torch.optim.Adam(
            groups, self.workload.rate, (BETA_1, BETA_2), EPSILON, fused=True
        )
        self.epoch = 0

    def train(self, epochs):
        for _ in range(epochs):
            order = self.orders[self.epoch % len(self.orders)]
            total = self.torch.zeros((), device=self.device)
            for batch in self.workload.batches:
                rows = order[batch]
                x, y = self.X.index_select(0, rows), self.y.index_select(0, rows)
                self.optimizer.param_groups[0]["weight_decay"] = ALPHA / len(rows)
                self.optimizer.zero_grad()
                cost = self.cost_of(x, y)
                cost.backward()
                self.optimizer.step()
                total += cost.detach() * len(rows)
            float(total)
            self.epoch += 1

    def parameters(self):
        found = [[tensor.detach().cpu().numpy() for tensor in layer] for layer in self.layers]
        if self.networks is None:
            return found
        return [(W[0], b[0, 0]) for W, b in found]


class TorchCompile(Torch):
    """The same with `torch.compile(mode="reduce-overhead")`: CUDA graphs of cost and gradient."""

    compiled = True


class JAX:
    """JAX: `jit` of a `lax.scan` over an epoch, `vmap` over a stack."""

    def __init__(self, workload, networks, device):
        import jax

        found = jax.devices()[0].platform
        if device == "cuda" and found != "gpu":
            raise RuntimeError(f"JAX computes on its {found} device here, not on a GPU")
        jax.config.update("jax_default_matmul_precision", "highest")
        loops = importlib.import_module("_contestants.jax_loops")
        self.jax, self.loop, self.networks = (
            jax,
            loops.Scan(workload, *examples(workload)),
            networks,
        )
        loop = self.loop
        if networks is not None:
            one = loop.step
            loop.step = jax.vmap(one, in_axes=(0, None, None, None))
            loop.compiled = jax.jit(self.epoch)

    def epoch(self, state, order, X, y):
        """Take an epoch's steps on a stack."""
        jax, loop = self.jax, self.loop
        m = loop.workload.batch
        full = order.shape[0] // m

        def step(state, rows):
            return loop.step(state, rows, X, y)

        state, costs = jax.lax.scan(step, state, order[: full * m].reshape(full, m))
        total = costs.sum(axis=0)
        if full * m < order.shape[0]:
            state, cost = step(state, order[full * m :])
            total += cost
        return state, total

    def begin(self):
        self.state, self.number = self.loop.begin(), 0
        if self.networks is not None:
            repeat = lambda leaf: self.jax.numpy.repeat(leaf[None], self.networks, axis=0)  # noqa: E731
            self.state = self.jax.tree.map(repeat, self.state)

    def train(self, epochs):
        loop = self.loop
        for _ in range(epochs):
            order = loop.orders[self.number % len(loop.orders)]
            self.state, total = loop.compiled(self.state, order, loop.X, loop.y)
            np.asarray(total)
            self.number += 1

    def parameters(self):
        found = [tuple(map(np.asarray, layer)) for layer in self.state[0]]
        return found if self.networks is None else [(W[0], b[0]) for W, b in found]
