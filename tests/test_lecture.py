"""The lecture, row by row: what its notes say must hold, under their own names.

Numbers of rows are those of the project's specification; a second part settles the places where the notes
disagree with themselves.
"""

import itertools
import math

import numpy as np
import pytest
import scipy.special
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import PolynomialFeatures

from gpunet import Network, activations, initializers, losses
from gpunet.network import propagate

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])

# The notes' weights, the bias first.
AND, OR, NOT = [-30, 20, 20], [-10, 20, 20], [10, -20]
NOT_X1_AND_X2, X1_AND_NOT_X2 = [-10, -20, 20], [-10, 20, -20]
XOR = [[NOT_X1_AND_X2, X1_AND_NOT_X2], [OR]]


def sigmoid(z):
    return scipy.special.expit(z)


class TestRow1NonLinearHypotheses:
    @pytest.mark.parametrize(
        ("n", "degree", "count"),
        [
            (100, 2, 5_050),  # the slides' ≈ 5,000
            (100, 3, 171_700),  # ≈ 170,000
            (50 * 50, 2, 3_126_250),  # 50 × 50 pixels
        ],
    )
    def test_terms_of_a_degree(self, n, degree, count):
        # as many as multisets of `degree` of n features
        assert math.comb(n + degree - 1, degree) == count

    @pytest.mark.parametrize(("degree", "count"), [(2, 5_050), (3, 171_700)])
    def test_scikit_learn_counts_the_same(self, degree, count):
        features = PolynomialFeatures((degree, degree), include_bias=False)
        assert features.fit(np.zeros((1, 100))).n_output_features_ == count

    def test_the_slides_six_million_are_ordered_pairs(self):
        assert 2500**2 == 6_250_000
        assert math.comb(2501, 2) == (2500**2 + 2500) // 2 == 3_126_250

    @pytest.mark.parametrize("degree", [2, 3])
    def test_they_grow_as_a_power_of_n(self, degree):
        counts = [math.comb(n + degree - 1, degree) for n in (1000, 2000)]
        assert counts[1] / counts[0] == pytest.approx(2**degree, rel=0.01)

    def test_a_network_pays_a_handful_of_parameters_for_a_circle(self):
        # inside or outside a circle: quadratic features solve it with 6 parameters, a network with 13, and of
        # n inputs those are O(n²) and O(n)
        X = np.random.RandomState(0).uniform(-1, 1, (200, 2))
        y = (X[:, 0] ** 2 + X[:, 1] ** 2 < 0.4).astype(int)
        linear = LogisticRegression().fit(X, y).score(X, y)
        network = Network([2, 4, 1], hidden="tanh", seed=0, backend="numpy")
        network.fit(X, y, optimizer="lbfgs", epochs=300, l2=1e-3)
        assert linear < 0.8
        assert network.score(X, y) > 0.97


class TestRow2OneLogisticNeuron:
    @pytest.mark.parametrize("x", [(0.0, 0.0, 0.0), (1.0, -2.0, 0.5), (3.0, 1.0, -4.0)])
    def test_h_is_g_of_theta_transposed_x(self, backend, x):
        theta = [0.3, -1.2, 0.7, 0.1]
        neuron = Network.from_thetas([[theta]], backend=backend)
        expected = 1 / (1 + math.exp(-np.dot(theta, [1.0, *x])))
        assert neuron.forward([x]).item() == pytest.approx(expected, rel=1e-14)

    def test_trained_it_is_logistic_regression(self):
        X = np.random.RandomState(0).normal(size=(40, 3))
        y = (X @ [1.0, -2.0, 0.5] + np.random.RandomState(1).normal(size=40) > 0.2).astype(int)
        # scikit-learn's C weighs the summed cost against ½ΣΘ²: λ = 1/C
        theirs = LogisticRegression(C=0.5, tol=1e-8).fit(X, y)
        ours = Network([3, 1], seed=0, backend="numpy")
        ours.fit(X, y, optimizer="lbfgs", epochs=500, l2=2.0)
        np.testing.assert_allclose(
            ours.thetas[0][0], [*theirs.intercept_, *theirs.coef_[0]], atol=1e-4
        )

    def test_with_an_identity_and_squared_error_it_is_linear_regression(self):
        X = np.random.RandomState(0).normal(size=(40, 3))
        y = X @ [1.0, -2.0, 0.5] + 0.7
        theirs = LinearRegression().fit(X, y)
        ours = Network([3, 1], loss="squared_error", seed=0, backend="numpy")
        ours.fit(X, y, optimizer="lbfgs", epochs=500)
        np.testing.assert_allclose(ours.thetas[0][0], [theirs.intercept_, *theirs.coef_], atol=1e-4)


class TestRow3AnyDepthAndWidth:
    @pytest.mark.parametrize(
        "sizes", [(3, 1), (3, 3, 1), (4, 5, 3, 4), (2, 7, 1, 5, 3, 2)], ids=str
    )
    def test_theta_l_is_s_l_plus_1_by_s_l_plus_one(self, backend, sizes):
        network = Network(sizes, seed=0, backend=backend)
        assert [Theta.shape for Theta in network.thetas] == [
            (above, below + 1) for below, above in itertools.pairwise(sizes)
        ]

    def test_thetas_can_be_given_and_read_back(self, backend):
        # the notes' network of 3 inputs, 3 hidden units and one output: 3 × 4 and 1 × 4
        thetas = [np.arange(12.0).reshape(3, 4) / 10, np.arange(4.0).reshape(1, 4)]
        network = Network.from_thetas(thetas, backend=backend)
        for Theta, given in zip(network.thetas, thetas, strict=True):
            np.testing.assert_array_equal(Theta, given)


class TestRow4VectorisedForwardPropagation:
    THETAS = (
        np.random.RandomState(0).normal(size=(3, 4)),
        np.random.RandomState(1).normal(size=(1, 4)),
    )
    X = np.random.RandomState(2).normal(size=(5, 3))

    def test_it_is_the_unit_by_unit_formula(self, backend):
        Theta1, Theta2 = self.THETAS
        h = Network.from_thetas(self.THETAS, backend=backend).forward(self.X)
        for x, found in zip(self.X, h[:, 0], strict=True):
            # a_i⁽²⁾ = g(Θ_i0 x_0 + Θ_i1 x_1 + Θ_i2 x_2 + Θ_i3 x_3), x_0 = 1
            a = [sigmoid(sum(w * v for w, v in zip(row, [1, *x], strict=True))) for row in Theta1]
            expected = sigmoid(sum(w * v for w, v in zip(Theta2[0], [1, *a], strict=True)))
            assert found == pytest.approx(expected, rel=1e-13)

    def test_every_z_and_a_can_be_read(self, backend):
        found = Network.from_thetas(self.THETAS, backend=backend).forward(self.X, every_layer=True)
        with_x0 = np.column_stack([np.ones(5), self.X])
        np.testing.assert_allclose(found.z[2], with_x0 @ self.THETAS[0].T, rtol=1e-13)
        np.testing.assert_allclose(found.a[2], sigmoid(found.z[2]), rtol=1e-13)
        with_a0 = np.column_stack([np.ones(5), found.a[2]])
        np.testing.assert_allclose(found.z[3], with_a0 @ self.THETAS[1].T, rtol=1e-13)
        np.testing.assert_array_equal(found.h, found.a[3])
        np.testing.assert_array_equal(found.a[1], self.X)

    def test_examples_are_the_columns_inside(self, backend):
        network = Network.from_thetas(self.THETAS, backend=backend)
        x = backend.asarray(np.ascontiguousarray(self.X.T))
        shapes = [
            (tuple(z.shape), tuple(a.shape))
            for z, a in propagate(network.architecture, network.theta, x, backend.primitives)
        ]
        assert shapes == [((3, 5), (3, 5)), ((1, 5), (1, 5))]


class TestRow5TruthTables:
    @pytest.mark.parametrize(
        ("theta", "z", "table"),
        [
            (AND, [-30, -10, -10, 10], [0, 0, 0, 1]),
            (OR, [-10, 10, 10, 30], [0, 1, 1, 1]),
            (NOT_X1_AND_X2, [-10, 10, -30, -10], [0, 1, 0, 0]),
            (X1_AND_NOT_X2, [-10, -30, 10, -10], [0, 0, 1, 0]),
        ],
        ids=["AND", "OR", "(NOT x1) AND x2", "x1 AND (NOT x2)"],
    )
    def test_of_two_inputs(self, backend, theta, z, table):
        neuron = Network.from_thetas([[theta]], backend=backend)
        found = neuron.forward(CORNERS, every_layer=True)
        assert found.z[2][:, 0].tolist() == z
        np.testing.assert_allclose(found.h[:, 0], table, atol=5e-5)
        assert neuron.predict(CORNERS).tolist() == table

    def test_not(self, backend):
        neuron = Network.from_thetas([[NOT]], backend=backend)
        found = neuron.forward([[0], [1]], every_layer=True)
        assert found.z[2][:, 0].tolist() == [10, -10]
        assert neuron.predict([[0], [1]]).tolist() == [1, 0]

    def test_xor_is_composed_of_them(self, backend):
        network = Network.from_thetas(XOR, backend=backend)
        found = network.forward(CORNERS, every_layer=True)
        # the notes' table: a_1⁽²⁾ = (NOT x1) AND x2, a_2⁽²⁾ = x1 AND (NOT x2), h
        assert np.round(found.a[2]).tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
        np.testing.assert_allclose(found.h[:, 0], [0, 1, 1, 0], atol=5e-5)
        assert network.predict(CORNERS).tolist() == [0, 1, 1, 0]
        assert network.score(CORNERS, [0, 1, 1, 0]) == 1.0

    def test_no_linear_classifier_solves_xor(self):
        # on a grid of lines θ0 + θ1 x1 + θ2 x2 = 0, and as scikit-learn finds the best one
        grid = np.linspace(-2, 2, 21)
        lines = np.array(list(itertools.product(grid, grid, grid)))
        sides = lines @ np.column_stack([np.ones(4), CORNERS]).T > 0
        assert (sides == np.array([0, 1, 1, 0])).sum(axis=1).max() == 3
        best = LogisticRegression(C=1e6).fit(CORNERS, [0, 1, 1, 0])
        assert best.score(CORNERS, [0, 1, 1, 0]) <= 0.75

    def test_a_network_without_a_hidden_layer_does_not_either(self):
        network = Network([2, 1], seed=0, backend="numpy")
        network.fit(CORNERS, [0, 1, 1, 0], optimizer="lbfgs", epochs=500)
        # its best is to say ½ to everything: J = log 2
        assert network.history[-1]["cost"] == pytest.approx(math.log(2), rel=1e-6)
        assert network.score(CORNERS, [0, 1, 1, 0]) <= 0.75

    @pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "elu", "maxout"])
    def test_a_trained_network_solves_it(self, hidden):
        network = Network([2, 4, 1], hidden=hidden, seed=1, backend="numpy")
        network.fit(CORNERS, [0, 1, 1, 0], optimizer="lbfgs", epochs=500)
        np.testing.assert_allclose(network.forward(CORNERS)[:, 0], [0, 1, 1, 0], atol=0.01)

    def test_a_trained_network_solves_it_on_every_backend(self, backend):
        network = Network([2, 4, 1], hidden="tanh", seed=1, backend=backend)
        network.fit(
            CORNERS, [0, 1, 1, 0], optimizer="adam", learning_rate=0.1, epochs=200, batch_size=None
        )
        assert network.predict(CORNERS).tolist() == [0, 1, 1, 0]


class TestRow6MultiClass:
    KINDS = ("pedestrian", "car", "motorcycle", "truck")

    @pytest.mark.parametrize("loss", ["cross_entropy", "softmax_cross_entropy"])
    def test_four_classes_have_four_outputs_and_one_hot_targets(self, loss):
        X = np.repeat(np.eye(4), 2, axis=0)
        numbers = np.repeat(np.arange(4), 2)
        one_hot = np.eye(len(self.KINDS))[numbers]
        network = Network([4, 4], loss=loss, seed=0, backend="numpy")
        assert network.cost(X, numbers) == pytest.approx(network.cost(X, one_hot), rel=1e-14)
        network.fit(X, one_hot, optimizer="lbfgs", epochs=100)
        # h_Θ(x) ≈ [1 0 0 0]ᵀ for a pedestrian, [0 1 0 0]ᵀ for a car, ...
        np.testing.assert_allclose(network.forward(X), one_hot, atol=0.05)
        assert network.predict(X).tolist() == numbers.tolist()


class TestRow7Tasks:
    @pytest.mark.parametrize(
        ("sizes", "settings", "Y", "predicted"),
        [
            ((2, 3, 1), {}, [0, 1, 1, 1], (4,)),
            ((2, 3, 3), {"loss": "softmax_cross_entropy"}, [0, 1, 2, 1], (4,)),
            ((2, 3, 2), {"task": "multilabel"}, [[0, 0], [1, 0], [1, 0], [1, 1]], (4, 2)),
            ((2, 3, 1), {"loss": "squared_error"}, [0.0, 1.5, -2.0, 1.0], (4,)),
            ((2, 3, 2), {"loss": "squared_error"}, [[0, 1], [1, 2], [3, 1], [4, 0]], (4, 2)),
        ],
        ids=["binary", "multi-class", "multi-label", "regression", "regression of two"],
    )
    def test_each_can_be_learned(self, sizes, settings, Y, predicted):
        network = Network(sizes, hidden="tanh", seed=2, backend="numpy", **settings)
        network.fit(CORNERS, Y, optimizer="lbfgs", epochs=500)
        assert network.predict(CORNERS).shape == predicted
        assert network.score(CORNERS, Y) == pytest.approx(1.0, abs=1e-4)


class TestRow8CostForClassification:
    THETAS = (
        np.random.RandomState(0).normal(size=(3, 3)),
        np.random.RandomState(1).normal(size=(4, 4)),
    )
    X = np.random.RandomState(2).normal(size=(6, 2))
    Y = np.eye(4)[[0, 1, 2, 3, 0, 2]]

    def penalty(self, l2):
        """Return λ/2m ΣΘ² without the bias."""
        return l2 / (2 * 6) * sum((Theta[:, 1:] ** 2).sum() for Theta in self.THETAS)

    @pytest.mark.parametrize("l2", [0.0, 1.5])
    def test_cross_entropy_is_summed_over_k_logistic_outputs(self, backend, l2):
        network = Network.from_thetas(self.THETAS, backend=backend)
        h = network.forward(self.X)
        J = -1 / 6 * (self.Y * np.log(h) + (1 - self.Y) * np.log(1 - h)).sum()
        assert network.cost(self.X, self.Y, l2=l2) == pytest.approx(J + self.penalty(l2), rel=1e-12)

    @pytest.mark.parametrize("l2", [0.0, 1.5])
    def test_softmax_has_its_own_cross_entropy(self, backend, l2):
        network = Network.from_thetas(self.THETAS, loss="softmax_cross_entropy", backend=backend)
        h = network.forward(self.X)
        np.testing.assert_allclose(h.sum(axis=1), 1.0, rtol=1e-14)
        J = log_loss(self.Y.argmax(axis=1), h)
        assert network.cost(self.X, self.Y, l2=l2) == pytest.approx(J + self.penalty(l2), rel=1e-12)


class TestRow9CostForRegression:
    @pytest.mark.parametrize("l2", [0.0, 1.5])
    @pytest.mark.parametrize(
        ("loss", "factor"), [("squared_error", 0.5), ("mean_squared_error", 1)]
    )
    def test_it_is_a_squared_error(self, backend, loss, factor, l2):
        # h = 1 + 2x: errors of x = (0, 1, 2) from y = (1, 1, 1) are 0, 2 and 4
        network = Network.from_thetas([[[1.0, 2.0]]], loss=loss, backend=backend)
        J = factor * (0 + 4 + 16) / 3 + l2 / (2 * 3) * 4
        assert network.cost([[0], [1], [2]], [1, 1, 1], l2=l2) == pytest.approx(J, rel=1e-14)


def debug_weights(rows, columns):
    """Return the course's `debugInitializeWeights`: sin 1, sin 2, ..., column by column, over 10."""
    return np.sin(np.arange(1, rows * columns + 1)).reshape(columns, rows).T / 10


class TestRow10Backpropagation:
    """Figures published with Andrew Ng's course, exercise 4, whose notation and cost the notes have."""

    # a test case its mentors published: nn = [1:18]/10, X = cos([1 2; 3 4; 5 6]), y = [4; 2; 3]
    PUBLISHED = (
        (np.arange(1, 7) / 10).reshape(3, 2).T,
        (np.arange(7, 19) / 10).reshape(3, 4).T,
    )
    X = np.cos([[1, 2], [3, 4], [5, 6]])
    Y = np.array([4, 2, 3]) - 1

    @pytest.mark.parametrize(("l2", "J"), [(0.0, 7.4070), (4.0, 19.474)])
    def test_the_published_cost(self, backend, l2, J):
        network = Network.from_thetas(self.PUBLISHED, backend=backend)
        assert network.cost(self.X, self.Y, l2=l2) == pytest.approx(J, rel=5e-5)

    def test_the_published_gradient(self, backend):
        network = Network.from_thetas(self.PUBLISHED, backend=backend)
        self.compare(*network.gradient(self.X, self.Y, l2=4.0))

    def test_the_published_gradient_by_the_notes_loop(self):
        network = Network.from_thetas(self.PUBLISHED, backend="numpy")
        self.compare(*network.gradient_by_example(self.X, self.Y, l2=4.0))

    def compare(self, D1, D2):
        # unrolled column by column, as Octave does
        published = [0.76614, 0.97990, 0.37246, 0.49749, 0.64174, 0.74614]
        np.testing.assert_allclose(D1.T.ravel(), published, atol=5.1e-6)
        published = [0.88342, 0.56876, 0.58467, 0.59814, 1.92598, 1.94462]
        published += [1.98965, 2.17855, 2.47834, 2.50225, 2.52644, 2.72233]
        np.testing.assert_allclose(D2.T.ravel(), published, atol=5.1e-6)

    def test_the_published_gradient_without_lambda(self, backend):
        network = Network.from_thetas(self.PUBLISHED, backend=backend)
        D1, D2 = network.gradient(self.X, self.Y)
        published = [0.766138, 0.979897, -0.027540, -0.035844, -0.024929, -0.053862]
        np.testing.assert_allclose(D1.T.ravel(), published, atol=5.1e-7)
        published = [0.883417, 0.568762, 0.584668, 0.598139, 0.459314, 0.344618]
        published += [0.256313, 0.311885, 0.478337, 0.368920, 0.259771, 0.322331]
        np.testing.assert_allclose(D2.T.ravel(), published, atol=5.1e-7)

    @pytest.mark.parametrize(("l2", "J"), [(0.0, 2.101), (3.0, 2.146)])
    def test_the_cost_of_the_courses_debug_network(self, l2, J):
        # 3 inputs, 5 hidden units, 3 labels, 5 examples: checkNNGradients
        thetas = [debug_weights(5, 4), debug_weights(3, 6)]
        network = Network.from_thetas(thetas, backend="numpy")
        X, y = debug_weights(5, 3), np.arange(1, 6) % 3
        assert network.cost(X, y, l2=l2) == pytest.approx(J, abs=5e-4)
        assert all(check.difference < 1e-7 for check in network.check_gradient(X, y, l2=l2))

    @pytest.mark.parametrize(
        ("loss", "y"),
        [("cross_entropy", [0, 1, 1, 0]), ("squared_error", [0.5, -1.0, 2.0, 0.0])],
    )
    def test_the_notes_loop_and_the_vectorised_form_are_one(self, loss, y):
        # a network of four layers, as on the notes' slides
        network = Network([2, 3, 3, 1], loss=loss, init="normal", seed=0, backend="numpy")
        by_example = network.gradient_by_example(CORNERS, y, l2=0.5)
        for D, expected in zip(network.gradient(CORNERS, y, l2=0.5), by_example, strict=True):
            np.testing.assert_allclose(D, expected, rtol=1e-11, atol=1e-14)


class TestRow11GradientCheck:
    @pytest.mark.parametrize("loss", losses.KNOWN)
    @pytest.mark.parametrize("hidden", activations.KNOWN)
    def test_a_user_can_check_any_network(self, hidden, loss):
        network = Network([3, 4, 2], hidden=hidden, loss=loss, seed=3, backend="numpy")
        random = np.random.RandomState(1)
        X, Y = random.normal(size=(5, 3)), random.dirichlet(np.ones(2), 5)
        for check in network.check_gradient(X, Y, l2=0.7):
            assert check.difference < 1e-6
            assert check.kinks <= 2


class TestRow12ZeroInitialization:
    """Θ = 0 for all i, j, l: after each update all units of a layer are identical."""

    @pytest.mark.parametrize("optimizer", ["gradient_descent", "momentum", "adam", "lbfgs"])
    @pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "relu", "elu"])
    def test_all_units_of_a_layer_stay_identical(self, hidden, optimizer):
        network = Network([2, 4, 3, 1], hidden=hidden, init="zeros", seed=0, backend="numpy")
        network.fit(
            np.array([[0.2, -1.0], [0.5, 0.3], [-0.7, 1.2], [1.0, 0.4]]),
            [0, 1, 1, 1],
            optimizer=optimizer,
            epochs=20,
            batch_size=2,
        )
        for Theta in network.thetas:
            np.testing.assert_array_equal(Theta, np.broadcast_to(Theta[:1], Theta.shape))
        for Theta in network.thetas[1:]:
            incoming = Theta[:, 1:]
            np.testing.assert_allclose(incoming, np.broadcast_to(incoming[:, :1], incoming.shape))

    def test_it_is_so_on_every_backend(self, backend):
        network = Network([2, 4, 1], init="zeros", seed=0, backend=backend)
        network.fit(CORNERS, [0, 1, 1, 1], epochs=3, batch_size=2, learning_rate=0.1)
        Theta1, Theta2 = network.thetas
        assert Theta1.any()
        np.testing.assert_allclose(Theta1, np.broadcast_to(Theta1[:1], (4, 3)), rtol=1e-12)
        np.testing.assert_allclose(Theta2[:, 1:], np.full((1, 4), Theta2[0, 1]), rtol=1e-12)

    def test_their_activations_errors_and_gradients_are_identical(self):
        # equal but not zero, so that something flows: a_1 = a_2, δ_1 = δ_2, ∂J/∂Θ_1 = ∂J/∂Θ_2
        thetas = [np.full((3, 3), 0.1), np.full((1, 4), 0.1)]
        network = Network.from_thetas(thetas, backend="numpy")
        a2 = network.forward(CORNERS, every_layer=True).a[2]
        D1, D2 = network.gradient(CORNERS, [0, 1, 1, 1])
        np.testing.assert_array_equal(a2, a2[:, [1, 2, 0]])
        np.testing.assert_allclose(D1, D1[[1, 2, 0]], rtol=1e-14)
        np.testing.assert_allclose(D2[:, 1:], D2[:, [2, 3, 1]], rtol=1e-14)
        assert abs(D1).max() > 1e-3

    def test_xor_is_not_learned_from_zeros(self):
        network = Network([2, 4, 1], hidden="tanh", init="zeros", seed=0, backend="numpy")
        network.fit(CORNERS, [0, 1, 1, 0], epochs=300, learning_rate=0.1)
        assert network.history[-1]["cost"] == pytest.approx(math.log(2), rel=1e-3)

    def test_random_initialization_breaks_the_symmetry(self):
        network = Network([2, 4, 1], hidden="tanh", init="uniform", seed=0, backend="numpy")
        network.fit(CORNERS, [0, 1, 1, 0], epochs=300, learning_rate=0.1)
        assert network.score(CORNERS, [0, 1, 1, 0]) == 1.0


class TestRow13RandomInitialization:
    @pytest.mark.parametrize("epsilon", [0.01, 0.12, 1.0])
    def test_uniform_lies_within_epsilon(self, epsilon):
        network = Network([30, 40, 5], init=initializers.Uniform(epsilon), seed=0, backend="numpy")
        largest = max(abs(Theta).max() for Theta in network.thetas)
        assert 0.99 * epsilon < largest <= epsilon

    def test_normal_is_the_standard_normal(self):
        (Theta,) = Network([100, 100], init="normal", seed=0, backend="numpy").thetas
        assert Theta.mean() == pytest.approx(0.0, abs=0.04)
        assert Theta.std() == pytest.approx(1.0, abs=0.03)

    @pytest.mark.parametrize("init", ["xavier", "xavier_normal"])
    def test_the_variance_of_xavier_is_two_over_the_sum_of_both_layers(self, init):
        (Theta,) = Network([80, 120], init=init, seed=0, backend="numpy").thetas
        assert Theta[:, 1:].var() == pytest.approx(2 / 200, rel=0.05)

    def test_the_variance_of_he_is_two_over_the_layer_below(self):
        (Theta,) = Network([80, 120], init="he", seed=0, backend="numpy").thetas
        assert Theta[:, 1:].var() == pytest.approx(2 / 80, rel=0.05)

    @staticmethod
    def statistics(init, hidden):
        """Return mean and variance of the activations of each hidden layer, ten layers deep."""
        network = Network([100] * 12, hidden=hidden, init=init, seed=0, backend="numpy")
        X = np.random.RandomState(1).normal(size=(500, 100))
        a = network.forward(X, every_layer=True).a
        return [a[l].mean() for l in range(2, 12)], [a[l].var() for l in range(2, 12)]

    @pytest.mark.parametrize("init", ["xavier", "xavier_normal"])
    def test_both_rules_of_thumb_hold_for_xavier_with_tanh(self, init):
        # mean near 0, and a variance that changes by less than a factor of 10 over ten layers
        means, variances = self.statistics(init, "tanh")
        assert max(map(abs, means)) < 0.05
        assert max(variances) / min(variances) < 10

    def test_small_weights_let_the_activations_vanish(self):
        _, variances = self.statistics(initializers.Uniform(0.01), "tanh")
        assert variances[-1] < 1e-4

    def test_standard_normal_weights_saturate_them(self):
        _, variances = self.statistics("normal", "tanh")
        assert min(variances) > 0.8

    def test_he_keeps_the_variance_of_relu_where_xavier_halves_it(self):
        _, he = self.statistics("he", "relu")
        _, xavier = self.statistics("xavier", "relu")
        assert 0.2 < he[-1] / he[0] < 5
        assert xavier[-1] / xavier[0] < 0.01


class TestRow14Activations:
    @pytest.mark.parametrize(
        ("spec", "z", "a"),
        [
            ("sigmoid", [-1.0, 0.0, 1.0], [1 / (1 + math.e), 0.5, math.e / (1 + math.e)]),
            ("tanh", [-1.0, 0.0, 1.0], [-math.tanh(1), 0.0, math.tanh(1)]),
            ("relu", [-2.0, 0.0, 3.0], [0.0, 0.0, 3.0]),
            ("leaky_relu", [-2.0, 0.0, 3.0], [-0.2, 0.0, 3.0]),  # max(0.1 x, x)
            ("leaky_relu:0.5", [-2.0, 0.0, 3.0], [-1.0, 0.0, 3.0]),
            ("elu", [-1.0, 0.0, 3.0], [1 / math.e - 1, 0.0, 3.0]),
            ("elu:0.5", [-1.0, 0.0, 3.0], [0.5 / math.e - 0.5, 0.0, 3.0]),
            ("identity", [-2.0, 0.0, 3.0], [-2.0, 0.0, 3.0]),
        ],
    )
    def test_each_is_the_notes_formula(self, backend, spec, z, a):
        found = activations.get(spec).g(backend.xp, backend.asarray([z], "float64"))
        assert backend.to_host(found)[0].tolist() == pytest.approx(a, rel=1e-14)

    def test_maxout_is_the_larger_of_two_affine_pieces(self, backend):
        # max(w₁ᵀx + b₁, w₂ᵀx + b₂) for w₁ = (1, 2), b₁ = 0.5 and w₂ = (−1, 1), b₂ = 0
        thetas = [[[0.5, 1.0, 2.0], [0.0, -1.0, 1.0]], [[0.0, 1.0]]]
        network = Network.from_thetas(thetas, hidden="maxout", backend=backend)
        a2 = network.forward([[1.0, 1.0], [-3.0, 0.0]], every_layer=True).a[2]
        # 3.5 against 0, −2.5 against 3
        assert a2[:, 0].tolist() == [3.5, 3.0]

    def test_maxout_may_have_more_pieces(self, backend):
        # |x| and 2 at least: max(x, −x, 2)
        thetas = [[[0.0, 1.0], [0.0, -1.0], [2.0, 0.0]], [[0.0, 1.0]]]
        network = Network.from_thetas(thetas, hidden="maxout:3", backend=backend)
        a2 = network.forward([[-5.0], [1.0], [4.0]], every_layer=True).a[2]
        assert a2[:, 0].tolist() == [5.0, 2.0, 4.0]

    def test_softmax_gives_shares(self, backend):
        # e^log 1 : e^log 2 : e^log 5
        network = Network.from_thetas(
            [[[0.0, 0.0], [math.log(2), 0.0], [math.log(5), 0.0]]],
            loss="softmax_cross_entropy",
            backend=backend,
        )
        np.testing.assert_allclose(network.forward([[7.0]]), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-13)

    def test_one_of_your_own_can_be_trained(self):
        softplus = activations.Custom(
            lambda xp, z: xp.log(1.0 + xp.exp(z)),
            lambda xp, z, a: 1.0 - xp.exp(-a),
            name="softplus",
        )
        network = Network([2, 4, 1], hidden=softplus, seed=1, backend="numpy")
        assert all(c.difference < 1e-6 for c in network.check_gradient(CORNERS, [0, 1, 1, 0]))
        network.fit(CORNERS, [0, 1, 1, 0], optimizer="lbfgs", epochs=200)
        assert network.predict(CORNERS).tolist() == [0, 1, 1, 0]


class TestWhereTheNotesDisagree:
    """The gradient is always the exact derivative of the reported cost."""

    X = np.random.RandomState(0).normal(size=(5, 2))
    Y = np.array([0.0, 1.0, 1.0, 0.0, 1.0])

    def make(self, backend, **settings):
        return Network([2, 3, 1], init="normal", seed=0, backend=backend, **settings)

    def test_d_is_one_over_m_delta_plus_lambda_over_m_theta(self, backend):
        # not D = 1/m Δ + λΘ beside a cost with λ/2m ΣΘ²
        network = self.make(backend)
        plain, regularised = (
            network.gradient(self.X, self.Y),
            network.gradient(self.X, self.Y, l2=2),
        )
        for D, D_l2, Theta in zip(plain, regularised, network.thetas, strict=True):
            expected = D + 2 / 5 * np.column_stack([np.zeros(len(Theta)), Theta[:, 1:]])
            np.testing.assert_allclose(D_l2, expected, rtol=1e-12)

    def test_delta_is_accumulated_over_the_examples(self, backend):
        network = self.make(backend)
        each = [network.gradient([x], [y]) for x, y in zip(self.X, self.Y, strict=True)]
        for l, D in enumerate(network.gradient(self.X, self.Y)):
            np.testing.assert_allclose(D, sum(one[l] for one in each) / 5, rtol=1e-12)

    def test_squared_error_is_one_over_2m_and_mean_squared_error_one_over_m(self, backend):
        half, whole = (
            self.make(backend, loss=loss) for loss in ("squared_error", "mean_squared_error")
        )
        error = half.forward(self.X)[:, 0] - self.Y
        assert half.cost(self.X, self.Y) == pytest.approx(error @ error / (2 * 5), rel=1e-12)
        assert whole.cost(self.X, self.Y) == pytest.approx(error @ error / 5, rel=1e-12)
        for D, twice in zip(
            half.gradient(self.X, self.Y), whole.gradient(self.X, self.Y), strict=True
        ):
            np.testing.assert_allclose(2 * D, twice, rtol=1e-12)

    @pytest.mark.parametrize(
        ("loss", "output", "canonical"),
        [
            ("squared_error", "identity", True),
            ("cross_entropy", "sigmoid", True),
            ("squared_error", "sigmoid", False),
        ],
    )
    def test_delta_of_the_output_is_a_minus_y_for_canonical_pairs_only(
        self, backend, loss, output, *, canonical
    ):
        # one neuron and one example: D is δx, and its bias δ itself
        network = Network.from_thetas([[[0.3, 0.8]]], loss=loss, output=output, backend=backend)
        a = network.forward([[1.5]]).item()
        delta = network.gradient([[1.5]], [1.0])[0][0, 0]
        assert delta == pytest.approx((a - 1.0) * (1.0 if canonical else a * (1 - a)), rel=1e-13)

    def test_delta_is_a_minus_y_and_not_y_minus_a(self, backend):
        # h above the target: the cost grows with z, so δ = ∂cost/∂z is positive
        network = Network.from_thetas([[[0.0, 1.0]]], backend=backend)
        assert network.gradient([[2.0]], [0.0])[0][0, 0] > 0
        assert network.gradient([[2.0]], [1.0])[0][0, 0] < 0

    def test_the_cost_of_an_example_has_its_minus_sign(self, backend):
        # cost(i) = −log h for y = 1: positive, and the smaller the better h
        good, bad = (
            Network.from_thetas([[[0.0, w]]], backend=backend).cost([[1.0]], [1.0]) for w in (3, -3)
        )
        assert 0 < good < bad
        assert good == pytest.approx(-math.log(sigmoid(3.0)), rel=1e-12)

    def test_the_bias_is_never_regularised(self, backend):
        network = self.make(backend)
        data = self.X, self.Y
        for D, D_l2 in zip(network.gradient(*data), network.gradient(*data, l2=2), strict=True):
            np.testing.assert_array_equal(D[:, 0], D_l2[:, 0])
        # another bias costs no more λ
        Theta1, Theta2 = network.thetas
        moved = Network.from_thetas([Theta1 + np.array([5.0, 0.0, 0.0]), Theta2], backend=backend)
        penalties = [n.cost(*data, l2=2) - n.cost(*data) for n in (network, moved)]
        assert penalties[0] == pytest.approx(penalties[1], rel=1e-9)

    def test_cubic_features_are_of_order_n_cubed(self):
        assert math.comb(202, 3) / math.comb(102, 3) == pytest.approx(2**3, rel=0.05)

    @pytest.mark.parametrize(("alpha", "differentiable"), [(1.0, True), (0.5, False), (2.0, False)])
    def test_elu_is_derivable_at_0_for_alpha_1_only(self, backend, alpha, *, differentiable):
        elu, step = activations.ELU(alpha), 1e-7
        z = backend.asarray([[-step, 0.0, step]], "float64")
        below, here, above = backend.to_host(elu.g(backend.xp, z))[0]
        left, right = (here - below) / step, (above - here) / step
        assert left == pytest.approx(alpha, rel=1e-6)
        assert right == pytest.approx(1.0, rel=1e-6)
        assert (abs(left - right) < 1e-6) == differentiable
        # the documentation says so
        assert "α = 1 only" in activations.ELU.__doc__

    @pytest.mark.parametrize("l2", [0.0, 0.7])
    @pytest.mark.parametrize(
        ("loss", "output"),
        [
            (loss, output)
            for loss in ("cross_entropy", "softmax_cross_entropy", "squared_error")
            for output in ("sigmoid", "softmax", "identity", "tanh")
            if loss == "squared_error" or output in ("sigmoid", "softmax")
        ],
    )
    def test_the_gradient_is_that_of_the_reported_cost(self, loss, output, l2):
        network = Network(
            [2, 3, 2], loss=loss, output=output, init="normal", seed=0, backend="numpy"
        )
        Y = np.eye(2)[self.Y.astype(int)]
        assert all(c.difference < 1e-7 for c in network.check_gradient(self.X, Y, l2=l2))
