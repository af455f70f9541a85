"""What is trained: data, network, initial parameters and the order of the examples, the same for everyone.

The initial parameters and the shuffles are scikit-learn's draws for ``random_state=SEED``, so that loops written by
hand start where the estimators start and see the same minibatches.
"""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

SEED = 1
ALPHA = 1e-4
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
ORDERS = 16
"""Loops written by hand get this many shuffles, drawn in advance, and then begin again with the first."""


@dataclass(frozen=True)
class Workload:
    """A network and the data it is trained on.

    Parameters
    ----------
    name : str
    n, d, classes : int
        Examples, features, classes; two classes have one logistic output, more of them a softmax.
    hidden : tuple of int
    batch : int
        Examples a step, shuffled every epoch; n is gradient descent on all of them.
    dtype : {'float32', 'float64'}
    activation : {'relu', 'tanh', 'logistic'}
    solver : {'adam', 'gradient_descent', 'lbfgs'}
    rate : float
    few, many : int
        The time of an epoch is the difference between fits of so many epochs; without ``many``, as many as a trial
        needs.
    checked : tuple of int
        After so many epochs, contestants' losses are compared.
    """

    name: str
    n: int
    d: int
    hidden: tuple[int, ...]
    classes: int
    batch: int
    dtype: str = "float32"
    activation: str = "relu"
    solver: str = "adam"
    rate: float = 1e-3
    few: int = 1
    many: int | None = None
    checked: tuple[int, ...] = (1, 2, 3)

    @property
    def sizes(self):
        """s_1 to s_L."""
        return (self.d, *self.hidden, self.outputs)

    @property
    def outputs(self):
        """How many the network has."""
        return 1 if self.classes == 2 else self.classes

    @property
    def layers(self):
        """(inputs, units) of each."""
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def steps(self):
        """How many an epoch has."""
        return math.ceil(self.n / self.batch)

    @property
    def batches(self):
        """The minibatches, as slices of an epoch's order."""
        starts = range(0, self.n, self.batch)
        return [slice(start, min(start + self.batch, self.n)) for start in starts]

    @property
    def products(self):
        """Floating-point operations of an epoch's matrix products: forward, weights' gradients, deltas."""
        weights = [inputs * units for inputs, units in self.layers]
        return 2 * self.n * (3 * sum(weights) - weights[0])

    @property
    def operations(self):
        """Those of an epoch: the products, and some twelve for each parameter that a step updates."""
        parameters = sum((inputs + 1) * units for inputs, units in self.layers)
        return self.products + 12 * self.steps * parameters

    def of(self, dtype):
        """Return the same in another precision."""
        return replace(self, dtype=dtype)


@functools.cache
def examples(workload, n=None):
    """Return X (n, d) and labels y (n,): overlapping clouds, one for each class, and a tenth of the labels wrong."""
    random = np.random.default_rng(SEED)
    centers = random.standard_normal((workload.classes, workload.d), dtype=np.float32)
    n = n or workload.n
    y = random.permutation(np.arange(n) % workload.classes)
    X = random.standard_normal((n, workload.d), dtype=np.float32)
    for start in range(0, n, 4096):  # no second copy of X
        part = slice(start, start + 4096)
        X[part] += centers[y[part]] * np.float32(2 / math.sqrt(workload.d))
    y[: n // 10] = random.permutation(y[: n // 10])
    return X.astype(workload.dtype, copy=False), y


def initial(workload, random=None):
    """Return scikit-learn's initial weights (inputs, units) and biases (units,) of each layer."""
    random = random or np.random.RandomState(SEED)
    layers = []
    for inputs, units in workload.layers:
        bound = math.sqrt((2 if workload.activation == "logistic" else 6) / (inputs + units))
        weights = random.uniform(-bound, bound, (inputs, units)).astype(workload.dtype)
        layers.append((weights, random.uniform(-bound, bound, units).astype(workload.dtype)))
    return layers


def orders(workload):
    """Return scikit-learn's shuffles of the first epochs, each (n,)."""
    if workload.batch == workload.n:
        return [np.arange(workload.n)]
    random = np.random.RandomState(SEED)
    for inputs, units in workload.layers:  # what the initial parameters took
        random.uniform(size=(inputs + 1) * units)
    found = [random.permutation(workload.n)]
    while len(found) < ORDERS:
        found.append(found[-1][random.permutation(workload.n)])
    return found


def loss(workload, parameters):
    """Return the mean cross-entropy of all examples, in double precision: of anyone's parameters, by one formula."""
    X, y = examples(workload)
    g = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "logistic": _logistic}[
        workload.activation
    ]
    *hidden, (W_last, b_last) = [(W.astype(float), b.astype(float)) for W, b in parameters]
    total = 0.0
    for start in range(0, workload.n, 1024):
        a, labels = X[start : start + 1024].astype(float), y[start : start + 1024]
        for W, b in hidden:
            a = g(a @ W + b)
        z = a @ W_last + b_last
        if workload.outputs == 1:
            total += np.logaddexp(0, np.where(labels == 1, -z[:, 0], z[:, 0])).sum()
        else:
            z -= z.max(axis=1, keepdims=True)
            chosen = np.take_along_axis(z, labels[:, None], axis=1)[:, 0]
            total += (np.log(np.exp(z).sum(axis=1)) - chosen).sum()
    return float(total / workload.n)


def _logistic(z):
    return 1 / (1 + np.exp(-z))


W1 = Workload("W1", n=20_000, d=50, hidden=(100,), classes=10, batch=200)
W2 = Workload("W2", n=20_000, d=784, hidden=(256, 128), classes=10, batch=256)
W3 = Workload(  # a single epoch takes long enough, but says too little: all of two fits' noise is in it
    "W3", n=8_192, d=1_024, hidden=(2_048, 2_048), classes=10, batch=1_024, many=4
)  # fmt: skip
W4 = Workload(
    "W4", n=400, d=2, hidden=(8,), classes=2, batch=400, activation="tanh",
    solver="gradient_descent", rate=0.5, few=200, many=2_000, checked=(200, 2_000),
)  # fmt: skip
W4_LBFGS = replace(
    W4, name="W4 L-BFGS", solver="lbfgs", few=10, many=60, checked=(5, 10)
)  # fmt: skip
WORKLOADS = {each.name: each for each in (W1, W2, W3, W4, W4_LBFGS)}

FIXED = Workload("10 rows", n=10, d=20, hidden=(100,), classes=2, batch=10)
"""What a fit costs beside its arithmetic."""
