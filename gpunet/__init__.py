"""gpunet: neural networks written once in the Array API standard."""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from gpunet.estimators import MLPClassifier, MLPRegressor

__version__ = "0.1.0.dev0"

__all__ = [
    "BackendUnavailableError",
    "DivergenceError",
    "MLPClassifier",
    "MLPRegressor",
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


def __getattr__(name: str) -> Any:
    """Import what takes a second when it is asked for: the estimators with scikit-learn, and the pictures."""
    if name == "plot":
        import importlib

        return importlib.import_module("gpunet.plot")
    if name in ("MLPClassifier", "MLPRegressor"):
        from gpunet import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'gpunet' has no attribute {name!r}")
