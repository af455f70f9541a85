"""Searches in which a fit or a score fails, and wrong parameters."""

import re

import numpy as np
import pytest
from search_helpers import GRID, X_IRIS, Y_IRIS, classifier, compare
from sklearn import model_selection
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from gpunet import GridSearchCV

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the:UserWarning"),  # NaN scores are tested
]


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

    @pytest.mark.parametrize("dropout", [[0.1, [0.2, 0.3]], "much", [0.1, None], 1.5])
    def test_one_malformed_dropout(self, dropout):
        with pytest.warns(FitFailedWarning, match="'?dropout'?"):
            ours, _ = compare(
                GridSearchCV, classifier(), {"dropout": [0.1, dropout]}, X_IRIS, Y_IRIS, cv=2
            )
        assert np.isnan(ours.cv_results_["mean_test_score"]).tolist() == [False, True]

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


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("beyond", [150, -151])
def test_rows_that_x_does_not_have(which, beyond):
    cv = [[np.arange(50), np.arange(50, 60)]]
    cv[0][which] = np.append(cv[0][which], beyond)
    for search in (model_selection.GridSearchCV, GridSearchCV):
        with pytest.raises(IndexError, match=f"{beyond} is out of bounds"):
            search(classifier(), GRID, cv=cv).fit(X_IRIS, Y_IRIS)


def test_splits_that_disagree_with_their_number():
    class Wrong(StratifiedShuffleSplit):
        def get_n_splits(self, X=None, y=None, groups=None):
            return 5

    with pytest.raises(ValueError, match="Expected 5 splits, got 2"):
        GridSearchCV(classifier(), GRID, cv=Wrong(2, random_state=0)).fit(X_IRIS, Y_IRIS)
