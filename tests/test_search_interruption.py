"""Ctrl-C in a search: what is finished is kept."""

import pickle
import signal
import warnings

import numpy as np
import pytest
from search_helpers import GRID, X_IRIS, Y_IRIS, classifier
from sklearn import model_selection
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

import gpunet
from gpunet import GridSearchCV, HalvingGridSearchCV
from gpunet.estimators import together

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the:UserWarning"),  # NaN scores are tested
]


def interrupted_after(monkeypatch, n, call=1, by=lambda job: 0):
    """Let one call of `fit_all` end after n jobs, as Ctrl-C does."""
    calls = []

    def fit_all(jobs, *, after_stack, **_):
        calls.append(len(jobs))
        for job in sorted(jobs, key=by)[: n if len(calls) == call else None]:
            job.estimator.fit(
                *(part if job.rows is None else part[job.rows] for part in (job.X, job.y))
            )
            job.done = True
            after_stack([job])

    monkeypatch.setattr(together, "fit_all", fit_all)
    return calls


class TestCtrlC:
    def test_what_is_finished_is_kept(self, monkeypatch):
        interrupted_after(monkeypatch, 5)
        search = GridSearchCV(classifier(), GRID, cv=2)
        with pytest.warns(gpunet.TrainingInterruptedWarning, match=r"3 of 8 fits .* not refitted"):
            search.fit(X_IRIS, Y_IRIS)
        expected = model_selection.GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)
        scores = search.cv_results_["mean_test_score"]
        assert np.isnan(scores).tolist() == [False, False, True, True]
        np.testing.assert_allclose(scores[:2], expected.cv_results_["mean_test_score"][:2])
        assert np.isfinite(search.cv_results_["split0_test_score"][:3]).all()
        assert search.best_index_ == np.nanargmax(scores)
        assert search.best_params_ == search.cv_results_["params"][search.best_index_]
        assert not hasattr(search, "best_estimator_")
        assert len(search.learning_curves_) == 5
        assert search.plot() is not None

    def test_an_earlier_best_estimator_is_forgotten(self, monkeypatch):
        search = GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)
        interrupted_after(monkeypatch, 5)
        with pytest.warns(gpunet.TrainingInterruptedWarning):
            search.fit(X_IRIS, Y_IRIS)
        for ask in (search.predict, search.predict_proba, search.score):
            with pytest.raises(AttributeError, match=r"was not refitted\. clone\(search"):
                ask(X_IRIS)
        assert not hasattr(search, "classes_")
        again = pickle.loads(pickle.dumps(search.set_params(estimator=classifier())))
        with pytest.raises(AttributeError, match="was not refitted"):
            again.predict(X_IRIS)

    def test_without_an_interruption_scikit_learn_has_the_word(self):
        unfitted = GridSearchCV(classifier(), GRID, cv=2)
        with pytest.raises(NotFittedError):
            unfitted.predict(X_IRIS)
        with pytest.raises(AttributeError, match=r"no attribute 'best_estimator_'$"):
            _ = unfitted.best_estimator_
        with pytest.raises(AttributeError) as refused:
            unfitted.set_params(refit=False).fit(X_IRIS, Y_IRIS).predict(X_IRIS)
        assert "refit=False" in str(refused.value.__cause__)

    @pytest.mark.parametrize(
        "scoring", [["accuracy", "f1_macro"], lambda e, X, y: {"accuracy": e.score(X, y)}]
    )
    def test_several_scores(self, monkeypatch, scoring):
        interrupted_after(monkeypatch, 4)
        search = GridSearchCV(classifier(), GRID, cv=2, scoring=scoring, refit="accuracy",
                              return_train_score=True)  # fmt: skip
        with pytest.warns(gpunet.TrainingInterruptedWarning):
            search.fit(X_IRIS, Y_IRIS)
        scores = search.cv_results_["mean_test_accuracy"]
        assert np.isnan(scores).tolist() == [False, False, True, True]

    def test_nothing_is_finished(self, monkeypatch):
        interrupted_after(monkeypatch, 0)
        with pytest.raises(KeyboardInterrupt, match="before the first fit was finished"):
            GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)

    def test_no_candidate_is_finished_on_every_split(self, monkeypatch):
        interrupted_after(monkeypatch, 3, by=lambda job: job.tag.split)
        search = GridSearchCV(classifier(), GRID, cv=2)
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="over the splits that were"):
            search.fit(X_IRIS, Y_IRIS)
        scores = search.cv_results_["split0_test_score"]
        assert np.isnan(scores).tolist() == [False, False, False, True]
        assert search.best_index_ == np.nanargmax(scores)
        assert search.best_score_ == np.nanmax(scores)
        np.testing.assert_array_equal(search.cv_results_["mean_test_score"], scores)
        assert search.cv_results_["std_test_score"][:3].tolist() == [0.0, 0.0, 0.0]
        assert search.cv_results_["rank_test_score"][3] == 4
        assert search.cv_results_["rank_test_score"][search.best_index_] == 1
        assert search.plot() is not None

    def test_most_splits_count_where_no_candidate_has_all(self, monkeypatch):
        interrupted_after(monkeypatch, 5, by=lambda job: job.tag.split)
        search = GridSearchCV(
            classifier(), GRID, cv=3, scoring=["accuracy", "f1_macro"], return_train_score=True,
            refit=lambda results: int(np.argmin(results["rank_test_f1_macro"])),
        )  # fmt: skip
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="over the splits that were"):
            search.fit(X_IRIS, Y_IRIS)
        results = search.cv_results_
        assert search.best_index_ == 0  # the only one with two of the splits
        for name in ("test_accuracy", "test_f1_macro", "train_accuracy"):
            means = results[f"mean_{name}"]
            two = [results[f"split{i}_{name}"][0] for i in range(2)]
            assert (means[0], results[f"std_{name}"][0]) == (np.mean(two), np.std(two))
            assert np.isnan(means[1:]).all()

    def test_what_is_finished_has_failed(self, monkeypatch):
        def fit_all(jobs, *, after_stack, **_):
            for job in jobs[:3]:
                job.error, job.done = ValueError("no"), True
            after_stack(jobs[:3])

        monkeypatch.setattr(together, "fit_all", fit_all)
        with pytest.raises(ValueError, match="All the 3 fits failed"):
            GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize(("n", "rounds"), [(0, [0]), (1, [0]), (2, [0, 1])])
    def test_halving(self, monkeypatch, n, rounds):
        calls = interrupted_after(monkeypatch, n, call=2)
        grid = {"alpha": [1e-3, 0.1, 1.0, 10.0]}
        search = HalvingGridSearchCV(classifier(), grid, cv=2, random_state=0, factor=2)
        with pytest.warns(gpunet.TrainingInterruptedWarning):
            search.fit(X_IRIS, Y_IRIS)
        assert calls == [8, 4]
        assert np.unique(search.cv_results_["iter"]).tolist() == rounds
        assert search.cv_results_["iter"][search.best_index_] == rounds[-1]
        assert np.isfinite(search.best_score_)

    def test_a_signal_between_stacks(self):
        pressed = []

        def press(estimator, X, y):
            if not pressed:
                pressed.append(signal.raise_signal(signal.SIGINT))
            return 1.0

        search = GridSearchCV(classifier(), GRID, cv=2, scoring=press, stack_size=2, n_jobs=1)
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="6 of 8 fits"):
            search.fit(X_IRIS, Y_IRIS)
        assert search.best_score_ == 1.0

    def test_a_signal_within_a_single_network(self):
        said = []

        def press(record):
            said.append(record)
            if len(said) == 12:
                signal.raise_signal(signal.SIGINT)

        # a callback has its network trained alone, one after the other
        search = GridSearchCV(classifier(callbacks=[press]), GRID, cv=2)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Training interrupted by user")
            with pytest.warns(gpunet.TrainingInterruptedWarning, match="6 of 8 fits"):
                search.fit(X_IRIS, Y_IRIS)
        assert len(said) == 12
        assert search.best_index_ == 0

    @pytest.mark.parametrize("press", [False, True])
    def test_what_scikit_learn_fits_is_interrupted_too(self, press):
        class Pressed(LogisticRegression):
            def fit(self, X, y):
                if self.C > 1 and press:
                    signal.raise_signal(signal.SIGINT)
                elif self.C > 1:
                    raise KeyboardInterrupt  # as from a process that got the signal
                return super().fit(X, y)

        search = GridSearchCV(Pressed(), {"C": [1.0, 10.0, 0.1]}, cv=2)
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="4 of 6 fits"):
            search.fit(X_IRIS, Y_IRIS)
        assert search.best_params_ == {"C": 1.0}
