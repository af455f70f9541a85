"""A training step of the NumPy backend as a program: recorded once, then replayed without Python.

Between two of NumPy's calls Python takes as long as a small network's arithmetic, and holds the lock that another
thread waits for. So the step of `gpunet.step`, the only one there is, is called once with a `Recorder` in place of
primitives and arrays of shapes in place of numbers. What it calls is noted down as operations on memory; `Program` goes
through them network by network, minibatch by minibatch, and one network's intermediate results stay in the cache.

An operation is a compiled formula (`gpunet.backends.numba_kernels`), a matrix product by SciPy's BLAS, or one of
NumPy's own loops. What can't be recorded (maxout, a user's own activation) is left to `NumPyPrimitives`.

Requires: numba, scipy.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import blas_threads
from .numba_recording import DividedRecording, Recording, address_of, recorded, replay_epochs
from .numba_tape import HostArray, strides
from .recording import UnrecordableError

_WORTH = 1_000_000
"""How many multiplications of a step are worth a thread."""
_A_PARAMETER = 150
"""How many of a part, for each parameter: the parts' gradients are added up."""
_MOST = 8
"""Parts of a minibatch get too small for more threads."""
_LARGE = 2e8
"""Products of more multiplications BLAS divides as well."""
_SPAN = 6e7
"""How many multiplications are worth to start a thread for, which takes 0.1 to 0.2 ms."""
_AT_ONCE = 5e8
"""How many go by between two looks at whether to stop: some 20 ms."""


@dataclass
class Family:
    """What the programs of one step know of each other: whether threads share one of them."""

    divided: bool = False


class Programs:
    """The programs of one step: one for each shape that it meets.

    Parameters
    ----------
    step : callable
        `gpunet.step.TrainingStep`.
    """

    def __init__(self, step: Any) -> None:
        self._step = step
        self._known: dict[Any, Program | None] = {}
        self._family = Family()

    def find(self, carry: Any, batches: Any, data: Any) -> Program | None:
        """Return the program for an epoch's arguments, None where the step can't be recorded for them."""
        key = (carry[0].shape, *[(array.shape[1:], strides(array)) for array in batches])
        program = self._known.get(key)
        if key not in self._known or (program is not None and not program.knows(data)):
            try:
                program = Program(self._step, carry, batches, data, self._family)
            except UnrecordableError:
                program = None
            self._known[key] = program
        return program

    def replayed(self, carry: Any, parts: Any, data: Any) -> tuple[Any, list[HostArray]] | None:
        """Go through some epochs; return the carry and each one's total, None where it takes a look at each of them.

        Parameters
        ----------
        carry : tuple
        parts : sequence of tuple of array
            See `gpunet.backend.Backend.epochs`; in C order.
        data : tuple
        """
        flat = [tuple(map(_steps_together, part)) for part in parts]
        found = [self.find(carry, batches, data) for batches in flat]
        programs = [program for program in found if program is not None]
        n_steps = [part[0].shape[1] for part in parts]
        if len(programs) < len(found) or any(map(Program.divides, programs, n_steps)):
            return None
        theta, slots, nothing = carry
        epochs = parts[0][0].shape[0]
        totals = np.zeros((epochs, *np.shape(nothing)), theta.dtype)
        given = [theta, *slots, totals]
        bases = [
            program.recording.bases([address_of(array) for array in (*given, *batches)])
            for program, batches in zip(programs, flat, strict=True)
        ]
        operations = [program.recording.operations for program in programs]
        if len(programs) == 1:  # no partial batch
            operations, bases, n_steps = operations * 2, [*bases, bases[0].copy()], [*n_steps, 0]
        replay_epochs(
            operations, bases, n_steps, epochs=epochs, networks=programs[0].recording.networks,
            total=len(given), apart=totals[0].nbytes,
        )  # fmt: skip
        return (theta, slots, totals[-1]), list(totals)


def _steps_together(array: HostArray) -> HostArray:
    """Return the batches of some epochs (epochs, steps, ...) one after the other."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


class Program:
    """A recorded step.

    Parameters
    ----------
    step : callable
    carry, batches, data : tuple
        What an epoch of it is called with; those of later epochs have the same shapes, and the very same data.
    family : Family, optional
        What the same step's programs know of each other.

    Raises
    ------
    UnrecordableError
        If the step does what a program can't hold.
    """

    def __init__(
        self, step: Any, carry: Any, batches: Any, data: Any, family: Family | None = None
    ) -> None:
        self._step, self._data, self._family = step, data, family or Family()
        self._alone = recorded(step, carry, batches, data)
        self._divided: DividedRecording | None = None
        self._work = self._alone.multiplications
        self._steps = max(1, int(_AT_ONCE / (self._work * self._alone.networks)))
        self._most = 1
        divisible = hasattr(step, "parts") and not getattr(step, "dropout", False)
        if divisible and carry[0].ndim == 1 and self._alone.largest <= _LARGE:
            self._most = min(
                _MOST, self._work // _WORTH, self._work // (_A_PARAMETER * carry[0].size)
            )
        self._carried: tuple[list[HostArray], list[int]] = [], []

    @property
    def recording(self) -> Recording:
        """The step as one thread takes it."""
        return self._alone

    def divides(self, steps: int) -> bool:
        """Return whether several threads may share so many steps, or do already share others of this run."""
        worth = steps > 1 and steps * self._work >= _SPAN
        return self._family.divided or (self._most > 1 and worth and blas_threads.count() > 1)

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
            carried, addresses = [theta, *slots], [address_of(array) for array in (theta, *slots)]
            self._carried = carried, addresses  # the same ones in the next epoch
        given = [*addresses, *(address_of(array) for array in (total, *batches))]
        steps = batches[0].shape[0]
        recording, threads = self._choose((theta, slots, total), batches)
        with threads:
            for first in range(0, steps, self._steps):
                if stop():
                    break
                recording.replay(given, first, min(first + self._steps, steps))
        return theta, slots, total

    def _choose(
        self, carry: Any, batches: Any
    ) -> tuple[Recording, contextlib.AbstractContextManager[Any]]:
        """Return the step as it is or in parts for several threads, and how many BLAS may take."""
        as_given, steps = contextlib.nullcontext(), batches[0].shape[0]
        if self._family.divided and steps * self._work < _SPAN:
            # the last few examples of an epoch; threads that BLAS had woken would be in the way of the others
            return self._alone, blas_threads.one()
        if self._most < 2 or steps == 1 or steps * self._work < _SPAN:  # a step by itself: L-BFGS's
            return self._alone, as_given
        threads = min(self._most, blas_threads.count())
        if threads < 2:
            return self._alone, as_given
        if self._divided is None or self._divided.threads != threads:
            step = replace(self._step, parts=threads)
            try:
                self._divided = DividedRecording(step, carry, batches, self._data, threads)
            except UnrecordableError:
                self._most = 1
                return self._alone, as_given
        self._family.divided = True
        return self._divided, blas_threads.one()
