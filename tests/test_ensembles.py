"""EnsembleClassifier and EnsembleRegressor against single fits, plain means, and scikit-learn's bagging."""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpunet import (
    EnsembleClassifier,
    EnsembleRegressor,
    MLPClassifier,
    MLPRegressor,
    TrainingInterruptedWarning,
)
from gpunet.backend import backend_of
from gpunet.ensembles import base

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = StandardScaler().fit_transform(X_IRIS)
X_DIABETES, Y_DIABETES = (part[:200] for part in load_diabetes(return_X_y=True))
X_DIABETES, Y_DIABETES = 20 * X_DIABETES, Y_DIABETES / 100

SMALL = {"hidden_layer_sizes": (6,), "max_iter": 8, "learning_rate_init": 0.01, "batch_size": 32}
CLASSES = {
    "multiclass": Y_IRIS,
    "binary": (Y_IRIS == 1).astype(int),
    "strings": np.array(["setosa", "versicolor", "virginica"])[Y_IRIS],
    "multilabel": np.column_stack([Y_IRIS > 0, Y_IRIS > 1, X_IRIS[:, 0] > 0]).astype(int),
}
TARGETS = {"one": Y_DIABETES, "two": np.column_stack([Y_DIABETES, Y_DIABETES**2])}


def classifier(n_estimators=3, *, member=(), **parameters):
    parameters = {"random_state": 0, **parameters}
    return EnsembleClassifier(
        MLPClassifier(**{**SMALL, **dict(member)}), n_estimators, **parameters
    )


def regressor(n_estimators=3, *, member=(), **parameters):
    parameters = {"random_state": 0, **parameters}
    return EnsembleRegressor(MLPRegressor(**{**SMALL, **dict(member)}), n_estimators, **parameters)


def assert_same(member, alone):
    """Assert that two networks are the same one, to the last bit."""
    for a, b in zip(
        member.coefs_ + member.intercepts_, alone.coefs_ + alone.intercepts_, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert member.loss_curve_ == alone.loss_curve_


def each(ensemble, method, X):
    return np.stack([getattr(member, method)(X) for member in ensemble.estimators_])


class TestMembers:
    @pytest.mark.parametrize("target", CLASSES)
    def test_they_are_the_single_fits_of_their_seeds(self, target):
        y = CLASSES[target]
        ensemble = classifier().fit(X_IRIS, y)
        assert len({member.random_state for member in ensemble.estimators_}) == 3
        for member in ensemble.estimators_:
            assert_same(member, clone(member).fit(X_IRIS, y))
            np.testing.assert_array_equal(member.classes_, ensemble.classes_)

    @pytest.mark.parametrize("target", TARGETS)
    def test_regressors_are_too(self, target):
        ensemble = regressor().fit(X_DIABETES, TARGETS[target])
        for member in ensemble.estimators_:
            assert_same(member, clone(member).fit(X_DIABETES, TARGETS[target]))

    def test_with_sample_weights(self):
        weights = np.random.RandomState(0).uniform(0.2, 3.0, 150)
        for ensemble in (classifier(), classifier(bootstrap=True)):
            ensemble.fit(X_IRIS, Y_IRIS, sample_weight=weights)
            samples = ensemble.estimators_samples_ if ensemble.bootstrap else [np.arange(150)] * 3
            for member, rows in zip(ensemble.estimators_, samples, strict=True):
                alone = clone(member).fit(X_IRIS[rows], Y_IRIS[rows], sample_weight=weights[rows])
                assert_same(member, alone)

    @pytest.mark.parametrize("target", ["multiclass", "multilabel"])
    def test_bootstrap(self, target):
        y = CLASSES[target]
        ensemble = classifier(bootstrap=True).fit(X_IRIS, y)
        assert len(ensemble.estimators_samples_) == 3
        for member, rows in zip(ensemble.estimators_, ensemble.estimators_samples_, strict=True):
            assert len(rows) == 150
            assert 80 < len(np.unique(rows)) < 110  # 1 − 1/e of them
            assert_same(member, clone(member).fit(X_IRIS[rows], y[rows]))

    def test_folds(self):
        ensemble = classifier(2, cv=StratifiedKFold(3)).fit(X_IRIS, Y_IRIS)
        assert len(ensemble.estimators_) == 6
        for f, (train, _) in enumerate(StratifiedKFold(3).split(X_IRIS, Y_IRIS)):
            for member in ensemble.estimators_[2 * f : 2 * f + 2]:
                assert_same(member, clone(member).fit(X_IRIS[train], Y_IRIS[train]))

    def test_one_call_trains_them_all(self, monkeypatch):
        calls = []

        def watched(jobs, **settings):
            calls.append((jobs, settings))
            fit_all(jobs, **settings)

        fit_all = base.fit_all
        monkeypatch.setattr(base, "fit_all", watched)
        classifier(2, cv=3, n_jobs=1, stack_size=2).fit(X_IRIS, Y_IRIS)
        ((jobs, settings),) = calls
        assert settings == {"n_jobs": 1, "stack_size": 2}
        assert len({id(job.X) for job in jobs}) == len({id(job.y) for job in jobs}) == 1
        assert len({id(job.rows) for job in jobs}) == 3  # members of a fold share its rows

    @pytest.mark.parametrize("bootstrap", [True, False])
    def test_the_draws_are_those_of_scikit_learns_bagging(self, bootstrap):
        theirs = BaggingClassifier(
            MLPClassifier(**SMALL), 4, bootstrap=bootstrap, random_state=3
        ).fit(X_IRIS, Y_IRIS)
        ours = classifier(4, bootstrap=bootstrap, random_state=3).fit(X_IRIS, Y_IRIS)
        assert [m.random_state for m in ours.estimators_] == [
            m.random_state for m in theirs.estimators_
        ]
        if bootstrap:
            np.testing.assert_array_equal(ours.estimators_samples_, theirs.estimators_samples_)
        else:
            np.testing.assert_allclose(
                ours.predict_proba(X_IRIS), theirs.predict_proba(X_IRIS), atol=1e-8
            )

    def test_the_mean_is_scikit_learns(self):
        theirs = BaggingRegressor(MLPRegressor(**SMALL), 3, bootstrap=False, random_state=0)
        np.testing.assert_allclose(
            regressor().fit(X_DIABETES, Y_DIABETES).predict(X_DIABETES),
            theirs.fit(X_DIABETES, Y_DIABETES).predict(X_DIABETES),
            atol=1e-8,
        )

    def test_defaults(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ensemble = EnsembleClassifier(n_estimators=1).fit(X_IRIS[:20], Y_IRIS[:20])
        assert ensemble.estimators_[0].get_params() == {
            **MLPClassifier().get_params(),
            "random_state": ensemble.estimators_[0].random_state,
        }
        assert isinstance(EnsembleRegressor()._template(), MLPRegressor)
        assert EnsembleRegressor().n_estimators == 5

    def test_a_random_state_goes_on_and_none_differs(self):
        rng = np.random.RandomState(0)
        first, second = (
            classifier(1, random_state=rng).fit(X_IRIS, Y_IRIS).estimators_[0].random_state
            for _ in range(2)
        )
        assert first == classifier(1).fit(X_IRIS, Y_IRIS).estimators_[0].random_state
        assert second != first

    def test_the_given_estimator_stays_as_it_was(self):
        ensemble = classifier()
        given = ensemble.estimator
        ensemble.fit(X_IRIS, Y_IRIS)
        assert given.random_state is None
        assert not hasattr(given, "coefs_")

    def test_loss_curves(self):
        ensemble = classifier().fit(X_IRIS, Y_IRIS)
        assert [len(curve) for curve in ensemble.loss_curves_] == [8, 8, 8]
        assert ensemble.loss_curves_[1] == ensemble.estimators_[1].loss_curve_

    def test_lbfgs(self):
        ensemble = classifier(2, member={"solver": "lbfgs"}).fit(X_IRIS, Y_IRIS)
        alone = clone(ensemble.estimators_[1]).fit(X_IRIS, Y_IRIS)
        np.testing.assert_array_equal(alone.coefs_[0], ensemble.estimators_[1].coefs_[0])
        assert not hasattr(ensemble, "loss_curves_")


class TestClassifier:
    @pytest.mark.parametrize("target", CLASSES)
    def test_averages(self, target):
        ensemble = classifier().fit(X_IRIS, CLASSES[target])
        p = each(ensemble, "predict_proba", X_IRIS)
        mean, std = ensemble.predict_proba(X_IRIS, return_std=True)
        np.testing.assert_array_equal(mean, p.mean(axis=0))
        np.testing.assert_allclose(std, p.std(axis=0), atol=1e-15)
        np.testing.assert_array_equal(ensemble.predict_proba(X_IRIS), mean)
        if target == "multilabel":
            expected = (mean > 0.5).astype(int)
        else:
            expected = np.unique(CLASSES[target])[mean.argmax(axis=1)]
            np.testing.assert_allclose(mean.sum(axis=1), 1.0)
        np.testing.assert_array_equal(ensemble.predict(X_IRIS), expected)
        assert ensemble.score(X_IRIS, CLASSES[target]) == accuracy_score(CLASSES[target], expected)

    @pytest.mark.parametrize("loss", ["log_loss", "cross_entropy"])
    @pytest.mark.parametrize("target", CLASSES)
    def test_logits_are_those_of_the_mean_probability(self, target, loss):
        ensemble = classifier(member={"loss": loss}).fit(X_IRIS, CLASSES[target])
        p, z = ensemble.predict_proba(X_IRIS), ensemble.decision_function(X_IRIS)
        np.testing.assert_allclose(ensemble.predict_log_proba(X_IRIS), np.log(p), atol=1e-12)
        expected = {
            "binary": lambda: np.log(p[:, 1] / p[:, 0]),
            "multilabel": lambda: np.log(p / (1 - p)),
        }.get(target, lambda: np.log(p))()
        np.testing.assert_allclose(z, expected, atol=1e-12)

    def test_logits_stay_finite_where_probabilities_round_to_0(self):
        X = 1e4 * X_IRIS
        for target in ("binary", "multiclass", "multilabel"):
            ensemble = classifier().fit(X_IRIS, CLASSES[target])
            p = ensemble.predict_proba(X)
            assert (p.min(axis=1) == 0.0).any()
            assert np.isfinite(ensemble.decision_function(X)).all()

    def test_a_class_that_a_member_has_not_seen(self):
        # the first fold sees two classes, the second one, the third all three
        order = np.argsort(Y_IRIS, kind="stable")
        train = [order[:100], order[100:], order]
        cv = [(rows, order[first::3]) for first, rows in enumerate(train)]
        ensemble = classifier(1, cv=cv).fit(X_IRIS, CLASSES["strings"])
        first, second, third = ensemble.estimators_
        assert second.classes_.tolist() == ["virginica"]
        expected = np.zeros((3, 150, 3))
        expected[0, :, :2] = first.predict_proba(X_IRIS)
        expected[1, :, 2] = 1.0
        expected[2] = third.predict_proba(X_IRIS)
        mean, std = ensemble.predict_proba(X_IRIS, return_std=True)
        np.testing.assert_array_equal(mean, expected.mean(axis=0))
        np.testing.assert_allclose(std, expected.std(axis=0), atol=1e-15)
        np.testing.assert_allclose(ensemble.predict_log_proba(X_IRIS), np.log(mean), atol=1e-12)
        for m in range(3):
            held = order[m::3]
            np.testing.assert_array_equal(ensemble.oof_prediction_[held], expected[m, held])
        chosen = np.unique(CLASSES["strings"])[mean.argmax(axis=1)]
        np.testing.assert_array_equal(ensemble.predict(X_IRIS), chosen)

    def test_a_single_class(self):
        ensemble = classifier().fit(X_IRIS, np.full(150, "a"))
        np.testing.assert_array_equal(ensemble.predict(X_IRIS), np.full(150, "a"))
        np.testing.assert_array_equal(ensemble.predict_proba(X_IRIS), np.ones((150, 1)))
        assert ensemble.decision_function(X_IRIS).shape == (150,)

    def test_a_standard_deviation_of_classes_is_refused(self):
        with pytest.raises(TypeError, match=r"predict_proba\(X, return_std=True\)"):
            classifier().fit(X_IRIS, Y_IRIS).predict(X_IRIS, return_std=True)


class TestRegressor:
    @pytest.mark.parametrize("target", TARGETS)
    def test_averages(self, target):
        ensemble = regressor().fit(X_DIABETES, TARGETS[target])
        y = each(ensemble, "predict", X_DIABETES)
        mean, std = ensemble.predict(X_DIABETES, return_std=True)
        np.testing.assert_array_equal(mean, y.mean(axis=0))
        np.testing.assert_allclose(std, y.std(axis=0), atol=1e-14)
        np.testing.assert_array_equal(ensemble.predict(X_DIABETES), mean)
        assert ensemble.score(X_DIABETES, TARGETS[target]) == r2_score(TARGETS[target], mean)

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("members", [1, 2, 5])
    def test_quantiles(self, target, members):
        ensemble = regressor(members).fit(X_DIABETES, TARGETS[target])
        y, levels = each(ensemble, "predict", X_DIABETES), [0.0, 0.1, 0.5, 0.83, 1.0]
        expected = np.moveaxis(np.quantile(y, levels, axis=0), 0, -1)
        found = ensemble.predict(X_DIABETES, quantiles=levels)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        one = ensemble.predict(X_DIABETES, quantiles=0.83)
        np.testing.assert_allclose(one, expected[..., 3], atol=1e-12)

    @pytest.mark.parametrize("quantiles", [1.1, [-0.1, 0.5], [], "0.1", [[0.1]], [np.nan], True])
    def test_what_is_no_quantile_is_refused(self, quantiles):
        ensemble = regressor(1).fit(X_DIABETES, Y_DIABETES)
        with pytest.raises(ValueError, match=r"quantiles is a number in \[0, 1\] or a list"):
            ensemble.predict(X_DIABETES, quantiles=quantiles)

    def test_two_answers_are_refused(self):
        with pytest.raises(ValueError, match="ask for one"):
            regressor(1).fit(X_DIABETES, Y_DIABETES).predict(
                X_DIABETES, return_std=True, quantiles=0.5
            )

    def test_members_that_predict_quantiles(self):
        member = {"loss": "quantile", "quantiles": [0.1, 0.5, 0.9]}
        ensemble = regressor(2, member=member, cv=3).fit(X_DIABETES, Y_DIABETES)
        found = ensemble.predict(X_DIABETES)
        np.testing.assert_array_equal(found, each(ensemble, "predict", X_DIABETES).mean(axis=0))
        assert ensemble.oof_prediction_.shape == found.shape == (200, 3)
        assert ensemble.score(X_DIABETES, Y_DIABETES) == r2_score(Y_DIABETES, found[:, 1])
        assert ensemble.oof_score_ == r2_score(Y_DIABETES, ensemble.oof_prediction_[:, 1])


class TestHeldOut:
    def test_out_of_bag_probabilities(self):
        ensemble = classifier(
            20, member={"max_iter": 3}, random_state=1, bootstrap=True, oob_score=True
        )
        ensemble.fit(X_IRIS, CLASSES["strings"])
        total, count = np.zeros((150, 3)), np.zeros(150)
        for member, rows in zip(ensemble.estimators_, ensemble.estimators_samples_, strict=True):
            out = ~np.isin(np.arange(150), rows)
            total[out] += member.predict_proba(X_IRIS)[out]
            count += out
        expected = total / count[:, None]
        np.testing.assert_allclose(ensemble.oob_decision_function_, expected, atol=1e-12)
        right = np.unique(CLASSES["strings"])[expected.argmax(axis=1)] == CLASSES["strings"]
        assert ensemble.oob_score_ == pytest.approx(right.mean())

    @pytest.mark.parametrize("target", TARGETS)
    def test_out_of_bag_predictions(self, target):
        y = TARGETS[target]
        ensemble = regressor(
            20, member={"max_iter": 3}, random_state=1, bootstrap=True, oob_score=True
        )
        ensemble.fit(X_DIABETES, y)
        means = np.full_like(each(ensemble, "predict", X_DIABETES), np.nan)
        for m, rows in enumerate(ensemble.estimators_samples_):
            out = np.setdiff1d(np.arange(200), rows)
            means[m, out] = ensemble.estimators_[m].predict(X_DIABETES)[out]
        expected = np.nanmean(means, axis=0)
        np.testing.assert_allclose(ensemble.oob_prediction_, expected, atol=1e-12)
        assert ensemble.oob_score_ == pytest.approx(r2_score(y, expected))

    def test_a_row_that_is_in_every_bag(self):
        ensemble = regressor(2, bootstrap=True, oob_score=True)
        with pytest.warns(UserWarning, match=r"\d+ of 200 rows are held out by no member"):
            ensemble.fit(X_DIABETES, Y_DIABETES)
        samples = ensemble.estimators_samples_
        everywhere = np.intersect1d(*samples)
        missing = np.isnan(ensemble.oob_prediction_)
        np.testing.assert_array_equal(np.flatnonzero(missing), everywhere)
        known = r2_score(Y_DIABETES[~missing], ensemble.oob_prediction_[~missing])
        assert ensemble.oob_score_ == known

    def test_no_row_is_held_out(self):
        cv = [(np.arange(200), np.arange(0))]
        with pytest.raises(ValueError, match="No member holds any of the 200 rows out"):
            regressor(1, cv=cv).fit(X_DIABETES, Y_DIABETES)

    @pytest.mark.parametrize("target", CLASSES)
    def test_out_of_fold_probabilities_lie_beside_their_rows(self, target):
        y, folds = CLASSES[target], KFold(4, shuffle=True, random_state=1)
        ensemble = classifier(2, cv=folds).fit(X_IRIS, y)
        expected = np.full_like(ensemble.predict_proba(X_IRIS), np.nan)
        for f, (_, test) in enumerate(folds.split(X_IRIS)):
            pair = ensemble.estimators_[2 * f : 2 * f + 2]
            expected[test] = np.mean([m.predict_proba(X_IRIS[test]) for m in pair], axis=0)
        np.testing.assert_allclose(ensemble.oof_prediction_, expected, atol=1e-12)
        if target == "multilabel":
            right = ((expected > 0.5) == y).all(axis=1)
        else:
            right = np.unique(y)[expected.argmax(axis=1)] == y
        assert ensemble.oof_score_ == pytest.approx(right.mean())
        assert not hasattr(ensemble, "oob_score_")

    def test_it_is_cross_val_predict_where_seeds_are_equal(self):
        ensemble = regressor(1, member={"solver": "lbfgs", "alpha": 10.0}, cv=5)
        ensemble.estimator.set_params(hidden_layer_sizes=())  # convex: seeds don't matter
        ensemble.estimator.set_params(max_iter=1000, tol=1e-8)
        ensemble.fit(X_DIABETES, Y_DIABETES)
        expected = cross_val_predict(ensemble.estimator, X_DIABETES, Y_DIABETES, cv=5)
        np.testing.assert_allclose(ensemble.oof_prediction_, expected, atol=1e-3)

    def test_a_number_of_folds_is_stratified_for_classes(self):
        ensemble = classifier(1, cv=3).fit(X_IRIS, Y_IRIS)  # KFold's would lack a class each
        assert all(len(member.classes_) == 3 for member in ensemble.estimators_)

    def test_overlapping_test_rows_are_averaged(self):
        folds = RepeatedKFold(n_splits=3, n_repeats=2, random_state=0)
        ensemble = regressor(1, cv=folds).fit(X_DIABETES, Y_DIABETES)
        every = np.full((6, 200), np.nan)
        for f, (_, test) in enumerate(folds.split(X_DIABETES)):
            every[f, test] = ensemble.estimators_[f].predict(X_DIABETES[test])
        np.testing.assert_allclose(ensemble.oof_prediction_, np.nanmean(every, axis=0), atol=1e-12)

    def test_rows_in_no_test_fold(self):
        folds = ShuffleSplit(1, test_size=50, random_state=0)
        with pytest.warns(UserWarning, match="150 of 200 rows are held out by no member"):
            ensemble = regressor(2, cv=folds).fit(X_DIABETES, Y_DIABETES)
        ((_, test),) = folds.split(X_DIABETES)
        known = np.flatnonzero(~np.isnan(ensemble.oof_prediction_))
        np.testing.assert_array_equal(known, np.sort(test))

    def test_masks(self):
        half = np.arange(200) < 100
        as_masks = regressor(1, cv=[(half, ~half), (~half, half)]).fit(X_DIABETES, Y_DIABETES)
        as_folds = regressor(1, cv=KFold(2)).fit(X_DIABETES, Y_DIABETES)
        swapped = [as_masks.estimators_[1], as_masks.estimators_[0]]
        for member, other in zip(swapped, as_folds.estimators_, strict=True):
            assert member.coefs_[0].shape == other.coefs_[0].shape
        alone = clone(as_masks.estimators_[0]).fit(X_DIABETES[half], Y_DIABETES[half])
        assert_same(as_masks.estimators_[0], alone)

    def test_rows_counted_from_the_end(self):
        first, last = np.arange(100), np.arange(100, 200)
        usual = regressor(1, cv=[(first, last), (last, first)]).fit(X_DIABETES, Y_DIABETES)
        from_end = [(first, last - 200), (last - 200, first)]
        ensemble = regressor(1, cv=from_end).fit(X_DIABETES, Y_DIABETES)
        np.testing.assert_array_equal(ensemble.oof_prediction_, usual.oof_prediction_)

    def test_float32_stays_float32(self):
        X = X_IRIS.astype(np.float32)
        ensemble = classifier(2, cv=3).fit(X, Y_IRIS)
        assert ensemble.oof_prediction_.dtype == ensemble.predict_proba(X).dtype == np.float32
        assert ensemble.decision_function(X).dtype == np.float32


class TestConventions:
    def test_pandas(self):
        frame = pd.DataFrame(X_IRIS, columns=list("abcd"))
        ensemble = classifier(2, cv=3).fit(frame, pd.Series(CLASSES["strings"]))
        assert ensemble.feature_names_in_.tolist() == list("abcd")
        assert ensemble.n_features_in_ == 4
        plain = classifier(2, cv=3).fit(X_IRIS, CLASSES["strings"])
        np.testing.assert_array_equal(ensemble.predict_proba(frame), plain.predict_proba(X_IRIS))
        np.testing.assert_array_equal(ensemble.oof_prediction_, plain.oof_prediction_)
        with pytest.warns(UserWarning, match="EnsembleClassifier was fitted with feature names"):
            ensemble.predict(X_IRIS)

    @pytest.mark.parametrize("settings", [{}, {"bootstrap": True}, {"cv": 3}])
    @pytest.mark.parametrize("form", ["csr_array", "csc_matrix"])
    def test_sparse(self, form, settings):
        dense = np.where(np.abs(X_IRIS) > 0.7, X_IRIS, 0.0)
        X = getattr(scipy.sparse, form)(dense)
        found = classifier(2, **settings).fit(X, Y_IRIS)
        expected = classifier(2, **settings).fit(dense, Y_IRIS)
        np.testing.assert_allclose(
            found.predict_proba(X), expected.predict_proba(dense), atol=1e-10
        )

    def test_sparse_label_indicators(self):
        y = scipy.sparse.csr_array(CLASSES["multilabel"])
        found = classifier(2, cv=3).fit(X_IRIS, y)
        expected = classifier(2, cv=3).fit(X_IRIS, CLASSES["multilabel"])
        np.testing.assert_array_equal(found.oof_prediction_, expected.oof_prediction_)
        assert found.oof_score_ == expected.oof_score_

    def test_parameters_of_the_members(self):
        ensemble = classifier().set_params(estimator__alpha=0.5, n_estimators=2)
        again = clone(ensemble).fit(X_IRIS, Y_IRIS)
        assert [member.alpha for member in again.estimators_] == [0.5, 0.5]

    def test_pickle_and_copies(self):
        ensemble = classifier(2, cv=3).fit(X_IRIS, Y_IRIS)
        for again in (pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)):
            np.testing.assert_array_equal(
                again.predict_proba(X_IRIS), ensemble.predict_proba(X_IRIS)
            )
            np.testing.assert_array_equal(again.oof_prediction_, ensemble.oof_prediction_)

    def test_in_a_pipeline_and_a_search(self):
        pipeline = make_pipeline(StandardScaler(), classifier(2))
        grid = {"ensembleclassifier__estimator__alpha": [1e-4, 1e3]}
        search = GridSearchCV(pipeline, grid, cv=3, scoring="roc_auc_ovr").fit(X_IRIS, Y_IRIS)
        assert search.best_params_ == {"ensembleclassifier__estimator__alpha": 1e-4}
        scores = cross_val_score(regressor(2), X_DIABETES, Y_DIABETES, cv=3)
        assert scores.shape == (3,)
        assert np.isfinite(scores).all()

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            classifier().predict(X_IRIS)

    def test_a_column_of_targets_is_said_once(self):
        with pytest.warns(match="A column-vector y was passed") as caught:
            classifier(2).fit(X_IRIS, Y_IRIS[:, None])
        assert len([w for w in caught if "column-vector" in str(w.message)]) == 1

    def test_html(self):
        assert "MLPClassifier" in classifier()._repr_html_()


class TestErrors:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"n_estimators": 0}, "'n_estimators' parameter of EnsembleClassifier must be an int"),
            ({"n_jobs": 0}, r"'n_jobs' parameter of EnsembleClassifier must be .* Got 0"),
            ({"bootstrap": True, "cv": 3}, "bootstrap=True and cv=3 both say"),
            ({"oob_score": True}, "Out of bag estimation only available if bootstrap=True"),
            ({"oob_score": True, "cv": 3}, "Out of bag estimation only available"),
            ({"cv": 1}, "'cv' parameter of EnsembleClassifier must be an int in the range"),
            ({"stack_size": 0}, "'stack_size' parameter"),
        ],
    )
    def test_parameters(self, parameters, message):
        with pytest.raises(ValueError, match=message):
            classifier(**parameters).fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize(
        "other",
        [LogisticRegression(), MLPRegressor(), make_pipeline(MLPClassifier()), MLPClassifier],
        ids=["scikit-learn's", "regressor", "pipeline", "class"],
    )
    def test_other_estimators(self, other):
        with pytest.raises(
            TypeError, match=r"gpunet\.MLPClassifier.*sklearn\.ensemble\.BaggingClassifier"
        ):
            EnsembleClassifier(other).fit(X_IRIS, Y_IRIS)

    def test_a_member_that_fails_is_named(self):
        # the second fold's member has too few rows to set a share aside
        cv = [(np.arange(150), np.arange(0, 150, 2)), (np.arange(4), np.arange(1, 150, 2))]
        ensemble = classifier(1, member={"early_stopping": True}, cv=cv)
        with pytest.raises(ValueError, match="validation set is too small") as caught:
            ensemble.fit(X_IRIS, CLASSES["multilabel"])
        (note,) = caught.value.__notes__
        assert "member 1 (random_state=" in note
        assert "1 of its 2 members failed" in note
        with pytest.raises(NotFittedError):
            ensemble.predict(X_IRIS)

    def test_parameters_of_the_members(self):
        with pytest.raises(ValueError, match="'alpha' parameter of MLPClassifier") as caught:
            classifier(member={"alpha": -1.0}).fit(X_IRIS, Y_IRIS)
        assert "member 0 " in caught.value.__notes__[0]

    def test_a_malformed_parameter_of_the_members(self):
        with pytest.raises(
            ValueError, match=r"dropout is the share .* but is \[0.1, \[0.2, 0.3\]\]"
        ):
            classifier(member={"dropout": [0.1, [0.2, 0.3]]}).fit(X_IRIS, Y_IRIS)

    def test_what_was_interrupted(self, monkeypatch):
        def interrupted(jobs, **settings):
            fit_all(jobs[:finished], **settings)

        fit_all, finished = base.fit_all, 2
        monkeypatch.setattr(base, "fit_all", interrupted)
        ensemble = classifier(3, bootstrap=True)
        with pytest.warns(TrainingInterruptedWarning, match="the 2 of its 3 members"):
            ensemble.fit(X_IRIS, Y_IRIS)
        assert len(ensemble.estimators_) == len(ensemble.estimators_samples_) == 2
        rows = ensemble.estimators_samples_[1]
        member = ensemble.estimators_[1]
        assert_same(member, clone(member).fit(X_IRIS[rows], Y_IRIS[rows]))
        finished = 0
        with pytest.raises(KeyboardInterrupt):
            ensemble.fit(X_IRIS, Y_IRIS)


class TestEveryBackend:
    @pytest.mark.parametrize("settings", [{}, {"cv": 3}, {"bootstrap": True, "oob_score": True}])
    @pytest.mark.parametrize("target", ["multiclass", "binary", "multilabel"])
    @pytest.mark.filterwarnings("ignore:.*held out by no member")
    def test_everything_follows_x(self, backend, target, settings):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        y = CLASSES[target]
        expected = classifier(2, **settings).fit(X_IRIS, y)
        X = backend.asarray(X_IRIS)
        ensemble = classifier(2, **settings).fit(X, backend.asarray(y))
        names = ["predict", "predict_proba", "predict_log_proba", "decision_function"]
        found = {name: getattr(ensemble, name)(X) for name in names}
        found["std"] = ensemble.predict_proba(X, return_std=True)[1]
        known = {name: getattr(expected, name)(X_IRIS) for name in names}
        known["std"] = expected.predict_proba(X_IRIS, return_std=True)[1]
        for name in {"oof_prediction_", "oob_decision_function_"} & set(vars(expected)):
            found[name], known[name] = getattr(ensemble, name), getattr(expected, name)
        for name, value in found.items():
            assert backend_of([value]).spec == backend.spec, name
            np.testing.assert_allclose(backend.to_host(value), known[name], atol=1e-6, err_msg=name)
        assert backend_of([ensemble.classes_]).spec == backend.spec

    def test_regression_follows_x(self, backend):
        expected = regressor(3).fit(X_DIABETES, Y_DIABETES)
        X = backend.asarray(X_DIABETES)
        ensemble = regressor(3).fit(X, backend.asarray(Y_DIABETES), sample_weight=np.ones(200))
        for settings in ({}, {"quantiles": [0.1, 0.9]}):
            found = ensemble.predict(X, **settings)
            known = expected.predict(X_DIABETES, **settings)
            np.testing.assert_allclose(backend.to_host(found), known, atol=1e-6)

    def test_classes_that_members_lack(self, backend):
        cv = [(np.arange(100), np.arange(75)), (np.arange(100, 150), np.arange(75, 150))]
        known = classifier(1, cv=cv).fit(X_IRIS, Y_IRIS)
        X = backend.asarray(X_IRIS)
        ensemble = classifier(1, cv=cv).fit(X, backend.asarray(Y_IRIS))
        for name in ("predict_proba", "decision_function"):
            np.testing.assert_allclose(
                backend.to_host(getattr(ensemble, name)(X)), getattr(known, name)(X_IRIS), atol=1e-6
            )

    def test_host_data_comes_back(self, backend):
        expected = classifier(2).fit(X_IRIS, CLASSES["strings"])
        ensemble = classifier(2, member={"backend": backend.spec}).fit(X_IRIS, CLASSES["strings"])
        p = ensemble.predict_proba(X_IRIS)
        assert type(p) is np.ndarray
        np.testing.assert_allclose(p, expected.predict_proba(X_IRIS), atol=1e-6)
        np.testing.assert_array_equal(ensemble.predict(X_IRIS), expected.predict(X_IRIS))

    def test_pickles_and_copies_of_a_fit_on_a_device(self, backend):
        X = backend.asarray(X_IRIS)
        ensemble = classifier(2, cv=3).fit(X, backend.asarray(Y_IRIS))
        expected = backend.to_host(ensemble.predict(X))
        again = pickle.loads(pickle.dumps(ensemble))
        assert type(again.classes_) is type(again.oof_prediction_) is np.ndarray
        np.testing.assert_array_equal(again.predict(X_IRIS), expected)
        for other in (copy.copy(ensemble), copy.deepcopy(ensemble)):
            np.testing.assert_array_equal(backend.to_host(other.predict(X)), expected)

    def test_another_place_than_fits_is_refused(self, backend):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        ensemble = classifier(1).fit(backend.asarray(X_IRIS), Y_IRIS)
        with pytest.raises(ValueError, match=r"EnsembleClassifier.predict_proba\(\) must use"):
            ensemble.predict_proba(X_IRIS)


CHECKED = [
    EnsembleClassifier(MLPClassifier(max_iter=20), n_estimators=2),
    EnsembleRegressor(MLPRegressor(max_iter=30, learning_rate_init=0.05), n_estimators=2),
]


@parametrize_with_checks(CHECKED)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
def test_scikit_learns_array_api_checks(kind):
    """They need a variable that SciPy reads when it is imported, so: another interpreter."""
    code = f"""
import gpunet, warnings
from sklearn.utils.estimator_checks import check_estimator
warnings.simplefilter("ignore")
member = gpunet.MLP{kind}(max_iter=20, learning_rate_init=0.05)
ensemble = gpunet.Ensemble{kind}(member, n_estimators=2)
checks = check_estimator(ensemble, on_skip=None, on_fail=None)
checks = [check for check in checks if "array_api" in check["check_name"]]
print([str(check["exception"]) for check in checks if check["status"] == "failed"])
print(sum(check["status"] == "passed" for check in checks))
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    failed, passed = done.stdout.strip().split("\n")
    assert failed == "[]"
    with_torch = importlib.util.find_spec("torch") is not None  # one of them is for its arrays
    assert int(passed) >= 4 + with_torch
