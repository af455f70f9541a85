"""Saving and loading: one file that holds a network and the preparation of its columns, and no code.

The format is safetensors: a JSON header, then the numbers. The tensors are called ``Theta1``, ``Theta2``, ... and have
the notes' shape (s_{l+1}, s_l + 1), the bias in column 0. The header's ``__metadata__`` has one entry, ``gpunet``,
which is JSON with

- ``version``: a whole number, raised whenever an older gpunet would no longer read the file correctly;
- ``sizes``, ``activations``, ``task``, ``dtype``: the network's description in the words that `gpunet.Network` takes;
  an activation of one's own is ``{"custom": name}``;
- ``loss``: its name and its settings, such as ``{"name": "huber", "threshold": 1.0}``;
- ``preparation``: what `gpunet.tabular.preparation.Preparation.to_dict` gives, or null.

A file says nothing of the backend that wrote it, so that it loads on any other. Nothing in it is trusted: names,
shapes and numbers are checked against each other.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet import activations, description, losses
from gpunet.activations import Activation
from gpunet.backend import Backend, get_backend
from gpunet.losses import Loss
from gpunet.model import Network
from gpunet.network import Architecture
from gpunet.typing import HostArray

if TYPE_CHECKING:
    from gpunet.tabular.preparation import Preparation

VERSION = 1
_ENTRY = "gpunet"


class ModelFileError(ValueError):
    """A file isn't a model that this gpunet can load; the message says why."""


@dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes
    ----------
    network : Network
    preparation : Preparation or None
        None if the network was saved alone.
    """

    network: Network
    preparation: Preparation | None


def save(
    path: str | PathLike[str], network: Network, preparation: Preparation | None = None
) -> None:
    """Save a network, and how a table's columns become its inputs.

    The file is there as a whole or not at all: an older one is replaced only when the new one is complete.

    Parameters
    ----------
    path : str or path
        By custom it ends with ``.safetensors``.
    network : Network
        Description and parameters are saved, bit by bit; history and random generator aren't.
    preparation : Preparation, optional

    Raises
    ------
    ValueError
        For a loss of one's own: only gpunet's can be loaded again.
    OSError
        If the file can't be written.

    Examples
    --------
    >>> import gpunet, tempfile
    >>> network = gpunet.Network([2, 3, 1], seed=0, backend="numpy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/model.safetensors", network)
    ...     saved = load(f"{folder}/model.safetensors", backend="numpy")
    >>> [bool((a == b).all()) for a, b in zip(saved.network.thetas, network.thetas, strict=True)]
    [True, True]
    """
    from safetensors.numpy import save as to_bytes

    architecture = network.architecture
    if type(architecture.loss) is not type(losses.KNOWN.get(architecture.loss.name)):
        raise ValueError(
            f"Loss {architecture.loss!r} can't be saved: a file holds no code, so only gpunet's own losses "
            f"({', '.join(losses.KNOWN)}) could be loaded again."
        )
    header = {
        "version": VERSION,
        "sizes": architecture.sizes,
        "activations": [_written(kind) for kind in architecture.activations],
        "loss": {"name": architecture.loss.name, **dataclasses.asdict(architecture.loss)},
        "task": network.task,
        "dtype": network.dtype,
        "preparation": None if preparation is None else preparation.to_dict(),
    }
    tensors = {
        f"Theta{l}": np.ascontiguousarray(Theta) for l, Theta in enumerate(network.thetas, start=1)
    }
    content = to_bytes(tensors, {_ENTRY: json.dumps(header, allow_nan=False)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load(
    path: str | PathLike[str],
    *,
    custom: Mapping[str, Activation] | None = None,
    backend: str | Backend | None = None,
    device: str | None = None,
) -> Saved:
    """Load a saved network, on any machine and backend.

    Parameters
    ----------
    path : str or path
    custom : dict of str to Activation, optional
        The activations of one's own that the network uses, by name.
    backend : str or Backend, optional
        Where the loaded network computes; see `gpunet.get_backend`.
    device : str, optional

    Returns
    -------
    Saved

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it isn't a model, is cut off or damaged, was written by a newer gpunet, or needs an activation that
        ``custom`` doesn't give.
    """
    chosen = get_backend(backend, device)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model file {os.fspath(path)!r}.")
    header, thetas = _read(path)
    try:
        return _network(header, thetas, custom or {}, chosen)
    except ModelFileError as error:
        raise ModelFileError(f"{os.fspath(path)} can't be loaded: {error}") from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{os.fspath(path)} holds no valid model: {reason}") from None


def _written(kind: Activation) -> str | dict[str, str]:
    """Return what stands for an activation in a file."""
    known = type(kind) is activations.KNOWN.get(kind.name)
    return description.spec_of(kind) if known else {"custom": kind.name}


def _activation(written: Any, custom: Mapping[str, Activation]) -> Activation:
    """Return the activation that stands in a file."""
    if isinstance(written, str):
        return activations.get(written)
    name = written["custom"]
    if name not in custom:
        raise ModelFileError(
            f"it uses an activation of one's own, {name!r}, and a file holds no code: give custom={{{name!r}: ...}}."
        )
    return custom[name]


def _loss(written: Mapping[str, Any]) -> Loss:
    """Return the loss that stands in a file."""
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in written.items()
        if name != "name"
    }
    return type(losses.get(written["name"]))(**settings)


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """Return the header and the tensors of a file, as they are written there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_ENTRY])
            version = header["version"]
            if not isinstance(version, int) or version < 1:
                raise TypeError(f"{version!r} is no version")
            if version > VERSION:
                raise ModelFileError(
                    f"{os.fspath(path)} was written by a newer gpunet (format {version}, this one reads up to "
                    f"{VERSION}): update gpunet."
                )
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(
            f"{os.fspath(path)} isn't a gpunet model, or it is cut off or damaged ({error})."
        ) from None
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError):
        raise ModelFileError(
            f"{os.fspath(path)} isn't a gpunet model: it holds tensors, but no description of a network by gpunet."
        ) from None


def _network(
    header: Mapping[str, Any],
    thetas: Mapping[str, HostArray],
    custom: Mapping[str, Activation],
    backend: Backend,
) -> Saved:
    """Make what a file describes; any error says what doesn't fit."""
    kinds = [_activation(written, custom) for written in header["activations"]]
    architecture = Architecture(tuple(header["sizes"]), tuple(kinds), _loss(header["loss"]))
    expected = {
        f"Theta{l}": (layer.rows, layer.inputs + 1)
        for l, layer in enumerate(architecture.layers, start=1)
    }
    found = {name: Theta.shape for name, Theta in thetas.items()}
    if found != expected:
        raise ModelFileError(f"it should hold {expected}, but holds {found}.")
    if any(str(Theta.dtype) != header["dtype"] for Theta in thetas.values()):
        raise ModelFileError(f"its numbers aren't all {header['dtype']}.")
    network = Network.from_thetas(
        [thetas[name] for name in expected],
        hidden=kinds[:-1],
        output=kinds[-1],
        loss=architecture.loss,
        task=header["task"],
        dtype=header["dtype"],
        backend=backend,
    )
    if header["preparation"] is None:
        return Saved(network, None)
    from gpunet.tabular.preparation import Preparation  # only for a model of a table

    preparation = Preparation.from_dict(header["preparation"])
    outputs = {"binary": 1, "regression": 1, "multiclass": len(preparation.classes)}
    sides = (preparation.n_inputs, outputs[preparation.task])
    if sides != (architecture.sizes[0], architecture.sizes[-1]) or preparation.task != network.task:
        raise ModelFileError(
            f"its columns give {sides[0]} inputs and {sides[1]} outputs for {preparation.task}, but its network is "
            f"{list(architecture.sizes)} for {network.task}."
        )
    return Saved(network, preparation)


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """Write a file as a whole or not at all, within a ``with`` block.

    Yields the path of a temporary file in the same folder. When the block ends it takes the place of ``path``, on the
    disk and not only in a cache; if the block fails it is removed.

    Raises
    ------
    OSError
        If there can't be such a file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/greeting.txt") as temporary:
    ...         _ = temporary.write_text("hello")
    ...     print([path.name for path in Path(folder).iterdir()])
    ['greeting.txt']
    """
    final = Path(os.path.realpath(path))  # a link goes on pointing to the file
    if final.exists() and not final.is_file():
        raise OSError(f"{str(path)!r} is no ordinary file: it can't be replaced by one.")
    if not final.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(final.parent)!r} to write {final.name!r} to."
        )
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
