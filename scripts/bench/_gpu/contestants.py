"""Who trains on the GPU, and on what: each contestant has a process of its own, and all compute alike.

All start from the same parameters and see the same minibatches in float32, multiplied alike (TF32 off, or on, for
all). A stack's networks differ in their learning rates and see the same minibatches, as a search's candidates on one
fold do.
"""

import importlib
import os
from dataclasses import dataclass

from _gpu.workloads import NAMES, SEARCHES, STACKS

CEILINGS = "ceilings"
PRODUCTS = "matrix products"
REFERENCE = "gpunet"


class AbsentError(Exception):
    """Why a contestant can't take part at all."""


@dataclass(frozen=True)
class Contestant:
    """Where its classes are, what it is asked, and its share of the time that is left.

    Parameters
    ----------
    single, stack, search : str or None
        ``module:name`` of what trains a network, a stack of them, or searches.
    names : list of str
        Of the workloads, those it is asked.
    share : float
        Beside those of the contestants after it.
    """

    single: str
    stack: str | None = None
    search: str | None = None
    names: tuple[str, ...] = tuple(NAMES)
    share: float = 1.0

    def place(self, name):
        """Return the ``module:name`` for a workload, None where it has none."""
        return self.search if name in SEARCHES else self.stack if name in STACKS else self.single


ASKED = ("W1", "W2", "1000 of W1", "W3", "4x8192")
"""What is asked of the fastest peers; compilers take long for each."""
CONTESTANTS = {
    REFERENCE: Contestant("ours:Gpunet", "ours:Gpunet", "searches:gpunet", share=7),
    PRODUCTS: Contestant("ours:Products", names=(CEILINGS, "W3", "4x8192"), share=2.5),
    "scikit-learn": Contestant("ours:ScikitLearn", names=("W1",)),
    "torch": Contestant("torch_peer:Torch", "torch_peer:Stacked", "searches:torch", share=5),
    "JAX": Contestant("jax_peer:JAX", "jax_peer:JAX", "searches:jax", share=7),
    "torch, graph": Contestant(
        "torch_peer:TorchGraph", "torch_peer:TorchGraph", names=ASKED, share=7
    ),
    "torch.compile": Contestant("torch_peer:TorchCompile", names=("W1", "W2", "W3"), share=3),
    "gpunet, graphs": Contestant(
        "ours:GpunetGraphs",
        "ours:GpunetGraphs",
        names=("1000 of W1", "72 of W1", "small"),
        share=0.5,
    ),
    "gpunet, launched": Contestant("ours:GpunetLaunched", names=("W1", "W2", "W3"), share=0.5),
    "gpunet, plain": Contestant("ours:GpunetPlain", names=("W1", "W3"), share=0.5),
}
"""In the order in which they are asked, what matters most first."""


def found(place):
    """Import what is at ``module:name``.

    Raises
    ------
    AbsentError
        Where its library isn't installed.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(f"_gpu.{module}"), name)
    except ImportError as error:
        raise AbsentError(f"not installed: {error}") from None


def products():
    """Return how float32 is multiplied, by everyone: 'float32', or 'tf32'."""
    return os.environ.get("GPUNET_PRODUCTS") or "float32"
