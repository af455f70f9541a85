"""The scripts that wait for a GPU: what they say without one, and whether the benchmark works at all."""

import json
import os
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest

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

    def test_what_the_parts_say_is_written(self, tmp_path):
        states = {"report": ("passed", 12.3, "compiled"), "graphs": ("skipped", 0.0, "no reason")}
        said = {"report": ["device: A Device", "compiled"], "graphs": []}
        text = self.check.write(tmp_path, states, said).read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["gpu-check-a-device.md"]
        assert "\nreport     passed        12  compiled\n" in text
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


def test_an_unknown_part_is_refused():
    done = run(SCRIPTS / "gpu-check", "benchmark")
    assert done.returncode == 2
    assert "'benchmark' is none of report" in done.stderr


def test_the_benchmark_itself_works(tmp_path):
    """On the processor, tiny: whoever is installed trains to the same loss, alone and in a stack."""
    pytest.importorskip("jax", reason="JAX isn't installed")
    done = run(
        SCRIPTS / "bench" / "gpu",
        "--dry-run",
        "--output",
        tmp_path,
        "--only",
        "W1",
        "72 of W1",
        "--against",
        "gpunet",
        "gpunet, launched",
        "gpunet, plain",
        "JAX",
    )
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()[1:]
    assert header.split("  ")[-1].strip() == "JAX"
    assert "–" not in "".join(rows[:2])
    assert rows[2].startswith("Losses after three epochs lie ")
    (written,) = tmp_path.glob("gpu-*.json")
    assert [*json.loads(written.read_text())["results"]["W1"]][-1] == "JAX"
    assert written.with_name(f"{written.stem}.md").read_text().startswith("# Training on ")


def test_the_benchmark_writes_after_each_contestant(tmp_path, monkeypatch):
    """So that what comes after it may take too long."""
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    bench, seconds = module_of(SCRIPTS / "bench" / "gpu"), []

    def asked(contestant, names, **wishes):
        seconds.append(wishes["seconds"])
        if contestant == "JAX":
            raise KeyboardInterrupt
        return {name: {"microseconds": 1.0, "loss": 0.5} for name in names}

    monkeypatch.setattr(bench, "asked_in_a_process", asked)
    monkeypatch.setattr(bench, "about_in_a_process", lambda dry: {"device": "A Device"})
    words = ["gpu", "--dry-run", "--seconds", "130", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    found = json.loads((tmp_path / "gpu-a-device.json").read_text())["results"]
    assert {name: [*each] for name, each in found.items()}["small"] == ["gpunet", "torch"]
    assert seconds == pytest.approx([30.0, 26.0, 32.5], rel=0.1)


def test_a_loss_that_is_no_number_differs(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    from _gpu.report import worst_difference

    losses = [{"loss": 0.5}, {"loss": 0.25}, {"problem": "none"}]
    assert worst_difference({"W1": dict(enumerate(losses))}) == 0.5
    losses[1]["loss"] = float("nan")
    assert worst_difference({"W1": dict(enumerate(losses))}) == float("inf")


def test_jax_without_a_gpu_has_no_place_in_a_gpus_table(monkeypatch):
    jax = pytest.importorskip("jax", reason="JAX isn't installed")
    if jax.devices()[0].platform == "gpu":
        pytest.skip("JAX has a GPU here")
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    from _gpu.contestants import JAX, workload_of

    with pytest.raises(RuntimeError, match="not on a GPU"):
        JAX(*workload_of("W1", dry=True), "cuda")


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


def test_precisions_are_compared():
    """On the processor all are float32: the comparison itself works."""
    done = run(SCRIPTS / "gpu-check", "--inside", "precision", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["float32", "tf32", "bfloat16", "float16"]


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
