"""Training: the same on every backend, the same as scikit-learn's, stacked as alone; how runs end."""

import math
import os
import pickle
import signal
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import shuffle

import gpunet
from gpunet import optimizers
from gpunet.backend import Backend, get_backend
from gpunet.description import architecture_of
from gpunet.runs import train
from gpunet.step import TrainingStep
from gpunet.training import Epochs, TrainingState


@pytest.fixture(scope="module")
def flowers():
    X, y = load_iris(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def fitted(flowers, backend="numpy", **settings):
    X, y = flowers
    network = gpunet.Network(
        [4, 5, 3], hidden="tanh", loss="softmax_cross_entropy", seed=3, backend=backend
    )
    return network.fit(X, y, **{"epochs": 50, "batch_size": 32, "l2": 0.01, **settings})


class TestEveryBackend:
    @pytest.mark.parametrize("optimizer", ["gradient_descent", "momentum", "nesterov", "adam"])
    def test_trained_parameters_agree_over_50_epochs(self, flowers, backend, optimizer):
        expected = fitted(flowers, optimizer=optimizer, schedule="cosine")
        actual = fitted(flowers, backend, optimizer=optimizer, schedule="cosine")
        for Theta, Theta_numpy in zip(actual.thetas, expected.thetas, strict=True):
            np.testing.assert_allclose(Theta, Theta_numpy, rtol=0, atol=1e-10)
        costs = [[record["cost"] for record in n.history] for n in (actual, expected)]
        np.testing.assert_allclose(*costs, rtol=1e-10)

    def test_a_split_is_the_same(self, flowers, backend):
        expected = fitted(flowers, validation=0.2, epochs=5)
        actual = fitted(flowers, backend, validation=0.2, epochs=5)
        for name in ("cost", "score", "validation_cost", "validation_score"):
            costs = [[record[name] for record in n.history] for n in (actual, expected)]
            np.testing.assert_allclose(*costs, rtol=1e-10)

    def test_lbfgs_finds_the_same_minimum(self, flowers, backend):
        settings = {"optimizer": "lbfgs", "l2": 1.0, "epochs": 500}
        expected, actual = fitted(flowers, **settings), fitted(flowers, backend, **settings)
        assert actual.history[-1]["cost"] == pytest.approx(expected.history[-1]["cost"], rel=1e-6)

    def test_sample_weights_are_gathered_with_their_examples(self, flowers, backend):
        weights = np.linspace(0.1, 3.0, 150)
        expected = fitted(flowers, sample_weight=weights, epochs=5)
        actual = fitted(flowers, backend, sample_weight=weights, epochs=5)
        np.testing.assert_allclose(actual.thetas[0], expected.thetas[0], atol=1e-11)
        unweighted = fitted(flowers, epochs=5)
        assert np.max(np.abs(unweighted.thetas[0] - expected.thetas[0])) > 1e-4

    def test_float32_stays_float32(self, flowers, backend):
        network = gpunet.Network([4, 3], dtype="float32", seed=0, backend=backend)
        network.fit(*flowers, epochs=2, l2=0.1, schedule="cosine")
        assert network.theta.dtype == backend.xp.float32
        assert network.thetas[0].dtype == np.float32


class TestAgainstScikitLearn:
    """An independent implementation of the same training, to rounding."""

    @staticmethod
    def start(sizes, random):
        """Draw the initial Θ as scikit-learn does."""
        thetas = []
        for inputs, units in pairwise(sizes):
            bound = math.sqrt(6 / (inputs + units))
            weights = random.uniform(-bound, bound, (inputs, units)).T
            bias = random.uniform(-bound, bound, units)
            thetas.append(np.column_stack([bias, weights]))
        return thetas

    @pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ({"solver": "adam"}, {"optimizer": "adam"}),
            ({"solver": "sgd"}, {"optimizer": optimizers.Nesterov(0.001)}),
            (
                {"solver": "sgd", "nesterovs_momentum": False},
                {"optimizer": optimizers.Momentum(0.001)},
            ),
            (
                {"solver": "sgd", "momentum": 0.0},
                {"optimizer": optimizers.GradientDescent(0.001)},
            ),
        ],
        ids=["adam", "nesterov", "momentum", "gradient_descent"],
    )
    def test_minibatch_training_is_theirs(self, flowers, activation, theirs, ours):
        X, y = flowers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = MLPClassifier(
                (6, 5), activation=activation, alpha=0.0, batch_size=32, max_iter=20,
                random_state=7, **theirs,
            ).fit(X, y)  # fmt: skip
        random = np.random.RandomState(7)
        network = gpunet.Network.from_thetas(
            self.start([4, 6, 5, 3], random),
            hidden=activation,
            loss="softmax_cross_entropy",
            backend="numpy",
        )
        network.fit(X, y, batch_size=32, epochs=20, seed=random, **ours)
        for Theta, W, b in zip(network.thetas, model.coefs_, model.intercepts_, strict=True):
            np.testing.assert_allclose(Theta, np.column_stack([b, W.T]), rtol=0, atol=1e-10)
        costs = [record["cost"] for record in network.history]
        np.testing.assert_allclose(costs, model.loss_curve_, rtol=1e-9)

    def test_lbfgs_reaches_their_cost(self, flowers):
        X, target = flowers[0], flowers[0][:, 3]
        model = MLPRegressor(hidden_layer_sizes=(5,), activation="tanh", solver="lbfgs", alpha=1.0, max_iter=2000,
                             tol=1e-7, random_state=0).fit(X[:, :3], target)  # fmt: skip
        network = gpunet.Network.from_thetas(
            self.start([3, 5, 1], np.random.RandomState(0)),
            hidden="tanh",
            loss="squared_error",
            backend="numpy",
        )
        network.fit(
            X[:, :3], target, l2=1.0, optimizer=optimizers.LBFGS(tolerance=1e-7), epochs=2000
        )
        assert network.history[-1]["cost"] == pytest.approx(model.loss_, rel=1e-3)

    def test_shuffles_are_theirs(self):
        seen = []

        class Spy(Backend):
            """NumPy, with a look at the batches."""

            def __init__(self):
                numpy = get_backend("numpy")
                self.xp, self.device = numpy.xp, numpy.device
                self.asarray, self.to_host = numpy.asarray, numpy.to_host

            def compile(self, step):
                def epoch(carry, batches, data, stop):
                    seen.extend(batches[0].reshape(-1).tolist())
                    return carry

                return epoch

        spy = Spy()
        epochs = Epochs(
            architecture_of([1, 1], "tanh", None, "squared_error"),
            (np.ones((1, 7)), np.ones((1, 7)), None, None),
            backend=spy,
            optimizer=optimizers.Adam(),
            batch_size=3,
        )
        state = TrainingState(np.zeros(2), np.random.RandomState(5))
        for _ in range(3):
            epochs.run(state, lambda step: 0.001)
        random, order, expected = np.random.RandomState(5), np.arange(7), []
        for _ in range(3):
            order = shuffle(order, random_state=random)
            expected.extend(order.tolist())
        assert seen == expected


class TestStacked:
    """Many networks in one training step equal a loop over single ones."""

    @pytest.mark.parametrize(
        "optimizer",
        [
            optimizers.GradientDescent(),
            optimizers.Momentum(),
            optimizers.Nesterov(),
            optimizers.Adam(),
        ],
        ids=lambda optimizer: optimizer.name,
    )
    @pytest.mark.parametrize("hidden", ["relu", "maxout"])
    def test_steps(self, backend, optimizer, hidden):
        random = np.random.RandomState(0)
        K, n, m = 3, 12, 4
        architecture = architecture_of([5, 4, 2], hidden, None, "cross_entropy")
        theta = random.normal(size=(K, architecture.n_parameters))
        x, y = random.normal(size=(5, n)), random.uniform(size=(2, n))
        weights = random.uniform(0.5, 2.0, size=n)
        examples = np.stack([random.permutation(n)[:m] for _ in range(2 * K)]).reshape(2, K, m)
        rates, l2 = random.uniform(0.01, 0.1, size=(2, K, 1)), random.uniform(size=K)
        step = TrainingStep(architecture, optimizer)
        xp = backend.xp

        def run(theta, examples, rates, l2):
            theta = backend.asarray(np.array(theta))
            carry = (theta, optimizer.start(xp, theta), xp.sum(xp.zeros_like(theta), axis=-1))
            data = tuple(map(backend.asarray, (x, y, weights, l2)))
            for batch in zip(examples, rates, strict=True):
                carry = step(backend.primitives, carry, tuple(map(backend.asarray, batch)), data)
            return backend.to_host(carry[0]), backend.to_host(carry[2])

        together, costs = run(theta, examples, rates, l2)
        alone = [run(theta[k], examples[:, k], rates[:, k, 0], l2[k]) for k in range(K)]
        np.testing.assert_allclose(together, [theta for theta, _ in alone], rtol=0, atol=1e-13)
        np.testing.assert_allclose(costs, [cost for _, cost in alone], rtol=1e-13)


class TestDiscipline:
    def test_nothing_inside_a_step_reads_the_device(self, monkeypatch):
        backend = get_backend("strict:device1")
        architecture = architecture_of([3, 4, 2], "maxout", None, "softmax_cross_entropy")
        random = np.random.RandomState(0)
        theta = backend.asarray(random.normal(size=architecture.n_parameters))
        data = (
            backend.asarray(random.normal(size=(3, 8))),
            backend.asarray(np.eye(2)[random.permutation(8) % 2].T),
            backend.asarray(np.ones(8)),
            0.1,
        )
        batches = (
            backend.asarray(np.arange(8).reshape(2, 4)),
            backend.asarray(np.asarray([0.1, 0.1])),
        )
        optimizer = optimizers.Adam()
        carry = (theta, optimizer.start(backend.xp, theta), backend.xp.zeros_like(theta[0]))
        kind = type(theta)

        def refuse(self, *args, **kwargs):
            raise AssertionError("a value was read back to the host inside a step")

        for method in ("__float__", "__bool__", "__int__", "__index__", "__complex__",
                       "__array__", "__dlpack__", "to_device", "__iter__"):  # fmt: skip
            monkeypatch.setattr(kind, method, refuse, raising=False)
        epoch = backend.compile(TrainingStep(architecture, optimizer))
        epoch(carry, batches, data, lambda: False)

    def test_the_users_arrays_are_untouched(self, flowers, backend):
        X, y = (np.array(part) for part in flowers)
        X.flags.writeable = y.flags.writeable = False
        network = gpunet.Network([4, 3, 3], loss="softmax_cross_entropy", backend=backend)
        network.fit(X, y, epochs=2, validation=0.2, sample_weight=np.ones(150))
        np.testing.assert_array_equal(X, flowers[0])

    def test_arrays_of_the_backend_are_untouched(self, flowers, backend):
        X, Y = backend.asarray(np.array(flowers[0])), backend.asarray(np.eye(3)[flowers[1]])
        network = gpunet.Network([4, 3, 3], hidden="identity", backend=backend)
        network.fit(X, Y, epochs=2)
        np.testing.assert_array_equal(backend.to_host(X), flowers[0])
        np.testing.assert_array_equal(backend.to_host(Y), np.eye(3)[flowers[1]])


class TestBatches:
    @pytest.mark.parametrize("batch_size", [1, 7, 149, 150, 1000, None])
    def test_every_batch_size_trains(self, flowers, batch_size):
        network = fitted(flowers, batch_size=batch_size, epochs=3)
        assert network.history[-1]["cost"] < network.history[0]["cost"]

    def test_full_batches_descend_by_the_gradient(self, flowers):
        X, y = flowers
        network = gpunet.Network([4, 3], loss="softmax_cross_entropy", seed=0, backend="numpy")
        before, gradient = network.thetas, network.gradient(X, y, l2=0.5)
        network.fit(
            X, y, optimizer="gradient_descent", learning_rate=0.3, batch_size=None, epochs=1, l2=0.5
        )
        np.testing.assert_allclose(network.thetas[0], before[0] - 0.3 * gradient[0], atol=1e-14)

    def test_without_shuffling_the_order_stays(self, flowers):
        one = fitted(flowers, shuffle=False, seed=1, epochs=3)
        other = fitted(flowers, shuffle=False, seed=2, epochs=3)
        np.testing.assert_array_equal(one.thetas[0], other.thetas[0])

    def test_the_cost_of_an_epoch_is_the_mean_over_its_examples(self, flowers):
        X, y = flowers
        network = gpunet.Network([4, 3], loss="softmax_cross_entropy", seed=0, backend="numpy")
        cost = network.cost(X, y)
        network.fit(X, y, learning_rate=1e-12, batch_size=32, epochs=1)
        assert network.history[0]["cost"] == pytest.approx(cost, rel=1e-9)


class TestWhatIsMinimised:
    """J over all examples, whatever the batch size: the mean of the minibatches' gradients is J's gradient."""

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("batch_size", [5, 50, 150])
    def test_minibatches_estimate_the_gradient_of_the_cost(self, flowers, batch_size, weighted):
        X, y = flowers
        weights = np.random.RandomState(1).uniform(0.1, 5.0, 150) if weighted else None
        settings = {"l2": 30.0, "sample_weight": weights}
        network = gpunet.Network([4, 3], loss="softmax_cross_entropy", seed=0, backend="numpy")
        start, gradient = network.thetas[0], network.gradient(X, y, **settings)[0]
        cost = network.cost(X, y, **settings)
        # with a tiny rate the steps of an epoch add up to rate × steps × mean gradient
        network.fit(X, y, optimizer="gradient_descent", learning_rate=1e-7, epochs=1,
                    batch_size=batch_size, **settings)  # fmt: skip
        mean = (start - network.thetas[0]) / 1e-7 / (150 / batch_size)
        np.testing.assert_allclose(mean, gradient, rtol=0, atol=1e-4)
        assert network.history[0]["cost"] == pytest.approx(cost, rel=1e-5)


class TestHistory:
    def test_a_record_an_epoch(self, flowers):
        network = fitted(flowers, validation=0.2, epochs=4, schedule="cosine", learning_rate=0.01)
        assert [record["epoch"] for record in network.history] == [1, 2, 3, 4]
        assert set(network.history[0]) == {
            "epoch", "cost", "score", "validation_cost", "validation_score",
            "learning_rate", "seconds",
        }  # fmt: skip
        rates = [record["learning_rate"] for record in network.history]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(0.0, abs=1e-12)

    def test_scores_are_those_of_the_network(self, flowers):
        X, y = flowers
        network = fitted(flowers, validation=(X[:30], y[:30]), epochs=1)
        record = network.history[0]
        assert record["score"] == pytest.approx(network.score(X, y))
        assert record["validation_score"] == pytest.approx(network.score(X[:30], y[:30]))
        assert record["validation_cost"] == pytest.approx(network.cost(X[:30], y[:30]))

    def test_lbfgs_records_each_iteration(self, flowers):
        network = fitted(flowers, optimizer="lbfgs", epochs=10)
        costs = [record["cost"] for record in network.history]
        assert len(costs) == 10
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] == pytest.approx(network.cost(*flowers, l2=0.01), rel=1e-9)


class TestEnds:
    def test_the_best_validation_score_is_kept(self, flowers):
        X, y = flowers
        held = (X[::2], y[::2])
        scores = []

        def worse(record):  # ends the run with an epoch that isn't the best
            scores.append(record["validation_score"])
            return scores[-1] < max(scores)

        network = fitted(
            flowers, validation=held, epochs=100, learning_rate=0.5, batch_size=8, callbacks=[worse]
        )
        best = max(record["validation_score"] for record in network.history)
        assert network.history[-1]["validation_score"] < best  # else the test shows nothing
        assert network.score(*held) == pytest.approx(best)

    def test_patience_counts_epochs_without_growth(self, flowers):
        X, y = flowers
        network = fitted(flowers, validation=(X, y), learning_rate=1e-12, patience=3, epochs=50)
        # the first epoch is an improvement on nothing; then 4 > 3 epochs without any
        assert len(network.history) == 5

    def test_lbfgs_can_stop_early(self, flowers):
        X, y = flowers
        network = fitted(
            flowers, optimizer="lbfgs", validation=(X, y), patience=0, tolerance=2.0, epochs=50
        )
        assert len(network.history) == 2

    def test_a_callback_stops_the_run(self, flowers):
        seen = []
        network = fitted(
            flowers, callbacks=[lambda record: record["epoch"] == 3, seen.append], epochs=50
        )
        assert [record["epoch"] for record in seen] == [1, 2, 3]
        assert network.history == seen

    @pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
    def test_ctrl_c_keeps_the_best_and_the_handler(self, flowers, optimizer):
        handler = signal.getsignal(signal.SIGINT)

        def interrupt(record):
            if record["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGINT)

        X, y = flowers
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="interrupted in epoch 3"):
            network = fitted(
                flowers, optimizer=optimizer, callbacks=[interrupt], validation=(X, y), epochs=50
            )
        assert len(network.history) == 2
        best = max(record["validation_score"] for record in network.history)
        assert network.score(X, y) == pytest.approx(best)
        assert signal.getsignal(signal.SIGINT) is handler

    def test_ctrl_c_stops_after_the_step(self, flowers):
        X, y = flowers
        network = gpunet.Network([4, 3], loss="softmax_cross_entropy", seed=0, backend="numpy")
        taken = []

        class Counting(optimizers.GradientDescent):
            """Interrupts within the second step."""

            def update(self, *args):
                taken.append(1)
                if len(taken) == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                return super().update(*args)

        before = network.thetas[0]
        with pytest.warns(gpunet.TrainingInterruptedWarning, match="epoch 1"):
            network.fit(X, y, optimizer=Counting(0.1), batch_size=10)
        assert len(taken) == 2
        assert np.max(np.abs(network.thetas[0] - before)) > 0  # both steps' work is kept

    def test_a_second_ctrl_c_interrupts_at_once(self, flowers):
        def interrupt(record):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            fitted(flowers, callbacks=[interrupt])

    def test_a_thread_can_train(self, flowers):
        networks = []
        thread = threading.Thread(target=lambda: networks.append(fitted(flowers, epochs=2)))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(networks[0].thetas[0], fitted(flowers, epochs=2).thetas[0])

    @pytest.mark.parametrize("optimizer", ["gradient_descent", "lbfgs"])
    def test_divergence_keeps_the_last_finite_parameters(self, optimizer):
        X, y = np.full((4, 1), 1e200), np.asarray([1e200, 0.0, 1.0, 2.0])
        network = gpunet.Network([1, 1], loss="squared_error", seed=0, backend="numpy")
        before = network.thetas[0]
        with (
            pytest.raises(gpunet.DivergenceError, match=r"epoch 1 .*smaller learning rate"),
            np.errstate(all="ignore"),
        ):
            network.fit(X, y, optimizer=optimizer)
        np.testing.assert_array_equal(network.thetas[0], before)

    def test_divergence_names_its_epoch(self, flowers, backend):
        X, y = flowers
        network = gpunet.Network([4, 1], loss="squared_error", seed=0, backend=backend)
        with (
            pytest.raises(gpunet.DivergenceError, match="Training diverged: in epoch") as caught,
            np.errstate(all="ignore"),
        ):
            network.fit(X, y.astype(float), optimizer="gradient_descent", learning_rate=1e30)
        assert f"epoch {len(network.history) + 1} " in str(caught.value)
        assert np.all(np.isfinite(network.thetas[0]))


class TestResume:
    def test_a_run_goes_on_exactly_where_it_was(self, flowers):
        X, y = flowers
        backend = get_backend("numpy")
        architecture = architecture_of([4, 5, 3], "tanh", None, "softmax_cross_entropy")
        data = (X.T, np.eye(3)[y].T, None, 0.1)
        theta = np.random.RandomState(0).normal(size=architecture.n_parameters)

        epochs = Epochs(
            architecture, data, backend=backend, optimizer=optimizers.Adam(), batch_size=32
        )

        def go(state, n_epochs):
            train(
                epochs, state, backend=backend, n_epochs=n_epochs, learning_rate=lambda t: 0.1 / t
            )
            return state

        straight = go(TrainingState(theta.copy(), np.random.RandomState(1)), 10)
        halfway = go(TrainingState(theta.copy(), np.random.RandomState(1)), 5)
        resumed = go(pickle.loads(pickle.dumps(halfway)), 5)
        np.testing.assert_array_equal(resumed.theta, straight.theta)
        assert (resumed.epoch, resumed.step) == (straight.epoch, straight.step) == (10, 50)

    def test_a_second_fit_goes_on_from_the_parameters(self, flowers):
        network = fitted(flowers, epochs=5)
        cost = network.history[-1]["cost"]
        network.fit(*flowers, epochs=5, l2=0.01)
        assert network.history[0]["cost"] < cost


def test_digits_are_learned_to_97_percent():
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0, stratify=y)
    network = gpunet.Network(
        [64, 64, 10], hidden="relu", init="he", loss="softmax_cross_entropy", seed=0,
        dtype="float32", backend="numpy",
    )  # fmt: skip
    network.fit(X_train, y_train, epochs=60, batch_size=64, l2=1e-2)
    assert network.score(X_test, y_test) >= 0.97


class TestProgress:
    def test_the_bar_shows_epochs_cost_and_speed(self, flowers, capsys):
        fitted(flowers, validation=0.2, epochs=3, progress=True)
        shown = capsys.readouterr().out
        assert "3/3" in shown
        assert "cost" in shown
        assert "validation" in shown
        assert "examples/s" in shown

    def test_it_is_silent_unless_asked(self, flowers, capsys):
        fitted(flowers, epochs=3)
        assert capsys.readouterr().out == ""


class TestKeepingTheBest:
    def test_of_equal_scores_the_lowest_cost_is_kept(self):
        X = np.asarray([[-1.0], [1.0]] * 5)
        y = np.asarray([0, 1] * 5)
        network = gpunet.Network([1, 1], seed=0, backend="numpy")
        network.fit(X, y, validation=(X, y), epochs=30, learning_rate=0.1)
        scores = [record["validation_score"] for record in network.history]
        assert scores[10:] == [1.0] * 20  # perfect long before the end
        costs = [record["validation_cost"] for record in network.history]
        assert network.cost(X, y) == min(costs)


def test_a_run_that_ignores_ctrl_c_goes_on_ignoring_it(flowers):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        network = fitted(
            flowers, epochs=3, callbacks=[lambda record: os.kill(os.getpid(), signal.SIGINT)]
        )
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(network.history) == 3
