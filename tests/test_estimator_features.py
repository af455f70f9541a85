"""What MLPClassifier and MLPRegressor can do beyond scikit-learn's."""

import copy
import pickle
from html.parser import HTMLParser

import array_api_strict
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import gpunet
from gpunet import MLPClassifier, MLPRegressor, activations, initializers, schedules
from gpunet.backend import backend_of
from gpunet.estimators import perceptron
from gpunet.estimators.placement import Placement
from gpunet.estimators.rate_range import RateRange

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = StandardScaler().fit_transform(X_IRIS)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
X_DIABETES = X_DIABETES * 20
Y_DIABETES = Y_DIABETES / 100
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y_IRIS]
STOCHASTIC = ["sgd", "adam", "adamw", "nadam", "rmsprop", "gradient_descent"]


@pytest.fixture(autouse=True)
def on_numpy(monkeypatch):
    """Compute on NumPy unless a test asks for something else."""
    monkeypatch.setenv("GPUNET_BACKEND", "numpy")
    with array_api_strict.ArrayAPIStrictFlags(data_dependent_shapes=True):  # to find the classes
        yield


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


TANH = (lambda xp, z: xp.tanh(z), lambda xp, z, a: 1.0 - a * a)


class TestActivation:
    @pytest.mark.parametrize(
        "activation",
        [
            "leaky_relu",
            "leaky_relu:0.2",
            "elu",
            "maxout",
            "maxout:3",
            "gelu",
            "silu",
            activations.ELU(0.5),
            ["tanh", "relu"],
            ["maxout", activations.SiLU()],
            TANH,
        ],
    )
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_learns(self, solver, activation):
        ours = classifier(activation=activation, solver=solver, max_iter=150, alpha=1e-2)
        ours.set_params(learning_rate_init=0.01)
        assert ours.fit(X_IRIS, Y_IRIS).score(X_IRIS, Y_IRIS) > 0.95

    def test_a_pair_of_functions_is_the_activation_they_are(self):
        own, known = (classifier(activation=a).fit(X_IRIS, Y_IRIS) for a in (TANH, "tanh"))
        for a, b in zip(own.coefs_[0].T, known.coefs_[0].T, strict=True):
            assert a.shape == b.shape
        bound = classifier(activation=[TANH, "tanh"]).fit(X_IRIS, Y_IRIS)
        assert_same(own, known, atol=1e-12)
        assert_same(bound, known, atol=1e-12)

    @pytest.mark.parametrize("name", ["relu", "logistic", "tanh", "identity"])
    def test_a_list_of_equal_ones_is_the_one(self, name):
        one, each = (classifier(activation=a).fit(X_IRIS, Y_IRIS) for a in (name, [name, name]))
        assert_same(one, each)

    def test_maxout_has_columns_for_each_piece(self):
        ours = classifier(activation=["maxout:3", "relu"]).fit(X_IRIS, Y_IRIS)
        assert [c.shape for c in ours.coefs_] == [(4, 24), (8, 5), (5, 3)]
        assert ours.n_layers_ == 4
        again = pickle.loads(pickle.dumps(ours))  # sizes are found from coefs_ again
        np.testing.assert_array_equal(again.predict_proba(X_IRIS), ours.predict_proba(X_IRIS))

    def test_each_layers_initial_bound_follows_its_activation(self):
        ours = MLPClassifier(
            (200, 200), activation=["logistic", "relu"], max_iter=1, learning_rate_init=1e-12,
            random_state=0,
        ).fit(X_IRIS, Y_IRIS)  # fmt: skip
        largest = [np.max(np.abs(coefs)) for coefs in ours.coefs_]
        expected = [np.sqrt(2 / 204), np.sqrt(6 / 400), np.sqrt(6 / 203)]
        np.testing.assert_allclose(largest, expected, rtol=0.02)

    @pytest.mark.parametrize(
        ("activation", "error", "message"),
        [
            ("softplus", ValueError, "of MLPClassifier must be .*'silu' .* Got 'softplus' instead"),
            (["relu", "softplus"], ValueError, "Got 'softplus' instead"),
            (["relu"], ValueError, r"1 entries, .* 2 hidden layers \(layers 2 to 3\)"),
            (["relu"] * 3, ValueError, "3 entries"),
            (3, TypeError, "The 'activation' parameter .* Got 3 instead"),
            (None, ValueError, "Got None instead"),
            ("maxout:1", ValueError, "at least 2 pieces"),
            ("relu:3", ValueError, "'activation' .* 'relu' has no setting"),
            ([activations.ReLU, activations.Tanh], TypeError, "Got <class .*ReLU"),
        ],
    )
    def test_bad_ones(self, activation, error, message):
        with pytest.raises(error, match=message) as caught:
            classifier(activation=activation).fit(X_IRIS, Y_IRIS)
        assert "softmax" not in str(caught.value)  # an output's


class TestInit:
    @pytest.mark.parametrize("init", ["zeros", "uniform", "normal", "xavier", "he"])
    def test_is_the_initializers(self, init):
        ours = classifier(init=init, max_iter=1, learning_rate_init=1e-15).fit(X_IRIS, Y_IRIS)
        random = np.random.RandomState(0)
        for inputs, units, coefs in zip((4, 8, 5), (8, 5, 3), ours.coefs_, strict=True):
            Theta, _ = initializers.get(init)(random, inputs, units, units)
            np.testing.assert_allclose(coefs, Theta.T, atol=1e-12)

    def test_an_object(self):
        ours = classifier(init=initializers.Normal(1e-3), max_iter=1, learning_rate_init=1e-9)
        assert np.max(np.abs(ours.fit(X_IRIS, Y_IRIS).coefs_[0])) < 0.01

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"'lecun'; known are zeros.*'auto'"):
            classifier(init="lecun").fit(X_IRIS, Y_IRIS)


class TestSolvers:
    @pytest.mark.parametrize("solver", STOCHASTIC)
    def test_learns_and_goes_on(self, solver):
        rate = 0.5 if solver == "gradient_descent" else 0.02
        ours = classifier(solver=solver, max_iter=100, learning_rate_init=rate)
        assert ours.fit(X_IRIS, Y_IRIS).score(X_IRIS, Y_IRIS) > 0.93
        ours.partial_fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize("solver", STOCHASTIC)
    def test_on_every_backend_the_same(self, backend, solver):
        if solver not in ("adamw", "rmsprop") and backend.name != "torch":
            pytest.skip("each rule is tested on every backend by itself")
        models = [
            classifier(solver=solver, max_iter=5, backend=where, dropout=0.2, clip_norm=0.5)
            for where in ("numpy", backend.spec)
        ]
        assert_same(*(model.fit(X_IRIS, Y_IRIS) for model in models), atol=1e-7)

    def test_adamws_alpha_is_its_decay(self):
        none, some = (
            classifier(solver=s, alpha=0.0).fit(X_IRIS, Y_IRIS) for s in ("adam", "adamw")
        )
        assert_same(none, some)
        small, large = (
            classifier(solver="adamw", alpha=alpha).fit(X_IRIS, Y_IRIS) for alpha in (0.0, 100.0)
        )
        assert np.linalg.norm(large.coefs_[0]) < 0.5 * np.linalg.norm(small.coefs_[0])

    def test_gradient_descent_by_hand(self):
        ours = regressor(
            solver="gradient_descent", hidden_layer_sizes=(), batch_size=442, max_iter=1,
            learning_rate_init=0.1, alpha=0.0, init="zeros",
        ).fit(X_DIABETES, Y_DIABETES)  # fmt: skip
        expected = 0.1 * X_DIABETES.T @ Y_DIABETES / 442
        np.testing.assert_allclose(ours.coefs_[0][:, 0], expected, atol=1e-12)


class TestSchedules:
    @pytest.mark.parametrize("name", ["cosine", "one_cycle", "steps", "warm_up"])
    @pytest.mark.parametrize("solver", ["sgd", "adam"])
    def test_the_rates_of_the_epochs(self, solver, name):
        ours = classifier(solver=solver, learning_rate=name, learning_rate_init=0.01, max_iter=10)
        ours.set_params(batch_size=50).fit(X_IRIS, Y_IRIS)
        expected = [0.01 * schedules.get(name).factor(3 * epoch, 30) for epoch in range(1, 11)]
        actual = [record["learning_rate"] for record in ours.history_]
        np.testing.assert_allclose(actual, expected, rtol=1e-12)

    def test_a_schedule_of_your_own_settings(self):
        models = [
            classifier(learning_rate=rate).fit(X_IRIS, Y_IRIS)
            for rate in ("constant", schedules.Constant(), schedules.Cosine(floor=0.5))
        ]
        assert_same(*models[:2])
        assert differ(*models[1:])

    @pytest.mark.parametrize("rate", ["exponential", 0.1])
    def test_unknown(self, rate):
        with pytest.raises(ValueError, match=r"'learning_rate' parameter .*'one_cycle'"):
            classifier(learning_rate=rate).fit(X_IRIS, Y_IRIS)


class TestDropoutAndClipping:
    def test_none_is_no_difference(self):
        models = [classifier(dropout=d).fit(X_IRIS, Y_IRIS) for d in (0.0, [0.0, 0.0], [0.5, 0.0])]
        assert_same(*models[:2])
        assert differ(*models[1:])

    def test_predictions_drop_nothing(self):
        ours = classifier(dropout=0.5).fit(X_IRIS, Y_IRIS)
        np.testing.assert_array_equal(ours.predict_proba(X_IRIS), ours.predict_proba(X_IRIS))

    @pytest.mark.parametrize(
        "dropout",
        [1.0, -0.1, [0.5], [0.1, 1.0], "much", ["a", "b"], [None, 0.1], [[0.1], [0.1, 0.2]]],
    )
    def test_bad_shares(self, dropout):
        with pytest.raises(ValueError, match="dropout"):
            classifier(dropout=dropout).fit(X_IRIS, Y_IRIS)

    def test_clipping_shortens_the_first_step(self):
        settings = {"solver": "gradient_descent", "max_iter": 1, "batch_size": 150, "alpha": 0.0}
        before = classifier(**settings, learning_rate_init=1e-300).fit(X_IRIS, Y_IRIS)
        after = classifier(**settings, learning_rate_init=1.0, clip_norm=0.01).fit(X_IRIS, Y_IRIS)
        steps = [
            a - b
            for name in ("coefs_", "intercepts_")
            for a, b in zip(getattr(after, name), getattr(before, name), strict=True)
        ]
        assert np.sqrt(sum(np.sum(step**2) for step in steps)) == pytest.approx(0.01)

    @pytest.mark.parametrize(
        ("parameters", "named"),
        [
            ({"dropout": 0.5}, "dropout=0.5"),
            ({"clip_norm": 1.0}, "clip_norm=1.0"),
            ({"learning_rate": "cosine"}, "learning_rate='cosine'"),
        ],
    )
    def test_lbfgs_refuses(self, parameters, named):
        with pytest.raises(ValueError, match=f"solver='lbfgs'.*{named}.*use one of 'sgd'"):
            classifier(solver="lbfgs", **parameters).fit(X_IRIS, Y_IRIS)


UNBALANCED = np.r_[np.arange(50), np.arange(50, 75), np.arange(100, 110)]


class TestClassWeight:
    @pytest.mark.parametrize("weights", [None, np.linspace(1, 2, 85)], ids=["alone", "weighted"])
    @pytest.mark.parametrize("target", ["names", "numbers", "two"])
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_is_a_sample_weight(self, solver, target, weights):
        y = {"names": NAMES, "numbers": Y_IRIS, "two": (Y_IRIS == 2)}[target][UNBALANCED]
        some = {"names": "virginica", "numbers": 2, "two": True}[target]
        class_weight = {label: 5.0 if label == some else 0.5 for label in np.unique(y).tolist()}
        X = X_IRIS[UNBALANCED]
        ours = classifier(class_weight=class_weight, solver=solver).fit(X, y, weights)
        factor = compute_sample_weight(class_weight, y) * (1.0 if weights is None else weights)
        expected = classifier(solver=solver).fit(X, y, factor)
        assert_same(ours, expected, atol=1e-9)

    def test_balanced(self, backend):
        X, y = X_IRIS[UNBALANCED], Y_IRIS[UNBALANCED]
        expected = classifier(max_iter=5).fit(X, y, compute_sample_weight("balanced", y))
        ours = classifier(class_weight="balanced", max_iter=5)
        ours.fit(backend.asarray(X), backend.asarray(y))
        found = [backend.to_host(coefs) for coefs in ours.coefs_]
        for a, b in zip(found, expected.coefs_, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)

    def test_balanced_counts_sample_weights(self):
        X, y = X_IRIS[UNBALANCED], Y_IRIS[UNBALANCED]
        twice = np.r_[np.arange(85), np.arange(75, 85)]
        weights = np.where(np.arange(85) < 75, 1.0, 2.0)
        ours = classifier(class_weight="balanced", solver="lbfgs", max_iter=3)
        one, other = clone(ours).fit(X, y, weights), clone(ours).fit(X[twice], y[twice])
        assert_same(one, other, atol=1e-9)

    @pytest.mark.parametrize(
        ("class_weight", "message"),
        [
            ({0: 1.0, 3: 1.0}, r"classes, \[1, 2\], are not in class_weight"),
            ("even", "class_weight"),
            ({"a": 1.0, 0: 1.0}, r"class_weight: .*\[1, 2\], are not in .* It has \['a'\] instead"),
            ({0: -1.0}, "gives class 0 the weight -1.0, but weights are finite numbers from 0 on"),
            ({0: np.nan}, "gives class 0 the weight nan"),
            ({0: 1, 1: np.inf}, "gives class 1 the weight inf"),
            ({0: "much"}, "gives class 0 the weight 'much'"),
        ],
    )
    def test_bad_ones(self, class_weight, message):
        with pytest.raises(ValueError, match=message):
            classifier(class_weight=class_weight).fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize("class_weight", ["balanced", {0: 0.5, 1: 3.0, 2: 1.0}])
    def test_weighs_your_own_validation_data_as_a_splits(self, backend, class_weight):
        """With the weight that a class has in y, whatever its share of the validation data."""
        X, y = X_IRIS[UNBALANCED], Y_IRIS[UNBALANCED]
        X_val, y_val = X_IRIS[::4], Y_IRIS[::4]
        ours = classifier(class_weight=class_weight, max_iter=3, track_scores=True)
        data = [backend.asarray(part) for part in (X, y, X_val, y_val)]
        ours.fit(*data[:2], X_val=data[2], y_val=data[3])
        counts = np.bincount(y)
        each = {"balanced": len(y) / (3 * counts)}.get(str(class_weight), np.array([0.5, 3.0, 1.0]))
        weights = each[y_val]
        p = backend.to_host(ours.predict_proba(data[2]))
        expected = np.average(p.argmax(axis=1) == y_val, weights=weights)
        assert ours.history_[-1]["validation_score"] == pytest.approx(expected)
        losses = -np.log(p[np.arange(len(y_val)), y_val])
        expected = np.average(losses, weights=weights)
        assert ours.history_[-1]["validation_loss"] == pytest.approx(expected)

    @pytest.mark.parametrize("own", [True, False])
    @pytest.mark.parametrize("weights", [None, np.ones(85)])
    def test_a_scorer_is_told_of_sample_weights_only(self, weights, own):
        told = []

        def scorer(estimator, X, y, **more):
            told.append(set(more))
            return 0.0

        X, y = X_IRIS[UNBALANCED], Y_IRIS[UNBALANCED]
        more = {"X_val": X, "y_val": y} if own else {}
        ours = classifier(class_weight="balanced", scoring=scorer, early_stopping=True, max_iter=1)
        ours.fit(X, y, weights, **more)
        assert told == [set() if own or weights is None else {"sample_weight"}]

    def test_multilabel(self):
        y = np.column_stack([Y_IRIS > 0, Y_IRIS > 1]).astype(int)
        with pytest.raises(ValueError, match="y is multi-label"):
            classifier(class_weight="balanced").fit(X_IRIS, y)

    def test_partial_fit(self):
        classifier(class_weight={0: 1, 1: 2, 2: 1}).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
        with pytest.raises(ValueError, match="doesn't go with partial_fit"):
            classifier(class_weight="balanced").partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])


class TestOneVersusAll:
    def test_k_logistic_outputs(self):
        ours = classifier(loss="cross_entropy", solver="lbfgs", max_iter=30).fit(X_IRIS, NAMES)
        assert ours.out_activation_ == "logistic"
        assert ours.score(X_IRIS, NAMES) > 0.9
        z, p = ours.decision_function(X_IRIS), ours.predict_proba(X_IRIS)
        sigma = 1 / (1 + np.exp(-z))
        np.testing.assert_allclose(p, sigma / sigma.sum(axis=1, keepdims=True), atol=1e-12)
        assert ours.predict(X_IRIS).tolist() == ours.classes_[np.argmax(z, axis=1)].tolist()
        h = np.log1p(np.exp(z)) - z * (ours.classes_ == NAMES[:, None])
        penalty = 1e-4 / 150 * 0.5 * sum(np.sum(c**2) for c in ours.coefs_)
        assert ours.loss_ == pytest.approx(h.sum(axis=1).mean() + penalty, rel=1e-6)

    def test_probabilities_that_all_round_to_nothing(self):
        ours = classifier(loss="cross_entropy", max_iter=1).fit(X_IRIS, Y_IRIS)
        ours.intercepts_[-1] = np.full(3, -1e4)
        np.testing.assert_array_equal(ours.predict_proba(X_IRIS[:2]), np.full((2, 3), 1 / 3))

    def test_two_classes_make_no_difference(self):
        models = [
            classifier(loss=loss).fit(X_IRIS, Y_IRIS == 1) for loss in ("log_loss", "cross_entropy")
        ]
        assert_same(*models)


class TestRegressionLosses:
    @pytest.mark.parametrize("loss", ["absolute_error", "huber", "quantile"])
    def test_outliers_matter_less(self, loss):
        y = Y_DIABETES.copy()
        y[::20] += 100
        settings = {"max_iter": 400, "learning_rate_init": 0.01}
        robust, squared = (
            regressor(loss=l, **settings).fit(X_DIABETES, y) for l in (loss, "squared_error")
        )
        assert robust.score(X_DIABETES, Y_DIABETES) > max(
            0.2, squared.score(X_DIABETES, Y_DIABETES)
        )

    def test_hubers_threshold(self):
        near, far = (
            regressor(loss="huber", huber_threshold=t, solver="lbfgs").fit(X_DIABETES, Y_DIABETES)
            for t in (1e-3, 1e3)
        )
        squared = regressor(solver="lbfgs").fit(X_DIABETES, Y_DIABETES)
        assert_same(far, squared, atol=1e-6)
        assert differ(near, far)

    def test_quantiles_cover_what_they_say(self):
        levels = [0.9, 0.1, 0.45]
        ours = regressor(loss="quantile", quantiles=levels, max_iter=500, learning_rate_init=0.01)
        predicted = ours.fit(X_DIABETES, Y_DIABETES).predict(X_DIABETES)
        assert predicted.shape == (442, 3)
        covered = np.mean(Y_DIABETES[:, None] <= predicted, axis=0)
        np.testing.assert_allclose(covered, levels, atol=0.06)
        one = Y_DIABETES - predicted[:, 2]
        r2 = 1 - np.sum(one**2) / np.sum((Y_DIABETES - Y_DIABETES.mean()) ** 2)
        assert ours.score(X_DIABETES, Y_DIABETES) == pytest.approx(r2)

    def test_several_targets(self, backend):
        y = np.column_stack([Y_DIABETES, -3 * Y_DIABETES])
        ours = regressor(
            loss="quantile", quantiles=[0.1, 0.9], max_iter=200, learning_rate_init=0.02
        )
        X = backend.asarray(X_DIABETES)
        predicted = backend.to_host(ours.fit(X, backend.asarray(y)).predict(X))
        assert predicted.shape == (442, 2, 2)
        covered = np.mean(y[:, :, None] <= predicted, axis=0)
        np.testing.assert_allclose(covered, [[0.1, 0.9]] * 2, atol=0.1)

    @pytest.mark.parametrize(("quantiles", "shape"), [(0.3, (442,)), ([0.3], (442, 1))])
    def test_the_shape_of_one_level(self, quantiles, shape):
        ours = regressor(loss="quantile", quantiles=quantiles).fit(X_DIABETES, Y_DIABETES)
        assert ours.predict(X_DIABETES).shape == shape
        assert np.isfinite(ours.score(X_DIABETES, Y_DIABETES))

    def test_early_stopping_scores_the_level_nearest_the_median(self):
        more = {"X_val": X_DIABETES[:50], "y_val": Y_DIABETES[:50]}
        settings = {"early_stopping": True, "init": "zeros", "shuffle": False, "max_iter": 5}
        both, alone = (
            regressor(loss="quantile", quantiles=q, hidden_layer_sizes=(), **settings)
            for q in ([0.05, 0.5, 0.9], 0.5)
        )
        scores = [m.fit(X_DIABETES, Y_DIABETES, **more).validation_scores_ for m in (both, alone)]
        np.testing.assert_allclose(*scores, atol=1e-9)

    @pytest.mark.parametrize("loss", ["quantile", "squared_error"])
    @pytest.mark.parametrize("quantiles", [0.0, 1.0, [0.5, 1.0], [2], [], "half", ["a"], [None]])
    def test_bad_quantiles(self, quantiles, loss):
        with pytest.raises(ValueError, match="quantiles"):
            regressor(loss=loss, quantiles=quantiles).fit(X_DIABETES, Y_DIABETES)

    @pytest.mark.parametrize("scoring", ["r2", make_scorer(r2_score)])
    def test_a_scorer_of_one_prediction_and_several_levels(self, scoring):
        ours = regressor(loss="quantile", quantiles=[0.1, 0.9], scoring=scoring)
        with pytest.raises(
            ValueError, match=r"scoring=.* quantiles=\[0.1, 0.9\] .*leave scoring out"
        ):
            ours.fit(X_DIABETES, Y_DIABETES)
        ours.set_params(scoring=lambda estimator, X, y: estimator.predict(X).shape[1])
        ours.set_params(early_stopping=True, max_iter=2).fit(X_DIABETES, Y_DIABETES)
        assert ours.validation_scores_ == [2.0, 2.0]

    @pytest.mark.parametrize("threshold", [0.0, -1.0])
    def test_bad_thresholds(self, threshold):
        with pytest.raises(ValueError, match="huber_threshold"):
            regressor(loss="huber", huber_threshold=threshold).fit(X_DIABETES, Y_DIABETES)


class TestValidationData:
    def test_is_what_a_split_would_be(self):
        y = Y_IRIS[:100]
        X, X_val, y, y_val = train_test_split(X_IRIS, Y_IRIS, random_state=1)
        ours = classifier(early_stopping=True, max_iter=40).fit(X, y, X_val=X_val, y_val=y_val)
        assert len(ours.validation_scores_) == ours.n_iter_
        assert ours.t_ == 112 * ours.n_iter_  # nothing is set aside
        assert max(ours.validation_scores_) == ours.best_validation_score_
        assert ours.score(X_val, y_val) == ours.best_validation_score_  # the best are restored

    def test_without_early_stopping_it_is_only_watched(self):
        settings = {"max_iter": 5}
        watched = classifier(**settings).fit(X_IRIS, NAMES, X_val=X_IRIS[::2], y_val=NAMES[::2])
        assert_same(watched, classifier(**settings).fit(X_IRIS, NAMES))
        assert watched.validation_scores_ is None
        assert watched.history_[-1]["validation_score"] == watched.score(X_IRIS[::2], NAMES[::2])

    @pytest.mark.parametrize("kind", ["frame", "sparse", "list"])
    def test_kinds_of_data(self, kind):
        as_kind = {
            "frame": lambda X: pd.DataFrame(X, columns=list("abcd")),
            "sparse": scipy.sparse.csr_array,
            "list": np.ndarray.tolist,
        }[kind]
        X, more = as_kind(X_IRIS), as_kind(X_IRIS[::3])
        ours = classifier(early_stopping=True, scoring="accuracy", max_iter=3)
        ours.fit(X, NAMES, X_val=more, y_val=NAMES[::3])
        plain = clone(ours).fit(X_IRIS, NAMES, X_val=X_IRIS[::3], y_val=NAMES[::3])
        assert ours.validation_scores_ == plain.validation_scores_

    def test_on_every_backend(self, backend):
        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        more = {"X_val": X[:40, :], "y_val": y[:40]}
        settings = {"early_stopping": True, "max_iter": 4, "track_scores": True}
        ours = classifier(**settings).fit(X, y, **more)
        host = {"X_val": X_IRIS[:40], "y_val": Y_IRIS[:40]}
        expected = classifier(**settings).fit(X_IRIS, Y_IRIS, **host)
        np.testing.assert_allclose(ours.validation_scores_, expected.validation_scores_)
        names = ("loss", "score", "validation_loss", "validation_score")
        for a, b in zip(ours.history_, expected.history_, strict=True):
            np.testing.assert_allclose([a[n] for n in names], [b[n] for n in names], atol=1e-7)

    def test_several_targets(self):
        y = np.column_stack([Y_DIABETES, Y_DIABETES])
        ours = regressor(early_stopping=True, max_iter=3)
        ours.fit(X_DIABETES, y, X_val=X_DIABETES[:50], y_val=y[:50])
        assert ours.best_validation_score_ == pytest.approx(ours.score(X_DIABETES[:50], y[:50]))
        with pytest.raises(ValueError, match="y_val has 1 outputs, but y has 2"):
            ours.fit(X_DIABETES, y, X_val=X_DIABETES[:50], y_val=y[:50, 0])

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"X_val": X_IRIS}, "X_val was given without y_val"),
            ({"y_val": NAMES}, "y_val was given without X_val"),
            ({"X_val": X_IRIS[:, :3], "y_val": NAMES}, "X_val: X has 3 features"),
            ({"X_val": X_IRIS[:9], "y_val": NAMES[:8]}, "y_val: .*inconsistent"),
            ({"X_val": X_IRIS[:2], "y_val": ["rosa", "setosa"]}, "y_val has classes .*rosa"),
            ({"X_val": X_IRIS, "y_val": np.eye(150, 3, dtype=int)}, "y_val has classes"),
            ({"X_val": np.full((2, 4), np.nan), "y_val": NAMES[:2]}, "X_val: .*NaN"),
        ],
    )
    def test_bad_data(self, more, message):
        with pytest.raises(ValueError, match=message):
            classifier().fit(X_IRIS, NAMES, **more)

    def test_another_place(self, backend):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        with pytest.raises(ValueError, match="X_val is on the host, but X is on"):
            classifier().fit(X, y, X_val=X_IRIS, y_val=Y_IRIS)
        with pytest.raises(ValueError, match=r"X_val is on .*, but X is on the host"):
            classifier().fit(X_IRIS, Y_IRIS, X_val=X, y_val=y)

    def test_lbfgs_refuses(self):
        with pytest.raises(ValueError, match=r"solver='lbfgs'.*X_val"):
            classifier(solver="lbfgs").fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)


class TestScoring:
    def test_accuracy_is_the_default(self):
        settings = {"early_stopping": True, "max_iter": 30}
        ours = classifier(scoring="accuracy", **settings).fit(X_IRIS, NAMES)
        expected = classifier(**settings).fit(X_IRIS, NAMES)
        assert_same(ours, expected)
        assert ours.validation_scores_ == pytest.approx(expected.validation_scores_)

    def test_a_names_own_score(self):
        ours = classifier(early_stopping=True, scoring="neg_log_loss").fit(X_IRIS, NAMES)
        assert max(ours.validation_scores_) < 0
        assert ours.history_[2]["validation_score"] == ours.validation_scores_[2]

    def test_a_function_sees_the_data_as_given(self):
        seen = []

        def scorer(estimator, X, y):
            seen.append((type(X), list(X.columns), set(y) <= set(NAMES)))
            return float(np.mean(estimator.predict(X) == y))

        frame = pd.DataFrame(X_IRIS, columns=list("abcd"))
        classifier(early_stopping=True, scoring=scorer, max_iter=2).fit(frame, NAMES)
        assert seen == [(pd.DataFrame, list("abcd"), True)] * 2

    def test_sees_arrays_where_they_are(self, backend):
        places = []

        def scorer(estimator, X, y):
            owners = [backend_of([array]) for array in (X, estimator.predict(X))]
            places.extend(owner and owner.spec for owner in owners)
            return 1.0

        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        classifier(early_stopping=True, scoring=scorer, max_iter=1).fit(X, y)
        assert places == [None if backend.name == "numpy" else backend.spec] * 2

    def test_unknown(self):
        with pytest.raises(ValueError, match="scoring"):
            classifier(scoring="luck").fit(X_IRIS, Y_IRIS)


class TestHistory:
    def test_by_default(self):
        ours = classifier(max_iter=4).fit(X_IRIS, Y_IRIS)
        assert [record["epoch"] for record in ours.history_] == [1, 2, 3, 4]
        assert [record["loss"] for record in ours.history_] == ours.loss_curve_
        assert {record["learning_rate"] for record in ours.history_} == {0.001}
        seconds = [record["seconds"] for record in ours.history_]
        assert seconds == sorted(seconds)
        assert set(ours.history_[0]) == {"epoch", "loss", "learning_rate", "seconds"}
        ours.partial_fit(X_IRIS, Y_IRIS)
        assert ours.history_[-1]["epoch"] == 5
        assert ours.history_[-1]["seconds"] > seconds[-1]
        assert len(ours.fit(X_IRIS, Y_IRIS).history_) == 4

    def test_an_adaptive_rate(self):
        ours = classifier(
            solver="sgd", learning_rate="adaptive", tol=10.0, n_iter_no_change=1, max_iter=5
        ).fit(X_IRIS, Y_IRIS)
        rates = [record["learning_rate"] for record in ours.history_]
        np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-3, 2e-4, 2e-4])

    @pytest.mark.parametrize("early_stopping", [True, False])
    def test_tracked_scores(self, early_stopping):
        ours = regressor(track_scores=True, early_stopping=early_stopping, max_iter=3, alpha=0.0)
        ours.fit(X_DIABETES, Y_DIABETES, X_val=X_DIABETES[:90], y_val=Y_DIABETES[:90])
        expected = {"score", "validation_score", "validation_loss"}
        assert expected <= set(ours.history_[-1])
        best = max(ours.history_, key=lambda record: record["validation_score"])
        last = best if early_stopping else ours.history_[-1]
        error = ours.predict(X_DIABETES[:90]) - Y_DIABETES[:90]
        assert last["validation_loss"] == pytest.approx(np.mean(error**2) / 2)
        assert last["score"] == pytest.approx(ours.score(X_DIABETES, Y_DIABETES))

    def test_tracked_without_validation_data_and_with_a_split(self):
        ours = classifier(track_scores=True, max_iter=3).fit(X_IRIS, Y_IRIS)
        assert ours.history_[-1]["score"] == pytest.approx(ours.score(X_IRIS, Y_IRIS))
        assert "validation_loss" not in ours.history_[-1]
        ours.set_params(early_stopping=True).fit(X_IRIS, Y_IRIS)
        assert 0 <= ours.history_[-1]["score"] <= 1
        assert ours.history_[-1]["validation_loss"] > 0

    def test_lbfgs(self):
        ours = classifier(solver="lbfgs", max_iter=6, track_scores=True).fit(X_IRIS, Y_IRIS)
        assert len(ours.history_) == ours.n_iter_ == 6
        assert ours.history_[-1]["loss"] == ours.loss_
        assert ours.history_[-1]["score"] == pytest.approx(ours.score(X_IRIS, Y_IRIS))


class TestCallbacks:
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_functions_see_each_record_and_may_stop(self, solver):
        seen = []

        def stop_at_three(record):
            seen.append(record)
            return record["epoch"] == 3

        told = []
        ours = classifier(solver=solver, callbacks=[stop_at_three, told.append])
        ours.fit(X_IRIS, Y_IRIS)
        assert ours.n_iter_ == 3
        assert seen == told == ours.history_

    @pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_a_wish_is_no_failure(self, solver):
        classifier(solver=solver, callbacks=(lambda record: True,)).fit(X_IRIS, Y_IRIS)

    def test_what_is_no_function(self):
        with pytest.raises(TypeError, match=r"callbacks are functions.*set_callbacks"):
            classifier(callbacks=["bar"]).fit(X_IRIS, Y_IRIS)


class Recorder:
    """A callback of scikit-learn's protocol."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.calls = []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        self.calls.append(("begin", context.task_name, context.task_id))
        assert X is not None

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        proba = fitted_estimator.predict_proba(X)
        self.calls.append(("end", context.task_name, context.task_id, proba))
        return context.task_id == self.stop_at

    def teardown(self, estimator, context):
        self.calls.append("teardown")


class TestScikitLearnsCallbacks:
    @pytest.fixture(autouse=True)
    def there(self):
        pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")

    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_each_epoch_is_a_task(self, backend, solver):
        recorder = Recorder()
        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        ours = classifier(max_iter=3, solver=solver).set_callbacks(recorder).fit(X, y)
        names = [call if isinstance(call, str) else call[:3] for call in recorder.calls]
        epochs = [(what, "epoch", i) for i in range(3) for what in ("begin", "end")]
        root = ("fit", 0)
        assert names == ["setup", ("begin", *root), *epochs, ("end", *root), "teardown"]
        last, fitted = recorder.calls[-3][3], ours.predict_proba(X)
        np.testing.assert_allclose(backend.to_host(last), backend.to_host(fitted), atol=1e-12)

    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_a_wish_to_stop(self, solver):
        ours = classifier(solver=solver).set_callbacks(Recorder(stop_at=1)).fit(X_IRIS, Y_IRIS)
        assert ours.n_iter_ == 2

    def test_the_shipped_ones(self, capsys):
        from sklearn.callback import ProgressBar, ScoringMonitor

        monitor = ScoringMonitor(scoring="accuracy")
        ours = classifier(max_iter=4).set_callbacks(ProgressBar(), monitor).fit(X_IRIS, Y_IRIS)
        assert "MLPClassifier" in capsys.readouterr().out
        assert_same(ours, classifier(max_iter=4).fit(X_IRIS, Y_IRIS))

    def test_lbfgs_begins_before_it_works(self, monkeypatch):
        """Each iteration's evaluations lie between its begin and its end."""
        recorder, told = Recorder(), []
        cost_function = perceptron.cost_function

        def watched(*arguments):
            cost = cost_function(*arguments)

            def cost_at(x):
                told.append([call[0] for call in recorder.calls if "epoch" in call][-1])
                return cost(x)

            return cost_at

        monkeypatch.setattr(perceptron, "cost_function", watched)
        ours = classifier(solver="lbfgs", max_iter=200, alpha=10.0)
        ours.set_callbacks(recorder).fit(X_IRIS, Y_IRIS)
        assert ours.n_iter_ < 200  # it converged
        assert set(told) == {"begin"}
        begun = [call[2] for call in recorder.calls if call[:2] == ("begin", "epoch")]
        ended = [call[2] for call in recorder.calls if call[:2] == ("end", "epoch")]
        assert begun == ended == list(range(ours.n_iter_))

    def test_what_began_ends_where_lbfgs_is_cut_short(self):
        recorder = Recorder()
        ours = classifier(solver="lbfgs", max_fun=1, max_iter=50).set_callbacks(recorder)
        ours.fit(X_IRIS, Y_IRIS)
        begun, ended = (
            [call[1:3] for call in recorder.calls if call[0] == what] for what in ("begin", "end")
        )
        assert sorted(begun) == sorted(ended)

    def test_partial_fit_is_no_fit(self):
        recorder = Recorder()
        classifier().set_callbacks(recorder).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
        assert recorder.calls == []


class TestTransform:
    def test_are_the_hidden_activations(self, backend):
        X = backend.asarray(X_IRIS)
        ours = classifier(activation="tanh").fit(X, Y_IRIS)
        coefs = [backend.to_host(c) for c in ours.coefs_]
        intercepts = [backend.to_host(b) for b in ours.intercepts_]
        first = np.tanh(X_IRIS @ coefs[0] + intercepts[0])
        last = np.tanh(first @ coefs[1] + intercepts[1])
        for layer, expected in ((1, first), (2, last), (None, last)):
            found = ours.transform(X, layer)
            assert type(found) is type(X)
            np.testing.assert_allclose(backend.to_host(found), expected, atol=1e-12)

    def test_many_examples_come_in_parts(self):
        ours = classifier(activation=["maxout", "relu"]).fit(X_IRIS, Y_IRIS)
        x = (
            ours._architecture(),
            [(c.T, b) for c, b in zip(ours.coefs_, ours.intercepts_, strict=True)],
        )
        primitives = gpunet.get_backend("numpy").primitives
        both = primitives, lambda xp, z, a: xp.concat([z, a])
        (whole,) = perceptron._forward(*x, X_IRIS.T, *both)
        parts = perceptron._forward(*x, X_IRIS.T, *both, at_once=16 * 7)
        assert {part.shape[1] for part in parts} == {7, 3}
        np.testing.assert_allclose(np.concat(parts, axis=1), whole, atol=1e-13)
        rows = Placement(gpunet.get_backend("numpy"), host=True).rows(parts)
        assert rows.flags.c_contiguous
        np.testing.assert_allclose(rows, whole.T, atol=1e-13)

    def test_names_and_frames(self):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        names = [f"mlpclassifier{i}" for i in range(5)]
        assert ours.get_feature_names_out().tolist() == names
        assert len(ours.get_feature_names_out(layer=1)) == 8
        expected = [ours.transform(X_IRIS, layer) for layer in (1, 2)]
        given = pd.DataFrame(X_IRIS, index=np.arange(150) + 7)
        frame = ours.set_output(transform="pandas").transform(given)
        assert list(frame.columns) == names
        assert list(ours.transform(X_IRIS, layer=2).columns) == names
        frame = ours.transform(given, layer=1)
        assert list(frame.columns) == ours.get_feature_names_out(layer=1).tolist()
        assert list(frame.index) == list(given.index)
        np.testing.assert_array_equal(frame, expected[0])
        fresh = classifier().set_output(transform="pandas").fit_transform(X_IRIS, Y_IRIS)
        assert list(fresh.columns) == names
        np.testing.assert_array_equal(fresh, expected[1])

    @pytest.mark.parametrize("library", ["pandas", "polars"])
    def test_frames_by_configuration(self, backend, library):
        kind = pytest.importorskip(library, reason=f"{library} isn't installed").DataFrame
        X = backend.asarray(X_IRIS)
        ours = classifier().fit(X, Y_IRIS)
        with config_context(transform_output=library):
            frames = [ours.transform(X, layer) for layer in (1, None)]
        for frame, layer in zip(frames, (1, 2), strict=True):
            assert isinstance(frame, kind)
            assert list(frame.columns) == ours.get_feature_names_out(layer=layer).tolist()
            expected = backend.to_host(ours.transform(X, layer))
            np.testing.assert_array_equal(frame.to_numpy(), expected)

    def test_in_a_pipeline(self):
        pipeline = make_pipeline(classifier(), MLPClassifier((4,), max_iter=5, random_state=0))
        assert pipeline.fit(X_IRIS, NAMES).predict(X_IRIS).shape == (150,)

    @pytest.mark.parametrize("layer", [0, 3, -1, 1.5, True, "last"])
    def test_no_such_layer(self, layer):
        with pytest.raises(ValueError, match="from 1 to 2"):
            classifier().fit(X_IRIS, Y_IRIS).transform(X_IRIS, layer)

    def test_no_hidden_layer(self):
        with pytest.raises(ValueError, match="no hidden layer"):
            classifier(hidden_layer_sizes=()).fit(X_IRIS, Y_IRIS).transform(X_IRIS)

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            classifier().transform(X_IRIS)


class OpenAt(HTMLParser):
    """Finds the classes of the elements around a text."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.classes = text, [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("br", "input", "meta", "link", "path"):
            self.open.append((tag, dict(attributes).get("class") or ""))

    def handle_endtag(self, tag):
        if self.open and self.open[-1][0] == tag:
            self.open.pop()

    def handle_data(self, data):
        if data == self.text:
            self.classes = " ".join(classes for _, classes in self.open).split()


class TestDescription:
    def test_summary(self):
        text = classifier(activation=["maxout:3", "elu"]).fit(X_IRIS, Y_IRIS).summary()
        assert "Theta1: 24 x 5" in text
        assert "elu:1.0" in text
        assert text.endswith("183 parameters, loss 'softmax_cross_entropy'")
        with pytest.raises(NotFittedError):
            classifier().summary()

    def test_in_a_notebook(self):
        ours = classifier()
        assert "Theta1" not in ours._repr_html_()
        html = ours.fit(X_IRIS, Y_IRIS)._repr_html_()
        assert "<td>Theta1: 8 x 5</td>" in html
        inside = OpenAt("Theta1: 8 x 5")
        inside.feed(html)
        assert "sk-container" in inside.classes
        assert html.endswith("</body>")

    def test_copies_stay_where_they_are(self, backend):
        X = backend.asarray(X_IRIS)
        ours = copy.copy(classifier(max_iter=2).fit(X, Y_IRIS))
        assert type(ours.predict_proba(X)) is type(X)


class TestLearningRateRange:
    @pytest.mark.parametrize("solver", STOCHASTIC)
    def test_a_rate_that_trains_well(self, solver):
        ours = classifier(solver=solver, dropout=0.1)
        found = ours.learning_rate_range(X_IRIS, NAMES, low=1e-5, high=100.0, steps=80)
        assert isinstance(found, RateRange)
        assert found.rates[0] == 1e-5
        np.testing.assert_allclose(found.rates[1:] / found.rates[:-1], 1e7 ** (1 / 79))
        assert len(found.losses) == len(found.rates) <= 80
        assert not hasattr(ours, "coefs_")
        good = ours.set_params(learning_rate_init=found.steepest, max_iter=60, dropout=0.0)
        assert good.fit(X_IRIS, NAMES).score(X_IRIS, NAMES) > 0.85

    def test_the_first_loss_is_the_initial_one(self):
        ours = classifier(batch_size=150)
        found = ours.learning_rate_range(X_IRIS, Y_IRIS, low=1e-20, high=1e-19, steps=2)
        start = ours.set_params(max_iter=1, learning_rate_init=1e-20).fit(X_IRIS, Y_IRIS)
        np.testing.assert_allclose(found.losses, start.loss_, rtol=1e-12)

    def test_numpys_whole_numbers_are_whole_numbers(self):
        found, expected = (
            classifier().learning_rate_range(X_IRIS, Y_IRIS, high=1e-3, steps=steps)
            for steps in (np.int64(10), 10)
        )
        np.testing.assert_array_equal(found.losses, expected.losses)

    def test_a_fitted_one_stays(self):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        before = copy.deepcopy(ours)
        ours.learning_rate_range(X_IRIS, Y_IRIS)
        assert_same(ours, before)

    def test_on_every_backend(self, backend):
        found, expected = (
            classifier(backend=where, batch_size=32).learning_rate_range(
                X_IRIS, Y_IRIS, steps=20, high=0.1
            )
            for where in (backend.spec, "numpy")
        )
        np.testing.assert_allclose(found.losses, expected.losses, atol=1e-9)

    def test_plot(self):
        pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
        found = classifier().learning_rate_range(X_IRIS, Y_IRIS)
        ax = found.plot()
        assert ax.get_xscale() == "log"
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.losses)
        assert found.plot(ax) is ax

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"low": 1.0, "high": 0.1}, "low=1.0 and high=0.1"),
            ({"low": 0.0}, "low=0.0"),
            ({"steps": 1}, "at least 2 steps"),
            ({"steps": 10.0}, "at least 2 steps, not 10.0"),
            ({"steps": True}, "at least 2 steps, not True"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            classifier().learning_rate_range(X_IRIS, Y_IRIS, **arguments)

    def test_lbfgs(self):
        with pytest.raises(ValueError, match="no learning rate to test"):
            classifier(solver="lbfgs").learning_rate_range(X_IRIS, Y_IRIS)


class TestConversion:
    @pytest.mark.parametrize(
        ("parameters", "named"),
        [
            ({"activation": "elu"}, "activation='elu'"),
            ({"activation": ["relu", "tanh"]}, "activation="),
            ({"activation": TANH}, "activation="),
            ({"solver": "nadam"}, "solver='nadam'"),
            ({"learning_rate": "cosine"}, "learning_rate='cosine'"),
            ({"dropout": [0.1, 0.0]}, r"dropout=\[0.1, 0.0\]"),
            ({"dropout": 0.1}, "dropout=0.1"),
            ({"clip_norm": 1.0}, "clip_norm=1.0"),
            ({"init": "he"}, "init='he'"),
            ({"class_weight": "balanced", "loss": "cross_entropy"}, "loss=.*class_weight="),
        ],
    )
    def test_what_scikit_learn_cant_express(self, parameters, named):
        ours = classifier(**parameters).fit(X_IRIS, Y_IRIS)
        with pytest.raises(
            ValueError, match=f"scikit-learn's MLPClassifier can't express .*{named}"
        ):
            ours.to_sklearn()

    @pytest.mark.parametrize("loss", ["huber", "absolute_error", "quantile"])
    def test_losses(self, loss):
        with pytest.raises(ValueError, match=f"MLPRegressor can't express loss='{loss}'"):
            regressor(loss=loss).to_sklearn()

    @pytest.mark.parametrize("activation", ["sigmoid", activations.Tanh(), ["relu", "relu"]])
    def test_other_names_for_the_same(self, activation):
        ours = classifier(activation=activation, dropout=[0.0, 0.0]).fit(X_IRIS, Y_IRIS)
        theirs = ours.to_sklearn()
        np.testing.assert_allclose(
            theirs.predict_proba(X_IRIS), ours.predict_proba(X_IRIS), atol=1e-12
        )


PLAIN = {
    "ints": lambda X: X.astype(int),
    "float32": lambda X: X.astype("float32"),
    "columns": np.asfortranarray,
    "list": lambda X: X.tolist(),
    "list of ints": lambda X: X.astype(int).tolist(),
    "strides": lambda X: np.repeat(X, 2, axis=0)[::2],
    "big-endian": lambda X: X.astype(">f8"),
}


class TestFastPath:
    """One plain row is predicted without `validate_data`; whatever isn't plain gets its messages."""

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.full((1, 4), np.nan), "contains NaN"),
            (np.full((1, 4), np.inf), "contains infinity"),
            (np.ones((1, 3)), "X has 3 features"),
            (np.ones(4), "Expected 2D array"),
            (np.ones((0, 4)), "0 sample"),
        ],
        ids=["NaN", "infinity", "columns", "1-D", "empty"],
    )
    def test_errors(self, X, message):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        with pytest.raises(ValueError, match=message):
            ours.predict(X)

    @pytest.mark.parametrize(
        "X",
        [np.asfortranarray(X_IRIS), X_IRIS.tolist(), np.repeat(X_IRIS, 2, axis=0)[::2]],
        ids=["columns", "list", "strides"],
    )
    def test_other_layouts(self, X):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        np.testing.assert_allclose(ours.predict_proba(X), ours.predict_proba(X_IRIS), atol=1e-12)

    @pytest.mark.parametrize("fitted", ["float32", "float64"])
    @pytest.mark.parametrize(
        "dtype", ["bool", "int8", "uint8", "int64", "float16", "float32", "float64"]
    )
    def test_other_dtypes(self, dtype, fitted):
        """Computed in what scikit-learn computes in."""
        X = (X_IRIS * 10).astype(dtype)
        ours = regressor().fit(X_IRIS.astype(fitted), Y_IRIS)
        theirs = ours.to_sklearn()
        for rows in (X, X[:1], X.tolist()):
            expected, found = theirs.predict(rows), ours.predict(rows)
            np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert ours.predict(X).dtype == theirs.predict(X).dtype

    @pytest.mark.parametrize("plain", PLAIN, ids=str)
    def test_what_is_plain_is_not_validated_twice(self, plain, monkeypatch):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        expected = ours.predict(np.round(X_IRIS * 8))
        monkeypatch.setattr("gpunet.estimators.placement.validate_data", None)
        np.testing.assert_array_equal(ours.predict(PLAIN[plain](np.round(X_IRIS * 8))), expected)

    def test_frames(self, monkeypatch):
        frame = pd.DataFrame(X_IRIS, columns=list("abcd"))
        ours = classifier().fit(frame, Y_IRIS)
        others = {
            "nullable": frame.astype("Float64"),
            "sparse": frame.astype(pd.SparseDtype("float", 0.0)),
            "objects": frame.astype(object),
        }
        for other in others.values():
            np.testing.assert_array_equal(ours.predict(other), ours.predict(frame))
        with pytest.raises(ValueError, match="feature names should match"):
            ours.predict(frame[list("bacd")])
        with pytest.raises(ValueError, match="NaN"):
            ours.predict(frame.where(frame < 1))
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            ours.predict(X_IRIS)
        expected = ours.predict(frame)
        monkeypatch.setattr("gpunet.estimators.placement.validate_data", None)
        np.testing.assert_array_equal(ours.predict(frame), expected)

    @pytest.mark.parametrize(
        "X",
        [
            np.full((2, 4), "2020-01-01", dtype="M8[D]"),
            [[None] * 4],
            pd.DataFrame({"a": ["x"], "b": [1.0], "c": [1.0], "d": [1.0]}).astype(
                {"a": "category"}
            ),
        ],
        ids=["dates", "None", "categories"],
    )
    @pytest.mark.filterwarnings("ignore:X does not have valid feature names")
    def test_what_is_no_number(self, X):
        ours = classifier().fit(pd.DataFrame(X_IRIS, columns=list("abcd")), Y_IRIS)
        with pytest.raises(TypeError, match="X is of numbers, but its dtype is"):
            ours.predict(X)
        with pytest.raises(TypeError):
            ours.to_sklearn().predict(X)

    def test_large_numbers_whose_sum_overflows(self):
        ours = classifier(activation="tanh").fit(X_IRIS, Y_IRIS)
        assert ours.predict(np.full((1, 4), 1e308)).shape == (1,)

    def test_a_narrower_dtype_is_widened(self):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        assert ours.predict_proba(X_IRIS.astype(np.float32)).dtype == np.float64

    def test_changed_coefficients_count(self):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        ours.predict(X_IRIS)
        ours.intercepts_[-1] = np.array([0.0, 1e6, 0.0])
        assert set(ours.predict(X_IRIS)) == {1}


def test_new_parameters_come_last_and_by_keyword():
    import inspect

    names = list(inspect.signature(MLPClassifier).parameters.values())
    assert [p.name for p in names[-8:]] == [
        "init", "dropout", "clip_norm", "scoring", "track_scores", "callbacks", "class_weight",
        "loss",
    ]  # fmt: skip
    assert all(p.kind is p.KEYWORD_ONLY for p in names[2:])


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_every_parameter_is_documented(kind):
    parameters = kind.__doc__.partition("Attributes\n")[0]
    missing = [name for name in kind().get_params() if name not in parameters]
    assert missing == []
