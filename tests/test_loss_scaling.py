"""Loss scaling: exact where nothing leaves the range, steps that leave it change nothing, and float16 learns by it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from gpunet.backends.cupy import CuPyBackend

from gpunet import MLPClassifier, loss_scaling
from gpunet.activations import ReLU, Softmax
from gpunet.losses import SoftmaxCrossEntropy
from gpunet.network import Architecture, cost_and_gradient
from gpunet.optimizers import Adam, Momentum
from gpunet.stacks import Member, Stack
from gpunet.step import TrainingStep

SIZES, N = (5, 8, 3), 24
ARCHITECTURE = Architecture(SIZES, (ReLU(), Softmax()), SoftmaxCrossEntropy())


def module_beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data(backend, dtype):
    random = np.random.RandomState(0)
    X, y = random.normal(size=(N, 5)), np.eye(3)[random.randint(3, size=N)]
    transpose = backend.xp.matrix_transpose
    return (*(transpose(backend.asarray(part, dtype)) for part in (X, y)), None, 0.1)


def begun(backend, dtype, networks, factor=None, steps=0.0):
    """Return θ, Adam's memory, the cost and the scale, of as many networks."""
    xp = backend.xp
    theta = np.random.RandomState(1).normal(size=(networks, ARCHITECTURE.n_parameters)) / 3
    theta = backend.asarray(theta, dtype)
    scale = loss_scaling.start(backend.xp, theta)
    if factor is not None:
        scale = backend.asarray(factor, dtype), scale[1] + steps
    return theta, Adam().start(xp, theta), theta[:, 0] * 0.0, scale


def stepped(backend, dtype, carry, *, scaled, **settings):
    step = TrainingStep(ARCHITECTURE, Adam(), scaled=scaled, **settings)
    examples = backend.asarray(np.arange(N), "int64")
    rates = (backend.asarray(0.01, dtype),)
    return step(backend.primitives, carry, (examples, *rates), data(backend, dtype))


@pytest.mark.parametrize("settings", [{}, {"clip": 0.1}, {"whole": True}, {"parts": 4}])
def test_a_scaled_step_is_the_very_step(backend, settings):
    """To multiply by powers of 2 rounds nothing."""
    dtype = "float32"
    theta, slots, cost, scale = begun(backend, dtype, 2)
    copied = backend.xp.asarray(theta, copy=True), Adam().start(backend.xp, theta), cost + 0.0
    plain = stepped(backend, dtype, copied, scaled=False, **settings)
    scaled = stepped(backend, dtype, (theta, slots, cost, scale), scaled=True, **settings)
    to_host = backend.to_host
    if backend.name == "jax":
        np.testing.assert_allclose(to_host(scaled[0]), to_host(plain[0]), rtol=1e-6)
    else:
        np.testing.assert_array_equal(to_host(scaled[0]), to_host(plain[0]))
        np.testing.assert_array_equal(to_host(scaled[1][0]), to_host(plain[1][0]))
    np.testing.assert_array_equal(to_host(scaled[2]), to_host(plain[2]))
    assert to_host(scaled[3][1]).tolist() == [[1.0], [1.0]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # that it overflows
def test_a_step_that_leaves_the_range_changes_nothing_but_its_networks_scale(backend):
    """The first of two networks has a factor that float32 can't bear."""
    theta, slots, cost, scale = begun(backend, "float32", 2, [[2.0**127], [8.0]])
    scale = scale[0] * backend.asarray([[2.0], [1.0]], "float32"), scale[1] + 5.0
    before = backend.to_host(theta).copy()
    theta, slots, cost, scale = stepped(
        backend, "float32", (theta, slots, cost, scale), scaled=True
    )
    after = backend.to_host(theta)
    np.testing.assert_array_equal(after[0], before[0])
    assert np.all(backend.to_host(slots[0])[0] == 0.0)
    assert np.any(after[1] != before[1])
    assert np.isfinite(backend.to_host(cost)).all()
    assert backend.to_host(scale[1]).tolist() == [[0.0], [6.0]]


@pytest.mark.parametrize(
    ("factor", "steps", "good", "expected"),
    [
        (8.0, 0.0, True, (8.0, 1.0)),
        (8.0, 1998.0, True, (8.0, 1999.0)),
        (8.0, 1999.0, True, (16.0, 0.0)),
        (8.0, 1999.0, False, (4.0, 0.0)),
        (2.0**24, 1999.0, True, (2.0**24, 0.0)),
        (2.0**-24, 3.0, False, (2.0**-24, 0.0)),
    ],
)
def test_the_factor_grows_after_many_good_steps_and_halves_after_a_bad_one(
    backend,
    factor,
    steps,
    good,
    expected,
):
    scale = backend.asarray([factor], "float32"), backend.asarray([steps], "float32")
    found = loss_scaling.after(backend.xp, scale, backend.asarray([good], "bool"))
    assert tuple(float(backend.to_host(part)[0]) for part in found) == expected


class TestHalf:
    """Products whose operands are float16, on the processor."""

    @pytest.fixture
    def products(self):
        return module_beside("test_cuda_products")

    @pytest.mark.parametrize(("scale", "lost"), [(None, 1.0), (2.0**16, 1e-3)])
    def test_small_deltas_vanish_without_it(self, products, scale, lost):
        """Of a hundred million examples: δ is below float16's smallest number."""
        exact, half = products.Rounding("float32"), products.Rounding("float16")
        theta, *_ = begun(exact, "float32", 1)
        x, y, *_ = data(exact, "float32")
        gradients = [
            cost_and_gradient(ARCHITECTURE, theta[0], x, y, primitives, total=1e8, scale=factor)[1]
            for primitives, factor in ((exact.primitives, None), (half.primitives, scale))
        ]
        expected, gradient = (part[: ARCHITECTURE.n_weights] for part in gradients)
        error = np.abs(gradient - expected).max() / np.abs(expected).max()
        assert lost / 2 <= error if scale is None else error < lost

    def test_an_estimator_finds_a_factor_that_is_small_enough(self, products, monkeypatch):
        monkeypatch.setattr(loss_scaling, "FIRST", 2.0**24)
        backend = products.Rounding("float16")
        factors = []
        after = loss_scaling.after

        def noted(xp, scale, good):
            factors.append(float(scale[0][0]))
            return after(xp, scale, good)

        monkeypatch.setattr("gpunet.primitives.after", noted)
        random = np.random.RandomState(0)
        X = random.normal(size=(60, 5)).astype("float32")
        y = X[:, :3].argmax(axis=1)
        network = MLPClassifier(
            (8,),
            batch_size=10,
            max_iter=20,
            learning_rate_init=0.01,
            random_state=0,
            backend=backend,
        )
        with pytest.warns(UserWarning, match="Maximum iterations"):
            network.fit(X, y)
        assert factors[0] == 2.0**24
        assert factors[-1] < 2.0**21  # 0.1 · 2²⁰ is over 65,504
        assert network.score(X, y) > 0.8
        assert np.isfinite(network.coefs_[0]).all()

    def test_lbfgs_takes_a_fixed_factor(self, products, monkeypatch):
        backend, factors = products.Rounding("float16"), []

        def noted(*arguments, scale, **rest):
            factors.append(scale)
            return cost_and_gradient(*arguments, scale=scale, **rest)

        monkeypatch.setattr("gpunet.lbfgs.cost_and_gradient", noted)
        random = np.random.RandomState(0)
        X = random.normal(size=(100, 5)).astype("float32")
        y = X[:, :3].argmax(axis=1)
        settings = {"solver": "lbfgs", "tol": 1e-3, "random_state": 0}
        network = MLPClassifier((8,), backend=backend, **settings).fit(X, y)
        assert set(factors) == {128.0}  # above m = 100: δ is at most 1.28
        assert network.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("products", "dtype", "rounds", "scales"),
    [
        ("float16", "float32", True, True),
        ("float16", "float64", True, False),
        ("float16", "float32", False, False),  # without nvmath-python
        ("bfloat16", "float32", True, False),
    ],
)
def test_cupys_backend_scales_where_products_round(monkeypatch, products, dtype, rounds, scales):
    monkeypatch.setenv("GPUNET_PRODUCTS", products)
    backend = CuPyBackend.__new__(CuPyBackend)
    backend._rounds = rounds
    assert backend.scales_losses(dtype) is scales


@pytest.fixture
def stand_in(monkeypatch):
    """Return how to make a CuPy backend over the stand-ins that multiplies as float16."""
    graphs = module_beside("test_cuda_graphs")
    monkeypatch.setenv("GPUNET_PRODUCTS", "float16")
    return graphs


@pytest.mark.parametrize("name", ["adam", "momentum", "sample weights", "dropout", "clipped"])
def test_graphs_scale_as_launches_do(stand_in, name):
    run, backend = stand_in.RUNS[name], stand_in.StandIn()
    theta, costs = run.trained(backend, "float32")
    plain, plain_costs = run.trained(stand_in.StandIn(graphs=False), "float32")
    np.testing.assert_array_equal(theta, plain)
    np.testing.assert_array_equal(costs, plain_costs)
    assert backend.cupy.graphs, "nothing was captured"
    exact, _ = run.trained(stand_in.get_backend("numpy"), "float32")
    assert 0.0 < np.abs(theta - exact).max() < 0.05


def test_graphs_leave_bad_steps_out_without_a_look_from_the_host(stand_in, monkeypatch):
    """From a factor far too large: the host reads nothing within an epoch, and the first steps change nothing."""
    monkeypatch.setattr(loss_scaling, "FIRST", 2.0**40)
    monkeypatch.setattr(loss_scaling, "LARGEST", 2.0**40)
    backend = stand_in.StandIn()
    with backend.active():
        epochs, state = stand_in.Run(n=48).begin(backend, "float32")
        before = backend.to_host(state.theta)
        epochs.run(state, 0.1)
        np.testing.assert_array_equal(backend.to_host(state.theta), before)
        assert backend.to_host(state.scale[0]) == 2.0**37
        for _ in range(6):
            epochs.run(state, 0.1)
        after = backend.to_host(state.theta)
    assert np.isfinite(after).all()
    assert np.any(after != before)


def test_networks_of_a_stack_have_scales_of_their_own(stand_in):
    """One whose inputs are large halves its factor; the other is as alone."""

    def members(backend, which):
        random = np.random.RandomState(5)
        thetas = random.normal(size=(2, ARCHITECTURE.n_parameters)).astype("float32") / 3
        thetas[0] *= 3000.0
        return [
            Member(
                backend.asarray(thetas[k]), Momentum(), np.random.RandomState(k), np.arange(N),
                learning_rate=1e-4,
            )
            for k in which
        ]  # fmt: skip

    results = []
    for which in ([0, 1], [1]):
        backend = stand_in.StandIn()
        with backend.active():
            x, y, *_ = data(backend, "float32")
            stack = Stack(
                ARCHITECTURE, x, y, members(backend, which), backend=backend, batch_size=8
            )
            for _ in range(3):
                stack.run()
            if len(which) == 2:
                factors = backend.to_host(stack._scale[0])[:, 0]
                stack.keep([1])
                assert stack._scale[0].shape == (1, 1)
            results.append(backend.to_host(stack.theta)[-1])
    assert factors[0] < factors[1] == loss_scaling.FIRST
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
