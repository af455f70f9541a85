"""gpunet: neural networks written once in the Array API standard."""

from gpunet import activations, initializers, losses, optimizers, schedules
from gpunet.backend import (
    BackendUnavailableError,
    backends_info,
    get_backend,
    set_backend,
    use_backend,
)
from gpunet.fitting import DivergenceError, TrainingInterruptedWarning
from gpunet.model import Network, Propagation

__version__ = "0.1.0.dev0"

__all__ = [
    "BackendUnavailableError",
    "DivergenceError",
    "Network",
    "Propagation",
    "TrainingInterruptedWarning",
    "activations",
    "backends_info",
    "get_backend",
    "initializers",
    "losses",
    "optimizers",
    "schedules",
    "set_backend",
    "use_backend",
]
