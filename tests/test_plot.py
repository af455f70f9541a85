"""Pictures: what is drawn is what the network says."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Perceptron

import gpunet
from gpunet import plot

pytest.importorskip("matplotlib")

from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle, StepPatch

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
BLOBS = np.random.default_rng(0).normal(size=(30, 2)) + np.repeat(
    [[0, 0], [4, 0], [0, 4]], 10, axis=0
)
BLOB = np.repeat([0, 1, 2], 10)
XOR = [[[-10, -20, 20], [-10, 20, -20]], [[-10, 20, 20]]]


@pytest.fixture
def ax():
    return Figure().subplots()


def xor(backend="numpy"):
    return gpunet.Network.from_thetas(XOR, backend=backend)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestWithoutMatplotlib:
    def test_the_module_is_importable_and_draws_without_pyplot(self):
        """In a fresh process: matplotlib is imported when something is drawn, and pyplot never."""
        code = """
import sys
import gpunet
from gpunet import plot
assert "matplotlib" not in sys.modules
network = gpunet.Network([4, 2, 1], seed=0, backend="numpy")
plot.network(network).figure.canvas.draw()
plot.weights(network)
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize(
        "draw",
        [
            lambda: plot.loss_curve([{"epoch": 1, "cost": 0.5}]),
            lambda: plot.decision_boundary(xor(), CORNERS, [0, 1, 1, 0]),
            lambda: plot.weights(gpunet.Network([4, 1], backend="numpy")),
            lambda: plot.activations(xor(), CORNERS),
            lambda: plot.network(xor()),
            plot.activation_functions,
        ],
        ids=["loss_curve", "decision_boundary", "weights", "activations", "network", "functions"],
    )
    def test_drawing_says_what_to_install(self, draw, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=r"pip install 'gpunet\[plot\]'"):
            draw()


class TestLossCurve:
    def test_draws_cost_and_score_of_every_epoch(self, ax):
        network = gpunet.Network([2, 3, 1], seed=0, backend="numpy")
        network.fit(CORNERS, [0, 1, 1, 0], epochs=7, validation=(CORNERS, [0, 1, 1, 0]))
        assert plot.loss_curve(network, ax) is ax
        drawn = [*ax.lines, *ax.figure.axes[1].lines]
        names = ["cost", "validation_cost", "score", "validation_score"]
        assert [line.get_label().replace(" ", "_") for line in drawn] == names
        np.testing.assert_array_equal([line.get_xdata() for line in drawn], [range(1, 8)] * 4)
        np.testing.assert_array_equal(
            [line.get_ydata() for line in drawn],
            [[record[name] for record in network.history] for name in names],
        )
        assert legend(ax) == [name.replace("_", " ") for name in names]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "cost $J$")

    def test_takes_a_history_without_scores(self):
        ax = plot.loss_curve([{"epoch": 1, "cost": 0.5}, {"epoch": 2, "cost": 0.25}])
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.5, 0.25])
        assert legend(ax) == ["cost"]
        assert ax.figure.axes == [ax]

    @pytest.mark.parametrize(("epochs", "marker"), [(1, "o"), (2, "")])
    def test_a_single_epoch_is_a_point(self, epochs, marker):
        ax = plot.loss_curve([{"epoch": e + 1, "cost": 0.5} for e in range(epochs)])
        assert ax.lines[0].get_marker() == marker

    def test_an_untrained_network_is_an_error(self):
        with pytest.raises(ValueError, match="call fit first"):
            plot.loss_curve(xor())


def pixels(ax):
    """Return the values of a picture and the points of the plane in the middle of its pixels."""
    (image,) = ax.images
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    height, width = values.shape
    x_1 = left + (np.arange(width) + 0.5) * (right - left) / width
    x_2 = bottom + (np.arange(height) + 0.5) * (top - bottom) / height
    return values.ravel(), np.array([(a, b) for b in x_2 for a in x_1])


def examples(ax):
    """Return the points drawn for each class."""
    return [
        part.get_offsets()
        for part in ax.collections
        if len(part.get_offsets()) and part.get_label()[0] == "y"
    ]


class TestDecisionBoundary:
    @pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
    def test_two_classes_show_h(self, backend, on_device, ax):
        network = xor(backend)
        X, y = CORNERS, np.array([0.0, 1.0, 1.0, 0.0])
        if on_device:
            X, y = backend.asarray(X), backend.asarray(y)
        assert plot.decision_boundary(network, X, y, ax, resolution=20) is ax
        h, points = pixels(ax)
        assert points.min() == pytest.approx(-0.1 + 1.2 / 40)  # a tenth beyond the examples
        np.testing.assert_allclose(h, network.forward(points)[:, 0], atol=1e-12)
        assert ax.images[0].get_clim() == (0, 1)
        assert legend(ax) == ["y = 0", "y = 1"]
        np.testing.assert_array_equal(examples(ax)[0], [[0, 0], [1, 1]])
        np.testing.assert_array_equal(examples(ax)[1], [[0, 1], [1, 0]])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("$x_1$", "$x_2$")

    def test_the_boundary_lies_where_h_is_one_half(self):
        OR = gpunet.Network.from_thetas([[[-10, 20, 20]]], backend="numpy")
        ax = plot.decision_boundary(OR, CORNERS, [0, 1, 1, 1])
        (contour,) = [part for part in ax.collections if isinstance(part, ContourSet)]
        line = contour.get_paths()[0].vertices
        np.testing.assert_allclose(OR.forward(line), 0.5, atol=0.01)
        assert (ax.figure.axes[1].get_ylabel()) == r"$h_\Theta(x)$"

    def test_no_boundary_is_drawn_where_there_is_none(self):
        always = gpunet.Network.from_thetas([[[5, 0, 0]]], backend="numpy")
        ax = plot.decision_boundary(always, CORNERS, [0, 1, 1, 0])
        assert len(ax.collections) == 2  # the examples of two classes

    @pytest.mark.parametrize("y", [BLOB, np.eye(3)[BLOB]], ids=["numbers", "one-hot"])
    def test_several_classes_show_the_decision(self, y):
        network = gpunet.Network([2, 5, 3], hidden="tanh", seed=0, backend="numpy")
        network.fit(BLOBS, y, optimizer="lbfgs")
        ax = plot.decision_boundary(network, BLOBS, y, resolution=30)
        decided, points = pixels(ax)
        np.testing.assert_array_equal(decided, network.predict(points))
        assert set(decided) == {0, 1, 2}
        assert legend(ax) == ["y = 0", "y = 1", "y = 2"]
        np.testing.assert_allclose(examples(ax), np.split(BLOBS, 3))

    def test_two_outputs_show_the_decision(self):
        network = gpunet.Network([2, 4, 2], loss="softmax_cross_entropy", seed=0, backend="numpy")
        network.fit(BLOBS[:20], BLOB[:20], optimizer="lbfgs")
        decided, points = pixels(
            plot.decision_boundary(network, BLOBS[:20], BLOB[:20], resolution=30)
        )
        np.testing.assert_array_equal(decided, network.predict(points))

    def test_classes_differ_in_colour_and_marker(self):
        network = gpunet.Network([2, 12], seed=0, backend="numpy")
        ax = plot.decision_boundary(network, BLOBS, BLOB)
        looks = {
            (tuple(part.get_facecolor()[0]), part.get_paths()[0].vertices.tobytes())
            for part in ax.collections
        }
        assert len(looks) == 12

    @pytest.mark.parametrize("kind", [LogisticRegression, Perceptron])
    def test_any_classifier_with_labels_of_its_own(self, kind):
        names = np.array(["ant", "bee", "cat"])[BLOB]
        classifier = kind().fit(BLOBS, names)
        ax = plot.decision_boundary(classifier, BLOBS, names, resolution=25)
        decided, points = pixels(ax)
        np.testing.assert_array_equal(classifier.classes_[decided], classifier.predict(points))
        assert legend(ax) == ["y = ant", "y = bee", "y = cat"]

    def test_a_classifier_of_two_classes_shows_its_probability(self):
        classifier = LogisticRegression().fit(BLOBS[:20], BLOB[:20])
        ax = plot.decision_boundary(classifier, BLOBS[:20], BLOB[:20], resolution=25)
        values, points = pixels(ax)
        np.testing.assert_allclose(values, classifier.predict_proba(points)[:, 1])
        assert ax.figure.axes[1].get_ylabel() == "probability"

    def test_an_object_that_only_predicts(self):
        class Right:
            def predict(self, X):
                return np.where(X[:, 0] > 0.5, 7, 3)

        ax = plot.decision_boundary(Right(), CORNERS, [3, 3, 7, 7], resolution=10)
        decided, points = pixels(ax)
        np.testing.assert_array_equal(decided, points[:, 0] > 0.5)

    @pytest.mark.parametrize(
        ("network", "X", "y", "message"),
        [
            (xor(), np.ones((4, 3)), [0, 1, 0, 1], r"\(m, 2\), but has the shape \(4, 3\)"),
            (xor(), np.ones(4), [0, 1, 0, 1], r"has the shape \(4,\)"),
            (xor(), CORNERS, [0, 1], r"shape \(2,\), but X has m = 4"),
            (xor(), CORNERS, [0, 1, 2, 0], "holds 2, which isn't one of the classes 0, 1"),
            (
                gpunet.Network([2, 1], loss="squared_error", backend="numpy"),
                CORNERS,
                [0, 1, 1, 0],
                "task is 'regression'",
            ),
        ],
        ids=["three inputs", "no matrix", "too few", "unknown class", "regression"],
    )
    def test_what_cannot_be_drawn_is_an_error(self, network, X, y, message):
        with pytest.raises(ValueError, match=message):
            plot.decision_boundary(network, X, y)


def images(figure):
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


class TestWeights:
    def test_each_unit_is_an_image_without_its_bias(self, backend):
        network = gpunet.Network([16, 5, 2], init="normal", seed=0, backend=backend)
        figure = plot.weights(network)
        np.testing.assert_array_equal(images(figure), network.thetas[0][:, 1:].reshape(5, 4, 4))
        limit = np.abs(network.thetas[0][:, 1:]).max()
        assert {ax.images[0].get_clim() for ax in figure.axes if ax.images} == {(-limit, limit)}

    def test_the_shape_can_be_given(self):
        network = gpunet.Network([6, 2], seed=0, backend="numpy")
        assert [image.shape for image in images(plot.weights(network, shape=(2, 3)))] == [
            (2, 3)
        ] * 2

    def test_only_so_many_are_drawn(self):
        network = gpunet.Network([4, 30, 1], seed=0, backend="numpy")
        np.testing.assert_array_equal(
            images(plot.weights(network, most=7)), network.thetas[0][:7, 1:].reshape(7, 2, 2)
        )

    def test_zeros_can_be_drawn(self):
        network = gpunet.Network([4, 2, 1], init="zeros", backend="numpy")
        assert not np.any(images(plot.weights(network)))

    @pytest.mark.parametrize("shape", [None, (2, 2)])
    def test_inputs_that_fill_no_image_are_an_error(self, shape):
        with pytest.raises(ValueError, match=r"s_1 = 6 inputs.*shape=\(height, width\)"):
            plot.weights(gpunet.Network([6, 2], backend="numpy"), shape)


class TestActivations:
    @pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
    def test_shows_mean_variance_and_histogram_of_each_layer(self, backend, on_device, ax):
        network = gpunet.Network(
            [3, 6, 4, 1], hidden="tanh", init="normal", seed=0, backend=backend
        )
        X = np.random.default_rng(0).normal(size=(50, 3))
        given = backend.asarray(X) if on_device else X
        assert plot.activations(network, given, ax, bins=10) is ax
        layers = network.forward(X, every_layer=True).a
        labels = [label.get_text() for label in ax.get_xticklabels()]
        histograms = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
        assert labels == [
            f"$a^{{({l})}}$\n$\\mu$ = {a.mean():z.2f}\n$\\sigma^2$ = {a.var():.2g}"
            for l, a in layers.items()
        ]
        counted = [np.histogram(a, bins=10) for a in layers.values()]
        drawn = [histogram.get_data() for histogram in histograms]
        np.testing.assert_allclose([part.edges for part in drawn], [edges for _, edges in counted])
        np.testing.assert_allclose(
            [part.values - part.baseline for part in drawn],
            [0.84 * counts / counts.max() for counts, _ in counted],
        )
        middles = [(part.values + part.baseline).mean() / 2 for part in drawn]
        np.testing.assert_allclose(middles, [1, 2, 3, 4])
        points = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(points, [a.mean() for a in layers.values()])
        bars = [part.get_segments()[0][:, 1] for part in lines(ax)]
        np.testing.assert_allclose(
            bars, [(a.mean() - a.std(), a.mean() + a.std()) for a in layers.values()]
        )

    def test_all_of_it_is_in_sight(self):
        network = gpunet.Network([3, 6, 1], hidden="relu", init="normal", seed=0, backend="numpy")
        X = np.random.default_rng(0).normal(size=(50, 3))
        low, high = plot.activations(network, X).get_ylim()
        every = np.concatenate([a.ravel() for a in network.forward(X, every_layer=True).a.values()])
        assert low < every.min()
        assert every.max() < high

    def test_an_x_that_does_not_fit_is_an_error(self):
        with pytest.raises(ValueError, match="s_1 = 2"):
            plot.activations(xor(), np.ones((4, 3)))


def lines(ax):
    return [part for part in ax.collections if isinstance(part, LineCollection)]


def shapes(ax, kind):
    return [patch for patch in ax.patches if isinstance(patch, kind)]


def rank(values):
    """Return for each value how many different ones are smaller."""
    return np.unique(np.round(values, 6), return_inverse=True)[1]


def written(ax):
    return [text.get_text() for text in ax.texts]


class TestNetwork:
    def test_draws_every_unit_and_weight(self, backend, ax):
        network = gpunet.Network([3, 4, 2], init="normal", seed=0, backend=backend)
        assert plot.network(network, ax) is ax
        assert len(shapes(ax, Circle)) == 3 + 4 + 2
        assert len(shapes(ax, Rectangle)) == 2  # a bias unit in each layer but the last
        assert [len(part.get_segments()) for part in lines(ax)] == [4 * 4, 5 * 2]
        assert {"$x_{3}$", "$a^{(2)}_{4}$", "$h_{2}$"} < set(written(ax))
        assert written(ax).count("+1") == 2
        assert "layer 2\nsigmoid" in written(ax)

    @pytest.mark.parametrize("l", [1, 2])
    def test_a_line_has_its_weights_colour_and_width(self, l):
        part = lines(plot.network(xor()))[l - 1]
        weights = xor().thetas[l - 1].T.ravel()  # from the bias unit down
        orange = [tuple(color[:3]) == to_rgb(plot.ORANGE) for color in part.get_colors()]
        np.testing.assert_array_equal(orange, weights > 0)
        np.testing.assert_array_equal(rank(part.get_linewidths()), rank(np.abs(weights)))

    def test_a_line_ends_in_the_middle_of_its_units(self):
        ax = plot.network(xor())
        middles = {tuple(circle.center) for circle in shapes(ax, Circle)}
        middles |= {tuple(square.get_center()) for square in shapes(ax, Rectangle)}
        ends = {tuple(end) for part in lines(ax) for line in part.get_segments() for end in line}
        assert len(middles) == 7
        np.testing.assert_allclose(sorted(ends), sorted(middles))

    def test_few_weights_are_written_on_the_lines(self):
        numbers = [text.replace("−", "-") for text in written(plot.network(xor()))]
        assert [int(text) for text in numbers if text.lstrip("-").isdigit()] == [
            *[-10, -10, -20, 20, 20, -20],
            *[-10, 20, 20],
        ]

    @pytest.mark.parametrize(("values", "count"), [(None, 0), (False, 0), (True, 16 + 10)])
    def test_many_weights_are_written_if_asked_for(self, values, count):
        network = gpunet.Network([3, 4, 2], init="uniform", seed=0, backend="numpy")
        ax = plot.network(network, values=values)
        assert len([text for text in written(ax) if text.lstrip("−").startswith("0.")]) == count

    def test_a_wide_layer_shows_its_first_units_dots_and_its_last(self):
        network = gpunet.Network([64, 3, 10], seed=0, backend="numpy")
        ax = plot.network(network, most=5)
        assert len(shapes(ax, Circle)) == 5 + 3 + 5
        assert [len(part.get_segments()) for part in lines(ax)] == [6 * 3, 4 * 5]
        inputs = [text for text in written(ax) if text.startswith("$x")]
        assert inputs == ["$x_{1}$", "$x_{2}$", "$x_{3}$", "$x_{4}$", "$x_{64}$"]
        (dots, _) = [text.get_position() for text in ax.texts if text.get_text() == r"$\vdots$"]
        x, heights = dots[0], [circle.center[1] for circle in shapes(ax, Circle)[:5]]
        assert x == shapes(ax, Circle)[0].center[0]
        assert dots[1] == pytest.approx((heights[3] + heights[4]) / 2)

    def test_the_last_unit_of_a_wide_layer_has_its_own_weights(self):
        Theta = np.zeros((1, 65))
        Theta[0, 64] = -3.0
        network = gpunet.Network.from_thetas([Theta], backend="numpy")
        (part,) = lines(plot.network(network, most=3))
        assert np.argmax(part.get_linewidths()) == 3  # bias, x_1, x_2, x_64
        assert tuple(part.get_colors()[3][:3]) == to_rgb(plot.BLUE)

    def test_of_maxout_the_larger_piece_is_drawn(self):
        pieces = [[1, 2, -3], [0, -5, 1]]  # one unit, two pieces
        network = gpunet.Network.from_thetas([pieces, [[1, 1]]], hidden="maxout", backend="numpy")
        ax = plot.network(network)
        assert written(ax)[:3] == ["1", "−5", "−3"]

    def test_zeros_can_be_drawn(self):
        ax = plot.network(gpunet.Network([2, 2, 1], init="zeros", backend="numpy"))
        assert len(lines(ax)) == 2

    def test_too_few_units_to_draw_is_an_error(self):
        with pytest.raises(ValueError, match="at least 2"):
            plot.network(xor(), most=1)


class TestActivationFunctions:
    @pytest.mark.parametrize(
        "name", ["sigmoid", "tanh", "relu", "leaky_relu:0.3", "elu:0.5", "maxout:3", "identity"]
    )
    def test_draws_g_and_its_derivative(self, name):
        (ax,) = plot.activation_functions([name]).axes
        curves = {line.get_label(): line for line in ax.lines}
        x, g = curves["$g(z)$"].get_data()
        _, g_prime = curves["$g'(z)$"].get_data()
        assert ax.get_title() == name
        slopes = np.diff(g) / np.diff(x)  # at the middle of two points
        middle = (g_prime[1:] + g_prime[:-1]) / 2
        smooth = np.abs(np.diff(g_prime)) < 0.05
        assert smooth.mean() > 0.98
        np.testing.assert_allclose(slopes[smooth], middle[smooth], atol=1e-4)

    def test_draws_the_lectures_by_default(self):
        figure = plot.activation_functions()
        titles = ["sigmoid", "tanh", "relu", "leaky_relu:0.1", "elu:1.0", "maxout:2"]
        assert [ax.get_title() for ax in figure.axes] == titles

    def test_takes_ones_own(self):
        square = gpunet.activations.Custom(
            lambda xp, z: z * z, lambda xp, z, a: 2 * z, name="square"
        )
        (ax,) = plot.activation_functions([square], span=2.0).axes
        (curve,) = [line for line in ax.lines if line.get_label() == "$g(z)$"]
        np.testing.assert_allclose(curve.get_ydata(), np.linspace(-2, 2, 801) ** 2)

    @pytest.mark.parametrize(
        ("names", "message"),
        [([], "names is empty"), (["softmax"], "leave it out"), (["sine"], "Unknown activation")],
        ids=["none", "softmax", "unknown"],
    )
    def test_what_has_no_curve_is_an_error(self, names, message):
        with pytest.raises(ValueError, match=message):
            plot.activation_functions(names)


def test_an_estimators_history_is_drawn():
    model = gpunet.MLPClassifier((3,), max_iter=4, tol=0, random_state=0, n_iter_no_change=9)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        model.fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0])
    (line,) = plot.loss_curve(model).lines
    assert line.get_label() == "loss"
    np.testing.assert_array_equal(line.get_ydata(), model.loss_curve_)
