"""The scripts that wait for a GPU: what they say without one, and whether the benchmark works at all."""

import json
import os
import subprocess
import sys
import time
import warnings
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest
from gpunet.backends.cupy import CuPyBackend

from gpunet import MLPClassifier
from gpunet.backend import BackendUnavailableError, get_backend

SCRIPTS = Path(__file__).parent.parent / "scripts"


def run(*words):
    """Run a script; return how it ended."""
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def module_of(script):
    loader = SourceFileLoader(script.name.replace("-", "_"), str(script))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class TestParts:
    check = module_of(SCRIPTS / "gpu-check")

    def spent(self, takes):
        """Return what each part gets, where each takes a part's share of it, and all of them together."""
        left, got, parts = self.check.TOTAL, {}, [*self.check.LIMITS]
        for number, part in enumerate(parts):
            got[part] = self.check.share(part, parts[number + 1 :], left)
            left -= got[part] * takes
        return got, self.check.TOTAL - left

    def test_every_part_gets_its_time_whatever_those_before_it_take(self):
        for takes in (1.0, 0.5, 0.1):
            got, total = self.spent(takes)
            assert total <= self.check.TOTAL
            assert all(got[part] >= least for part, (least, _) in self.check.LIMITS.items())
            assert all(got[part] <= most for part, (_, most) in self.check.LIMITS.items())

    def test_with_less_time_all_have_less(self):
        later = [*self.check.LIMITS][1:]
        assert self.check.share("report", later, 120, total=120) >= self.check.LEAST
        assert self.check.share("suite", [], 40, total=120) == 40

    def test_the_benchmark_knows_how_long_it_has(self):
        assert self.check.commands("bench", 145.0)[-2:] == ["--seconds", "135"]

    def test_a_part_that_takes_too_long_ends_with_all_it_has_started(self, monkeypatch):
        """Whoever is left would hold the pipe open."""
        monkeypatch.setattr(
            self.check,
            "commands",
            lambda part, seconds: ["sh", "-c", "echo begun; sleep 60 & wait"],
        )
        start = time.monotonic()
        state, words, lines = self.check.run("memory", 1.0)
        assert time.monotonic() - start < 30
        assert (state, words) == ("failed", "not within 1 s; last: begun")
        assert lines == ["begun"]

    @pytest.mark.parametrize(
        ("said", "quiet", "state", "words"),
        [
            ("a::b PASSED [ 1%]\na::c SKIPPED [ 2%]", 600, "unfinished", "1 passed, 0 failed; a::c SKIPPED [ 2%]"),
            ("[gw0] [ 1%] PASSED a::b", 600, "unfinished", "1 passed, 0 failed; [gw0] [ 1%] PASSED a::b"),
            ("[gw0] [ 1%] PASSED a::b\n[gw1] [ 2%] FAILED a::c\nd", 600, "failed", "1 passed, 1 failed; d"),
            ("collecting", 600, "failed", "0 passed, 0 failed; collecting"),
            ("a::b PASSED [ 1%]", 0, "failed", "a::b PASSED [ 1%]"),  # it hangs
        ],
    )  # fmt: skip
    def test_tests_may_be_unfinished(self, said, quiet, state, words, monkeypatch):
        monkeypatch.setattr(self.check, "QUIET", quiet)
        monkeypatch.setattr(
            self.check, "commands", lambda *_: ["sh", "-c", 'printf "%s\n" "$0"; sleep 60', said]
        )
        monkeypatch.setattr(self.check, "missing", lambda: None)
        found, told, _ = self.check.run("suite", 1.0)
        assert (found, told) == (state, f"not within 1 s; last: {words}")
        monkeypatch.setattr(self.check.sys, "argv", ["gpu-check", "suite"])
        monkeypatch.setattr(self.check, "run", lambda *_: (found, told, []))
        assert self.check.main() == (state == "failed")

    @pytest.mark.parametrize("part", ["kernels", "suite"])
    def test_tests_are_those_that_run_on_the_device(self, part):
        """Of some files, without a GPU to run them on."""
        words = self.check.commands(part, 60)[1:]
        if part == "suite":
            words += [
                "tests/test_together.py",
                "tests/test_loss_scaling.py",
                "tests/test_dlpack.py",
            ]
        done = run(*words, "--collect-only", "-q", "-q", "-n", "0")
        found = [line for line in done.stdout.splitlines() if "::" in line]
        files = {line.partition("::")[0] for line in found}
        assert files == ({*self.check.TESTED} if part == "kernels" else {*words[-3:]})
        assert all("cupy" in line.rpartition("::")[2] for line in found)
        assert not any("test_cupy_has" in line or "::TestOnCuPy" in line for line in found)

    def test_no_variable_says_how_it_is_computed(self, monkeypatch):
        monkeypatch.setenv("GPUNET_RESIDENT", "0")
        monkeypatch.setenv("GPUNET_GRAPHS", "0")
        monkeypatch.setattr(self.check, "commands", lambda *_: ["env"])
        _, _, lines = self.check.run("memory", 60)
        assert "OMP_NUM_THREADS=1" in lines
        assert not any(line.startswith("GPUNET_") for line in lines)

    def test_it_goes_on_where_gpunet_is_installed(self, tmp_path, monkeypatch):
        started = []
        monkeypatch.setattr(self.check.os, "execv", lambda *words: started.append(words))
        monkeypatch.setattr(self.check.sys, "argv", ["gpu-check", "kernels"])
        monkeypatch.setattr(self.check, "ROOT", tmp_path)
        python = tmp_path / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        monkeypatch.setattr(self.check, "find_spec", lambda name: None)
        self.check.at_home()  # there is none to go to
        python.touch()
        monkeypatch.setattr(self.check, "find_spec", lambda name: name)
        self.check.at_home()  # it is here
        assert started == []
        monkeypatch.setattr(self.check, "find_spec", lambda name: None)
        self.check.at_home()
        assert started == [(python, [str(python), "gpu-check", "kernels"])]

    def test_what_the_parts_say_is_written(self, tmp_path):
        states = {"report": ("passed", 12.3, "compiled"), "graphs": ("skipped", 0.0, "no reason")}
        said = {"report": ["device: A Device", "compiled"], "graphs": []}
        text = self.check.write(tmp_path, states, said).read_text()
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["gpu-check-a-device.json", "gpu-check-a-device.md"]
        found = json.loads((tmp_path / names[0]).read_text())
        assert found["device"] == "A Device"
        assert found["parts"]["report"] == {
            "state": "passed", "seconds": 12.3, "last": "compiled", "lines": said["report"],
        }  # fmt: skip
        assert "\nreport     passed           12  compiled\n" in text
        assert "\n## report\n\n```\ndevice: A Device\ncompiled\n```\n" in text
        assert "## graphs" not in text


@pytest.mark.parametrize(
    "script", [SCRIPTS / "gpu-check", SCRIPTS / "bench" / "gpu"], ids=["gpu-check", "bench/gpu"]
)
def test_without_a_gpu_they_say_so_and_fail(script):
    try:
        get_backend("cupy")
        pytest.skip("a GPU is here")
    except BackendUnavailableError:
        pass
    done = run(script)
    assert done.returncode == 2
    assert done.stderr.startswith("No GPU")
    assert "cupy isn't installed" in done.stderr or "driver" in done.stderr
    assert f"To install it: {CuPyBackend.install}" in done.stderr


def test_an_unknown_part_is_refused():
    done = run(SCRIPTS / "gpu-check", "benchmark")
    assert done.returncode == 2
    assert "'benchmark' is none of report" in done.stderr


def test_graphs_are_compared_with_launches():
    """On the processor there are none: the comparison itself works, and both ways give the same."""
    done = run(SCRIPTS / "gpu-check", "--inside", "graphs", "--dry-run")
    assert done.returncode == 0, done.stderr
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["W1", "W2", "72 of W1"]
    assert done.stdout.count("no graphs; ") == 3
    assert done.stdout.count("parameters lie 0.0e+00 and 0.0e+00 apart") == 3


def test_the_chip_is_compared_with_graphs():
    done = run(SCRIPTS / "gpu-check", "--inside", "chip", "--dry-run")
    assert done.returncode == 0, done.stderr
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["small", "1000 of small", "W1", "72 of W1", "1000 of W1"]
    assert done.stdout.count("parameters lie 0.0e+00 apart") == 5


def test_a_thousand_fits_are_looked_at():
    done = run(SCRIPTS / "gpu-check", "--inside", "memory", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("20 fits, half of them as graphs, have left ")


def test_examples_on_the_host_are_compared_with_those_on_the_device():
    done = run(SCRIPTS / "gpu-check", "--inside", "streaming", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["W2", "W3"]
    assert all(" on the host, 4 chunks an epoch, on the device " in line for line in lines)


@pytest.mark.parametrize(
    ("host", "again", "chunks", "agree"),
    [(1.0, 1.0, 9, True), (1.0 + 1e-7, 1.0, 9, False), (1.0 + 1e-7, 1.0 + 1e-9, 9, True),
     (1.1, 1.0 + 1e-9, 9, False), (1.0, 1.0, 0, False), (np.nan, 1.0, 9, False)],
)  # fmt: skip
def test_examples_on_the_host_that_train_otherwise_are_found(
    host, again, chunks, agree, monkeypatch
):
    """Bit for bit where two fits on the device are; and those that don't come in chunks."""
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    from _gpu import streaming

    ones = np.ones(9)
    fits = iter([(1.0, 0), (again, 0), (host * again, chunks)])

    def fitted(workload, where, *, dry):
        theta, came = next(fits)
        return theta * ones, ones, 1.0, came

    monkeypatch.setattr(streaming, "fitted", fitted)
    assert bool(streaming.compare(["W2"], dry=False)) == agree


def test_precisions_are_compared():
    """On the processor all are float32: the comparison itself works."""
    done = run(SCRIPTS / "gpu-check", "--inside", "precision", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    names = [line.partition(":")[0] for line in lines]
    assert names == ["float32", "tf32", "bfloat16", "float16"]
    assert all(" of digits, " in line and " of overlapping classes; " in line for line in lines)


@pytest.mark.parametrize("name", ["tf32", "bfloat16", "float16", "two bits"])
def test_rounded_operands_learn_the_hard_set_as_well(name, monkeypatch):
    """Rounded on the processor: within half a point, as an average over seeds; two bits would be too few."""
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    from _gpu.held_out import SETS, split
    from _gpu.precision import POINTS
    from _gpu.rounding import BITS, Rounding

    monkeypatch.setitem(BITS, "two bits", 2)
    X, held_X, y, held_y = split(SETS["overlapping classes"]())
    means = []
    for backend in (Rounding("float32"), Rounding(name)):
        networks = (
            MLPClassifier(
                (64,), max_iter=12, learning_rate_init=0.01, random_state=seed, backend=backend
            )
            for seed in range(6)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there could be more epochs
            scores = [100.0 * network.fit(X, y).score(held_X, held_y) for network in networks]
        means.append(np.mean(scores))
    assert (abs(means[1] - means[0]) <= POINTS) == (name != "two bits"), means
    assert means[0] > 50.0  # of ten classes, in 12 epochs


def test_a_precision_that_learns_less_is_found(monkeypatch):
    """A point less on the hard set alone; and every variable is as it was."""
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    from _gpu import precision
    from gpunet.backends.cupy import layers

    monkeypatch.setenv("GPUNET_PRODUCTS", "tf32")
    monkeypatch.setattr(precision, "microseconds", lambda dry: (1.0, True))
    lost = {"tf32": 0.0}

    def accuracies(name, dry):
        assert layers.SMALL == 0  # or small layers would be multiplied as they are
        assert os.environ["GPUNET_ON_CHIP"] == "0"
        less = lost.get(os.environ["GPUNET_PRODUCTS"], 0.0)
        return [60.0, 61.0 - 2 * less * (name != "digits")]

    monkeypatch.setattr(precision, "accuracies", accuracies)
    usual = layers.SMALL
    assert precision.compare(dry=False)
    lost["tf32"] = 1.0
    assert not precision.compare(dry=False)
    assert (os.environ["GPUNET_PRODUCTS"], layers.SMALL) == ("tf32", usual)
    assert "GPUNET_ON_CHIP" not in os.environ


DOT = """digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="octagon" label="0
gemm"];
"graph_1_node_1"[style="solid" shape="invtrapezium" label="1
MEMCPY"];
"graph_1_node_2"[style="bold" shape="octagon" label="2
update"];
"graph_1_node_0" -> "graph_1_node_1";
"graph_1_node_1" -> "graph_1_node_2";
}
}
"""


def test_a_graphs_kernels_are_counted_in_its_drawing(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    from _gpu.graphs import counted

    assert counted(DOT) == (3, 2)


def test_parameters_lie_apart_by_the_length_of_their_difference(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    from _gpu.graphs import AGREE, apart

    expected = np.ones(10_000)
    theta = expected.copy()
    theta[0] += 0.01  # one of many went elsewhere
    assert apart(theta, expected) == pytest.approx(1e-4)
    assert apart(expected * 1.01, expected) > AGREE
