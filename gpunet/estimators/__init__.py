"""`MLPClassifier` and `MLPRegressor`: scikit-learn's neural networks, on any array backend."""

from gpunet.estimators.classifier import MLPClassifier
from gpunet.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
