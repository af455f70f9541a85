"""One fixture gives (backend, device), another the dtype: every test that takes them runs on all that is present.

``pytest --backend cupy`` runs on that backend only, ``pytest -m gpu`` all that runs on a GPU. What is absent is skipped
with its reason.
"""

import dataclasses
import os
import sys

import numpy as np
import pytest

from gpunet.backend import BackendUnavailableError, get_backend

# Most of JAX's time here is compiling, and little of it is worth optimising. Read when JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

# Their assertions show values as those of the tests do.
pytest.register_assert_rewrite("estimator_helpers", "search_helpers")

# array-api-strict's second device stands for a GPU everywhere: it refuses implicit conversion and mixing.
BACKENDS = ("numpy", "array_api_strict:device1", "torch:cpu", "jax", "cupy")


def pytest_addoption(parser):
    parser.addoption(
        "--backend", default=None, help="run on this backend only, such as cupy or torch:cuda"
    )


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        only = metafunc.config.getoption("--backend")
        specs = BACKENDS if only is None else (only,)
        metafunc.parametrize("backend", specs, indirect=True)


@pytest.hookimpl(tryfirst=True)  # before they are selected
def pytest_collection_modifyitems(items):
    """Mark what runs on a GPU: tests with a parameter that names CuPy, and those that ask for the `gpu` itself."""
    for item in items:
        parameters = item.name.partition("[")[2]
        if "cupy" in parameters or "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")


@pytest.fixture(scope="session", autouse=True)
def strictest():
    """Set array-api-strict to refuse all that isn't portable, if it is installed."""
    try:
        import array_api_strict
    except ImportError:
        return
    array_api_strict.set_array_api_strict_flags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )


@pytest.fixture(scope="module", autouse=True)
def _without_old_programs():
    """Free what JAX has compiled for a file's shapes, of which it keeps gigabytes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture
def backend(request):
    """Return a `gpunet.backend.Backend`, within whose context the test runs."""
    try:
        found = get_backend(request.param)
    except BackendUnavailableError as error:
        if request.config.getoption("--backend") is not None:
            raise
        pytest.skip(str(error))
    # The NumPy backend silences overflow; a test of the mathematics wants to hear of it.
    with found.active(), np.errstate(over="warn", invalid="warn", divide="warn"):
        yield found


@pytest.fixture
def on_numpy(monkeypatch):
    """Compute on NumPy unless a test asks for something else."""
    monkeypatch.setenv("GPUNET_BACKEND", "numpy")


@pytest.fixture
def finding_classes():
    """Let array-api-strict have the shapes that depend on data, without which nobody finds the classes in y."""
    import array_api_strict

    with array_api_strict.ArrayAPIStrictFlags(data_dependent_shapes=True):
        yield


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """Return a dtype's name."""
    return request.param


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far results of a dtype may lie apart, relative to the largest of them."""

    rounding: float

    def check(self, actual, expected):
        expected = np.asarray(expected)
        scale = max(float(np.max(np.abs(expected), initial=0.0)), 1.0)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=self.rounding * scale)


@pytest.fixture
def tolerance(dtype):
    """Return the tolerance that follows from the dtype."""
    return Tolerance({"float64": 1e-12, "float32": 1e-5}[dtype])
