"""`gpunet.Network`: made, read back, asked, trained; and every way to ask it for what can't be."""

import re

import numpy as np
import pytest
import scipy.special
from sklearn.metrics import accuracy_score, r2_score

import gpunet
from gpunet import DivergenceError, Network, activations
from gpunet.backend import BackendUnavailableError, backend_of, get_backend

RANDOM = np.random.RandomState(0)
M = 8
X = RANDOM.normal(size=(M, 2))
BINARY = np.array([0, 1, 1, 0, 1, 0, 0, 1])
CLASSES = np.array([0, 1, 2, 0, 1, 2, 2, 1])
ONE_HOT = np.eye(3)[CLASSES]
LABELS = (RANDOM.uniform(size=(M, 3)) < 0.5).astype(float)
VALUES = RANDOM.normal(size=(M, 3))
WEIGHTS = RANDOM.uniform(0.1, 2.0, M)

# a network of each task, with its targets: sizes, settings, Y
TASKS = {
    "binary": ((2, 4, 1), {}, BINARY),
    "multiclass": ((2, 4, 3), {"loss": "softmax_cross_entropy"}, CLASSES),
    "multilabel": ((2, 4, 3), {"task": "multilabel"}, LABELS),
    "regression": ((2, 4, 3), {"loss": "squared_error"}, VALUES),
}
task = pytest.mark.parametrize("task", TASKS)


def make(task="binary", **settings):
    """Return a network of a task and its targets."""
    sizes, own, Y = TASKS[task]
    return Network(sizes, **{"hidden": "tanh", "seed": 1, "backend": "numpy", **own, **settings}), Y


def lives_on(backend, array):
    """Return whether an array lives on a backend's device."""
    owner = backend_of([array])
    if owner is None:  # NumPy's arrays are host data, for which numbers are floats
        return backend.name == "numpy" and isinstance(array, np.ndarray | float)
    return owner.spec == backend.spec


def on_host(backend, results):
    """Return NumPy arrays of one or many arrays on the device, having seen that they are there."""
    many = results if isinstance(results, list) else [results]
    assert all(lives_on(backend, array) for array in many)
    return [np.asarray(backend.to_host(array)) for array in many]


class TestMaking:
    @pytest.mark.parametrize(
        ("sizes", "hidden", "shapes"),
        [
            ((2, 1), "sigmoid", [(1, 3)]),
            ((2, 3, 1), "relu", [(3, 3), (1, 4)]),
            ((3, 4, 2, 5), "tanh", [(4, 4), (2, 5), (5, 3)]),
            ((2, 3, 1), "maxout", [(6, 3), (1, 4)]),
            ((2, 3, 2, 1), ["maxout:4", "elu"], [(12, 3), (2, 4), (1, 3)]),
        ],
    )
    def test_thetas_have_the_notes_shapes(self, backend, sizes, hidden, shapes):
        network = Network(sizes, hidden=hidden, seed=0, backend=backend)
        assert [Theta.shape for Theta in network.thetas] == shapes
        assert network.theta.shape == (sum(map(np.prod, shapes)),)
        assert lives_on(backend, network.theta)
        assert all(isinstance(Theta, np.ndarray) for Theta in network.thetas)

    @pytest.mark.parametrize("hidden", ["tanh", activations.Tanh(), ["tanh", activations.Tanh()]])
    def test_one_activation_serves_all_hidden_layers(self, hidden):
        network = Network([2, 3, 3, 1], hidden=hidden, backend="numpy")
        assert network.architecture.activations == (
            activations.Tanh(),
            activations.Tanh(),
            activations.Sigmoid(),
        )

    def test_each_hidden_layer_may_have_its_own(self):
        network = Network([2, 3, 3, 1], hidden=["relu", "elu:0.5"], backend="numpy")
        kinds = (activations.ReLU(), activations.ELU(0.5), activations.Sigmoid())
        assert network.architecture.activations == kinds

    @pytest.mark.parametrize(
        ("loss", "output"),
        [
            ("cross_entropy", activations.Sigmoid()),
            ("softmax_cross_entropy", activations.Softmax()),
            ("squared_error", activations.Identity()),
            ("mean_squared_error", activations.Identity()),
        ],
    )
    def test_the_output_is_the_losss_canonical_one(self, loss, output):
        assert Network([2, 3], loss=loss, backend="numpy").architecture.activations == (output,)

    @pytest.mark.parametrize(
        ("sizes", "settings", "expected"),
        [
            ((2, 1), {}, "binary"),
            ((2, 3), {}, "multiclass"),
            ((2, 3), {"loss": "softmax_cross_entropy"}, "multiclass"),
            ((2, 1), {"loss": "squared_error"}, "regression"),
            ((2, 3), {"loss": "mean_squared_error"}, "regression"),
            ((2, 3), {"task": "multilabel"}, "multilabel"),
            ((2, 3), {"loss": "squared_error", "task": "multiclass"}, "multiclass"),
        ],
    )
    def test_the_task_follows_from_loss_and_outputs(self, sizes, settings, expected):
        assert Network(sizes, backend="numpy", **settings).task == expected

    @pytest.mark.parametrize("sizes", [[2, 3, 1], (2, 3, 1), np.array([2, 3, 1])], ids=type)
    def test_sizes_may_be_any_whole_numbers(self, sizes):
        assert Network(sizes, backend="numpy").architecture.sizes == (2, 3, 1)

    def test_the_dtype_is_double_unless_asked(self, backend):
        assert Network([2, 1], backend=backend).theta.dtype == backend.xp.float64
        network = Network([2, 1], dtype="float32", backend=backend)
        assert network.theta.dtype == backend.xp.float32

    def test_a_device_may_be_given_apart(self):
        network = Network([2, 1], backend="array_api_strict", device="device2")
        assert network.backend.spec == "array_api_strict:device2"


class TestFromThetas:
    @pytest.mark.parametrize(
        ("sizes", "settings"),
        [
            ((2, 1), {}),
            ((2, 3, 3), {"hidden": "relu", "loss": "softmax_cross_entropy"}),
            ((2, 3, 4, 1), {"hidden": ["tanh", "elu"]}),
            ((2, 3, 1), {"hidden": "maxout"}),
            ((2, 3, 4, 2), {"hidden": ["maxout:3", "maxout"], "loss": "squared_error"}),
            ((2, 3, 4, 2), {"hidden": ["relu", "maxout:3"]}),
            ((2, 3, 2), {"output": "maxout", "loss": "squared_error"}),
            ((2, 2), {"output": "maxout:3", "loss": "mean_squared_error"}),
        ],
        ids=str,
    )
    def test_given_and_read_back(self, backend, sizes, settings):
        network = Network(sizes, seed=2, init="normal", backend=backend, **settings)
        again = Network.from_thetas(network.thetas, backend=backend, **settings)
        assert again.architecture == network.architecture
        assert again.task == network.task
        for Theta, Theta_again in zip(network.thetas, again.thetas, strict=True):
            np.testing.assert_array_equal(Theta_again, Theta)
        np.testing.assert_array_equal(again.forward(X), network.forward(X))

    @pytest.mark.parametrize(
        ("dtypes", "given", "expected"),
        [
            (("float64", "float64"), None, "float64"),
            (("float32", "float32"), None, "float32"),
            (("float32", "float64"), None, "float64"),
            (("int64", "float32"), None, "float64"),
            (("int64", "int64"), None, "float64"),
            (("float64", "float64"), "float32", "float32"),
            (("float32", "float32"), "float64", "float64"),
        ],
    )
    def test_the_dtype_follows_the_matrices_unless_given(self, backend, dtypes, given, expected):
        thetas = [np.ones((3, 3), dtypes[0]), np.ones((1, 4), dtypes[1])]
        network = Network.from_thetas(thetas, dtype=given, backend=backend)
        assert network.dtype == expected
        assert {str(Theta.dtype) for Theta in network.thetas} == {expected}

    def test_lists_will_do(self, backend):
        network = Network.from_thetas([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9]]], backend=backend)
        assert [Theta.tolist() for Theta in network.thetas] == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9]]]

    def test_matrices_on_a_device_stay_there(self, backend):
        with gpunet.use_backend("numpy"):
            thetas = [backend.asarray(np.ones((3, 3))), backend.asarray(np.ones((1, 4)))]
            assert Network.from_thetas(thetas).backend.spec == backend.spec

    def test_nothing_is_shared_with_what_was_given_or_read(self):
        given = [np.ones((3, 3)), np.ones((1, 4))]
        network = Network.from_thetas(given, backend="numpy")
        given[0][0, 0] = 5.0
        network.thetas[1][0, 0] = 5.0
        assert [(Theta == 1.0).all() for Theta in network.thetas] == [True, True]

    @pytest.mark.parametrize(
        ("shapes", "settings", "message"),
        [
            ([(3, 3), (1, 3)], {}, r"Theta2 is 1 x 3, but layer 2 has s_2 = 3 .* s_2 \+ 1 = 4"),
            ([(3, 3), (2, 4), (1, 4)], {}, r"Theta3 is 1 x 4, but layer 3 has s_3 = 2 .* = 3 col"),
            ([(3, 1), (1, 4)], {}, r"Theta1 is 3 x 1"),
            ([(3, 3), (1, 4)], {"hidden": "maxout"}, r"Theta1 has 3 rows.*maxout's 2 pieces"),
            ([(4, 3), (1, 5)], {"hidden": "maxout"}, r"Theta2 is 1 x 5.*s_2 = 2 units.* = 3 col"),
            (
                [(4, 3), (3, 5)],
                {"output": "maxout", "loss": "squared_error"},
                r"Theta2 has 3 rows.*maxout's 2 pieces",
            ),
            ([(3, 3), (1, 4)], {"hidden": ["relu", "relu"]}, r"hidden gives 2 activations"),
            ([(3, 3), (1, 4)], {"dtype": "int64"}, r"dtype is 'float32' or 'float64'"),
            ([], {}, r"empty.*at least Θ"),
        ],
    )
    def test_matrices_that_do_not_chain_are_refused(self, shapes, settings, message):
        with pytest.raises(ValueError, match=message):
            Network.from_thetas([np.ones(s) for s in shapes], backend="numpy", **settings)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_matrix_with_nan_or_infinity_is_refused(self, backend, bad):
        thetas = [np.ones((3, 3)), np.ones((1, 4))]
        thetas[1][0, 2] = bad
        with pytest.raises(ValueError, match=r"Theta2 contains (NaN|infinity)"):
            Network.from_thetas(thetas, backend=backend)
        with pytest.raises(ValueError, match=r"Theta2 contains (NaN|infinity)"):
            Network.from_thetas([backend.asarray(Theta) for Theta in thetas])

    @pytest.mark.parametrize("Theta", [[1.0, 2.0, 3.0], [[[1.0, 2.0]]]], ids=["1-D", "3-D"])
    def test_what_is_no_matrix_is_refused(self, backend, Theta):
        with pytest.raises(ValueError, match=r"2D|2-D|dim 3|Theta1"):
            Network.from_thetas([Theta], backend=backend)
        with pytest.raises(ValueError, match=r"2D|2-D|dim 3|Theta1"):
            Network.from_thetas([backend.asarray(np.array(Theta))])


class TestForward:
    THETAS = (
        [[0.1, 0.5, -0.4], [0.0, -1.0, 0.3], [-0.2, 0.7, 0.9], [0.3, 0.2, -0.6]],
        [[0.2, 1.0, -0.5], [-0.1, 0.4, 0.8]],
        [[0.05, -1.2, 0.6]],
    )

    def by_hand(self):
        """Return z and a of every layer in NumPy, by layer: maxout, then tanh, then sigmoid."""
        a, z = {1: X}, {}
        for l, Theta in enumerate(map(np.array, self.THETAS), start=2):
            z[l] = np.column_stack([np.ones(M), a[l - 1]]) @ Theta.T
            a[l] = {
                2: lambda z: np.maximum(z[:, :2], z[:, 2:]),
                3: np.tanh,
                4: scipy.special.expit,
            }[l](z[l])
        return z, a

    def make(self, backend):
        return Network.from_thetas(self.THETAS, hidden=["maxout", "tanh"], backend=backend)

    @pytest.mark.parametrize("kind", ["host", "device", "list"])
    def test_every_layer_is_the_lectures(self, backend, kind):
        given = {"host": X, "device": backend.asarray(X), "list": X.tolist()}[kind]
        found = self.make(backend).forward(given, every_layer=True)
        z, a = self.by_hand()
        assert (list(found.z), list(found.a)) == ([2, 3, 4], [1, 2, 3, 4])
        where = backend if kind == "device" else get_backend("numpy")
        for l, expected in z.items():
            (host,) = on_host(where, found.z[l])
            np.testing.assert_allclose(host, expected, rtol=1e-12, atol=1e-14)
        for l, expected in a.items():
            (host,) = on_host(where, found.a[l])
            np.testing.assert_allclose(host, expected, rtol=1e-12, atol=1e-14)
        (h,) = on_host(where, found.h)
        np.testing.assert_array_equal(h, on_host(where, found.a[4])[0])

    def test_h_is_that_of_every_layer(self, backend):
        network = self.make(backend)
        h = network.forward(X)
        assert h.shape == (M, 1)
        np.testing.assert_allclose(h, network.forward(X, every_layer=True).h, rtol=1e-14)

    @task
    def test_one_example_at_a_time_is_the_same(self, backend, task):
        network, _ = make(task, backend=backend)
        one = [network.forward(X[i : i + 1])[0] for i in range(M)]
        np.testing.assert_allclose(network.forward(X), one, rtol=1e-12)


class TestWhereThingsAre:
    """Everything follows X: results for the host's data are NumPy's, the device's stay there."""

    @task
    def test_data_on_the_device(self, backend, task):
        network, Y = make(task, backend=backend)
        x, y, w = (backend.asarray(array) for array in (X, Y, WEIGHTS))
        (J,) = on_host(backend, network.cost(x, y, l2=0.5, sample_weight=w))
        expected = network.cost(X, Y, l2=0.5, sample_weight=WEIGHTS)
        assert J.shape == ()
        assert J.item() == pytest.approx(expected, rel=1e-12)
        for found, host in (
            (network.gradient(x, y, l2=0.5), network.gradient(X, Y, l2=0.5)),
            (network.gradient_by_example(x, y), network.gradient_by_example(X, Y)),
            ([network.forward(x)], [network.forward(X)]),
            ([network.predict(x)], [network.predict(X)]),
            ([network.score(x, y)], [np.array(network.score(X, Y))]),
        ):
            for a, b in zip(on_host(backend, found), host, strict=True):
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)

    @task
    def test_data_on_the_host(self, backend, task):
        network, Y = make(task, backend=backend)
        reference, _ = make(task, backend="numpy")
        assert isinstance(network.cost(X, Y), float)
        assert isinstance(network.score(X, Y), float)
        assert network.cost(X, Y, l2=0.5) == pytest.approx(reference.cost(X, Y, l2=0.5), rel=1e-12)
        assert network.score(X, Y) == pytest.approx(reference.score(X, Y), rel=1e-12)
        for D, expected in zip(network.gradient(X, Y), reference.gradient(X, Y), strict=True):
            assert isinstance(D, np.ndarray)
            np.testing.assert_allclose(D, expected, rtol=1e-11, atol=1e-14)
        for found in (network.forward(X), network.predict(X)):
            assert isinstance(found, np.ndarray)

    def test_targets_and_weights_on_the_host_follow_x_on_the_device(self, backend):
        network, Y = make(backend=backend)
        J = network.cost(backend.asarray(X), Y.tolist(), sample_weight=WEIGHTS)
        (host,) = on_host(backend, J)
        assert host.item() == pytest.approx(network.cost(X, Y, sample_weight=WEIGHTS), rel=1e-12)

    def test_training_on_data_on_the_device_is_training_on_the_same_data(self, backend):
        there, Y = make(backend=backend)
        here, _ = make(backend=backend)
        settings = {"epochs": 2, "batch_size": 4, "seed": 0}
        there.fit(backend.asarray(X), backend.asarray(Y), **settings)
        here.fit(X, Y, **settings)
        assert lives_on(backend, there.theta)
        for a, b in zip(there.thetas, here.thetas, strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize("given", ["float64", "float32", "int64", "bool"])
    def test_data_is_converted_to_the_networks_dtype(self, backend, given, dtype):
        network, Y = make(backend=backend, dtype=dtype)
        x = backend.asarray((X > 0).astype(given))
        y = backend.asarray(Y.astype(given))
        h, *gradient = on_host(backend, [network.forward(x), *network.gradient(x, y)])
        assert [array.dtype for array in (h, *gradient)] == [dtype] * 3
        assert network.forward((X > 0).astype(given)).dtype == dtype

    @pytest.mark.parametrize(
        ("network", "data"),
        [
            ("numpy", "array_api_strict:device1"),
            ("numpy", "torch:cpu"),
            ("torch:cpu", "jax"),
            ("jax", "torch:cpu"),
            ("array_api_strict:device1", "array_api_strict:device2"),
            ("array_api_strict:device1", "array_api_strict:CPU_DEVICE"),
        ],
    )
    def test_data_of_another_place_is_refused_naming_both(self, network, data):
        try:
            here, there = get_backend(network), get_backend(data)
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        made, Y = make(backend=here)
        message = rf"lives on {re.escape(here.spec)}, but the data on {re.escape(there.spec)}"
        with pytest.raises(ValueError, match=message):
            made.forward(there.asarray(X))
        with pytest.raises(ValueError, match=message):
            made.cost(X, there.asarray(Y))
        with pytest.raises(ValueError, match=message):
            made.fit(there.asarray(X), Y)
        with pytest.raises(ValueError, match=message):
            made.fit(X, Y, validation=(there.asarray(X), Y))

    def test_data_of_two_places_is_refused_naming_both(self):
        here, there = (get_backend(f"array_api_strict:device{i}") for i in (1, 2))
        made, Y = make(backend=here)
        with pytest.raises(ValueError, match=r"two places.*device1 and .*device2"):
            made.cost(here.asarray(X), there.asarray(Y))


class TestTargets:
    def test_class_numbers_are_one_hot_rows(self, backend):
        network, _ = make("multiclass", backend=backend)
        expected = network.cost(X, ONE_HOT)
        assert network.cost(X, CLASSES) == pytest.approx(expected, rel=1e-14)
        assert network.cost(X, CLASSES.astype(float)) == pytest.approx(expected, rel=1e-14)
        (J,) = on_host(backend, network.cost(backend.asarray(X), backend.asarray(CLASSES)))
        assert J.item() == pytest.approx(expected, rel=1e-14)

    @pytest.mark.parametrize("task", ["binary", "regression"])
    def test_one_output_takes_one_axis_or_two(self, backend, task):
        loss = {"binary": "cross_entropy", "regression": "squared_error"}[task]
        network = Network([2, 1], loss=loss, seed=0, backend=backend)
        assert network.cost(X, BINARY) == network.cost(X, BINARY[:, None])

    def test_soft_targets_are_taken(self, backend):
        network, _ = make("multiclass", backend=backend)
        soft = 0.9 * ONE_HOT + 0.1 / 3
        h = network.forward(X)
        expected = -(soft * np.log(h)).sum() / M
        assert network.cost(X, soft) == pytest.approx(expected, rel=1e-12)


class TestAsked:
    def test_binary_predicts_0_and_1(self, backend):
        network, Y = make("binary", backend=backend)
        predicted = network.predict(X)
        assert (predicted.shape, predicted.dtype) == ((M,), "int64")
        np.testing.assert_array_equal(predicted, network.forward(X)[:, 0] > 0.5)
        assert network.score(X, Y) == pytest.approx(accuracy_score(Y, predicted))

    def test_multiclass_predicts_class_numbers(self, backend):
        network, Y = make("multiclass", backend=backend)
        predicted = network.predict(X)
        assert predicted.shape == (M,)
        assert predicted.dtype.kind == "i"
        np.testing.assert_array_equal(predicted, network.forward(X).argmax(axis=1))
        expected = accuracy_score(Y, predicted, sample_weight=WEIGHTS)
        assert network.score(X, Y, sample_weight=WEIGHTS) == pytest.approx(expected)

    def test_multilabel_predicts_each_label(self, backend):
        network, Y = make("multilabel", backend=backend)
        predicted = network.predict(X)
        assert (predicted.shape, predicted.dtype) == ((M, 3), "int64")
        np.testing.assert_array_equal(predicted, network.forward(X) > 0.5)
        assert network.score(X, Y) == pytest.approx(accuracy_score(Y.astype(int), predicted))

    def test_regression_predicts_its_outputs(self, backend):
        network, Y = make("regression", backend=backend)
        predicted = network.predict(X)
        np.testing.assert_array_equal(predicted, network.forward(X))
        assert network.score(X, Y) == pytest.approx(r2_score(Y, predicted), rel=1e-12)

    def test_regression_of_one_output_predicts_one_axis(self, backend):
        network = Network([2, 3, 1], loss="squared_error", seed=0, backend=backend)
        np.testing.assert_array_equal(network.predict(X), network.forward(X)[:, 0])

    @task
    def test_the_cost_is_its_definition(self, backend, task):
        network, Y = make(task, backend=backend)
        h, weights = network.forward(X), [Theta[:, 1:] for Theta in network.thetas]
        if task == "multiclass":
            each = -(ONE_HOT * np.log(h)).sum(axis=1)
        elif task == "regression":
            each = 0.5 * ((h - Y) ** 2).sum(axis=1)
        else:
            y = Y.reshape(M, -1)
            each = -(y * np.log(h) + (1 - y) * np.log(1 - h)).sum(axis=1)
        penalty = 0.5 * sum((Theta**2).sum() for Theta in weights)
        assert network.cost(X, Y) == pytest.approx(each.mean(), rel=1e-12)
        assert network.cost(X, Y, l2=0.3) == pytest.approx(
            each.mean() + 0.3 * penalty / M, rel=1e-12
        )
        assert network.cost(X, Y, l2=0.3, sample_weight=WEIGHTS) == pytest.approx(
            (WEIGHTS @ each + 0.3 * penalty) / WEIGHTS.sum(), rel=1e-12
        )

    @task
    def test_the_gradient_has_thetas_shape_and_is_the_loops(self, backend, task):
        network, Y = make(task, backend=backend)
        gradient = network.gradient(X, Y, l2=0.3)
        assert [D.shape for D in gradient] == [Theta.shape for Theta in network.thetas]
        by_example = network.gradient_by_example(X, Y, l2=0.3)
        for D, expected in zip(gradient, by_example, strict=True):
            np.testing.assert_allclose(D, expected, rtol=1e-11, atol=1e-14)

    @pytest.mark.parametrize(
        "l2", [1, 0.5, np.float64(0.5), np.float32(0.5), np.int64(1)], ids=type
    )
    def test_lambda_may_be_any_real_number(self, backend, l2):
        network, Y = make(backend=backend)
        assert network.cost(X, Y, l2=l2) == pytest.approx(network.cost(X, Y, l2=float(l2)))

    @task
    def test_asking_changes_neither_data_nor_network(self, backend, task):
        network, Y = make(task, backend=backend)
        thetas, data = network.thetas, [array.copy() for array in (X, Y, WEIGHTS)]
        network.forward(data[0], every_layer=True)
        network.cost(data[0], data[1], l2=0.1, sample_weight=data[2])
        network.gradient(data[0], data[1], l2=0.1, sample_weight=data[2])
        network.gradient_by_example(data[0], data[1])
        network.predict(data[0])
        network.score(data[0], data[1], sample_weight=data[2])
        for now, before in zip([*data, *network.thetas], [X, Y, WEIGHTS, *thetas], strict=True):
            np.testing.assert_array_equal(now, before)


class TestInWords:
    def test_summary(self):
        network = Network(
            [2, 30, 4, 1], hidden=["maxout:3", "leaky_relu"], dtype="float32", backend="numpy"
        )
        # Θ⁽¹⁾ 90 × 3 = 270, Θ⁽²⁾ 4 × 31 = 124, Θ⁽³⁾ 1 × 5 = 5
        assert network.summary().splitlines() == [
            "layer       units  activation      Theta           parameters",
            "1 (input)   2",
            "2           30     maxout:3        Theta1: 90 x 3  270",
            "3           4      leaky_relu:0.1  Theta2: 4 x 31  124",
            "4 (output)  1      sigmoid         Theta3: 1 x 5   5",
            "399 parameters, float32 on numpy:cpu; loss cross_entropy, binary",
        ]

    def test_large_numbers_are_grouped(self):
        text = Network([784, 1000, 10], backend="numpy", init="zeros").summary()
        assert "785,000" in text
        assert "795,010 parameters" in text

    def test_the_place_is_named(self, backend):
        assert f"on {backend.spec};" in Network([2, 1], backend=backend).summary()

    def test_repr(self):
        network = Network([2, 3, 1], hidden="elu:0.5", backend="numpy")
        expected = "Network([2, 3, 1]: elu:0.5, sigmoid; cross_entropy, float64 on numpy:cpu)"
        assert repr(network) == expected


class TestRefusedToMake:
    @pytest.mark.parametrize(
        ("sizes", "settings", "message"),
        [
            ([2], {}, r"at least an input and an output layer.*given were \[2\]"),
            ([], {}, r"at least an input and an output layer"),
            ([2, 0, 1], {}, r"s_l >= 1; given were \[2, 0, 1\]"),
            ([2, -3, 1], {}, r"s_l >= 1"),
            ([2, 2.5, 1], {}, r"whole numbers? of units"),
            ([2, "3", 1], {}, r"whole numbers? of units"),
            ([2, 3, 1], {"hidden": ["relu", "tanh"]}, r"hidden gives 2 .*has 1 hidden layers"),
            ([2, 3, 1], {"hidden": []}, r"hidden gives 0 .*has 1 hidden layers"),
            ([2, 1], {"hidden": ["relu"]}, r"hidden gives 1 .*has 0 hidden layers"),
            ([2, 3, 1], {"hidden": "warp"}, r"Unknown activation 'warp'; known are"),
            ([2, 3, 1], {"hidden": "elu:x"}, r"'x' in activation 'elu:x' isn't a number"),
            ([2, 3, 1], {"output": "warp"}, r"Unknown activation 'warp'"),
            ([2, 3, 1], {"loss": "hinge"}, r"Unknown loss 'hinge'; known are"),
            ([2, 3, 1], {"init": "magic"}, r"Unknown initializer 'magic'; known are"),
            ([2, 3, 1], {"task": "ranking"}, r"Unknown task 'ranking'; known are"),
            ([2, 3, 1], {"task": "multiclass"}, r"'multiclass' doesn't fit s_L = 1"),
            ([2, 3, 2], {"task": "binary"}, r"'binary' doesn't fit s_L = 2"),
            ([2, 3, 1], {"dtype": "float16"}, r"dtype is 'float32' or 'float64', not 'float16'"),
            ([2, 3, 1], {"dtype": int}, r"dtype is 'float32' or 'float64'"),
            ([2, 3, 1], {"output": "tanh"}, r"'cross_entropy' .*\[0, 1\], but 'tanh' .*'sigmoid'"),
            ([2, 3, 1], {"output": "identity"}, r"'cross_entropy' .*but 'identity'"),
            ([2, 3, 1], {"loss": "softmax_cross_entropy"}, r"softmax over s_L = 1"),
            ([2, 3, 1], {"output": "softmax"}, r"softmax over s_L = 1"),
            ([2, 3, 1], {"seed": "lucky"}, r"'lucky' cannot be used to seed"),
            ([2, 3, 1], {"backend": "mxnet"}, r"Unknown backend 'mxnet'; known are"),
        ],
    )
    def test_what_does_not_fit(self, sizes, settings, message):
        with pytest.raises(ValueError, match=message):
            Network(sizes, **{"backend": "numpy", **settings})

    @pytest.mark.parametrize("sizes", [3, None])
    def test_sizes_that_are_no_sequence(self, sizes):
        with pytest.raises((TypeError, ValueError), match=r"(?i)sizes|layers?\b"):
            Network(sizes, backend="numpy")

    @pytest.mark.parametrize("hidden", [3, None, [3], [None]], ids=str)
    def test_activations_that_are_none(self, hidden):
        with pytest.raises((TypeError, ValueError), match=r"activation"):
            Network([2, 3, 1], hidden=hidden, backend="numpy")

    def test_a_backend_that_is_none(self):
        with pytest.raises(TypeError, match=r"backend is a name"):
            Network([2, 1], backend=3)


def with_one(array, value, place):
    """Return a copy as floats with one value changed."""
    changed = np.array(array, dtype=float)
    changed[place] = value
    return changed


# what is wrong: task, X, Y, message; refused wherever X and Y go in
BAD_DATA = {
    "X of too many columns": ("binary", np.ones((M, 3)), BINARY, r"X has 3 columns.* s_1 = 2"),
    "X of too few columns": ("binary", X[:, :1], BINARY, r"X has 1 columns.* s_1 = 2"),
    "X of one axis": ("binary", X[0], BINARY, r"2D|2-D"),
    "X of three axes": ("binary", X[None], BINARY, r"dim 3|2-D"),
    "X without rows": ("binary", X[:0], BINARY[:0], r"0 sample|no rows"),
    "NaN in X": ("binary", with_one(X, np.nan, (1, 1)), BINARY, r"X contains NaN"),
    "infinity in X": ("binary", with_one(X, np.inf, (1, 1)), BINARY, r"X contains .*infinity"),
    "fewer Y than X": ("binary", X, BINARY[:5], r"Y has 5 rows, but X has m = 8"),
    "more Y than X": ("binary", X[:5], BINARY, r"Y has 8 rows, but X has m = 5"),
    "Y without rows": ("binary", X, BINARY[:0], r"0 sample|no rows|Y has 0 rows"),
    "NaN in Y": ("regression", X, with_one(VALUES, np.nan, (2, 1)), r"Y contains NaN"),
    "infinity in Y": ("regression", X, with_one(VALUES, -np.inf, (2, 1)), r"Y contains .*inf"),
    "NaN in class numbers": ("multiclass", X, with_one(CLASSES, np.nan, 3), r"Y contains NaN"),
    "more targets than outputs": (
        "regression",
        X,
        np.ones((M, 4)),
        r"Y has the shape \(8, 4\).*s_L = K = 3 units: Y is \(m, K\)",
    ),
    "fewer targets than outputs": (
        "multilabel",
        X,
        LABELS[:, :2],
        r"Y has the shape \(8, 2\).*s_L = K = 3",
    ),
    "one axis for many outputs": ("regression", X, VALUES[:, 0], r"Y has the shape .*s_L = K = 3"),
    "three axes": ("regression", X, VALUES[None], r"Y has the shape \(1, 8, 3\)"),
    "a column of class numbers": (
        "multiclass",
        X,
        CLASSES[:, None],
        r"\(8, 1\).*\(m,\) with class numbers 0 to K - 1",
    ),
    "a class number too large": (
        "multiclass",
        X,
        with_one(CLASSES, 3, 0),
        r"class numbers.*0 to K - 1 = 2",
    ),
    "a class number below 0": (
        "multiclass",
        X,
        with_one(CLASSES, -1, 0),
        r"class numbers.*0 to K - 1 = 2",
    ),
    "a class number that is not whole": (
        "multiclass",
        X,
        with_one(CLASSES, 0.5, 0),
        r"class numbers.*whole",
    ),
    "a target above 1": ("binary", X, with_one(BINARY, 2, 0), r"targets between 0 and 1"),
    "a target below 0": ("multilabel", X, with_one(LABELS, -0.1, (0, 0)), r"between 0 and 1"),
    "a one-hot row above 1": (
        "multiclass",
        X,
        with_one(ONE_HOT, 1.5, (0, 0)),
        r"targets between 0 and 1",
    ),
}
bad_data = pytest.mark.parametrize(("task", "X", "Y", "message"), BAD_DATA.values(), ids=BAD_DATA)


class TestRefusedData:
    @bad_data
    @pytest.mark.parametrize("method", ["cost", "gradient", "gradient_by_example", "score", "fit"])
    def test_from_the_host(self, method, task, *, X, Y, message):
        network, _ = make(task)
        before = network.thetas
        with pytest.raises(ValueError, match=message):
            getattr(network, method)(X, Y)
        assert all((a == b).all() for a, b in zip(network.thetas, before, strict=True))
        assert network.history == []

    @bad_data
    @pytest.mark.parametrize("method", ["cost", "fit"])
    def test_from_the_device(self, backend, method, task, *, X, Y, message):
        network, _ = make(task, backend=backend)
        before = network.thetas
        with pytest.raises(ValueError, match=message):
            getattr(network, method)(backend.asarray(X), backend.asarray(Y))
        assert all((a == b).all() for a, b in zip(network.thetas, before, strict=True))

    @pytest.mark.parametrize("method", ["forward", "predict"])
    @pytest.mark.parametrize(
        ("X", "message"),
        [(X, message) for _, X, _, message in BAD_DATA.values() if message.startswith("X ")],
    )
    def test_without_targets(self, backend, method, X, message):
        network, _ = make(backend=backend)
        with pytest.raises(ValueError, match=message):
            getattr(network, method)(X)
        with pytest.raises(ValueError, match=message):
            getattr(network, method)(backend.asarray(X))

    def test_words_for_numbers(self):
        network, Y = make()
        with pytest.raises(ValueError, match=r"could not convert string to float: 'red'"):
            network.cost([["red", "1"]] * M, Y)
        with pytest.raises(ValueError, match=r"could not convert string to float: 'cat'"):
            network.cost(X, ["cat"] * M)

    @pytest.mark.parametrize("where", ["host", "device"])
    def test_a_number_for_many(self, backend, where):
        network, _ = make(backend=backend)
        given = (X, 1.0) if where == "host" else map(backend.asarray, (X, np.array(1.0)))
        with pytest.raises((TypeError, ValueError), match=r"dimension|shape|Y|scalar"):
            network.cost(*given)

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (np.ones(M - 1), r"sample_weight has the shape \(7,\).* m = 8"),
            (np.ones((M, 1)), r"sample_weight has the shape \(8, 1\)"),
            (-np.ones(M), r"sample_weight needs weights >= 0"),
            (with_one(np.ones(M), -1e-9, 0), r"sample_weight needs weights >= 0"),
            (np.zeros(M), r"aren't all 0"),
            (with_one(np.ones(M), np.nan, 0), r"sample_weight contains NaN"),
            (with_one(np.ones(M), np.inf, 0), r"sample_weight contains .*infinity"),
        ],
    )
    @pytest.mark.parametrize("method", ["cost", "gradient", "score", "fit", "check_gradient"])
    def test_weights(self, backend, method, weights, message):
        network, Y = make(backend=backend)
        before = network.thetas
        with pytest.raises(ValueError, match=message):
            getattr(network, method)(X, Y, sample_weight=weights)
        given = [backend.asarray(array) for array in (X, Y, weights)]
        with pytest.raises(ValueError, match=message):
            getattr(network, method)(*given[:2], sample_weight=given[2])
        assert all((a == b).all() for a, b in zip(network.thetas, before, strict=True))

    @pytest.mark.parametrize("l2", [-1.0, -1e-12, np.nan, np.inf, "much", None, [1.0]], ids=str)
    @pytest.mark.parametrize(
        "method", ["cost", "gradient", "gradient_by_example", "check_gradient", "fit"]
    )
    def test_lambda(self, method, l2):
        network, Y = make()
        before = network.thetas
        with pytest.raises(ValueError, match=r"λ \(l2\) has to be a finite number >= 0, but is"):
            getattr(network, method)(X, Y, l2=l2)
        assert all((a == b).all() for a, b in zip(network.thetas, before, strict=True))


# only training asks for these: task, Y, settings of `fit`, message
BAD_FITS = {
    "a single class": ("binary", np.ones(M), {}, r"All 8 examples are of a single class"),
    "a single class of many": ("multiclass", np.full(M, 2), {}, r"single class"),
    "one example": ("binary", None, {"rows": 1}, r"All 1 examples are of a single class"),
    "rows that do not sum to 1": (
        "multiclass",
        LABELS,
        {},
        r"rows of Y don't sum to 1.*task='multilabel'",
    ),
    "epochs=0": ("binary", None, {"epochs": 0}, r"epochs .*whole number >= 1, but is 0"),
    "epochs=-1": ("binary", None, {"epochs": -1}, r"epochs .*>= 1, but is -1"),
    "epochs=1.5": ("binary", None, {"epochs": 1.5}, r"epochs .*whole number"),
    "epochs=True": ("binary", None, {"epochs": True}, r"epochs .*whole number"),
    "epochs=None": ("binary", None, {"epochs": None}, r"epochs .*whole number"),
    "batch_size=0": ("binary", None, {"batch_size": 0}, r"batch_size .*>= 1, but is 0"),
    "batch_size=-4": ("binary", None, {"batch_size": -4}, r"batch_size .*>= 1, but is -4"),
    "batch_size=2.0": ("binary", None, {"batch_size": 2.0}, r"batch_size .*whole number"),
    "unknown optimizer": ("binary", None, {"optimizer": "magic"}, r"Unknown optimizer 'magic'"),
    "unknown schedule": ("binary", None, {"schedule": "magic"}, r"Unknown schedule 'magic'"),
    "learning_rate=0": ("binary", None, {"learning_rate": 0.0}, r"learning_rate has to lie in"),
    "learning_rate=-1": ("binary", None, {"learning_rate": -1}, r"learning_rate has to lie in"),
    "learning_rate=nan": ("binary", None, {"learning_rate": np.nan}, r"learning_rate has to lie"),
    "learning rate twice": (
        "binary",
        None,
        {"optimizer": gpunet.optimizers.Adam(), "learning_rate": 0.1},
        r"learning rate once",
    ),
    "learning rate for lbfgs": (
        "binary",
        None,
        {"optimizer": "lbfgs", "learning_rate": 0.1},
        r"lbfgs finds its own",
    ),
    "patience without validation": (
        "binary",
        None,
        {"patience": 3},
        r"patience needs validation data",
    ),
    "patience=-1": ("binary", None, {"patience": -1, "validation": 0.25}, r"patience"),
    "patience=0.5": ("binary", None, {"patience": 0.5, "validation": 0.25}, r"patience"),
    "tolerance=nan": ("binary", None, {"tolerance": np.nan, "validation": 0.25}, r"tolerance"),
    "validation=0": ("binary", None, {"validation": 0}, r"validation is a share.*\(0, 1\)"),
    "validation=0.0": ("binary", None, {"validation": 0.0}, r"validation is a share.*\(0, 1\)"),
    "validation=1": ("binary", None, {"validation": 1}, r"validation is a share.*\(0, 1\)"),
    "validation=1.0": ("binary", None, {"validation": 1.0}, r"validation is a share.*\(0, 1\)"),
    "validation=-0.5": ("binary", None, {"validation": -0.5}, r"validation is a share"),
    "validation=nan": ("binary", None, {"validation": np.nan}, r"validation is a share"),
    "validation=True": ("binary", None, {"validation": True}, r"validation is a share"),
    "validation='some'": ("binary", None, {"validation": "some"}, r"validation is a share"),
    "a share that holds no example": (
        "binary",
        None,
        {"validation": 0.1},
        r"share of the m = 8 examples .*holds one at least",
    ),
    "a share that leaves no example": (
        "binary",
        None,
        {"validation": 0.95},
        r"validation is a|set will be empty",
    ),
    "validation X of other columns": (
        "binary",
        None,
        {"validation": (np.ones((3, 4)), [0, 1, 0])},
        r"validation X has 4 columns.*s_1 = 2",
    ),
    "validation Y of other outputs": (
        "binary",
        None,
        {"validation": (X, LABELS)},
        r"validation Y has the shape \(8, 3\)",
    ),
    "validation Y of another length": (
        "binary",
        None,
        {"validation": (X, BINARY[:3])},
        r"validation Y has 3 rows",
    ),
    "NaN in validation X": (
        "binary",
        None,
        {"validation": (with_one(X, np.nan, (0, 0)), BINARY)},
        r"validation X contains NaN",
    ),
    "no validation examples": ("binary", None, {"validation": (X[:0], [])}, r"0 sample|no rows"),
    "validation of three": ("binary", None, {"validation": (X, BINARY, X)}, r"validation is a"),
    "an unusable seed": ("binary", None, {"seed": "lucky"}, r"'lucky' cannot be used to seed"),
}


class TestRefusedToTrain:
    @pytest.mark.parametrize(("task", "Y", "settings", "message"), BAD_FITS.values(), ids=BAD_FITS)
    def test_settings_that_do_not_fit(self, task, Y, settings, message):
        network, own = make(task)
        before, settings = network.thetas, dict(settings)
        rows = settings.pop("rows", M)
        with pytest.raises(ValueError, match=message):
            network.fit(X[:rows], (own if Y is None else Y)[:rows], **settings)
        assert all((a == b).all() for a, b in zip(network.thetas, before, strict=True))
        assert network.history == []

    def test_whole_numbers_may_be_numpys(self):
        network, Y = make()
        network.fit(X, Y, epochs=np.int64(2), batch_size=np.int32(4))
        assert len(network.history) == 2

    def test_a_constant_target_may_be_regressed(self):
        network = Network([2, 1], loss="squared_error", seed=0, backend="numpy")
        assert len(network.fit(X, np.ones(M), epochs=1).history) == 1


class TestHardTraining:
    def test_divergence_is_an_error_that_keeps_finite_parameters(self, backend):
        network, Y = make("regression", backend=backend, hidden="identity")
        before = network.thetas
        settings = {"optimizer": "gradient_descent", "learning_rate": 1e6, "epochs": 100}
        # NumPy warns of the overflow as well
        with np.errstate(all="ignore"), pytest.raises(DivergenceError) as caught:
            network.fit(X, Y, **settings)
        found = re.search(r"diverged: in epoch (\d+) .*no longer finite", str(caught.value))
        assert int(found.group(1)) == len(network.history) + 1
        assert all(np.isfinite(record["cost"]) for record in network.history)
        assert all(np.isfinite(Theta).all() for Theta in network.thetas)
        changed = [not np.array_equal(a, b) for a, b in zip(network.thetas, before, strict=True)]
        assert any(changed) == (len(network.history) > 0)

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_a_batch_whose_weights_are_all_0_is_no_divergence(self, backend, batch_size):
        network, Y = make(backend=backend)
        weights = with_one(np.ones(M), 0.0, slice(0, 4))
        settings = {"epochs": 2, "batch_size": batch_size, "shuffle": False, "l2": 0.1}
        network.fit(X, Y, sample_weight=weights, **settings)
        assert all(np.isfinite(record["cost"]) for record in network.history)

    def test_examples_of_weight_0_teach_nothing(self, backend):
        weighted, Y = make(backend=backend)
        weights = with_one(np.ones(M), 0.0, slice(4, 8))
        settings = {"epochs": 2, "batch_size": None, "optimizer": "gradient_descent"}
        weighted.fit(X, Y, sample_weight=weights, **settings)
        alone, _ = make(backend=backend)
        alone.fit(X[:4], Y[:4], **settings)
        for a, b in zip(weighted.thetas, alone.thetas, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        (1.0, r"in \[0, 1\)"),
        (-0.1, r"in \[0, 1\)"),
        ([0.1, 0.2], r"2 shares, but there are 1 hidden"),
    ],
)
def test_a_dropout_that_does_not_fit_is_refused(dropout, message):
    network = Network([2, 3, 1], seed=0, backend="numpy")
    with pytest.raises(ValueError, match=message):
        network.fit([[0, 1], [1, 0]], [0, 1], dropout=dropout)


def test_dropout_and_clipping_are_in_reach():
    fits = [{}, {"dropout": 0.5}, {"clip_norm": 1e-3}]
    thetas = []
    for settings in fits:
        network = Network([2, 8, 1], seed=0, backend="numpy")
        rate = {"optimizer": "gradient_descent", "learning_rate": 1.0, "epochs": 1}
        network.fit([[0, 1], [1, 0]], [0, 1], **rate, **settings)
        thetas.append(network.thetas[0])
    start = Network([2, 8, 1], seed=0, backend="numpy").thetas[0]
    assert np.max(np.abs(thetas[0] - thetas[1])) > 1e-4
    assert 0 < np.linalg.norm(thetas[2] - start) < 1e-3


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"clip_norm": 1.0}], ids=str)
def test_lbfgs_refuses_what_it_cannot_do(settings):
    network = Network([2, 3, 1], seed=0, backend="numpy")
    before = network.thetas[0]
    with pytest.raises(ValueError, match="lbfgs takes whole gradients"):
        network.fit([[0, 1], [1, 0]], [0, 1], optimizer="lbfgs", **settings)
    np.testing.assert_array_equal(network.thetas[0], before)
