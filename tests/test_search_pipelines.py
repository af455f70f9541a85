"""Searches over pipelines: transformers are fitted once for a split, networks in stacks."""

import weakref

import numpy as np
import pandas as pd
import pytest
from search_helpers import (
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
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from gpunet import GridSearchCV, HalvingGridSearchCV
from gpunet.search.parts import Split
from gpunet.search.recipes import Recipes

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the:UserWarning"),  # NaN scores are tested
]


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


class Held(TransformerMixin, BaseEstimator):
    """Counts how many of the matrices it has made are there at once."""

    def __init__(self, made=None):
        self.made = made

    def __sklearn_clone__(self):
        return self

    def fit(self, X, y=None):
        self.made.fits += 1
        return self

    def transform(self, X):
        return self.made.note(2.0 * X)


class Made:
    """Matrices as they are made."""

    def __init__(self):
        self.fits, self.most, self._known = 0, 0, []

    def note(self, X):
        self._known.append(weakref.ref(X))
        self.most = max(self.most, sum(known() is not None for known in self._known))
        return X


SPACE = {"hidden_layer_sizes": [(4,), (6,)], "alpha": [1e-4, 1.0], "random_state": [0, 1]}
SETTINGS = {"cv": 10, "return_train_score": True, "refit": False, "n_jobs": 1}


class TestMemory:
    @pytest.mark.parametrize("numba", ["0", "1"])
    def test_a_pipelines_data_is_held_for_few_splits_at_once(self, monkeypatch, numba):
        monkeypatch.setenv("GPUNET_NUMBA", numba)
        made = Made()
        estimator = Pipeline([("held", Held(made)), ("net", classifier(max_iter=2))])
        space = {f"net__{name}": values for name, values in SPACE.items()}
        GridSearchCV(estimator, space, **SETTINGS).fit(X_IRIS, Y_IRIS)
        assert made.fits == 10
        assert (
            made.most <= 4
        )  # what one split trains on and is scored on, and what the next one trains on

    def test_singly_fitted_networks_of_a_split_are_fitted_together(self):
        made = Made()
        estimator = Pipeline([("held", Held(made)), ("net", classifier(solver="lbfgs"))])
        GridSearchCV(estimator, {"net__alpha": [1e-4, 1.0]}, **SETTINGS).fit(X_IRIS, Y_IRIS)
        assert made.fits == 10
        assert made.most <= 4

    def test_slices_are_held_for_one_split_at_once(self, monkeypatch):
        made, examples = Made(), Split.examples

        def noted(split, which):
            X, *others = examples(split, which)
            return made.note(X), *others

        monkeypatch.setattr(Split, "examples", noted)
        GridSearchCV(classifier(max_iter=2), SPACE, **SETTINGS).fit(X_IRIS, Y_IRIS)
        assert made.most == 2  # what it trains on and what it is scored on


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


def test_an_identity_before_the_network():
    estimator = make_pipeline(FunctionTransformer(), classifier())
    compare(GridSearchCV, estimator, {"mlpclassifier__alpha": [0.1, 1.0]}, X_IRIS, Y_IRIS, cv=2)
