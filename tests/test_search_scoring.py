"""The scores that a search computes without scikit-learn."""

import warnings

import numpy as np
import pytest
from search_helpers import GRID, X_IRIS, Y_IRIS, classifier, regressor
from sklearn.metrics import accuracy_score, get_scorer, r2_score

from gpunet import GridSearchCV
from gpunet.search import scoring
from gpunet.search.parts import Given, Split

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestScoring:
    """The scores that are computed without scikit-learn are its own, to the last bit."""

    def judged(self, estimators, name, X, y):
        scorer = get_scorer(name)
        given = Given(estimators[0], X, y, {}, {})
        split = Split(given, 0, np.arange(2), np.arange(len(X)))
        return scoring.Judge(scorer, np.nan).scores(split, estimators, "test"), scorer

    @pytest.mark.parametrize("n", [2, 7, 8, 9, 100, 129, 1000])
    @pytest.mark.parametrize("kind", [float, np.float32, int])
    def test_r2(self, n, kind, monkeypatch):
        rng = np.random.default_rng(n)
        X, y = rng.normal(size=(n, 3)), (10 * rng.normal(size=n)).astype(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            networks = [regressor(random_state=i, max_iter=1).fit(X, y) for i in range(5)]
        expected = [r2_score(y, network.predict(X)) for network in networks]
        monkeypatch.setattr(scoring, "_score", None)  # they aren't asked of scikit-learn
        found, _ = self.judged(networks, "r2", X, y)
        assert found == expected

    @pytest.mark.parametrize("names", [np.arange(3), np.array(["a", "b", "c"]), np.arange(3.0)])
    def test_accuracy(self, names, monkeypatch):
        y = names[Y_IRIS]
        networks = [classifier(random_state=i).fit(X_IRIS, y) for i in range(3)]
        expected = [accuracy_score(y, network.predict(X_IRIS)) for network in networks]
        monkeypatch.setattr(scoring, "_score", None)
        found, _ = self.judged(networks, "accuracy", X_IRIS, y)
        assert found == expected
        assert {type(score) for score in found} == {float}

    @pytest.mark.parametrize("y", [np.zeros(4), np.array([1.0, 2.0, 3.0, np.nan])])
    def test_what_has_to_be_checked_is_scikit_learns(self, y):
        X = np.eye(4)
        network = regressor(max_iter=1).fit(X, np.arange(4.0))
        scorer = get_scorer("r2")
        given = Given(network, X, y, {}, {})
        split = Split(given, 0, np.arange(3), np.arange(4))
        if np.isnan(y).any():
            with pytest.warns(UserWarning, match="Scoring failed"):
                assert np.isnan(scoring.Judge(scorer, np.nan).scores(split, [network], "test"))
        else:
            assert scoring.Judge(scorer, np.nan).scores(split, [network], "test") == [0.0]

    def test_predictions_are_made_at_once(self, monkeypatch):
        asked = []
        real = scoring.answers

        def answers(estimators, method, X):
            asked.append(len(estimators))
            return real(estimators, method, X)

        monkeypatch.setattr(scoring, "answers", answers)
        GridSearchCV(classifier(), GRID, cv=2, refit=False).fit(X_IRIS, Y_IRIS)
        assert sum(asked) == 8
