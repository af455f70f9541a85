"""gpunet as a fit runs it, what its parts are worth, and the matrix products of its steps alone."""

import functools
import os
import warnings

import numpy as np
from _contestants.workloads import ALPHA, SEED, examples, initial

from _gpu.workloads import learning_rates


def backend_on(device):
    """Return gpunet's backend."""
    from gpunet.backend import get_backend

    return get_backend("cupy" if device == "cuda" else "numpy")


def finish(backend):
    """Wait for the device."""
    if backend.name == "cupy":
        import cupy

        cupy.cuda.Device().synchronize()


class Gpunet:
    """gpunet as a fit runs it: an epoch at a time, one read back after each."""

    def __init__(self, workload, networks, device):
        from gpunet import activations, losses
        from gpunet.network import Architecture
        from gpunet.optimizers import Adam
        from gpunet.stacks import Member, Stack
        from gpunet.training import Epochs

        self.workload, self.networks = workload, networks
        self.backend = backend = self.backend_of(backend_on(device))
        xp, transpose = backend.xp, backend.xp.matrix_transpose
        X, y = examples(workload)
        one_hot = np.eye(workload.classes, dtype=workload.dtype)[y]
        self.x, self.y = transpose(backend.asarray(X)), transpose(backend.asarray(one_hot))
        layers = activations.ReLU(), activations.Softmax()
        hidden = len(workload.hidden)
        self.architecture = architecture = Architecture(
            workload.sizes, (*layers[:1] * hidden, layers[1]), losses.SoftmaxCrossEntropy()
        )
        rows, adam = np.arange(workload.n), Adam(workload.rate)
        with backend.active():
            # turned on the device: a processor takes seconds for 200 million numbers
            weights = [(transpose(backend.asarray(W)), backend.asarray(b)) for W, b in initial(workload)]  # fmt: skip
            flat = [xp.reshape(W, (-1,)) for W, _ in weights] + [b for _, b in weights]
            self.theta = xp.concat(flat)
            if networks is None:
                self.epochs = Epochs(
                    architecture, (self.x, self.y, None, ALPHA), backend=backend, optimizer=adam,
                    batch_size=workload.batch,
                )  # fmt: skip
                return
            self.members = lambda: [
                Member(self.theta, adam, self.shuffles(), rows, l2=ALPHA, learning_rate=float(rate))
                for rate in learning_rates(workload, networks)
            ]  # fmt: skip
            self.stack = lambda: Stack(
                architecture, self.x, self.y, self.members(), backend=backend, batch_size=workload.batch
            )  # fmt: skip

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
        self.trained = TrainingState(copy, self.shuffles())

    def shuffles(self):
        """Return what draws the shuffles, the same for every network: after the initial parameters."""
        random = np.random.RandomState()
        random.set_state(self.after_parameters)
        return random

    @functools.cached_property
    def after_parameters(self):
        """The generator's state when the initial parameters are drawn."""
        random = np.random.RandomState(SEED)
        for inputs, units in self.workload.layers:
            random.uniform(size=(inputs + 1) * units)
        return random.get_state()

    def train(self, epochs):
        """Train on; return when all is computed."""
        with self.backend.active():
            for _ in range(epochs):
                if self.networks is None:
                    cost = self.epochs.run(self.trained, lambda step: self.workload.rate)
                else:
                    cost = self.trained.run()
                self.backend.to_host(cost)

    def parameters(self, which=0):
        """Return a network's weights (inputs, units) and biases."""
        theta = self.trained.theta
        theta = self.backend.to_host(theta if theta.ndim == 1 else theta[which])
        return [(Theta.T, bias) for Theta, bias in self.architecture.split(np, theta)]

    def kernels(self):
        """Return how many kernels a step's CUDA graph has; None where there is none."""
        from _gpu.graphs import sizes_of

        return max((kernels or nodes for nodes, kernels in sizes_of(self)[0]), default=None)


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


class Products:
    """A step's matrix products and nothing else, by the backend's own `matmul`, over operands that lie as a step's do.

    z = Θa forward; back δaᵀ, written into the flat gradient, and Θᵀδ but for the first layer.
    """

    def __init__(self, workload, networks, device):
        self.workload, self.backend = workload, backend_on(device)
        random, xp = np.random.default_rng(SEED), self.backend.xp
        sizes, layers = workload.sizes, workload.layers

        def drawn(*shape):
            # not zeros, which cost a device less power
            return self.backend.asarray(random.random(shape, np.float32) - np.float32(0.5))

        def split(vector):
            ends = np.cumsum([0, *(inputs * units for inputs, units in layers)]).tolist()
            return [
                xp.reshape(vector[start:end], (units, inputs))
                for (inputs, units), start, end in zip(layers, ends, ends[1:], strict=False)
            ]

        turned = xp.matrix_transpose
        with self.backend.active():
            weights = sum(inputs * units for inputs, units in layers)
            theta, gradient = drawn(weights), drawn(weights)
            known, self.steps = {}, []
            for batch in workload.batches:
                m = batch.stop - batch.start
                if m not in known:
                    a = [turned(drawn(m, sizes[0])), *(drawn(units, m) for units in sizes[1:])]
                    delta = [drawn(units, m) for units in sizes]
                    known[m] = [
                        *((Theta, a[l], a[l + 1]) for l, Theta in enumerate(split(theta))),
                        *((delta[l + 1], turned(a[l]), D) for l, D in enumerate(split(gradient))),
                        *((turned(Theta), delta[l + 1], delta[l]) for l, Theta in enumerate(split(theta)) if l),
                    ]  # fmt: skip
                self.steps.append(known[m])

    def begin(self):
        """There is nothing to begin."""

    def train(self, epochs):
        """Multiply; return when all is computed."""
        matmul = self.backend.xp.matmul
        with self.backend.active():
            for _ in range(epochs):
                for products in self.steps:
                    for left, right, out in products:
                        matmul(left, right, out=out)
            finish(self.backend)


class ScikitLearn:
    """scikit-learn on the machine's processor, with as many threads as BLAS takes: a fit anew each time."""

    def __init__(self, workload, networks, device):
        from _contestants.estimators import ScikitLearn as Estimator

        self.fits = Estimator(workload, *examples(workload))

    def begin(self):
        """Each fit begins anew."""

    def train(self, epochs):
        """Fit."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there could be more epochs
            self.fits.fit(epochs)

    def parameters(self, which=0):
        """Return weights (inputs, units) and biases."""
        return self.fits.parameters()
