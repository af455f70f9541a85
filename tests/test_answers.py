"""Many estimators asked at once: each answer is the one that it gives alone."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_iris

from gpunet import MLPClassifier, MLPRegressor
from gpunet.estimators import answers as answers_module
from gpunet.estimators.answers import answers

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": (6,), "max_iter": 5}


class Own(MLPClassifier):
    """Says something else than its base class."""

    def predict(self, X):
        return -super().predict(X)


def networks(kind=MLPClassifier, y=Y, n=5, **parameters):
    return [kind(**{**SMALL, **parameters}, random_state=i).fit(X, y) for i in range(n)]


def several_kinds():
    own = (lambda xp, z: z * z, lambda xp, z, a: 2.0 * z)
    return [
        *networks(n=3),
        *networks(y=Y > 0),
        *networks(y=Y % 2 * 5),
        *networks(hidden_layer_sizes=(3, 2), n=1),
        *networks(Own, n=2),
        *networks(activation=[own], n=2),
        *networks(n=3, dtype="float32"),
    ]


ALL = ["predict", "predict_proba", "predict_log_proba", "decision_function"]
CASES = {
    "classes": (networks, ALL),
    "two classes": (lambda: networks(y=Y > 0), ALL),
    "one class": (lambda: networks(y=Y * 0), ALL[:2]),
    "names": (lambda: networks(y=np.array(["a", "b", "c"])[Y]), ALL[:1]),
    "labels": (lambda: networks(y=np.stack([Y > 0, Y > 1], axis=1)), ALL),
    "one against all": (lambda: networks(loss="cross_entropy"), ALL),
    "maxout": (lambda: networks(activation="maxout:2"), ALL),
    "a number": (lambda: networks(MLPRegressor, X[:, 0]), ALL[:1]),
    "numbers": (lambda: networks(MLPRegressor, X[:, :2]), ALL[:1]),
    "quantiles": (
        lambda: networks(MLPRegressor, X[:, 0], loss="quantile", quantiles=[0.1, 0.9]),
        ALL[:1],
    ),
    "float32": (lambda: networks(dtype="float32"), ALL),
    "several kinds": (several_kinds, ALL[:2]),
}


def passes(monkeypatch):
    """Return a list of how many networks each forward pass of a stack will have had."""
    counts, real = [], answers_module.forward

    def forward(architecture, thetas, *rest):
        counts.append(thetas[0][0].shape[0])
        return real(architecture, thetas, *rest)

    monkeypatch.setattr(answers_module, "forward", forward)
    return counts


@pytest.mark.parametrize(("make", "methods"), CASES.values(), ids=CASES)
def test_each_answer_is_its_own(make, methods):
    estimators = make()
    for method in methods:
        for examples in (X, X[:1], X[::-1].astype(np.float32), X.tolist()):
            found = answers(estimators, method, examples)
            for estimator, answer in zip(estimators, found, strict=True):
                alone = getattr(estimator, method)(examples)
                assert (answer.dtype, answer.shape) == (alone.dtype, alone.shape)
                assert answer.flags.c_contiguous == alone.flags.c_contiguous
                np.testing.assert_array_equal(answer, alone)


def test_where_the_data_is(backend):
    x, y = backend.asarray(X), backend.asarray(X[:, 0])
    estimators = [MLPRegressor(**SMALL, random_state=i).fit(x, y) for i in range(3)]
    for estimator, answer in zip(estimators, answers(estimators, "predict", x), strict=True):
        alone = backend.to_host(estimator.predict(x))
        np.testing.assert_allclose(backend.to_host(answer), alone, rtol=1e-12)


def test_small_networks_answer_together(monkeypatch):
    counts = passes(monkeypatch)
    assert answers([], "predict", X) == []
    answers(several_kinds(), "predict", X)
    assert counts == [3, 10, 3]


def test_a_stack_is_no_larger_than_the_caches(monkeypatch):
    counts = passes(monkeypatch)
    estimators = networks(n=7)
    monkeypatch.setattr(answers_module, "_AT_ONCE", 3 * 6 * len(X))
    found = answers(estimators, "predict", X)
    assert counts == [3, 3, 1]
    monkeypatch.setattr(answers_module, "_AT_ONCE", 2 * 6 * len(X) - 1)
    for one, other in zip(found, answers(estimators, "predict", X), strict=True):
        np.testing.assert_array_equal(one, other)
    assert counts == [3, 3, 1]  # one network takes the caches for itself


def test_sparse_examples_go_one_by_one(monkeypatch):
    counts, estimators = passes(monkeypatch), networks()
    found = answers(estimators, "predict", scipy.sparse.csr_array(X))
    assert counts == []
    for estimator, answer in zip(estimators, found, strict=True):
        np.testing.assert_array_equal(answer, estimator.predict(X))


def test_what_one_refuses_all_refuse():
    with pytest.raises(ValueError, match="4 features"):
        answers(networks(), "predict", X[:, :3])
