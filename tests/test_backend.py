"""Choosing where to run, and what every backend promises."""

import copy
import importlib.metadata
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import gpunet
from gpunet import backend as backend_module
from gpunet.backend import BackendUnavailableError, backend_of, backends_info, get_backend


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    """Start without a choice, and end without one."""
    monkeypatch.delenv("GPUNET_BACKEND", raising=False)
    yield
    gpunet.set_backend(None)


def run_python(code, **environment):
    """Run code in a fresh interpreter; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestChoice:
    def test_the_argument_comes_before_everything(self, monkeypatch):
        monkeypatch.setenv("GPUNET_BACKEND", "no such backend")
        with gpunet.use_backend("array_api_strict:device1"):
            assert get_backend("numpy").name == "numpy"

    def test_the_context_comes_before_set_backend(self):
        gpunet.set_backend("numpy")
        with gpunet.use_backend("array_api_strict:device2") as inner:
            assert get_backend() is inner
        assert get_backend().name == "numpy"

    def test_set_backend_comes_before_the_environment(self, monkeypatch):
        monkeypatch.setenv("GPUNET_BACKEND", "no such backend")
        gpunet.set_backend("numpy")
        assert get_backend().name == "numpy"

    def test_the_environment_is_read_when_it_is_needed(self, monkeypatch):
        assert gpunet.Network([2, 1]).backend.name != "array_api_strict"
        monkeypatch.setenv("GPUNET_BACKEND", "array_api_strict:device1")
        assert gpunet.Network([2, 1]).backend.spec == "array_api_strict:device1"

    def test_auto_takes_a_usable_device_else_numpy(self):
        usable = get_backend("auto").name
        cupy = {info["name"]: info for info in backends_info()}["cupy"]
        assert usable == ("cupy" if cupy["problem"] is None else "numpy")

    def test_auto_takes_what_a_probe_finds_usable(self, monkeypatch):
        strict = type(get_backend("array_api_strict"))
        monkeypatch.setattr(strict, "automatic", True)
        assert get_backend("auto").name == "array_api_strict"
        monkeypatch.setattr(strict, "probe", classmethod(lambda cls: "nothing to run on"))
        assert get_backend("auto").name != "array_api_strict"

    @pytest.mark.parametrize(
        ("alias", "name"), [("np", "numpy"), ("NumPy", "numpy"), ("strict", "array_api_strict")]
    )
    def test_aliases(self, alias, name):
        assert get_backend(alias).name == name

    def test_a_device_in_the_name_or_beside_it(self):
        assert get_backend("strict:device1") is get_backend("strict", "device1")

    def test_two_devices_are_refused(self):
        with pytest.raises(ValueError, match=r"Two devices.*device1.*device2"):
            get_backend("strict:device1", "device2")

    def test_a_context_ends_with_its_exception(self):
        with pytest.raises(KeyError), gpunet.use_backend("strict:device1"):
            raise KeyError
        assert get_backend().name != "array_api_strict"


class TestRefusals:
    def test_an_unknown_name_lists_the_known_ones_with_their_state(self):
        with pytest.raises(ValueError, match=r"Unknown backend 'fortran'.*numpy \(usable\)"):
            get_backend("fortran")

    @pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
    def test_an_unknown_device_lists_the_known_ones(self, name):
        with pytest.raises(BackendUnavailableError, match="device7"):
            get_backend(name, "device7")

    def test_an_unknown_torch_device(self):
        pytest.importorskip("torch", reason="torch isn't installed")
        with pytest.raises(BackendUnavailableError, match="cpu"):
            get_backend("torch:nonsense")

    def test_an_unknown_jax_device(self):
        pytest.importorskip("jax", reason="jax isn't installed")
        with pytest.raises(BackendUnavailableError, match="cpu:0"):
            get_backend("jax:nonsense")

    def test_a_gpu_asked_for_where_there_is_none(self, monkeypatch):
        cupy = backend_module._load("cupy")
        monkeypatch.setattr(cupy, "probe", classmethod(lambda cls: "there is no NVIDIA driver"))
        backend_module._create.cache_clear()
        with pytest.raises(BackendUnavailableError, match=r"no NVIDIA driver.*pip install"):
            gpunet.Network([2, 1], backend="cupy")

    def test_a_wrong_type(self):
        with pytest.raises(TypeError, match="backend is a name"):
            get_backend(3)

    def test_a_variable_that_names_nothing_known(self, monkeypatch):
        monkeypatch.setenv("GPUNET_BACKEND", "tensorflow")
        with pytest.raises(ValueError, match="Unknown backend 'tensorflow'"):
            gpunet.Network([2, 1])


class TestImport:
    def test_importing_gpunet_imports_no_array_library_but_numpy(self):
        loaded = run_python(
            """
            import sys, gpunet
            names = ("torch", "jax", "cupy", "array_api_strict", "sklearn", "scipy", "rich",
                     "typer", "matplotlib", "pyarrow", "pandas")
            print([name for name in names if name in sys.modules])
            """
        )
        assert loaded == "[]"

    def test_using_numpy_imports_no_other_array_library(self):
        loaded = run_python(
            """
            import sys, gpunet
            gpunet.Network([2, 2, 1], seed=0, backend="numpy").fit([[0, 1], [1, 0]], [0, 1], epochs=1)
            print([name for name in ("torch", "jax", "cupy", "array_api_strict") if name in sys.modules])
            """
        )
        assert loaded == "[]"

    def test_an_importable_cupy_is_not_a_usable_gpu(self, tmp_path):
        (tmp_path / "cupy").mkdir()
        (tmp_path / "cupy" / "__init__.py").write_text("raise SystemExit('imported')")
        if _has_driver():
            pytest.skip("a CUDA driver is here")
        problem = run_python(
            """
            import gpunet
            print({info["name"]: info["problem"] for info in gpunet.backends_info()}["cupy"])
            print(gpunet.get_backend("auto").name)
            """,
            PYTHONPATH=str(tmp_path),
        )
        assert "driver" in problem
        assert problem.endswith("numpy")


def _has_driver():
    import ctypes

    try:
        return bool(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return False


def test_somebody_elses_backend_plugs_in_through_a_real_entry_point(tmp_path):
    (tmp_path / "toy_backend.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from gpunet.backend import Backend

            class ToyBackend(Backend):
                name = "toy"
                library = "numpy"
                install = "pip install toy"
                types = ("toy",)

                def __init__(self, device=None):
                    import array_api_compat.numpy as xp
                    self.xp, self.device = xp, device or "box"

                def asarray(self, values, dtype=None):
                    return np.asarray(values, dtype=dtype)

                def to_host(self, array):
                    return np.asarray(array)

                @classmethod
                def of(cls, array):
                    return None
            """
        )
    )
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gpunet.backends]\ntoy = toy_backend:ToyBackend\n")
    printed = run_python(
        """
        import gpunet
        X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 1]
        network = gpunet.Network([2, 1], seed=0, backend="toy").fit(X, y, optimizer="lbfgs")
        print(network.backend, network.predict(X).tolist())
        print("toy" in {info["name"] for info in gpunet.backends_info()})
        """,
        PYTHONPATH=str(tmp_path),
    )
    assert printed == "<backend toy:box> [0, 1, 1, 1]\nTrue"


def test_backends_info_tells_the_state_of_each():
    infos = {info["name"]: info for info in backends_info()}
    assert set(infos) >= {"numpy", "cupy", "torch", "jax", "array_api_strict"}
    assert infos["numpy"]["version"] == importlib.metadata.version("numpy")
    assert infos["numpy"]["devices"][0].memory > 2**20
    for info in infos.values():
        assert info["devices"] or (info["problem"] and "pip install" in info["install"])


def test_a_broken_backend_is_a_state_to_show(monkeypatch):
    strict = backend_module._load("array_api_strict")

    def broken(cls):
        raise OSError("wrong ELF class")

    monkeypatch.setattr(strict, "devices", classmethod(broken))
    infos = {info["name"]: info for info in backends_info()}
    assert infos["array_api_strict"]["problem"] == "OSError: wrong ELF class"


class TestEveryBackend:
    def test_there_and_back(self, backend, dtype):
        values = np.arange(6, dtype=dtype).reshape(2, 3)
        array = backend.asarray(values)
        assert array.dtype == getattr(backend.xp, dtype)
        np.testing.assert_array_equal(backend.to_host(array), values)

    def test_conversion_to_a_dtype(self, backend):
        array = backend.asarray([[1, 2], [3, 4]], "float32")
        assert array.dtype == backend.xp.float32
        again = backend.asarray(array, "float64")
        assert again.dtype == backend.xp.float64

    @pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::-1], np.s_[::2]])
    def test_views_and_read_only_arrays(self, backend, view):
        values = np.arange(12.0).reshape(4, 3)
        values.flags.writeable = False
        np.testing.assert_array_equal(backend.to_host(backend.asarray(values[view])), values[view])

    def test_its_arrays_lead_back_to_it(self, backend):
        found = backend_of([backend.asarray(np.zeros(3))])
        assert found is None if backend.name == "numpy" else found.spec == backend.spec

    def test_the_spec_chooses_it_again(self, backend):
        assert get_backend(backend.spec).spec == backend.spec

    def test_pickles_and_copies_choose_it_again(self, backend):
        assert pickle.loads(pickle.dumps(backend)).spec == backend.spec
        assert copy.deepcopy(backend).spec == backend.spec

    def test_what_is_created_lives_on_its_device(self, backend):
        made = backend.xp.zeros_like(backend.asarray(np.zeros(3)))
        assert backend_of([made, backend.asarray(np.ones(3))]) is not False

    def test_an_epoch_is_a_fold_of_steps(self, backend):
        def step(primitives, carry, batch, data):
            examples, rate = batch
            return carry * rate + primitives.xp.sum(primitives.gather(data, examples))

        data = backend.asarray(np.asarray([1.0, 10.0, 100.0, 1000.0]))
        batches = (
            backend.asarray(np.asarray([[0, 1], [2, 3]])),
            backend.asarray(np.asarray([1.0, 2.0])),
        )
        epoch = backend.compile(step)
        end = epoch(backend.asarray(np.asarray(0.5)), batches, data, lambda: False)
        assert float(backend.to_host(end)) == (0.5 + 11.0) * 2.0 + 1100.0

    def test_an_epoch_stops_when_told(self, backend):
        def step(primitives, carry, batch, data):
            raise AssertionError("a step was taken")

        start = backend.asarray(np.asarray(0.5))
        batches = (backend.asarray(np.asarray([[0], [1]])), backend.asarray(np.ones(2)))
        end = backend.compile(step)(start, batches, None, lambda: True)
        assert float(backend.to_host(end)) == 0.5


def test_arrays_of_two_places_are_refused():
    one = get_backend("strict:device1").asarray(np.zeros(2))
    two = get_backend("strict:device2").asarray(np.zeros(2))
    with pytest.raises(ValueError, match=r"device1 and .*device2"):
        backend_of([one, two])


@pytest.mark.parametrize("host", [np.zeros(2), [0, 1], ((0.0,),), 3], ids=type)
def test_host_data_belongs_to_no_backend(host):
    assert backend_of([host]) is None


@pytest.mark.gpu
def test_cupy_probes_this_gpu():
    info = {info["name"]: info for info in backends_info()}["cupy"]
    if info["problem"]:
        pytest.skip(info["problem"])
    assert info["devices"][0].memory > 2**30
    assert get_backend("auto").name == "cupy"
