"""`EnsembleClassifier` and `EnsembleRegressor`: several networks with different seeds, trained at once."""

from gpunet.ensembles.classifier import EnsembleClassifier
from gpunet.ensembles.regressor import EnsembleRegressor

__all__ = ["EnsembleClassifier", "EnsembleRegressor"]
