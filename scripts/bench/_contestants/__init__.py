"""Who takes part in a race: each trains the same network on the same data, in a process of its own.

A contestant is imported by name in its own process, so that no library that it doesn't use is loaded beside it. The
first one is what the others are divided by.
"""

import importlib
import os

REFERENCE = "gpunet"
TRUTH = "scikit-learn"
"""The training run that all others have to agree with."""
PRODUCTS = "matrix products"

CONTESTANTS = {
    "gpunet": "estimators:GpunetNumPy",
    "gpunet, numba": "estimators:GpunetNumba",
    "gpunet, JAX": "estimators:GpunetJAX",
    "gpunet, torch": "estimators:GpunetTorch",
    "scikit-learn": "estimators:ScikitLearn",
    "torch": "torch_loops:Torch",
    "torch, by hand": "torch_loops:TorchByHand",
    "torch.compile": "torch_loops:TorchCompile",
    "torch.optim.LBFGS": "torch_loops:TorchLBFGS",
    "JAX, scan": "jax_loops:Scan",
    "JAX, jit of a step": "jax_loops:Step",
    "skorch": "wrappers:Skorch",
    "thinc": "wrappers:Thinc",
    PRODUCTS: "products:Products",
}
GPUNET = [name for name in CONTESTANTS if name.startswith("gpunet")]
ONLY = {"torch.optim.LBFGS": "lbfgs"}
"""Contestants of one solver."""
OTHERWISE = ("torch.optim.LBFGS",)
"""Who takes other steps than all others do, so that the losses needn't agree."""
ROUGHLY = ("skorch", "thinc")
"""Who can't add ε and decay just where scikit-learn does, so that losses agree to 4 digits in double precision, too."""
PEERS = {
    "gpunet, torch": ("torch", "torch, by hand", "torch.compile", "torch.optim.LBFGS"),
    "gpunet, JAX": ("JAX, scan", "JAX, jit of a step"),
}
"""Loops written by hand in the library that gpunet runs on."""


class UnsuitedError(Exception):
    """Why a contestant isn't there, or can't run a workload."""


class Contestant:
    """Trains a workload's network: the base class.

    What is made here isn't timed: data in the library's own arrays, programs to be compiled.

    Parameters
    ----------
    workload : Workload
    X : NumPy array of shape (n, d)
    y : NumPy array of int, shape (n,)
    """

    compiler = None
    """The module that compiles its first fit, where that isn't imported before."""

    def __init__(self, workload, X, y):
        self.workload, self.X, self.y = workload, X, y

    def fit(self, epochs):
        """Train anew from the workload's initial parameters; return when all is computed."""
        raise NotImplementedError

    def parameters(self):
        """Return what was learned as NumPy arrays: (inputs, units) weights and (units,) biases of each layer."""
        raise NotImplementedError

    def predict(self, X):
        """Return the labels of NumPy rows as a NumPy array."""
        raise UnsuitedError("predictions aren't measured for it")


def find(name):
    """Return a contestant's class.

    Raises
    ------
    UnsuitedError
        Where its library isn't installed.
    """
    module, _, class_name = CONTESTANTS[name].partition(":")
    if name == REFERENCE:
        os.environ["GPUNET_NUMBA"] = "0"  # as where numba isn't installed
    elif name == "gpunet, numba":
        # from the first step, as in a fit that is long enough for it
        os.environ["GPUNET_NUMBA"] = "1"
    try:
        return getattr(importlib.import_module(f"_contestants.{module}"), class_name)
    except ImportError as error:
        raise UnsuitedError(f"not installed: {error}") from None
