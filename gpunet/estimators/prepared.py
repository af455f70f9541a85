"""Estimators made ready for stacks: what a single fit does before its first step, shared things made once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils._param_validation import validate_parameter_constraints

from gpunet.estimators.parameters import dropout_of, optimizer_of
from gpunet.estimators.placement import Placement, adopted, to_numpy
from gpunet.estimators.stochastic import batch_size_of
from gpunet.memory import step_bytes, step_too_large
from gpunet.optimizers import Optimizer
from gpunet.sparse import is_sparse
from gpunet.stacks import Member
from gpunet.streaming import HostColumns
from gpunet.typing import Array, HostArray

_FITTED = ("n_features_in_", "feature_names_in_")
_BEGUN = ("_described", "_place_spec", "coefs_", "intercepts_")
_LEARNED = ("classes_", "_label_task", "_fitted_levels")


@dataclass(frozen=True)
class Parts:
    """What an estimator's parameters stand for: equal ones the same.

    Attributes
    ----------
    hidden : tuple of int
        The hidden layers' sizes.
    optimizer : Optimizer
    dropout : tuple of float
        The share that each hidden layer drops, () where none does.
    """

    hidden: tuple[int, ...]
    optimizer: Optimizer
    dropout: tuple[float, ...]


@dataclass(eq=False)
class Prepared:
    """An estimator that is ready to be trained in a stack.

    Attributes
    ----------
    estimator : MLPClassifier or MLPRegressor
        With its initial parameters drawn.
    place : Placement
    x, y : array of shape (s_1, n) and (K, n)
        All examples, shared with others.
    theta : array of shape (P,)
    rows, held : NumPy array of int
        The examples to train on, and to validate on if it stops early.
    weights : array of shape (n,), optional
    batch_size : int
    parts : Parts
    before : tuple, optional
        The state of the user's generator before anything was drawn from it.
    """

    estimator: Any
    place: Placement
    x: Array
    y: Array
    theta: Array
    rows: HostArray
    held: HostArray | None
    weights: Array | None
    batch_size: int
    parts: Parts
    before: Any = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """What members of one stack have in common."""
        estimator, place = self.estimator, self.place
        return (
            place.backend.spec,
            place.dtype,
            place.host,
            id(self.x),
            id(self.y),
            estimator._described,
            type(self.parts.optimizer),
            self.batch_size,
            self.rows.size,
            -1 if self.held is None else self.held.size,
            bool(estimator.shuffle),
            tuple(share > 0.0 for share in self.parts.dropout),
            estimator.clip_norm is None,
            self.weights is None,
        )

    @property
    def bytes(self) -> int:
        """About what a training step of it touches, its examples not counted."""
        return step_bytes(
            self.estimator._described, self.batch_size, self.parts.optimizer.n_slots, self.width
        )

    @property
    def operations(self) -> int:
        """About how many multiplications and additions a training step of it has."""
        weights: int = self.estimator._described.n_weights
        return 6 * weights * self.batch_size

    @property
    def steps(self) -> int:
        """How many training steps an epoch of it has."""
        return math.ceil(len(self.rows) / self.batch_size)

    @property
    def width(self) -> int:
        """How many bytes a number takes."""
        return int(self.place.dtype.removeprefix("float")) // 8

    def size(self) -> str:
        """Say how large it is, for one who has too little memory."""
        return step_too_large(
            self.estimator._described,
            self.place.backend,
            n=self.x.shape[1],
            m=self.batch_size,
            n_slots=self.parts.optimizer.n_slots,
            width=self.width,
        )

    def undo(self) -> None:
        """Set a generator of the user's back, which another try is to find as this one did."""
        if self.before is not None:
            self.estimator.random_state.set_state(self.before)

    def member(self) -> Member:
        """Return it as a network of a stack."""
        estimator = self.estimator
        return Member(
            self.theta,
            self.parts.optimizer,
            estimator._random_state,
            self.rows,
            l2=estimator._l2() or 0.0,
            weights=self.weights,
            dropout=self.parts.dropout,
            clip=estimator.clip_norm,
        )


@dataclass(eq=False)
class Preparation:
    """Prepares estimators for stacks; what they have in common is made once.

    Data is the same where it is the very same object.
    """

    _examples: dict[Any, Any] = field(default_factory=dict)
    _targets: dict[Any, Array] = field(default_factory=dict)
    _learned: dict[Any, dict[str, Any]] = field(default_factory=dict)
    _weights: dict[Any, tuple[Array, Any]] = field(default_factory=dict)
    _splits: dict[Any, Any] = field(default_factory=dict)
    _all_rows: dict[int, HostArray] = field(default_factory=dict)
    _valid: set[Any] = field(default_factory=set)
    _known: dict[Any, Parts] = field(default_factory=dict)
    _drawn: dict[Any, dict[str, Any]] = field(default_factory=dict)
    _lanes: dict[Any, Any] = field(default_factory=dict)
    _met: set[int] = field(default_factory=set)
    _X: Any = None

    def next_data(self, X: Any) -> None:
        """Begin jobs on X; what was made of another one is let go, unless a stack still has it."""
        if X is not self._X:
            self._X = X
            for made in (self._examples, self._targets, self._learned, self._weights):
                made.clear()

    def next_stack(self) -> None:
        """Begin a stack: its members share generators with each other only."""
        self._lanes.clear()
        self._splits.clear()

    def __call__(self, job: Any) -> Prepared | None:
        """Return an estimator ready for a stack, or None where its data isn't for one.

        Sparse data isn't, and neither is what stays on the host.

        Parameters
        ----------
        job : gpunet.estimators.together.Job

        Raises
        ------
        Exception
            Whatever a single fit would raise, or something like it.
        """
        estimator = job.estimator
        if is_sparse(job.data()[0]):
            return None
        parts = self._parts(estimator)
        mine = estimator.random_state
        before = mine.get_state() if isinstance(mine, np.random.RandomState) else None
        place, x, y_given, sample_weight = self._data(job)
        if isinstance(x, HostColumns):
            return None
        with place.backend.active():
            rows = self._rows(job, x.shape[-1])
            y = self._encoded(job, place, y_given, rows)
            weights = self._weigh(job, place, y, sample_weight, rows)
            theta = self._begin(estimator, place, (x.shape[0], *parts.hidden, y.shape[0]), rows)
            held = None
            if estimator.early_stopping:
                rows, held = self._split(estimator, place, y, rows)
            estimator._learning_rate = float(estimator.learning_rate_init)
            batch_size = batch_size_of(estimator, rows.size)
        return Prepared(
            estimator, place, x, y, theta, rows, held, weights, batch_size, parts, before
        )

    def _parts(self, estimator: Any) -> Parts:
        """Return what the parameters stand for, checked as a single fit would check them."""
        kind = type(estimator)
        values = [getattr(estimator, name) for name in kind._get_param_names()]
        # (16,) and (16.0,) are equal, but the second is refused
        key = (kind, repr(estimator.hidden_layer_sizes), *map(type, values), *values)
        try:
            known = self._known.get(key)
        except TypeError:  # one has no hash, such as a list
            return self._checked(estimator)
        if known is None:
            known = self._known[key] = self._checked(estimator)
        return known

    def _checked(self, estimator: Any) -> Parts:
        self._validate(estimator)
        hidden = tuple(estimator._hidden(validation=False))
        return Parts(hidden, optimizer_of(estimator), dropout_of(estimator.dropout, len(hidden)))

    def _validate(self, estimator: Any) -> None:
        """Do what ``_validate_params`` does, for values that it hasn't seen."""
        kind, new, keys = type(estimator), {}, set()
        for name in kind._get_param_names():
            value = getattr(estimator, name)
            try:
                key = (kind, name, type(value), value)
                if key in self._valid:
                    continue
                keys.add(key)
            except TypeError:  # no hash, such as a list's
                pass
            new[name] = value
        constraints = {name: kind._parameter_constraints[name] for name in new}
        validate_parameter_constraints(constraints, new, kind.__name__)
        self._valid |= keys

    def _begin(
        self, estimator: Any, place: Placement, sizes: tuple[int, ...], rows: HostArray
    ) -> Array:
        """Return θ to start from, the estimator's generator moved on behind it.

        Estimators of one seed start from the same parameters, and those of one stack that see the same examples share
        a generator: after a fit, nothing is drawn from one that was made of a number.
        """
        seed = estimator.random_state
        if not isinstance(seed, int | np.integer):
            theta = estimator._begin(place, sizes, first=True)
            if seed is None or id(seed) in self._met:
                # alone, each would go on where the one before it has stopped
                own = estimator._random_state.randint(2**31 - 1)
                estimator._random_state = np.random.RandomState(own)
            else:
                self._met.add(id(seed))
            return theta
        key = (int(seed), sizes, str(estimator.activation), str(estimator.init), estimator.loss,
               str(getattr(estimator, "quantiles", None)), getattr(estimator, "huber_threshold", None),
               estimator._task(), place.backend.spec, place.dtype)  # fmt: skip
        if key not in self._drawn:
            theta = estimator._begin(place, sizes, first=True)
            begun = {name: getattr(estimator, name) for name in _BEGUN}
            self._drawn[key] = begun
            begun["theta"], begun["state"] = theta, estimator._random_state.get_state()
        begun = self._drawn[key]
        estimator.__dict__.update({name: begun[name] for name in _BEGUN})
        estimator._start_anew()
        lane = (key, id(rows), estimator.early_stopping, estimator.validation_fraction)
        if lane not in self._lanes:
            self._lanes[lane] = np.random.RandomState()
            self._lanes[lane].set_state(begun["state"])
        estimator._random_state = self._lanes[lane]
        return begun["theta"]

    def _data(self, job: Any) -> tuple[Placement, Array, Any, Array | None]:
        """Return the placement, x on the device, y and sample weights as checked."""
        estimator = job.estimator
        key = (id(job.X), id(job.y), id(job.sample_weight), estimator._task_is_numeric,
               estimator.backend, estimator.device, estimator.dtype)  # fmt: skip
        if key not in self._examples:
            X, y = job.data()
            X = adopted(estimator, X)
            place = Placement.of(estimator, X)
            X, y = place.validate(estimator, X, y, reset=True)
            weights = place.weights(job.sample_weight, X)
            with place.backend.active():
                about = {
                    name: getattr(estimator, name) for name in _FITTED if hasattr(estimator, name)
                }
                columns, vector = self._same(job, X, place), place.vector(weights)
            self._examples[key] = place, columns, y, vector, about
        place, x, y, weights, about = self._examples[key]
        estimator.__dict__.update(about)
        return place, x, y, weights

    def _same(self, job: Any, X: Any, place: Placement) -> Array:
        """Return X, checked, as columns on the device: held once, however many y there are."""
        # by the job's own, since what was checked may be a copy whose id is another's when it is gone
        key = ("x", id(job.X), place.backend.spec, place.dtype)
        if key not in self._targets:
            self._targets[key] = place.examples(X)
        return self._targets[key]

    def _rows(self, job: Any, n: int) -> HostArray:
        if job.rows is not None:
            rows: HostArray = job.rows
            return rows
        return self._all_rows.setdefault(n, np.arange(n))

    def _encoded(self, job: Any, place: Placement, y: Any, rows: HostArray) -> Array:
        """Return all targets (K, n), by what is to be learned from those of the job's rows."""
        estimator = job.estimator
        levels = str(getattr(estimator, "quantiles", None))
        there = (place.backend.spec, place.dtype)  # y on the host is the same for all of them
        key = (id(y), id(job.rows), type(estimator), estimator.loss, levels, *there)
        if key not in self._learned:
            estimator._encode(
                place, y if job.rows is None else _taken(place, y, rows), incremental=False
            )
            learned = {
                name: estimator.__dict__[name] for name in _LEARNED if name in estimator.__dict__
            }
            classes = to_numpy(learned["classes_"]).tolist() if "classes_" in learned else None
            learned["key"] = (id(y), str(classes), learned.get("_label_task"), learned.get("_fitted_levels"),
                              type(estimator), *there)  # fmt: skip
            self._learned[key] = learned
        learned = self._learned[key]
        estimator.__dict__.update({name: learned[name] for name in _LEARNED if name in learned})
        if learned["key"] not in self._targets:
            self._targets[learned["key"]] = place.targets(estimator._targets(place, y))
        return self._targets[learned["key"]]

    def _weigh(
        self, job: Any, place: Placement, y: Array, weights: Array | None, rows: HostArray
    ) -> Array | None:
        """Return all examples' weights (n,): those of the job's rows are what a single fit would take."""
        estimator = job.estimator
        class_weight = getattr(estimator, "class_weight", None)
        if class_weight is None:
            return weights
        key = (id(y), id(weights), id(job.rows), str(class_weight))
        if key not in self._weights:
            xp, chosen = place.backend.xp, place.backend.asarray(rows)
            w_rows = None if weights is None else xp.take(weights, chosen, axis=0)
            weighed = estimator._weigh(place, xp.take(y, chosen, axis=1), w_rows, incremental=False)
            position = np.zeros(y.shape[-1], dtype=np.int64)
            position[rows] = np.arange(rows.size)
            # a row that is there twice, in a bootstrap sample, has the same weight both times
            everywhere = xp.take(weighed, place.backend.asarray(position), axis=0)
            self._weights[key] = everywhere, estimator._class_weights
        everywhere, estimator._class_weights = self._weights[key]
        return everywhere

    def _split(
        self, estimator: Any, place: Placement, y: Array, rows: HostArray
    ) -> tuple[HostArray, HostArray]:
        """Return the rows to train on and to validate on, split as scikit-learn splits."""
        random = estimator._random_state
        key = (id(rows), id(y), id(random), estimator.validation_fraction)
        if key not in self._splits:
            stratify = None
            if estimator._task() == "binary":
                stratify = place.backend.to_host(y[0, :])[rows]
            train, held = train_test_split(
                np.arange(rows.size),
                random_state=random,
                test_size=estimator.validation_fraction,
                stratify=stratify,
            )
            if held.size < 2:
                raise ValueError(
                    "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
                )
            # rows and the generator are kept, so that their ids stay their own
            self._splits[key] = rows[train], rows[held], rows, random
        train, held, *_ = self._splits[key]
        return train, held


def _taken(place: Placement, y: Any, rows: HostArray) -> Any:
    """Return some rows of y, where it is."""
    if place.host:
        return y[rows]
    return place.backend.xp.take(y, place.backend.asarray(rows), axis=0)
