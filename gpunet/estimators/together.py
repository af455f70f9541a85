"""Many estimators fitted at once: those of a shape are trained as stacks of networks, the others one by one."""

from __future__ import annotations

import collections
import copy
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params

from gpunet.activations import Custom
from gpunet.backend import Stacking
from gpunet.estimators import parameters
from gpunet.estimators.prepared import Preparation, Prepared
from gpunet.estimators.stacked import StackedFit
from gpunet.memory import OutOfMemoryError
from gpunet.notices import warn
from gpunet.runs import Interruption
from gpunet.typing import HostArray


class Later:
    """Training data that is made when it is first needed, and held until it is forgotten.

    Parameters
    ----------
    make : callable
        Returns X and y. Where it raises, it is to raise at once when it is asked again.
    """

    def __init__(self, make: Callable[[], tuple[Any, Any]]) -> None:
        self._make = make
        self._made: tuple[Any, Any] | None = None

    def __call__(self) -> tuple[Any, Any]:
        """Return X and y, the same objects each time."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def forget(self) -> None:
        """Let X and y go."""
        self._made = None


@dataclass(eq=False)
class Job:
    """One estimator to fit: ``estimator.fit(X[rows], y[rows], sample_weight[rows])`` is what happens to it.

    Jobs on the same data hold the very same objects: X, y and rows are compared by identity, and what is made of them
    is made once.

    Attributes
    ----------
    estimator : MLPClassifier or MLPRegressor
        Unfitted, with its parameters set; fitted in place.
    X, y, sample_weight : array-like
        As `fit` takes them. A `Later` in X's place stands for both X and y.
    rows : NumPy array of int, optional
        The examples to fit on, as indices; None takes all.
    tag : object
        Whatever the caller wants to find it by.
    error : Exception, optional
        Why it couldn't be fitted; set by `fit_all`.
    seconds : float
        The time that its fit took: its share of the time of its stack.
    done : bool
        Whether `fit_all` came to it: not after Ctrl-C.
    """

    estimator: Any
    X: Any
    y: Any = None
    sample_weight: Any = None
    rows: HostArray | None = None
    tag: Any = None
    error: Exception | None = field(default=None, init=False)
    seconds: float = field(default=0.0, init=False)
    done: bool = field(default=False, init=False)

    def data(self) -> tuple[Any, Any]:
        """Return X and y."""
        return self.X() if isinstance(self.X, Later) else (self.X, self.y)


def fit_all(
    jobs: Sequence[Job],
    *,
    n_jobs: int | None = None,
    stack_size: int | None = None,
    after_stack: Callable[[Sequence[Job]], None] | None = None,
    after_epoch: Callable[[Sequence[Job]], None] | None = None,
) -> None:
    """Fit all jobs' estimators, each to the same model as alone.

    Parameters
    ----------
    jobs : sequence of Job
        Errors are kept in them, one by one, and end nothing else.
    n_jobs : int, optional
        How many threads train stacks side by side, counted as in scikit-learn; None takes one for each core on a CPU.
        What is for no stack is fitted one after the other.
    stack_size : int, optional
        How many networks are trained as one; None finds it.
    after_stack : callable, optional
        Called with the jobs that have just been finished, from the thread that called `fit_all`.
    after_epoch : callable, optional
        Called with the jobs whose networks have just gone through an epoch, those that end with it included; from any
        thread.

    Notes
    -----
    Ctrl-C ends it early: jobs that it didn't come to, or was in the middle of, are not ``done``.
    """
    singles: list[Job] = []
    met: dict[int, int] = {}
    # those of the same X side by side, so that little of what is made later is held at once
    jobs = sorted(jobs, key=lambda job: met.setdefault(id(job.X), len(met)))
    with Interruption() as interruption:
        for of_place in _by_place(jobs):
            if interruption.requested:
                return
            _fit_stacks(
                of_place, singles, interruption, n_jobs, stack_size, after_stack, after_epoch
            )
        for job in singles:
            if interruption.requested:
                return
            _fit_alone(job)
            if interruption.requested:
                job.done = False
            elif after_stack is not None:
                after_stack([job])


def _by_place(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs by where they ask to be computed: how stacks share a place is found for each of them."""
    places: dict[str, list[Job]] = {}
    for job in jobs:
        asked = (getattr(job.estimator, name, None) for name in ("backend", "device"))
        places.setdefault(str(list(asked)), []).append(job)
    return list(places.values())


def _fit_stacks(  # noqa: PLR0917  # what `fit_all` was given
    jobs: Sequence[Job],
    singles: list[Job],
    interruption: Interruption,
    n_jobs: int | None,
    stack_size: int | None,
    after_stack: Callable[[Sequence[Job]], None] | None,
    after_epoch: Callable[[Sequence[Job]], None] | None,
) -> None:
    """Fit what can be stacked; the others go to ``singles``. What doesn't fit the memory is tried in smaller stacks."""
    while jobs:
        too_large: list[list[Job]] = []
        chunks = _prepared(jobs, singles, stack_size, n_jobs)
        for chunk in _trained(chunks, len(jobs), n_jobs, interruption, after_epoch):
            if chunk.too_large and len(chunk.jobs) > 1:
                too_large.append(chunk.jobs)
                continue
            chunk.finish()
            if after_stack is not None:
                after_stack(chunk.jobs)
        if interruption.requested or not too_large:
            return
        jobs = [job for stack in too_large for job in stack]
        size = max(map(len, too_large))
        stack_size, n_jobs = size // 2, 1
        warn(
            f"A stack of {size} networks didn't fit the memory: trying {stack_size} at once, one stack after "
            "the other. Give stack_size to begin with fewer.",
            RuntimeWarning,  # a ResourceWarning would be shown to nobody
        )


def stackable(estimator: Any) -> str | None:
    """Return why an estimator can't be trained in a stack, or None.

    Examples
    --------
    >>> from gpunet import MLPClassifier
    >>> stackable(MLPClassifier(solver="lbfgs"))
    "solver='lbfgs' takes all examples at once"
    >>> stackable(MLPClassifier())
    """
    from gpunet.estimators import MLPClassifier, MLPRegressor  # they import the rooms below

    if type(estimator) not in (MLPClassifier, MLPRegressor):
        return f"{type(estimator).__name__} isn't one of gpunet's estimators"
    reasons = {
        "solver='lbfgs' takes all examples at once": estimator.solver == "lbfgs",
        "callbacks are called for one network": bool(estimator.callbacks)
        or hasattr(estimator, "_skl_callbacks"),
        "scoring= scores one network": estimator.scoring is not None and estimator.early_stopping,
        "track_scores=True scores one network": estimator.track_scores,
        "verbose=True prints one network's epochs": estimator.verbose,
        "warm_start=True goes on with parameters of its own": estimator.warm_start
        and hasattr(estimator, "coefs_"),
        "functions of your own may not know of stacks": _has_own_functions(estimator),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def _has_own_functions(estimator: Any) -> bool:
    """Return whether an activation or initializer is the user's own, or none at all, which a fit alone says best."""
    try:
        n_hidden = np.size(estimator.hidden_layer_sizes)
        activations = parameters.activations_of(estimator.activation, n_hidden)
        parts = [*activations, parameters.initializer_of(estimator.init)]
    except (TypeError, ValueError):
        return True
    ours = {"gpunet.activations", "gpunet.initializers", "builtins"}
    return any(isinstance(part, Custom) or type(part).__module__ not in ours for part in parts)


def _fit_alone(job: Job) -> None:
    """Fit a job's estimator as a user would."""
    started = time.perf_counter()
    try:
        X, y = job.data()
        weights = job.sample_weight
        started = time.perf_counter()
        if job.rows is not None:
            X_all, X, y = X, _safe_indexing(X, job.rows), _safe_indexing(y, job.rows)
            # weights of another length stay as they are, for `fit` to refuse them
            weights = _check_method_params(X_all, {"weights": weights}, job.rows)["weights"]
        job.estimator.fit(X, y, sample_weight=weights)
    except Exception as error:
        job.error = error
    job.seconds, job.done = time.perf_counter() - started, True


@dataclass(eq=False)
class _Chunk:
    """Jobs that are trained as one stack."""

    jobs: list[Job] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)
    too_large: bool = False
    _fit: StackedFit | None = field(default=None, init=False)

    def train(
        self, interruption: Interruption, after_epoch: Callable[[Sequence[Job]], None] | None
    ) -> _Chunk:
        """Train it, in any thread."""

        def tell(alive: Sequence[int]) -> None:
            if after_epoch is not None:
                after_epoch([self.jobs[k] for k in alive])

        started = time.perf_counter()
        try:
            self._fit = StackedFit(self.prepared)
            self._errors: Sequence[Exception | None] = self._fit.run(
                lambda: interruption.requested, tell
            )
        except Exception as error:
            if not self.prepared[0].place.backend.is_memory_error(error):
                raise
            self.too_large, self._fit = True, None
            for each in self.prepared:
                each.undo()
        self._seconds = time.perf_counter() - started
        return self

    def finish(self) -> None:
        """Tell the jobs how it went, and the user what a single fit would; let the data go."""
        if self.too_large:
            self._errors = [OutOfMemoryError(self.prepared[0].size())]
        elif self._fit is not None:
            self._fit.warn()
        for job, error in zip(self.jobs, self._errors, strict=True):
            job.error, job.done = error, True
            job.seconds = self._seconds / len(self.jobs)
        self.prepared, self._fit = [], None


def _prepared(
    jobs: Sequence[Job], singles: list[Job], stack_size: int | None, n_jobs: int | None
) -> Iterator[_Chunk]:
    """Yield stacks, each prepared when it is asked for; what turns out to be for none goes to ``singles``."""
    prepare = Preparation()
    stacking: Stacking | None = None  # found before stacks side by side keep BLAS to one thread
    for group in _groups(jobs, singles):
        waiting, size = collections.deque(group), stack_size
        prepare.next_data(group[0][1].X)
        while waiting:
            prepare.next_stack()
            chunk: dict[Any, _Chunk] = {}
            taken, enough, lane = 0, 0, waiting[0][0]
            while waiting and (size is None or taken < size):
                # minibatches that all members share are gathered once, so that a stack better ends with its lane
                if waiting[0][0] != lane and taken and taken >= enough:
                    break
                lane, job = waiting.popleft()
                prepared = _try(prepare, job)
                if prepared is None:
                    singles.append(job)
                    continue
                if stacking is None:
                    stacking = prepared.place.backend.stacking()
                if size is None:
                    size = _size(prepared, len(group), stacking, n_jobs)
                enough = min(size // 2, _ENOUGH) if stacking.whole_epochs else size // 2
                taken += 1
                of_shape = chunk.setdefault(prepared.shape, _Chunk())
                of_shape.jobs.append(job)
                of_shape.prepared.append(prepared)
            _part_generators(list(chunk.values()))
            yield from chunk.values()


def _part_generators(chunks: Sequence[_Chunk]) -> None:
    """Give every stack generators of its own, where jobs that were prepared together make several stacks."""
    for chunk in chunks[1:]:
        own: dict[int, Any] = {}
        for prepared in chunk.prepared:
            estimator, shared = prepared.estimator, prepared.estimator._random_state
            if shared is not estimator.random_state:  # not the user's, which no other estimator has
                estimator._random_state = own.setdefault(id(shared), copy.deepcopy(shared))


def _groups(jobs: Sequence[Job], singles: list[Job]) -> list[list[tuple[Any, Job]]]:
    """Return jobs that may well have one shape, with what those that see the same minibatches have in common."""
    groups: dict[Any, dict[Any, list[Job]]] = {}
    for job in jobs:
        if stackable(job.estimator) is not None:
            singles.append(job)
            continue
        estimator = job.estimator
        kind = (
            type(estimator),
            id(job.X),
            id(job.y),
            None if job.rows is None else job.rows.size,
            estimator.clip_norm is None,
            _dropping(estimator.dropout),
            getattr(estimator, "class_weight", None) is None,
            *(str(getattr(estimator, name, None)) for name in _OF_THE_SHAPE),
        )
        lane = (id(job.rows), str(estimator.random_state))
        groups.setdefault(kind, {}).setdefault(lane, []).append(job)
    return [
        [(lane, job) for lane, members in lanes.items() for job in members]
        for lanes in groups.values()
    ]


def _dropping(dropout: Any) -> str:
    """Return in words which hidden layers drop units; what is no list of numbers is refused when it is prepared."""
    try:
        return str(np.asarray(dropout) == 0.0)
    except ValueError:  # lists of several lengths
        return str(dropout)


_OF_THE_SHAPE = ("hidden_layer_sizes", "activation", "solver", "batch_size", "shuffle", "loss", "backend", "device",
                 "dtype", "early_stopping", "validation_fraction", "nesterovs_momentum")  # fmt: skip


def _try(prepare: Preparation, job: Job) -> Prepared | None:
    """Return a job ready for a stack; None where it isn't for one, or a fit of its own is to say what is wrong."""
    try:
        return prepare(job)
    except Exception:
        return None


_ENOUGH = 8
"""How many networks share Python's part of an epoch well enough."""

_WORTH_A_THREAD = 5e7
"""How many operations a stack has to have between two of its turns at Python's lock. To hand it on takes about as long
as 10⁶ of them, and where it isn't kept out of an epoch, that happens at every one of a step's twenty calls."""


def _size(prepared: Prepared, waiting: int, stacking: Stacking, n_jobs: int | None) -> int:
    """Return how many networks to train as one: as many as fit, and so that all threads have work."""
    fitting = _fitting(prepared, stacking)
    threads = _side_by_side(prepared, waiting, stacking, n_jobs)
    # larger stacks pay only where threads wait for each other between their steps' calls
    if threads == 1 and not stacking.whole_epochs:
        fitting = max(1, fitting // 2)
    stacks = -(-waiting // fitting)
    stacks = -(-stacks // threads) * threads
    return max(1, -(-waiting // stacks))


def _fitting(prepared: Prepared, stacking: Stacking) -> int:
    """Return how many networks fit in a stack."""
    return max(1, stacking.bytes // prepared.bytes)


def _side_by_side(prepared: Prepared, networks: int, stacking: Stacking, n_jobs: int | None) -> int:
    """Return how many threads have enough work, stacks of these networks."""
    operations = prepared.operations * (prepared.steps if stacking.whole_epochs else 1)
    if _fitting(prepared, stacking) * operations < _WORTH_A_THREAD:
        return 1
    return max(1, min(_threads(stacking, n_jobs), int(networks * operations / _WORTH_A_THREAD)))


def _threads(stacking: Stacking, n_jobs: int | None) -> int:
    """Return how many threads may train stacks.

    One more than there are cores: else a core is idle whenever a thread waits for Python's lock, and takes its time to
    wake up (measured on NumPy: with two threads on two cores no faster than with one, with three 1.5 times; with numba,
    whose epochs don't hold it, three are still 1.2 times as fast as two).
    """
    found = stacking.side_by_side
    cores = found if n_jobs is None or found == 0 else effective_n_jobs(n_jobs)
    return cores + 1 if cores > 1 else 1


def _trained(
    chunks: Iterator[_Chunk],
    networks: int,
    n_jobs: int | None,
    interruption: Interruption,
    after_epoch: Callable[[Sequence[Job]], None] | None,
) -> Iterator[_Chunk]:
    """Yield stacks as they are trained: side by side where the backend gains by it, none after Ctrl-C."""
    first = next(chunks, None)
    if first is None:
        return
    backend = first.prepared[0].place.backend
    stacking = backend.stacking()
    side_by_side = (
        min(_threads(stacking, n_jobs), networks)
        if stacking.whole_epochs
        else _side_by_side(first.prepared[0], networks, stacking, n_jobs)
    )
    chunks = itertools.chain([first], chunks)
    del first  # with its data
    if side_by_side == 1:
        for chunk in chunks:
            chunk.train(interruption, after_epoch)
            if interruption.requested:
                return
            yield chunk
        return
    # each stack has a core, so that BLAS threads of its own would only be in the way
    with backend.one_thread(), ThreadPoolExecutor(side_by_side) as pool:
        running: set[Future[_Chunk]] = set()
        for more in itertools.chain(chunks, itertools.repeat(None)):
            if more is not None and not interruption.requested:
                running.add(pool.submit(more.train, interruption, after_epoch))
                if len(running) <= side_by_side:  # one is prepared ahead
                    continue
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            while finished:
                trained = finished.pop().result()
                if not interruption.requested:
                    yield trained
