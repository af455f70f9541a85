"""Where memory is short: a minibatch's gradient and a prediction in smaller parts, and what to say if that won't do.

A gradient is a sum over examples, so that taken part by part it is the same, but for rounding. What can't be divided
ends with an error that tells the sizes. A library's pool of memory is left alone: it is the library's.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from gpunet.backend import Backend
from gpunet.network import Architecture, hypothesis
from gpunet.notices import warn
from gpunet.streaming import VARIABLE as RESIDENT
from gpunet.typing import Array

T = TypeVar("T")

PARTS = 4
"""How many parts a minibatch is divided into."""

_FEWER = 64
"""How many times fewer numbers of a layer a prediction then holds."""


class OutOfMemoryError(MemoryError):
    """Memory is short even for what can't be made smaller; the message tells the sizes and what to do."""


@contextlib.contextmanager
def explained(backend: Backend, words: Callable[[], str]) -> Iterator[None]:
    """Turn a library's own memory error into one that says what didn't fit."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not backend.is_memory_error(error):
            raise
        raise OutOfMemoryError(words()) from error


def with_less(
    backend: Backend, work: Callable[[], T], less: Callable[[], T], warning: Callable[[], str]
) -> T:
    """Return what ``work`` does, or, where memory is short for it, with a warning what ``less`` does.

    By then all that ``work`` has held is free.
    """
    try:
        return work()
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not backend.is_memory_error(error):
            raise
    # out here nothing holds the error, its traceback and the arrays in it
    warn(warning(), RuntimeWarning)
    return less()


def mebibytes(size: float) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> mebibytes(3 * 2**20), mebibytes(5 * 2**30)
    ('3.0 MiB', '5,120.0 MiB')
    """
    return f"{size / 2**20:,.1f} MiB"


def data_too_large(
    backend: Backend, name: str, shape: Sequence[int], dtype: str, *, may_stay: bool = False
) -> str:
    """Return what to say of data for which there is no room.

    Parameters
    ----------
    backend : Backend
    name : str
        What it is called.
    shape : sequence of int
    dtype : str
    may_stay : bool
        Whether it is an X that may stay on the host.
    """
    width = int(dtype.removeprefix("float")) // 8
    ways = [f"let {name} stay on the host ({RESIDENT}=0)"] if may_stay else []
    ways += ["give a part of the examples at a time"]
    ways += ["use dtype='float32'"] if width > 4 else []
    there = backend.memory == (1, 0)  # on the host
    ways += [] if there else ["where the host has more memory, use backend='numpy'"]
    advice, size = "; or ".join(ways), mebibytes(width * math.prod(shape))
    return (
        f"{name} of the shape {tuple(map(int, shape))} in {dtype} is {size}: there is no room for it in the memory of "
        f"{backend.spec}. {advice[0].upper()}{advice[1:]}."
    )


def chunk_too_large(backend: Backend, numbers: int, *, m: int, dtype: str) -> str:
    """Return what to say of examples on the host of which not even a chunk fits.

    Parameters
    ----------
    backend : Backend
    numbers : int
        How many numbers an example has.
    m : int
        Examples in a step.
    dtype : str
    """
    width = int(dtype.removeprefix("float")) // 8
    size = mebibytes(width * numbers * m)
    narrower = " or dtype='float32'" if width > 4 else ""
    return (
        f"X stays on the host and comes in chunks of whole minibatches, for which there is no room in the memory of "
        f"{backend.spec}: one of {m:,} examples is {size}. Use a smaller batch_size{narrower}."
    )


def step_bytes(architecture: Architecture, m: int, n_slots: int, width: int) -> int:
    """Return about how many bytes a training step touches, its examples not counted.

    Parameters
    ----------
    architecture : Architecture
    m : int
        Examples in the step.
    n_slots : int
        What the optimizer remembers, in vectors of θ's length.
    width : int
        Bytes a number.
    """
    z_and_a = 3 * m * sum(layer.rows for layer in architecture.layers)
    return width * (z_and_a + (3 + n_slots) * architecture.n_parameters)


def step_too_large(
    architecture: Architecture,
    backend: Backend,
    *,
    n: int,
    m: int,
    n_slots: int,
    width: int,
    on_host: bool = False,
) -> str:
    """Return what to say of a network of whose training steps memory is short.

    Parameters
    ----------
    architecture : Architecture
    backend : Backend
    n, m : int
        Examples, in all and in a step.
    n_slots, width : int
        See `step_bytes`.
    on_host : bool
        Whether X stays on the host, and only parts of it are on the device.
    """
    sizes = architecture.sizes
    data = ((0 if on_host else sizes[0]) + sizes[-1]) * n * width
    what = "targets and a chunk of X" if on_host else "data"
    step = step_bytes(architecture, m, n_slots, width)
    narrower = " or dtype='float32'" if width > 4 else ""
    return (
        f"A network with the layers {list(sizes)}, {architecture.n_parameters:,} parameters, doesn't fit the memory of "
        f"{backend.spec}: in minibatches of {m:,} examples it takes about {mebibytes(step)} beside the "
        f"{mebibytes(data)} of {what}. Use a smaller batch_size, smaller hidden layers{narrower}."
    )


def hypothesis_within(
    backend: Backend,
    architecture: Architecture,
    theta: Array,
    x: Array,
    *,
    examples: Array | None = None,
) -> tuple[Array, Array]:
    """Return what `gpunet.network.hypothesis` returns, in smaller parts where memory is short."""

    def ask(at_once: int) -> tuple[Array, Array]:
        primitives = backend.primitives
        return hypothesis(architecture, theta, x, primitives, examples=examples, at_once=at_once)

    n = x.shape[-1] if examples is None else examples.shape[-1]
    return predicted(backend, architecture, n, ask)


def predicted(backend: Backend, architecture: Architecture, n: int, ask: Callable[[int], T]) -> T:
    """Return ``ask(at_once)`` about n examples, where memory is short with far fewer numbers at once.

    Raises
    ------
    OutOfMemoryError
        If that is too much as well.
    """
    at_once = backend.primitives.at_once

    def outputs() -> str:
        return f"{n:,} examples through a network with the layers {list(architecture.sizes)}"

    def less() -> T:
        with explained(
            backend,
            lambda: (
                f"To send {outputs()} doesn't fit the memory of {backend.spec}, even with {at_once // _FEWER:,} "
                "numbers of a layer at once. Ask about fewer examples at a time."
            ),
        ):
            return ask(at_once // _FEWER)

    return with_less(
        backend,
        lambda: ask(at_once),
        less,
        lambda: (
            f"To send {outputs()} didn't fit the memory of {backend.spec}: they go in {_FEWER} times smaller parts, "
            "with the same result."
        ),
    )
