"""Class weights, and losses beyond scikit-learn's."""

import numpy as np
import pytest
from estimator_helpers import (
    NAMES,
    X_DIABETES,
    X_IRIS,
    Y_DIABETES,
    Y_IRIS,
    assert_same,
    classifier,
    differ,
    regressor,
)
from sklearn.base import clone
from sklearn.metrics import make_scorer, r2_score
from sklearn.utils.class_weight import compute_sample_weight

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


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
