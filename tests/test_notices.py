"""Warnings point at the line that calls gpunet, whatever lies between."""

import linecache
import signal
import warnings

import pytest
from search_helpers import GRID, X_IRIS, Y_IRIS, classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV as TheirGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpunet import EnsembleClassifier, GridSearchCV, Network, TrainingInterruptedWarning
from gpunet.estimators.stacked import StackedFit

pytestmark = pytest.mark.usefixtures("on_numpy")


def check(caught, category):
    """Check that warnings of a category were caught, all of them of a line of this file that fits."""
    found = [warning for warning in caught if warning.category is category]
    assert found
    for warning in found:
        assert warning.filename == __file__
        assert "fit(X_IRIS" in linecache.getline(__file__, warning.lineno)


@pytest.mark.parametrize(
    "estimator",
    [
        classifier(),
        make_pipeline(StandardScaler(), classifier()),
        EnsembleClassifier(classifier(), 2),
        GridSearchCV(classifier(), GRID, cv=2, refit=False),
        GridSearchCV(classifier(callbacks=[print]), GRID, cv=2),  # trained singly
        GridSearchCV(make_pipeline(classifier()), {"memory": [None]}, cv=2),
        GridSearchCV(make_pipeline(classifier(), verbose=True), {"memory": [None]}, cv=2),  # by scikit-learn
        TheirGridSearchCV(classifier(), GRID, cv=2),
    ],
)  # fmt: skip
def test_of_convergence(estimator):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X_IRIS, Y_IRIS)
    check(caught, ConvergenceWarning)


def test_of_short_memory(monkeypatch):
    run = StackedFit.run

    def short(self, *arguments):
        if len(self._prepared) > 2:
            raise MemoryError
        return run(self, *arguments)

    monkeypatch.setattr(StackedFit, "run", short)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()  # a user sees it without asking for it
        GridSearchCV(classifier(), GRID, cv=2).fit(X_IRIS, Y_IRIS)
    check(caught, RuntimeWarning)


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_of_ctrl_c(n_jobs):
    def press(estimator, X, y):
        if not pressed:
            pressed.append(signal.raise_signal(signal.SIGINT))
        return 1.0

    pressed = []
    search = GridSearchCV(classifier(), GRID, cv=2, scoring=press, stack_size=2, n_jobs=n_jobs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(X_IRIS, Y_IRIS)
    check(caught, TrainingInterruptedWarning)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_of_ctrl_c_while_a_network_is_trained(optimizer):
    def press(record):
        signal.raise_signal(signal.SIGINT)

    network = Network([4, 3], loss="softmax_cross_entropy", seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network.fit(X_IRIS, Y_IRIS, optimizer=optimizer, callbacks=[press])
    check(caught, TrainingInterruptedWarning)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_of_short_memory_for_a_network(optimizer, monkeypatch):
    def short(step):
        def run(*_):
            raise MemoryError

        return run

    network = Network([4, 3], loss="softmax_cross_entropy", seed=0)
    monkeypatch.setattr(network.backend, "compile", short)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        network.fit(X_IRIS, Y_IRIS, optimizer=optimizer, epochs=2)
    check(caught, RuntimeWarning)
