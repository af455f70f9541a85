"""An estimator's history, and callbacks: functions and scikit-learn's."""

import numpy as np
import pytest
from estimator_helpers import (
    X_DIABETES,
    X_IRIS,
    Y_DIABETES,
    Y_IRIS,
    assert_same,
    classifier,
    regressor,
)

from gpunet.estimators import perceptron

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestHistory:
    def test_by_default(self):
        ours = classifier(max_iter=4).fit(X_IRIS, Y_IRIS)
        assert [record["epoch"] for record in ours.history_] == [1, 2, 3, 4]
        assert [record["loss"] for record in ours.history_] == ours.loss_curve_
        assert {record["learning_rate"] for record in ours.history_} == {0.001}
        seconds = [record["seconds"] for record in ours.history_]
        assert seconds == sorted(seconds)
        assert set(ours.history_[0]) == {"epoch", "loss", "learning_rate", "seconds"}
        ours.partial_fit(X_IRIS, Y_IRIS)
        assert ours.history_[-1]["epoch"] == 5
        assert ours.history_[-1]["seconds"] > seconds[-1]
        assert len(ours.fit(X_IRIS, Y_IRIS).history_) == 4

    def test_an_adaptive_rate(self):
        ours = classifier(
            solver="sgd", learning_rate="adaptive", tol=10.0, n_iter_no_change=1, max_iter=5
        ).fit(X_IRIS, Y_IRIS)
        rates = [record["learning_rate"] for record in ours.history_]
        np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-3, 2e-4, 2e-4])

    @pytest.mark.parametrize("early_stopping", [True, False])
    def test_tracked_scores(self, early_stopping):
        ours = regressor(track_scores=True, early_stopping=early_stopping, max_iter=3, alpha=0.0)
        ours.fit(X_DIABETES, Y_DIABETES, X_val=X_DIABETES[:90], y_val=Y_DIABETES[:90])
        expected = {"score", "validation_score", "validation_loss"}
        assert expected <= set(ours.history_[-1])
        best = max(ours.history_, key=lambda record: record["validation_score"])
        last = best if early_stopping else ours.history_[-1]
        error = ours.predict(X_DIABETES[:90]) - Y_DIABETES[:90]
        assert last["validation_loss"] == pytest.approx(np.mean(error**2) / 2)
        assert last["score"] == pytest.approx(ours.score(X_DIABETES, Y_DIABETES))

    def test_tracked_without_validation_data_and_with_a_split(self):
        ours = classifier(track_scores=True, max_iter=3).fit(X_IRIS, Y_IRIS)
        assert ours.history_[-1]["score"] == pytest.approx(ours.score(X_IRIS, Y_IRIS))
        assert "validation_loss" not in ours.history_[-1]
        ours.set_params(early_stopping=True).fit(X_IRIS, Y_IRIS)
        assert 0 <= ours.history_[-1]["score"] <= 1
        assert ours.history_[-1]["validation_loss"] > 0

    def test_lbfgs(self):
        ours = classifier(solver="lbfgs", max_iter=6, track_scores=True).fit(X_IRIS, Y_IRIS)
        assert len(ours.history_) == ours.n_iter_ == 6
        assert ours.history_[-1]["loss"] == ours.loss_
        assert ours.history_[-1]["score"] == pytest.approx(ours.score(X_IRIS, Y_IRIS))


class TestCallbacks:
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_functions_see_each_record_and_may_stop(self, solver):
        seen = []

        def stop_at_three(record):
            seen.append(record)
            return record["epoch"] == 3

        told = []
        ours = classifier(solver=solver, callbacks=[stop_at_three, told.append])
        ours.fit(X_IRIS, Y_IRIS)
        assert ours.n_iter_ == 3
        assert seen == told == ours.history_

    @pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_a_wish_is_no_failure(self, solver):
        classifier(solver=solver, callbacks=(lambda record: True,)).fit(X_IRIS, Y_IRIS)

    def test_what_is_no_function(self):
        with pytest.raises(TypeError, match=r"callbacks are functions.*set_callbacks"):
            classifier(callbacks=["bar"]).fit(X_IRIS, Y_IRIS)


class Recorder:
    """A callback of scikit-learn's protocol."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.calls = []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        self.calls.append(("begin", context.task_name, context.task_id))
        assert X is not None

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        proba = fitted_estimator.predict_proba(X)
        self.calls.append(("end", context.task_name, context.task_id, proba))
        return context.task_id == self.stop_at

    def teardown(self, estimator, context):
        self.calls.append("teardown")


class TestScikitLearnsCallbacks:
    @pytest.fixture(autouse=True)
    def there(self):
        pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")

    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_each_epoch_is_a_task(self, backend, solver):
        recorder = Recorder()
        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        ours = classifier(max_iter=3, solver=solver).set_callbacks(recorder).fit(X, y)
        names = [call if isinstance(call, str) else call[:3] for call in recorder.calls]
        epochs = [(what, "epoch", i) for i in range(3) for what in ("begin", "end")]
        root = ("fit", 0)
        assert names == ["setup", ("begin", *root), *epochs, ("end", *root), "teardown"]
        last, fitted = recorder.calls[-3][3], ours.predict_proba(X)
        np.testing.assert_allclose(backend.to_host(last), backend.to_host(fitted), atol=1e-12)

    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_a_wish_to_stop(self, solver):
        ours = classifier(solver=solver).set_callbacks(Recorder(stop_at=1)).fit(X_IRIS, Y_IRIS)
        assert ours.n_iter_ == 2

    def test_the_shipped_ones(self, capsys):
        from sklearn.callback import ProgressBar, ScoringMonitor

        monitor = ScoringMonitor(scoring="accuracy")
        ours = classifier(max_iter=4).set_callbacks(ProgressBar(), monitor).fit(X_IRIS, Y_IRIS)
        assert "MLPClassifier" in capsys.readouterr().out
        assert_same(ours, classifier(max_iter=4).fit(X_IRIS, Y_IRIS))

    def test_lbfgs_begins_before_it_works(self, monkeypatch):
        """Each iteration's evaluations lie between its begin and its end."""
        recorder, told = Recorder(), []
        cost_function = perceptron.cost_function

        def watched(*arguments):
            cost = cost_function(*arguments)

            def cost_at(x):
                told.append([call[0] for call in recorder.calls if "epoch" in call][-1])
                return cost(x)

            return cost_at

        monkeypatch.setattr(perceptron, "cost_function", watched)
        ours = classifier(solver="lbfgs", max_iter=200, alpha=10.0)
        ours.set_callbacks(recorder).fit(X_IRIS, Y_IRIS)
        assert ours.n_iter_ < 200  # it converged
        assert set(told) == {"begin"}
        begun = [call[2] for call in recorder.calls if call[:2] == ("begin", "epoch")]
        ended = [call[2] for call in recorder.calls if call[:2] == ("end", "epoch")]
        assert begun == ended == list(range(ours.n_iter_))

    def test_what_began_ends_where_lbfgs_is_cut_short(self):
        recorder = Recorder()
        ours = classifier(solver="lbfgs", max_fun=1, max_iter=50).set_callbacks(recorder)
        ours.fit(X_IRIS, Y_IRIS)
        begun, ended = (
            [call[1:3] for call in recorder.calls if call[0] == what] for what in ("begin", "end")
        )
        assert sorted(begun) == sorted(ended)

    def test_partial_fit_is_no_fit(self):
        recorder = Recorder()
        classifier().set_callbacks(recorder).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
        assert recorder.calls == []
