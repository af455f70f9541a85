"""A training step's program, replayed without Python, against the reference on the same numbers."""

import gc

import array_api_compat.numpy as xp
import numpy as np
import pytest

from gpunet import MLPClassifier, activations, losses, optimizers
from gpunet.backend import Backend, get_backend
from gpunet.lbfgs import CostStep
from gpunet.network import cost_and_gradient
from gpunet.primitives import Primitives

pytest.importorskip("numba", reason="numba isn't installed")

from gpunet.backends.numba_program import Program, Programs
from gpunet.backends.numba_recorder import Recorder
from gpunet.backends.numba_recording import _RECORDED
from program_helpers import epoch_of, step_of

HIDDEN = ["relu", "tanh", "sigmoid", "identity", "leaky_relu", "elu", "gelu", "silu"]
OUTPUTS = [
    ("softmax", losses.SoftmaxCrossEntropy()),
    ("softmax", losses.ClippedSoftmaxCrossEntropy()),
    ("sigmoid", losses.CrossEntropy()),
    ("sigmoid", losses.ClippedCrossEntropy()),
    ("identity", losses.SquaredError()),
    ("sigmoid", losses.SquaredError()),
    ("softmax", losses.SquaredError()),
    ("identity", losses.AveragedSquaredError()),
    ("identity", losses.MeanSquaredError()),
    ("identity", losses.AbsoluteError()),
    ("tanh", losses.Huber(0.5)),
    ("identity", losses.Quantile((0.1, 0.5, 0.9))),
    ("exp", losses.Poisson()),
]
RULES = ["gradient_descent", "momentum", "nesterov", "adam", "nadam", "adamw", "rmsprop"]


class OwnLoss(losses.SoftmaxCrossEntropy):
    pass


class OwnRule(optimizers.Adam):
    pass


@pytest.fixture(params=["single", "stacked", "stacked, own examples"])
def kind(request):
    return request.param


def compare(step, make, dtype, *, recorded=True):
    """Run two epochs as a program and by the reference."""
    carry, batches, data = make()
    programs = Programs(step)
    for _ in range(2):
        program = programs.find(carry, batches, data)
        assert (program is not None) == recorded
        if program is None:
            return
        carry = program.run(carry, batches, lambda: False)
    plain, batches, data = make()
    epoch = Backend.compile(get_backend("numpy"), step)
    for _ in range(2):
        plain = epoch(plain, batches, data, lambda: False)
    tolerance = {"float64": 1e-12, "float32": 2e-4}[dtype]
    pairs = [(carry[0], plain[0]), (carry[2], plain[2]), *zip(carry[1], plain[1], strict=True)]
    for mine, theirs in pairs:
        scale = max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * scale)
        assert mine.dtype == dtype


@pytest.mark.parametrize(
    ("output", "loss"), OUTPUTS, ids=lambda value: getattr(value, "name", value)
)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_program_computes_what_the_step_says(hidden, output, loss, kind, dtype):
    step = step_of(hidden, output, loss)
    l2 = 0.1 if kind == "single" else np.asarray([0.0, 0.1, 0.5], dtype)
    compare(step, epoch_of(step, kind, dtype, l2=l2), dtype)


@pytest.mark.parametrize("rule", RULES)
def test_its_optimizers(rule, kind, dtype):
    step = step_of("tanh", rule=rule)
    compare(step, epoch_of(step, kind, dtype), dtype)


@pytest.mark.parametrize("l2", [None, 0.0])
def test_without_decay(l2, dtype):
    step = step_of()
    compare(step, epoch_of(step, "single", dtype, l2=l2), dtype)


def test_a_minibatch_that_estimates_the_whole_cost(kind, dtype):
    step = step_of(whole=True)
    compare(step, epoch_of(step, kind, dtype), dtype)


@pytest.mark.parametrize("rule", ["adam", "nadam", "momentum"])
def test_networks_with_rules_of_their_own(rule, dtype):
    """One number of each network its own, as data."""
    step = step_of(rule=rule)
    make = epoch_of(step, "stacked", dtype)

    def with_settings():
        carry, batches, data = make()
        name = "momentum" if rule == "momentum" else "beta_1"
        own = {"optimizer": {name: np.asarray([[0.5], [0.8], [0.9]], dtype)}}
        return carry, batches, (*data, own)

    compare(step, with_settings, dtype)


@pytest.mark.parametrize("own", [False, True])
def test_weights(own, kind, dtype):
    """With some that are 0: the whole last minibatch's, too."""
    if own and kind == "single":
        pytest.skip("one network has no others to differ from")
    random = np.random.RandomState(1)
    weights = random.uniform(size=(3, 11) if own else 11).astype(dtype)
    weights[..., ::3] = 0.0
    for loss, output in (
        (losses.ClippedSoftmaxCrossEntropy(), "softmax"),
        (losses.SquaredError(), "identity"),
    ):
        step = step_of(output=output, loss=loss)
        compare(step, epoch_of(step, kind, dtype, weights=weights), dtype)
    step = step_of()
    compare(step, epoch_of(step, kind, dtype, weights=0.0 * weights), dtype)


@pytest.mark.parametrize("own", [False, True])
def test_clipped_gradients(own, kind, dtype):
    if own and kind == "single":
        pytest.skip("one network has no others to differ from")
    step = step_of(clip=0.3)
    make = epoch_of(step, kind, dtype)

    def with_settings():
        carry, batches, data = make()
        norms = np.asarray([[0.1], [0.5], [10.0]], dtype)
        return carry, batches, (*data, {"clip": norms} if own else {})

    compare(step, with_settings, dtype)


@pytest.mark.parametrize("own", [False, True])
def test_dropout_drops_the_same_units(own, kind, dtype):
    step = step_of("tanh", dropout=(0.3, 0.5))
    leading = () if kind == "single" else (3,)
    keys = np.random.RandomState(2).randint(2**32, size=(4, *leading))
    make = epoch_of(step, kind, dtype, keys=(keys,))

    def with_settings():
        carry, batches, data = make()
        if not own or not leading:
            return carry, batches, data
        rates = tuple(np.asarray([0.1, 0.5, 0.9]) for _ in range(2))
        return carry, batches, (*data, {"dropout": rates})

    compare(step, with_settings, dtype)


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "as they are"])
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize(
    ("output", "loss"), OUTPUTS[:5], ids=lambda value: getattr(value, "name", value)
)
def test_the_cost_of_all_examples(  # noqa: PLR0917  # a product of what may vary
    output, loss, weighted, copied, dtype, monkeypatch
):
    """L-BFGS's step: at every θ it is asked for, though one memory holds all its results."""
    monkeypatch.setattr(Recorder, "small", 2**15 if copied else 0)
    of = step_of("tanh", output, loss).architecture
    weights = np.linspace(0.5, 2.0, 11).astype(dtype) if weighted else None
    (theta, *_), _, data = epoch_of(step_of(), "single", dtype, weights=weights)()
    step = CostStep(of)
    programs = Programs(step)
    batches = (np.arange(11)[None, :],)
    for at in (theta, theta + 0.5):
        carry = (at.copy(), (np.full_like(at, np.nan),), np.asarray(np.nan, dtype))
        program = programs.find(carry, batches, data)
        same, (gradient,), J = program.run(carry, batches, lambda: False)
        x, y, _, l2 = data
        cost, plain = cost_and_gradient(of, at, x, y, Primitives(xp), l2=l2, weights=weights)
        tolerance = {"float64": 1e-12, "float32": 1e-4}[dtype]
        np.testing.assert_allclose(gradient, plain, rtol=0, atol=tolerance)
        np.testing.assert_allclose(J, cost, rtol=tolerance)
        np.testing.assert_array_equal(same, at)


def test_wide_examples_are_not_copied(dtype, monkeypatch):
    monkeypatch.setattr("gpunet.backends.numba_recording.Recorder.small", 8)
    step = step_of()
    compare(step, epoch_of(step, "single", dtype), dtype)
    compare(step, epoch_of(step, "stacked, own examples", dtype), dtype)


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden": "maxout:2"},
        {"hidden": activations.Custom(lambda xp, z: z, lambda xp, z, a: xp.ones_like(z))},
        {"loss": OwnLoss()},
        {"rule": OwnRule()},
    ],
    ids=["maxout", "activation", "loss", "rule"],
)
def test_what_is_the_users_own_is_left_to_others(changed, dtype):
    """It may be another at every call, and a program would never know."""
    step = step_of(**changed)
    compare(step, epoch_of(step, "single", dtype), dtype, recorded=False)


def test_examples_in_another_order_are_left_to_others(dtype):
    step = step_of()
    make = epoch_of(step, "single", dtype)

    def as_columns():
        carry, batches, (x, *rest) = make()
        return carry, batches, (np.ascontiguousarray(x), *rest)

    compare(step, as_columns, dtype, recorded=False)


def test_it_is_recorded_anew_for_other_data(dtype):
    step = step_of()
    carry, batches, data = epoch_of(step, "single", dtype)()
    programs = Programs(step)
    first = programs.find(carry, batches, data)
    assert programs.find(carry, batches, data) is first
    x, *rest = data
    assert programs.find(carry, batches, (x.copy(order="F"), *rest)) is not first


def test_it_can_be_stopped_between_minibatches(dtype):
    step = step_of()
    carry, batches, data = epoch_of(step, "single", dtype)()
    program = Programs(step).find(carry, batches, data)
    program._steps = 1  # as for a large network
    asked = []

    def stop():
        asked.append(True)
        return len(asked) > 2

    stopped = program.run(carry, batches, stop)
    plain, batches, data = epoch_of(step, "single", dtype)()
    two = tuple(array[:2] for array in batches)
    plain = Backend.compile(get_backend("numpy"), step)(plain, two, data, lambda: False)
    np.testing.assert_allclose(stopped[0], plain[0], rtol=0, atol=2e-5)
    assert len(asked) == 3


def test_numbers_that_are_not_finite_stay_so(dtype):
    step = step_of("sigmoid")
    make = epoch_of(step, "single", dtype)

    def diverged():
        carry, batches, data = make()
        carry[0][3] = np.nan
        carry[0][7] = np.inf
        return carry, batches, data

    carry, batches, data = diverged()
    ended = Programs(step).find(carry, batches, data).run(carry, batches, lambda: False)
    assert not np.isfinite(ended[2])


def test_a_fit_takes_it_where_it_is_worth_it(monkeypatch):
    taken = []
    find = Programs.find
    monkeypatch.setattr(
        Programs, "find", lambda self, *args: taken.append(find(self, *args)) or taken[-1]
    )
    random = np.random.RandomState(0)
    X, y = random.normal(size=(2000, 5)), random.randint(3, size=2000)
    model = MLPClassifier((8,), max_iter=3, random_state=0, batch_size=50, tol=0.0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        curve = model.fit(X, y).loss_curve_
    assert len(taken) == 2  # the first epoch, and those that are run ahead
    assert taken[0] is taken[1] is not None
    monkeypatch.setenv("GPUNET_NUMBA", "0")
    with pytest.warns(UserWarning, match="Maximum iterations"):
        plain = model.fit(X, y).loss_curve_
    assert len(taken) == 2
    np.testing.assert_allclose(curve, plain, rtol=1e-12)


@pytest.mark.parametrize("n", [200, 230], ids=["full batches", "a partial one"])
def test_a_long_run_of_short_epochs_goes_over_to_it(n, monkeypatch):
    monkeypatch.setattr("gpunet.backends.numpy._SPENT", 7.7e6)  # the seventh step: a partial batch
    monkeypatch.setattr("gpunet.training.AHEAD", 2e-4)  # an epoch or two at once
    taken = []
    find = Programs.find
    monkeypatch.setattr(
        Programs, "find", lambda self, *args: taken.append(args) or find(self, *args)
    )
    random = np.random.RandomState(0)
    X, y = random.normal(size=(n, 5)), random.randint(2, size=n)
    model = MLPClassifier((4,), max_iter=8, random_state=0, batch_size=200, tol=0.0)
    curves = []
    for setting in ("on", "0"):
        monkeypatch.setenv("GPUNET_NUMBA", setting)
        with pytest.warns(UserWarning, match="Maximum iterations"):
            curves.append(model.fit(X, y).loss_curve_)
    assert 0 < len(taken) < 8 * -(-n // 200)
    np.testing.assert_allclose(*curves, rtol=1e-12)


@pytest.mark.parametrize("last", [0, 3], ids=["full batches", "a partial one"])
def test_epochs_without_a_look_in_between(last, kind, dtype):
    """Several in one call are the same, bit for bit, as one after the other."""
    step = step_of()
    make = epoch_of(step, kind, dtype, steps=6)
    sizes = (7, last) if last else (7,)

    def parts():
        carry, (examples, *rates), data = make()
        more = [np.stack([array[:3], array[3:]]) for array in (examples, *rates)]
        return carry, [(more[0][..., :m].copy(), *more[1:]) for m in sizes], data

    backend = get_backend("numpy")
    carry, batches, data = parts()
    together, totals = Programs(step).replayed(carry, batches, data)
    carry, batches, data = parts()
    programs = Programs(step)

    def epoch(carry, batches, data, stop):
        return programs.find(carry, batches, data).run(carry, batches, stop)

    apart, expected = Backend.epochs(backend, epoch, carry, batches, data, lambda: False)
    np.testing.assert_array_equal(totals, expected)
    np.testing.assert_array_equal(together[2], apart[2])
    for mine, theirs in zip((together[0], *together[1]), (apart[0], *apart[1]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_epochs_that_threads_share_are_looked_at(monkeypatch):
    step = step_of()
    carry, batches, data = epoch_of(step, "single", "float64")()
    programs = Programs(step)
    monkeypatch.setattr(Program, "divides", lambda program, steps: True)
    parts = [tuple(array[None] for array in batches)]
    before = carry[0].copy()
    assert programs.replayed(carry, parts, data) is None
    np.testing.assert_array_equal(carry[0], before)


def test_the_same_step_and_data_are_recorded_once(dtype):
    """As for the folds of a search: copies have memory of their own, and nothing is kept for longer than a program."""
    step = step_of()
    first_carry, batches, data = epoch_of(
        step, "stacked", dtype, l2=np.asarray([0.0, 0.1, 0.5], dtype)
    )()
    others = [(*data[:3], l2) for l2 in (data[3].copy(), data[3] + np.asarray(1.0, dtype))]
    first = Programs(step).find(first_carry, batches, data)
    copied, other = (Programs(step).find(first_carry, batches, each) for each in others)
    assert copied.recording._constants is first.recording._constants
    assert copied.recording._arena != first.recording._arena
    assert other.recording._constants is not first.recording._constants
    found = []
    for program in (first, copied, other):
        carry = epoch_of(step, "stacked", dtype)()[0]
        found.append(program.run(carry, batches, lambda: False)[0])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    gc.collect()  # what other tests have left
    known = len(_RECORDED)
    del first, copied, other, program
    gc.collect()
    assert len(_RECORDED) == known - 2
