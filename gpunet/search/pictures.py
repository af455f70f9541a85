"""Pictures of a search: scores over the parameters, and the learning curves of all candidates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.plot import BLUE, GREY, ORANGE, _axes
from gpunet.typing import HostArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES = "viridis"  # from low to high, for colour-blind readers too


def draw(search: Any, kind: str | None, ax: Axes | None, metric: str | None) -> Axes:
    """Draw a fitted search; see `gpunet.search.stacked.StackedSearch.plot`.

    Raises
    ------
    ValueError
        For an unknown kind or metric, and one that the search has too many or too few parameters for.
    """
    kinds = {"line": _line, "heatmap": _heatmap, "parallel": _parallel, "curves": _curves}
    if kind is not None and kind not in kinds:
        raise ValueError(f"kind is one of {', '.join(map(repr, kinds))} or None, not {kind!r}.")
    table = Table(search, metric)
    n = len(table.axes)
    if kind is None:
        kind = {1: "line", 2: "heatmap"}.get(n, "parallel")
    if n == 0 and kind != "curves":
        raise ValueError("No parameter was searched, so there is only kind='curves' to draw.")
    needed = {"line": 1, "heatmap": 2}.get(kind, n)
    if n != needed:
        fitting = {1: "line", 2: "heatmap"}.get(n, "parallel")
        raise ValueError(
            f"kind={kind!r} shows {needed} searched parameter(s), but there are {n}: use kind={fitting!r}."
        )
    return kinds[kind](table, _axes(ax, (6.0, 4.0)))


class Scale:
    """The values of one searched parameter, and where they are on an axis.

    Parameters
    ----------
    name : str
        The parameter's.
    values : list
        Each candidate's; `MISSING` where it has none.
    """

    def __init__(self, name: str, values: list[Any]) -> None:
        self.name = name
        numeric = all(_is_number(value) for value in values)
        distinct: list[Any] = []
        for value in values:
            if not any(_same(value, known) for known in distinct):
                distinct.append(value)
        self.distinct = sorted(distinct) if numeric else distinct
        self.labels = [f"{value:.4g}" if numeric else _label(value) for value in self.distinct]
        self.places = [
            next(i for i, known in enumerate(self.distinct) if _same(value, known))
            for value in values
        ]
        self.numeric = numeric
        low, high = (self.distinct[0], self.distinct[-1]) if numeric else (0, 0)
        self.log = bool(numeric and low > 0 and high >= 100 * low)
        self.positions: HostArray = np.asarray(values if numeric else self.places, dtype=float)

    def between(self) -> HostArray:
        """Return where the candidates are between the axis's ends, 0 to 1."""
        x = np.log(self.positions) if self.log else self.positions
        low, high = x.min(), x.max()
        return (x - low) / (high - low) if high > low else np.full_like(x, 0.5)


class _Missing:
    """Stands for the value of a parameter that a candidate doesn't have, in a list of grids."""

    def __repr__(self) -> str:
        return "–"


MISSING = _Missing()


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    try:
        return bool(type(a) is type(b) and a == b)
    except ValueError:  # arrays
        return False


def _label(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else text[:19] + "…"


class Table:
    """Candidates, their parameters and their scores.

    Parameters
    ----------
    search : StackedSearch
        Fitted.
    metric : str, optional
    """

    def __init__(self, search: Any, metric: str | None) -> None:
        results = search.cv_results_
        metrics = [key[len("mean_test_") :] for key in results if key.startswith("mean_test_")]
        if metric is None:
            metric = search.refit if search.refit in metrics else metrics[0]
        if metric not in metrics:
            raise ValueError(
                f"metric is one of {', '.join(map(repr, metrics))} or None, not {metric!r}."
            )
        self.metric = "score" if metric == "score" else metric
        self.scores: HostArray = results[f"mean_test_{metric}"]
        self.spread: HostArray = results[f"std_test_{metric}"]
        self.curves = search.learning_curves_
        self.n_splits = search.n_splits_
        self.rounds: HostArray = results.get("iter", np.zeros(len(self.scores), dtype=int))
        best = int(np.argmax(np.nan_to_num(self.scores, nan=-np.inf)))
        self.best: int = getattr(search, "best_index_", best)
        names = [key for key in results if key.startswith("param_")]
        # a value of a masked array that is masked is a parameter that the candidate doesn't have
        columns = {
            name[len("param_") :]: [
                MISSING if masked else value
                for masked, value in zip(
                    np.ma.getmaskarray(results[name]), results[name].data.tolist(), strict=True
                )
            ]
            for name in names
        }
        if len(np.unique(self.rounds)) > 1:
            resource = getattr(search, "resource", None)
            columns.pop(resource, None)  # it tells the rounds apart, and wasn't searched
        scales = [Scale(name, values) for name, values in columns.items()]
        varied = [scale for scale in scales if len(scale.distinct) > 1]
        self.axes = varied or scales[:1]

    def last_of_each(self) -> list[int]:
        """Return the candidates, each as of its last round of successive halving."""
        last = {tuple(axis.places[i] for axis in self.axes): i for i in range(len(self.scores))}
        return list(last.values())


def _line(table: Table, ax: Axes) -> Axes:
    (axis,) = table.axes
    chosen = np.asarray(table.last_of_each())
    chosen = chosen[np.argsort(axis.positions[chosen], kind="stable")]
    x, scores, spread = axis.positions[chosen], table.scores[chosen], table.spread[chosen]
    ax.plot(x, scores, color=BLUE, marker="o", linestyle="-" if axis.numeric else "")
    if axis.numeric:
        ax.fill_between(x, scores - spread, scores + spread, color=BLUE, alpha=0.15, linewidth=0)
    else:
        ax.errorbar(x, scores, spread, color=BLUE, fmt="none", alpha=0.5)
    ax.plot(axis.positions[table.best], table.scores[table.best], "D", color=ORANGE, label="best")
    _scale(ax, axis, "x")
    ax.set_ylabel(f"{table.metric} (mean ± std of {table.n_splits} splits)")
    ax.legend()
    return ax


def _heatmap(table: Table, ax: Axes) -> Axes:
    from matplotlib.patches import Rectangle

    down, across = table.axes
    chosen = table.last_of_each()
    if len(down.distinct) * len(across.distinct) > 2 * len(chosen):
        return _points(table, ax)
    shape = len(down.distinct), len(across.distinct)
    cells = np.full(shape, np.nan)
    for i in chosen:
        cells[down.places[i], across.places[i]] = table.scores[i]
    drawn = ax.imshow(cells, cmap=SCORES, aspect="auto", origin="lower")
    ax.figure.colorbar(drawn, ax=ax, label=table.metric)
    if cells.size <= 100:
        low, high = drawn.get_clim()
        for (i, j), score in np.ndenumerate(cells):
            light = math.isnan(score) or score > (low + high) / 2
            color = "black" if light else "white"
            text = "–" if math.isnan(score) else f"{score:.3g}"
            ax.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
    corner = across.places[table.best] - 0.5, down.places[table.best] - 0.5
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5))
    ax.set_xticks(range(shape[1]), across.labels, rotation=45 if shape[1] > 6 else 0)
    ax.set_yticks(range(shape[0]), down.labels)
    ax.set_xlabel(across.name)
    ax.set_ylabel(down.name)
    return ax


def _points(table: Table, ax: Axes) -> Axes:
    """Draw candidates that don't fill a grid, such as those of a random search, where they are."""
    y, x = table.axes
    chosen = table.last_of_each()
    drawn = ax.scatter(
        x.positions[chosen], y.positions[chosen], c=table.scores[chosen], cmap=SCORES
    )
    ax.plot(
        x.positions[table.best], y.positions[table.best], "o", markersize=12,
        markerfacecolor="none", markeredgecolor=ORANGE, markeredgewidth=2,
    )  # fmt: skip
    ax.figure.colorbar(drawn, ax=ax, label=table.metric)
    _scale(ax, x, "x")
    _scale(ax, y, "y")
    return ax


def _scale(ax: Axes, axis: Scale, which: str) -> None:
    """Name an axis and set its ticks: logarithmic where the values span two decades."""
    getattr(ax, f"set_{which}label")(axis.name)
    if axis.log:
        getattr(ax, f"set_{which}scale")("log")
    elif not axis.numeric:
        getattr(ax, f"set_{which}ticks")(range(len(axis.distinct)), axis.labels)


def _parallel(table: Table, ax: Axes) -> Axes:
    import matplotlib

    height = np.stack([axis.between() for axis in table.axes], axis=1)
    x = np.arange(height.shape[1])
    known = table.scores[np.isfinite(table.scores)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    norm = matplotlib.colors.Normalize(low, high if high > low else low + 1e-9)
    colors = matplotlib.colormaps[SCORES]
    for i in np.argsort(np.nan_to_num(table.scores, nan=-np.inf), kind="stable"):  # the best above
        color = colors(norm(table.scores[i])) if np.isfinite(table.scores[i]) else GREY
        ax.plot(x, height[i], color=color, alpha=0.7, linewidth=1.2)
    ax.plot(x, height[table.best], color=ORANGE, linewidth=2.5, label="best")
    for place, axis in enumerate(table.axes):
        ax.axvline(place, color=GREY, linewidth=0.8)
        between = axis.between()
        shown = range(len(axis.distinct))
        if len(shown) > 8:
            shown = range(0, len(shown), len(shown) - 1)  # the ends
        for k in shown:
            at = between[axis.places.index(k)]
            ax.text(place + 0.03, at, axis.labels[k], fontsize=8, va="center")
    ax.set_xticks(x, [axis.name for axis in table.axes])
    ax.set_yticks([])
    ax.margins(x=0.12)
    mapped = matplotlib.cm.ScalarMappable(norm, colors)
    ax.figure.colorbar(mapped, ax=ax, label=table.metric)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return ax


def _curves(table: Table, ax: Axes) -> Axes:
    if not table.curves:
        raise ValueError("There are no learning curves: no network has gone through an epoch.")
    names = {"early": "stopped early", "other": "ran to max_iter", "best": "best"}
    looks: dict[str, dict[str, Any]] = {
        "early": {"color": GREY, "alpha": 0.35, "linewidth": 0.8, "zorder": 1},
        "other": {"color": BLUE, "alpha": 0.5, "linewidth": 0.8, "zorder": 2},
        "best": {"color": ORANGE, "linewidth": 1.8, "zorder": 3},
    }
    for curve in table.curves:
        kind = "early" if curve["stopped_early"] else "other"
        kind = "best" if curve["candidate"] == table.best else kind
        losses = curve["loss_curve"]
        ax.plot(
            np.arange(1, len(losses) + 1), losses, marker="o" if len(losses) == 1 else "",
            markersize=3, label=names.pop(kind, None), **looks[kind],
        )  # fmt: skip
    losses = np.concatenate([curve["loss_curve"] for curve in table.curves])
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() >= 100 * losses.min():
        ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.locator_params(axis="x", integer=True)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return ax
