"""CUDA graphs: a training step recorded once, then started as a whole.

To start a kernel from Python takes longer than a small one runs. A graph of them is started at once. All that changes
from step to step it reads on the device: the epoch's examples, keys and rates, of which a counter there says whose turn
it is. Numbers that the data brings along, λ, lie there as well. So one graph serves every step and every epoch of the
same shapes. Between two graphs the device waits for some microseconds, as long as a small network's step takes, so that
a long run of them gets a graph of several steps besides.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

from gpunet.backend import Epoch, Step
from gpunet.primitives import Primitives
from gpunet.typing import Array

from ..recording import HostNumber
from .layers import LayerPrimitives

VARIABLE = "GPUNET_GRAPHS"

MOST = 16
"""How many steps make a graph of several at most."""
ENOUGH = 1e10
"""So many operations take the device long enough for a graph, some tenths of a millisecond."""
PATIENCE = 500
"""After so many steps a graph of several is captured: it takes about as long as it has saved by then."""

SHORT = "cudaErrorMemoryAllocation"
"""How CUDA says that there is no memory."""

PURPOSE = (
    "CUDA graphs can't be used here, so that every kernel is started by itself: the result is the same, small networks "
    f"take several times as long. {VARIABLE}=0 chooses that without a warning. The reason"
)


class Graphs:
    """Turns training steps into epochs that replay.

    Parameters
    ----------
    cupy : module
    problem : Exception, optional
        Why there can be no graphs.

    Attributes
    ----------
    recordings : WeakSet of Recording
        Those that somebody trains with, to look at.
    """

    def __init__(self, cupy: Any, problem: Exception | None = None) -> None:
        self.cupy, self._problem = cupy, problem
        self.recordings: WeakSet[Recording] = WeakSet()
        self._told = False

    def compile(self, step: Step, primitives: Primitives, plain: Epoch) -> Epoch:
        """Return an epoch of steps, or the plain one; a full batch and the partial last one have a recording each."""
        if os.environ.get(VARIABLE) == "0":
            return plain
        if self._problem is not None:
            self.tell(self._problem)
            return plain
        known: dict[Any, Recording] = {}
        short = False  # of memory

        def epoch(
            carry: Any, batches: tuple[Array, ...], data: Any, stop: Callable[[], bool]
        ) -> Any:
            nonlocal short
            steps = batches[0].shape[0]
            key = (
                *((array.shape, array.dtype) for array in _leaves(carry)),
                *((part.shape[1:], part.dtype) for part in batches),
            )
            try:
                if not short:
                    recording = known.get(key)
                    if recording is None or not recording.is_of(data, steps):
                        if len(known) > 1:  # of a stack that has since lost members
                            known.clear()
                        arguments = (carry, batches, data)
                        recording = known[key] = Recording(self, step, primitives, arguments)
                    return recording.run(carry, batches, data, stop)
            except MemoryError as error:
                known.clear()
                short = True
                self.tell(error)
            return plain(
                carry, batches, data, stop
            )  # from the start: `carry` is untouched till the end

        return epoch

    def tell(self, reason: Exception) -> None:
        """Warn, once."""
        if not self._told:
            self._told = True
            warnings.warn(f"{PURPOSE}: {type(reason).__name__}: {reason}", stacklevel=2)


class Recording:
    """A step over memory that stays where it is.

    The first call does what the step does, on a stream and in memory of the graph's own, so that the second, which is
    captured, has nothing left to compile or to allocate. What can't be captured is launched kernel by kernel for ever.
    """

    def __init__(
        self, graphs: Graphs, step: Step, primitives: Primitives, arguments: tuple[Any, Any, Any]
    ) -> None:
        cupy, self._xp, self._primitives = graphs.cupy, primitives.xp, primitives
        self._graphs, self._step = graphs, partial(step, primitives)
        carry, batches, data = arguments
        self._pool = cupy.cuda.MemoryPool(_allocator(cupy))  # what is freed in it stays the graph's
        self._pool.set_limit(size=0)  # or it would free, to keep to a limit, what a graph points at
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._carry, self._batches = self._like(carry), self._like(batches)
        self._row = tuple(self._xp.empty(part.shape[1:], dtype=part.dtype) for part in batches)
        self._at = self._xp.zeros((), dtype=self._xp.int64)
        self._given = data
        self._numbers: list[HostNumber] = []  # of the data
        self._data = self._seen(data)
        graphs.recordings.add(self)
        self.graph: Any = None
        self._ready, self._capturable = False, True
        self._several: Any = None
        self._together, self._taken = _together(carry, batches), 0

    def _like(self, tree: Any) -> Any:
        """Return memory for arrays."""
        if isinstance(tree, tuple):
            return tuple(self._like(part) for part in tree)
        return self._xp.empty(tree.shape, dtype=tree.dtype)

    def _seen(self, data: Any) -> Any:
        """Return data as the step sees it: with numbers of the host that may change."""
        if isinstance(data, dict):
            return {name: self._seen(part) for name, part in data.items()}
        if isinstance(data, tuple):
            return tuple(self._seen(part) for part in data)
        if not isinstance(data, float | int):
            return data
        xp, theta = self._xp, self._carry[0]

        def place(number: HostNumber) -> Array:
            each = xp.empty(theta.shape[:-1], dtype=theta.dtype)  # as numbers of each network's own
            each.fill(number.value)
            return each

        self._numbers.append(HostNumber(data, place))
        return self._numbers[-1]

    def is_of(self, data: Any, steps: int) -> bool:
        """Return whether these are the very arrays that were recorded, and no more steps; numbers may be others."""
        mine, theirs = _leaves(self._given), _leaves(data)
        fits = steps <= self._batches[0].shape[0] and len(mine) == len(theirs)
        return fits and all(
            a is b or (isinstance(a, float | int) and isinstance(b, float | int))
            for a, b in zip(mine, theirs, strict=True)
        )

    def run(
        self, carry: Any, batches: tuple[Array, ...], data: Any, stop: Callable[[], bool]
    ) -> Any:
        """Take an epoch's steps from ``carry``, in whose place the result goes."""
        left = batches[0].shape[0]
        _copy((carry, batches), (self._carry, tuple(part[:left] for part in self._batches)))
        self._renew([leaf for leaf in _leaves(data) if isinstance(leaf, float | int)])
        self._at.fill(0)
        while left and not stop():
            left -= self._take(left)
        _copy(self._carry, carry)
        return carry

    def _renew(self, values: list[float]) -> None:
        """Put the data's numbers where the step reads them, if they are others than before."""
        if values == [number.value for number in self._numbers]:
            return
        for number, value in zip(self._numbers, values, strict=True):
            number.become(value)
            for placed in number.placed():
                placed.here.fill(placed.value)

    def _body(self) -> None:
        """Take the step that the counter says; its result goes where the next one looks for it."""
        of = self._primitives
        if isinstance(of, LayerPrimitives) and of.turn(self._batches, self._row, self._at):
            _copy(self._step(self._carry, self._row, self._data), self._carry)
            return
        batch = tuple(self._xp.take(part, self._at, axis=0) for part in self._batches)
        _copy(self._step(self._carry, batch, self._data), self._carry)
        self._at += 1

    def _take(self, left: int) -> int:
        """Take the next step of those that are left, or several; return how many."""
        self._taken += 1
        if not self._ready:
            self._first()
            return 1
        if self.graph is None and self._capturable:
            try:
                self.graph = self._captured(1)
            except Exception as error:  # if the step is to blame, it will say so again
                self._capturable = False
                self._graphs.tell(error)
        if self.graph is None:
            self._body()
            return 1
        if left < self._together or self._together == 1 or self._taken < PATIENCE:
            self.graph.launch()
            return 1
        if self._several is None:
            try:
                self._several = self._captured(self._together)
            except Exception:  # short of memory, say: one by one they go on
                self._together = 1
                self.graph.launch()
                return 1
        self._several.launch()
        return self._together

    def _first(self) -> None:
        """Take a step as the graph will, but at once."""
        here = self._graphs.cupy.cuda.get_current_stream()
        self._stream.wait_event(here.record())
        with self._own():
            self._body()
        here.wait_event(self._stream.record())
        self._ready = True

    def _captured(self, steps: int) -> Any:
        """Return some steps as a graph; nothing is computed."""
        with self._own():
            self._stream.begin_capture()
            try:
                for _ in range(steps):
                    self._body()
            except BaseException:
                with contextlib.suppress(Exception):  # which is what it says of what went wrong
                    self._stream.end_capture()
                raise
            return self._stream.end_capture()

    @contextlib.contextmanager
    def _own(self) -> Any:
        """Compute on this stream and in this memory."""
        with self._stream, self._graphs.cupy.cuda.using_allocator(self._pool.malloc):
            yield


def _allocator(cupy: Any) -> Callable[[int], Any]:
    """Return what asks CUDA for memory, with another error where there is none.

    CUDA's own a pool answers by giving back all that isn't used at the moment, which graphs still point at.
    """

    def allocate(size: int) -> Any:
        try:
            return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            if SHORT not in str(
                error
            ):  # a kernel that failed is told of by whatever is called next
                raise
            raise MemoryError(str(error)) from error

    return allocate


def _together(carry: Any, batches: tuple[Array, ...]) -> int:
    """Return how many of an epoch's steps should make a graph: so many that few are left over."""
    steps, m = batches[0].shape[0], batches[0].shape[-1]
    most = max(1, min(MOST, int(ENOUGH / (6 * carry[0].size * m))))
    groups = -(-steps // most)
    return int(steps // groups)


def _leaves(tree: Any) -> list[Any]:
    """Return what is in tuples and dicts."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, tuple) else [tree]


def _copy(source: Any, target: Any) -> None:
    """Copy arrays into others, on the device, but for those that are in their place already."""
    for a, b in zip(_leaves(source), _leaves(target), strict=True):
        if a is not b:
            b[...] = a
