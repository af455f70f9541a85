"""Arrays of other libraries in the same memory: in and out without a copy."""

import numpy as np
import pytest

from gpunet import EnsembleClassifier, GridSearchCV, MLPClassifier
from gpunet.backend import Backend, BackendUnavailableError, get_backend

LIBRARIES = ("torch:cpu", "jax", "torch:cuda", "jax:cuda")
SMALL = {
    "hidden_layer_sizes": (6,),
    "solver": "lbfgs",
    "tol": 0.5,
    "random_state": 0,
}


def backend_or_skip(spec):
    try:
        return get_backend(spec)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def pointer(array):
    """Return where an array's numbers are."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    if hasattr(array, "data_ptr"):
        return array.data_ptr()
    if hasattr(array, "unsafe_buffer_pointer"):
        return array.unsafe_buffer_pointer()
    return array.data.ptr


PAIRS = [("numpy", "torch:cpu"), ("numpy", "jax"), ("torch:cpu", "jax"), ("jax", "torch:cpu"),
         ("cupy", "torch:cuda"), ("cupy", "jax:cuda")]  # fmt: skip


@pytest.fixture(params=PAIRS, ids=[f"{other} to {chosen}" for chosen, other in PAIRS])
def pair(request):
    """Return the backend that computes and the one that the data is of, in one memory."""
    chosen, other = request.param
    return backend_or_skip(chosen), backend_or_skip(other)


@pytest.fixture
def data():
    random = np.random.RandomState(0)
    X = random.normal(size=(40, 4))
    return X, (X[:, 0] > X[:, 1]).astype("int64")


def test_an_array_is_adopted_where_it_lies(pair, data):
    chosen, other = pair
    X = other.asarray(data[0], "float32")
    with chosen.active():
        adopted = chosen.adopt(X, other)
    assert pointer(adopted) == pointer(X)
    np.testing.assert_array_equal(chosen.to_host(adopted), other.to_host(X))


def test_what_is_computed_on_is_the_users_memory(pair, data, monkeypatch):
    """The whole way through an estimator, up to the columns that are trained on."""
    from gpunet.estimators.placement import Placement

    chosen, other = pair
    if chosen.name == "jax":
        pytest.skip("JAX's arrays have no transposed views")
    X, seen = other.asarray(data[0], "float32"), []
    columns = Placement.columns

    def noted(self, rows):
        seen.append(columns(self, rows))
        return seen[-1]

    monkeypatch.setattr(Placement, "columns", noted)
    network = MLPClassifier(**SMALL, backend=chosen.spec).fit(X, other.asarray(data[1]))
    assert pointer(seen[0]) == pointer(X)
    network.predict(X)
    assert pointer(seen[-1]) == pointer(X)


def test_the_model_is_that_of_the_same_numbers(pair, data):
    chosen, other = pair
    if chosen.name == "jax":
        pytest.skip("it takes JAX long to compile, and the arrays are compared above")
    X, y = data
    here = MLPClassifier(**SMALL, backend=chosen.spec).fit(X, y)
    there = MLPClassifier(**SMALL, backend=chosen.spec).fit(other.asarray(X), other.asarray(y))
    found = there.predict_proba(other.asarray(X))
    np.testing.assert_allclose(chosen.to_host(found), here.predict_proba(X), atol=1e-8)


@pytest.mark.parametrize("of", ["torch:cpu", "jax"])
def test_results_leave_without_a_copy(of, data):
    """NumPy's arrays, as CuPy's and torch's, are for any library's ``from_dlpack``."""
    other = backend_or_skip(of)
    network = MLPClassifier(**SMALL, backend="numpy").fit(other.asarray(data[0]), data[1])
    result = network.predict_proba(other.asarray(data[0]))
    assert isinstance(result, np.ndarray)
    with other.active():
        seen = other.xp.from_dlpack(result)
    assert of == "jax" or pointer(seen) == pointer(result)  # JAX copies what it can't align
    np.testing.assert_array_equal(other.to_host(seen), result)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "made",
    [
        lambda network: GridSearchCV(network, {"alpha": [0.1, 1.0]}, cv=2, refit=True),
        lambda network: EnsembleClassifier(network, n_estimators=2, random_state=0),
    ],
    ids=["search", "ensemble"],
)
def test_searches_and_ensembles_take_them_too(made, data):
    other = backend_or_skip("torch:cpu")
    network = MLPClassifier((6,), max_iter=2, random_state=0, backend="numpy")
    expected = made(network).fit(*data).predict(data[0])
    found = made(network).fit(*map(other.asarray, data)).predict(other.asarray(data[0]))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)


def test_a_tape_is_left_behind(data):
    other = backend_or_skip("torch:cpu")
    X = other.asarray(data[0]).requires_grad_()
    network = MLPClassifier(**SMALL, backend="numpy").fit(X, data[1])
    assert isinstance(network.coefs_[0], np.ndarray)


def test_another_memory_is_refused_as_ever(data):
    strict = get_backend("array_api_strict:device1")
    with pytest.raises(ValueError, match="but the estimator asks for numpy:cpu: move X there"):
        MLPClassifier(**SMALL, backend="numpy").fit(strict.asarray(data[0]), data[1])


class Elsewhere:
    """An array on a GPU, of which only the place is asked."""

    def __init__(self, kind, index):
        self.place = kind, index

    def __dlpack_device__(self):
        return self.place


@pytest.mark.parametrize(("place", "taken"), [((2, 1), True), ((2, 0), False), ((1, 0), False)])
def test_the_very_device_decides(place, taken):
    class OnDevice1(Backend):
        memory, device, name = (2, 1), 1, "stand-in"
        xp = type("xp", (), {"from_dlpack": staticmethod(lambda array: "adopted")})

        def __init__(self):
            pass

    array, owner = Elsewhere(*place), type("Owner", (OnDevice1,), {"memory": place})()
    assert OnDevice1().adopt(array, owner) == ("adopted" if taken else array)
