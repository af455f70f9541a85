"""Estimators in scikit-learn's form: gpunet's on each backend, and scikit-learn's own. Only `fit` and `predict`."""

import sys

import numpy as np

from _contestants import Contestant, UnsuitedError
from _contestants.workloads import ALPHA, BETA_1, BETA_2, EPSILON, SEED


class Estimator(Contestant):
    """Fits a new estimator each time, on NumPy arrays, as a user does."""

    gradient_descent = "gradient_descent"
    """The solver's name."""

    def __init__(self, workload, X, y):
        super().__init__(workload, X, y)
        self.make()  # imports what it needs

    def make(self, **keywords):
        """Return an estimator."""
        raise NotImplementedError

    def fit(self, epochs):
        workload = self.workload
        solver = workload.solver
        self.model = self.make(
            hidden_layer_sizes=workload.hidden,
            activation=workload.activation,
            solver=self.gradient_descent if solver == "gradient_descent" else solver,
            alpha=ALPHA,
            batch_size=workload.batch,
            learning_rate_init=workload.rate,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
            momentum=0.0,  # makes scikit-learn's sgd gradient descent
            shuffle=workload.batch < workload.n,
            max_iter=epochs,
            tol=0.0,
            n_iter_no_change=np.inf,
            random_state=SEED,
        ).fit(self.X, self.y)
        if self.model.n_iter_ != epochs:
            raise RuntimeError(f"ended after {self.model.n_iter_} of {epochs} epochs")

    def parameters(self):
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))

    def predict(self, X):
        return self.model.predict(X)


class GpunetNumPy(Estimator):
    """gpunet on plain NumPy: what ``pip install gpunet`` gives."""

    backend = "numpy"

    def make(self, **keywords):
        from gpunet import MLPClassifier

        return MLPClassifier(**keywords, backend=self.backend)


class GpunetNumba(GpunetNumPy):
    """The same where numba is installed, too."""

    compiler = "numba"

    def fit(self, epochs):
        super().fit(epochs)
        if "numba" not in sys.modules:
            raise UnsuitedError("numba isn't installed, or gpunet has no use for it here")


class GpunetJAX(GpunetNumPy):
    """gpunet on JAX."""

    backend = "jax"

    def make(self, **keywords):
        import jax  # noqa: F401 - its absence is known at once

        return super().make(**keywords)


class GpunetTorch(GpunetNumPy):
    """gpunet on PyTorch."""

    backend = "torch"

    def make(self, **keywords):
        import torch  # noqa: F401

        return super().make(**keywords)


class ScikitLearn(Estimator):
    """scikit-learn."""

    gradient_descent = "sgd"

    def make(self, **keywords):
        from sklearn.neural_network import MLPClassifier

        return MLPClassifier(**keywords)
