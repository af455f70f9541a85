"""What the tests of the searches share: data, small estimators, and the comparison with scikit-learn's."""

import numpy as np
from sklearn import model_selection
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection._search_successive_halving import (
    HalvingGridSearchCV as TheirHalvingGridSearchCV,
)
from sklearn.preprocessing import StandardScaler

from gpunet import GridSearchCV, HalvingGridSearchCV, MLPClassifier, MLPRegressor
from gpunet import RandomizedSearchCV as OurRandomizedSearchCV
from gpunet.estimators import together

THEIRS = {
    GridSearchCV: model_selection.GridSearchCV,
    OurRandomizedSearchCV: model_selection.RandomizedSearchCV,
    HalvingGridSearchCV: TheirHalvingGridSearchCV,
}
X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = StandardScaler().fit_transform(X_IRIS)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
X_DIABETES, Y_DIABETES = 20 * X_DIABETES[:120], Y_DIABETES[:120] / 100
GRID = {"alpha": [1e-4, 1.0], "learning_rate_init": [0.01, 0.1]}


def classifier(**parameters):
    return MLPClassifier(
        **{"hidden_layer_sizes": (6,), "random_state": 0, "max_iter": 5, **parameters}
    )


def regressor(**parameters):
    return MLPRegressor(
        **{"hidden_layer_sizes": (6,), "random_state": 0, "max_iter": 5, **parameters}
    )


def assert_same_results(ours, theirs):
    """Compare all but times: to rounding, since a stack may round in another way than a single network."""
    assert list(ours) == list(theirs)
    for key, expected in theirs.items():
        found = ours[key]
        assert type(found) is type(expected), key
        if key == "params":
            assert list(map(str, found)) == list(map(str, expected))
        elif key.endswith("_time"):
            assert found.shape == expected.shape
        elif key.startswith("param_"):
            np.testing.assert_array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(expected))
            assert found.dtype == expected.dtype
            assert list(map(str, found.tolist())) == list(map(str, expected.tolist()))
        else:
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9, err_msg=key)


def compare(search, estimator, space, X, y, *, given=None, **settings):
    """Return both searches, fitted, after having compared them."""
    ours = search(estimator, space, **settings).fit(X, y, **(given or {}))
    theirs = THEIRS[search](estimator, space, **settings).fit(X, y, **(given or {}))
    assert_same_results(ours.cv_results_, theirs.cv_results_)
    for name in ("best_index_", "best_params_", "best_score_", "n_splits_", "multimetric_"):
        assert hasattr(ours, name) == hasattr(theirs, name), name
        if hasattr(ours, name) and name != "best_score_":
            assert str(getattr(ours, name)) == str(getattr(theirs, name))
    if hasattr(theirs, "best_score_"):
        np.testing.assert_allclose(ours.best_score_, theirs.best_score_, rtol=1e-7)
    assert hasattr(ours, "best_estimator_") == hasattr(theirs, "best_estimator_")
    if hasattr(theirs, "best_estimator_"):
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        np.testing.assert_allclose(ours.score(X, y), theirs.score(X, y))
        assert ours.refit_time_ > 0
    return ours, theirs


def spy(monkeypatch):
    """Return what every call of `fit_all` is given, as a list that fills."""
    calls = []
    real = together.fit_all

    def noted(jobs, **settings):
        calls.append(list(jobs))
        noted.estimators = [job.estimator for job in jobs]
        return real(jobs, **settings)

    monkeypatch.setattr(together, "fit_all", noted)
    return calls
