"""scripts/bench/search: that its contestants answer alike, and that its report is written."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts" / "bench")
    monkeypatch.setenv("GPUNET_BACKEND", "numpy")


@pytest.fixture
def tiny():
    from _search.workloads import Workload

    candidates = tuple(itertools.product((1e-4, 10.0), (1e-3, 3e-2)))
    return Workload("tiny", 90, 5, 3, (4,), 16, candidates, epochs=3)  # a rest of 12


@pytest.fixture
def reference(tiny):
    """Scores and losses of scikit-learn's networks, fitted here one by one."""
    from sklearn.base import clone
    from sklearn.neural_network import MLPClassifier

    X, y = tiny.data()
    scores, curves = [], []
    for alpha, rate in tiny.candidates:
        network = MLPClassifier(**tiny.network, alpha=alpha, learning_rate_init=rate)
        for train, test in tiny.splits(X, y):
            fit = clone(network).fit(X[train], y[train])
            scores.append(fit.score(X[test], y[test]))
            curves.append(fit.loss_curve_)
    scores = np.reshape(scores, (len(tiny.candidates), tiny.folds))
    return scores.mean(axis=1), np.reshape(curves, (*scores.shape, tiny.epochs))


def test_jax_trains_scikit_learns_networks(tiny, reference):
    pytest.importorskip("jax", reason="JAX isn't installed")
    from _search.jax_peer import peer
    from _search.peers import search

    scores, curves = search(tiny, peer, size=6, threads=2)
    np.testing.assert_allclose(curves, reference[1], rtol=1e-4)
    np.testing.assert_allclose(scores, reference[0], atol=1 / 30)


def test_torch_trains_scikit_learns_networks(tiny, reference):
    torch = pytest.importorskip("torch", reason="PyTorch isn't installed")
    from _search.peers import search
    from _search.torch_peer import peer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait long for one another where other tests run beside them
    try:
        scores, curves = search(tiny, peer, size=12, threads=1)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(curves, reference[1], rtol=1e-4)
    np.testing.assert_allclose(scores, reference[0], atol=1 / 30)


def test_a_visit_is_a_process_that_times_and_answers(tiny, reference):
    from _search.rounds import Course, Thoroughness

    course = Course(Thoroughness(pause=0.0))
    (answer,) = course.visit("gpunet", [{"workload": tiny.plain()}], trials=1)
    assert answer["first"] > 0
    assert len(answer["seconds"]) == 1
    np.testing.assert_allclose(answer["curves"], reference[1], rtol=1e-4)
    assert course.libraries["gpunet"]


def test_a_contestant_that_fails_says_why(tiny):
    from _search.rounds import Course, Thoroughness

    broken = replace(tiny, hidden=(-1,))
    with pytest.raises(RuntimeError, match=r"gpunet has failed:(.|\n)*hidden_layer_sizes"):
        Course(Thoroughness(pause=0.0)).visit("gpunet", [{"workload": broken.plain()}], trials=1)


def row(seconds, **options):
    agreement = {"scores": 0.0, "losses": 1e-6, "first": 1e-7, "same": 1.0}
    return {
        "seconds": [seconds] * 3, "median": seconds, "first": 2 * seconds, "ratio": 3 / seconds,
        "options": options, "agreement": agreement,
    }  # fmt: skip


def test_the_report(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
    from _search import report
    from _search.rounds import environment

    about = {
        "environment": environment(),
        "libraries": {"gpunet": []},
        "busy_elsewhere": [0.01, 0.02],
    }
    rows = {"scikit-learn": row(3.0), "JAX": row(0.2, size=12, threads=2), "gpunet": row(0.5)}
    seconds = {"gpunet": {"1": 0.1, "10": 0.2}, "scikit-learn": {"1": 0.1}}
    sections = {
        "A": {"workload": "24 candidates", "rows": rows, "rounding": rows["JAX"]["agreement"]}
        | about,
        "growth B": {"workload": "600 examples; hidden", "folds": 3, "seconds": seconds}
        | {"stack_bytes": 2**21, **about},
    }
    text = report.markdown(sections)
    lines = [line for line in text.splitlines() if line.startswith("| JAX, stacks of 12, 2")]
    assert lines == [
        "| JAX, stacks of 12, 2 at once | 0.200 | 0.200 to 0.200 | 0.40 | 15.00 | 100 % |"
    ]
    assert text.index("| JAX") < text.index("| **gpunet**") < text.index("| scikit-learn")
    assert "| 10 | 30 | 0.200 | 6.67 | 0.30 | |  |" in text
    assert "DIFFER" not in text
    rows["JAX"]["agreement"] |= {"first": 0.01}
    assert "**JAX: THE ANSWERS DIFFER.**" in report.markdown(sections)
    report.draw(sections, tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 1000
