"""Ctrl-C in a search: what is finished is kept."""

import pickle
import signal
import warnings
from typing import ClassVar

import numpy as np
import pytest
from search_helpers import GRID, THEIRS, X_IRIS, Y_IRIS, classifier
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

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
        ended = len(calls) == call
        for job in sorted(jobs, key=by)[: n if ended else None]:
            job.estimator.fit(
                *(part if job.rows is None else part[job.rows] for part in (job.X, job.y))
            )
            job.done = True
            after_stack([job])
        if ended:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(together, "fit_all", fit_all)
    return calls


def pressed_at(n):
    """Return a scorer during whose nth call Ctrl-C is pressed, and the list of its scores."""
    scores = []

    def scorer(estimator, X, y):
        scores.append(estimator.score(X, y))
        if len(scores) == n:
            signal.raise_signal(signal.SIGINT)
        return scores[-1]

    return scorer, scores


class Passing(TransformerMixin, BaseEstimator):
    """Changes nothing; fitted n times, it calls something."""

    fitted: ClassVar[list[int]] = []

    def __init__(self, n=0, call=None):
        self.n, self.call = n, call

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        self.fitted.append(1)
        if len(self.fitted) == self.n:
            self.call()
        return self

    def transform(self, X):
        return X


def check_halving(search, rounds, n_missing):
    """Check that the attributes tell of the same rounds as ``cv_results_``."""
    results = search.cv_results_
    found, candidates = np.unique(results["iter"], return_counts=True)
    assert found.tolist() == list(range(rounds))
    assert search.n_candidates_ == candidates.tolist()
    assert search.n_resources_ == np.unique(results["n_resources"]).tolist()
    assert search.n_iterations_ == rounds
    missing = [np.isnan(results[f"split{i}_test_score"]).sum() for i in range(search.n_splits_)]
    assert sum(missing) == n_missing
    assert np.isfinite(search.best_score_)
    assert not hasattr(search, "best_estimator_")


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

    @pytest.mark.parametrize(
        ("n", "rounds", "n_missing", "said"),
        [
            (5, 1, 13, r"interrupted: 13 of 18 fits are missing.* has the first round only\."),
            (18, 1, 0, r"interrupted\. .*has the first round only\. The best"),
            (19, 1, 0, r"interrupted\. .*has the first round only\. The best"),
            (21, 1, 0, r"interrupted\. .*has the first round only\. The best"),
            (22, 2, 2, r"interrupted: 2 of 6 fits of the last round are .* first 2 rounds only\."),
            (24, 2, 0, r"interrupted\. .*has the first 2 rounds only\. The best"),
            (26, 3, 0, r"interrupted when all fits were finished\. The best .* not refitted"),
        ],
    )
    def test_halving_tells_what_it_has(self, n, rounds, n_missing, said, capsys):
        scorer, scores = pressed_at(n)
        settings = {"resource": "max_iter", "min_resources": 2, "max_resources": 18, "cv": 2}
        grid = {"alpha": np.logspace(-4, 0, 9)}
        search = HalvingGridSearchCV(
            classifier(), grid, **settings, scoring=scorer, return_train_score=False, stack_size=1,
            n_jobs=1, verbose=1,
        )  # fmt: skip
        with pytest.warns(gpunet.TrainingInterruptedWarning, match=said):
            search.fit(X_IRIS, Y_IRIS)
        assert len(scores) == n
        lines = capsys.readouterr().out.splitlines()
        begun = [0] + [1] * (n > 18) + [2] * (n > 24)
        assert [line for line in lines if "iter: " in line] == [f"iter: {i}" for i in begun]
        assert search.verbose == 1
        check_halving(search, rounds, n_missing)
        whole = THEIRS[HalvingGridSearchCV](classifier(), grid, **settings).fit(X_IRIS, Y_IRIS)
        for name in ("n_required_iterations_", "n_possible_iterations_"):
            assert getattr(search, name) == getattr(whole, name)
        assert search.n_remaining_candidates_ == [*whole.n_candidates_, 1][rounds]

    @pytest.mark.parametrize("n", [3, 4])
    @pytest.mark.parametrize("times", [1, 2])
    def test_halving_while_transformers_are_fitted(self, monkeypatch, n, times):
        def press():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(Passing, "fitted", [])
        search = HalvingGridSearchCV(
            make_pipeline(Passing(n, press), classifier()),
            {"mlpclassifier__alpha": [1e-3, 0.1, 1.0]}, resource="mlpclassifier__max_iter",
            min_resources=2, max_resources=6, cv=2,
        )  # fmt: skip
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="has the first round only"):
            search.fit(X_IRIS, Y_IRIS)
        assert len(Passing.fitted) == n
        check_halving(search, 1, 0)

    def test_a_network_among_the_transformers_doesnt_keep_it_to_itself(self):
        def press(record):
            signal.raise_signal(signal.SIGINT)

        hidden = classifier(callbacks=[press])
        search = GridSearchCV(
            make_pipeline(hidden, classifier()), {"mlpclassifier-2__alpha": [1.0]}
        )
        with (
            pytest.warns(UserWarning, match="Training interrupted by user"),
            pytest.raises(KeyboardInterrupt, match="before the first fit"),
        ):
            search.fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize("refit", [True, False])
    def test_during_the_last_score(self, refit):
        scorer, scores = pressed_at(8)
        search = GridSearchCV(classifier(), GRID, cv=2, scoring=scorer, refit=refit)
        said = r"when all fits were finished\." + (" The best candidate was not refitted" * refit)
        with pytest.warns(
            gpunet.TrainingInterruptedWarning, match=said + (r".*" if refit else "$")
        ):
            search.fit(X_IRIS, Y_IRIS)
        assert len(scores) == 8
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert search.best_score_ == search.cv_results_["mean_test_score"].max()
        assert not hasattr(search, "best_estimator_")

    def test_during_the_last_score_before_what_is_fitted_singly(self):
        scorer, scores = pressed_at(4)
        grid = [
            {"mlpclassifier__alpha": [1e-3, 1.0]},
            {"mlpclassifier": [LogisticRegression()], "mlpclassifier__C": [0.1, 1.0]},
        ]
        search = GridSearchCV(make_pipeline(Passing(), classifier()), grid, cv=2, scoring=scorer)
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="4 of 8 fits are missing"):
            search.fit(X_IRIS, Y_IRIS)
        assert len(scores) == 4
        assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False] * 2 + [True] * 2

    def test_a_second_one_keeps_what_is_finished_too(self):
        def press(estimator, X, y):
            scores.append(1.0)
            if len(scores) > 3:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return 1.0

        scores = []
        search = GridSearchCV(classifier(), GRID, cv=2, scoring=press, stack_size=1, n_jobs=1)
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="5 of 8 fits"):
            search.fit(X_IRIS, Y_IRIS)
        assert len(scores) == 4

    def test_during_the_refit(self, monkeypatch):
        def press():
            raise KeyboardInterrupt

        monkeypatch.setattr(Passing, "fitted", [])
        pipeline = make_pipeline(Passing(3, press), classifier())
        search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-3, 1.0]}, cv=2)
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="all fits were finished"):
            search.fit(X_IRIS, Y_IRIS)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert not hasattr(search, "best_estimator_")

    def test_while_the_data_is_split_for_another_round(self):
        class Interrupted(KFold):
            calls = 0

            def split(self, X, y=None, groups=None):
                self.calls += 1
                if self.calls == 2:
                    raise KeyboardInterrupt
                return super().split(X, y, groups)

        search = HalvingGridSearchCV(
            classifier(), {"alpha": [1e-3, 0.1, 1.0]}, resource="max_iter", min_resources=2,
            max_resources=6, cv=Interrupted(2),
        )  # fmt: skip
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="has the first round only"):
            search.fit(X_IRIS, Y_IRIS)
        check_halving(search, 1, 0)

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
