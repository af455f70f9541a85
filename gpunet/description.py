"""From what a user writes to an `Architecture`, and back to words."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence

from gpunet import activations, losses
from gpunet.activations import Activation, Custom
from gpunet.losses import Loss
from gpunet.network import Architecture
from gpunet.scores import TASKS
from gpunet.typing import HostArray

Hidden = str | Activation | Sequence[str | Activation]
"""One activation for all hidden layers, or one for each."""


def architecture_of(
    sizes: Sequence[int], hidden: Hidden, output: str | Activation | None, loss: str | Loss
) -> Architecture:
    """Return the description of a network.

    Parameters
    ----------
    sizes : sequence of int
        s_1 to s_L.
    hidden : str, Activation or a sequence of them
    output : str or Activation, optional
        None takes the loss's canonical one.
    loss : str or Loss

    Raises
    ------
    ValueError
        For unknown names and parts that don't fit each other.

    Examples
    --------
    >>> architecture_of([4, 3, 2, 3], ["tanh", "relu"], None, "softmax_cross_entropy").activations
    (Tanh(), ReLU(), Softmax())
    """
    try:
        sizes = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise ValueError(f"sizes are whole numbers of units, s_1 to s_L, not {sizes!r}.") from None
    n_hidden = max(len(sizes) - 2, 0)
    kinds = _each(hidden, n_hidden)
    if len(kinds) != n_hidden:
        raise ValueError(
            f"hidden gives {len(kinds)} activations, but the network {list(sizes)} has {n_hidden} hidden layers "
            f"(layers 2 to {len(sizes) - 1}): give one for all, or one for each."
        )
    loss = losses.get(loss)
    last = activations.get(loss.canonical if output is None else output)
    return Architecture(sizes, (*kinds, last), loss)


def _each(hidden: Hidden, n_hidden: int) -> list[Activation]:
    """Return each hidden layer's activation; one that is given for all is repeated."""
    if isinstance(hidden, Sequence) and not isinstance(hidden, str):
        return [activations.get(kind) for kind in hidden]
    return [activations.get(hidden)] * n_hidden


def task_of(architecture: Architecture, task: str | None) -> str:
    """Return the task a network is for: the one asked for if it fits, else what its loss suggests.

    Raises
    ------
    ValueError
        For an unknown task, or one that doesn't fit the number of outputs.
    """
    K = architecture.sizes[-1]
    if task is None:
        if not architecture.loss.classification:
            return "regression"
        return "multiclass" if K > 1 else "binary"
    if task not in TASKS:
        raise ValueError(f"Unknown task {task!r}; known are {', '.join(TASKS)}.")
    if (task == "multiclass" and K == 1) or (task == "binary" and K > 1):
        raise ValueError(
            f"Task {task!r} doesn't fit s_L = {K} output units: binary has one, multiclass one for each class."
        )
    return task


def sizes_of(
    thetas: Sequence[HostArray], hidden: Hidden, output: str | Activation | None = None
) -> list[int]:
    """Return s_1 to s_L from matrices in the notes' shape (s_{l+1}, s_l + 1).

    Raises
    ------
    ValueError
        For matrices that don't chain.
    """
    n_hidden = len(thetas) - 1
    pieces = [kind.pieces for kind in _each(hidden, n_hidden)]
    pieces = [*pieces, *[1] * len(thetas)][:n_hidden]  # a wrong number of them is refused later
    pieces.append(1 if output is None else activations.get(output).pieces)
    sizes = [thetas[0].shape[1] - 1]
    for l, (Theta, k) in enumerate(zip(thetas, pieces, strict=True), start=1):
        rows, columns = Theta.shape
        if columns != sizes[-1] + 1 or columns < 2:
            raise ValueError(
                f"Theta{l} is {rows} x {columns}, but layer {l} has s_{l} = {sizes[-1]} units, so it needs "
                f"s_{l} + 1 = {sizes[-1] + 1} columns, the bias in column 0."
            )
        if rows % k:
            raise ValueError(f"Theta{l} has {rows} rows, not a multiple of maxout's {k} pieces.")
        sizes.append(rows // k)
    return sizes


def spec_of(activation: Activation) -> str:
    """Return an activation's name with its setting, as `gpunet.activations.get` takes it.

    Examples
    --------
    >>> spec_of(activations.LeakyReLU())
    'leaky_relu:0.1'
    """
    settings = () if isinstance(activation, Custom) else dataclasses.fields(activation)
    return ":".join([activation.name, *(str(getattr(activation, f.name)) for f in settings)])


def table_of(architecture: Architecture) -> list[tuple[str, ...]]:
    """Return a table of the layers: a row of headings, then layer, units, activation, Θ, parameters."""
    rows: list[tuple[str, ...]] = [("layer", "units", "activation", "Theta", "parameters")]
    rows.append(("1 (input)", str(architecture.sizes[0]), "", "", ""))
    last = len(architecture.sizes)
    for l, layer in enumerate(architecture.layers, start=2):
        rows.append(
            (
                f"{l} (output)" if l == last else str(l),
                str(layer.units),
                spec_of(layer.activation),
                f"Theta{l - 1}: {layer.rows} x {layer.inputs + 1}",
                f"{layer.rows * (layer.inputs + 1):,}",
            )
        )
    return rows
