"""A step's matrix products and nothing else, in NumPy into memory that is there: the ground below all contestants."""

import numpy as np

from _contestants import Contestant, UnsuitedError
from _contestants.workloads import initial


class Products(Contestant):
    """z = a W forward; back, ∂J/∂W = aᵀ δ, and δ Wᵀ but for the first layer."""

    def __init__(self, workload, X, y):
        if workload.solver == "lbfgs":
            raise UnsuitedError("L-BFGS decides by itself how often it evaluates")
        super().__init__(workload, X, y)
        weights = [W for W, _ in initial(workload)]
        gradients = [np.empty_like(W) for W in weights]
        products = {}
        for m in {batch.stop - batch.start for batch in workload.batches}:
            a, z, delta, below = (
                [np.ones((m, units), workload.dtype) for units in workload.sizes] for _ in range(4)
            )
            products[m] = [
                *((a[l], W, z[l + 1]) for l, W in enumerate(weights)),
                *((a[l].T, delta[l + 1], g) for l, g in enumerate(gradients)),
                *((delta[l + 1], W.T, below[l]) for l, W in enumerate(weights) if l),
            ]
        self.steps = [products[batch.stop - batch.start] for batch in workload.batches]

    def fit(self, epochs):
        for _ in range(epochs):
            for step in self.steps:
                for left, right, out in step:
                    np.matmul(left, right, out=out)

    def parameters(self):
        return None
