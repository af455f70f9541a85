import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / "scripts" / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture
def quickly():
    from _race.rounds import Pace

    return Pace(rounds=1, seconds=1e-3, pause=0.0, patience=0)


def test_a_race_runs_and_is_written_down(tmp_path):
    command = [sys.executable, str(BENCH / "train"), "--only", "W4", "--dtype", "float64"]
    command += ["--against", "scikit-learn", "matrix products", "--rounds", "1", "--quick"]
    command += ["--seconds", "0.01", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "train.json").read_text())
    assert report["training"][0]["measured"]["rounds"] == 1
    rows = report["training"][0]["rows"]
    assert set(rows) == {"gpunet", "scikit-learn", "matrix products"}
    assert all(row["median"] > 0 for row in rows.values())
    assert rows["gpunet"]["ratio"] == 1
    assert max(rows["gpunet"]["deviations"]) < 1e-10
    assert "openblas" in report["environment"]["threads of gpunet"] or sys.platform != "linux"
    assert "| scikit-learn |" in (tmp_path / "train.md").read_text()
    assert (tmp_path / "train.png").stat().st_size > 0


def test_training_predictions_and_fixed_cost_are_measured_in_one_process_each(quickly):
    from _contestants.workloads import W1
    from _race import measures, report
    from _race.rounds import Race

    small = replace(W1, n=400, d=4, hidden=(5,), classes=3)
    with Race(["gpunet", "scikit-learn", "matrix products"], quickly) as race:
        trained = measures.training(race, small)
        race.dismiss("matrix products")
        calls = [measures.prediction(race, 2, "float32"), measures.fixed_cost(race, "float32")]
    assert max(trained["rows"]["gpunet"]["deviations"]) < 1e-4
    assert max(trained["rounding"]) < 1e-4
    assert not any("NOT THE SAME" in words for words in report.agreement(trained))
    for result in calls:
        assert set(result["rows"]) == {"gpunet", "scikit-learn"}
        assert all(row["median"] > 0 for row in result["rows"].values())


def test_the_first_use_of_numba_is_measured_with_an_empty_cache_and_with_a_full_one(quickly):
    from _contestants.workloads import W1
    from _race.first_use import first_use
    from _race.report import FIRST_USE, Sheet

    pytest.importorskip("numba")
    small = replace(W1, n=400, d=4, hidden=(5,), classes=3)
    result = first_use(["gpunet, numba", "scikit-learn"], quickly, small)
    rows = result["rows"]
    assert list(rows) == ["gpunet, numba, cold", "gpunet, numba, cached"]
    assert all(row["load"] > 0 and row["again"] > 0 for row in rows.values())
    assert len(Sheet.of(result, FIRST_USE).rows) == 2


def test_imports_are_measured_with_the_memory_of_the_program_itself(quickly, monkeypatch):
    from _race import measures

    commands = {"Python itself": "pass", "gpunet": "import json", "absent": "import absent_library"}
    monkeypatch.setattr(measures, "IMPORTS", commands)
    result = measures.imports(quickly)
    assert set(result["rows"]) == {"Python itself", "gpunet"}
    if sys.platform == "linux":
        assert 1 < result["rows"]["Python itself"]["memory"] < 30  # not that of this process
    assert "absent_library" in result["absent"]["absent"]


def test_a_ladder_is_climbed(quickly):
    from _contestants.workloads import W1
    from _race.growth import Ladder, climb

    small = replace(W1, d=4, hidden=(5,), classes=3, batch=10)
    ladder = Ladder("examples", "small", (20, 40), lambda n: replace(small, n=n))
    found = climb(["gpunet"], quickly, ladder, longest=60, megabytes=10_000)
    assert found["curves"]["gpunet"]["sizes"] == [20, 40]
    assert found["absent"] == {}


def test_memory_grows_by_what_the_first_rung_does_not_hold():
    from _race.growth import expected

    assert expected([300.0], 100) == 300
    assert expected([300.0, 310.0], 4) == 340


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (None, "estimators:GpunetNumPy"),
        ("torch", "torch_loops:Torch"),
        ("torch", "torch_loops:TorchByHand"),
        ("jax", "jax_loops:Scan"),
        ("jax", "jax_loops:Step"),
        ("skorch", "wrappers:Skorch"),
        ("thinc", "wrappers:Thinc"),
    ],
)
def test_contestants_learn_what_scikit_learn_learns(monkeypatch, module, name):
    import importlib

    from _contestants.estimators import ScikitLearn
    from _contestants.workloads import W1, examples, loss

    if module is not None:
        pytest.importorskip(module)
    room, _, kind = name.partition(":")
    small = replace(W1, n=50, d=4, hidden=(5,), classes=3, batch=16)  # and 2 examples in the last
    losses = []
    for contestant in (ScikitLearn, getattr(importlib.import_module(f"_contestants.{room}"), kind)):
        running = contestant(small, *examples(small))
        running.fit(3)
        losses.append(loss(small, running.parameters()))
        assert running.predict(examples(small)[0]).shape == (50,)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["Torch", "TorchLBFGS"])
def test_lbfgs_in_torch_reaches_what_scikit_learn_reaches(monkeypatch, name, dtype):
    pytest.importorskip("torch")
    from _contestants import torch_lbfgs, torch_loops
    from _contestants.estimators import ScikitLearn
    from _contestants.workloads import W4_LBFGS, examples, loss

    monkeypatch.setattr(torch_lbfgs, "use_one_thread", lambda: None)  # this process has other tests
    workload = W4_LBFGS.of(dtype)
    losses = []
    for contestant in (ScikitLearn, getattr(torch_loops, name)):
        running = contestant(workload, *examples(workload))
        running.fit(10)
        losses.append(loss(workload, running.parameters()))
    close = 1e-4 if name == "Torch" else 1e-2  # another line search
    assert losses[1] == pytest.approx(losses[0], rel=close)


def test_a_part_measured_anew_replaces_only_itself_and_others_say_what_was_other_then(tmp_path):
    from _race.report import Sheet, merged

    then = {
        "environment": {"gpunet": "old", "processor": "slow", "system": "same"},
        "training": [
            {"title": "W1", "measured": {"processor": "older", "date": "1 May"}},
            {"title": "W2"},
            {"title": "W3", "measured": {"rounds": 7}},
        ],
    }
    now = {
        "environment": {"gpunet": "new", "processor": "fast", "system": "same"},
        "training": [{"title": "W2", "measured": {"gpunet": "new"}}],
    }
    assert merged(now, tmp_path, "train") == now
    (tmp_path / "train.json").write_text(json.dumps(then))
    found = merged(now, tmp_path, "train")["training"]
    assert found == [
        {"title": "W1", "measured": {"gpunet": "old", "processor": "older", "date": "1 May"}},
        {"title": "W2", "measured": {"gpunet": "new"}},
        {"title": "W3", "measured": {"gpunet": "old", "processor": "slow", "rounds": 7}},
    ]
    sheet = Sheet.of({**found[2], "rows": {}, "absent": {}}, {})
    assert sheet.notes == ["gpunet: old", "processor: slow", "rounds: 7"]


def test_losses_that_differ_by_more_than_rounding_are_told():
    from _race.report import agreement

    def told(dtype, rounding, **deviations):
        rows = {"scikit-learn": {"deviations": [0.0, 0.0]}}
        rows |= {name: {"deviations": each} for name, each in deviations.items()}
        result = {"rows": rows, "rounding": rounding, "workload": {"dtype": dtype}}
        return [words for words in agreement(result) if words.startswith("NOT")]

    assert told("float64", None, gpunet=[1e-9, 0.0])
    assert not told("float64", None, gpunet=[1e-14, 1e-12])
    assert not told("float64", None, skorch=[1e-6, 1e-5])
    assert told("float64", None, skorch=[1e-3, 1e-3])
    assert not told("float32", [1e-7, 1e-3], gpunet=[1e-6, 5e-3])  # units tip over
    assert told("float32", [1e-7, 1e-7], gpunet=[1e-3, 1e-3])


def test_ratios_to_numpy_alone_and_with_numba_are_medians_of_a_rounds():
    from _race.report import beside_numba

    trials = {
        "gpunet": [4.0, 4.0, 8.0],
        "gpunet, numba": [1.0, 2.0, 2.0],
        "scikit-learn": [8.0, 8.0, 8.0],
    }
    rows = {
        name: {"trials": each, "median": sorted(each)[1], "of the products": 0.5}
        for name, each in trials.items()
    }
    sheet = beside_numba([{"title": "W1", "rows": rows}])
    assert sheet.rows == [["W1", "4", "2", "2.00 / 4.00", "–", "–", "–", "–", "50 / 50"]]
    del rows["gpunet, numba"]
    assert beside_numba([{"title": "W1", "rows": rows}]) is None


def test_the_reported_loss_is_scikit_learns():
    from _contestants.workloads import W1, examples, initial, loss
    from sklearn.metrics import log_loss

    small = replace(W1, n=50, d=4, hidden=(5,), classes=3, dtype="float64")
    X, y = examples(small)
    (V, b), (W, c) = initial(small)
    z = np.maximum(X @ V + b, 0) @ W + c
    expected = log_loss(y, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))
    assert loss(small, initial(small)) == pytest.approx(expected)


def test_ratios_are_those_within_a_round():
    from _race.rounds import summary

    # the machine was twice as slow in the second round
    rows = summary({"gpunet": [1.0, 2.0, 1.0], "other": [3.0, 6.0, 3.0]}, "gpunet")
    assert rows["other"]["ratio"] == 3
    assert rows["other"]["median"] == 3


def test_a_backend_is_beside_the_fastest_loop_in_its_library():
    from _race.report import beside_peers

    medians = {"gpunet": 1, "gpunet, torch": 3, "torch": 6, "torch, by hand": 4, "gpunet, JAX": 2}
    rows = {name: {"median": us, "trials": [us, us]} for name, us in medians.items()}
    sheet = beside_peers([{"title": "W1 float32", "rows": rows}])
    expected = ["gpunet, torch", "W1 float32", "3", "torch, by hand", "4", "0.75"]
    assert sheet.rows == [expected]  # nobody ran beside gpunet on JAX
    assert beside_peers([]) is None


def test_the_exponent_is_that_of_the_upper_half():
    from _race.growth import exponent

    sizes = [1, 10, 100, 1000, 10_000]
    assert exponent(sizes, [7, 7, 1e4, 1e6, 1e8]) == pytest.approx(2)
    assert exponent([1], [1]) is None


def test_a_ladder_ends_where_it_is_too_dear():
    from _race.report import climbed

    curve = {"sizes": [1, 2], "seconds": [0.5, 1.0], "exponent": 1.0}
    ladder = {
        "title": "width", "about": "…", "sizes": [1, 2, 4], "operations": [1e9, 2e9, 4e9],
        "exponent": 1.0, "curves": {"gpunet": curve}, "absent": {"gpunet": "ended at 2"},
    }  # fmt: skip
    sheet = climbed(ladder)
    assert [row[-1] for row in sheet.rows] == ["0.5", "1", "–", "1.00"]
    assert sheet.notes == ["gpunet: ended at 2"]
    assert math.isclose(float(sheet.rows[2][1]), 4)
