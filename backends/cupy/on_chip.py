"""Small networks on the chip: whole epochs in one launch, where that is faster than the steps one by one.

What can't be noted down as a program of one block, what doesn't fit its memory, and what fills the device as it is goes
on as ever, with the same result.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

from gpunet.backend import Epoch, Step

from ..recording import UnrecordableError
from .block_program import NAME, Chip, Launch, Program
from .kernels import OPTIONS
from .layers import SMALL

VARIABLE = "GPUNET_ON_CHIP"
"""0: never; 1: wherever it fits; otherwise: where it is thought to be faster."""

PURPOSE = (
    "Small networks can't be trained on the chip here: the result is the same, they take several times as long. "
    f"{VARIABLE}=0 chooses that without a warning. The reason"
)

Build = Callable[[str, int], Launch]
"""``build(source, bytes)``: compile a kernel called `NAME` that takes as much shared memory."""


class OnChip:
    """Turns training steps into epochs of one launch.

    Parameters
    ----------
    chip : Chip
    build : callable
        See `Build`.

    Attributes
    ----------
    kernels : dict
        Those that were built, by their source.
    """

    def __init__(self, chip: Chip, build: Build) -> None:
        self.chip, self.build = chip, build
        self.kernels: dict[str, Launch] = {}
        self._told = False

    def compile(self, step: Step, otherwise: Callable[[], Epoch]) -> Epoch:
        """Return an epoch of steps; ``otherwise`` makes the one for what isn't for the chip."""
        wish = os.environ.get(VARIABLE)
        if wish == "0" or getattr(step, "scaled", False):  # a block multiplies float32 as it is
            return otherwise()
        known: dict[Any, Program | None] = {}
        other: Epoch | None = None

        def epoch(carry: Any, batches: Any, data: Any, stop: Callable[[], bool]) -> Any:
            nonlocal other
            rows = [(type(part), part.shape[1:], part.strides, part.dtype) for part in batches]
            key = _described((carry, data)), *rows
            if key not in known:
                if len(known) > 1:  # of a stack that has since lost members
                    known.clear()
                known[key] = self._program(step, (carry, batches, data), wherever=wish == "1")
            program = known[key]
            if program is not None:
                try:
                    launch = self._kernel(program)
                    return program.run(launch, carry, batches, data, stop)
                except Exception as error:
                    if program.launched:
                        raise
                    known[key] = None
                    self._tell(error)
            other = other or otherwise()
            return other(carry, batches, data, stop)

        return epoch

    def _program(
        self, step: Step, arguments: tuple[Any, Any, Any], *, wherever: bool
    ) -> Program | None:
        """Return a step's program, None where there is none or it isn't worth it."""
        try:
            program = Program(step, arguments, self.chip)
        except UnrecordableError:
            return None
        return program if wherever or worth_it(program) else None

    def _kernel(self, program: Program) -> Launch:
        """Return what launches a program."""
        if program.source not in self.kernels:
            self.kernels[program.source] = self.build(program.source, program.layout.bytes)
        return self.kernels[program.source]

    def _tell(self, reason: Exception) -> None:
        """Warn, once."""
        if not self._told:
            self._told = True
            words = str(reason).strip().partition("\n")[0]
            warnings.warn(f"{PURPOSE}: {type(reason).__name__}: {words}", stacklevel=3)


def worth_it(program: Program) -> bool:
    """Return whether a program is thought to be clearly faster than the same step as a CUDA graph.

    A graph has some 20 nodes, of small layers 10, of 1.2 microseconds each, and its products of small matrices do some
    8 operations a picosecond: predictions as those of docs/gpu.md, to be measured.
    """
    nodes = 10 if program.operations <= 4 * SMALL else 20
    return program.microseconds < 0.7 * (1.2 * nodes + program.operations / 8e6)


def on_device(cupy: Any, device: Any) -> OnChip:
    """Return what trains on a CUDA device's chip."""
    attributes = device.attributes
    chip = Chip(attributes["MaxSharedMemoryPerBlockOptin"], attributes["MultiProcessorCount"])

    def build(source: str, size: int) -> Launch:
        kernel = cupy.RawKernel(source, NAME, OPTIONS)
        kernel.max_dynamic_shared_size_bytes = size

        def launch(
            grid: tuple[int, int], block: tuple[int, int], arguments: tuple[Any, ...]
        ) -> None:
            kernel(grid, block, arguments, shared_mem=size)

        return launch

    return OnChip(chip, build)


def _described(tree: Any) -> Any:
    """Return what a program depends on: the arrays' shapes, strides and dtypes, and where there are numbers."""
    if isinstance(tree, dict):
        return tuple((name, _described(part)) for name, part in tree.items())
    if isinstance(tree, tuple):
        return tuple(map(_described, tree))
    if tree is None or isinstance(tree, float | int):
        return type(tree)
    return type(tree), *(getattr(tree, name, None) for name in ("shape", "strides", "dtype"))
