"""Matrix products through cuBLAS: what it is told, by a stand-in that reads memory as cuBLAS does."""

import gc
import importlib.util
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from gpunet.backends.cupy.products import PRECISIONS, WORKSPACE, Products
from sklearn.datasets import load_digits

from gpunet import MLPClassifier
from gpunet.backend import BackendUnavailableError, get_backend

spec = importlib.util.spec_from_file_location(
    "cupy_on_cpu", Path(__file__).with_name("cupy_on_cpu.py")
)
cupy_on_cpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cupy_on_cpu)
ROUNDING = Path(__file__).parent.parent / "scripts" / "bench" / "_gpu" / "rounding.py"
spec = importlib.util.spec_from_file_location("rounding", ROUNDING)
rounding = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rounding)
Rounding = rounding.Rounding


@pytest.fixture
def cupy():
    return cupy_on_cpu.CuPyOnCPU()


@pytest.fixture
def cublas(cupy):
    return cupy_on_cpu.CuBLAS(cupy)


@pytest.fixture(params=["processor", "cupy"])
def place(request):
    """Return matmul, the way in and the way out; the GPU's where there is one."""
    if request.param == "processor":
        cupy = request.getfixturevalue("cupy")
        products = Products(cupy, request.getfixturevalue("cublas"))
        yield products.matmul, cupy.asarray, cupy.asnumpy
        return
    try:
        backend = get_backend("cupy")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with backend.active():
        yield backend.xp.matmul, backend.asarray, backend.to_host


def numbers(*shape, dtype="float64"):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def seen_in_parameters(network_axes):
    """Return Θ (4, 5) as a step sees it, in θ: networks' matrices lie P apart."""
    return numbers(*network_axes, 33), lambda theta: theta[..., 6:26].reshape(*network_axes, 4, 5)


def whole(array):
    return array, lambda array: array


def turned(array):
    return array, lambda array: array.swapaxes(-1, -2)


CASES = {
    "two matrices": (whole(numbers(4, 5)), whole(numbers(5, 7))),
    "first layer": (seen_in_parameters(()), turned(numbers(7, 5))),
    "back through a layer": (turned(numbers(5, 4)), whole(numbers(5, 7))),
    "gradient": (whole(numbers(4, 7)), turned(numbers(5, 7))),
    "gradient of the first layer": (whole(numbers(4, 7)), whole(numbers(7, 5))),
    "both turned": (turned(numbers(5, 4)), turned(numbers(7, 5))),
    "part of the columns": (
        (numbers(4, 9), lambda array: array[:, 2:7]),
        (numbers(5, 20), lambda array: array[:, 3:10]),
    ),
    "stacks": (whole(numbers(3, 4, 5)), whole(numbers(3, 5, 7))),
    "stack's first layer, examples shared": (seen_in_parameters((3,)), turned(numbers(7, 5))),
    "stack's first layer": (seen_in_parameters((3,)), turned(numbers(3, 7, 5))),
    "stack's gradient, examples shared": (whole(numbers(3, 4, 7)), whole(numbers(7, 5))),
    "stack's back": (turned(numbers(3, 5, 4)), whole(numbers(3, 5, 7))),
    "turned stack, examples shared": (turned(numbers(3, 5, 4)), whole(numbers(5, 7))),
    "one matrix and a stack": (whole(numbers(4, 5)), whole(numbers(3, 5, 7))),
    "a stack of one": (whole(numbers(1, 4, 5)), turned(numbers(7, 5))),
    "one output unit": (whole(numbers(1, 5)), turned(numbers(7, 5))),
    "one example": (whole(numbers(4, 5)), turned(numbers(1, 5))),
    "one input": (whole(numbers(4, 1)), turned(numbers(7, 1))),
    "one number": (whole(numbers(1, 1)), whole(numbers(1, 1))),
}
READ_AS_THEY_LIE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def check(place, case, dtype):
    matmul, to, back = place
    (left, of_left), (right, of_right) = case
    left, right = left.astype(dtype), right.astype(dtype)
    product = matmul(of_left(to(left)), of_right(to(right)))
    expected = np.matmul(of_left(left), of_right(right))
    assert product.dtype == expected.dtype
    assert product.shape == expected.shape
    assert product.flags.c_contiguous
    bound = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(back(product), expected, rtol=bound, atol=bound)


@READ_AS_THEY_LIE
def test_a_product_is_numpys(place, case, dtype):
    check(place, case, dtype)


@READ_AS_THEY_LIE
def test_nothing_is_copied_and_one_call_is_all(cupy, cublas, case):
    matmul = Products(cupy, cublas).matmul
    (left, of_left), (right, of_right) = case
    left, right = of_left(cupy.asarray(left)), of_right(cupy.asarray(right))
    cupy.log.clear()
    matmul(left, right)
    assert cupy.log == ["gemm"]


def test_a_stack_beside_one_matrix_is_one_tall_product(cupy, cublas):
    left, right = cupy.asarray(numbers(3, 4, 7)), cupy.asarray(numbers(7, 5))
    Products(cupy, cublas).matmul(left, right)
    assert cublas.calls == [(5, 12, 7, 1, 70)]


@READ_AS_THEY_LIE
@pytest.mark.parametrize("way", ["dense", "in a gradient"])
def test_a_product_goes_where_it_is_to_go(place, case, way, dtype):
    matmul, to, back = place
    (left, of_left), (right, of_right) = case
    left, right = left.astype(dtype), right.astype(dtype)
    expected = np.matmul(of_left(left), of_right(right))
    size, leading = int(np.prod(expected.shape[-2:])), expected.shape[:-2]
    memory = to(np.zeros((*leading, size + 9), dtype))
    if way == "dense":
        memory = to(np.zeros((*leading, size), dtype))
        out = memory.reshape(expected.shape)
    else:
        out = memory[..., 5 : size + 5].reshape(expected.shape)
    assert matmul(of_left(to(left)), of_right(to(right)), out=out) is out
    bound = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(back(out), expected, rtol=bound, atol=bound)
    whole = back(memory)
    if way == "in a gradient":
        assert not whole[..., :5].any()
        assert not whole[..., size + 5 :].any()
        np.testing.assert_array_equal(whole[..., 5 : size + 5].reshape(out.shape), back(out))


UNREADABLE = {
    "every other column": (
        (numbers(4, 10), lambda array: array[:, ::2]),
        whole(numbers(5, 7)),
    ),
    "backwards": ((numbers(4, 5), lambda array: array[::-1]), whole(numbers(5, 7))),
    "one row for all": (
        (numbers(1, 5), lambda array: np.broadcast_to(array, (4, 5))),
        whole(numbers(5, 7)),
    ),
}


@pytest.mark.parametrize("case", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cublas_cannot_read_is_copied(place, case, dtype):
    check(place, case, dtype)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (numbers(4, 5), numbers(5)),
        (numbers(2, 3, 4, 5), numbers(5, 7)),
        (numbers(4, 0), numbers(0, 7)),
        (numbers(4, 5).astype("float16"), numbers(5, 7).astype("float16")),
        (numbers(4, 5), numbers(5, 7).astype("float32")),
    ],
    ids=["a vector", "four axes", "nothing", "half", "two dtypes"],
)
def test_the_rest_is_cupys(cupy, cublas, left, right):
    product = Products(cupy, cublas).matmul(cupy.asarray(left), cupy.asarray(right))
    np.testing.assert_array_equal(cupy.asnumpy(product), np.matmul(left, right))
    assert cublas.calls == []


class TestPrecision:
    @pytest.mark.parametrize(
        ("name", "compute"),
        [("", 68), ("float32", 68), ("TF32", 77), ("bfloat16", 75), ("float16", 74)],
    )
    def test_of_float32_is_the_users_choice(self, cupy, cublas, monkeypatch, name, compute):
        monkeypatch.setenv("GPUNET_PRODUCTS", name)
        matmul = Products(cupy, cublas).matmul
        single = cupy.asarray(numbers(4, 4), "float32")
        matmul(single, single)
        matmul(cupy.asarray(numbers(4, 4)), cupy.asarray(numbers(4, 4)))
        assert [call[-1] for call in cublas.calls] == [compute, 70]  # double precision stays so

    def test_an_unknown_one_is_told(self, cupy, cublas, monkeypatch):
        monkeypatch.setenv("GPUNET_PRODUCTS", "float8")
        single = cupy.asarray(numbers(4, 4), "float32")
        with pytest.raises(
            ValueError, match="one of float32, tf32, bfloat16, float16, not 'float8'"
        ):
            Products(cupy, cublas).matmul(single, single)

    @pytest.mark.parametrize("name", ["tf32", "bfloat16", "float16"])
    def test_operands_that_are_rounded_learn_digits_as_well(self, name):
        """Rounded on the processor to so many bits: within half a point, as an average over seeds."""
        X, y = load_digits(return_X_y=True)
        X = (X / 16.0).astype("float32")
        points = []
        for backend in (Rounding("float32"), Rounding(name)):
            networks = [
                MLPClassifier((64,), max_iter=25, random_state=seed, backend=backend)
                for seed in range(3)
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there could be more epochs
                scores = [
                    net.fit(X[:1_000], y[:1_000]).score(X[1_000:], y[1_000:]) for net in networks
                ]
            points.append(100.0 * np.mean(scores))
        assert abs(points[0] - points[1]) <= 0.5, points
        assert points[1] > 85.0  # of 1,000 examples, in 25 epochs

    def test_what_float16_cannot_hold_is_never_cut_off(self, place, monkeypatch):
        """A cut number would be wrong and finite, and so unseen: it is infinite, or as good as float32's."""
        monkeypatch.setenv("GPUNET_PRODUCTS", "float16")
        matmul, to, back = place
        left, right = np.full((64, 64), 1e5, "float32"), np.eye(64, dtype="float32")
        product = np.diag(back(matmul(to(left), to(right))))
        assert np.all(np.isnan(product) | np.isinf(product) | (np.abs(product - 1e5) < 100.0))

    def test_the_names_are_those_of_nvidias_bindings(self):
        cublas = pytest.importorskip("nvmath.bindings.cublas", reason="nvmath-python is missing")
        known = dict(cublas.ComputeType.__members__)
        assert {*PRECISIONS.values(), "COMPUTE_64F"} <= set(known)
        stand_in = cupy_on_cpu.CuBLAS.ComputeType
        assert all(known[name] == value for name, value in vars(stand_in).items())


class TestHandles:
    def test_each_thread_has_its_own(self, cupy, cublas):
        matmul, square = Products(cupy, cublas).matmul, cupy.asarray(numbers(4, 4))
        for _ in range(2):
            matmul(square, square)
        thread = threading.Thread(target=matmul, args=(square, square))
        thread.start()
        thread.join()
        assert list(cublas.handles) == [1, 2]
        gc.collect()
        assert cublas.destroyed == [2]

    def test_a_stream_is_set_and_its_workspace_after_it(self, cupy, cublas):
        matmul, square = Products(cupy, cublas).matmul, cupy.asarray(numbers(4, 4))
        matmul(square, square)
        assert cublas.handles[1]["workspace"] == (WORKSPACE, WORKSPACE)
        with cupy.cuda.Stream(non_blocking=True) as stream:
            matmul(square, square)
            assert cublas.handles[1]["stream"] == stream.ptr
            assert cublas.handles[1]["workspace"] is not None
        matmul(square, square)
        assert cublas.handles[1]["stream"] == 0
        cublas.set_stream(1, 99)  # as a stream that is gone may leave it
        matmul(square, square)
        assert cublas.handles[1] == {"stream": 0, "workspace": (WORKSPACE, WORKSPACE)}
