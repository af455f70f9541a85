"""The command line: ``gpunet train``, ``predict``, ``evaluate``, ``check`` and ``backends``."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import gpunet
from gpunet import activations, initializers, losses, optimizers
from gpunet.backend import BackendUnavailableError, get_backend
from gpunet.model import Network
from gpunet.tabular.preparation import Preparation

app = typer.Typer(
    name="gpunet",
    help="Neural networks for tables, trained on the CPU or a GPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)

FAILURES = (
    ValueError,
    OSError,
    ImportError,
    MemoryError,
    ArithmeticError,
    BackendUnavailableError,
)
"""What may go wrong without gpunet being wrong: said in a sentence, without a traceback."""

INTERRUPTED = 130
MODEL = "model.safetensors"
LARGEST_SEED = 2**32 - 1
"""NumPy's `RandomState`, which draws the weights, takes no larger one."""


class Task(enum.StrEnum):
    """What a target column asks for."""

    binary = "binary"
    multiclass = "multiclass"
    regression = "regression"


class Precision(enum.StrEnum):
    """The numbers to compute with."""

    float32 = "float32"
    float64 = "float64"


def _sizes(text: str) -> tuple[int, ...]:
    """Read the hidden layers' sizes: ``100`` or ``64,32`` or ``none``."""
    try:
        return () if text == "none" else tuple(int(size) for size in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"give sizes such as 100 or 64,32, or none, not {text!r}.", param_hint="--hidden"
        ) from None


def _one_or_each(text: str) -> str | list[str]:
    """Read one activation for all hidden layers, or one for each."""
    return text.split(",") if "," in text else text


DATA = typer.Argument(
    metavar="DATA",
    help="A .csv, .parquet or .npz file (arrays X and y), or one of scikit-learn's data sets: digits, iris, wine, "
    "breast_cancer, diabetes.",
)
SAVED = typer.Argument(metavar="MODEL", help="A model file, or the folder of a training run.")
BACKEND = typer.Option(
    help="numpy, cupy, torch, jax, ...; see gpunet backends. (default: $GPUNET_BACKEND, else a usable CUDA GPU, else "
    "numpy)",
    rich_help_panel="Where to compute",
)
DEVICE = typer.Option(
    help="The backend's device, such as cpu or cuda:1.", rich_help_panel="Where to compute"
)
NETWORK = "The network"
TRAINING = "Training"


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Answer --version."""
    if show:
        console.print(f"gpunet {gpunet.__version__}")
        raise typer.Exit


@app.command(
    help="Train a network to predict a column of a table.\n\n"
    "Numbers are standardised, categories one-hot encoded, missing values filled in; dates become days. The model file "
    "holds how, so that predict and evaluate take tables with the same columns.\n\n"
    "Written are model.safetensors, history.csv, loss_curve.png, and confusion_matrix.png or predicted_vs_true.png."
)
def train(  # noqa: PLR0917  # the options of a command
    data: Annotated[str, DATA],
    target: Annotated[
        str | None,
        typer.Option(help="The column to predict. (default: y of NPZ, target of the data sets)"),
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            help="What the target asks for. (default: classes for text, booleans and whole numbers of at most 20 "
            "values, else a regression)"
        ),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A column not to predict from; may be repeated.")
    ] = None,
    validation: Annotated[
        float, typer.Option(help="The share of rows to stop early with; 0 trains all epochs.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option(help="The share of rows held out for the final scores.")
    ] = 0.2,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to. (default: runs/DATA)")
    ] = None,
    hidden: Annotated[
        str,
        typer.Option(
            help="Units of each hidden layer: 100, or 64,32, or none.", rich_help_panel=NETWORK
        ),
    ] = "100",
    activation: Annotated[
        str,
        typer.Option(
            help=f"Of the hidden layers: {', '.join(activations.KNOWN)}, with a setting like leaky_relu:0.2; one for "
            "all, or one for each, separated by commas.",
            rich_help_panel=NETWORK,
        ),
    ] = "relu",
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(losses.KNOWN)}. (default: by the task)",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help=f"Initial weights: {', '.join(initializers.KNOWN)}. (default: he for relu and its kin, else xavier)",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    optimizer: Annotated[
        str,
        typer.Option(help=f"{', '.join(optimizers.KNOWN)}.", rich_help_panel=TRAINING),
    ] = "adam",
    learning_rate: Annotated[
        float | None,
        typer.Option(help="α. (default: the optimizer's own)", rich_help_panel=TRAINING),
    ] = None,
    l2: Annotated[
        float,
        typer.Option(
            "--l2",
            "--lambda",
            min=0.0,
            help="λ of the cost's λ/(2m) ΣΘ², m being the rows to train on.",
            rich_help_panel=TRAINING,
        ),
    ] = 5.0,
    epochs: Annotated[
        int,
        typer.Option(
            min=1, help="How often all examples are seen, at most.", rich_help_panel=TRAINING
        ),
    ] = 200,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Examples a step. (default: a 50th of all, within 8 to 512)",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            help="Epochs without an improvement in validation before training stops.",
            rich_help_panel=TRAINING,
        ),
    ] = 40,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="For the split, the weights and the shuffles.",
            rich_help_panel=TRAINING,
        ),
    ] = 0,
    precision: Annotated[
        Precision,
        typer.Option(help="The numbers to compute with.", rich_help_panel="Where to compute"),
    ] = Precision.float32,
    backend: Annotated[str | None, BACKEND] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Train on a table and write a run's folder."""
    from gpunet import persistence
    from gpunet.tabular import report  # only what a command needs
    from gpunet.tabular.datasets import prepare
    from gpunet.tabular.experiment import Settings
    from gpunet.tabular.tables import open_table

    settings = Settings(
        get_backend(backend, device),
        hidden=_sizes(hidden),
        activation=_one_or_each(activation),
        loss=loss,
        init=init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        l2=l2,
        epochs=epochs,
        batch_size=batch,
        patience=patience,
        seed=seed,
        precision=precision.value,
    )
    table = open_table(data)
    target = target or table.target
    if target is None:
        raise typer.BadParameter(f"say which column of {data} to predict.", param_hint="--target")
    folder = out or Path("runs") / table.name
    _require_folder(folder)
    with console.status(f"reading {data}"):
        sets = prepare(
            table,
            target,
            task=None if task is None else task.value,
            drop=drop or (),
            validation=validation,
            test=test,
            centre=settings.centre,
            seed=seed,
            dtype=precision.value,
        )
    preparation = settings.fitted(sets.preparation)
    network = settings.network(preparation)
    console.print(report.layer_table(network))
    for line in report.data_lines(table, sets):
        console.print(line)

    interrupted = settings.fit(network, sets, progress=console.is_terminal)

    folder.mkdir(parents=True, exist_ok=True)
    replaced = " (in place of an earlier run)" if (folder / MODEL).exists() else ""
    persistence.save(folder / MODEL, network, preparation)
    report.write_history(folder / "history.csv", network.history)
    known, truth = (preparation.truth(y) for _, y in (sets.train, sets.test))
    predicted = preparation.decide(network.forward(sets.test[0])) if len(truth) else truth
    pictures = report.write_pictures(folder, network.history, preparation, truth, predicted)
    console.print(f"written to {folder}: {', '.join([MODEL, 'history.csv', *pictures])}{replaced}")
    if not report.can_draw():
        console.print("no pictures without matplotlib: pip install 'gpunet[plot]'")
    if interrupted:
        console.print(interrupted)
    if len(truth):
        title = f"Scores of the {len(truth):,} held-out rows"
        console.print(report.score_table(title, preparation, known, truth, predicted))
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _require_folder(folder: Path) -> None:
    """Refuse what can't become a run's folder, before the training whose results it would lose."""
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise NotADirectoryError(
                f"Can't write to the folder {str(folder)!r}: {str(part)!r} is a file; give another with --out."
            )


def _load(model: Path, backend: str | None, device: str | None) -> tuple[Network, Preparation]:
    """Load a model that was trained on a table, from its file or its run's folder."""
    from gpunet import persistence  # only what a command needs

    file = model / MODEL if model.is_dir() else model
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no model file {str(file)!r}: give one that gpunet train wrote, or its folder."
        )
    saved = persistence.load(file, backend=backend, device=device)
    if saved.preparation is None:
        raise ValueError(
            f"{file} holds a network without the columns of a table, which only models of gpunet train have: use "
            "gpunet.Network.load in Python."
        )
    return saved.network, saved.preparation


@app.command(
    help="Predict a column for every row of a table: labels and their probabilities, or numbers.\n\n"
    "Rows are read, predicted and written in batches, in their order."
)
def predict(
    model: Annotated[Path, SAVED],
    data: Annotated[str, DATA],
    out: Annotated[Path, typer.Option(help="The .csv or .parquet file to write.")],
    backend: Annotated[str | None, BACKEND] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Predict a column for every row of a table."""
    from gpunet.tabular import report  # only what a command needs
    from gpunet.tabular.experiment import predictions
    from gpunet.tabular.tables import open_table

    network, preparation = _load(model, backend, device)
    rows = predictions(network, preparation, open_table(data))
    count = report.write_predictions(out, rows)
    console.print(f"{count:,} predictions of {preparation.target!r} written to {out}")


@app.command(help="Score a model on a table that holds the truth, beside a trivial guess.")
def evaluate(
    model: Annotated[Path, SAVED],
    data: Annotated[str, DATA],
    target: Annotated[
        str | None, typer.Option(help="The column with the truth. (default: the one trained on)")
    ] = None,
    backend: Annotated[str | None, BACKEND] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Score a model on a table that holds the truth."""
    from gpunet.tabular import report  # only what a command needs
    from gpunet.tabular.experiment import judge
    from gpunet.tabular.tables import open_table

    network, preparation = _load(model, backend, device)
    table = open_table(data)
    truth, predicted = judge(network, preparation, table, target or preparation.target)
    title = f"Scores of the {len(truth):,} rows of {table.source}"
    console.print(report.score_table(title, preparation, truth, truth, predicted))


@app.command(
    help="Check backpropagation against numerical differentiation, on random examples.\n\n"
    "Shows each layer's largest relative difference; fails if one is above 1e-6."
)
def check(  # noqa: PLR0917  # the options of a command
    sizes: Annotated[
        list[int],
        typer.Argument(
            metavar="SIZES...", help="Units of each layer, from input to output: 4 5 3."
        ),
    ],
    activation: Annotated[
        str,
        typer.Option(
            help="Of the hidden layers; one for all, or one for each, separated by commas."
        ),
    ] = "sigmoid",
    output: Annotated[
        str | None, typer.Option(help="The output's activation. (default: the loss's own)")
    ] = None,
    loss: Annotated[str, typer.Option(help=f"{', '.join(losses.KNOWN)}.")] = "cross_entropy",
    l2: Annotated[float, typer.Option("--l2", "--lambda", min=0.0, help="λ.")] = 0.0,
    init: Annotated[str, typer.Option(help="Initial weights.")] = "xavier",
    examples: Annotated[int, typer.Option(min=1, help="How many random examples.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="For weights and examples.")
    ] = 0,
    backend: Annotated[str | None, BACKEND] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Check backpropagation against numerical differentiation."""
    from gpunet.tabular.experiment import random_examples  # only what a command needs

    network = Network(
        sizes,
        hidden=_one_or_each(activation),
        output=output,
        loss=loss,
        init=init,
        seed=seed,
        backend=backend,
        device=device,
    )
    found = network.check_gradient(*random_examples(network, examples, seed), l2=l2)
    for layer in found:
        console.print(str(layer))
    if not all(layer.difference <= 1e-6 for layer in found):  # NaN is no success either
        raise ValueError(
            "Backpropagation differs from numerical differentiation by more than 1e-6."
        )
    console.print(f"backpropagation is right for {network!r}")


@app.command()
def backends() -> None:
    """Show where gpunet can compute: each backend, its devices, or what it needs."""
    from gpunet.tabular import report  # only what a command needs

    console.print(report.backend_table(gpunet.backends_info()))


def main() -> None:
    """Run the command line; what goes wrong is one sentence on stderr and exit code 1."""
    try:
        app()
    except KeyboardInterrupt:  # before or after training, which keeps what it has
        raise SystemExit(130) from None
    except FAILURES as error:
        told = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"error: {told}", err=True)
        raise SystemExit(1) from None
