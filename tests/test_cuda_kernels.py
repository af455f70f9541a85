"""The CUDA kernels against the reference, on the same numbers.

Without a GPU the very same kernels run on the processor, compiled as C++ with a few lines in place of CUDA
(cuda_on_cpu.py). Every launch there is done twice, its threads in the one order and the other, between guards that tell
of a number read or written outside of an array. With a GPU the same tests run on it as well.
"""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import array_api_compat.numpy as numpy_xp
import numpy as np
import pytest
from gpunet.backends.cupy.layers import LayerPrimitives
from gpunet.backends.numpy import NumPyBackend

from gpunet import activations, losses, optimizers
from gpunet.backend import Backend, BackendUnavailableError, get_backend
from gpunet.dropout import key_of
from gpunet.network import Architecture
from gpunet.primitives import Primitives
from gpunet.stacks import Member, Stack

REFERENCE = Primitives(numpy_xp)
spec = importlib.util.spec_from_file_location(
    "cuda_on_cpu", Path(__file__).with_name("cuda_on_cpu.py")
)
cuda_on_cpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cuda_on_cpu)


@pytest.fixture(scope="session")
def on_processor(tmp_path_factory):
    """Return what launches kernels on the processor."""
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("there is no C++ compiler to compile the kernels with")
    return cuda_on_cpu.OnProcessor(cuda_on_cpu.compiled(tmp_path_factory.mktemp("cuda")))


@dataclass
class Place:
    """Where kernels run: their primitives, the names of those that were launched, and the way in and out."""

    primitives: LayerPrimitives
    launched: list
    to: callable
    back: callable

    def both(self, method, *arguments):
        """Return what a primitive returns here and what the reference does, on copies of the arguments."""
        self.launched.clear()
        fast = getattr(self.primitives, method)(*(self._copied(a, self.to) for a in arguments))
        plain = getattr(REFERENCE, method)(*(self._copied(a, np.copy) for a in arguments))
        return self._flat(fast, self.back), self._flat(plain, np.asarray)

    def _copied(self, value, to):
        if isinstance(value, View):
            return value.of(to(value.whole))
        if isinstance(value, tuple):
            return tuple(self._copied(part, to) for part in value)
        if isinstance(value, optimizers.Optimizer):
            return replace(value, **{n: self._copied(v, to) for n, v in vars(value).items()})
        return to(value) if isinstance(value, np.ndarray) else value

    def _flat(self, value, back):
        if isinstance(value, tuple):
            return [leaf for part in value for leaf in self._flat(part, back)]
        return [back(value)]


@dataclass
class View:
    """A part of an array, as a training step passes it on."""

    whole: np.ndarray
    of: callable


@pytest.fixture(params=["processor", "cupy"])
def place(request):
    """Return a `Place`, the GPU where there is one."""
    launched = []

    def noted(launch):
        def note(name, *rest):
            launched.append(name)
            launch(name, *rest)

        return note

    if request.param == "processor":
        launch = noted(request.getfixturevalue("on_processor"))
        yield Place(LayerPrimitives(numpy_xp, launch), launched, np.copy, np.asarray)
        return
    try:
        backend = get_backend("cupy")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with backend.active():
        launch = noted(backend.primitives._launch)
        primitives = LayerPrimitives(backend.xp, launch)
        yield Place(primitives, launched, backend.asarray, backend.to_host)


def numbers(shape, dtype, seed=0, scale=3.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def check(pair, dtype, roundings):
    """Compare arrays, up to so many roundings; none is bit for bit."""
    for fast, plain in zip(*pair, strict=True):
        assert fast.dtype == plain.dtype
        assert fast.shape == plain.shape
        if roundings == 0:
            np.testing.assert_array_equal(fast, plain)
        else:
            bound = roundings * np.finfo(dtype).eps
            np.testing.assert_allclose(fast, plain, rtol=bound, atol=bound)


LEADING = pytest.mark.parametrize("leading", [(), (3,)], ids=["single", "stack"])
EXACT = {"identity", "relu", "leaky_relu", "maxout"}
KINDS = [activations.get(name) for name in activations.KNOWN]
KINDS += [activations.LeakyReLU(0.3), activations.ELU(0.7), activations.Maxout(3)]
KIND = pytest.mark.parametrize("activation", KINDS, ids=lambda kind: f"{kind!r}"[:20])


def layer(activation, leading, dtype, units=21, m=37):
    """Return z of a layer and its biases, seen in parameters."""
    rows = units * activation.pieces
    z = numbers((*leading, rows, m), dtype)
    if activation.name != "exp":
        z[..., 0, :4] = [1e4, -1e4, 0.0, -0.0]
    z[..., 1, 5] = z[..., -1, 6] = np.nan  # maxout's first piece and its last
    theta = numbers((*leading, rows + 7), dtype, seed=1)
    return z, View(theta, lambda whole: whole[..., 3 : rows + 3])


class TestLayers:
    @LEADING
    @KIND
    def test_bias_and_activation(self, place, activation, leading, dtype):
        z, bias = layer(activation, leading, dtype)
        pair = place.both("activate", z, bias, activation)
        assert len(place.launched) == 1
        check(pair, dtype, 0 if activation.name in EXACT else 8)

    @LEADING
    @KIND
    def test_the_derivatives_factor(self, place, activation, leading, dtype):
        z, bias = layer(activation, leading, dtype)
        z, a = REFERENCE.activate(z, bias.of(bias.whole), activation)
        delta = numbers(a.shape, dtype, seed=2)
        pair = place.both("pull_back", delta, z, a, activation)
        assert len(place.launched) == (activation.name != "identity")
        check(pair, dtype, 0 if activation.name in EXACT else 256)  # 1 - tanh² cancels

    @pytest.mark.parametrize(("units", "m"), [(1, 1), (10, 300), (40, 5), (700, 70)])
    def test_softmax_of_any_shape(self, place, units, m, dtype):
        z, bias = numbers((2, units, m), dtype), numbers((2, units), dtype, seed=1)
        pair = place.both("activate", z, bias, activations.Softmax())
        check(pair, dtype, 16)
        z, a = pair[1]
        # a sum over units, less than its terms
        check(place.both("pull_back", z.copy(), z, a, activations.Softmax()), dtype, 64 + units)

    def test_ties_in_maxout_go_to_the_first_piece(self, place, dtype):
        z, a = np.zeros((6, 4), dtype), np.zeros((2, 4), dtype)
        pair = place.both("pull_back", numbers((2, 4), dtype), z, a, activations.Maxout(3))
        check(pair, dtype, 0)

    @LEADING
    @pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, "own"])
    def test_dropout(self, place, rate, leading, dtype):
        a = numbers((*leading, 19, 31), dtype)
        keys = np.array([key_of(seed, 7) for seed in (1, 2**31 - 2, 3)])
        key = keys if leading else keys[1]
        if rate == "own":
            rate = np.array([0.1, 0.5, 0.9]) if leading else np.array(0.3)
        check(place.both("drop", a, np.array(key), 2, rate), dtype, 0)
        assert len(place.launched) == 1


PAIRS = [
    (activations.Softmax(), losses.SoftmaxCrossEntropy()),
    (activations.Softmax(), losses.ClippedSoftmaxCrossEntropy()),
    (activations.Sigmoid(), losses.CrossEntropy()),
    (activations.Sigmoid(), losses.ClippedCrossEntropy()),
    (activations.Identity(), losses.SquaredError()),
    (activations.Identity(), losses.AveragedSquaredError()),
    (activations.Identity(), losses.MeanSquaredError()),
]


def transposed(rows):
    return rows.swapaxes(-1, -2)


def targets(loss, shape, dtype):
    """Return targets as a minibatch has them: rows of examples, seen as columns."""
    if isinstance(loss, losses.SoftmaxCrossEntropy):
        labels = np.random.default_rng(3).integers(shape[-2], size=(*shape[:-2], shape[-1]))
        return View(np.eye(shape[-2], dtype=dtype)[labels], transposed)
    rows = numbers((*shape[:-2], shape[-1], shape[-2]), dtype, seed=3)
    return View(rows if loss.domain[0] < 0 else (rows > 0).astype(dtype), transposed)


class TestOutput:
    @LEADING
    @pytest.mark.parametrize("m", [7, 300])  # one block of examples, and two
    @pytest.mark.parametrize("weighted", ["no", "shared", "own", "zero", "total", "weighted total"])
    @pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1].name)
    def test_cost_and_delta(  # noqa: PLR0917  # every combination
        self, place, pair, weighted, m, leading, dtype
    ):
        activation, loss = pair
        z, y = numbers((*leading, 10, m), dtype, scale=8), targets(loss, (*leading, 10, m), dtype)
        bias = View(numbers((*leading, 30), dtype, seed=1), lambda theta: theta[..., 20:])
        weights = {
            "no": None,
            "shared": np.abs(numbers((m,), dtype, seed=4)),
            "own": np.abs(numbers((*leading, m), dtype, seed=4)),
            "zero": np.zeros((m,), dtype),
            "total": None,
            "weighted total": np.abs(numbers((*leading, m), dtype, seed=4)),
        }[weighted]
        total = m + 3 if "total" in weighted else None
        both = place.both("output", z, bias, activation, loss, y, weights, total)
        sums = (m > 256) + (weighted in ("shared", "own", "zero"))
        assert len(place.launched) == 1 + sums
        check(both, dtype, 64)

    @pytest.mark.parametrize("units", [1, 17, 100, 700])
    @pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1].name)
    def test_any_number_of_units_with_targets_that_all_networks_share(
        self, place, pair, units, dtype
    ):
        activation, loss = pair
        y = targets(loss, (units, 45), dtype)
        z, bias = numbers((3, units, 45), dtype), numbers((3, units), dtype, seed=1)
        both = place.both("output", z, bias, activation, loss, y, None)
        assert place.launched[0].startswith("output")
        check(both, dtype, 64 + units)

    def test_far_out(self, place, dtype):
        z = np.array([[1e4, -1e4, 0.0, 80.0], [-1e4, 1e4, 0.0, -80.0]], dtype)
        y = np.array([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]], dtype)
        for activation, loss in PAIRS:
            bias = np.zeros(2, dtype)
            check(place.both("output", z, bias, activation, loss, y, None), dtype, 8)

    def test_what_is_not_a_number_stays_so(self, place, dtype):
        z = np.array([[1.0, np.nan], [2.0, 3.0]], dtype)
        for activation, loss in PAIRS:
            both = place.both(
                "output", z, z[:, 0].copy(), activation, loss, np.eye(2, dtype=dtype), None
            )
            check(both, dtype, 8)
            assert np.isnan(both[0][0])


INPUTS = pytest.mark.parametrize("sizes", [(1, 1, 1), (10, 33, 7), (17, 100, 40)], ids=str)


def into(kind, leading, inputs, m, dtype):
    """Return what goes into a layer: columns, or rows seen as columns, of each network's own or of all."""
    if kind == "columns":
        return numbers((*leading, inputs, m), dtype, seed=2)
    return View(
        numbers((*(leading if kind == "rows" else ()), m, inputs), dtype, seed=2), transposed
    )


def small_layer(sizes, leading, dtype):
    """Return Θ (rows, inputs) and biases, seen in θ."""
    rows, inputs, _ = sizes
    theta = numbers((*leading, rows * inputs + rows + 9), dtype, seed=1, scale=0.5)

    def weights(whole):
        return whole[..., 5 : 5 + rows * inputs].reshape(*leading, rows, inputs)

    return View(theta, weights), View(theta, lambda whole: whole[..., -rows:])


class TestWholeLayers:
    @LEADING
    @INPUTS
    @pytest.mark.parametrize("kind", ["columns", "rows", "shared rows"])
    @pytest.mark.parametrize("name", ["identity", "relu", "leaky_relu", "gelu"])
    def test_forward(self, place, name, kind, sizes, leading, dtype):  # noqa: PLR0917  # every combination
        Theta, bias = small_layer(sizes, leading, dtype)
        a = into(kind, leading, *sizes[1:], dtype)
        (z, fast), (z_plain, plain) = place.both("forward", Theta, a, bias, activations.get(name))
        assert len(place.launched) == 1
        told_from_z = name in {"leaky_relu", "gelu"}  # else a takes z's place
        both = [z, fast], [z_plain if told_from_z else plain, plain]
        check(both, dtype, 64 + 16 * sizes[1])

    @LEADING
    @INPUTS
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1].name)
    def test_output(self, place, pair, weighted, sizes, leading, dtype):  # noqa: PLR0917  # every combination
        (activation, loss), (units, inputs, m) = pair, sizes
        if units == 1 and activation.name == "softmax":
            return
        Theta, bias = small_layer(sizes, leading, dtype)
        a, y = (
            into("columns", leading, inputs, m, dtype),
            targets(loss, (*leading, units, m), dtype),
        )
        weights = np.abs(numbers((*leading, m), dtype, seed=4)) if weighted else None
        fast, plain = place.both("output_layer", Theta, a, bias, activation, loss, y, weights)
        assert len(place.launched) == 1 + weighted
        parts = fast[0]
        assert parts.shape == (*leading, -(-m // 16))
        check(([parts.sum(-1), fast[1]], plain), dtype, 64 + 64 * inputs)

    @LEADING
    def test_how_far_the_neighbours_of_one_unit_lie_apart_says_nothing(self, place, leading, dtype):
        """An axis of one number has any stride: 0 where it is new, and CuPy's reshape has a way of its own."""
        theta = numbers((*leading, 30), dtype, seed=1)
        Theta = View(theta, lambda whole: whole[..., None, 5:22])
        bias = View(theta, lambda whole: whole[..., 23:24])
        a = numbers((*leading, 17, 5), dtype)
        (_, fast), (_, plain) = place.both("forward", Theta, a, bias, activations.Tanh())
        check(([fast], [plain]), dtype, 64 + 16 * 17)
        assert len(place.launched) == 1
        y = View(numbers(70, dtype), lambda whole: transposed(whole[:, None]))
        x, chosen = View(numbers((70, 4), dtype), transposed), np.arange(23)
        check(place.both("minibatch", x, y, chosen), dtype, 0)
        assert len(place.launched) == 1

    def test_what_is_not_a_number_stays_in_its_column(self, place, dtype):
        Theta, bias = small_layer((3, 20, 20), (), dtype)
        a = numbers((20, 20), dtype)
        a[4, 17] = np.nan
        (z, _), plain = place.both("forward", Theta, a, bias, activations.Tanh())
        np.testing.assert_array_equal(np.isnan(z), np.isnan(plain[0]))
        assert np.isnan(z).sum() == 3

    @LEADING
    @pytest.mark.parametrize("examples", ["shared", "own"])
    @pytest.mark.parametrize(("d", "outputs"), [(1, 1), (50, 10)])
    def test_a_minibatch_bit_for_bit(self, place, d, outputs, examples, leading, dtype):  # noqa: PLR0917
        x, y = (View(numbers((70, n), dtype, seed=n), transposed) for n in (d, outputs))
        shape = (*(leading if examples == "own" else ()), 23)
        chosen = np.random.default_rng(0).integers(70, size=shape)
        check(place.both("minibatch", x, y, chosen), dtype, 0)
        assert len(place.launched) == 1

    @LEADING
    @pytest.mark.parametrize("parts", [0, 1, 13])
    @pytest.mark.parametrize("factor", [None, 1e-3, "own"])
    @pytest.mark.parametrize("n", [50, 20_000])
    def test_the_cost_of_a_step(self, place, n, factor, parts, leading, dtype):  # noqa: PLR0917
        theta = numbers((*leading, n + 9), dtype)
        cost = np.abs(numbers((*leading, *((parts,) if parts else ())), dtype, seed=1))
        if factor == "own":
            factor = np.abs(numbers(leading, dtype, seed=2)) if leading else np.array(0.25, dtype)
        total = np.array(numbers(leading, dtype, seed=3))
        place.launched.clear()
        told = (place.to(total), place.to(cost), 200, place.to(theta))
        more = (place.to(factor) if isinstance(factor, np.ndarray) else factor, n)
        fast = place.back(place.primitives.account(*told, *more))
        whole = cost.sum(-1) if parts else cost
        plain = REFERENCE.account(total.copy(), np.asarray(whole), 200, theta, factor, n)
        assert place.launched[-1].startswith("account")
        check(([fast], [np.asarray(plain)]), dtype, 2000 + n)

    @LEADING
    @pytest.mark.parametrize("own", [False, True])
    def test_decay_and_update_bit_for_bit(self, place, own, leading, dtype):
        shape, rate = (*leading, 300), numbers((*leading, 1) if leading else (), dtype, seed=5)
        theta, gradient, first, second = (numbers(shape, dtype, seed=s) for s in range(4))
        factor = np.abs(numbers((*leading, 1), dtype)) if own else 1e-3
        arguments = (theta, gradient, (first, np.abs(second)), factor, 280, np.array(rate))
        check(place.both("decay_and_update", optimizers.Adam(), *arguments), dtype, 0)
        assert len(place.launched) == 1

    def test_turns(self, place, dtype):
        random = np.random.default_rng(0)
        tables = (
            random.integers(99, size=(4, 3, 20)), random.integers(99, size=(4, 3)),
            random.normal(size=(4, 3, 1)).astype(dtype), random.normal(size=(4,)).astype(dtype),
        )  # fmt: skip
        for chosen in (tables, (tables[0], tables[2]), (tables[0], *tables[2:])):
            rows = tuple(place.to(np.zeros(table.shape[1:], table.dtype)) for table in chosen)
            given, at = tuple(map(place.to, chosen)), place.to(np.array(1))
            for k in (1, 2):
                assert place.primitives.turn(given, rows, at)
                assert int(place.back(at)) == k + 1
                for row, table in zip(rows, chosen, strict=True):
                    np.testing.assert_array_equal(place.back(row), table[k])
        long = place.to(np.zeros((2, 5000), np.int64))
        rate = place.to(np.zeros(2, dtype))
        assert not place.primitives.turn((long, rate), (long[0], rate[0, ...]), at)


class TestParameters:
    @LEADING
    @pytest.mark.parametrize("m", [1, 200, 3_000, 20_000])
    def test_bias_gradient(self, place, m, leading, dtype):
        both = place.both("bias_gradient", numbers((*leading, 5, m), dtype))
        assert len(place.launched) == 1 + (m > 2**13)
        check(both, dtype, 64 + m)

    @LEADING
    @pytest.mark.parametrize("n", [50, 40_000])
    def test_half_the_squared_weights(self, place, n, leading, dtype):
        theta = View(numbers((*leading, n + 9), dtype), lambda whole: whole[..., :n])
        both = place.both("half_square", theta)
        assert len(place.launched) == 1 + (n > 2**13)
        check(both, dtype, 64 + n)

    @LEADING
    @pytest.mark.parametrize("own", [False, True])
    def test_decay_of_weights(self, place, own, leading, dtype):
        gradient, theta = numbers((*leading, 300), dtype), numbers((*leading, 300), dtype, seed=1)
        factor = np.abs(numbers((*leading, 1), dtype)) if own else 1e-3
        check(place.both("decay", gradient, theta, factor, 280), dtype, 0)
        assert len(place.launched) == 1

    @LEADING
    @pytest.mark.parametrize("own", [False, True])
    @pytest.mark.parametrize("kind", [k for k in optimizers.KNOWN.values() if k.name != "lbfgs"])
    def test_every_update_is_the_references_bit_for_bit(self, place, kind, own, leading, dtype):
        networks, optimizer = leading or (1,), kind()
        if own and leading:
            more = {
                name: np.array([[value], [value * 0.9], [value * 0.5]], dtype)
                for name, value in vars(optimizer).items()
                if name not in ("learning_rate", "decay")
            }
            optimizer = kind(**more)
        theta, gradient = numbers((*leading, 700), dtype), numbers((*leading, 700), dtype, seed=1)
        slots = tuple(np.abs(numbers(theta.shape, dtype, seed=s)) for s in range(kind.n_slots))
        table = np.abs(numbers((2, *networks, 2), dtype, seed=9)) * 0.01
        rates = [
            View(table, lambda t, i=i: t[1, :, i, None] if leading else t[1, 0, i, ...])
            for i in (0, 1)
        ]
        rates = rates[: len(kind().rates(1, 0.1))]
        check(place.both("update", optimizer, theta, gradient, slots, *rates), dtype, 0)
        assert len(place.launched) == 1


class Own(activations.Sigmoid):
    """Somebody's own, which happens to be like one of gpunet's."""


class OwnLoss(losses.CrossEntropy):
    """The same for a loss."""


class OwnRule(optimizers.Momentum):
    """The same for an optimizer."""


class TestTheReferenceComputes:
    """What no kernel knows: none is launched, and the result is the reference's own."""

    @pytest.fixture(autouse=True)
    def nothing_is_launched(self, place):
        yield
        assert place.launched == []

    @pytest.mark.parametrize("activation", [Own(), activations.Custom(np.add, np.add)], ids=repr)
    def test_activations_of_ones_own(self, place, activation, dtype):
        if isinstance(activation, activations.Custom):
            activation = activations.Custom(lambda xp, z: z * z, lambda xp, z, a: 2.0 * z)
        z, bias = numbers((3, 4), dtype), numbers((3,), dtype)
        pair = place.both("activate", z, bias, activation)
        z, a = pair[1]
        check(pair, dtype, 8)
        check(place.both("pull_back", z.copy(), z, a, activation), dtype, 8)

    @pytest.mark.parametrize("optimizer", [OwnRule()], ids=repr)
    def test_optimizers_of_ones_own(self, place, optimizer, dtype):
        theta = numbers((5,), dtype)
        rate = np.array(0.1, dtype)
        check(place.both("update", optimizer, theta, theta + 1, (theta,), rate), dtype, 0)

    def test_numbers_on_the_host(self, place, dtype):
        theta = numbers((5,), dtype)
        rule = optimizers.GradientDescent()
        check(place.both("update", rule, theta, theta + 1, (), 0.1), dtype, 0)

    def test_networks_in_more_than_one_axis(self, place, dtype):
        z, bias = numbers((2, 2, 3, 4), dtype), numbers((2, 2, 3), dtype)
        check(place.both("activate", z, bias, activations.ReLU()), dtype, 0)

    def test_nothing_at_all(self, place, dtype):
        z, bias = numbers((3, 0), dtype), numbers((3,), dtype)
        check(place.both("activate", z, bias, activations.ReLU()), dtype, 0)

    def test_another_dtype(self, place):
        z, bias = numbers((3, 4), "float64"), numbers((3,), "float32")
        check(place.both("activate", z, bias, activations.ReLU()), "float64", 0)


@LEADING
@pytest.mark.parametrize("optimizer", [optimizers.Adam(), optimizers.Momentum()], ids=repr)
def test_networks_whose_step_is_no_good_stay_as_they_are(place, optimizer, leading, dtype):
    theta, gradient = numbers((*leading, 19), dtype), numbers((*leading, 19), dtype, seed=1)
    slots = tuple(numbers((*leading, 19), dtype, seed=2) ** 2 for _ in range(optimizer.n_slots))
    rates = [np.array(rate, dtype) for rate in optimizer.rates(3, 0.1)]
    good = np.array([[True], [False], [True]]) if leading else np.array([False])
    gradient[~np.broadcast_to(good, gradient.shape)] = np.nan
    pair = place.both("update_where", good, optimizer, theta, gradient, slots, *rates)
    assert len(place.launched) == 1
    check(pair, dtype, 0)
    for kept, before in zip(pair[0], (theta, *slots), strict=True):
        np.testing.assert_array_equal(kept[~good[..., 0]], before[~good[..., 0]])
        assert not np.isnan(kept).any()


@LEADING
def test_the_losses_scale_after_a_step(place, leading, dtype):
    factor = np.array([8.0, 8.0, 8.0, 2.0**24, 2.0**-24, 8.0], dtype)[:, None]
    steps = np.array([5.0, 1999.0, 1999.0, 1999.0, 0.0, np.nan], dtype)[:, None]
    good = np.array([True, True, False, True, False, True])[:, None]
    if not leading:
        factor, steps, good = factor[1], steps[1], good[1]
    check(place.both("rescale", (factor, steps), good), dtype, 0)
    assert len(place.launched) == 1


def test_kernels_go_round_where_a_grid_is_too_small(place, dtype, monkeypatch):
    """A grid has 65,535 rows at most; a stack may have more networks."""
    for room in ("launching", "layers", "updates", "primitives"):
        monkeypatch.setattr(f"gpunet.backends.cupy.{room}.ROWS", 2)
    z, bias = numbers((5, 7, 9), dtype), numbers((5, 7), dtype, seed=1)
    for activation in (activations.ReLU(), activations.Softmax()):
        check(place.both("activate", z, bias, activation), dtype, 16)
    y = np.abs(numbers((7, 9), dtype, seed=2))
    pair = activations.Softmax(), losses.SoftmaxCrossEntropy()
    check(place.both("output", z, bias, *pair, y, None), dtype, 64)
    keys = np.arange(5)
    check(place.both("drop", z, keys, 1, 0.3), dtype, 0)
    rule, rates = optimizers.GradientDescent(), np.linspace(0.1, 0.5, 5, dtype=dtype)[:, None]
    check(place.both("update", rule, bias, bias * 2, (), rates), dtype, 0)


@pytest.mark.parametrize(
    "pair",
    [
        (activations.Sigmoid(), OwnLoss()),
        (Own(), losses.CrossEntropy()),
        (activations.Sigmoid(), losses.SquaredError()),
        (activations.Identity(), losses.Huber()),
        (activations.Exponential(), losses.Poisson()),
    ],
    ids=repr,
)
def test_other_pairs_go_to_the_reference(place, pair, dtype):
    activation, loss = pair
    z, y = numbers((3, 4), dtype), np.abs(numbers((3, 4), dtype, scale=0.2))
    both = place.both("output", z, numbers((3,), dtype), activation, loss, y, None)
    assert not [name for name in place.launched if name.startswith("output")]
    check(both, dtype, 64)


class OnADevice(np.ndarray):
    """An array whose numbers nobody may ask for, as of one on a GPU nobody should."""

    def refuse(self, *_):
        raise AssertionError("a number was read back to the host")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = item = tolist = refuse


def on_a_device(value):
    """Return arrays, and what NumPy makes a scalar of, as `OnADevice`."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).view(OnADevice)
    return value


class DeviceNamespace:
    """NumPy's functions, their arrays as if on a device."""

    def __getattr__(self, name):
        found = getattr(numpy_xp, name)
        if isinstance(found, type) or not callable(found):
            return found
        return lambda *arguments, **keywords: on_a_device(found(*arguments, **keywords))


class OnKernels(NumPyBackend):
    """NumPy with the kernels for its primitives, its arrays as if on a device."""

    def __init__(self, launch):
        super().__init__()
        self.xp = DeviceNamespace()
        self.primitives = LayerPrimitives(self.xp, launch)

    compile = Backend.compile

    def asarray(self, values, dtype=None):
        return on_a_device(np.asarray(values, dtype=dtype))

    def to_host(self, array):
        return np.asarray(array)


def trained(backend, dtype, rules):
    """Train a stack of networks, each with rules of its own; return θ and costs."""
    random = np.random.RandomState(0)
    X, labels = random.normal(size=(70, 5)).astype(dtype), random.randint(3, size=70)
    layers = activations.ReLU(), activations.Maxout(2), activations.Softmax()
    architecture = Architecture((5, 8, 6, 3), layers, losses.SoftmaxCrossEntropy())
    thetas = random.normal(scale=0.3, size=(len(rules), architecture.n_parameters))
    members = [
        Member(
            backend.asarray(theta, dtype), optimizer, np.random.RandomState(seed), np.arange(70),
            l2=0.01 * seed, dropout=(0.1 * seed, 0.2), learning_rate=0.01,
        )
        for seed, (theta, optimizer) in enumerate(zip(thetas, rules, strict=True), start=1)
    ]  # fmt: skip
    asarray = backend.asarray
    stack = Stack(
        architecture, asarray(X, dtype).T, asarray(np.eye(3)[labels], dtype).T, members,
        backend=backend, batch_size=32,
    )  # fmt: skip
    costs = [backend.to_host(stack.run()) for _ in range(3)]
    return backend.to_host(stack.theta), costs


@pytest.mark.parametrize(
    "rules",
    [
        [optimizers.Adam()],
        [optimizers.Adam(), optimizers.Adam(beta_1=0.8), optimizers.Adam(epsilon=1e-4)],
        [optimizers.Nesterov(), optimizers.Nesterov(momentum=0.5)],
        [optimizers.AdamW(), optimizers.AdamW(decay=0.1)],
    ],
    ids=lambda rules: f"{len(rules)} {rules[0].name}",
)
def test_stacks_train_as_on_the_reference(request, rules, dtype, tolerance):
    """Where kernels and views meet: dropout, λ, rates and settings of each network's own."""
    kernels = OnKernels(request.getfixturevalue("on_processor"))
    plain = OnKernels(None)
    plain.primitives = Primitives(plain.xp)
    theta, costs = trained(kernels, dtype, rules)
    expected, expected_costs = trained(plain, dtype, rules)
    tolerance.check(np.stack(costs), np.stack(expected_costs))
    tolerance.check(theta, expected)
