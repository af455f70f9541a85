"""Pictures of a search's scores and learning curves."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform
from search_helpers import GRID, X_IRIS, Y_IRIS, classifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from gpunet import GridSearchCV, HalvingGridSearchCV
from gpunet import RandomizedSearchCV as OurRandomizedSearchCV

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestPictures:
    @pytest.fixture(autouse=True)
    def matplotlib(self):
        pytest.importorskip("matplotlib")

    def test_one_parameter(self):
        search = GridSearchCV(classifier(), {"alpha": [1.0, 1e-4]}, cv=2).fit(X_IRIS, Y_IRIS)
        ax = search.plot()
        assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "alpha")
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1e-4, 1.0])
        np.testing.assert_array_equal(
            ax.lines[0].get_ydata(), search.cv_results_["mean_test_score"][::-1]
        )
        ax = GridSearchCV(classifier(), {"activation": ["tanh", "relu"]}, cv=2)
        ax = ax.fit(X_IRIS, Y_IRIS).plot("line")
        assert [t.get_text() for t in ax.get_xticklabels()] == ["tanh", "relu"]

    def test_two_parameters(self):
        search = GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)
        ax = search.plot()
        scores = search.cv_results_["mean_test_score"].reshape(2, 2)
        np.testing.assert_array_equal(ax.images[0].get_array(), scores)
        assert (ax.get_ylabel(), ax.get_xlabel()) == ("alpha", "learning_rate_init")
        assert search.plot("heatmap", ax=ax) is ax
        ax.figure.canvas.draw()

    def test_scattered_candidates(self):
        space = {"alpha": loguniform(1e-5, 1.0), "learning_rate_init": loguniform(1e-4, 1.0)}
        search = OurRandomizedSearchCV(classifier(), space, n_iter=6, cv=2, random_state=0)
        ax = search.fit(X_IRIS, Y_IRIS).plot()
        assert len(ax.collections[0].get_offsets()) == 6
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")

    def test_many_parameters(self):
        grids = [{**GRID, "activation": ["relu", "tanh"]}, {"hidden_layer_sizes": [(3,), (4, 2)]}]
        search = GridSearchCV(classifier(), grids, cv=2).fit(X_IRIS, Y_IRIS)
        ax = search.plot()
        assert [t.get_text() for t in ax.get_xticklabels()] == [
            "activation", "alpha", "learning_rate_init", "hidden_layer_sizes"
        ]  # fmt: skip
        assert len([line for line in ax.lines if len(line.get_xdata()) == 4]) == 11
        ax.figure.canvas.draw()

    def test_halving_shows_the_last_round_of_each(self):
        grid = {"alpha": [1e-3, 0.1, 1.0, 10.0]}
        search = HalvingGridSearchCV(
            classifier(), grid, cv=2, random_state=0, factor=2, resource="max_iter", max_resources=8
        ).fit(X_IRIS, Y_IRIS)
        drawn = search.plot().lines[0].get_ydata()
        table = pd.DataFrame(search.cv_results_)
        expected = table.sort_values("iter").groupby("param_alpha")["mean_test_score"].last()
        np.testing.assert_array_equal(drawn, expected)

    def test_learning_curves(self):
        estimator = classifier(early_stopping=True, n_iter_no_change=1, max_iter=20)
        search = GridSearchCV(estimator, GRID, cv=2).fit(X_IRIS, Y_IRIS)
        ax = search.plot("curves")
        assert len(ax.lines) == 8
        for line, curve in zip(ax.lines, search.learning_curves_, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), curve["loss_curve"])
            best = curve["candidate"] == search.best_index_
            early = curve["stopped_early"]
            assert line.get_color() == ("#D55E00" if best else "#666666" if early else "#0072B2")

    def test_several_scores(self):
        search = GridSearchCV(
            classifier(), {"alpha": [0.1, 1.0]}, cv=2, scoring=["accuracy", "neg_log_loss"],
            refit="neg_log_loss",
        ).fit(X_IRIS, Y_IRIS)  # fmt: skip
        assert "neg_log_loss" in search.plot().get_ylabel()
        assert "accuracy" in search.plot(metric="accuracy").get_ylabel()
        with pytest.raises(ValueError, match=r"metric is one of 'accuracy', 'neg_log_loss'"):
            search.plot(metric="f1")

    def test_errors(self):
        search = GridSearchCV(classifier(), GRID, cv=2)
        with pytest.raises(NotFittedError):
            search.plot()
        search.fit(X_IRIS, Y_IRIS)
        with pytest.raises(ValueError, match="'line', 'heatmap', 'parallel', 'curves'"):
            search.plot("pie")
        with pytest.raises(ValueError, match="kind='line' shows 1 searched parameter"):
            search.plot("line")
        search = GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=2).fit(X_IRIS, Y_IRIS)
        with pytest.raises(ValueError, match="no learning curves"):
            search.plot("curves")
