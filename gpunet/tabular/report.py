"""Reports of a run: tables for a terminal, and the files of an output folder."""

from __future__ import annotations

import csv
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

import gpunet.tabular.tables
from gpunet import description
from gpunet.model import Network
from gpunet.persistence import replacing
from gpunet.runs import Record
from gpunet.tabular.datasets import DataSets
from gpunet.tabular.preparation import Preparation
from gpunet.typing import HostArray

Scores = dict[str, float]


def scores(preparation: Preparation, truth: HostArray, predicted: HostArray) -> Scores:
    """Return what predictions are worth, by the names of the scores.

    Parameters
    ----------
    preparation : Preparation
    truth, predicted : array of shape (m,)
        Class numbers, or numbers in the target column's units.
    """
    from sklearn import metrics  # slow to import

    if preparation.classes:
        judges = {
            "accuracy": metrics.accuracy_score,
            "balanced accuracy": metrics.balanced_accuracy_score,
        }
    else:
        judges = {"R²": metrics.r2_score, "mean absolute error": metrics.mean_absolute_error}
    with warnings.catch_warnings():
        # of classes that none of a few rows has, and of R² for a single row, which is NaN
        warnings.simplefilter("ignore", UserWarning)
        return {name: float(judge(truth, predicted)) for name, judge in judges.items()}


def baseline_scores(preparation: Preparation, known: HostArray, truth: HostArray) -> Scores:
    """Return the scores of who always predicts the most frequent class, or the mean, of ``known`` targets."""
    from sklearn.dummy import DummyClassifier, DummyRegressor  # slow to import

    dummy = DummyClassifier(strategy="most_frequent") if preparation.classes else DummyRegressor()
    dummy.fit(np.zeros((len(known), 1)), known)
    return scores(preparation, truth, dummy.predict(np.zeros((len(truth), 1))))


def score_table(
    title: str,
    preparation: Preparation,
    known: HostArray,
    truth: HostArray,
    predicted: HostArray,
) -> Table:
    """Return the scores of predictions beside those of the trivial baseline, which knows ``known``."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("score")
    table.add_column("network", justify="right", style="bold")
    guess = "most frequent class" if preparation.classes else "mean"
    table.add_column(f"always the {guess}", justify="right")
    trivial = baseline_scores(preparation, known, truth)
    for name, value in scores(preparation, truth, predicted).items():
        table.add_row(name, f"{value:.4g}", f"{trivial[name]:.4g}")
    return table


def layer_table(network: Network) -> Table:
    """Return the layers of a network, their shapes and their numbers of parameters."""
    headings, *rows = description.table_of(network.architecture)
    table = Table(
        title=f"Network: loss {network.architecture.loss.name}, {network.dtype} on {network.backend.spec}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=True,
    )
    footers = {"layer": "sum", "parameters": f"{network.architecture.n_parameters:,}"}
    for heading in headings:
        right = heading in ("units", "parameters")
        table.add_column(
            heading, footer=footers.get(heading, ""), justify="right" if right else "left"
        )
    for row in rows:
        table.add_row(*row)
    return table


def data_lines(table: gpunet.tabular.tables.Table, sets: DataSets) -> Iterator[str]:
    """Yield what a user should know of the data: how many rows serve what, and which columns don't."""
    parts = {"train on": sets.train, "validate on": sets.validation, "hold out": sets.test}
    counts = ", ".join(f"{len(y):,} to {use}" for use, (_, y) in parts.items())
    preparation = sets.preparation
    yield f"{table.source}: {table.rows:,} rows, {counts}; {preparation.task} of {preparation.target!r}"
    for note in sets.notes:
        yield f"note: {note}"


def backend_table(infos: Iterable[Mapping[str, Any]]) -> Table:
    """Return what `gpunet.backends_info` says: versions and devices, or why not and how to install."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("backend", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("devices, or what is missing", overflow="fold")
    for info in infos:
        if info["problem"] is None:
            state = [
                f"{device.name}: {device.description}"
                + (f", {device.memory / 2**30:.1f} GiB" if device.memory else "")
                for device in info["devices"]
            ]
        else:
            state = [f"unusable: {info['problem']}", f"install: {info['install']}"]
        table.add_row(info["name"], info["version"] or "–", "\n".join(state))
    return table


def write_history(path: Path, history: Sequence[Record]) -> None:
    """Write one row an epoch, as CSV."""
    names = list(history[0]) if history else ["epoch", "cost"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_pictures(
    folder: Path,
    history: Sequence[Record],
    preparation: Preparation,
    truth: HostArray,
    predicted: HostArray,
) -> list[str]:
    """Draw the loss curve and how the predictions compare with the truth.

    Parameters
    ----------
    folder : Path
    history : sequence of Record
        Without a record there is no loss curve.
    preparation : Preparation
    truth, predicted : array of shape (m,)
        As for `scores`; for m = 0 there is no such picture.

    Returns
    -------
    list of str
        The names of the files; none if matplotlib isn't installed.
    """
    if not can_draw():
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # an extra
    from matplotlib.figure import Figure

    from gpunet import plot

    figures = {}
    if history:
        figures["loss_curve.png"] = figure = Figure((6.4, 4.4), layout="constrained")
        plot.loss_curve(history, figure.subplots())
    if len(truth) and preparation.classes:
        figures["confusion_matrix.png"] = figure = Figure(layout="constrained")
        _confusion_matrix(figure, preparation, truth, predicted)
    elif len(truth):
        figures["predicted_vs_true.png"] = figure = Figure((5.2, 5.2), layout="constrained")
        _predicted_vs_true(figure, preparation, truth, predicted)
    for name, figure in figures.items():
        FigureCanvasAgg(figure)  # draws without a display
        with replacing(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    return list(figures)


def _confusion_matrix(
    figure: Any, preparation: Preparation, truth: HostArray, predicted: HostArray
) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay  # slow to import

    names = [str(label) for label in preparation.classes]
    K = len(names)
    side = min(max(4.8, 1.5 + 0.45 * K), 14.0)
    figure.set_size_inches(side + (2.0 if K > 25 else 0.0), side)  # room for the colour bar
    ax = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        truth,
        predicted,
        labels=range(K),
        display_labels=names,
        include_values=K <= 25,
        values_format="d",
        cmap="Blues",
        colorbar=K > 25,
        xticks_rotation="vertical" if sum(map(len, names)) > 40 else "horizontal",
        ax=ax,
    )
    if K > 25:
        ax.tick_params(labelsize=max(3, 250 / K))
    ax.set_xlabel(f"predicted {preparation.target}")
    ax.set_ylabel(f"true {preparation.target}")
    ax.set_title("held-out rows")


def _predicted_vs_true(
    figure: Any, preparation: Preparation, truth: HostArray, predicted: HostArray
) -> None:
    from matplotlib.ticker import AutoLocator  # an extra
    from sklearn.metrics import PredictionErrorDisplay  # slow to import

    ax = figure.subplots()
    PredictionErrorDisplay.from_predictions(
        truth,
        predicted,
        kind="actual_vs_predicted",
        subsample=2000,
        random_state=0,
        ax=ax,
        scatter_kwargs={"alpha": 0.5, "s": 16},
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(AutoLocator())  # round numbers
    ax.set_xlabel(f"predicted {preparation.target}")
    ax.set_ylabel(f"true {preparation.target}")
    ax.set_title("held-out rows")


def write_predictions(path: Path, batches: Iterable[Mapping[str, HostArray]]) -> int:
    """Write columns batch by batch, as Parquet if the name ends so and else as CSV.

    Parameters
    ----------
    path : Path
    batches : iterable of dict of str to array of shape (m,)

    Returns
    -------
    int
        How many rows there were.

    Raises
    ------
    ImportError
        If Parquet is asked for and pyarrow isn't installed.
    """
    write: Callable[[Path, Iterable[Mapping[str, HostArray]]], int]
    write = _write_parquet if path.suffix.lower() == ".parquet" else _write_csv
    with replacing(path) as temporary:
        return write(temporary, batches)


def _write_csv(path: Path, batches: Iterable[Mapping[str, HostArray]]) -> int:
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for batch in batches:
            if not rows:
                writer.writerow(batch)
            # a float32 as text has the digits it needs, and no more
            columns = [
                (column.astype(str) if column.dtype.kind == "f" else column).tolist()
                for column in batch.values()
            ]
            writer.writerows(zip(*columns, strict=True))
            rows += len(columns[0])
    return rows


def _write_parquet(path: Path, batches: Iterable[Mapping[str, HostArray]]) -> int:
    try:
        import pyarrow as pa  # an extra
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"Writing Parquet needs pyarrow ({error}): pip install 'gpunet[tables]'"
        ) from None
    tables = (pa.table(dict(batch)) for batch in batches)
    first = next(tables)
    rows: int = first.num_rows
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
    return rows
