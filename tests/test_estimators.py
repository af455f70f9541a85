"""MLPClassifier and MLPRegressor against the installed scikit-learn's: the same model, attribute for attribute."""

import copy
import importlib.util
import os
import pickle
import signal
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpunet
from gpunet import MLPClassifier, MLPRegressor
from gpunet.backend import BackendUnavailableError, get_backend
from gpunet.estimators.parameters import SOLVERS as OURS
from gpunet.training import Epochs

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = StandardScaler().fit_transform(X_IRIS)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
Y_DIABETES = Y_DIABETES / 100

CLASSES = {
    "multiclass": Y_IRIS,
    "binary": (Y_IRIS == 1).astype(int),
    "strings": np.array(["setosa", "versicolor", "virginica"])[Y_IRIS],
    "multilabel": np.column_stack([Y_IRIS > 0, Y_IRIS > 1, X_IRIS[:, 0] > 0]).astype(int),
}
SOLVERS = {
    "adam": {},
    "adam, early stopping": {"early_stopping": True, "n_iter_no_change": 3},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "sgd, plain momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "sgd, no momentum": {"solver": "sgd", "momentum": 0.0},
    "sgd, invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "sgd, adaptive": {
        "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.2,
        "n_iter_no_change": 2, "tol": 1e-2,
    },
    "no shuffle": {"shuffle": False, "batch_size": 40},
    "stops by loss": {"tol": 0.05, "n_iter_no_change": 2, "learning_rate_init": 0.01},
}  # fmt: skip


def pair(kind, **parameters):
    """Return scikit-learn's estimator and ours with the same parameters."""
    theirs, ours = {
        "classifier": (TheirClassifier, MLPClassifier),
        "regressor": (TheirRegressor, MLPRegressor),
    }[kind]
    parameters = {"hidden_layer_sizes": (8, 5), "random_state": 0, "max_iter": 30, **parameters}
    return theirs(**parameters), ours(**parameters)


def assert_same_model(theirs, ours, atol=1e-8):
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(theirs, name), getattr(ours, name), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=atol)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in (
        "loss_",
        "best_loss_",
        "loss_curve_",
        "validation_scores_",
        "best_validation_score_",
    ):
        a, b = getattr(theirs, name, None), getattr(ours, name, None)
        if a is None:
            assert b is None, name
        else:
            np.testing.assert_allclose(b, a, rtol=1e-8, atol=atol, err_msg=name)


class TestTheSameModel:
    @pytest.mark.parametrize("target", CLASSES)
    @pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_classifier(self, solver, activation, target):
        theirs, ours = pair("classifier", activation=activation, **SOLVERS[solver])
        y = CLASSES[target]
        assert_same_model(theirs.fit(X_IRIS, y), ours.fit(X_IRIS, y))
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        np.testing.assert_array_equal(ours.predict(X_IRIS), theirs.predict(X_IRIS))
        for method in ("predict_proba", "predict_log_proba"):
            a, b = getattr(theirs, method)(X_IRIS), getattr(ours, method)(X_IRIS)
            np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-10)

    @pytest.mark.parametrize("outputs", [1, 2])
    @pytest.mark.parametrize("loss", ["squared_error", "poisson"])
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_regressor(self, solver, loss, outputs):
        theirs, ours = pair("regressor", loss=loss, **SOLVERS[solver])
        y = Y_DIABETES if outputs == 1 else np.column_stack([Y_DIABETES, Y_DIABETES**2])
        assert_same_model(theirs.fit(X_DIABETES, y), ours.fit(X_DIABETES, y))
        np.testing.assert_allclose(ours.predict(X_DIABETES), theirs.predict(X_DIABETES), atol=1e-8)
        assert ours.score(X_DIABETES, y) == pytest.approx(theirs.score(X_DIABETES, y), abs=1e-8)

    # A difference of rounding grows with L-BFGS's iterations: after hundreds of them, a non-convex cost may lead the
    # same algorithm to another minimum. So: thirty, and for convex costs to the end.
    @pytest.mark.parametrize("target", CLASSES)
    @pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
    def test_lbfgs_classifier(self, target, activation):
        y = CLASSES[target]
        theirs, ours = pair("classifier", activation=activation, solver="lbfgs", alpha=1.0)
        theirs.fit(X_IRIS, y), ours.fit(X_IRIS, y)
        assert ours.n_iter_ == theirs.n_iter_ == 30
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-4)
        for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-3)

    def test_lbfgs_regressor(self):
        theirs, ours = pair("regressor", solver="lbfgs", alpha=1.0)
        theirs.fit(X_DIABETES, Y_DIABETES), ours.fit(X_DIABETES, Y_DIABETES)
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-4)
        for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-3)

    def test_lbfgs_on_a_convex_cost_to_the_end(self):
        theirs, ours = pair("classifier", hidden_layer_sizes=(), solver="lbfgs", max_iter=1000)
        theirs.fit(X_IRIS, Y_IRIS), ours.fit(X_IRIS, Y_IRIS)
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
        for a, b in zip(theirs.coefs_, ours.coefs_, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-3)

    @pytest.mark.parametrize("solver", ["adam", "sgd, invscaling", "sgd, adaptive"])
    def test_sample_weights(self, solver):
        weights = np.random.RandomState(0).uniform(0.2, 3.0, 150)
        theirs, ours = pair("classifier", **SOLVERS[solver])
        theirs.fit(X_IRIS, Y_IRIS, sample_weight=weights)
        assert_same_model(theirs, ours.fit(X_IRIS, Y_IRIS, sample_weight=weights))

    def test_sample_weights_with_early_stopping(self):
        weights = np.random.RandomState(0).uniform(0.2, 3.0, 442)
        theirs, ours = pair("regressor", early_stopping=True)
        theirs.fit(X_DIABETES, Y_DIABETES, sample_weight=weights)
        assert_same_model(theirs, ours.fit(X_DIABETES, Y_DIABETES, sample_weight=weights))

    @pytest.mark.parametrize("solver", ["adam", "adam, early stopping", "sgd, invscaling"])
    def test_warm_start(self, solver):
        theirs, ours = pair("classifier", warm_start=True, **SOLVERS[solver])
        for _ in range(3):
            assert_same_model(theirs.fit(X_IRIS, Y_IRIS), ours.fit(X_IRIS, Y_IRIS))

    @pytest.mark.parametrize("solver", ["adam", "sgd", "sgd, invscaling"])
    @pytest.mark.parametrize("state", [0, None])
    def test_partial_fit(self, solver, state):
        # state None: one generator for both, which goes on from call to call
        seeds = [np.random.RandomState(1) for _ in range(2)] if state is None else [state, state]
        theirs, ours = pair("classifier", **SOLVERS[solver])
        theirs.set_params(random_state=seeds[0]), ours.set_params(random_state=seeds[1])
        for part in np.array_split(np.random.RandomState(2).permutation(150), 5):
            theirs.partial_fit(X_IRIS[part], Y_IRIS[part], classes=[0, 1, 2])
            ours.partial_fit(X_IRIS[part], Y_IRIS[part], classes=[0, 1, 2])
            assert_same_model(theirs, ours)

    def test_partial_fit_after_fit(self):
        theirs, ours = pair("regressor")
        theirs.fit(X_DIABETES, Y_DIABETES).partial_fit(X_DIABETES, Y_DIABETES)
        ours.fit(X_DIABETES, Y_DIABETES).partial_fit(X_DIABETES, Y_DIABETES)
        assert_same_model(theirs, ours)

    @pytest.mark.parametrize("form", ["csr_array", "csc_array", "csr_matrix", "csc_matrix"])
    def test_sparse(self, form):
        X = getattr(scipy.sparse, form)(np.where(np.abs(X_IRIS) > 0.7, X_IRIS, 0.0))
        theirs, ours = pair("classifier", early_stopping=True)
        assert_same_model(theirs.fit(X, Y_IRIS), ours.fit(X, Y_IRIS))
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-10)

    def test_float32_stays_float32(self):
        theirs, ours = pair("classifier")
        X = X_IRIS.astype(np.float32)
        theirs.fit(X, Y_IRIS), ours.fit(X, Y_IRIS)
        assert ours.coefs_[0].dtype == theirs.coefs_[0].dtype == np.float32
        assert ours.predict_proba(X).dtype == np.float32
        np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], atol=1e-4)

    @pytest.mark.parametrize("verbose", [True, 1])
    def test_what_verbose_prints(self, capsys, verbose):
        theirs, ours = pair("classifier", verbose=verbose, **SOLVERS["sgd, adaptive"])
        printed = []
        for model in (theirs, ours):
            model.fit(X_IRIS, Y_IRIS)
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]


@pytest.mark.parametrize("where", ["numpy", "torch:cpu", "jax"])
@parametrize_with_checks([MLPClassifier(max_iter=20), MLPRegressor(max_iter=20)])
def test_scikit_learns_checks(estimator, check, where, monkeypatch):
    try:
        get_backend(where)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("GPUNET_BACKEND", where)
    check(estimator)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_scikit_learns_array_api_checks(name):
    """They need a variable that SciPy reads when it is imported, so: another interpreter."""
    code = f"""
import gpunet, warnings
from sklearn.utils.estimator_checks import check_estimator
warnings.simplefilter("ignore")
checks = check_estimator(gpunet.{name}(max_iter=20), on_skip=None, on_fail=None)
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


class TestCorners:
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_the_reported_loss_is_cut_where_theirs_is(self, solver):
        X, y = load_wine(
            return_X_y=True
        )  # not standardised: probabilities of 0 and 1 from the start
        theirs, ours = pair("classifier", solver=solver, hidden_layer_sizes=(100,), max_iter=20)
        theirs.fit(X, y), ours.fit(X, y)
        assert ours.n_iter_ == theirs.n_iter_
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)

    @pytest.mark.parametrize("form", ["csr_array", "csr_matrix"])
    def test_sparse_label_indicators(self, form):
        y = getattr(scipy.sparse, form)(CLASSES["multilabel"])
        theirs, ours = pair("classifier")
        assert_same_model(theirs.fit(X_IRIS, y), ours.fit(X_IRIS, y))
        np.testing.assert_array_equal(ours.predict(X_IRIS), theirs.predict(X_IRIS).toarray())

    @pytest.mark.parametrize("how", ["pickle", "deepcopy", "copy"])
    def test_a_copy_predicts_the_same_after_parameters_changed(self, how):
        _, ours = pair("classifier")
        ours.fit(X_IRIS, Y_IRIS).set_params(activation="tanh", hidden_layer_sizes=(3,))
        copies = {
            "pickle": lambda model: pickle.loads(pickle.dumps(model)),
            "deepcopy": copy.deepcopy,
            "copy": copy.copy,
        }
        again = copies[how](ours)
        np.testing.assert_array_equal(again.predict_proba(X_IRIS), ours.predict_proba(X_IRIS))

    def test_a_deep_copy_stays_on_the_device(self, backend):
        X = backend.asarray(X_IRIS)
        ours = MLPClassifier(max_iter=2, random_state=0).fit(X, Y_IRIS)
        again = copy.deepcopy(ours)
        np.testing.assert_array_equal(
            backend.to_host(again.predict(X)), backend.to_host(ours.predict(X))
        )

    @pytest.mark.parametrize(
        "changed", [{"hidden_layer_sizes": (3, 3)}, {"activation": "maxout:2"}], ids=str
    )
    def test_going_on_with_another_network_is_refused(self, changed):
        _, ours = pair("classifier", warm_start=True)
        ours.fit(X_IRIS, Y_IRIS).set_params(**changed)
        with pytest.raises(ValueError, match=r"go on with the fitted coefs_ of the shapes"):
            ours.fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize("solver", [name for name in OURS if name != "lbfgs"])
    def test_partial_fit_needs_no_fit_before_it(self, solver):
        settings = {"solver": solver, "hidden_layer_sizes": (5,), "random_state": 0}
        fitted = MLPRegressor(**settings, max_iter=1).fit(X_DIABETES, Y_DIABETES)
        begun = MLPRegressor(**settings).partial_fit(X_DIABETES, Y_DIABETES)
        np.testing.assert_array_equal(begun.coefs_[0], fitted.coefs_[0])

    def test_partial_fit_with_another_solver_starts_its_memory_anew(self):
        _, ours = pair("classifier")
        ours.fit(X_IRIS, Y_IRIS).set_params(solver="sgd")
        before = ours.coefs_[0].copy()
        ours.partial_fit(X_IRIS, Y_IRIS)
        assert np.max(np.abs(ours.coefs_[0] - before)) > 0

    def test_a_single_class_is_always_right(self):
        theirs, ours = pair("classifier", early_stopping=True)
        y = np.zeros(150, dtype=int)
        assert_same_model(theirs.fit(X_IRIS, y), ours.fit(X_IRIS, y))

    @pytest.mark.parametrize(
        ("y", "weights", "message"),
        [
            (np.full(442, np.nan), None, "Input y contains NaN"),
            (Y_DIABETES, np.full(442, np.nan), "Input sample_weight contains NaN"),
            (Y_DIABETES, np.ones((442, 1)), "Sample weights must be 1D"),
            (np.full(442, np.inf), None, "Input y contains infinity"),
            (Y_DIABETES + 0j, None, "Complex data not supported"),
            (Y_DIABETES[:, None, None], None, "Found array with dim 3"),
        ],
        ids=["y", "weights", "shape", "infinite y", "complex y", "3-D y"],
    )
    def test_what_is_wrong_on_a_device_is_named(self, backend, y, weights, message):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        X, y = backend.asarray(X_DIABETES), backend.asarray(y)
        weights = None if weights is None else backend.asarray(weights)
        with pytest.raises(ValueError, match=message):
            MLPRegressor(max_iter=2).fit(X, y, sample_weight=weights)

    @pytest.mark.parametrize("method", ["fit", "predict"])
    @pytest.mark.parametrize(
        ("X", "words"),
        [
            (X_IRIS + 0j, "Complex data not supported"),
            (X_IRIS[:, :0], None),
            (X_IRIS[:0], None),
            (X_IRIS[:, :, None], None),
            (X_IRIS[:, :3], None),
            (X_IRIS[:, 0], "Expected 2D array, got 1D array instead"),
            (np.array(1.0), "Expected 2D array, got scalar array instead"),
            (np.full((150, 4), np.nan), "Input X contains NaN."),
            (np.full((150, 4), np.inf), "Input X contains infinity or a value too large"),
        ],
        ids=["complex", "no columns", "no rows", "3-D", "width", "1-D", "0-D", "NaN", "infinity"],
    )
    def test_a_bad_x_on_a_device_gets_scikit_learns_error(self, backend, X, words, method):
        """Its very message, or its beginning where it goes on to show the array."""
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        if method == "fit" and X.shape == (150, 3):
            pytest.skip("any width may be fitted")
        theirs, ours = pair("classifier", max_iter=2)
        theirs.fit(X_IRIS, Y_IRIS), ours.fit(backend.asarray(X_IRIS), Y_IRIS)
        more = {"y": Y_IRIS} if method == "fit" else {}
        with pytest.raises(ValueError, match=r".") as expected:
            getattr(theirs, method)(X, **more)
        with pytest.raises(ValueError, match=r".") as actual:
            getattr(ours, method)(backend.asarray(X), **more)
        assert str(expected.value).startswith(words or str(actual.value))
        assert str(actual.value).startswith(words or str(expected.value))

    def test_columns_of_several_classes_on_a_device(self, backend):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        y = backend.asarray(np.column_stack([Y_IRIS, Y_IRIS]))
        with pytest.raises(ValueError, match="Multioutput target data is not supported"):
            MLPClassifier().fit(backend.asarray(X_IRIS), y)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_ctrl_c_counts_the_epochs_that_ran_to_their_end(self, monkeypatch, when):
        """A compiled epoch asks once whether to stop, and has then run all of its steps."""
        run = Epochs.run

        def interrupted(self, *arguments):
            if when == "before":
                signal.raise_signal(signal.SIGINT)
            cost = run(self, *arguments)
            signal.raise_signal(signal.SIGINT) if when == "after" else None
            return cost

        monkeypatch.setattr(Epochs, "run", interrupted)
        _, ours = pair("classifier")
        with pytest.warns(UserWarning, match="Training interrupted by user"):
            ours.fit(X_IRIS, Y_IRIS)
        assert ours.n_iter_ == len(ours.loss_curve_) == len(ours.history_) == (when == "after")

    def test_exclusive_classes_go_on_with_a_multilabel_fit(self):
        y = CLASSES["multilabel"]
        theirs, ours = pair("classifier", warm_start=True)
        theirs.fit(X_IRIS, y).fit(X_IRIS, Y_IRIS), ours.fit(X_IRIS, y).fit(X_IRIS, Y_IRIS)
        assert_same_model(theirs, ours)

    @pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_label_indicators_after_exclusive_classes(self, method, form):
        _, ours = pair("classifier", warm_start=method == "fit")
        ours.fit(X_IRIS, Y_IRIS)
        with pytest.raises(ValueError, match="was not fitted with multilabel input: y has 3 col"):
            getattr(ours, method)(X_IRIS, form(CLASSES["multilabel"]))

    def test_any_number_but_zero_is_a_label(self):
        y = 2 * CLASSES["multilabel"] - 1
        theirs, ours = pair("classifier")
        assert_same_model(theirs.fit(X_IRIS, y), ours.fit(X_IRIS, y))

    @pytest.mark.filterwarnings("error")
    def test_many_classes_are_no_warning(self):
        _, ours = pair("classifier", max_iter=1)
        with pytest.warns(ConvergenceWarning):
            ours.fit(X_IRIS, np.arange(150))

    def test_sparse_targets_of_a_regression(self):
        y = scipy.sparse.csr_array(np.column_stack([Y_DIABETES, Y_DIABETES**2]))
        theirs, ours = pair("regressor")
        assert_same_model(theirs.fit(X_DIABETES, y), ours.fit(X_DIABETES, y))

    def test_partial_fit_has_no_plan_for_a_planned_schedule(self):
        with pytest.raises(ValueError, match="'cosine' plans max_iter epochs"):
            MLPRegressor(learning_rate="cosine").partial_fit(X_IRIS, Y_IRIS)


class TestWorksInside:
    def test_a_grid_search_gives_the_same_scores(self):
        theirs, ours = pair("classifier", max_iter=10)
        grid = {"alpha": [1e-4, 1.0], "hidden_layer_sizes": [(4,), (6,)]}
        results = [
            GridSearchCV(model, grid, cv=3).fit(X_IRIS, Y_IRIS).cv_results_["mean_test_score"]
            for model in (theirs, ours)
        ]
        np.testing.assert_array_equal(*results)

    def test_a_pipeline_over_mixed_columns(self):
        frame = pd.DataFrame(X_IRIS, columns=list("abcd")).assign(kind=np.tile(["x", "y", "z"], 50))
        columns = ColumnTransformer(
            [("n", StandardScaler(), list("abcd")), ("c", OneHotEncoder(), ["kind"])]
        )
        theirs, ours = (
            make_pipeline(columns, model).fit(frame, Y_IRIS).predict(frame)
            for model in pair("classifier")
        )
        np.testing.assert_array_equal(theirs, ours)

    def test_feature_names(self):
        frame = pd.DataFrame(X_IRIS, columns=list("abcd"))
        _, ours = pair("classifier")
        ours.fit(frame, Y_IRIS)
        assert ours.feature_names_in_.tolist() == list("abcd")
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            ours.predict(X_IRIS)
        with pytest.raises(ValueError, match="feature names should match"):
            ours.predict(frame.rename(columns={"a": "e"}))

    def test_polars(self):
        polars = pytest.importorskip("polars", reason="polars isn't installed")
        _, ours = pair("classifier")
        ours.fit(polars.DataFrame(X_IRIS, schema=list("abcd")), Y_IRIS)
        assert ours.feature_names_in_.tolist() == list("abcd")

    def test_calibration(self):
        _, ours = pair("classifier")
        p = CalibratedClassifierCV(ours, cv=3).fit(X_IRIS, Y_IRIS).predict_proba(X_IRIS)
        np.testing.assert_allclose(p.sum(axis=1), 1.0)

    def test_permutation_importance(self):
        _, ours = pair("regressor")
        found = permutation_importance(ours.fit(X_DIABETES, Y_DIABETES), X_DIABETES, Y_DIABETES)
        assert found.importances_mean.shape == (10,)

    def test_parallel_cross_validation(self):
        _, ours = pair("classifier", max_iter=10)
        alone = cross_val_score(ours, X_IRIS, Y_IRIS, cv=3)
        together = cross_val_score(ours, X_IRIS, Y_IRIS, cv=3, n_jobs=2)
        np.testing.assert_array_equal(alone, together)

    def test_clone_and_parameters(self):
        ours = MLPRegressor(alpha=0.5, backend="numpy", dtype="float32")
        assert clone(ours).get_params() == ours.get_params()
        theirs = TheirRegressor().get_params()
        assert {name: ours.get_params()[name] for name in theirs} == {**theirs, "alpha": 0.5}

    def test_array_api_dispatch_leaves_numpy_alone(self):
        _, ours = pair("classifier")
        expected = clone(ours).fit(X_IRIS, Y_IRIS).coefs_[0]
        with config_context(transform_output="pandas"):
            np.testing.assert_array_equal(ours.fit(X_IRIS, Y_IRIS).coefs_[0], expected)


class TestPickles:
    @pytest.mark.parametrize("dump", [pickle, joblib], ids=["pickle", "joblib"])
    def test_there_and_back(self, tmp_path, dump):
        _, ours = pair("classifier")
        ours.fit(X_IRIS, Y_IRIS)
        path = tmp_path / "model"
        with path.open("wb") as file:
            dump.dump(ours, file)
        with path.open("rb") as file:
            again = dump.load(file)
        np.testing.assert_array_equal(again.predict_proba(X_IRIS), ours.predict_proba(X_IRIS))
        np.testing.assert_array_equal(  # the optimizer's memory is in it
            again.partial_fit(X_IRIS, Y_IRIS).coefs_[0], ours.partial_fit(X_IRIS, Y_IRIS).coefs_[0]
        )

    def test_they_hold_numpy_arrays(self, backend):
        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        ours = MLPClassifier(max_iter=2, random_state=0).fit(X, y)
        again = pickle.loads(pickle.dumps(ours))
        assert type(again.coefs_[0]) is type(again.classes_) is np.ndarray
        np.testing.assert_array_equal(
            again.predict(X_IRIS), backend.to_host(ours.predict(X)), strict=False
        )


class TestConversion:
    """To scikit-learn and back: each goes on where the other would."""

    @pytest.mark.parametrize("target", CLASSES)
    @pytest.mark.parametrize("solver", ["adam", "sgd, invscaling"])
    def test_there_and_back(self, solver, target):
        y = CLASSES[target]
        _, ours = pair("classifier", **SOLVERS[solver])
        ours.fit(X_IRIS, y)
        theirs = ours.to_sklearn()
        np.testing.assert_array_equal(theirs.predict(X_IRIS), ours.predict(X_IRIS))
        again = MLPClassifier.from_sklearn(theirs)
        for a, b in zip(
            ours.coefs_ + ours.intercepts_, again.coefs_ + again.intercepts_, strict=True
        ):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(again.predict(X_IRIS), ours.predict(X_IRIS))
        for _ in range(2):
            ours.partial_fit(X_IRIS, y)
            assert_same_model(theirs.partial_fit(X_IRIS, y), ours)
            assert_same_model(again.partial_fit(X_IRIS, y), ours)

    def test_regressors(self):
        theirs, _ = pair("regressor", solver="sgd", learning_rate="adaptive", early_stopping=False)
        theirs.fit(X_DIABETES, Y_DIABETES)
        ours = MLPRegressor.from_sklearn(theirs, backend="numpy")
        assert ours.backend == "numpy"
        np.testing.assert_allclose(ours.predict(X_DIABETES), theirs.predict(X_DIABETES), atol=1e-12)
        theirs.partial_fit(X_DIABETES, Y_DIABETES)
        assert_same_model(theirs, ours.partial_fit(X_DIABETES, Y_DIABETES))

    def test_unfitted(self):
        theirs = MLPRegressor(alpha=0.3).to_sklearn()
        assert isinstance(theirs, TheirRegressor)
        assert theirs.alpha == 0.3
        assert not hasattr(MLPRegressor.from_sklearn(theirs), "coefs_")

    def test_the_copy_is_its_own(self):
        _, ours = pair("classifier")
        theirs = ours.fit(X_IRIS, Y_IRIS).to_sklearn()
        before = ours.coefs_[0].copy()
        theirs.partial_fit(X_IRIS, Y_IRIS)
        np.testing.assert_array_equal(ours.coefs_[0], before)

    def test_the_other_kind_is_refused(self):
        with pytest.raises(
            TypeError, match=r"MLPClassifier.from_sklearn takes .*not a MLPRegressor"
        ):
            MLPClassifier.from_sklearn(TheirRegressor())

    def test_a_fit_on_a_device(self, backend):
        ours = MLPClassifier(max_iter=3, random_state=0)
        ours.fit(backend.asarray(X_IRIS), backend.asarray(Y_IRIS))
        theirs = ours.to_sklearn()
        assert type(theirs.coefs_[0]) is np.ndarray
        expected = backend.to_host(ours.predict(backend.asarray(X_IRIS)))
        np.testing.assert_array_equal(theirs.predict(X_IRIS), expected)


class TestEveryBackend:
    @pytest.mark.parametrize("solver", ["adam, early stopping", "sgd, adaptive"])
    def test_host_data_is_computed_on_it_and_comes_back(self, backend, solver):
        theirs, ours = pair("classifier", **SOLVERS[solver])
        theirs.fit(X_IRIS, CLASSES["strings"])
        ours.set_params(backend=backend.spec).fit(X_IRIS, CLASSES["strings"])
        assert_same_model(theirs, ours, atol=1e-7)
        assert type(ours.coefs_[0]) is np.ndarray
        np.testing.assert_array_equal(ours.predict(X_IRIS), theirs.predict(X_IRIS))

    @pytest.mark.parametrize("target", ["multiclass", "binary", "multilabel"])
    def test_everything_follows_x(self, backend, target):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        y = CLASSES[target]
        theirs, ours = pair("classifier", early_stopping=True)
        theirs.fit(X_IRIS, y)
        X = backend.asarray(X_IRIS)
        ours.fit(X, backend.asarray(y))
        for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            result = getattr(ours, name)(X)
            assert gpunet.backend.backend_of([result]).spec == backend.spec, name
        p = backend.to_host(ours.predict_proba(X))
        np.testing.assert_allclose(p, theirs.predict_proba(X_IRIS), atol=1e-7)
        np.testing.assert_array_equal(backend.to_host(ours.predict(X)), theirs.predict(X_IRIS))
        for array in (*ours.coefs_, *ours.intercepts_, ours.classes_):
            assert gpunet.backend.backend_of([array]).spec == backend.spec

    def test_regression_follows_x(self, backend):
        theirs, ours = pair("regressor", loss="poisson")
        theirs.fit(X_DIABETES, Y_DIABETES)
        X = backend.asarray(X_DIABETES)
        predicted = ours.fit(X, Y_DIABETES, sample_weight=np.ones(442)).predict(X)
        np.testing.assert_allclose(
            backend.to_host(predicted), theirs.predict(X_DIABETES), atol=1e-7
        )

    def test_another_place_than_fits_is_refused(self, backend):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        X = backend.asarray(X_IRIS)
        ours = MLPClassifier(max_iter=2).fit(X, Y_IRIS)
        message = rf"MLPClassifier.predict\(\) must use the same namespace.*{backend.name}"
        with pytest.raises(ValueError, match=message):
            ours.predict(X_IRIS)
        with pytest.raises(ValueError, match="move X there"):
            MLPClassifier(max_iter=2).fit(X_IRIS, Y_IRIS).predict_proba(X)

    def test_partial_fit_goes_on(self, backend):
        theirs, ours = pair("classifier")
        ours.set_params(backend=backend.spec)
        for part in np.array_split(np.random.RandomState(2).permutation(150), 3):
            theirs.partial_fit(X_IRIS[part], Y_IRIS[part], classes=[0, 1, 2])
            ours.partial_fit(X_IRIS[part], Y_IRIS[part], classes=[0, 1, 2])
        assert_same_model(theirs, ours)

    def test_sparse(self, backend):
        X = scipy.sparse.csr_array(np.where(np.abs(X_IRIS) > 0.7, X_IRIS, 0.0))
        theirs, ours = pair("classifier", max_iter=5)
        ours.set_params(backend=backend.spec)
        assert_same_model(theirs.fit(X, Y_IRIS), ours.fit(X, Y_IRIS))


def test_no_hidden_copy_to_the_host(monkeypatch):
    """Between the labels and the epoch's one read, nothing of a fit on a device leaves it."""
    backend = get_backend("strict:device1")
    X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
    sizes = []
    to_host = type(backend).to_host

    def watched(self, array):
        sizes.append(int(np.prod(array.shape)))
        return to_host(self, array)

    monkeypatch.setattr(type(backend), "to_host", watched)
    ours = MLPClassifier((8,), max_iter=3, random_state=0).fit(X, y)
    ours.predict_proba(X)
    assert sizes
    assert max(sizes) <= 3  # flags, a loss, the classes: no parameters, no examples


ODD_TARGETS = {
    "reals": X_IRIS[:, 0],
    "half numbers": Y_IRIS + 0.5,
    "strings": CLASSES["strings"],
    "numbers as strings": Y_IRIS.astype(str),
    "bytes": Y_IRIS.astype(str).astype("S"),
    "mixed objects": np.array([1, "a"] * 75, dtype=object),
    "mixed list": [1, "a"] * 75,
    "int objects": Y_IRIS.astype(object),
    "None": None,
    "Nones": [None] * 150,
    "NaN": np.where(Y_IRIS == 1, np.nan, Y_IRIS),
    "infinity": np.where(Y_IRIS == 1, np.inf, Y_IRIS),
    "dates": np.array(["2020-01-01", "2021-01-01"] * 75, dtype="M8[D]"),
    "complex": Y_IRIS + 0j,
    "bools": Y_IRIS > 0,
    "int8": Y_IRIS.astype(np.int8),
    "float16": Y_IRIS.astype(np.float16),
    "large": Y_IRIS * 10**12,
    "negative": Y_IRIS - 1,
    "one class": np.zeros(150, dtype=int),
    "column": pd.DataFrame({"y": Y_IRIS}),
    "two columns": np.column_stack([Y_IRIS, Y_IRIS]),
    "real columns": X_IRIS[:, :2],
    "3-D": X_IRIS[:, :1, None],
    "nullable": pd.Series(Y_IRIS, dtype="Int64"),
    "NA": pd.Series([1, None] * 75, dtype="Int64"),
    "categories": pd.Series(pd.Categorical(CLASSES["strings"])),
    "too short": Y_IRIS[:-1],
    "empty": Y_IRIS[:0],
    "number": 1,
    "set": {1, 2},
    "text": "abc",
    "lists": [[1, 2], [1]] * 75,
    "indicators": CLASSES["multilabel"],
    "sparse indicators": scipy.sparse.csr_array(CLASSES["multilabel"]),
    "-1 and 1": 2 * CLASSES["multilabel"] - 1,
}


class TestBadInput:
    def test_unknown_backend(self):
        with pytest.raises(ValueError, match="Unknown backend 'nonsense'"):
            MLPClassifier(backend="nonsense").fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"activation": "softplus"}, "activation"),
            ({"alpha": -1}, "alpha"),
            ({"solver": "newton"}, "solver"),
            ({"dtype": "float16"}, "dtype"),
            ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be > 0"),
        ],
        ids=str,
    )
    def test_parameters(self, parameters, message):
        with pytest.raises(ValueError, match=message):
            MLPClassifier(**parameters).fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize("units", [1.5, True, None])
    def test_units_are_whole_numbers(self, units):
        with pytest.raises(
            TypeError, match=r"hidden_layer_sizes are whole .* but one is|supported"
        ):
            MLPClassifier((5, units)).fit(X_IRIS, Y_IRIS)

    @pytest.mark.parametrize("kind", ["classifier", "regressor"])
    @pytest.mark.parametrize(
        ("X", "y"),
        [
            (X_IRIS[:0], Y_IRIS[:0]),
            (X_IRIS[:, 0], Y_IRIS),
            (X_IRIS, Y_IRIS[:-1]),
            (np.full((150, 4), np.nan), Y_IRIS),
            (X_IRIS, np.full(150, np.nan)),
            (np.full((150, 4), "a"), Y_IRIS),
        ],
        ids=["empty", "1-D", "lengths", "NaN in X", "NaN in y", "strings"],
    )
    def test_what_scikit_learn_rejects_is_rejected_with_its_message(self, kind, X, y):
        theirs, ours = pair(kind)
        with pytest.raises(ValueError, match=r".") as expected:
            theirs.fit(X, y)
        with pytest.raises(ValueError, match=r".") as actual:
            ours.fit(X, y)
        theirs_says = str(expected.value).replace("TheirClassifier", "MLPClassifier")
        assert str(actual.value) == theirs_says

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
    @pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    @pytest.mark.parametrize("y", ODD_TARGETS, ids=str)
    @pytest.mark.parametrize("kind", ["classifier", "regressor"])
    def test_odd_targets_give_scikit_learns_model_or_its_kind_of_error(self, kind, y, method):
        theirs, ours = pair(kind, max_iter=2)
        more = {"classes": [0, 1, 2]} if (kind, method) == ("classifier", "partial_fit") else {}
        outcomes = []
        for model in (theirs, ours):
            try:
                getattr(model, method)(X_IRIS, ODD_TARGETS[y], **more)
                outcomes.append(None)
            except (ValueError, TypeError) as error:
                outcomes.append(error)
        if outcomes[0] is None:
            assert outcomes[1] is None
            assert_same_model(theirs, ours)
        else:
            assert isinstance(outcomes[0], type(outcomes[1]))

    @pytest.mark.parametrize(
        ("y", "error", "message"),
        [
            ("reals", ValueError, "label type: continuous.* use MLPRegressor for these"),
            ("mixed objects", TypeError, "labels of the types int, str, which can't be sorted"),
            ("int objects", ValueError, r"objects of the type int: .*y\.astype\(int\)"),
            ("two columns", ValueError, "Multioutput target data .* y has 2 columns"),
        ],
    )
    def test_what_is_said_of_odd_targets(self, y, error, message):
        with pytest.raises(error, match=message):
            MLPClassifier().fit(X_IRIS, ODD_TARGETS[y])

    @pytest.mark.parametrize("y", ["strings", "numbers as strings", "dates"])
    def test_a_regression_is_of_numbers(self, y):
        for X in (X_IRIS, get_backend("strict").asarray(X_IRIS)):
            with pytest.raises(
                TypeError, match="y of a regression is of numbers, but its dtype is"
            ):
                MLPRegressor().fit(X, ODD_TARGETS[y])

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            MLPClassifier().predict(X_IRIS)

    def test_partial_fit_of_lbfgs(self):
        assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")

    def test_partial_fit_with_early_stopping(self):
        with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
            MLPRegressor(early_stopping=True).partial_fit(X_IRIS, Y_IRIS)

    def test_unknown_classes_in_partial_fit(self):
        ours = MLPClassifier().partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
        with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`"):
            ours.partial_fit(X_IRIS, Y_IRIS + 1)

    def test_other_classes_with_warm_start(self):
        ours = MLPClassifier(warm_start=True, max_iter=2).fit(X_IRIS, Y_IRIS)
        with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same"):
            ours.fit(X_IRIS, Y_IRIS + 1)

    @pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
    def test_convergence_warning_points_at_the_caller(self):
        with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached") as caught:
            MLPClassifier(max_iter=2).fit(X_IRIS, Y_IRIS)
        assert caught[0].filename == __file__

    def test_infinite_data_ends_with_scikit_learns_error(self):
        X = np.random.RandomState(0).normal(size=(20, 2)) * 1e200
        model = MLPRegressor(max_iter=3)
        with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite parameter"):
            model.fit(X, X[:, 0])
