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
    from gpunet.ensembles import EnsembleClassifier, EnsembleRegressor
    from gpunet.estimators import MLPClassifier, MLPRegressor
    from gpunet.search import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV

__version__ = "0.1.0.dev0"

__all__ = [
    "BackendUnavailableError",
    "DivergenceError",
    "EnsembleClassifier",
    "EnsembleRegressor",
    "GridSearchCV",
    "HalvingGridSearchCV",
    "MLPClassifier",
    "MLPRegressor",
    "Network",
    "Propagation",
    "RandomizedSearchCV",
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


_HOME = {
    "MLPClassifier": "estimators",
    "MLPRegressor": "estimators",
    "GridSearchCV": "search",
    "RandomizedSearchCV": "search",
    "HalvingGridSearchCV": "search",
    "EnsembleClassifier": "ensembles",
    "EnsembleRegressor": "ensembles",
}


def __getattr__(name: str) -> Any:
    """Import what takes a second when it is asked for: what builds on scikit-learn, and the pictures."""
    import importlib

    if name == "plot":
        return importlib.import_module("gpunet.plot")
    if name in _HOME:
        return getattr(importlib.import_module(f"gpunet.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gpunet' has no attribute {name!r}")
