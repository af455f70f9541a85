"""Activations, initial weights, solvers, schedules, dropout and clipping beyond scikit-learn's."""

import pickle

import numpy as np
import pytest
from estimator_helpers import (
    STOCHASTIC,
    TANH,
    X_DIABETES,
    X_IRIS,
    Y_DIABETES,
    Y_IRIS,
    assert_same,
    classifier,
    differ,
    regressor,
)

from gpunet import MLPClassifier, MLPRegressor, activations, initializers, schedules

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


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
