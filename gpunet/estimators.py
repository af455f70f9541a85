"""`MLPClassifier` and `MLPRegressor`: scikit-learn's neural networks, on any array backend."""

from gpunet.classifier import MLPClassifier
from gpunet.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
