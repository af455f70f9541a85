"""Steps and epochs for tests of recorded programs."""

import array_api_compat.numpy as xp
import numpy as np

from gpunet import activations, losses, optimizers
from gpunet.network import Architecture
from gpunet.step import TrainingStep


def epoch_of(step, kind, dtype, *, l2=0.1, weights=None, seed=0, steps=4, m=7, keys=()):
    """Return a function that gives fresh carry, batches and data of an epoch, rows in memory as an estimator's."""
    architecture, optimizer = step.architecture, step.optimizer
    leading = () if kind == "single" else (3,)
    inputs, outputs = architecture.sizes[0], architecture.sizes[-1]

    def make():
        random = np.random.RandomState(seed)
        theta = random.normal(size=(*leading, architecture.n_parameters)).astype(dtype)
        x = random.normal(size=(11, inputs)).astype(dtype).T
        y = random.uniform(size=(11, outputs)).astype(dtype)
        y[:8] = np.eye(outputs)[random.randint(outputs, size=8)]  # the others are soft
        own = kind == "stacked, own examples"
        examples = random.randint(11, size=(steps, *leading, m) if own else (steps, m))
        numbers = [optimizer.rates(number, 0.01) for number in range(1, steps + 1)]
        rates = [np.asarray(rate, dtype) for rate in zip(*numbers, strict=True)]
        if leading:
            rates = [np.tile(rate[:, None, None], (1, *leading, 1)) for rate in rates]
        carry = (theta, optimizer.start(xp, theta), np.zeros(leading, dtype))
        return carry, (examples, *keys, *rates), (x, y.T, weights, l2)

    return make


def step_of(hidden="relu", output="softmax", loss=None, rule="adam", **more):
    loss = loss or losses.ClippedSoftmaxCrossEntropy()
    chosen = (activations.get(hidden), activations.get(hidden), activations.get(output))
    optimizer = optimizers.get(rule, learning_rate=0.01) if isinstance(rule, str) else rule
    return TrainingStep(Architecture((4, 6, 5, 3), chosen, loss), optimizer, **more)
