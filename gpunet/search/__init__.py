"""`GridSearchCV`, `RandomizedSearchCV`, `HalvingGridSearchCV`: scikit-learn's, whose networks are trained together."""

from gpunet.search.searches import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV

__all__ = ["GridSearchCV", "HalvingGridSearchCV", "RandomizedSearchCV"]
