"""A recorded step with the memory it needs, replayed by one thread or by several: see `gpunet.backends.numba_program`.

Requires: numba, scipy.
"""

from __future__ import annotations

import _thread
import copy
import ctypes
import functools
import sys
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import blas_threads
from .numba_recorder import Recorder
from .numba_replay import GIVEN_UP, KIND, NOTHING, WAIT, WIDTH, replay
from .numba_shares import shared_out
from .numba_tape import HostArray, Tape, strides
from .recording import UnrecordableError

_ALONE = np.zeros(1, np.int64)
"""The counter of a thread that waits for nobody."""


class Recording:
    """A step's operations, and the memory for their results.

    Parameters
    ----------
    step : callable
    carry, batches, data : tuple
        What an epoch of it is called with.
    threads : int
        How many share it: of one network, whose step has as many parts.

    Attributes
    ----------
    networks, multiplications, largest : int
        How many networks there are; of one the multiplications of its matrix products and of the largest of them.

    Raises
    ------
    UnrecordableError
        If the step does what a program can't hold.
    """

    def __init__(self, step: Any, carry: Any, batches: Any, data: Any, threads: int = 1) -> None:
        if sys.byteorder != "little":  # whole numbers are passed as the first half of long ones
            raise UnrecordableError("an order of bytes")
        tape = Tape(carry, batches)
        theta, slots, total = step(Recorder(tape), tape.carry, tape.batch, data)
        if theta is not tape.carry[0]:
            raise UnrecordableError("parameters that move")
        for mine, theirs in zip((*slots, total), (*tape.carry[1], tape.carry[2]), strict=True):
            if mine is not theirs:
                tape.elementwise(np.positive, (mine,), theirs)
        self._shares = shared_out(tape, threads)
        self.networks = tape.networks
        self.multiplications, self.largest = tape.multiplications, tape.largest
        self._take_memory(tape.size + 64)
        # kept, as their addresses are; but not by the tape, which is garbage that nobody may collect for long
        self._constants, tape.constants = tape.constants, []
        self._fixed = [address_of(constant) for constant in self._constants]

    def again(self) -> Recording:
        """Return the same with memory of its own, for another thread."""
        other = copy.copy(self)
        other._shares = self._shares.copy()
        other._take_memory(self._memory.size)
        return other

    def _take_memory(self, size: int) -> None:
        self._memory = np.empty(size, np.uint8)
        self._arena = -(-address_of(self._memory) // 64) * 64

    @property
    def operations(self) -> HostArray:
        """What one thread goes through."""
        return self._shares[0]  # type: ignore[no-any-return]

    def replay(self, given: list[int], first: int, last: int) -> None:
        """Go through some minibatches, from the addresses of the carry's arrays and the batches'."""
        replay_steps(self._shares[0], self.bases(given), self.networks, first, last)

    def bases(self, given: list[int]) -> HostArray:
        """Return the addresses that operands are counted from."""
        return np.asarray([self._arena, *given, *self._fixed], np.int64)


_RECORDED: weakref.WeakValueDictionary[Any, Recording] = weakref.WeakValueDictionary()
"""What is in use, by what it was recorded for."""
_SMALL = 4096
"""Bytes of an array that is told by what is in it: numbers of a stack's networks."""


def recorded(step: Any, carry: Any, batches: Any, data: Any) -> Recording:
    """Return a recording: a copy where a step has been recorded for the same, as for the folds of a search."""
    try:
        known = (
            step,
            *(array.shape for array in (carry[0], carry[2])),
            *((array.shape[1:], strides(array), array.dtype.char) for array in batches),
            *map(id, data[:2]),
            *map(_told, data[2:]),
        )
        hash(known)
    except TypeError:  # a step that has no hash
        return Recording(step, carry, batches, data)
    found = _RECORDED.get(known)
    if found is not None:
        return found.again()
    recording = _RECORDED[known] = Recording(step, carry, batches, data)
    return recording


def _told(part: Any) -> Any:
    """Return what a part of a step's data is known by: which array it is, or what is in it.

    The program that a recording was made for holds both it and the data, so that as long as there is the one, nothing
    else has the `id` of the other.
    """
    if isinstance(part, dict):
        return tuple((name, _told(value)) for name, value in part.items())
    if isinstance(part, tuple):
        return tuple(map(_told, part))
    if isinstance(part, np.ndarray):
        small = part.nbytes <= _SMALL
        return (part.shape, part.dtype.char, part.tobytes()) if small else id(part)
    return part


class DividedRecording(Recording):
    """The same with its minibatches in parts, for several threads or, with the very same results, for one.

    Which of the two is faster depends on what else the processors have to do: threads that wait for one that has no
    processor lose more than they gain. So both are tried now and then, and the faster one is taken.
    """

    trial = 16
    """After so many replays both ways are tried again, for a few steps; twice as many where threads have lost."""

    def __init__(self, step: Any, carry: Any, batches: Any, data: Any, threads: int) -> None:
        super().__init__(step, carry, batches, data, threads)
        self.threads = threads
        in_turn = self._shares.swapaxes(0, 1).reshape(-1, WIDTH)
        self._in_turn = in_turn[in_turn[:, KIND] != NOTHING]
        self._in_turn[:, WAIT] = 0
        # no step: what loads the compiled loop should not count as a thread's
        replay_steps(self._in_turn, self.bases([0]), 1, 0, 0)
        self._to_begin, self._took = 0.0, {True: 0.0, False: 0.0}
        # the first time doesn't count: BLAS takes memory for another thread
        self._to_try, self._replays, self._rest = [True, True, False], 0, self.trial

    def replay(self, given: list[int], first: int, last: int) -> None:
        """Go through some minibatches, the faster way."""
        bases = self.bases(given)
        self._replays += 1
        if self._replays > self._rest:
            self._to_try, self._replays = [True, False], 0
        while self._to_try and first < last:
            few = max(1, (last - first) // 8)
            self._replay(bases, first, first + few, together=self._to_try.pop(0))
            first += few
            if not self._to_try:
                lost = self._took[True] > self._took[False]
                self._rest = min(2 * self._rest, 32 * self.trial) if lost else self.trial
        if first < last:
            gained = (self._took[False] - self._took[True]) * (last - first)
            self._replay(bases, first, last, together=gained >= self._to_begin)

    def _replay(self, bases: HostArray, first: int, last: int, *, together: bool) -> None:
        began = time.perf_counter()
        begun = replay_together(self._shares, bases, first, last) if together else None
        if begun is None:  # not asked for, or not possible
            replay_steps(self._in_turn, bases, 1, first, last)
        else:
            self._to_begin, began = begun - began, begun
        self._took[begun is not None] = (time.perf_counter() - began) / (last - first)


def replay_steps(  # noqa: PLR0917  # see `replay`
    operations: HostArray,
    bases: HostArray,
    networks: int,
    first: int,
    last: int,
    counter: HostArray = _ALONE,
    threads: int = 1,
    give_way: int = 0,
) -> bool:
    """Go through some minibatches; return whether all threads could begin."""
    none = (operations, bases, 0, 0, 0)
    return bool(
        replay(operations, bases, networks, first, last, counter, threads, give_way, 1, *none)
    )


def replay_epochs(
    operations: Sequence[HostArray],
    bases: Sequence[HostArray],
    steps: Sequence[int],
    *,
    epochs: int,
    networks: int,
    total: int,
    apart: int,
) -> None:
    """Go through some epochs: of each the full batches, then the partial last one; operations, bases and steps of both.

    ``total`` is the number of the base that an epoch's cost is added up at, ``apart`` how many bytes lie between two.
    """
    replay(
        operations[0], bases[0], networks, 0, steps[0], _ALONE, 1, 0, epochs, operations[1],
        bases[1], steps[1], total, apart,
    )  # fmt: skip


def replay_together(shares: HostArray, bases: HostArray, first: int, last: int) -> float | None:
    """Go through some minibatches, each thread its share.

    Return when all had begun, by `time.perf_counter`; None if one couldn't, and nothing was done.
    """
    counter = np.zeros(1, np.int64)
    sharing = counter, len(shares), _give_way()

    def help_out(share: HostArray, begun: _thread.LockType) -> None:
        try:
            try:
                blas_threads.one_in_this_thread()
            finally:  # whatever happens, nobody waits for it
                begun.release()
            replay_steps(share, bases, 1, first, last, *sharing)
        except BaseException:
            counter[0] = GIVEN_UP
            raise

    done = False
    try:
        for share in shares[1:]:
            begun = _thread.allocate_lock()
            begun.acquire()
            try:
                _thread.start_new_thread(help_out, (share, begun))
            except RuntimeError:  # no more threads
                return None
            begun.acquire()  # asleep until then, it leaves its processor to the new thread
        all_begun = time.perf_counter()
        done = replay_steps(shares[0], bases, 1, first, last, *sharing)
    finally:
        if not done:  # or those that have begun would wait forever
            counter[0] = GIVEN_UP
    return all_begun if done else None


@functools.cache
def _give_way() -> int:
    """Return the address of the function that offers a processor to other threads."""
    windows = sys.platform == "win32"
    library, name = ("kernel32", "SwitchToThread") if windows else (None, "sched_yield")
    return ctypes.cast(ctypes.CDLL(library)[name], ctypes.c_void_p).value or 0


def address_of(array: HostArray) -> int:
    """Return where an array's numbers begin: the first field after the head of NumPy's `PyArrayObject`.

    `__array_interface__` has it too, and takes longer than a small network's matrix product.
    """
    return ctypes.c_int64.from_address(id(array) + object.__basicsize__).value
