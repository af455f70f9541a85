"""What a search says while it runs: printed lines, scikit-learn's callbacks, the progress bar."""

import re

import numpy as np
import pytest
from scipy.sparse import csr_array
from search_helpers import GRID, X_IRIS, Y_IRIS, classifier
from sklearn import model_selection

from gpunet import GridSearchCV
from gpunet.estimators import together
from gpunet.search.bar import SearchBar, search_bar

pytestmark = [
    pytest.mark.usefixtures("on_numpy"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


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

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
    @pytest.mark.filterwarnings("ignore:One or more of the:UserWarning")
    @pytest.mark.parametrize(
        ("grid", "of", "said"),
        [
            ({"alpha": [1.0, -1.0], "dropout": [0.1, 2.0]}, np.asarray,
             "2 networks are trained in stacks, 6 one by one (parameters that fit refuses: 6)."),
            ({"hidden_layer_sizes": [(4,), 3.5], "solver": ["adam", "lbfgs"]}, np.asarray,
             "2 networks are trained in stacks, 6 one by one (solver='lbfgs' takes all examples at once: 4, "
             "parameters that fit refuses: 2)."),
            (GRID, csr_array, "0 networks are trained in stacks, 8 one by one (sparse examples: 8)."),
        ],
    )  # fmt: skip
    def test_what_stacks_refuse_isnt_counted_in_them(self, grid, of, said, capsys):
        GridSearchCV(classifier(), grid, cv=2, verbose=1).fit(of(X_IRIS), Y_IRIS)
        assert capsys.readouterr().out.splitlines()[-1] == said


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
