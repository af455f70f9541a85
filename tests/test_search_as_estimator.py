"""A search as an estimator: its parameters, copies, and what it keeps of its networks."""

import pickle

import numpy as np
import pytest
from search_helpers import GRID, THEIRS, X_IRIS, Y_IRIS, classifier, spy
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from gpunet import GridSearchCV
from gpunet.estimators import together
from gpunet.search import evaluation
from gpunet.search.recipes import Recipes

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestLikeAnEstimator:
    @pytest.mark.parametrize("search", THEIRS)
    def test_parameters_are_scikit_learns_and_two_more(self, search):
        ours = search(classifier(), GRID).get_params(deep=False)
        theirs = THEIRS[search](classifier(), GRID).get_params(deep=False)
        assert ours.pop("stack_size") is None
        assert ours.pop("progress") is False
        assert {k: str(v) for k, v in ours.items()} == {k: str(v) for k, v in theirs.items()}

    def test_clone_and_pickle(self):
        search = GridSearchCV(classifier(), GRID, cv=2, stack_size=3).fit(X_IRIS, Y_IRIS)
        again = pickle.loads(pickle.dumps(search))
        np.testing.assert_array_equal(again.predict(X_IRIS), search.predict(X_IRIS))
        assert len(again.learning_curves_) == 8
        fresh = clone(search)
        assert fresh.stack_size == 3
        assert not hasattr(fresh, "cv_results_")
        with pytest.raises(NotFittedError):
            fresh.predict(X_IRIS)

    def test_what_delegates_to_the_best(self):
        search = GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)
        assert search.predict_proba(X_IRIS).shape == (150, 3)
        assert search.transform(X_IRIS).shape == (150, 6)
        assert search.n_features_in_ == 4

    def test_parameters_are_copied_for_each_network(self):
        state = np.random.RandomState(0)
        weight = {0: 1.0, 1: 2.0, 2: 1.0}
        recipe, own = Recipes(classifier(random_state=state), None, {}).of({"class_weight": weight})
        one, other = recipe.network.with_parameters(own), recipe.network.with_parameters(own)
        assert one.random_state is not other.random_state
        assert one.class_weight == weight
        assert one.class_weight is not other.class_weight

    def test_networks_are_let_go(self, monkeypatch):
        calls = spy(monkeypatch)
        GridSearchCV(classifier(), GRID, cv=2, refit=False).fit(X_IRIS, Y_IRIS)
        assert {job.estimator for job in calls[0]} == {None}

    def test_fit_times_are_the_jobs(self, monkeypatch):
        def fit_all(jobs, *, after_stack, **_):
            for job in jobs:
                job.estimator.fit(job.X, job.y)
                job.seconds, job.done = float(job.tag.candidate), True
            after_stack(jobs)

        monkeypatch.setattr(together, "fit_all", fit_all)
        search = GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)
        assert search.cv_results_["mean_fit_time"].tolist() == [0.0, 1.0, 2.0, 3.0]
        assert (search.cv_results_["mean_score_time"] > 0).all()


def test_the_seam_is_looked_up_late():
    """The evaluation asks the module, so that a test can stand in for it."""
    assert evaluation.together is together
