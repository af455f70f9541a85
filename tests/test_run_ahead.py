"""Epochs that nobody looks at in between: the very same numbers as one after the other, and no epoch too many."""

import itertools
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from estimator_helpers import X_IRIS, Y_IRIS
from gpunet.backends.cupy import CuPyBackend

from gpunet import GridSearchCV, MLPClassifier, MLPRegressor, optimizers, training
from gpunet.backend import get_backend
from gpunet.description import architecture_of
from gpunet.stacks import Member, Stack
from gpunet.training import Epochs, TrainingState

ARCHITECTURE = architecture_of([4, 5, 3], "tanh", None, "softmax_cross_entropy")
TARGETS = np.eye(3)[Y_IRIS]


def epochs_on(backend, rows=None):
    """Return epochs of full batches and a partial last one, and where they start."""
    x, y = (backend.asarray(array).T for array in (X_IRIS, TARGETS))
    epochs = Epochs(
        ARCHITECTURE, (x, y, None, 0.1), backend=backend, optimizer=optimizers.Adam(),
        batch_size=32, rows=rows,
    )  # fmt: skip
    theta = np.random.RandomState(0).normal(size=ARCHITECTURE.n_parameters)
    return epochs, TrainingState(backend.asarray(theta), np.random.RandomState(1))


class TestOneNetwork:
    @pytest.mark.parametrize("some", [False, True], ids=["all examples", "some of them"])
    def test_on_every_backend(self, backend, some):
        found = []
        with backend.active():
            for at_once in (1, 4):
                rows = backend.asarray(np.arange(0, 150, 2)) if some else None
                epochs, state = epochs_on(backend, rows)
                costs = [epochs.run(state, 0.01)]
                while state.epoch < 9:
                    costs += epochs.run_ahead(state, 0.01, at_once)
                found.append(
                    [backend.to_host(array) for array in (state.theta, *state.slots, *costs)]
                )
                assert (state.epoch, state.step) == (9, 9 * epochs.steps)
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_no_more_than_take_some_milliseconds(self, monkeypatch):
        epochs, state = epochs_on(get_backend("numpy"))
        epochs.run(state, 0.01)
        assert len(epochs.run_ahead(state, 0.01, 1000)) < 100
        monkeypatch.setattr(training, "AHEAD", 0.0)
        assert len(epochs.run_ahead(state, 0.01, 1000)) == 1

    @pytest.mark.parametrize("steps", [0, 4, 5, 13])
    def test_asked_to_stop(self, steps, monkeypatch):
        """Only whole epochs' costs are known, and nothing is trained after it."""
        # a program looks before it begins, and not at every step
        monkeypatch.setenv("GPUNET_NUMBA", "0")
        epochs, state = epochs_on(get_backend("numpy"))
        epochs.run(state, 0.01)
        asked = iter([False] * steps)
        costs = epochs.run_ahead(state, 0.01, 4, lambda: next(asked, True))
        assert len(costs) == steps // epochs.steps
        assert state.epoch == 1 + min(4, len(costs) + 1)  # the one that is cut short counts
        assert state.slots is not None
        assert np.isfinite(state.theta).all()


@pytest.mark.parametrize(
    ("sizes", "steps", "m", "processor", "device"),
    [
        ((10, 16, 3), 32, 32, 11, 41),
        ((50, 100, 10), 25, 200, 1, 52),
        ((784, 256, 128, 10), 235, 256, 1, 3),
        ((1024, 2048, 2048, 10), 64, 1024, 1, 1),
    ],
)
def test_a_device_runs_further_ahead_than_a_processor(sizes, steps, m, processor, device):
    """There, too, the host waits only once in some 20 ms."""
    parameters = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    cupy = SimpleNamespace(step_seconds=partial(CuPyBackend.step_seconds, None))
    for backend, epochs in ((get_backend("numpy"), processor), (cupy, device)):
        theta = np.empty(parameters)
        assert training.at_once(backend, 1000, steps, theta, m) == epochs


class TestEstimators:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"tol": 0.01, "n_iter_no_change": 2},
            {"tol": 10.0, "n_iter_no_change": 1},
            {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 2},
            {"solver": "sgd", "learning_rate": "invscaling"},
            {"solver": "sgd", "learning_rate": "cosine"},
            {"dropout": 0.2},
            {"early_stopping": True, "n_iter_no_change": 3},
            {"max_iter": 7},
            {"track_scores": True, "max_iter": 12},
            {"batch_size": 150, "tol": 0.005},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("numba", ["0", "1"])
    def test_as_if_each_epoch_were_looked_at(self, settings, numba, monkeypatch):
        monkeypatch.setenv("GPUNET_NUMBA", numba)
        found = []
        for ahead in (0.0, training.AHEAD):
            monkeypatch.setattr(training, "AHEAD", ahead)
            network = MLPClassifier(
                (5,), random_state=0, **{"max_iter": 60, "batch_size": 40, **settings}
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(network.fit(X_IRIS, Y_IRIS))
        one, other = found
        assert one.loss_curve_ == other.loss_curve_
        assert (one.n_iter_, one.t_) == (other.n_iter_, other.t_)
        for each, same in zip(one.coefs_, other.coefs_, strict=True):
            np.testing.assert_array_equal(each, same)
        records = [[{**r, "seconds": 0} for r in network.history_] for network in found]
        assert records[0] == records[1]

    def test_whoever_is_told_of_epochs_is_told_at_once(self):
        network = MLPClassifier((5,), random_state=0, max_iter=9)
        curves = []
        network.set_params(
            callbacks=[
                lambda record: curves.append(len(network.loss_curve_)) or record["epoch"] == 6
            ]
        )
        network.fit(X_IRIS, Y_IRIS)
        assert curves == [1, 2, 3, 4, 5, 6]
        assert network.n_iter_ == 6

    def test_a_search_whose_networks_leave_at_different_times(self, monkeypatch):
        grid = {
            "tol": [1e-4, 0.02, 1.0],
            "n_iter_no_change": [1, 4],
            "learning_rate_init": [0.1, 0.01],
        }
        found = []
        for ahead in (0.0, training.AHEAD):
            monkeypatch.setattr(training, "AHEAD", ahead)
            search = GridSearchCV(MLPClassifier((5,), random_state=0, max_iter=40), grid, cv=3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                search.fit(X_IRIS, Y_IRIS)
            found.append(search)
        curves = [
            {
                (c["candidate"], c["split"]): c["loss_curve"].tolist()
                for c in search.learning_curves_
            }
            for search in found
        ]
        assert curves[0] == curves[1]
        scores = [search.cv_results_["mean_test_score"] for search in found]
        np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("own", [False, True], ids=["the same examples", "their own"])
def test_stacks_on_every_backend(backend, own):
    found = []
    for at_once in (1, 4):
        random = np.random.RandomState(0)
        members = [
            Member(
                backend.asarray(random.normal(size=ARCHITECTURE.n_parameters)), optimizers.Adam(),
                np.random.RandomState(seed if own else 0), np.arange(150), l2=0.1 * seed,
                learning_rate=0.01,
            )
            for seed in range(3)
        ]  # fmt: skip
        x, y = (backend.asarray(array).T for array in (X_IRIS, TARGETS))
        with backend.active():
            stack = Stack(ARCHITECTURE, x, y, members, backend=backend, batch_size=32)
            costs = []
            while len(costs) < 8:
                costs += stack.run_ahead(at_once)
            found.append([backend.to_host(array) for array in (stack.theta, *stack.slots, *costs)])
        assert stack.step == 8 * stack.steps
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


TABLE = np.column_stack([X_IRIS, Y_IRIS]).astype("float32")


class TestWithoutPython:
    """What people give is replayed where numba is installed."""

    @pytest.fixture
    def replayed(self, monkeypatch):
        """Return the list of what is replayed."""
        pytest.importorskip("numba", reason="numba isn't installed")
        from gpunet.backends.numba_program import Programs

        monkeypatch.setenv("GPUNET_NUMBA", "1")
        found, function = [], Programs.replayed
        monkeypatch.setattr(
            Programs, "replayed", lambda *args: found.append(function(*args)) or found[-1]
        )
        return found

    @pytest.mark.parametrize(
        "X",
        [
            X_IRIS, np.asfortranarray(X_IRIS), TABLE[:, :4], pd.DataFrame(TABLE[:, :4]),
            pl.DataFrame(TABLE[:, :4]), np.repeat(X_IRIS, 2, axis=0)[::2], X_IRIS.tolist(),
        ],
        ids=["rows", "columns", "a part", "pandas", "polars", "every other", "lists"],
    )  # fmt: skip
    @pytest.mark.parametrize("network", [MLPClassifier, MLPRegressor])
    def test_data_in_any_order(self, X, network, replayed):
        y = Y_IRIS if network is MLPClassifier else TABLE[:, 4]
        settings = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            curve = network(**settings).fit(X, y).loss_curve_
            expected = network(**settings).fit(np.ascontiguousarray(X), y.copy()).loss_curve_
        assert len(replayed) == 2
        assert None not in replayed
        np.testing.assert_allclose(curve, expected, rtol=1e-6)

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"loss": "huber"},
            {"loss": "absolute_error"},
            {"loss": "quantile"},
            {"solver": "sgd"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("outputs", [1, 2])
    def test_regressions(self, settings, outputs, replayed):
        y = X_IRIS[:, 0] if outputs == 1 else X_IRIS[:, :outputs]
        if settings.get("loss") == "quantile" and outputs == 2:
            pytest.skip("quantiles are of one output")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MLPRegressor(hidden_layer_sizes=(5,), max_iter=4, **settings).fit(X_IRIS, y)
        assert len(replayed) == 1
        assert None not in replayed
