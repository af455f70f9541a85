"""What was measured as pictures."""

import math

from _contestants import PRODUCTS, REFERENCE
from matplotlib.figure import Figure

from _race.report import COLUMNS

OURS, THEIRS, GROUND = "#d1495b", "#8d99ae", "#2b2d42"
LINES = {
    "gpunet": OURS, "gpunet, numba": "#7d1128", "scikit-learn": "#e09f3e", "torch": "#588157",
    "JAX, scan": "#3d5a80",
}  # fmt: skip


def draw(report, path):
    """Draw a report's picture."""
    figure = growth(report["ladders"]) if "ladders" in report else race(report)
    figure.savefig(path, dpi=110)


def race(report):
    """Return each table as bars: how many times the reference's time."""
    results = [
        result
        for kind in COLUMNS
        for result in report.get(kind, [])
        if any("ratio" in row for row in result["rows"].values())
    ]
    figure, places = _grid(len(results), (5, 3.2))
    for axes, result in zip(places, results, strict=True):
        rows = [(name, row["ratio"]) for name, row in result["rows"].items() if "ratio" in row]
        rows.sort(key=lambda row: row[1], reverse=True)
        names, ratios = zip(*rows, strict=True)
        colors = [
            OURS if name.startswith(REFERENCE) else GROUND if name == PRODUCTS else THEIRS
            for name in names
        ]
        drawn = axes.barh(names, ratios, color=colors)
        axes.bar_label(drawn, [f"{ratio:.2f}" for ratio in ratios], padding=2, fontsize=7)
        axes.axvline(1, color=OURS, linewidth=0.8)
        axes.margins(x=0.12)
        axes.set_title(result["title"], fontsize=10)
        axes.tick_params(labelsize=8)
    figure.suptitle(f"Time, as a multiple of {REFERENCE}'s: shorter is faster")
    return figure


def growth(ladders):
    """Return each ladder as curves: time of an epoch over the size, the operation count beside it."""
    figure, places = _grid(len(ladders), (5.5, 4.2))
    for axes, ladder in zip(places, ladders, strict=True):
        for name, curve in ladder["curves"].items():
            label = f"{name} ~ {curve['exponent']:.2f}" if curve["exponent"] else name
            axes.plot(
                curve["sizes"], curve["seconds"], label=label, marker=".", color=LINES.get(name),
                linewidth=2 if name.startswith(REFERENCE) else 1,
            )  # fmt: skip
        # the count, as if the best rate seen held everywhere
        best = min(
            seconds / ladder["operations"][ladder["sizes"].index(size)]
            for curve in ladder["curves"].values()
            for size, seconds in zip(curve["sizes"], curve["seconds"], strict=True)
        )
        axes.plot(
            ladder["sizes"], [best * count for count in ladder["operations"]],
            linestyle=":", color=GROUND, label=f"operations ~ {ladder['exponent']:.2f}",
        )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel=ladder["title"], ylabel="seconds an epoch")
        axes.set_title(ladder["about"], fontsize=8)
        axes.legend(fontsize=7)
    figure.suptitle("How the time of an epoch grows: exponents of the upper half")
    return figure


def _grid(count, size):
    """Return a figure and a place for each of its parts, three side by side."""
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    places = [figure.add_subplot(rows, columns, at + 1) for at in range(count)]
    for axes in places:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, places
