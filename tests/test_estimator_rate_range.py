"""The learning-rate range test."""

import copy

import numpy as np
import pytest
from estimator_helpers import NAMES, STOCHASTIC, X_IRIS, Y_IRIS, assert_same, classifier

from gpunet.estimators.rate_range import RateRange

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


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
