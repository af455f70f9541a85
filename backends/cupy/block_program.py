"""A training step as a kernel of its own: one block for each network, all of an epoch's minibatches in one launch.

θ, the optimizer's memory and what is computed meanwhile stay in the block's shared memory, where the device's other
memory takes ten times as long, and a barrier within a block takes the place of a launch. Blocks never wait for each
other, so that a stack takes as long as its networks divided by how many the device holds at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.backend import Step
from gpunet.typing import Array

from ..recording import HostNumber, UnrecordableError
from .arguments import lanes_of
from .block_layout import layout
from .block_recorder import Recorder
from .block_values import Flat, Given, Scalar, Tape
from .kernels import SOURCE, THREADS, TYPES

NAME = "train"
LIBRARY = f"{SOURCE}\n{(Path(__file__).parent / 'block.cuh').read_text(encoding='utf-8')}"

Launch = Callable[[tuple[int, int], tuple[int, int], tuple[Any, ...]], None]
"""``launch(grid, block, arguments)``: start the kernel."""

PER_BLOCK = {"f": 2.5e5, "d": 1.25e5}
"""Operations that a block is thought to do in a microsecond, half of what an H100's multiprocessor could."""


@dataclass(frozen=True)
class Chip:
    """What a device has.

    Attributes
    ----------
    shared : int
        Bytes of shared memory that a block may have.
    processors : int
        Multiprocessors; each holds as many blocks as fit there.
    """

    shared: int
    processors: int


class Program:
    """A step, recorded for arguments of some shapes.

    Parameters
    ----------
    step : callable
        `gpunet.step.TrainingStep`.
    arguments : tuple
        Carry, batches and data: what an epoch of it is called with.
    chip : Chip

    Attributes
    ----------
    source : str
        The kernel with all it needs. It doesn't depend on how many networks or examples there are.
    layout : Layout
    microseconds : float
        About how long a step takes.

    Raises
    ------
    UnrecordableError
        If the step does what a program can't hold, or more than fits the chip.
    """

    at_once = 1e5
    """Microseconds that go by at most between two looks at whether to stop."""

    def __init__(self, step: Step, arguments: tuple[Any, Any, Any], chip: Chip) -> None:
        (theta, slots, total), batches, data = arguments
        leading = theta.shape[:-1]
        if theta.dtype.char not in TYPES or len(leading) > 1:
            raise UnrecordableError(f"{theta.dtype} {leading}")
        if any(a.dtype != theta.dtype or not a.flags.c_contiguous for a in (theta, *slots, total)):
            raise UnrecordableError("several dtypes, or gaps")
        self._tape = tape = Tape(theta.dtype.char)
        self._networks, parameters = math.prod(leading), theta.shape[-1]
        theta_value = Flat(tape, "theta", (parameters,))
        slot_values = tuple(Flat(tape, f"slots_{i}", (parameters,)) for i, _ in enumerate(slots))
        start = theta_value, slot_values, Scalar(tape, "total", late=True)
        self._real = theta.dtype.type
        batch, data_values = _stand_ins(tape, theta, batches, data)
        self._l2 = data_values[3]
        ended = step(Recorder(tape, theta_value), start, batch, data_values)
        if ended[0] is not theta_value or ended[1] != slot_values:
            raise UnrecordableError("parameters that move")
        tape.note("after", f"total = {ended[2].code};")
        m, width = batches[0].shape[-1], 1 << (tape.largest // 16).bit_length()
        self.layout = layout(
            parameters, len(slots), tape.rows, m, theta.dtype.itemsize, chip.shared,
            threads=min(THREADS, max(64, width)), lanes=lanes_of(data[1].shape[0]),
        )  # fmt: skip
        self.source = (
            f"{LIBRARY}\n{self._kernel([slot.name for slot in slot_values], parameters, m)}"
        )
        held = max(1, min(8, chip.shared // self.layout.bytes)) * chip.processors
        per_step = 2.0 + 2.0 * tape.multiplications / PER_BLOCK[theta.dtype.char]
        self.microseconds: float = per_step * math.ceil(self._networks / held)
        self.operations: int = 2 * tape.multiplications * self._networks
        self.launched = False

    def run(
        self, launch: Launch, carry: Any, batches: Any, data: Any, stop: Callable[[], bool]
    ) -> Any:
        """Go through an epoch's minibatches; return the carry, changed in place."""
        theta, slots, total = carry
        leaves = list(_leaves((batches, data)))
        given = [
            part
            for each in self._tape.given
            for part in (leaves[each.leaf], *_steps(leaves[each.leaf]))
        ]
        if isinstance(self._l2, HostNumber):
            self._l2.become(data[3])
        given += [self._real(number.value) for number, _ in self._tape.numbers]
        threads, lanes = self.layout.threads, self.layout.lanes
        grid, block = (self._networks, 1), (threads // lanes, lanes)
        steps, at_once = batches[0].shape[0], max(1, int(self.at_once / self.microseconds))
        for first in range(0, steps, at_once):
            if stop():
                break
            count = min(at_once, steps - first)
            launch(grid, block, (theta, *slots, total, np.int32(first), np.int32(count), *given))
            self.launched = True
        return carry

    def _kernel(self, slots: list[str], parameters: int, m: int) -> str:
        """Return the text of the kernel."""
        tape, place, flat = self._tape, self.layout, ["theta", *slots]
        on_chip = ["theta", "gradient", *(slots if place.slots else [])]
        given = [f"Real *{name}_given" for name in (*flat, "total")] + ["int first", "int steps"]
        for each in tape.given:
            given.append(f"const {each.kind} *{each.name}")
            given += [f"Long {each.name}_{axis}" for axis, _ in enumerate(each.axes)]
        given += [f"Real {name}" for _, name in tape.numbers]
        places = [
            f"Real *const {name} = shared + THREADS + {i * parameters};"
            for i, name in enumerate(on_chip)
        ]
        places += [
            f"Real *const {name} = {name}_given + network * {parameters};"
            for name in flat
            if name not in on_chip
        ]
        columns = len(on_chip) * parameters
        places += [
            f"Real *const {name} = shared + THREADS + {columns + rows * place.apart};"
            for name, rows in tape.buffers
        ]
        moved = [name for name in flat if name in on_chip]
        into = [
            f"copy({name}_given + network * {parameters}, {name}, {parameters});" for name in moved
        ]
        out = [
            f"copy({name}, {name}_given + network * {parameters}, {parameters});" for name in moved
        ]
        here = str(place.part)
        if m % place.part:
            here = f"start + {place.part} < {m} ? {place.part} : {m} - start"
        before, by_columns, after = (
            [line if isinstance(line, str) else line(place) for line in section]
            for section in tape.sections.values()
        )
        lines = [
            f"typedef {TYPES[tape.char]} Real;",
            f'extern "C" __global__ void __launch_bounds__({place.threads}) {NAME}(',
            f"    {', '.join(given)})",
            "{",
            f"constexpr int APART = {place.apart};",
            "const Long network = blockIdx.x;",
            "Real *const shared = (Real *)on_chip;",
            *places,
            *into,
            "Real total = total_given[network];",
            "__syncthreads();",
            "for (int step = first; step < first + steps; ++step) {",
            *before,
            f"for (int start = 0; start < {m}; start += {place.part}) {{",
            f"const int columns = {here};",
            *by_columns,
            "}",
            *after,
            "}",
            *out,
            "if (thread() == 0) total_given[network] = total;",
            "}",
        ]
        return "\n".join(lines)


def _stand_ins(tape: Tape, theta: Array, batches: Any, data: Any) -> tuple[Any, Any]:
    """Return what stands for a minibatch and for the data."""
    numbers = itertools.count()
    leading = ("network",) * (theta.ndim - 1)

    def hand(array: Array, *axes: str) -> Given:
        if not isinstance(array, type(theta)) or array.ndim != len(axes):
            raise UnrecordableError("an array of another kind")
        return tape.hand(next(numbers), array, axes)

    def number(array: Array, *axes: str) -> Scalar:
        given = hand(array, *axes)
        if given.kind != "Real":
            raise UnrecordableError("a number of another kind")
        return tape.scalar(given.at(), late=False)

    examples, *rest = batches
    own = leading if examples.ndim == 3 else ()
    tape.examples = hand(examples, "step", *own, "column")
    batch: list[Any] = [tape.examples]
    for array in rest:
        if array.dtype.kind == "i":
            batch.append(hand(array, "step", *leading))
        else:
            batch.append(number(array, "step", *leading, *("one" for _ in leading)))
    x, y, weights, l2, *more = data
    columns = [hand(array, "unit", "example") for array in (x, y)]
    if weights is None:
        next(numbers)
    else:
        weights = hand(weights, *leading[: weights.ndim - 1], "example")
    if l2 is None or isinstance(l2, float | int):
        next(numbers)
        l2 = None if l2 is None else HostNumber(l2, tape.hand_number)
    else:
        l2 = number(l2, *leading[: l2.ndim])
    own_settings: dict[str, Any] = {}
    for settings in more:
        for name, values in settings.items():
            if name == "optimizer":
                own_settings[name] = {
                    key: number(array, "network", "one") for key, array in values.items()
                }
            elif name == "dropout":
                own_settings[name] = tuple(hand(array, "network") for array in values)
            else:
                own_settings[name] = number(values, "network", "one")
    return tuple(batch), (*columns, weights, l2, *([own_settings] if more else []))


def _leaves(tree: Any) -> Iterator[Any]:
    """Yield what is in tuples and dicts, in the order in which `_stand_ins` counts."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple):
        for part in tree:
            yield from _leaves(part)
    else:
        yield tree


def _steps(array: Array) -> tuple[Any, ...]:
    """Return how many numbers neighbours along each axis lie apart."""
    return tuple(np.int64(step // array.itemsize) for step in array.strides)
