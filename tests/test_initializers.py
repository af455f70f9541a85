"""Initial weights: their distribution, their order, the same on every backend."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from gpunet import Network, initializers

INPUTS, UNITS = 40, 60
WITHOUT_BIAS = ["zeros", "xavier", "xavier_normal", "he"]
RANDOM = ["uniform", "normal", "xavier", "xavier_normal", "he"]

# The distribution each promises, of weights from 40 units to 60.
DISTRIBUTIONS = {
    "uniform": scipy.stats.uniform(-0.12, 0.24),
    "normal": scipy.stats.norm(0.0, 1.0),
    "xavier": scipy.stats.uniform(-math.sqrt(6 / 100), 2 * math.sqrt(6 / 100)),
    "xavier_normal": scipy.stats.norm(0.0, math.sqrt(2 / 100)),
    "he": scipy.stats.norm(0.0, math.sqrt(2 / 40)),
}


def draw(spec, *, inputs=INPUTS, units=UNITS, pieces=1, seed=0):
    """Return Θ and the bias of one layer."""
    initializer = initializers.get(spec)
    return initializer(np.random.RandomState(seed), inputs, units, units * pieces)


class TestDistributions:
    """2,400 weights of a fixed seed against the distribution that is promised."""

    @pytest.mark.parametrize("name", RANDOM)
    def test_weights_follow_it(self, name):
        Theta, _ = draw(name)
        assert scipy.stats.kstest(Theta.ravel(), DISTRIBUTIONS[name].cdf).pvalue > 0.01

    @pytest.mark.parametrize("name", RANDOM)
    def test_mean_and_variance_are_within_four_standard_errors(self, name):
        Theta, _ = draw(name)
        n, expected = Theta.size, DISTRIBUTIONS[name]
        mean, variance, _, excess = map(float, expected.stats("mvsk"))
        assert abs(Theta.mean() - mean) < 4 * math.sqrt(variance / n)
        # the variance of a sample variance is (kurtosis − 1) σ⁴ / n
        assert abs(Theta.var() - variance) < 4 * variance * math.sqrt((excess + 2) / n)

    @pytest.mark.parametrize(
        ("spec", "bound"),
        [
            ("uniform", 0.12),
            (initializers.Uniform(0.5), 0.5),
            ("xavier", math.sqrt(6 / (INPUTS + UNITS))),
        ],
        ids=str,
    )
    def test_a_uniform_one_fills_its_range_and_no_more(self, spec, bound):
        Theta, _ = draw(spec)
        assert 0.99 * bound < abs(Theta).max() <= bound

    @pytest.mark.parametrize("deviation", [0.01, 3.0])
    def test_a_normal_one_has_the_deviation_that_is_set(self, deviation):
        Theta, bias = draw(initializers.Normal(deviation))
        np.testing.assert_allclose(Theta, deviation * draw("normal")[0], rtol=1e-14)
        np.testing.assert_allclose(bias, deviation * draw("normal")[1], rtol=1e-14)

    def test_zeros_are_zeros(self):
        Theta, bias = draw("zeros")
        assert not Theta.any()
        assert not bias.any()

    @pytest.mark.parametrize("name", WITHOUT_BIAS)
    def test_the_bias_is_0(self, name):
        assert not draw(name)[1].any()

    @pytest.mark.parametrize("name", ["uniform", "normal"])
    def test_the_bias_column_of_the_notes_schemes_is_random_too(self, name):
        bias = np.concatenate([draw(name, seed=seed)[1] for seed in range(20)])
        assert scipy.stats.kstest(bias, DISTRIBUTIONS[name].cdf).pvalue > 0.01

    @pytest.mark.parametrize("name", initializers.KNOWN)
    @pytest.mark.parametrize("pieces", [1, 3])
    def test_shapes(self, name, pieces):
        Theta, bias = draw(name, inputs=4, units=5, pieces=pieces)
        assert (Theta.shape, bias.shape) == ((5 * pieces, 4), (5 * pieces,))
        assert (Theta.dtype, bias.dtype) == ("float64", "float64")

    @pytest.mark.parametrize("name", ["xavier", "xavier_normal"])
    def test_the_pieces_of_a_maxout_do_not_count_as_units(self, name):
        # the fan-out is the 60 units that the layer above reads, not their 180 pieces
        Theta, _ = draw(name, pieces=3)
        assert scipy.stats.kstest(Theta.ravel(), DISTRIBUTIONS[name].cdf).pvalue > 0.01


class TestSeeds:
    @pytest.mark.parametrize("name", initializers.KNOWN)
    def test_the_same_seed_gives_the_same_weights_on_every_backend(self, backend, name):
        sizes = [3, 4, 2]
        here = Network(sizes, init=name, seed=5, backend=backend)
        there = Network(sizes, init=name, seed=5, backend="numpy")
        assert all((a == b).all() for a, b in zip(here.thetas, there.thetas, strict=True))

    @pytest.mark.parametrize("name", RANDOM)
    def test_another_seed_gives_other_weights(self, name):
        assert (draw(name, seed=0)[0] != draw(name, seed=1)[0]).all()

    @pytest.mark.parametrize("name", initializers.KNOWN)
    def test_float32_rounds_the_same_weights(self, backend, name):
        single = Network([3, 4, 2], init=name, seed=5, dtype="float32", backend=backend)
        double = Network([3, 4, 2], init=name, seed=5, backend=backend)
        for a, b in zip(single.thetas, double.thetas, strict=True):
            assert a.dtype == "float32"
            np.testing.assert_array_equal(a, b.astype("float32"))

    def test_a_generator_moves_on(self):
        random = np.random.RandomState(5)
        first, second = (Network([3, 2], seed=random, backend="numpy") for _ in range(2))
        assert (first.thetas[0][:, 1:] != second.thetas[0][:, 1:]).all()

    @pytest.mark.parametrize("name", initializers.KNOWN)
    def test_every_scheme_draws_as_many_numbers(self, name):
        # of the uniform schemes at least, so that what comes after does not depend on them
        random = np.random.RandomState(5)
        initializers.get(name)(random, 3, 4, 4)
        if name in ("zeros", "uniform", "xavier"):
            expected = np.random.RandomState(5)
            expected.uniform(size=3 * 4 + 4)
            assert random.uniform() == expected.uniform()


class TestScikitLearnsOrder:
    """Xavier draws the very weights of scikit-learn's networks, layer by layer."""

    @pytest.mark.parametrize("seed", [0, 42])
    @pytest.mark.parametrize("sizes", [(3, 5, 1), (3, 4, 6, 1)], ids=str)
    def test_xavier_with_relu_is_mlpclassifiers_start(self, sizes, seed):
        random = np.random.RandomState(0)
        X, y = random.normal(size=(8, sizes[0])), [0, 1] * 4
        theirs = self.start(MLPClassifier, X, y, sizes, seed)
        ours = Network(sizes, hidden="relu", seed=seed, backend="numpy").thetas
        for Theta, coef in zip(ours, theirs.coefs_, strict=True):
            np.testing.assert_allclose(Theta[:, 1:].T, coef, rtol=1e-12)

    def test_xavier_with_tanh_is_mlpregressors_start(self):
        X, Y = np.eye(8)[:, :3], np.eye(8)[:, :2]
        theirs = self.start(MLPRegressor, X, Y, (3, 4, 2), 1, activation="tanh")
        ours = Network((3, 4, 2), hidden="tanh", seed=1, backend="numpy").thetas
        for Theta, coef in zip(ours, theirs.coefs_, strict=True):
            np.testing.assert_allclose(Theta[:, 1:].T, coef, rtol=1e-12)

    def start(self, kind, X, y, sizes, seed, **settings):  # a shorthand
        """Return scikit-learn's network after one step of next to no length."""
        model = kind(
            hidden_layer_sizes=sizes[1:-1],
            solver="sgd",
            learning_rate_init=1e-300,
            max_iter=1,
            random_state=seed,
            **settings,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(X, y)


class TestGet:
    @pytest.mark.parametrize("name", initializers.KNOWN)
    def test_a_name_gives_its_scheme(self, name):
        assert initializers.get(name).name == name

    @pytest.mark.parametrize(
        ("alias", "name"), [("xavier_uniform", "xavier"), ("glorot", "xavier"), ("zero", "zeros")]
    )
    def test_an_alias_too(self, alias, name):
        assert initializers.get(alias) == initializers.get(name)

    def test_an_initializer_is_itself(self):
        initializer = initializers.Uniform(0.3)
        assert initializers.get(initializer) is initializer

    @pytest.mark.parametrize("spec", ["kaiming", "", None, 3])
    def test_an_unknown_name_lists_the_known_ones(self, spec):
        with pytest.raises(ValueError, match=r"Unknown initializer.*zeros.*uniform.*xavier.*he"):
            initializers.get(spec)

    @pytest.mark.parametrize("epsilon", [0.0, -0.1, math.nan, math.inf])
    def test_an_epsilon_that_is_no_range_is_refused(self, epsilon):
        with pytest.raises(ValueError, match=r"finite ε > 0, not"):
            initializers.Uniform(epsilon)

    @pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan, math.inf])
    def test_a_deviation_that_is_none_is_refused(self, deviation):
        with pytest.raises(ValueError, match=r"finite deviation > 0, not"):
            initializers.Normal(deviation)
