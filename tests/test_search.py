"""The searches against scikit-learn's own over the same estimators, and what is theirs alone."""

import pickle
import re
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy.stats import loguniform
from sklearn import config_context, model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, get_scorer, make_scorer, r2_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedShuffleSplit, cross_val_score
from sklearn.model_selection._search_successive_halving import (
    HalvingGridSearchCV as TheirHalvingGridSearchCV,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import gpunet
from gpunet import GridSearchCV, HalvingGridSearchCV, MLPClassifier, MLPRegressor
from gpunet import RandomizedSearchCV as OurRandomizedSearchCV
from gpunet.estimators import together
from gpunet.search import evaluation, scoring
from gpunet.search.bar import SearchBar, search_bar
from gpunet.search.parts import Given, Split
from gpunet.search.recipes import Recipes

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the:UserWarning"),  # NaN scores are tested
]

THEIRS = {
    GridSearchCV: model_selection.GridSearchCV,
    OurRandomizedSearchCV: model_selection.RandomizedSearchCV,
    HalvingGridSearchCV: TheirHalvingGridSearchCV,
}
X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = StandardScaler().fit_transform(X_IRIS)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
X_DIABETES, Y_DIABETES = 20 * X_DIABETES[:120], Y_DIABETES[:120] / 100
GRID = {"alpha": [1e-4, 1.0], "learning_rate_init": [0.01, 0.1]}


@pytest.fixture(autouse=True)
def on_numpy(monkeypatch):
    monkeypatch.setenv("GPUNET_BACKEND", "numpy")


def classifier(**parameters):
    return MLPClassifier(
        **{"hidden_layer_sizes": (6,), "random_state": 0, "max_iter": 5, **parameters}
    )


def regressor(**parameters):
    return MLPRegressor(
        **{"hidden_layer_sizes": (6,), "random_state": 0, "max_iter": 5, **parameters}
    )


def assert_same_results(ours, theirs):
    """Compare all but times: to rounding, since a stack may round in another way than a single network."""
    assert list(ours) == list(theirs)
    for key, expected in theirs.items():
        found = ours[key]
        assert type(found) is type(expected), key
        if key == "params":
            assert list(map(str, found)) == list(map(str, expected))
        elif key.endswith("_time"):
            assert found.shape == expected.shape
        elif key.startswith("param_"):
            np.testing.assert_array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(expected))
            assert found.dtype == expected.dtype
            assert list(map(str, found.tolist())) == list(map(str, expected.tolist()))
        else:
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9, err_msg=key)


def compare(search, estimator, space, X, y, *, given=None, **settings):
    """Return both searches, fitted, after having compared them."""
    ours = search(estimator, space, **settings).fit(X, y, **(given or {}))
    theirs = THEIRS[search](estimator, space, **settings).fit(X, y, **(given or {}))
    assert_same_results(ours.cv_results_, theirs.cv_results_)
    for name in ("best_index_", "best_params_", "best_score_", "n_splits_", "multimetric_"):
        assert hasattr(ours, name) == hasattr(theirs, name), name
        if hasattr(ours, name) and name != "best_score_":
            assert str(getattr(ours, name)) == str(getattr(theirs, name))
    if hasattr(theirs, "best_score_"):
        np.testing.assert_allclose(ours.best_score_, theirs.best_score_, rtol=1e-7)
    assert hasattr(ours, "best_estimator_") == hasattr(theirs, "best_estimator_")
    if hasattr(theirs, "best_estimator_"):
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        np.testing.assert_allclose(ours.score(X, y), theirs.score(X, y))
        assert ours.refit_time_ > 0
    return ours, theirs


def spy(monkeypatch):
    """Return what every call of `fit_all` is given, as a list that fills."""
    calls = []
    real = together.fit_all

    def noted(jobs, **settings):
        calls.append(list(jobs))
        noted.estimators = [job.estimator for job in jobs]
        return real(jobs, **settings)

    monkeypatch.setattr(together, "fit_all", noted)
    return calls


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


class Centered(TransformerMixin, BaseEstimator):
    """Counts its fits; writes on what it is given."""

    fits = 0

    def __init__(self, by="mean"):
        self.by = by

    def fit(self, X, y=None):
        type(self).fits += 1
        self.center_ = getattr(np, self.by)(X, axis=0)
        return self

    def transform(self, X):
        X -= self.center_
        return X


class Broken(TransformerMixin, BaseEstimator):
    """Can't be fitted, or can't transform what is new."""

    def __init__(self, on="fit"):
        self.on = on

    def fit(self, X, y=None):
        if self.on == "fit":
            raise ValueError("broken when fitted")
        return self

    def fit_transform(self, X, y=None):
        return self.fit(X, y) and X

    def transform(self, X):
        if self.on == "transform":
            raise ValueError("broken when asked")
        return X


class TestPipelines:
    def test_transformers_are_searched_with_the_network(self, monkeypatch):
        calls = spy(monkeypatch)
        estimator = Pipeline(
            [("scale", StandardScaler()), ("best", SelectKBest()), ("net", classifier())]
        )
        space = {"best__k": [1, 3], "net__alpha": [0.1, 1.0], "scale": [StandardScaler(), None]}
        ours, _ = compare(
            GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=3, return_train_score=True
        )
        assert len(calls[0]) == 24
        assert len({id(job.X) for job in calls[0]}) == 12  # splits × settings of the transformers
        assert len(ours.learning_curves_) == 24

    def test_each_is_fitted_once_a_split_and_setting(self):
        estimator = make_pipeline(Centered(), classifier())
        space = {"centered__by": ["mean", "median"], "mlpclassifier__alpha": [0.1, 1.0, 10.0]}
        Centered.fits = 0
        search = GridSearchCV(estimator, space, cv=3, refit=False).fit(X_IRIS.copy(), Y_IRIS)
        assert Centered.fits == 6
        theirs = model_selection.GridSearchCV(estimator, space, cv=3, refit=False)
        assert_same_results(search.cv_results_, theirs.fit(X_IRIS.copy(), Y_IRIS).cv_results_)

    def test_a_data_frame(self):
        X = pd.DataFrame(X_IRIS, columns=list("abcd"))
        estimator = make_pipeline(StandardScaler(), classifier()).set_output(transform="pandas")
        compare(GridSearchCV, estimator, {"mlpclassifier__alpha": [0.1, 1.0]}, X, Y_IRIS, cv=2)

    def test_a_regressor(self):
        estimator = make_pipeline(PCA(4, random_state=0), regressor())
        space = {"pca__n_components": [2, 4], "mlpregressor__alpha": [0.1, 1.0]}
        compare(GridSearchCV, estimator, space, X_DIABETES, Y_DIABETES, cv=2)

    def test_a_callable_score_sees_the_pipeline(self):
        def steps(estimator, X, y):
            return len(estimator.steps) + estimator["standardscaler"].mean_[0] + X[0, 0]

        estimator = make_pipeline(StandardScaler(), "passthrough", classifier())
        space = {"mlpclassifier__alpha": [0.1, 1.0]}
        compare(GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2, scoring=steps)

    def test_halving(self):
        estimator = make_pipeline(StandardScaler(), classifier())
        space = {"mlpclassifier__alpha": [0.1, 1.0, 10.0]}
        compare(
            HalvingGridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2, random_state=0, factor=2
        )

    @pytest.mark.parametrize(
        ("estimator", "space", "reason"),
        [
            (make_pipeline(StandardScaler(), make_pipeline(classifier())), {}, "Pipeline isn't"),
            (make_pipeline(StandardScaler(), LogisticRegression()), {}, "LogisticRegression"),
            (make_pipeline(StandardScaler(), classifier(), verbose=True), {}, "verbose"),
            (Pipeline([("net", classifier())]), {"net": [LogisticRegression()]}, "LogisticReg"),
            (
                Pipeline([("net", classifier())]),
                {"steps": [[("net", classifier(alpha=1.0))]]},
                "steps are searched",
            ),
            (make_pipeline(object(), classifier()), {}, "can't be fitted"),
        ],
    )
    def test_what_is_left_to_scikit_learn(self, estimator, space, reason):
        recipes = Recipes(clone(estimator, safe=False), None, {})
        candidate = {name: values[0] for name, values in space.items()}
        assert reason in recipes.of(candidate)

    def test_memory(self, tmp_path, monkeypatch):
        calls = spy(monkeypatch)
        estimator = make_pipeline(StandardScaler(), classifier(), memory=str(tmp_path))
        space = {"mlpclassifier__alpha": [0.1, 1.0]}
        ours, _ = compare(GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2)
        assert calls == [[]]
        assert len(ours.learning_curves_) == 4

    def test_weights_of_a_step(self, monkeypatch):
        calls = spy(monkeypatch)
        estimator = make_pipeline(StandardScaler(), classifier())
        given = {"mlpclassifier__sample_weight": np.linspace(0.1, 2.0, 150)}
        space = {"mlpclassifier__alpha": [0.1, 1.0]}
        compare(GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2, given=given)
        assert calls == [[]]

    def test_a_transformed_target(self):
        estimator = TransformedTargetRegressor(regressor(), func=np.log1p, inverse_func=np.expm1)
        space = {"regressor__alpha": [0.1, 1.0]}
        compare(GridSearchCV, estimator, space, X_DIABETES, Y_DIABETES, cv=2)

    def test_mixed_last_steps(self, monkeypatch):
        calls = spy(monkeypatch)
        estimator = Pipeline([("scale", StandardScaler()), ("model", classifier())])
        space = {"model": [classifier(), LogisticRegression(), classifier(alpha=1.0)]}
        ours, _ = compare(GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2)
        assert len(calls[0]) == 4
        assert {curve["candidate"] for curve in ours.learning_curves_} == {0, 2}

    def test_a_transformer_that_fails(self):
        estimator = Pipeline([("broken", Broken()), ("net", classifier())])
        space = {"broken": [Broken(), "passthrough"], "net__alpha": [0.1, 1.0]}
        with pytest.warns(FitFailedWarning, match=r"4 fits failed(.|\n)*broken when fitted"):
            compare(GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2)
        with pytest.raises(ValueError, match="broken when fitted"):
            GridSearchCV(estimator, space, cv=2, error_score="raise").fit(X_IRIS, Y_IRIS)

    def test_a_transformer_that_fails_on_the_test_rows(self):
        estimator = Pipeline([("broken", Broken("transform")), ("net", classifier())])
        space = {"broken": [Broken("transform"), None], "net__alpha": [0.1, 1.0]}
        with pytest.warns(UserWarning, match=r"Scoring failed(.|\n)*broken when asked"):
            compare(GridSearchCV, estimator, space, X_IRIS, Y_IRIS, cv=2)


class TestFailures:
    def test_a_candidate_that_diverges(self):
        space = {"learning_rate_init": [0.1, 1e308]}
        with pytest.warns(FitFailedWarning, match=r"2 fits failed out of a total of 4"):
            ours, _ = compare(GridSearchCV, classifier(), space, X_IRIS, Y_IRIS, cv=2)
        assert np.isnan(ours.cv_results_["mean_test_score"]).tolist() == [False, True]
        with pytest.warns(FitFailedWarning):
            compare(
                GridSearchCV, classifier(), space, X_IRIS, Y_IRIS, cv=2, error_score=-1.0,
                scoring=["accuracy", "f1_macro"], refit="accuracy", return_train_score=True,
            )  # fmt: skip

    def test_with_a_callable_of_several_scores(self):
        def several(estimator, X, y):
            return {"a": estimator.score(X, y), "b": 1.0}

        with pytest.warns(FitFailedWarning):
            compare(
                GridSearchCV, classifier(), {"learning_rate_init": [0.1, 1e308]}, X_IRIS, Y_IRIS, cv=2,
                scoring=several, refit="a",
            )  # fmt: skip

    def test_raise(self):
        search = GridSearchCV(
            classifier(), {"learning_rate_init": [0.1, 1e308]}, cv=2, error_score="raise"
        )
        with pytest.raises(ValueError, match="non-finite"):
            search.fit(X_IRIS, Y_IRIS)

    def test_all_fail(self):
        search = GridSearchCV(classifier(), {"learning_rate_init": [1e308]}, cv=2)
        with pytest.raises(ValueError, match=r"All the 2 fits failed(.|\n)*non-finite"):
            search.fit(X_IRIS, Y_IRIS)

    def test_a_scorer_that_fails(self):
        def broken(estimator, X, y):
            raise RuntimeError("no score today")

        with pytest.warns(UserWarning, match=r"Scoring failed(.|\n)*no score today"):
            compare(
                GridSearchCV, classifier(), GRID, X_IRIS, Y_IRIS, cv=2, scoring=broken, refit=False
            )

    @pytest.mark.parametrize(
        ("space", "settings"),
        [
            ({"alpha": []}, {}),
            ([], {}),
            ({"alpah": [1.0]}, {}),
            ({"alpha": 1.0}, {}),
            ({"alpha": [1.0]}, {"cv": 1}),
            ({"alpha": [1.0]}, {"cv": 51}),
            ({"alpha": [1.0]}, {"cv": "five"}),
            ({"alpha": [1.0]}, {"scoring": ["accuracy", "f1_macro"]}),
            ({"alpha": [-1.0]}, {}),
        ],
    )
    def test_errors_are_scikit_learns(self, space, settings):
        settings = {"cv": 2, **settings}
        with pytest.raises((ValueError, TypeError)) as expected:
            model_selection.GridSearchCV(classifier(), space, **settings).fit(X_IRIS, Y_IRIS)
        with pytest.raises(type(expected.value)) as found:
            GridSearchCV(classifier(), space, **settings).fit(X_IRIS, Y_IRIS)
        first = str(expected.value).splitlines()[:4]
        assert str(found.value).splitlines()[:4] == first

    @pytest.mark.parametrize("name", ["net__alpah", "scale__alpah", "nte__alpha"])
    def test_an_unknown_parameter_of_a_pipeline(self, name):
        estimator = Pipeline([("scale", StandardScaler()), ("net", classifier())])
        with pytest.raises(ValueError, match="Invalid parameter") as expected:
            clone(estimator).set_params(**{name: 1.0})
        with pytest.raises(ValueError, match=re.escape(str(expected.value))):
            GridSearchCV(estimator, {name: [1.0]}, cv=2).fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize("wrong", [{"stack_size": 0}, {"progress": "yes"}])
    def test_own_parameters_are_checked(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GridSearchCV(classifier(), GRID, **wrong).fit(X_IRIS, Y_IRIS)

    def test_no_y(self):
        with pytest.raises(ValueError, match=r"fits failed(.|\n)*missing.*'y'"):
            GridSearchCV(classifier(), GRID, cv=2, scoring=lambda e, X: 1.0).fit(X_IRIS)


class TestVerbose:
    @pytest.mark.parametrize("verbose", [1, 2, 3, 10])
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"return_train_score": True},
            {"scoring": ["accuracy", "f1_macro"], "refit": False},
            {"scoring": ["accuracy", "f1_macro"], "refit": False, "return_train_score": True},
        ],
    )
    def test_lines_are_scikit_learns(self, verbose, settings, capsys):
        def lines(search):
            search(classifier(), GRID, cv=2, verbose=verbose, **settings).fit(X_IRIS, Y_IRIS)
            printed = capsys.readouterr().out.splitlines()
            return sorted(re.sub(r"total time=.*|\.\.+", "", line) for line in printed)

        own = "8 networks are trained in stacks."
        assert lines(GridSearchCV) == sorted([own, *lines(model_selection.GridSearchCV)])


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


class Told:
    """A callback that notes the tasks it is told of."""

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.tasks.append(("end", context.task_name, context.task_id))


class Propagated(Told):
    max_propagation_depth = None


class TestCallbacks:
    @pytest.mark.parametrize("kind", [Told, Propagated])
    def test_they_are_told_what_scikit_learn_tells(self, kind):
        told = []
        for search in (GridSearchCV, model_selection.GridSearchCV):
            told.append(kind())
            search(classifier(), GRID, cv=2).set_callbacks(told[-1]).fit(X_IRIS, Y_IRIS)
        assert told[0].tasks == told[1].tasks
        assert ("begin", "refit-with-best-params", 1) in told[0].tasks or kind is Propagated

    def test_those_of_the_estimator(self):
        told = []
        for search in (GridSearchCV, model_selection.GridSearchCV):
            told.append(Told())
            search(classifier().set_callbacks(told[-1]), GRID, cv=2).fit(X_IRIS, Y_IRIS)
        assert told[0].tasks == told[1].tasks


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
        with pytest.raises((NotFittedError, AttributeError)):
            search.predict(X_IRIS)

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
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="chosen by the splits"):
            search.fit(X_IRIS, Y_IRIS)
        scores = search.cv_results_["split0_test_score"]
        assert np.isnan(scores).tolist() == [False, False, False, True]
        assert search.best_index_ == np.nanargmax(scores)
        assert search.best_score_ == np.nanmax(scores)
        assert np.isnan(search.cv_results_["mean_test_score"]).all()

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


class TestScoring:
    """The scores that are computed without scikit-learn are its own, to the last bit."""

    def judged(self, estimators, name, X, y):
        scorer = get_scorer(name)
        given = Given(estimators[0], X, y, {}, {})
        split = Split(given, 0, np.arange(3), np.arange(len(X)))
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
        real = scoring.predictions

        def predictions(estimators, X):
            asked.append(len(estimators))
            return real(estimators, X)

        monkeypatch.setattr(scoring, "predictions", predictions)
        GridSearchCV(classifier(), GRID, cv=2, refit=False).fit(X_IRIS, Y_IRIS)
        assert sum(asked) == 8


class TestProgress:
    def test_only_in_a_terminal(self, capsys):
        GridSearchCV(classifier(), GRID, cv=2, progress=True).fit(X_IRIS, Y_IRIS)
        assert capsys.readouterr().out == ""
        with search_bar(enabled=True) as bar:
            assert type(bar).__name__ == "Silent"

    def test_the_bar_of_a_search(self, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
        monkeypatch.setenv("COLUMNS", "100")
        bars = []
        real = SearchBar.__init__

        def init(self, *arguments):
            real(self, *arguments)
            bars.append(self)

        monkeypatch.setattr(SearchBar, "__init__", init)
        search = GridSearchCV(classifier(), GRID, cv=2, progress=True).fit(X_IRIS, Y_IRIS)
        (task,) = bars[0].progress.tasks
        assert task.completed == task.total == 8
        assert f"best {search.best_score_:.4f}" in task.description

    def test_epochs_count_within_a_network(self):
        bar = SearchBar()
        bar.plan(2)
        jobs = [together.Job(classifier(max_iter=10), None, None, tag=i) for i in range(2)]
        for _ in range(5):
            bar.after_epoch(jobs)
        bar._shown = 0.0
        bar.after_epoch(jobs[:1])
        (task,) = bar.progress.tasks
        assert task.completed == pytest.approx(1.1)
        assert task.description == "1 in training"


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


def test_the_seam_is_looked_up_late():
    """The evaluation asks the module, so that the tests above can stand in for it."""
    assert evaluation.together is together


def test_splits_that_disagree_with_their_number():
    class Wrong(StratifiedShuffleSplit):
        def get_n_splits(self, X=None, y=None, groups=None):
            return 5

    with pytest.raises(ValueError, match="Expected 5 splits, got 2"):
        GridSearchCV(classifier(), GRID, cv=Wrong(2, random_state=0)).fit(X_IRIS, Y_IRIS)


def test_an_identity_before_the_network():
    estimator = make_pipeline(FunctionTransformer(), classifier())
    compare(GridSearchCV, estimator, {"mlpclassifier__alpha": [0.1, 1.0]}, X_IRIS, Y_IRIS, cv=2)
