"""A training step of the NumPy backend as a program: recorded once, then replayed without Python.

Between two of NumPy's calls Python takes as long as a small network's arithmetic, and holds the lock that another
thread waits for. So the step of `gpunet.training`, the only one there is, is called once with a `Recorder` in place of
primitives and arrays of shapes in place of numbers. What it calls is noted down as operations on memory; `Program` goes
through them network by network, minibatch by minibatch, and one network's intermediate results stay in the cache.

An operation is a compiled formula (`gpunet.backends.numba_kernels`), a matrix product by SciPy's BLAS, or one of
NumPy's own loops. What can't be recorded (maxout, a user's own activation) is left to `NumPyPrimitives`.

Requires: numba, scipy.
"""

from __future__ import annotations

import ctypes
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .numba_recorder import Recorder
from .numba_replay import replay
from .numba_tape import HostArray, Tape
from .recording import UnrecordableError


class Programs:
    """The programs of one step: one for each shape that it meets.

    Parameters
    ----------
    step : callable
        `gpunet.training.TrainingStep`.
    """

    def __init__(self, step: Any) -> None:
        self._step = step
        self._known: dict[Any, Program | None] = {}

    def find(self, carry: Any, batches: Any, data: Any) -> Program | None:
        """Return the program for an epoch's arguments, None where the step can't be recorded for them."""
        key = (carry[0].shape, *[(array.shape[1:], array.strides) for array in batches])
        program = self._known.get(key)
        if key not in self._known or (program is not None and not program.knows(data)):
            try:
                program = Program(self._step, carry, batches, data)
            except UnrecordableError:
                program = None
            self._known[key] = program
        return program


class Program:
    """A recorded step.

    Parameters
    ----------
    step : callable
    carry, batches, data : tuple
        What an epoch of it is called with; those of later epochs have the same shapes, and the very same data.

    Raises
    ------
    UnrecordableError
        If the step does what a program can't hold.
    """

    at_once = 1e9
    """How many operations go by between two looks at whether to stop: some 20 ms."""

    def __init__(self, step: Any, carry: Any, batches: Any, data: Any) -> None:
        if sys.byteorder != "little":  # whole numbers are passed as the first half of long ones
            raise UnrecordableError("an order of bytes")
        tape = Tape(carry, batches)
        theta, slots, total = step(Recorder(tape), tape.carry, tape.batch, data)
        if theta is not tape.carry[0]:
            raise UnrecordableError("parameters that move")
        for mine, theirs in zip((*slots, total), (*tape.carry[1], tape.carry[2]), strict=True):
            if mine is not theirs:
                tape.elementwise(np.positive, (mine,), theirs)
        self._operations = np.asarray(tape.rows, np.int64)
        self._networks, self._data = tape.networks, data
        self._memory = np.empty(tape.size + 64, np.uint8)
        # kept, as their addresses are; but not by the tape, which is garbage that nobody may collect for long
        self._constants, tape.constants = tape.constants, []
        self._arena = -(-_address(self._memory) // 64) * 64
        self._fixed = [_address(constant) for constant in self._constants]
        self._steps = max(1, int(self.at_once / (2 * tape.multiplications * self._networks)))
        self._carried: tuple[list[HostArray], list[int]] = [], []

    def knows(self, data: Any) -> bool:
        """Return whether it was recorded with this data."""
        return all(map(operator.is_, self._data, data))

    def run(self, carry: Any, batches: Any, stop: Callable[[], bool]) -> Any:
        """Go through an epoch's minibatches; return the carry, changed in place."""
        theta, slots, total = carry
        if type(total) is not np.ndarray:  # what NumPy makes of sums without axes
            total = np.asarray(total)
        carried, addresses = self._carried
        if not carried or not all(map(operator.is_, carried, (theta, *slots))):
            carried, addresses = [theta, *slots], [_address(array) for array in (theta, *slots)]
            self._carried = carried, addresses  # the same ones in the next epoch
        given = [_address(array) for array in (total, *batches)]
        bases = np.asarray([self._arena, *addresses, *given, *self._fixed], np.int64)
        steps = batches[0].shape[0]
        for first in range(0, steps, self._steps):
            if stop():
                break
            last = min(first + self._steps, steps)
            replay(self._operations, bases, self._networks, first, last)
        return theta, slots, total


def _address(array: HostArray) -> int:
    """Return where an array's numbers begin: the first field after the head of NumPy's `PyArrayObject`.

    `__array_interface__` has it too, and takes longer than a small network's matrix product.
    """
    return ctypes.c_int64.from_address(id(array) + object.__basicsize__).value
