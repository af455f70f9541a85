"""The searches' results are those of scikit-learn's own over the same estimators."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy.stats import loguniform
from search_helpers import (
    GRID,
    X_DIABETES,
    X_IRIS,
    Y_DIABETES,
    Y_IRIS,
    assert_same_results,
    classifier,
    compare,
    regressor,
    spy,
)
from sklearn import config_context, model_selection
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GroupKFold, KFold, cross_val_score

from gpunet import GridSearchCV, HalvingGridSearchCV, MLPClassifier
from gpunet import RandomizedSearchCV as OurRandomizedSearchCV
from gpunet.backend import BackendUnavailableError, get_backend

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestResultsAreThoseOfScikitLearn:
    def test_classifier(self, monkeypatch):
        calls = spy(monkeypatch)
        search, _ = compare(GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=3)
        assert [len(jobs) for jobs in calls] == [12]
        assert len({id(job.rows) for job in calls[0]}) == 3
        assert {id(job.X) for job in calls[0]} == {id(X_IRIS)}
        assert not hasattr(search.estimator, "coefs_")

    def test_regressor(self):
        compare(GridSearchCV, regressor(), GRID, X_DIABETES, Y_DIABETES, cv=3)

    def test_several_targets(self):
        y = np.stack([Y_DIABETES, -Y_DIABETES], axis=1)
        compare(GridSearchCV, regressor(), {"alpha": [0.1, 10.0]}, X_DIABETES, y, cv=2)

    def test_string_labels_and_a_data_frame(self):
        X = pd.DataFrame(X_IRIS, columns=list("abcd"))
        y = pd.Series(np.array(["setosa", "versicolor", "virginica"])[Y_IRIS])
        ours, _ = compare(GridSearchCV, classifier(), GRID, X, y, cv=3)
        assert list(ours.feature_names_in_) == list("abcd")
        assert list(ours.classes_) == ["setosa", "versicolor", "virginica"]

    def test_multi_label(self):
        X, y = make_multilabel_classification(60, 5, n_classes=3, random_state=0)
        compare(GridSearchCV, classifier(), GRID, X, y, cv=2)

    def test_sparse(self):
        X = scipy.sparse.coo_matrix(X_IRIS)
        compare(GridSearchCV, classifier(), {"alpha": [0.1, 1.0]}, X, Y_IRIS, cv=2)

    def test_lists(self):
        X, y = X_IRIS.tolist(), Y_IRIS.tolist()
        compare(GridSearchCV, classifier(), {"alpha": [0.1, 1.0]}, X, y, cv=2)

    @pytest.mark.parametrize("scoring", ["accuracy", "r2", "neg_log_loss", "balanced_accuracy"])
    def test_a_named_score(self, scoring):
        on_numbers = scoring == "r2"
        estimator = regressor() if on_numbers else classifier()
        data = (X_DIABETES, Y_DIABETES) if on_numbers else (X_IRIS, Y_IRIS)
        compare(GridSearchCV, estimator, GRID, *data, cv=2, scoring=scoring)

    def test_several_scores(self):
        scoring = {"a": "accuracy", "b": "neg_log_loss", "own": lambda e, X, y: e.score(X, y) / 2}
        compare(GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=2, scoring=scoring, refit="b")
        compare(
            GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=2,
            scoring=["accuracy", "f1_macro"], refit=False, return_train_score=True,
        )  # fmt: skip

    def test_a_callable_score(self):
        def several(estimator, X, y):
            right = estimator.predict(X) == y
            return {"right": right.mean(), "wrong": -right.mean()}

        compare(
            GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=2, scoring=several, refit="wrong"
        )
        compare(
            GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=2,
            scoring=make_scorer(accuracy_score, normalize=False),
        )  # fmt: skip

    def test_a_callable_refit(self):
        compare(
            GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=2,
            refit=lambda results: int(results["mean_test_score"].argmin()),
        )  # fmt: skip

    def test_groups(self):
        given = {"groups": np.arange(150) % 7}
        cv = GroupKFold(3)
        compare(GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=cv, given=given)

    @pytest.mark.parametrize("scoring", [None, "accuracy", ["accuracy", "neg_log_loss"]])
    def test_sample_weight(self, monkeypatch, scoring):
        calls = spy(monkeypatch)
        given = {"sample_weight": np.linspace(0.1, 2.0, 150)}
        ours, _ = compare(
            GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=3, given=given, scoring=scoring,
            refit="accuracy" if isinstance(scoring, list) else True,
        )  # fmt: skip
        assert len(calls[0]) == 12
        plain = GridSearchCV(classifier(), GRID, cv=3, refit=False, scoring="accuracy")
        plain.fit(X_IRIS, Y_IRIS)
        key = "mean_test_accuracy" if isinstance(scoring, list) else "mean_test_score"
        assert not np.allclose(ours.cv_results_[key], plain.cv_results_["mean_test_score"])

    def test_metadata_routing(self):
        given = {"sample_weight": np.linspace(0.1, 2.0, 150)}
        with config_context(enable_metadata_routing=True):
            estimator = classifier().set_fit_request(sample_weight=True)
            estimator.set_score_request(sample_weight=False)
            compare(GridSearchCV, estimator, GRID, X_IRIS, Y_IRIS, cv=2, given=given)

    def test_other_parameters_of_fit(self):
        given = {"X_val": X_IRIS[::3], "y_val": Y_IRIS[::3]}
        estimator = classifier(early_stopping=True)
        compare(GridSearchCV, estimator, {"alpha": [0.1, 1.0]}, X_IRIS, Y_IRIS, cv=2, given=given)

    def test_train_scores(self):
        settings = {"cv": 2, "return_train_score": True}
        compare(GridSearchCV, regressor(), GRID, X_DIABETES, Y_DIABETES, **settings)

    def test_folds_of_unequal_size_and_classes(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", FitFailedWarning)
            compare(GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=KFold(7))

    def test_a_fold_of_one_class(self):
        # the first training rows are all of class 0
        cv = [(np.arange(50), np.arange(50, 60)), (np.arange(30, 150), np.arange(30))]
        compare(GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=cv)

    def test_splits_as_masks(self):
        mask = np.arange(150) % 3 == 0
        compare(GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=[(~mask, mask)])

    @pytest.mark.parametrize("numba", ["0", "1"])
    def test_splits_counted_from_the_end(self, monkeypatch, numba):
        monkeypatch.setenv("GPUNET_NUMBA", numba)
        cv = [(np.arange(-75, 0), np.arange(40)), (np.arange(60), np.arange(-20, -1))]
        compare(
            GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=cv, return_train_score=True
        )  # fmt: skip

    @pytest.mark.parametrize(
        "backends", [["numpy", "torch:cpu", "jax"], [None, "array_api_strict"]]
    )
    @pytest.mark.usefixtures("finding_classes")
    def test_a_grid_over_backends(self, backends):
        for backend in filter(None, backends):
            try:
                get_backend(backend)
            except BackendUnavailableError as error:
                pytest.skip(str(error))
        space = {"backend": backends, "alpha": [1e-4, 1.0]}
        compare(GridSearchCV, classifier(), space, X_IRIS, Y_IRIS, cv=3)

    def test_a_grid_over_dtypes(self):
        pytest.importorskip("torch")
        estimator, space = classifier(backend="torch:cpu"), {"dtype": ["float32", "float64"]}
        compare(GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2)

    def test_a_list_of_grids_with_different_shapes(self):
        grids = [
            {"hidden_layer_sizes": [(4,), (5, 3)], "alpha": [0.1]},
            {"activation": ["tanh"], "hidden_layer_sizes": [7]},
        ]
        compare(GridSearchCV, classifier(), grids, X_IRIS, Y_IRIS, cv=2)

    def test_early_stopping(self):
        estimator = classifier(early_stopping=True, n_iter_no_change=1, max_iter=20)
        ours, _ = compare(GridSearchCV, estimator, GRID, X_IRIS, Y_IRIS, cv=3)
        curves = ours.learning_curves_
        assert {len(c["validation_scores"]) - len(c["loss_curve"]) for c in curves} == {0}
        assert any(curve["stopped_early"] for curve in curves)

    def test_lbfgs_among_others(self, capsys):
        space = {"solver": ["lbfgs", "adam"], "alpha": [0.1, 1.0]}
        ours = compare(GridSearchCV, classifier(), space, X_IRIS, Y_IRIS, cv=2, verbose=1)[0]
        assert len(ours.learning_curves_) == 8
        printed = capsys.readouterr().out
        assert "4 networks are trained in stacks, 4 one by one (solver='lbfgs'" in printed

    @pytest.mark.parametrize("how", [0, np.random.RandomState(3)])
    def test_random_state(self, how):
        compare(GridSearchCV, classifier(random_state=how), GRID, X_IRIS, Y_IRIS, cv=2)

    def test_randomized(self):
        space = {"alpha": loguniform(1e-4, 1.0), "activation": ["relu", "tanh"]}
        compare(
            OurRandomizedSearchCV, classifier(), space, X_IRIS, Y_IRIS, cv=2, n_iter=4, random_state=1
        )  # fmt: skip

    @pytest.mark.parametrize(
        "settings",
        [{}, {"resource": "max_iter", "max_resources": 9}, {"aggressive_elimination": True}],
    )
    def test_halving(self, settings, monkeypatch):
        calls = spy(monkeypatch)
        grid = {"alpha": [1e-3, 0.1, 1.0, 10.0]}
        ours, theirs = compare(
            HalvingGridSearchCV, classifier(), grid, X_IRIS, Y_IRIS, cv=2, random_state=0, factor=2,
            **settings,
        )  # fmt: skip
        for name in ("n_candidates_", "n_resources_", "n_iterations_", "n_remaining_candidates_"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert [len(jobs) for jobs in calls] == [2 * n for n in ours.n_candidates_]
        candidates = {curve["candidate"] for curve in ours.learning_curves_}
        assert candidates == set(range(len(ours.cv_results_["params"])))

    def test_halving_is_valid_with_its_defaults(self):
        HalvingGridSearchCV(classifier(), {"alpha": [0.1, 1.0]})._validate_params()

    def test_a_subclass(self):
        class Twice(MLPClassifier):
            def predict(self, X):
                return np.roll(super().predict(X), 1)

        compare(GridSearchCV, Twice((6,), random_state=0, max_iter=5), GRID, X_IRIS, Y_IRIS, cv=2)

    def test_quantiles(self):
        space = {"quantiles": [0.5, [0.1, 0.5, 0.9]]}
        compare(
            GridSearchCV, regressor(loss="quantile"), space, X_DIABETES, Y_DIABETES, cv=2, refit=False
        )  # fmt: skip

    def test_another_estimator(self):
        estimator = LogisticRegression()
        ours = compare(GridSearchCV, estimator, {"C": [0.1, 1.0]}, X_IRIS, Y_IRIS, cv=2)[0]
        assert ours.learning_curves_ == []

    def test_nested(self):
        settings = {"cv": 2, "n_jobs": 1}
        ours = GridSearchCV(classifier(), GRID, **settings)
        theirs = model_selection.GridSearchCV(classifier(), GRID, **settings)
        np.testing.assert_array_equal(
            cross_val_score(ours, X_IRIS, Y_IRIS, cv=2), cross_val_score(theirs, X_IRIS, Y_IRIS, cv=2)
        )  # fmt: skip

    def test_stack_size_and_threads_change_nothing(self):
        settings = {"cv": 3, "refit": False}
        expected = GridSearchCV(classifier(), GRID, **settings).fit(X_IRIS, Y_IRIS).cv_results_
        for extra in ({"stack_size": 1}, {"stack_size": 5, "n_jobs": 2}, {"n_jobs": -1}):
            found = GridSearchCV(classifier(), GRID, **settings, **extra).fit(X_IRIS, Y_IRIS)
            assert_same_results(found.cv_results_, expected)
