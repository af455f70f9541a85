"""Backpropagation against numerical differentiation: every loss, output, hidden activation and λ."""

import numpy as np
import pytest

from gpunet import Network, activations, initializers, losses
from gpunet.gradient_check import check_gradient

HIDDEN = tuple(name for name in activations.KNOWN if name not in ("softmax", "exp"))
HIDDEN = (*HIDDEN, "elu:0.5")


def fits(loss, output):
    """Return whether a loss takes what an output activation gives."""
    (low, high), (lowest, highest) = activations.get(output).range, losses.get(loss).domain
    return lowest <= low and high <= highest


PAIRS = [
    (loss, output)
    for loss in losses.KNOWN
    for output in (*HIDDEN, "softmax", "exp")
    if fits(loss, output)
]
CANONICAL = [(loss.name, loss.canonical) for loss in losses.KNOWN.values()]
# every pair with one hidden activation, and every hidden activation with each canonical pair
COMBINATIONS = [("tanh", *pair) for pair in PAIRS]
COMBINATIONS += [(hidden, *pair) for hidden in HIDDEN if hidden != "tanh" for pair in CANONICAL]

with_lambda = pytest.mark.parametrize("l2", [0.0, 0.7], ids="l2={}".format)

M = 5
X = np.random.RandomState(1).normal(size=(M, 3))
# rows of positive numbers that sum to 1: they suit every loss
Y = np.random.RandomState(2).dirichlet(np.ones(2), M)
WEIGHTS = np.array([0.5, 2.0, 0.0, 1.0, 3.5])


def make(backend, hidden="tanh", loss="cross_entropy", output=None, *, sizes=(3, 4, 2)):
    """Return a network with random weights and biases; this seed keeps z away from kinks."""
    options = {"init": initializers.Normal(0.5), "seed": 3, "backend": backend}
    return Network(sizes, hidden=hidden, loss=loss, output=output, **options)


def assert_exact(checks, *, kinks=0):
    """Refuse a check that found a difference, compared too little or nothing at all."""
    assert sum(check.kinks for check in checks) <= kinks
    assert all(check.compared > 0 for check in checks)
    assert max(check.difference for check in checks) < 2e-7, "\n".join(map(str, checks))


class TestEveryCost:
    """The gradient is the exact derivative of the reported cost."""

    @with_lambda
    @pytest.mark.parametrize("hidden", HIDDEN)
    @pytest.mark.parametrize(("loss", "output"), PAIRS)
    def test_backpropagation_is_the_derivative_of_the_cost(self, loss, output, hidden, *, l2):
        assert_exact(make("numpy", hidden, loss, output).check_gradient(X, Y, l2=l2))

    @with_lambda
    @pytest.mark.parametrize(("hidden", "loss", "output"), COMBINATIONS)
    def test_it_is_so_on_every_backend(self, backend, hidden, loss, output, *, l2):
        assert_exact(make(backend, hidden, loss, output).check_gradient(X, Y, l2=l2))

    @pytest.mark.parametrize(("hidden", "loss", "output"), COMBINATIONS)
    def test_with_sample_weights(self, backend, hidden, loss, output):
        network = make(backend, hidden, loss, output)
        assert_exact(network.check_gradient(X, Y, l2=0.7, sample_weight=WEIGHTS))

    @pytest.mark.parametrize(("loss", "output"), CANONICAL)
    def test_without_a_hidden_layer(self, backend, loss, output):
        network = make(backend, "tanh", loss, output, sizes=(3, 2))
        assert_exact(network.check_gradient(X, Y, l2=0.7))

    @pytest.mark.parametrize(("loss", "output"), CANONICAL)
    def test_with_many_hidden_layers_each_of_another_kind(self, backend, loss, output):
        hidden = ["elu", "softmax", "maxout:3"]
        network = make(backend, hidden, loss, output, sizes=(3, 4, 3, 3, 2))
        assert_exact(network.check_gradient(X, Y, l2=0.7))

    @pytest.mark.parametrize(("loss", "output"), CANONICAL)
    def test_in_float32_the_check_computes_in_double_precision(self, backend, loss, output):
        network = Network(
            [3, 4, 2], loss=loss, output=output, dtype="float32", seed=3, backend=backend
        )
        before = network.thetas
        assert_exact(network.check_gradient(X, Y, l2=0.7))
        assert network.dtype == "float32"
        assert [Theta.dtype for Theta in network.thetas] == ["float32"] * 2
        assert all((a == b).all() for a, b in zip(network.thetas, before, strict=True))


class TestIndependently:
    """The same without gpunet's own check: plain central differences of `Network.cost`."""

    @pytest.mark.parametrize("hidden", ["tanh", "maxout"])
    @pytest.mark.parametrize(("loss", "output"), PAIRS)
    def test_central_differences_of_the_reported_cost(self, loss, output, hidden):
        network, moved = (make("numpy", hidden, loss, output) for _ in range(2))
        options = {"l2": 0.7, "sample_weight": WEIGHTS}
        split = network.architecture.split
        expected = network.gradient(X, Y, **options)
        step, numerical = 1e-5, np.empty(network.theta.shape)
        for i in range(numerical.size):
            unit = step * (np.arange(numerical.size) == i)
            costs = []
            for side in (unit, -unit):
                moved.theta = network.theta + side
                costs.append(moved.cost(X, Y, **options))
            numerical[i] = (costs[0] - costs[1]) / (2 * step)
        found = [np.column_stack([b, D]) for D, b in split(network.backend.xp, numerical)]
        for D, N in zip(expected, found, strict=True):
            np.testing.assert_allclose(D, N, rtol=1e-6, atol=1e-7)


def scaled(factor):
    """Return a tanh whose g' is wrong by a factor, which may differ from unit to unit."""
    return activations.Custom(
        lambda xp, z: xp.tanh(z), lambda xp, z, a: factor * (1.0 - a * a), name="wrong"
    )


class TestItFindsMistakes:
    @pytest.mark.parametrize(
        ("hidden", "wrong"),
        [
            ([scaled(1.01), "tanh", "tanh"], [1]),
            (["tanh", scaled(1.01), "tanh"], [1, 2]),
            (["tanh", "tanh", scaled(1.01)], [1, 2, 3]),
        ],
        ids=["layer 2", "layer 3", "layer 4"],
    )
    def test_a_wrong_derivative_shows_in_the_layers_below_it(self, backend, hidden, wrong):
        # a wrong g' of layer l spoils δ⁽ˡ⁾, and so D⁽ˡ⁻¹⁾ and all below
        network = make(backend, hidden, sizes=(3, 4, 3, 3, 2))
        checks = network.check_gradient(X, Y)
        assert [check.layer for check in checks] == [1, 2, 3, 4]
        assert [check.layer for check in checks if check.difference > 1e-3] == wrong
        assert all(check.difference < 1e-7 for check in checks if check.layer not in wrong)
        assert checks[wrong[-1] - 1].difference == pytest.approx(1 - 1 / 1.01, rel=1e-4)

    def test_a_wrong_derivative_of_the_output_shows_everywhere(self, backend):
        network = make(backend, "tanh", "squared_error", scaled(0.9))
        checks = network.check_gradient(X, Y)
        assert [check.difference > 1e-3 for check in checks] == [True] * 2

    @pytest.mark.parametrize("unit", [0, 2, 3])
    def test_the_row_of_a_wrong_unit_is_named(self, backend, unit):
        factor = backend.asarray(np.where(np.arange(4) == unit, 0.5, 1.0)[:, None])
        check, above = make(backend, scaled(factor)).check_gradient(X, Y)
        assert check.row == unit
        assert check.backpropagation == pytest.approx(0.5 * check.numerical, rel=1e-6)
        assert above.difference < 1e-7

    def test_a_mistake_near_kinks_is_still_found(self, backend):
        wrong = activations.Custom(
            lambda xp, z: xp.maximum(z, 0.0),
            lambda xp, z, a: 0.5 * xp.astype(z > 0.0, z.dtype),
            name="half",
        )
        checks = make(backend, wrong).check_gradient(X, Y)
        assert checks[0].difference == pytest.approx(0.5, abs=1e-6)

    @pytest.mark.parametrize("name", ["identity", "sigmoid", "softmax"])
    @pytest.mark.parametrize("loss", ["cross_entropy", "softmax_cross_entropy", "squared_error"])
    def test_an_activation_of_ones_own_is_not_taken_for_its_namesake(self, backend, name, loss):
        # g(z) = 1/2 + tanh(z/4)/2, by any name
        own = activations.Custom(
            lambda xp, z: 0.5 + 0.5 * xp.tanh(0.25 * z),
            lambda xp, z, a: 0.5 * a * (1.0 - a),
            name=name,
            range=(0.0, 1.0),
        )
        network = make(backend, "tanh", loss, own)
        h = network.forward(X)
        assert_exact(network.check_gradient(X, Y))
        if loss == "squared_error":
            assert network.cost(X, Y) == pytest.approx(0.5 * ((h - Y) ** 2).sum() / M, rel=1e-12)

    def test_a_check_reads_well(self):
        wrong, _ = make("numpy", scaled(1.1)).check_gradient(X, Y)
        assert str(wrong).startswith("Theta1: largest relative difference 9.1e-02 at row ")
        assert str(wrong).endswith("(16 compared)")


class TestKinks:
    """Where the cost has a kink there is no derivative to compare with."""

    # a⁽²⁾ = g(z), z = 0 for the first unit whatever its weight; the second is away from its kink
    THETAS = (((0.0, 1.0), (0.5, 1.0)), ((0.25, 1.0, -1.0),))

    @pytest.mark.parametrize("hidden", ["relu", "leaky_relu", "elu:0.5"])
    def test_parameters_at_a_kink_are_counted_and_left_out(self, hidden):
        network = Network.from_thetas(self.THETAS, hidden=hidden, backend="numpy")
        first, second = network.check_gradient([[0.0], [0.0]], [1.0, 0.0])
        # the first unit's bias moves z across 0; x = 0 hides its weight
        assert (first.kinks, first.compared) == (1, 3)
        assert (second.kinks, second.compared) == (0, 3)
        assert first.difference < 1e-7
        assert "1 at kinks left out" in str(first)
        assert "kinks" not in str(second)

    def test_a_kink_nearer_than_epsilon_is_found(self):
        thetas = (((3e-5, 1.0), (0.5, 1.0)), ((0.25, 1.0, -1.0),))
        network = Network.from_thetas(thetas, hidden="relu", backend="numpy")
        first, _ = network.check_gradient([[0.0], [0.0]], [1.0, 0.0])
        assert (first.kinks, first.compared) == (1, 3)
        assert first.difference < 1e-7

    def test_the_tie_of_a_maxout_is_found(self):
        # two pieces of one unit, the same at x = 1: z = (1, 1); x = 2 gives (2, 1)
        thetas = (((0.0, 1.0), (1.0, 0.0)), ((0.25, 1.0),))
        network = Network.from_thetas(thetas, hidden="maxout", backend="numpy")
        first, _ = network.check_gradient([[1.0], [2.0]], [1.0, 0.0])
        assert (first.kinks, first.compared) == (4, 0)
        assert np.isnan(first.difference)

    @pytest.mark.parametrize(("loss", "output"), CANONICAL)
    @pytest.mark.parametrize("hidden", ["relu", "leaky_relu", "elu:0.5", "maxout"])
    def test_xor_with_biases_of_0_is_no_false_alarm(self, hidden, loss, output):
        # x = (0, 0) puts every hidden unit on its kink
        network = Network(
            [2, 4, 2], hidden=hidden, loss=loss, output=output, seed=0, backend="numpy"
        )
        Y = [[1, 0], [0, 1], [0, 1], [1, 0]]
        checks = network.check_gradient([[0, 0], [0, 1], [1, 0], [1, 1]], Y)
        assert_exact(checks, kinks=10)
        assert checks[0].kinks > 0

    @pytest.mark.parametrize("scale", [1.0, 10.0, 50.0, 255.0], ids="scale={:g}".format)
    @pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "elu"])
    def test_a_smooth_network_has_none_whatever_the_scale_of_its_inputs(self, hidden, scale):
        network = Network([5, 4, 1], hidden=hidden, seed=0, backend="numpy")
        random = np.random.RandomState(0)
        data = random.uniform(0.0, scale, (20, 5)), random.randint(2, size=20)
        checks = network.check_gradient(*data)
        assert [check.kinks for check in checks] == [0, 0]
        assert max(check.difference for check in checks) < 1e-6

    def test_a_smooth_network_at_its_minimum_has_none(self):
        X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
        network = Network(
            [2, 4, 1], hidden="tanh", loss="squared_error", seed=1, backend="numpy"
        ).fit(X, y, optimizer="lbfgs", epochs=1000)
        checks = network.check_gradient(X, y)
        assert [check.kinks for check in checks] == [0, 0]
        assert [check.compared for check in checks] == [12, 5]


class TestSampled:
    @pytest.mark.parametrize("sample", [1, 7, 25])
    def test_that_many_parameters_are_checked(self, sample):
        checks = make("numpy").check_gradient(X, Y, sample=sample)
        assert sum(check.compared for check in checks) == sample
        assert all(check.difference < 1e-7 for check in checks if check.compared)

    @pytest.mark.parametrize("sample", [26, 1000, None])
    def test_never_more_than_there_are(self, sample):
        checks = make("numpy").check_gradient(X, Y, sample=sample)
        assert [check.compared for check in checks] == [16, 10]

    def test_the_chosen_parameters_are_checked(self, backend):
        # θ holds 12 + 8 weights, then 4 + 2 biases: 13 is in Θ⁽²⁾'s first row, 25 its second bias
        network = make(backend)
        data = [backend.xp.matrix_transpose(backend.asarray(array)) for array in (X, Y)]
        first, second = check_gradient(
            network.architecture, network.theta, *data, backend, parameters=[13, 25]
        )
        assert (first.compared, second.compared) == (0, 2)
        assert np.isnan(first.difference)

    @pytest.mark.parametrize("at_once", [1, 300, 2**22], ids="at_once={}".format)
    def test_in_turns_or_all_at_once_is_the_same(self, at_once):
        network = make("numpy")
        found = check_gradient(
            network.architecture, network.theta, X.T, Y.T, network.backend, at_once=at_once
        )
        whole = check_gradient(network.architecture, network.theta, X.T, Y.T, network.backend)
        assert [check.compared for check in found] == [16, 10]
        assert [c.numerical for c in found] == pytest.approx([c.numerical for c in whole], rel=1e-6)


class TestRegularisation:
    @pytest.mark.parametrize(("loss", "output"), CANONICAL)
    def test_the_bias_is_never_regularised(self, backend, loss, output):
        network = make(backend, "tanh", loss, output)
        plain, regularised = network.gradient(X, Y), network.gradient(X, Y, l2=3.0)
        np.testing.assert_array_equal(
            np.concatenate([D[:, 0] for D in regularised]),
            np.concatenate([D[:, 0] for D in plain]),
        )

    @pytest.mark.parametrize("hidden", ["tanh", "maxout"])
    def test_lambda_adds_lambda_over_m_theta(self, backend, hidden):
        # D = 1/m Δ + λ/m Θ, the derivative of λ/2m ΣΘ², and not the notes' λΘ
        network = make(backend, hidden)
        plain, regularised = network.gradient(X, Y), network.gradient(X, Y, l2=3.0)
        penalties = 0.0
        for D, D_l2, Theta in zip(plain, regularised, network.thetas, strict=True):
            np.testing.assert_allclose(D_l2[:, 1:], D[:, 1:] + 3.0 / M * Theta[:, 1:], rtol=1e-13)
            penalties += (Theta[:, 1:] ** 2).sum()
        grown = network.cost(X, Y, l2=3.0) - network.cost(X, Y)
        assert grown == pytest.approx(3.0 / (2 * M) * penalties, rel=1e-12)

    def test_with_sample_weights_m_is_their_sum(self, backend):
        network = make(backend)
        options = {"sample_weight": WEIGHTS}
        plain, regularised = (network.gradient(X, Y, l2=l2, **options) for l2 in (0.0, 3.0))
        for D, D_l2, Theta in zip(plain, regularised, network.thetas, strict=True):
            expected = D[:, 1:] + 3.0 / WEIGHTS.sum() * Theta[:, 1:]
            np.testing.assert_allclose(D_l2[:, 1:], expected, rtol=1e-13)


class TestOutputDelta:
    """δ⁽ᴸ⁾ is a − y for canonical pairs only."""

    def test_squared_error_with_a_sigmoid_uses_g_prime(self, backend):
        # no hidden layer: D = 1/m Σ (a − y) g'(z) x, g' = a (1 − a)
        network = make(backend, loss="squared_error", output="sigmoid", sizes=(3, 2))
        a = network.forward(X)
        delta = (a - Y) * a * (1 - a)
        with_ones = np.column_stack([np.ones(M), X])
        np.testing.assert_allclose(network.gradient(X, Y)[0], delta.T @ with_ones / M, rtol=1e-12)

    @pytest.mark.parametrize(
        ("loss", "factor"),
        [
            ("cross_entropy", 1),
            ("softmax_cross_entropy", 1),
            ("squared_error", 1),
            ("mean_squared_error", 2),
            ("poisson", 1),
        ],
    )
    def test_a_canonical_pair_has_a_minus_y(self, backend, loss, factor):
        network = make(backend, loss=loss, sizes=(3, 2))
        delta = factor * (network.forward(X) - Y)
        with_ones = np.column_stack([np.ones(M), X])
        np.testing.assert_allclose(
            network.gradient(X, Y)[0], delta.T @ with_ones / M, rtol=1e-12, atol=1e-15
        )
