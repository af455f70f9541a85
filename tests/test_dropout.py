"""Dropout by counter, and clipped gradients."""

import numpy as np
import pytest

from gpunet import optimizers
from gpunet.backend import get_backend
from gpunet.description import architecture_of
from gpunet.dropout import keep, key_of
from gpunet.network import cost_and_gradient
from gpunet.step import clipped
from gpunet.training import Epochs, TrainingState


def kept(backend, *, seed=0, step=1, layer=0, rate=0.3, shape=(50, 200)):
    key = backend.asarray(np.asarray(key_of(seed, step), dtype=np.int64))
    return backend.to_host(keep(backend.xp, backend.asarray(np.ones(shape)), key, layer, rate))


class TestKeep:
    def test_the_same_units_on_every_backend(self, backend):
        np.testing.assert_array_equal(kept(backend), kept(get_backend("numpy")))

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_the_share_and_the_expectation(self, rate):
        factor = kept(get_backend("numpy"), rate=rate, shape=(200, 500))
        # 100,000 draws: the share of kept units has a deviation of at most 0.0016
        assert np.mean(factor > 0) == pytest.approx(1 - rate, abs=0.008)
        assert set(np.unique(factor)) == {0.0, 1 / (1 - rate)}

    @pytest.mark.parametrize("other", [{"seed": 1}, {"step": 2}, {"layer": 1}])
    def test_seed_step_and_layer_drop_different_units(self, other):
        numpy = get_backend("numpy")
        agreement = np.mean((kept(numpy) > 0) == (kept(numpy, **other) > 0))
        assert agreement == pytest.approx(0.7**2 + 0.3**2, abs=0.03)  # as if independent

    @pytest.mark.parametrize("axis", [0, 1])
    def test_neighbours_are_independent(self, axis):
        factor = kept(get_backend("numpy"), shape=(300, 300)) > 0
        shifted = np.roll(factor, 1, axis=axis)
        assert np.mean(factor == shifted) == pytest.approx(0.7**2 + 0.3**2, abs=0.01)

    def test_dtype_follows_the_activations(self, backend, dtype):
        like = backend.asarray(np.ones((3, 4), dtype=dtype))
        key = backend.asarray(np.asarray(5, dtype=np.int64))
        assert keep(backend.xp, like, key, 0, 0.5).dtype == like.dtype

    def test_each_network_of_a_stack_has_its_own(self, backend):
        keys = [key_of(seed, 3) for seed in range(4)]
        like = backend.asarray(np.ones((4, 6, 5)))
        together = keep(backend.xp, like, backend.asarray(np.asarray(keys)), 1, 0.4)
        alone = [kept(backend, seed=s, step=3, layer=1, rate=0.4, shape=(6, 5)) for s in range(4)]
        np.testing.assert_array_equal(backend.to_host(together), alone)


@pytest.mark.parametrize("hidden", ["tanh", "sigmoid", "maxout", "silu"])
def test_the_gradient_is_that_of_the_thinned_network(backend, hidden):
    architecture = architecture_of([3, 6, 5, 2], hidden, None, "cross_entropy")
    random = np.random.RandomState(0)
    theta = random.normal(size=architecture.n_parameters)
    data = [backend.asarray(part) for part in (random.normal(size=(3, 7)), np.ones((2, 7)) * 0.3)]
    key = backend.asarray(np.asarray(key_of(1, 1), dtype=np.int64))

    def at(theta):
        J, gradient = cost_and_gradient(
            architecture, backend.asarray(theta), *data, backend.primitives,
            l2=0.3, dropout=(0.4, 0.2), key=key,
        )  # fmt: skip
        return float(backend.to_host(J)), backend.to_host(gradient)

    direction = random.normal(size=theta.shape)
    numerical = (at(theta + 1e-5 * direction)[0] - at(theta - 1e-5 * direction)[0]) / 2e-5
    assert at(theta)[1] @ direction == pytest.approx(numerical, rel=1e-6)


def training(backend, dropout, seed=0):
    architecture = architecture_of([4, 8, 8, 1], "relu", None, "squared_error")
    random = np.random.RandomState(7)
    x, y = random.normal(size=(4, 30)), random.normal(size=(1, 30))
    theta = random.normal(size=architecture.n_parameters)
    epochs = Epochs(
        architecture, (backend.asarray(x), backend.asarray(y), None, None), backend=backend,
        optimizer=optimizers.Adam(), batch_size=8, dropout=dropout,
    )  # fmt: skip
    return epochs, TrainingState(backend.asarray(theta), np.random.RandomState(seed))


class TestTraining:
    def test_the_same_on_every_backend(self, backend):
        found = []
        for where in (backend, get_backend("numpy")):
            epochs, state = training(where, (0.5, 0.2))
            for _ in range(5):
                epochs.run(state, lambda step: 0.01)
            found.append(where.to_host(state.theta))
        np.testing.assert_allclose(*found, rtol=0, atol=1e-12)

    def test_no_dropout_draws_nothing(self):
        numpy = get_backend("numpy")
        states = []
        for dropout in ((), (0.0, 0.0)):
            epochs, state = training(numpy, dropout)
            epochs.run(state, lambda step: 0.01)
            states.append(state)
        np.testing.assert_array_equal(states[0].theta, states[1].theta)
        assert states[1].seed is None

    def test_a_seed_makes_a_difference(self):
        numpy, found = get_backend("numpy"), []
        for seed in (0, 1):
            epochs, state = training(numpy, (0.5, 0.5), seed)
            state.order, state.random = None, np.random.RandomState(3)
            state.seed = seed
            epochs.run(state, lambda step: 0.01)
            found.append(state.theta)
        assert np.max(np.abs(found[0] - found[1])) > 1e-4


class TestClipping:
    @pytest.mark.parametrize("norm", [0.1, 5.0, 1e3])
    def test_no_longer_than_asked(self, backend, norm):
        gradient = np.random.RandomState(0).normal(size=(3, 20))
        actual = backend.to_host(clipped(backend.xp, backend.asarray(gradient.copy()), norm))
        length = np.linalg.norm(gradient, axis=1, keepdims=True)
        expected = np.where(length > norm, gradient * norm / length, gradient)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)

    def test_a_zero_gradient_stays(self, backend):
        gradient = backend.asarray(np.zeros((1, 4)))
        np.testing.assert_array_equal(backend.to_host(clipped(backend.xp, gradient, 1.0)), 0.0)
