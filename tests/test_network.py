"""Forward propagation, cost and backpropagation: by hand, stacked, in chunks, weighted."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpunet import activations, losses
from gpunet.network import (
    Architecture,
    cost,
    cost_and_gradient,
    gradient_by_example,
    hypothesis,
    propagate,
)

HIDDEN = (
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu:0.5",
    "maxout",
    "maxout:3",
    "softmax",
)
CANONICAL = [(loss.name, loss.canonical) for loss in losses.KNOWN.values()]
LECTURE = CANONICAL[:4]
OTHER = [
    ("cross_entropy", "softmax"),
    ("softmax_cross_entropy", "sigmoid"),
    ("squared_error", "sigmoid"),
    ("squared_error", "softmax"),
    ("mean_squared_error", "maxout"),
]
# every hidden activation with every loss, and the outputs that aren't canonical with one of them
COMBINATIONS = [(hidden, *pair) for hidden in HIDDEN for pair in LECTURE]
COMBINATIONS += [("tanh", *pair) for pair in [*CANONICAL[4:], *OTHER]]

property_test = settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def architecture_of(hidden="tanh", loss="cross_entropy", output=None, *, sizes=(3, 4, 2)):
    """Return the description of a network with one activation for all hidden layers."""
    loss = losses.get(loss)
    kinds = [hidden] * (len(sizes) - 2) + [output or loss.canonical]
    return Architecture(tuple(sizes), tuple(activations.get(kind) for kind in kinds), loss)


def draw(architecture, *, networks=(), examples=(), m=5, seed=0):
    """Return θ, x and y of any number of networks, on the host.

    Targets suit every loss: rows of a stochastic matrix.
    """
    random = np.random.RandomState(seed)
    theta = random.normal(scale=0.7, size=(*networks, architecture.n_parameters))
    x = random.normal(size=(*examples, architecture.sizes[0], m))
    y = np.moveaxis(random.dirichlet(np.ones(architecture.sizes[-1]), (*examples, m)), -1, -2)
    return theta, x, y


def backpropagate(backend, architecture, *data, **settings):
    """Return J and ∂J/∂θ, NumPy arrays, from host arrays θ, x, y, and λ and weights."""
    given = [backend.asarray(array, "float64") for array in data]
    for name, value in settings.items():
        scalar = isinstance(value, float)
        settings[name] = float(value) if scalar else backend.asarray(value, "float64")
    J, gradient = cost_and_gradient(architecture, *given, backend.primitives, **settings)
    return backend.to_host(J), backend.to_host(gradient)


def cost_alone(backend, architecture, *data, **settings):
    """Return J from `cost`, a NumPy array."""
    given = [backend.asarray(array, "float64") for array in data]
    for name, value in settings.items():
        scalar = isinstance(value, float)
        settings[name] = float(value) if scalar else backend.asarray(value, "float64")
    return backend.to_host(cost(architecture, *given, backend.primitives, **settings))


def forward(backend, architecture, theta, x, **settings):
    """Return h_Θ(x), a NumPy array."""
    given = [backend.asarray(array, "float64") for array in (theta, x)]
    _, h = hypothesis(architecture, *given, backend.primitives, **settings)
    return backend.to_host(h)


def assert_equal_to_rounding(actual, expected):
    """Refuse differences beyond float64 rounding of a few sums."""
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)


class TestWorkedByHand:
    """A 2-2-1 network whose numbers are rational, but for ℓ = log 3: g(0) = 1/2, g(±ℓ) = 1/2 ± 1/4.

    Θ⁽¹⁾ = ℓ [1 1 −1]    Two examples A: x = (1, 2), y = 1 and B: x = (1, 1), y = 0.
           ℓ [1 0 −1]
    Θ⁽²⁾ = ℓ [1 4 −8]

    z⁽²⁾ of A is ℓ(1 + 1 − 2, 1 − 2) = (0, −ℓ),    so a⁽²⁾ = (1/2, 1/4)
         of B is ℓ(1 + 1 − 1, 1 − 1) = (ℓ, 0),     so a⁽²⁾ = (3/4, 1/2)
    z⁽³⁾ of A is ℓ(1 + 4/2 − 8/4) = ℓ,             so h = 3/4
         of B is ℓ(1 + 4·3/4 − 8/2) = 0,           so h = 1/2
    """

    L3 = math.log(3.0)
    # the weights of Θ⁽¹⁾ row by row, those of Θ⁽²⁾, then the biases
    THETA = L3 * np.array([1.0, -1.0, 0.0, -1.0, 4.0, -8.0, 1.0, 1.0, 1.0])
    X = np.array([[1.0, 1.0], [2.0, 1.0]])
    Y = np.array([[1.0, 0.0]])

    # Cross-entropy: δ⁽³⁾ = a − y = (−1/4, 1/2).
    # D⁽²⁾: bias ½(−1/4 + 1/2) = 1/8, then ½(−1/4·1/2 + 1/2·3/4) = 1/8, ½(−1/4·1/4 + 1/2·1/2) = 3/32
    # δ⁽²⁾ = Θ⁽²⁾ᵀδ⁽³⁾ ∘ a(1 − a): of A (4ℓ·−1/4·1/4, −8ℓ·−1/4·3/16) = (−ℓ/4, 3ℓ/8)
    #                               of B (4ℓ·1/2·3/16, −8ℓ·1/2·1/4) = (3ℓ/8, −ℓ)
    # D⁽¹⁾ first row: bias ½(−1/4 + 3/8)ℓ = ℓ/16, x₁ the same, x₂ ½(−2/4 + 3/8)ℓ = −ℓ/16
    # D⁽¹⁾ second row: bias ½(3/8 − 1)ℓ = −5ℓ/16, x₁ the same, x₂ ½(6/8 − 1)ℓ = −ℓ/8
    D = np.array(
        [L3 / 16, -L3 / 16, -5 * L3 / 16, -L3 / 8, 1 / 8, 3 / 32, L3 / 16, -5 * L3 / 16, 1 / 8]
    )
    NETWORK = architecture_of("sigmoid", sizes=(2, 2, 1))

    def test_forward_propagation(self, backend):
        theta, x = backend.asarray(self.THETA), backend.asarray(self.X)
        states = list(propagate(self.NETWORK, theta, x, backend.primitives))
        (z2, a2), (z3, a3) = [[backend.to_host(part) for part in pair] for pair in states]
        np.testing.assert_allclose(z2, [[0.0, self.L3], [-self.L3, 0.0]], rtol=0, atol=1e-15)
        np.testing.assert_allclose(a2, [[1 / 2, 3 / 4], [1 / 4, 1 / 2]], rtol=1e-14)
        np.testing.assert_allclose(z3, [[self.L3, 0.0]], rtol=0, atol=1e-14)
        np.testing.assert_allclose(a3, [[3 / 4, 1 / 2]], rtol=1e-14)

    def test_cost(self, backend):
        # ½(−log 3/4 − log 1/2) = ½ log 8/3
        J = cost_alone(backend, self.NETWORK, self.THETA, self.X, self.Y)
        assert J.item() == pytest.approx(0.5 * math.log(8 / 3), rel=1e-14)

    def test_every_gradient(self, backend):
        J, gradient = backpropagate(backend, self.NETWORK, self.THETA, self.X, self.Y)
        assert J.item() == pytest.approx(0.5 * math.log(8 / 3), rel=1e-14)
        np.testing.assert_allclose(gradient, self.D, rtol=0, atol=1e-14)

    def test_with_regularisation(self, backend):
        # λ = 2, m = 2: J grows by λ/2m ΣΘ² = ½ ℓ²(1 + 1 + 0 + 1 + 16 + 64), D by λ/m Θ = Θ
        J, gradient = backpropagate(backend, self.NETWORK, self.THETA, self.X, self.Y, l2=2.0)
        assert J.item() == pytest.approx(0.5 * math.log(8 / 3) + 41.5 * self.L3**2, rel=1e-14)
        weights = self.THETA * [1, 1, 1, 1, 1, 1, 0, 0, 0]
        np.testing.assert_allclose(gradient, self.D + weights, rtol=0, atol=1e-13)

    def test_with_squared_error(self, backend):
        # J = 1/2m Σ (h − y)² = ¼(1/16 + 1/4) = 5/64
        # δ⁽³⁾ = (a − y) a (1 − a): of A −1/4·3/16 = −3/64, of B 1/2·1/4 = 1/8
        # D⁽²⁾: bias ½(−3/64 + 8/64) = 5/128, ½(−3/128 + 12/128) = 9/256, ½(−3/256 + 16/256) = 13/512
        # δ⁽²⁾: of A (4ℓ·−3/64·1/4, −8ℓ·−3/64·3/16) = (−3ℓ/64, 9ℓ/128)
        #       of B (4ℓ·1/8·3/16, −8ℓ·1/8·1/4) = (3ℓ/32, −ℓ/4)
        # D⁽¹⁾: ½(−3/64 + 6/64)ℓ = 3ℓ/128 twice, ½(−6/64 + 6/64) = 0
        #       ½(9/128 − 32/128)ℓ = −23ℓ/256 twice, ½(18/128 − 32/128)ℓ = −7ℓ/128
        network = architecture_of("sigmoid", "squared_error", "sigmoid", sizes=(2, 2, 1))
        J, gradient = backpropagate(backend, network, self.THETA, self.X, self.Y)
        first = [3 * self.L3 / 128, 0.0, -23 * self.L3 / 256, -7 * self.L3 / 128]
        biases = [3 * self.L3 / 128, -23 * self.L3 / 256, 5 / 128]
        assert J.item() == pytest.approx(5 / 64, rel=1e-14)
        np.testing.assert_allclose(
            gradient, [*first, 9 / 256, 13 / 512, *biases], rtol=0, atol=1e-14
        )

    def test_by_example(self, backend):
        given = [backend.asarray(array) for array in (self.THETA, self.X, self.Y)]
        (D1, b1), (D2, b2) = gradient_by_example(self.NETWORK, *given, backend.primitives)
        parts = [backend.to_host(part).ravel() for part in (D1, D2, b1, b2)]
        np.testing.assert_allclose(np.concatenate(parts), self.D, rtol=0, atol=1e-14)

    def test_relu_with_a_maxout_output(self, backend):
        # x = 2: z⁽²⁾ = (1 − 2, 3·2 − 1) = (−1, 5), a⁽²⁾ = (0, 5)
        # two pieces: 2·0 + 1·5 + 1 = 6 and 7·0 − 1·5 = −5: h = 6; y = 4 and 1/(1m) Σ (h − y)²: J = 4
        # δ = 2(6 − 4) = 4 for the first piece: D⁽²⁾ = [4·0 4·5; 0 0], bias (4, 0)
        # back: Θ⁽²⁾ᵀδ = (2·4, 1·4) ∘ (0, 1) = (0, 4): D⁽¹⁾ = (0, 8), bias (0, 4)
        network = architecture_of("relu", "mean_squared_error", "maxout", sizes=(1, 2, 1))
        theta = [-1.0, 3.0, 2.0, 1.0, 7.0, -1.0, 1.0, -1.0, 1.0, 0.0]
        J, gradient = backpropagate(backend, network, theta, [[2.0]], [[4.0]])
        assert J.item() == 4.0
        assert gradient.tolist() == [0.0, 8.0, 0.0, 20.0, 0.0, 0.0, 0.0, 4.0, 4.0, 0.0]


class TestParameters:
    def test_theta_holds_all_weights_then_all_biases(self, backend):
        network = architecture_of(sizes=(2, 3, 1))
        (Theta1, b1), (Theta2, b2) = network.split(backend.xp, backend.asarray(np.arange(13.0)))
        assert backend.to_host(Theta1).tolist() == [[0, 1], [2, 3], [4, 5]]
        assert backend.to_host(Theta2).tolist() == [[6, 7, 8]]
        assert backend.to_host(b1).tolist() == [9, 10, 11]
        assert backend.to_host(b2).tolist() == [12]

    @pytest.mark.parametrize("networks", [(), (2,), (2, 3)])
    @pytest.mark.parametrize("hidden", ["tanh", "maxout:3"])
    @pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (1, 5, 1, 2)])
    def test_unroll_is_the_inverse_of_split(self, backend, sizes, hidden, networks):
        network = architecture_of(hidden, sizes=sizes)
        theta, _, _ = draw(network, networks=networks)
        layers = network.split(backend.xp, backend.asarray(theta))
        np.testing.assert_array_equal(backend.to_host(network.unroll(backend.xp, layers)), theta)
        shapes = [(tuple(Theta.shape), tuple(bias.shape)) for Theta, bias in layers]
        assert shapes == [
            ((*networks, layer.rows, layer.inputs), (*networks, layer.rows))
            for layer in network.layers
        ]

    @pytest.mark.parametrize(
        ("sizes", "hidden", "expected"),
        [
            ((2, 1), "tanh", 3),  # one neuron: Θ is 1 × 3
            ((2, 2, 1), "tanh", 9),  # 2 × 3 and 1 × 3
            ((400, 25, 10), "sigmoid", 25 * 401 + 10 * 26),  # the course's digits
            ((2, 3, 1), "maxout:4", 12 * 3 + 4),  # 12 rows for 3 units
        ],
    )
    def test_their_number(self, sizes, hidden, expected):
        assert architecture_of(hidden, sizes=sizes).n_parameters == expected


class TestStacked:
    """Many networks at once equal a loop over them, in float64 to rounding."""

    @pytest.mark.parametrize(("hidden", "loss", "output"), COMBINATIONS)
    def test_forward_cost_and_gradient(self, backend, hidden, loss, output):
        network = architecture_of(hidden, loss, output)
        theta, x, y = draw(network, networks=(3,))
        l2, lambdas = 0.7, [0.0, 0.7, 2.5]
        J, gradient = backpropagate(backend, network, theta, x, y, l2=lambdas)
        one = [
            backpropagate(backend, network, *row, l2=l2)
            for row, l2 in zip([(t, x, y) for t in theta], lambdas, strict=True)
        ]
        assert (J.shape, gradient.shape) == ((3,), theta.shape)
        assert_equal_to_rounding(J, [J for J, _ in one])
        assert_equal_to_rounding(gradient, [gradient for _, gradient in one])
        assert_equal_to_rounding(cost_alone(backend, network, theta, x, y, l2=lambdas), J)
        h = forward(backend, network, theta, x)
        assert h.shape == (3, 2, 5)
        assert_equal_to_rounding(h, [forward(backend, network, t, x) for t in theta])
        # λ for all of them
        same, _ = backpropagate(backend, network, theta, x, y, l2=l2)
        assert_equal_to_rounding(same[1], J[1])

    @pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
    @pytest.mark.parametrize(
        ("networks", "examples"),
        [((3,), ()), ((), (3,)), ((3,), (3,)), ((2, 3), ()), ((2, 3), (2, 3)), ((2, 1), (3,))],
        ids=lambda axes: "x".join(map(str, axes)) or "one",
    )
    @pytest.mark.parametrize("hidden", ["relu", "maxout"])
    def test_leading_axes_of_theta_and_x(self, backend, hidden, networks, examples, *, weighted):
        network = architecture_of(hidden, "softmax_cross_entropy")
        theta, x, y = draw(network, networks=networks, examples=examples)
        leading = np.broadcast_shapes(networks, examples)
        random = np.random.RandomState(9)
        options, each = {"l2": random.uniform(size=leading)}, {}
        if weighted:
            options["weights"] = random.uniform(0.1, 2.0, (*leading, 5))
        J, gradient = backpropagate(backend, network, theta, x, y, **options)
        assert (J.shape, gradient.shape) == (leading, (*leading, network.n_parameters))
        data = [
            np.broadcast_to(array, (*leading, *array.shape[array.ndim - own :]))
            for array, own in ((theta, 1), (x, 2), (y, 2))
        ]
        for place in np.ndindex(leading):
            each[place] = backpropagate(
                backend,
                network,
                *(array[place] for array in data),
                **{name: values[place] for name, values in options.items()},
            )
        assert_equal_to_rounding(J.ravel(), [J for J, _ in each.values()])
        assert_equal_to_rounding(
            gradient.reshape(-1, network.n_parameters), [D for _, D in each.values()]
        )
        costs = cost_alone(backend, network, theta, x, y, **options)
        assert_equal_to_rounding(costs, J)

    def test_without_a_hidden_layer(self, backend):
        network = architecture_of(sizes=(3, 2))
        theta, x, y = draw(network, networks=(3,))
        J, gradient = backpropagate(backend, network, theta, x, y)
        one = [backpropagate(backend, network, row, x, y) for row in theta]
        assert_equal_to_rounding(J, [J for J, _ in one])
        assert_equal_to_rounding(gradient, [gradient for _, gradient in one])


class TestInChunks:
    """`hypothesis` holds a few examples at once and gives what it gives for all of them."""

    @pytest.mark.parametrize("at_once", [1, 8, 20, 1000], ids="at_once={}".format)
    @pytest.mark.parametrize("networks", [(), (2,)], ids=["one", "stacked"])
    def test_chunks_equal_all_at_once(self, backend, networks, at_once):
        network = architecture_of()
        theta, x, _ = draw(network, networks=networks, m=7)
        given = [backend.asarray(array) for array in (theta, x)]
        z, h = hypothesis(network, *given, backend.primitives, at_once=at_once)
        whole_z, whole_h = hypothesis(network, *given, backend.primitives)
        assert_equal_to_rounding(backend.to_host(z), backend.to_host(whole_z))
        assert_equal_to_rounding(backend.to_host(h), backend.to_host(whole_h))

    @pytest.mark.parametrize("at_once", [8, 1000], ids="at_once={}".format)
    @pytest.mark.parametrize("networks", [(), (2,)], ids=["one", "stacked"])
    def test_chosen_examples_equal_their_columns(self, backend, networks, at_once):
        network = architecture_of()
        theta, x, _ = draw(network, networks=networks, m=7)
        chosen = [6, 0, 0, 3, 2]
        h = forward(
            backend,
            network,
            theta,
            x,
            examples=backend.asarray(chosen, "int64"),
            at_once=at_once,
        )
        assert_equal_to_rounding(h, forward(backend, network, theta, x)[..., chosen])

    def test_no_chunk_of_a_hidden_layer_is_larger(self, backend):
        held = []

        def watched(xp, z):
            held.append(math.prod(z.shape))
            return xp.tanh(z)

        spy = activations.Custom(watched, lambda xp, z, a: 1.0 - a * a)
        network = architecture_of(spy)  # 4 units
        theta, x, _ = draw(network, networks=(2,), m=7)
        forward(backend, network, theta, x, at_once=24)
        assert held == [24, 24, 8]


class TestCost:
    @pytest.mark.parametrize(("loss", "output"), [*CANONICAL, *OTHER])
    @pytest.mark.parametrize("l2", [None, 0.7])
    @pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
    def test_it_is_what_comes_with_the_gradient(self, backend, loss, output, *, l2, weighted):
        network = architecture_of("tanh", loss, output)
        data = draw(network)
        options = {} if l2 is None else {"l2": l2}
        if weighted:
            options["weights"] = np.arange(1.0, 6.0)
        J, _ = backpropagate(backend, network, *data, **options)
        assert_equal_to_rounding(cost_alone(backend, network, *data, **options), J)

    def test_lambda_0_is_no_lambda(self, backend):
        network = architecture_of()
        data = draw(network)
        J, gradient = backpropagate(backend, network, *data)
        J_0, gradient_0 = backpropagate(backend, network, *data, l2=0.0)
        np.testing.assert_array_equal(J_0, J)
        np.testing.assert_array_equal(gradient_0, gradient)

    @pytest.mark.parametrize("hidden", ["identity", "sigmoid", "relu", "maxout"])
    @pytest.mark.parametrize(("loss", "output"), [*CANONICAL, *OTHER])
    def test_theta_x_and_y_are_left_as_they_were(self, backend, hidden, loss, output):
        network = architecture_of(hidden, loss, output)
        data = draw(network)
        given = [backend.asarray(array.copy()) for array in data]
        weights = backend.asarray(np.ones(5))
        cost_and_gradient(network, *given, backend.primitives, l2=0.5, weights=weights)
        cost(network, *given, backend.primitives, l2=0.5, weights=weights)
        gradient_by_example(network, *given, backend.primitives, l2=0.5)
        for before, after in zip(data, given, strict=True):
            np.testing.assert_array_equal(backend.to_host(after), before)
        assert backend.to_host(weights).tolist() == [1.0] * 5


class TestByExample:
    """The notes' loop over the examples gives what the vectorised form gives."""

    @pytest.mark.parametrize(("hidden", "loss", "output"), COMBINATIONS)
    def test_it_equals_the_vectorised_form(self, backend, hidden, loss, output):
        self.compare(backend, architecture_of(hidden, loss, output), l2=0.7)

    @pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 3, 2)])
    @pytest.mark.parametrize("l2", [0.0, 0.7])
    def test_with_any_number_of_layers(self, backend, sizes, *, l2):
        self.compare(backend, architecture_of("tanh", sizes=sizes), l2=l2)

    def compare(self, backend, network, *, l2):
        theta, x, y = draw(network, m=3)
        given = [backend.asarray(array) for array in (theta, x, y)]
        layers = gradient_by_example(network, *given, backend.primitives, l2=l2)
        by_example = backend.to_host(network.unroll(backend.xp, layers))
        _, gradient = backpropagate(backend, network, theta, x, y, l2=l2)
        assert_equal_to_rounding(by_example, gradient)


@pytest.fixture(params=["cross_entropy", "softmax_cross_entropy", "squared_error"])
def pair(request):
    """Return a network of each kind, with its data."""
    network = architecture_of("tanh", request.param)
    return network, draw(network)


@property_test
@given(order=st.permutations(range(5)))
def test_the_order_of_examples_does_not_matter(backend, pair, order):
    network, (theta, x, y) = pair
    J, gradient = backpropagate(backend, network, theta, x, y, l2=0.3)
    shuffled = backpropagate(backend, network, theta, x[:, order], y[:, order], l2=0.3)
    assert_equal_to_rounding(shuffled[0], J)
    assert_equal_to_rounding(shuffled[1], gradient)


# as many repetitions as examples, so that nothing is compiled anew on JAX
@property_test
@given(rows=st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_whole_weights_are_repeated_examples(backend, pair, rows):
    network, (theta, x, y) = pair
    counts = np.bincount(rows, minlength=5)
    weighted = backpropagate(backend, network, theta, x, y, l2=0.3, weights=counts)
    repeated = backpropagate(backend, network, theta, x[:, rows], y[:, rows], l2=0.3)
    assert_equal_to_rounding(weighted[0], repeated[0])
    assert_equal_to_rounding(weighted[1], repeated[1])


@property_test
@given(
    weights=st.lists(st.floats(0.01, 100.0), min_size=5, max_size=5), factor=st.floats(0.01, 100.0)
)
def test_only_the_ratio_of_weights_matters_without_lambda(backend, pair, weights, factor):
    network, data = pair
    J, gradient = backpropagate(backend, network, *data, weights=np.array(weights))
    scaled = backpropagate(backend, network, *data, weights=factor * np.array(weights))
    assert_equal_to_rounding(scaled[0], J)
    assert_equal_to_rounding(scaled[1], gradient)


class TestArchitecture:
    def test_it_is_immutable_and_hashable(self):
        network = architecture_of()
        assert network == architecture_of()
        assert hash(network) == hash(architecture_of())
        assert network != architecture_of("relu")
        with pytest.raises(dataclasses.FrozenInstanceError):
            network.sizes = (1, 1)

    @pytest.mark.parametrize("sizes", [(), (3,), (3, 0, 2), (3, -1), (3, 2.0), (3, "2")])
    def test_sizes_that_are_no_network_are_refused(self, sizes):
        kinds = (activations.Sigmoid(),) * max(len(sizes) - 1, 1)
        with pytest.raises(ValueError, match=r"at least an input and an output layer.*s_l >= 1"):
            Architecture(sizes, kinds, losses.CrossEntropy())

    @pytest.mark.parametrize("given", [0, 1, 3])
    def test_another_number_of_activations_is_refused(self, given):
        with pytest.raises(ValueError, match=rf"L = 3 .*L - 1 = 2 activations.*but {given} were"):
            Architecture((3, 4, 2), (activations.Sigmoid(),) * given, losses.CrossEntropy())

    @pytest.mark.parametrize("loss", ["cross_entropy", "softmax_cross_entropy"])
    @pytest.mark.parametrize("output", ["identity", "tanh", "relu", "leaky_relu", "elu", "maxout"])
    def test_a_cross_entropy_of_no_probabilities_is_refused(self, loss, output):
        canonical = losses.get(loss).canonical
        with pytest.raises(ValueError, match=rf"{loss}.*\[0, 1\].*{output}.*output='{canonical}'"):
            architecture_of("tanh", loss, output)

    @pytest.mark.parametrize(
        "loss", ["softmax_cross_entropy", "squared_error", "mean_squared_error"]
    )
    def test_softmax_over_one_output_is_refused(self, loss):
        with pytest.raises(ValueError, match=r"softmax over s_L = 1 .*always 1.*sigmoid"):
            architecture_of("tanh", loss, "softmax", sizes=(3, 4, 1))

    def test_a_custom_output_within_0_and_1_may_have_a_cross_entropy(self):
        half = activations.Custom(
            lambda xp, z: 0.5 + 0.5 * xp.tanh(z),
            lambda xp, z, a: 2.0 * a * (1.0 - a),
            range=(0.0, 1.0),
        )
        assert architecture_of("tanh", "cross_entropy", half).activations[-1] is half
