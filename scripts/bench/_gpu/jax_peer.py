"""JAX on the GPU: `jit` of a `lax.scan` over an epoch, `vmap` over a stack, whose networks have rates of their own."""

import copy
import dataclasses

import jax
import numpy as np
from _contestants import jax_loops
from _contestants.workloads import examples

from _gpu.contestants import AbsentError, products
from _gpu.workloads import learning_rates

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32"}


def prepare(device):
    """Look whether JAX has the device, and let it multiply as everyone does."""
    found = jax.devices()[0].platform
    if device == "cuda" and found != "gpu":
        raise AbsentError(f"JAX computes on its {found} device here, not on a GPU")
    # its default is TF32 where the device has it
    jax.config.update("jax_default_matmul_precision", PRECISIONS[products()])


class JAX:
    """The loop of scripts/bench/train, and the same over a stack."""

    def __init__(self, workload, networks, device):
        prepare(device)
        self.loop, self.networks = jax_loops.Scan(workload, *examples(workload)), networks
        self.run = self.loop.compiled
        if networks is not None:
            self.rates = learning_rates(workload, networks).astype(np.float32)
            self.run = jax.jit(self.epoch, donate_argnums=0)

    def step(self, state, rate, rows, X, y):
        """Take one network's step at a rate of its own."""
        loop = copy.copy(self.loop)
        loop.workload = dataclasses.replace(loop.workload, rate=rate)
        return loop.step(state, rows, X, y)

    def epoch(self, state, order, X, y):
        """Take an epoch's steps on a stack."""
        m = self.loop.workload.batch
        full = order.shape[0] // m
        all_networks = jax.vmap(self.step, in_axes=(0, 0, None, None, None))

        def step(state, rows):
            return all_networks(state, self.rates, rows, X, y)

        batches = order[: full * m].reshape(full, m)
        state, costs = jax.lax.scan(step, state, batches, unroll=2)
        total = costs.sum(axis=0)
        if full * m < order.shape[0]:
            state, cost = step(state, order[full * m :])
            total += cost
        return state, total

    def begin(self):
        """Start anew."""
        self.state, self.number = self.loop.begin(), 0
        if self.networks is not None:

            def repeated(leaf):
                return jax.numpy.repeat(leaf[None], self.networks, axis=0)

            self.state = jax.tree.map(repeated, self.state)

    def train(self, epochs):
        """Train on; return when all is computed."""
        loop = self.loop
        for _ in range(epochs):
            order = loop.orders[self.number % len(loop.orders)]
            self.state, total = self.run(self.state, order, loop.X, loop.y)
            np.asarray(total)
            self.number += 1

    def parameters(self, which=0):
        """Return a network's weights (inputs, units) and biases."""
        one = self.networks is None
        return [
            tuple(np.asarray(part if one else part[which]) for part in layer)
            for layer in self.state[0]
        ]
