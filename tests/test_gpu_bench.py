"""The benchmark that waits for a GPU: on the processor, tiny; who is asked what, and what is made of it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpunet.backends.cupy.products import Capturable, Products
from gpunet.backends.numpy import NumPyBackend

BENCH = Path(__file__).parent.parent / "scripts" / "bench"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


def module_of(path):
    loader = SourceFileLoader(path.stem, str(path))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def bench():
    return module_of(BENCH / "gpu")


def run(*words):
    """Run the benchmark on the processor; return how it ended."""
    return subprocess.run(
        [sys.executable, BENCH / "gpu", "--dry-run", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def loss_of(contestant, name):
    """Return the losses of the first and the last network of a tiny workload after an epoch."""
    from _gpu.contestants import CONTESTANTS, found
    from _gpu.workloads import checked, workload_of

    workload, networks = workload_of(name, dry=True)
    trained = found(CONTESTANTS[contestant].place(name))(workload, networks, "cpu")
    trained.begin()
    trained.train(1)
    return [checked(workload, trained.parameters(which)) for which in (0, (networks or 1) - 1)]


class TestRuns:
    def test_the_benchmark_itself_works(self, tmp_path):
        """Whoever is installed trains to the same loss, alone, in a stack and in a search."""
        pytest.importorskip("jax", reason="JAX isn't installed")
        names = ["ceilings", "W1", "4x8192", "72 of W1", "search of 72"]
        contestants = ["gpunet", "matrix products", "JAX", "scikit-learn", "gpunet, launched"]
        done = run("--output", tmp_path, "--only", *names, "--against", *contestants)
        assert done.returncode == 0, done.stdout + done.stderr
        (written,) = tmp_path.glob("gpu-*.json")
        found = json.loads(written.read_text())
        assert {name: [*each] for name, each in found["results"].items()} == {
            "W1": ["gpunet", "JAX", "scikit-learn", "gpunet, launched"],
            "4x8192": ["gpunet", "matrix products", "JAX"],
            "72 of W1": ["gpunet", "JAX"],
            "search of 72": ["gpunet", "JAX"],
        }
        assert all(each["microseconds"] > 0 for row in found["results"].values() for each in row.values())  # fmt: skip
        assert [*found["ceilings"]["operations"]] == ["float32", "tf32", "bfloat16", "float16"]
        assert min(found["ceilings"][key] for key in ("bytes", "launch", "graph", "node")) > 0
        text = written.with_name(f"{written.stem}.md").read_text()
        assert text.startswith("# Training on ")
        assert "\n| W2 against torch eager | >= 6x | – | not measured |\n" in text
        assert "these numbers say nothing" in text

    @pytest.mark.parametrize("name", ["W1", "72 of W1"])
    def test_torch_trains_the_same_networks(self, name):
        pytest.importorskip("torch", reason="torch isn't installed")
        assert loss_of("torch", name) == pytest.approx(loss_of("gpunet", name), rel=1e-6)

    def test_torchs_step_as_a_function_trains_the_same_network(self):
        """What is compiled and captured where there is a GPU."""
        pytest.importorskip("torch", reason="torch isn't installed")
        from _gpu.torch_peer import Stacked
        from _gpu.workloads import checked, workload_of

        workload, _ = workload_of("W2", dry=True)
        trained = Stacked(workload, None, "cpu")
        trained.begin()
        trained.train(1)
        once = checked(workload, trained.parameters())
        assert once == pytest.approx(loss_of("gpunet", "W2")[0], rel=1e-6)
        trained.train(1)
        trained.begin()  # in the same memory, as after a capture
        trained.train(1)
        assert checked(workload, trained.parameters()) == once

    def test_a_stacks_networks_differ(self):
        first, last = loss_of("gpunet", "72 of W1")
        assert first == pytest.approx(loss_of("gpunet", "W1")[0], rel=1e-6)
        assert abs(last / first - 1) > 1e-3

    def test_torch_searches_alike(self):
        pytest.importorskip("torch", reason="torch isn't installed")
        from _gpu import searches
        from _gpu.workloads import search_of

        search = search_of("search of 3000", dry=True)
        ours, theirs = searches.gpunet(search, "cpu")(), searches.torch(search, "cpu")()
        assert ours.shape == (4, 3, 2)
        np.testing.assert_allclose(theirs, ours, rtol=1e-5)

    def test_products_are_those_of_a_step(self):
        from _gpu.ours import Products
        from _gpu.workloads import workload_of

        workload, _ = workload_of("W3", dry=True)
        products = Products(workload, None, "cpu")
        done = [
            2 * out.shape[0] * out.shape[1] * left.shape[1]
            for step in products.steps
            for left, _, out in step
        ]
        assert sum(done) == workload.products
        before = [np.array(out) for _, _, out in products.steps[0]]
        products.train(1)
        assert all(
            (was != out).any() for was, (*_, out) in zip(before, products.steps[0], strict=True)
        )

    def test_a_library_without_a_gpu_has_no_place_in_a_gpus_table(self):
        from _gpu.contestants import CONTESTANTS, AbsentError, found
        from _gpu.workloads import workload_of

        for library, contestant in (("jax", "JAX"), ("torch", "torch")):
            module = pytest.importorskip(library, reason=f"{library} isn't installed")
            here = (
                module.cuda.is_available()
                if library == "torch"
                else module.default_backend() == "gpu"
            )
            if here:
                pytest.skip(f"{library} has a GPU here")
            kind = found(CONTESTANTS[contestant].place("W1"))
            with pytest.raises(AbsentError, match="GPU"):
                kind(*workload_of("W1", dry=True), "cuda")


def test_an_epoch_is_captured_and_replayed(monkeypatch):
    """With a stand-in for torch's graphs that takes the captured steps again when it is replayed."""
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    from _gpu.torch_peer import Stacked, TorchGraph
    from _gpu.workloads import checked, workload_of

    trained, done = None, []

    class Graph:
        def replay(self):
            done.append("replayed")
            Stacked.run(trained)

    @contextlib.contextmanager
    def capturing(graph):
        assert isinstance(graph, Graph)
        assert len(done) == 3, "compiled and allocated by then"
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stands in (
        ("Stream", lambda: stream),
        ("current_stream", lambda: stream),
        ("stream", contextlib.nullcontext),
        ("CUDAGraph", Graph),
        ("graph", capturing),
    ):
        monkeypatch.setattr(torch.cuda, name, stands)
    monkeypatch.setattr(torch, "compile", lambda step, dynamic: step)
    workload, _ = workload_of("W1", dry=True)
    trained = TorchGraph(workload, None, "cpu")
    trained.device = SimpleNamespace(type="cuda")
    usual = Stacked.run

    def run(self):
        if trained.graph is None:
            done.append("warm")
        usual(self)

    monkeypatch.setattr(Stacked, "run", run)
    trained.begin()
    assert done == ["warm"] * 3
    trained.train(1)
    assert done[3:] == ["replayed"]
    assert checked(workload, trained.parameters()) == pytest.approx(loss_of("gpunet", "W1")[0], rel=1e-6)  # fmt: skip
    trained.begin()  # is not captured again
    assert done[3:] == ["replayed"]


class OnCPU(NumPyBackend):
    """CuPy's products over stand-ins for CuPy and cuBLAS."""

    name = "cupy"

    def __init__(self):
        super().__init__()
        cupy_on_cpu = module_of(Path(__file__).with_name("cupy_on_cpu.py"))
        self.cupy = cupy = cupy_on_cpu.CuPyOnCPU()
        self.cublas = cupy_on_cpu.CuBLAS(cupy)
        products = Products(cupy, self.cublas)
        self.xp = Capturable(cupy_on_cpu.Namespace(cupy), cupy, products)

    def asarray(self, values, dtype=None):
        return self.cupy.asarray(values, dtype)


class TestSeam:
    """What asks CuPy and cuBLAS, over stand-ins for them."""

    @pytest.fixture
    def seam(self, monkeypatch):
        from _gpu import ceilings, ours

        seam = OnCPU()
        for module in (ceilings, ours):
            monkeypatch.setattr(module, "backend_on", lambda device: seam)
            monkeypatch.setattr(module, "finish", lambda seam: None)
        return seam

    def test_a_steps_products_are_read_as_they_lie(self, seam):
        from _gpu.ours import Products as Bare
        from _gpu.workloads import workload_of

        workload, _ = workload_of("W1", dry=True)
        bare = Bare(workload, None, "cuda")
        before = [*seam.cupy.log]
        bare.train(1)
        assert len(seam.cublas.calls) == workload.steps * 5
        assert {*seam.cupy.log[len(before) :]} == {"gemm"}, "nothing is copied"

    def test_ceilings_are_measured(self, seam, monkeypatch):
        from _gpu.ceilings import PRECISIONS, ceilings

        cupy, launched = seam.cupy, []

        def kernel(source, name):
            assert f"void {name}(float* number)" in source
            return lambda grid, block, arguments: cupy.launch(name, lambda: launched.append(1), [])

        module = SimpleNamespace(RawKernel=kernel, cuda=cupy.cuda)
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setenv("GPUNET_PRODUCTS", "bfloat16")
        found = ceilings(dry=True)
        assert [*found["operations"]] == [*PRECISIONS]
        assert {call[-1] for call in seam.cublas.calls} == {68, 77, 75, 74}
        assert os.environ["GPUNET_PRODUCTS"] == "bfloat16"
        assert found["node"] > 0
        assert cupy.captures == 2
        assert "graph" in cupy.log


class TestPlan:
    def test_what_is_known_is_written_after_each_contestant(self, bench, tmp_path, monkeypatch):
        """So that what comes after it may take too long."""
        seconds = []

        def asked(contestant, names, **wishes):
            seconds.append(wishes["seconds"])
            if contestant == "JAX":
                raise KeyboardInterrupt
            return {
                name: {"microseconds": 1.0, "loss": 0.5} for name in names if name != "ceilings"
            }

        monkeypatch.setattr(bench, "asked_in_processes", asked)
        monkeypatch.setattr(bench, "about_in_a_process", lambda dry: {"device": "A Device"})
        words = ["gpu", "--dry-run", "--seconds", "100", "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(KeyboardInterrupt):
            bench.main()
        found = json.loads((tmp_path / "gpu-a-device.json").read_text())["results"]
        assert [*found["W3"]] == ["gpunet", "matrix products", "torch"]
        assert [*found["W1"]] == ["gpunet", "scikit-learn", "torch"]
        assert [*found["small"]] == ["gpunet", "torch"]
        shares = [each.share for each in bench.CONTESTANTS.values()]
        expected = [100 * share / sum(shares[number:]) for number, share in enumerate(shares)]
        assert seconds == pytest.approx(expected[:5], rel=0.05)

    def test_all_that_is_asked_for_is_measured(self):
        """Each verdict has whom it needs, on the workloads that it is about."""
        from _gpu.contestants import CONTESTANTS
        from _gpu.verdicts import UNKNOWN, verdicts
        from _gpu.workloads import NAMES

        answer = {"microseconds": 1.0, "loss": 1.0, "kernels": 8}
        results = {
            name: {who: answer for who, one in CONTESTANTS.items() if name in one.names} for name in NAMES
        }  # fmt: skip
        assert UNKNOWN not in [verdict for *_, verdict in verdicts(results)]
        for who, one in CONTESTANTS.items():
            assert all(one.place(name) for name in one.names), who

    def told(self, bench, monkeypatch, processes, names, seconds=60.0):
        """Return what comes of a contestant's processes, and what each was asked."""
        asked, processes = [], iter(processes)

        def process(contestant, names, **wishes):
            asked.append([*names])
            return next(processes)

        monkeypatch.setattr(bench, "asked_in_a_process", process)
        found = bench.asked_in_processes("JAX", names, dry=True, tf32=False, seconds=seconds)
        assert [*found] == names
        return found, asked

    def test_what_fails_does_not_lose_the_others(self, bench, monkeypatch):
        """A workload's error, then a crash of the process: the rest is asked of other processes."""
        good, bad = {"microseconds": 1.0}, {"problem": "no"}
        crashed = "its process ended with code -11"
        processes = [({"a": good, "b": bad}, None), ({}, crashed), ({"d": good}, None)]
        found, asked = self.told(bench, monkeypatch, processes, ["a", "b", "c", "d"])
        assert asked == [["a", "b", "c", "d"], ["c", "d"], ["d"]]
        assert found == {"a": good, "b": bad, "c": {"problem": crashed}, "d": good}

    def test_what_always_fails_is_left_alone(self, bench, monkeypatch):
        bad = {"problem": "no"}
        processes = [({name: bad}, None) for name in "abc"]
        found, asked = self.told(bench, monkeypatch, processes, [*"abcdef"])
        assert len(asked) == 3
        assert found["f"] == bad

    def test_who_is_absent_is_asked_once(self, bench, monkeypatch):
        absent = {"problem": "not installed", "absent": True}
        found, asked = self.told(bench, monkeypatch, [({"a": absent}, None)], [*"abc"])
        assert (len(asked), found["c"]) == (1, absent)

    def test_time_that_is_over_is_over(self, bench, monkeypatch):
        good = {"microseconds": 1.0}
        late = [({"a": good}, "not within 1 s")]
        found, asked = self.told(bench, monkeypatch, late, [*"abc"], seconds=1.0)
        assert (len(asked), found["a"], found["c"]["problem"]) == (1, good, "not within 1 s")

    def test_a_process_that_hangs_is_ended_and_what_it_has_said_is_kept(
        self, bench, tmp_path, monkeypatch
    ):
        script = tmp_path / "hangs.py"
        whole, half = "print('[notice] 1\\n2\\n[\"a\", {}]')", "print('[\"b', end='', flush=True)"
        script.write_text(f"import time\n{whole}\n{half}\ntime.sleep(60)\n")
        monkeypatch.setattr(bench, "__file__", str(script))
        start = time.monotonic()
        found = bench.asked_in_a_process("JAX", ["a"], dry=True, tf32=False, seconds=1.5)
        assert found == ({"a": {}}, "not within 2 s")
        assert time.monotonic() - start < 30

    def test_all_multiply_alike(self, bench, tmp_path, monkeypatch):
        """Whatever the variables say that libraries look for."""
        script = tmp_path / "says.py"
        script.write_text("import json, os\nprint(json.dumps(['a', dict(os.environ)]))\n")
        monkeypatch.setattr(bench, "__file__", str(script))
        for name in (
            "NVIDIA_TF32_OVERRIDE",
            "GPUNET_ON_CHIP",
            "GPUNET_RESIDENT",
            "GPUNET_PRODUCTS",
        ):
            monkeypatch.setenv(name, "1")
        for tf32 in (False, True):
            told, _ = bench.asked_in_a_process("JAX", ["a"], dry=False, tf32=tf32, seconds=60)
            assert told["a"]["GPUNET_PRODUCTS"] == ("tf32" if tf32 else "float32")
            assert told["a"]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
            cleared = {"NVIDIA_TF32_OVERRIDE", "GPUNET_ON_CHIP", "GPUNET_RESIDENT"}
            assert not cleared & {*told["a"]}


def times(**microseconds):
    """Return results as a report has them."""
    return {who.replace("_", " "): {"microseconds": each} for who, each in microseconds.items()}


class TestVerdicts:
    results = {  # noqa: RUF012
        "W1": times(gpunet=10.0, torch=99.0, JAX=20.0, scikit_learn=1.0) | {
            "torch, graph": {"microseconds": 14.0}, "torch.compile": {"problem": "no compiler"},
            "scikit-learn": {"microseconds": 310.0},
        },
        "W3": times(gpunet=100.0, matrix_products=84.0, torch=100.0),
        "1000 of W1": times(gpunet=200.0, JAX=390.0, torch=400.0),
    }  # fmt: skip

    def found(self):
        from _gpu.verdicts import verdicts

        return {
            words: (bound, told, verdict) for words, bound, told, verdict in verdicts(self.results)
        }

    def test_each_is_held_against_its_bound(self):
        found = self.found()
        assert found["W1 against torch eager"] == (">= 10x", "9.9x (torch)", "missed")
        assert found["W1 against compiled torch and JAX"] == (
            ">= 1.5x",
            "1.4x (torch, graph)",
            "missed",
        )
        assert found["W3 against the fastest"] == (">= 1x", "1x (torch)", "reached")
        assert found["W3, share of its matrix products"] == (">= 85 %", "84 %", "missed")
        assert found["W1 against scikit-learn"] == (">= 30x", "31x (scikit-learn)", "reached")
        assert found["1000 of W1 against JAX's vmap"][1:] == ("1.95x (JAX)", "missed")
        assert found["1000 of W1 against torch's vmap"][1:] == ("2x (torch)", "reached")

    def test_what_is_not_known_is_not_reached(self):
        found = self.found()
        for words in ("W2 against torch eager", "W1, kernels a step", "4x8192 against the fastest"):
            assert found[words][1:] == ("–", "not measured")

    def test_networks_one_after_another(self, monkeypatch):
        many = {"gpunet": {"microseconds": 200.0, "networks": 1000}}
        monkeypatch.setitem(self.results, "1000 of W1", many)
        assert self.found()["1000 of W1 against one after another"] == (">= 50x", "50x", "reached")

    def test_losses_that_differ_are_found(self):
        from _gpu.verdicts import differences

        losses = [
            {"loss": 0.5, "last_loss": 1.0},
            {"loss": 0.5001, "last_loss": 2.0},
            {"problem": "none"},
        ]
        assert differences({"W1": dict(enumerate(losses))}) == {"W1": 1.0}
        del losses[1]["last_loss"]
        assert differences({"W1": dict(enumerate(losses))}) == {"W1": pytest.approx(2e-4)}
        losses[1]["loss"] = float("nan")
        assert differences({"W1": dict(enumerate(losses))}) == {"W1": float("inf")}

    def test_a_kernel_too_many_is_missed(self, monkeypatch):
        for kernels, verdict in ((8, "reached"), (9, "missed")):
            monkeypatch.setitem(self.results["W1"]["gpunet"], "kernels", kernels)
            assert self.found()["W1, kernels a step"] == ("<= 8", f"{kernels}", verdict)

    def test_ceilings_allow_operations_bytes_and_nodes(self):
        """W1's step by hand: 5.2 million operations, all of it in the cache, 8 nodes; 4x8192's bytes."""
        from _gpu.verdicts import predictions

        ceilings = {"operations": {"float32": 5.2e12}, "bytes": 1e12, "node": 1.5}
        ours = {"gpunet": {"microseconds": 20.0, "kernels": 8}}
        found = predictions({"W1": ours, "4x8192": ours, "search of 72": ours}, ceilings)
        assert [*found] == ["W1", "4x8192"]
        assert found["W1"][1] == pytest.approx((1.0, 0.0, 12.0), rel=0.01)
        parameters = 1025 * 8192 + 3 * 8193 * 8192 + 8193 * 10
        assert found["4x8192"][1][1] == pytest.approx(
            4 * (9 * parameters + 1024 * (40 * 8192 + 3 * 1024)) / 1e6
        )
        assert predictions({"W1": ours}, {}) == {}
