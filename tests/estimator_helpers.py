"""What the tests of the estimators' own features share: data, small estimators, and their comparison."""

import numpy as np
from sklearn.datasets import load_diabetes, load_iris
from sklearn.preprocessing import StandardScaler

from gpunet import MLPClassifier, MLPRegressor

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = StandardScaler().fit_transform(X_IRIS)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
X_DIABETES = X_DIABETES * 20
Y_DIABETES = Y_DIABETES / 100
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y_IRIS]
STOCHASTIC = ["sgd", "adam", "adamw", "nadam", "rmsprop", "gradient_descent"]
TANH = (lambda xp, z: xp.tanh(z), lambda xp, z, a: 1.0 - a * a)


def classifier(**parameters):
    parameters = {"hidden_layer_sizes": (8, 5), "random_state": 0, "max_iter": 20, **parameters}
    return MLPClassifier(**parameters)


def regressor(**parameters):
    parameters = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 20, **parameters}
    return MLPRegressor(**parameters)


def assert_same(first, second, atol=0.0):
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(first, name), getattr(second, name), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def differ(first, second):
    return any(np.max(np.abs(a - b)) > 1e-6 for a, b in zip(first.coefs_, second.coefs_))  # noqa: B905
