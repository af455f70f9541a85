"""Pictures of a network and its training, drawn with matplotlib: ``pip install 'gpunet[plot]'``.

Every function draws on the Axes it is given, or on a Figure of its own, and returns what it drew on. None
touches pyplot, so they work without a display: ``ax.figure.savefig("picture.png")`` writes a file, and in a
notebook ``ax.figure`` at the end of a cell shows it (after ``%matplotlib inline``). Data may live on any device:
it is moved to the host to be drawn. Without matplotlib all of them raise an ImportError that says what to install.

Blue stands for negative, for 0 and for training; orange for positive, for 1 and for validation. The colours are
those of Okabe & Ito (2008), which colour-blind readers can tell apart too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet import activations as functions
from gpunet.activations import Activation, Maxout, Softmax
from gpunet.backend import backend_of
from gpunet.description import spec_of
from gpunet.model import Network
from gpunet.typing import HostArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#000000")
MARKERS = "os^Dv*P"  # seven beside eight colours: 56 different pairs
ABOVE: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False}


def loss_curve(network: Any, ax: Axes | None = None) -> Axes:
    """Draw every epoch's cost and, on the right axis, its score; the validation's too where there are any.

    A network's cost contains λ's term and the validation's doesn't: they show their course, not their distance.

    Parameters
    ----------
    network : Network, MLPClassifier, MLPRegressor or list of dict
        A trained network or estimator, or its history.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new Figure.

    Returns
    -------
    Axes
        The cost's: ``ax.set_yscale("log")`` shows small costs better.

    Raises
    ------
    ValueError
        If there was no epoch yet.

    Examples
    --------
    >>> import gpunet
    >>> from gpunet import plot
    >>> network = gpunet.Network([2, 3, 1], seed=0, backend="numpy")
    >>> network = network.fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=5)
    >>> ax = plot.loss_curve(network)
    >>> [line.get_label() for line in ax.lines]
    ['cost']
    """
    history = getattr(network, "history", getattr(network, "history_", network))
    if not history:
        raise ValueError("The history is empty, so there is no epoch to draw: call fit first.")
    ax = _axes(ax, (6.0, 4.0))

    def draw(on: Axes, name: str, style: str) -> list[Any]:
        lines = []
        for key, color in ((name, BLUE), (f"validation_{name}", ORANGE)):
            known = [(record["epoch"], record[key]) for record in history if key in record]
            if known:
                marker = "o" if len(known) == 1 else ""
                label = key.replace("_", " ")
                epochs, values = zip(*known, strict=True)
                lines += on.plot(epochs, values, style, color=color, marker=marker, label=label)
        return lines

    cost = (
        "cost" if "cost" in history[-1] else "loss"
    )  # scikit-learn's word, in an estimator's history
    lines = draw(ax, cost, "-")
    ax.set_xlabel("epoch")
    ax.set_ylabel("cost $J$" if cost == "cost" else cost)
    ax.locator_params(axis="x", integer=True)
    if "score" in history[-1]:
        scores = ax.twinx()
        lines += draw(scores, "score", ":")
        scores.set_ylabel("score (dotted)")
    ax.legend(handles=lines, ncols=2, **ABOVE)
    return ax


def decision_boundary(
    network: Any, X: Any, y: Any, ax: Axes | None = None, *, resolution: int = 200
) -> Axes:
    """Draw what a classifier of two inputs says about every point of the plane, with the examples on it.

    For two classes that is h_Θ(x), or another classifier's probability, with the line where it is 0.5; otherwise the
    class it decides on.

    Parameters
    ----------
    network : Network, or any object with ``predict``
        A scikit-learn classifier, for example.
    X : array-like of shape (m, 2)
    y : array-like of shape (m,), or one-hot (m, K) for a network
        The examples' classes.
    ax : matplotlib Axes, optional
        Where to draw; None makes a new Figure.
    resolution : int
        How many points of the plane are asked for along each axis.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For other than two inputs, an X and y that don't fit, and what isn't a classifier.

    Examples
    --------
    >>> import gpunet
    >>> from gpunet import plot
    >>> OR = gpunet.Network.from_thetas([[[-10, 20, 20]]], backend="numpy")
    >>> ax = plot.decision_boundary(OR, [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 1])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['y = 0', 'y = 1']
    """
    X, y = _host(X), _host(y)
    if X.ndim != 2 or X.shape[1] != 2:
        raise ValueError(
            f"A plane has two inputs: X should be (m, 2), but has the shape {X.shape}. Choose two columns, and a "
            "classifier of those."
        )
    if y.ndim == 2:
        y = y[:, 0] if y.shape[1] == 1 else np.argmax(y, axis=1)
    if y.shape != X.shape[:1]:
        raise ValueError(f"y has the shape {y.shape}, but X has m = {len(X)} rows: one class each.")
    classes = _classes(network, y)
    ax = _axes(ax, (5.5, 4.4))
    from matplotlib.colors import ListedColormap

    # The points asked about are the middles of resolution × resolution cells: the picture's pixels.
    low, high = X.min(axis=0), X.max(axis=0)
    margin = np.where(high > low, 0.1 * (high - low), 1.0)
    low, high = low - margin, high + margin
    middles = (np.arange(resolution) + 0.5) / resolution
    x_1, x_2 = (low[j] + middles * (high[j] - low[j]) for j in (0, 1))
    points = np.stack(np.meshgrid(x_1, x_2), axis=-1).reshape(-1, 2)
    probability = _probability(network, points) if len(classes) == 2 else None
    look: dict[str, Any] = {
        "origin": "lower",
        "extent": (low[0], high[0], low[1], high[1]),
        "aspect": "auto",
        "interpolation": "nearest",
    }
    if probability is None:
        decided = np.searchsorted(classes, network.predict(points))
        look |= {"vmin": -0.5, "vmax": len(classes) - 0.5, "alpha": 0.3}
        look["cmap"] = ListedColormap([COLORS[k % len(COLORS)] for k in range(len(classes))])
        ax.imshow(decided.reshape(resolution, resolution), **look)
    else:
        h = probability.reshape(resolution, resolution)
        look |= {"vmin": 0.0, "vmax": 1.0, "alpha": 0.6, "cmap": _diverging(20)}
        name = r"$h_\Theta(x)$" if isinstance(network, Network) else "probability"
        bar: dict[str, Any] = {
            "label": name,
            "ticks": [0.0, 0.5, 1.0],
            "fraction": 0.05,
            "pad": 0.03,
        }
        ax.figure.colorbar(ax.imshow(h, **look), ax=ax, **bar)
        if h.min() < 0.5 < h.max():
            ax.contour(x_1, x_2, h, levels=[0.5], colors="black", linewidths=1.2)
    for k, label in enumerate(classes):
        look = {"color": COLORS[k % len(COLORS)], "marker": MARKERS[k % len(MARKERS)]}
        x_1, x_2 = X[y == label].T
        ax.scatter(x_1, x_2, 30, label=f"y = {label}", edgecolor="white", linewidth=0.6, **look)
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    ax.legend(ncols=min(len(classes), 4), **ABOVE)
    return ax


def _classes(network: Any, y: HostArray) -> HostArray:
    """Return the classes a classifier knows, sorted; refuse examples of others."""
    if not isinstance(network, Network):
        classes = np.asarray(getattr(network, "classes_", np.unique(y)))
    elif network.task in ("binary", "multiclass"):
        classes = np.arange(max(network.architecture.sizes[-1], 2))
    else:
        raise ValueError(
            f"A decision boundary lies between classes, but this network's task is {network.task!r}. If it does tell "
            "classes apart, give it task='binary' or task='multiclass'."
        )
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        known = ", ".join(map(str, classes))
        raise ValueError(f"y holds {unknown[0]}, which isn't one of the classes {known}.")
    return classes


def _probability(network: Any, points: HostArray) -> HostArray | None:
    """Return the probability of the second of two classes, None for what only predicts."""
    if isinstance(network, Network):
        h = network.forward(points)
        return h[:, 0] if network.task == "binary" else None
    return network.predict_proba(points)[:, 1] if hasattr(network, "predict_proba") else None


def weights(network: Network, shape: tuple[int, int] | None = None, *, most: int = 64) -> Figure:
    """Draw the first layer's weights as images, one for each unit of layer 2: what it looks for in x.

    The bias is left out. All images share one scale: white is 0, blue negative, orange positive.

    Parameters
    ----------
    network : Network
        Its inputs are the pixels of an image.
    shape : pair of int, optional
        The images' height and width; None takes a square.
    most : int
        How many units are drawn at most, the first ones.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If s_1 inputs don't fill the shape.

    Examples
    --------
    >>> import gpunet
    >>> from gpunet import plot
    >>> figure = plot.weights(gpunet.Network([64, 6, 10], backend="numpy"))
    >>> sum(len(ax.images) for ax in figure.axes)
    6
    """
    inputs = network.architecture.sizes[0]
    height, width = shape or (math.isqrt(inputs), math.isqrt(inputs))
    if height * width != inputs:
        raise ValueError(
            f"The network has s_1 = {inputs} inputs, but an image of {height} x {width} has {height * width} pixels: "
            "give shape=(height, width)."
        )
    images = network.thetas[0][:most, 1:].reshape(-1, height, width)
    columns = math.ceil(math.sqrt(1.6 * len(images)))
    rows = math.ceil(len(images) / columns)
    figure = _figure((0.9 * columns + 0.9, max(0.9 * height / width * rows, 1.2)))
    axes = figure.subplots(rows, columns, squeeze=False)
    limit = float(np.abs(images).max()) or 1.0
    for ax, image in itertools.zip_longest(axes.flat, images):
        ax.axis("off")
        if image is not None:
            drawn = ax.imshow(image, cmap=_diverging(), vmin=-limit, vmax=limit)
    figure.colorbar(drawn, ax=axes, label=r"weight in $\Theta^{(1)}$", fraction=0.05, pad=0.03)
    return figure


def activations(network: Network, X: Any, ax: Axes | None = None, *, bins: int = 40) -> Axes:
    """Draw the distribution of every layer's activations over the examples, with mean μ and variance σ².

    The notes' rules of thumb for a good initialization are a mean near 0 and the same variance in every layer. Each
    layer's histogram stands upright and mirrored, the widest bins alike; the bar is μ ± σ.

    Parameters
    ----------
    network : Network
    X : array-like of shape (m, s_1)
    ax : matplotlib Axes, optional
        Where to draw; None makes a new Figure.
    bins : int
        Of each histogram.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For an X that doesn't fit the network.

    Examples
    --------
    >>> import gpunet
    >>> from gpunet import plot
    >>> network = gpunet.Network([2, 5, 5, 1], hidden="tanh", init="zeros", backend="numpy")
    >>> ax = plot.activations(network, [[0.0, 1.0], [1.0, 0.0]])
    >>> [label.get_text().split()[-1] for label in ax.get_xticklabels()]  # the variances
    ['0.25', '0', '0', '0']
    """
    layers = network.forward(_host(X), every_layer=True).a
    ax = _axes(ax, (1.2 * len(layers) + 1.0, 4.0))
    look: dict[str, Any] = {"orientation": "horizontal", "fill": True, "color": BLUE, "alpha": 0.5}
    bar: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 4, "capsize": 4}
    labels = []
    for l, a in layers.items():
        mean, deviation = float(a.mean()), float(a.std())
        counts, edges = np.histogram(a, bins=bins)
        half = 0.42 * counts / counts.max()
        ax.stairs(l + half, edges, baseline=l - half, **look)
        ax.errorbar(l, mean, yerr=deviation, **bar)
        shown = f"{mean:z.2f}" if abs(mean) < 100 else f"{mean:.2g}"
        labels.append(f"$a^{{({l})}}$\n$\\mu$ = {shown}\n$\\sigma^2$ = {deviation**2:.2g}")
    ends = [end for a in layers.values() for end in (float(a.min()), float(a.max()))]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low) or 1.0
    ax.set_xlim(0.4, len(layers) + 0.6)
    ax.set_ylim(low - margin, high + margin)
    ax.set_xticks(list(layers), labels)
    ax.set_ylabel("activation")
    ax.grid(axis="y", alpha=0.3)
    return ax


def network(
    network: Network, ax: Axes | None = None, *, most: int = 8, values: bool | None = None
) -> Axes:
    """Draw a network: a circle for each unit, a line for each weight, a square for each bias unit +1.

    Lines are orange for positive weights and blue for negative ones, and as thick as the weight is large beside the
    largest of its Θ⁽ˡ⁾. Of a maxout unit's pieces the one with the largest weight is drawn.

    Parameters
    ----------
    network : Network
    ax : matplotlib Axes, optional
        Where to draw; None makes a new Figure.
    most : int
        How many units of a layer are drawn at most: of a wider one the first ones, dots and the last.
    values : bool, optional
        Write the weights on the lines. None does where there are at most 12.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If ``most`` is less than 2.

    Examples
    --------
    >>> import gpunet
    >>> from gpunet import plot
    >>> AND = gpunet.Network.from_thetas([[[-30, 20, 20]]], backend="numpy")
    >>> ax = plot.network(AND)
    >>> [text.get_text() for text in ax.texts[:3]]
    ['−30', '20', '20']
    """
    if most < 2:
        raise ValueError(f"most is {most}, but the first and the last unit are drawn: at least 2.")
    architecture = network.architecture
    sizes, last = architecture.sizes, len(architecture.sizes)
    columns = [_column(l, s, most, bias=l < last) for l, s in enumerate(sizes, start=1)]
    pairs = list(itertools.pairwise(columns))
    if values is None:
        values = sum(len(below) * sum(i > 0 for i in above) for below, above in pairs) <= 12
    ax = _axes(ax, (1.5 * last, 0.62 * min(max(sizes), most + 1) + 1.4))
    from matplotlib.collections import LineCollection

    for Theta, activation, (below, above) in zip(
        network.thetas, architecture.activations, pairs, strict=True
    ):
        largest = float(np.abs(Theta).max()) or 1.0
        Theta_ = _largest_piece(Theta, activation.pieces)
        lines = [(Theta_[i - 1, j], below[j], above[i]) for j in below for i in above if i > 0]
        look: dict[str, Any] = {
            "colors": [ORANGE if w > 0 else BLUE for w, _, _ in lines],
            "linewidths": [0.3 + 2.2 * abs(w) / largest for w, _, _ in lines],
        }
        ends = [(start, end) for _, start, end in lines]
        ax.add_collection(LineCollection(ends, alpha=0.7, zorder=1, **look))
        for w, (x, y), (x_end, y_end) in lines if values else ():
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            at = (x + 0.36 * (x_end - x), y + 0.36 * (y_end - y))
            ax.text(
                *at, f"{w:.3g}".replace("-", "−"), fontsize=8, ha="center", va="center", bbox=box
            )
    for l, column in enumerate(columns, start=1):
        for i, at in column.items():
            _draw_unit(ax, at, l, i, last)
        x, lowest = column[sizes[l - 1]]
        if sizes[l - 1] > most:
            ax.text(x, lowest + 1.0, r"$\vdots$", ha="center", va="center")
        kind = "input" if l == 1 else spec_of(architecture.activations[l - 2])
        bottom = min(other[s][1] for other, s in zip(columns, sizes, strict=True)) - 0.6
        ax.text(x, bottom, f"layer {l}\n{kind}", fontsize=8, color=GREY, ha="center", va="top")
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.axis("off")
    return ax


def _column(l: int, units: int, most: int, *, bias: bool) -> dict[int, tuple[float, float]]:
    """Return where the units i of layer l stand, the bias unit as i = 0; of many the first ones and the last."""
    heights = {i: -float(i) for i in range(0 if bias else 1, min(units, most) + 1)}
    if units > most:
        del heights[most]  # room for the dots
        heights[units] = -float(most + 1)
    middle = (-1.0 + heights[units]) / 2
    return {i: (2.2 * l, y - middle) for i, y in heights.items()}


def _draw_unit(ax: Axes, at: tuple[float, float], l: int, i: int, last: int) -> None:
    """Draw unit i of layer l with the lecture's name for it."""
    from matplotlib.patches import Circle, Patch, Rectangle

    x, y = at
    name = f"$a^{{({l})}}_{{{i}}}$"
    if l in (1, last):
        name = f"${'x' if l == 1 else 'h'}_{{{i}}}$"
    shape: Patch = Circle(at, 0.3, facecolor="white", edgecolor="black")
    if i == 0:
        name = "+1"
        shape = Rectangle((x - 0.25, y - 0.25), 0.5, 0.5, facecolor="#eeeeee", edgecolor=GREY)
    shape.set_zorder(2)
    ax.add_patch(shape)
    ax.text(x, y, name, fontsize=8, ha="center", va="center")


def _largest_piece(Theta: HostArray, pieces: int) -> HostArray:
    """Return for each unit and input the weight of the piece where it is largest: (units, inputs + 1)."""
    by_piece = Theta.reshape(pieces, -1, Theta.shape[1])
    largest = np.argmax(np.abs(by_piece), axis=0)
    return np.take_along_axis(by_piece, largest[None], axis=0)[0]


def activation_functions(
    names: Sequence[str | Activation] = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "maxout"),
    *,
    span: float = 4.0,
) -> Figure:
    """Draw activations g and their derivatives g', one panel each.

    Of maxout, whose pieces a network learns, an example over one input: the tangents of a parabola.

    Parameters
    ----------
    names : sequence of str or Activation
        As `gpunet.activations.get` takes them.
    span : float
        They are drawn over −span ≤ z ≤ span.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        For unknown names or none, and for softmax, which isn't a function of one z.

    Examples
    --------
    >>> from gpunet import plot
    >>> figure = plot.activation_functions(["relu", "elu:0.5"])
    >>> [ax.get_title() for ax in figure.axes]
    ['relu', 'elu:0.5']
    """
    kinds = [functions.get(name) for name in names]
    if not kinds:
        raise ValueError("names is empty: give one activation at least.")
    if any(isinstance(kind, Softmax) for kind in kinds):
        raise ValueError(
            "softmax takes the z of all of a layer's units, so it is no curve over one z: leave it out."
        )
    columns = min(len(kinds), 3)
    rows = math.ceil(len(kinds) / columns)
    figure = _figure((2.8 * columns, 2.4 * rows + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False)
    x = np.linspace(-span, span, 801)
    for ax, kind in itertools.zip_longest(axes.flat, kinds):
        if kind is None:
            ax.remove()
            continue
        slopes, z = np.ones(1), x[None]
        if isinstance(kind, Maxout):
            touching = np.linspace(-span / 2, span / 2, kind.pieces)
            slopes = touching / 2
            z = slopes[:, None] * x - (touching[:, None] / 2) ** 2
            ax.plot(x, z.T, color=GREY, linewidth=0.8, linestyle=":")
        a = kind.g(np, z)
        derivative = slopes @ kind.g_prime(np, z, a)
        ax.axhline(0.0, color=GREY, linewidth=0.6)
        ax.axvline(0.0, color=GREY, linewidth=0.6)
        g = ax.plot(x, a[0], color=BLUE, linewidth=2.0, label="$g(z)$")
        g_prime = ax.plot(x, derivative, color=ORANGE, linestyle="--", label="$g'(z)$")
        ax.set_title(spec_of(kind), fontsize=10)
        ax.set_xlabel("$x$" if isinstance(kind, Maxout) else "$z$")
    figure.legend(handles=g + g_prime, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _host(values: Any) -> HostArray:
    """Return data that may live on a device as a NumPy array."""
    owner = backend_of([values])
    return np.asarray(values) if owner is None else owner.to_host(values)


def _diverging(steps: int = 256) -> Colormap:
    """Return the colours from blue (negative, or 0) over white to orange (positive, or 1)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blue_white_orange", [BLUE, "white", ORANGE], steps)


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the Axes given, or those of a new Figure."""
    return _figure(size).subplots() if ax is None else ax


def _figure(size: tuple[float, float]) -> Figure:
    """Return a new Figure that belongs to no window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'gpunet[plot]'") from error
    return Figure(figsize=size, layout="constrained")
