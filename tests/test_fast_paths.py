"""The backends' fast paths against the reference primitives, on the same numbers."""

from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest
from gpunet.backends.numpy_primitives import NumPyPrimitives, Workspace

from gpunet import MLPClassifier, activations, losses, optimizers
from gpunet.backend import Backend, get_backend
from gpunet.network import Architecture, cost_and_gradient
from gpunet.primitives import Primitives
from gpunet.step import TrainingStep


@dataclass
class Fast:
    """A library's primitives of a step; `move` brings NumPy arrays to it, `start` begins a step."""

    primitives: Any
    move: Any = np.asarray

    def start(self):
        getattr(self.primitives, "start", lambda: None)()


@pytest.fixture(params=["numpy", "torch"])
def fast(request):
    if request.param == "numpy":
        return Fast(NumPyPrimitives(Workspace()))
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    from gpunet.backends.torch_primitives import StepPrimitives

    return Fast(StepPrimitives(), torch.from_numpy)


@pytest.fixture(params=[(), (3,)], ids=["single", "stacked"])
def leading(request):
    return request.param


HIDDEN = ["relu", "tanh", "sigmoid", "identity", "gelu", "maxout:2", "leaky_relu"]
OUTPUTS = [
    ("softmax", losses.SoftmaxCrossEntropy()),
    ("softmax", losses.ClippedSoftmaxCrossEntropy()),
    ("sigmoid", losses.CrossEntropy()),
    ("sigmoid", losses.ClippedCrossEntropy()),
    ("sigmoid", losses.SquaredError()),
    ("identity", losses.SquaredError()),
    ("tanh", losses.Huber(0.5)),
    ("exp", losses.Poisson()),
]


def problem(hidden, output, loss, leading, dtype, *, m=7):
    """Return an architecture and all that a step takes, the data's rows in memory as an estimator's are."""
    random = np.random.RandomState(0)
    chosen = (activations.get(hidden), activations.get(hidden), activations.get(output))
    architecture = Architecture((4, 6, 5, 3), chosen, loss)
    theta = random.normal(size=(*leading, architecture.n_parameters)).astype(dtype)
    x = random.normal(size=(11, 4)).astype(dtype).T
    y = np.eye(3)[random.randint(3, size=11)].astype(dtype)
    y[4] *= 0.5  # targets that don't sum to 1
    y = y.T
    weights = random.uniform(size=11).astype(dtype)
    shape = (*leading, m) if leading else (m,)
    return architecture, theta, x, y, weights, random.randint(11, size=shape)


def copied(array):
    return np.asarray(array).copy()


def close(actual, expected, dtype, scale=1.0):
    scale = max(scale, np.abs(expected).max())
    tolerance = {"float64": 1e-13, "float32": 2e-5}[dtype] * scale
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
    assert np.asarray(actual).dtype == dtype


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("output", "loss"), OUTPUTS, ids=lambda value: getattr(value, "name", value)
)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_cost_and_gradient(  # noqa: PLR0917  # a product of what may vary
    hidden, output, loss, weighted, leading, dtype, fast
):
    architecture, theta, x, y, weights, examples = problem(hidden, output, loss, leading, dtype)
    l2 = np.asarray([0.1, 0.2, 0.3], dtype) if leading else 0.1
    found = {}
    plain = Primitives(xp)
    arrays = theta, x, y, weights, examples, l2
    for name in ("plain", "fast", "again"):
        primitives = plain
        if name != "plain":
            primitives = fast.primitives
            fast.start()
            theta, x, y, weights, examples, l2 = (
                fast.move(each) if isinstance(each, np.ndarray) else each for each in arrays
            )
        w = primitives.gather_weights(weights, examples) if weighted else None
        J, gradient = cost_and_gradient(
            architecture,
            theta,
            primitives.gather(x, examples),
            primitives.gather(y, examples),
            primitives,
            l2=l2,
            weights=w,
        )
        found[name] = copied(J), copied(gradient)
    for name in ("fast", "again"):
        close(found[name][0], found["plain"][0], dtype)
        close(found[name][1], found["plain"][1], dtype)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "rule", ["gradient_descent", "momentum", "nesterov", "adam", "nadam", "adamw", "rmsprop"]
)
def test_steps(rule, shared, leading, dtype, fast):
    """Several steps, so that what one leaves in the memory of the next would show."""
    architecture, theta, x, y, _, examples = problem(
        "relu", "softmax", losses.ClippedSoftmaxCrossEntropy(), leading, dtype
    )
    optimizer = optimizers.get(rule, learning_rate=0.01)
    step = TrainingStep(architecture, optimizer, dropout=(0.2, 0.0))
    if leading and shared:
        examples = examples[0]
    key = np.asarray([1, 2, 3]) if leading else np.asarray(1)
    ends = []
    for one in (Fast(Primitives(xp)), fast):
        start = one.move(theta.copy())
        xs, ys = one.move(x), one.move(y)
        slots = tuple(one.move(slot) for slot in optimizer.start(xp, theta))
        carry = (start, slots, one.move(np.zeros(leading, dtype)))
        for number in range(1, 5):
            numbers = optimizer.rates(number, 0.01)
            rates = [np.full((*leading, 1) if leading else (), rate, dtype) for rate in numbers]
            one.start()
            batch = tuple(map(one.move, ((examples + number) % 11, key, *rates)))
            carry = step(one.primitives, carry, batch, (xs, ys, None, 0.1))
        ends.append([copied(carry[0]), [*map(copied, carry[1])], copied(carry[2])])
    close(ends[1][0], ends[0][0], dtype)
    close(ends[1][0] - theta, ends[0][0] - theta, dtype, scale=0.04)  # the steps that were taken
    close(ends[1][2], ends[0][2], dtype)
    for mine, theirs in zip(ends[1][1], ends[0][1], strict=True):
        close(mine, theirs, dtype)


@pytest.mark.parametrize(("shape", "own"), [((500,), False), ((3, 500), False), ((3, 500), True)])
def test_large_updates_are_made_in_blocks(shape, own, dtype):
    """Of one network, of a stack, and of a stack whose rules differ."""
    beta = np.asarray([[0.8], [0.9], [0.99]], dtype) if own else 0.9
    optimizer = optimizers.Adam(beta_1=beta)
    ends = []
    for primitives in (Primitives(xp), NumPyPrimitives()):
        random = np.random.RandomState(0)
        primitives.block = 64
        theta, gradient, m, v = (np.abs(random.normal(size=shape)).astype(dtype) for _ in range(4))
        rate = np.full((*shape[:-1], 1) if len(shape) > 1 else (), 0.1, dtype)
        ends.append(primitives.update(optimizer, theta, gradient, (m, v), rate))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("switch", ["0", "1"])
def test_a_fit_is_the_same_on_every_path(switch, monkeypatch):
    if switch == "1":
        pytest.importorskip("numba", reason="numba isn't installed")
    random = np.random.RandomState(0)
    X, y = random.normal(size=(203, 5)), random.randint(3, size=203)
    model = MLPClassifier((8,), max_iter=5, random_state=0, batch_size=50, tol=0.0)
    monkeypatch.setenv("GPUNET_NUMBA", switch)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        fitted = model.fit(X, y)
    curve = fitted.loss_curve_
    monkeypatch.setattr(type(get_backend("numpy")), "compile", Backend.compile)
    monkeypatch.setattr(get_backend("numpy"), "primitives", Primitives(xp))
    with pytest.warns(UserWarning, match="Maximum iterations"):
        plain = MLPClassifier((8,), max_iter=5, random_state=0, batch_size=50, tol=0.0).fit(X, y)
    np.testing.assert_allclose(curve, plain.loss_curve_, rtol=1e-12)
    np.testing.assert_allclose(fitted.coefs_[0], plain.coefs_[0], rtol=0, atol=1e-13)


def test_a_workspace_gives_the_same_memory_to_every_step():
    workspace = Workspace()
    first = [workspace.take((3, 4), "float64"), workspace.take((2,), "float32")]
    workspace.rewind()
    second = [workspace.take((3, 4), "float64"), workspace.take((2,), "float32")]
    assert all(a is b for a, b in zip(first, second, strict=True))
    assert second[0] is not second[1]
    workspace.rewind()
    other = workspace.take((3, 5), "float64")  # another shape gets memory of its own
    assert other.shape == (3, 5)
    assert not np.shares_memory(other, first[0])


def test_adam_is_as_exact_as_its_dtype(dtype, fast):
    """A second moment that is wrong by 1e-5 would not be seen in a few steps' parameters."""
    random = np.random.RandomState(0)
    optimizer = optimizers.Adam()
    for one in (Fast(Primitives(xp)), fast):
        random.seed(0)
        theta, gradient, m, v = (np.abs(random.normal(size=50)).astype(dtype) for _ in range(4))
        v *= 0
        theta, gradient, m, v, rate = map(one.move, (theta, gradient, m, v, np.asarray(0.1, dtype)))
        end = one.primitives.update(optimizer, theta, gradient, (m, v), rate)
        if one is not fast:
            expected = end
    rounding = 8 * np.finfo(dtype).eps
    for mine, theirs in zip((end[0], *end[1]), (expected[0], *expected[1]), strict=True):
        # what is left of θ where a step has cancelled most of it isn't as exact as the step
        lost = rounding if mine is end[0] else 0.0
        np.testing.assert_allclose(mine, theirs, rtol=rounding, atol=lost)


SETTINGS = [
    {"optimizer": optimizers.Adam()},
    {"optimizer": optimizers.AdamW(), "clip": 0.1},
    {"optimizer": optimizers.Nesterov(), "dropout": (0.2, 0.0), "whole": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["optimizer"].name)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_an_epoch_is_that_of_the_reference(library, settings, leading, dtype):
    """Two epochs through `compile`, of the rule's own numbers for each network of a stack."""
    pytest.importorskip(library, reason=f"{library} isn't installed")
    backend, random = get_backend(library), np.random.RandomState(0)
    architecture, theta, x, y, weights, _ = problem(
        "relu", "softmax", losses.SoftmaxCrossEntropy(), leading, dtype
    )
    step = TrainingStep(architecture, **settings)
    own = {"optimizer": {"epsilon": [[1e-8], [1e-6], [1e-4]]}} if leading else {}
    if "momentum" in vars(step.optimizer):
        own = {"optimizer": {"momentum": [[0.0], [0.5], [0.9]]}} if leading else {}
    examples = random.randint(11, size=(4, *leading, 5))
    rates = np.full((4, *leading, 1) if leading else (4,), 0.01, dtype)
    batches = (examples, *[rates] * len(step.optimizer.rates(1, 0.01)))
    if step.dropout:
        batches = (examples, np.arange(4 * (3 if leading else 1)).reshape(4, *leading), rates)
    ends = []
    for one in (get_backend("numpy"), backend):
        with one.active():
            numbers = {
                name: one.asarray(np.asarray(values, dtype))
                for name, values in own.get("optimizer", {}).items()
            }
            data = (
                one.xp.matrix_transpose(one.asarray(np.ascontiguousarray(x.T))),
                one.xp.matrix_transpose(one.asarray(np.ascontiguousarray(y.T))),
                one.asarray(weights),
                0.1,
                {"optimizer": numbers} if numbers else {},
            )
            start = one.asarray(theta.copy())
            carry = (
                start,
                step.optimizer.start(one.xp, start),
                one.asarray(np.zeros(leading, dtype)),
            )
            epoch = one.compile(step) if one is backend else Backend.compile(one, step)
            for _ in range(2):
                carry = epoch(carry, tuple(map(one.asarray, batches)), data, lambda: False)
            ends.append([one.to_host(part) for part in (carry[0], *carry[1], carry[2])])
    for mine, theirs in zip(ends[1], ends[0], strict=True):
        close(mine, theirs, dtype)
