"""Where memory is short: what is divided, that it stays the same, and what is said where it can't be."""

import copy
import re
import warnings

import numpy as np
import pytest
from gpunet.backends.cupy import CuPyBackend

from gpunet import MLPClassifier, MLPRegressor, Network
from gpunet.backend import Backend
from gpunet.memory import PARTS, OutOfMemoryError, mebibytes, step_bytes
from gpunet.network import Architecture

N, M = 48, 24


def data(seed=0):
    random = np.random.RandomState(seed)
    X = random.normal(size=(N, 5))
    return X, (X @ random.normal(size=(5, 3))).argmax(axis=1)


def error_of(backend):
    """Return what the library itself says where memory is short."""
    if backend.name == "torch":
        return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    if backend.name == "jax":
        import jax

        return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
    if backend.name == "cupy":
        import cupy

        return cupy.cuda.memory.OutOfMemoryError(1, 1)
    return MemoryError()


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), True),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (Exception("ALLOC_FAILED (3)"), True),  # cuBLAS, as nvmath-python tells of it
        (MemoryError(), True),  # what CuPy's own is a kind of
        (RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"), False),
    ],
    ids=str,
)
def test_what_cuda_says_is_known_without_a_gpu(error, short):
    assert CuPyBackend.is_memory_error(CuPyBackend.__new__(CuPyBackend), error) is short


class Room:
    """The memory of a backend, in which no layer of more examples than ``most`` fits.

    Attributes
    ----------
    seen : list of int
        The numbers of examples that were asked for.
    """

    def __init__(self, backend):
        self.backend, self.most, self.seen = backend, 10**9, []

    def check(self, m):
        self.seen.append(m)
        if m > self.most:
            raise error_of(self.backend)


@pytest.fixture
def room(backend, monkeypatch):
    """Return the `Room` of the backend, whose compiled steps are plain ones."""
    room, primitives = Room(backend), copy.copy(backend.primitives)
    activate = primitives.activate

    def checked(z, *rest):
        room.check(z.shape[-1])
        return activate(z, *rest)

    monkeypatch.setattr(primitives, "activate", checked, raising=False)
    monkeypatch.setattr(backend, "primitives", primitives)
    monkeypatch.setattr(backend, "compile", lambda step: Backend.compile(backend, step))
    return room


def test_each_library_says_so_in_its_own_way(backend):
    # no address space has 2**54 bytes; XLA takes minutes to find that out
    numbers = 2**44 if backend.name == "jax" else 2**52
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is the question
        backend.to_host(backend.xp.ones(numbers, dtype=backend.xp.float32))
    assert backend.is_memory_error(caught.value)
    assert backend.is_memory_error(error_of(backend))
    assert not backend.is_memory_error(ValueError("memory"))


SETTINGS = {
    "adam": {},
    "l2": {"alpha": 0.5},
    "weighted": {"weighted": True},
    "momentum": {"solver": "sgd", "momentum": 0.5},
    "validated": {"early_stopping": True, "validation_fraction": 0.125, "n_iter_no_change": 9},
    "lbfgs": {"solver": "lbfgs", "tol": 1e-9},
    "lbfgs, weighted": {"solver": "lbfgs", "tol": 1e-9, "weighted": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_minibatch_is_divided_once_and_the_fit_is_the_same(backend, room, settings):
    X, y = data()
    settings = {"max_iter": 4, "batch_size": M, "random_state": 0, **settings}
    weights = np.linspace(0.0, 2.0, N) if settings.pop("weighted", False) else None
    whole = MLPClassifier((6,), backend=backend, **settings).fit(X, y, weights)
    lbfgs = settings.get("solver") == "lbfgs"
    room.most, room.seen = (N if lbfgs else M) // PARTS, []
    with pytest.warns(RuntimeWarning, match="didn't fit the memory") as told:
        divided = MLPClassifier((6,), backend=backend, **settings).fit(X, y, weights)
    told = [w for w in told if "gradient is added up from 4 parts" in str(w.message)]
    assert [w.filename for w in told] == [__file__]
    assert sum(m > room.most for m in room.seen) == 1
    for mine, theirs in zip(whole.coefs_, divided.coefs_, strict=True):
        # a line search amplifies rounding
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6 if lbfgs else 1e-11)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_was_consumed_before_memory_was_short_is_there_again(backend, monkeypatch):
    """The first step has changed θ and moments in place when the second finds no memory."""
    if backend.name == "jax":
        pytest.skip("JAX's arrays don't change")
    X, y = data()
    settings = {"max_iter": 3, "batch_size": M, "random_state": 0}
    plain = MLPRegressor(hidden_layer_sizes=(6,), backend=backend, **settings).fit(X, y)
    more = copy.deepcopy(plain).partial_fit(X, y)

    def compiled(step):
        run = Backend.compile(backend, step)

        def epoch(carry, batches, data, stop):
            run(carry, tuple(part[:1, ...] for part in batches), data, stop)
            raise error_of(backend)

        return epoch

    monkeypatch.setattr(backend, "compile", compiled)
    with pytest.warns(RuntimeWarning, match="A minibatch of 24"):
        short = MLPRegressor(hidden_layer_sizes=(6,), backend=backend, **settings).fit(X, y)
    for mine, theirs in zip(plain.coefs_, short.coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-10)
    with pytest.warns(RuntimeWarning, match="didn't fit"):  # Adam's moments, too
        short.partial_fit(X, y)
    for mine, theirs in zip(more.coefs_, short.coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "in minibatches of 24 examples it takes about 0.0 MiB beside the 0.0 MiB of data"),
        ({"dropout": 0.5}, "Dropout draws for a whole minibatch"),
        ({"solver": "lbfgs"}, "L-BFGS takes all examples at once"),
    ],
)
def test_what_can_not_be_divided_is_named(backend, room, settings, words):
    X, y = data()
    room.most = 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        network = MLPClassifier((6,), batch_size=M, backend=backend, **settings)
        with pytest.raises(OutOfMemoryError, match=re.escape(words)) as caught:
            network.fit(X, y)
    assert "layers [5, 6, 3], 57 parameters, doesn't fit the memory of " in str(caught.value)
    assert "Use a smaller batch_size, smaller hidden layers or dtype='float32'." in str(
        caught.value
    )
    assert backend.is_memory_error(caught.value.__cause__)


@pytest.mark.parametrize("kind", ["estimator", "network"])
def test_a_prediction_goes_in_smaller_parts(backend, room, kind):
    X, y = data()
    if kind == "estimator":
        asked = MLPClassifier((6,), max_iter=1, solver="lbfgs", backend=backend)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked.fit(X, y)
        ask = asked.predict_proba
    else:
        asked = Network([5, 6, 3], output="softmax", seed=0, backend=backend)
        ask = asked.forward
    X = np.tile(X, (300, 1))
    expected = ask(X)
    room.most, room.seen = N * 200, []
    backend.primitives.at_once = 2**18
    said = (
        "To send 14,400 examples through a network with the layers [5, 6, 3] didn't fit the memory of "
        f"{backend.spec}: they go in 64 times smaller parts, with the same result."
    )
    with pytest.warns(RuntimeWarning, match=f"^{re.escape(said)}$") as told:
        found = ask(X)
    assert [w.filename for w in told] == [__file__]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    room.most = 0
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(OutOfMemoryError, match="Ask about fewer examples at a time"),
    ):
        ask(X)


def test_data_for_which_there_is_no_room_is_named(backend, monkeypatch):
    X, y = data()
    network = MLPClassifier((6,), backend=backend)

    def asarray(values, dtype=None):
        raise error_of(backend)

    monkeypatch.setattr(backend, "asarray", asarray)
    with pytest.raises(OutOfMemoryError, match=re.escape("shape (48, 5) in float64 is 0.0 MiB")):
        network.fit(X, y)


def without_room_for(backend, shape, monkeypatch):
    """Let no array of this shape come to the backend's device."""
    asarray = backend.asarray

    def checked(values, dtype=None):
        if np.shape(values) == shape:
            raise error_of(backend)
        return asarray(values, dtype)

    monkeypatch.setattr(backend, "asarray", checked)


@pytest.mark.parametrize("asked", ["fit", "predict", "cost", "gradient"])
def test_a_network_names_an_x_for_which_there_is_no_room(backend, asked, monkeypatch):
    X, y = data()
    network = Network([5, 6, 3], output="softmax", backend=backend)
    without_room_for(backend, X.shape, monkeypatch)
    words = (
        "X of the shape (48, 5) in float64 is 0.0 MiB: there is no room for it in the memory of "
    )
    with pytest.raises(OutOfMemoryError, match=re.escape(words)) as caught:
        getattr(network, asked)(*([X] if asked == "predict" else [X, y]))
    # a gradient takes all of X at once, wherever it is
    assert ("stay on the host" in str(caught.value)) == (asked != "gradient")


@pytest.mark.parametrize("kind", ["estimator", "network"])
def test_targets_are_not_told_to_stay_on_the_host(backend, kind, monkeypatch):
    X, _ = data()
    Y = np.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(float)
    without_room_for(backend, Y.shape, monkeypatch)
    if kind == "estimator":
        asked = MLPRegressor(hidden_layer_sizes=(6,), backend=backend)
    else:
        asked = Network([5, 6, 2], backend=backend, task="multilabel")
    with pytest.raises(OutOfMemoryError, match=r"(?i)^y of the shape \(48, 2\)") as caught:
        asked.fit(X, Y)
    assert "GPUNET_RESIDENT" not in str(caught.value)
    assert ("backend='numpy'" in str(caught.value)) == (backend.memory != (1, 0))


@pytest.mark.parametrize("asked", ["cost", "gradient", "fit"])
def test_a_network_names_examples_that_are_too_many_at_once(backend, asked, room):
    X, y = data()
    network = Network([5, 6, 3], output="softmax", backend=backend)
    room.most = 2
    words = "48 examples at once through the layers [5, 6, 3]"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if asked == "fit":
            words = "A network with the layers [5, 6, 3], 57 parameters, doesn't fit the memory of "
        with pytest.raises(OutOfMemoryError, match=re.escape(words)):
            getattr(network, asked)(X, y)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_network_for_whose_epochs_there_is_no_room_is_named(backend, optimizer, monkeypatch):
    def short(*_, **__):
        raise error_of(backend)

    for begins in ("Epochs", "minimize"):
        monkeypatch.setattr(f"gpunet.fitting.{begins}", short)
    network = Network([5, 6, 3], output="softmax", backend=backend)
    with pytest.raises(OutOfMemoryError, match=re.escape("layers [5, 6, 3], 57 parameters")):
        network.fit(*data(), optimizer=optimizer)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("of", ["_draw", "_end"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_network_for_which_there_is_no_room_beside_its_steps_is_named(
    backend, monkeypatch, solver, of
):
    def short(*_):
        raise error_of(backend)

    monkeypatch.setattr(MLPClassifier, of, short)
    network = MLPClassifier((6,), backend=backend, solver=solver, batch_size=M, max_iter=1)
    with pytest.raises(OutOfMemoryError, match=re.escape("layers [5, 6, 3], 57 parameters")):
        network.fit(*data())


def test_sizes_are_those_of_the_arrays():
    from gpunet.activations import ReLU, Softmax
    from gpunet.losses import SoftmaxCrossEntropy

    architecture = Architecture((5, 6, 3), (ReLU(), Softmax()), SoftmaxCrossEntropy())
    # z, a and δ of 9 units, θ, gradient, a temporary and Adam's moments of 57 parameters
    assert step_bytes(architecture, 100, 2, 4) == 4 * (3 * 100 * 9 + 5 * 57)
    assert mebibytes(2**20 * 1500) == "1,500.0 MiB"
