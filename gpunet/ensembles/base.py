"""What both ensembles share: members, the rows they are trained on, and predictions of rows that they haven't seen.

Members differ by their initial weights and shuffles; with bootstrap samples or the folds of a cross-validation by their
rows, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.random import sample_without_replacement
from sklearn.utils.validation import check_is_fitted, validate_data

from gpunet.backend import Backend, get_backend
from gpunet.estimators.perceptron import BasePerceptron
from gpunet.estimators.placement import Placement, adopted, column_of, to_numpy
from gpunet.estimators.together import Job, fit_all
from gpunet.fitting import TrainingInterruptedWarning
from gpunet.notices import warn
from gpunet.typing import Array, HostArray

MAX_INT = np.iinfo(np.int32).max

PARAMETERS = """n_estimators : int, default=5
        The number of members; with ``cv``, of each fold.
    bootstrap : bool, default=False
        Whether each member is trained on a bootstrap sample, n rows drawn with replacement; else on all rows.
    oob_score : bool, default=False
        Whether each row is predicted by the members whose bootstrap sample lacks it.
    cv : int, splitter or iterable of (train, test), default=None
        Trains members on each fold's training rows; they predict its test rows. As for
        `sklearn.model_selection.cross_val_predict`, but test rows may overlap or be only some of all.
    random_state : int, RandomState or None, default=None
        Draws the members' seeds and bootstrap samples, the same as scikit-learn's bagging.
    n_jobs : int, default=None
        The number of threads that train stacks of members side by side; None takes one for each core on a CPU. What is
        for no stack, with solver 'lbfgs' or sparse X, is fitted one after the other.
    stack_size : int, default=None
        The number of members that are trained as one stack; None finds it. It doesn't change the result."""

ATTRIBUTES = """estimators_ : list
        The fitted members. Each ``random_state`` is the member's seed, by which it can be fitted alone.
    estimators_samples_ : list of array of int
        The members' rows, with ``bootstrap``; drawn anew each time.
    estimator_ : object
        What the members are copies of.
    loss_curves_ : list of list of float
        The members' losses of each epoch; not for solver 'lbfgs'.
    n_features_in_ : int
        The number of features in `fit`.
    feature_names_in_ : array of str
        Their names, where they have names."""


class Ensemble(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The base class of both ensembles."""

    _member: ClassVar[type[BasePerceptron]]
    _their_bagging: ClassVar[str]
    _oob_name: ClassVar[str]
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": "no_validation",  # `_template` has more to say
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "bootstrap": ["boolean"],
        "oob_score": ["boolean"],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
        "n_jobs": [
            None,
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "stack_size": [None, Interval(Integral, 1, None, closed="left")],
    }

    estimators_: list[Any]

    def __init__(
        self,
        estimator: Any = None,
        n_estimators: int = 5,
        *,
        bootstrap: bool = False,
        oob_score: bool = False,
        cv: Any = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        stack_size: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.cv = cv
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.stack_size = stack_size

    # Where the members compute and in what: `Placement` asks an estimator for it.
    backend = property(lambda self: self._template().backend)
    device = property(lambda self: self._template().device)
    dtype = property(lambda self: self._template().dtype)
    _task_is_numeric = property(lambda self: self._member._task_is_numeric)
    _place_spec = property(lambda self: self.estimators_[0]._place_spec)

    # ----------------------------------------------------- what the two ensembles differ in

    def _learn(self, place: Placement, y: Any) -> None:
        """Note what the targets mean."""

    def _predictions(self, backend: Backend, members: Sequence[Any], X: Any) -> Array:
        """Return the numbers that are averaged: what each member predicts, (M, n, ...)."""
        raise NotImplementedError

    def _score_of(self, y: HostArray, mean: HostArray) -> float:
        """Return the score of averaged predictions."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------- fitting

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train the members.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            What the members take.
        sample_weight : array-like of shape (n_samples,), optional
            What each row counts where it is trained on; it doesn't make it likelier in a bootstrap sample.

        Returns
        -------
        EnsembleClassifier or EnsembleRegressor
            Itself.

        Raises
        ------
        TypeError, ValueError
            For parameters that don't go together, and what a member raises, with a note that says which member.
        """
        if self.bootstrap and self.cv is not None:
            raise ValueError(
                f"bootstrap=True and cv={self.cv!r} both say which rows a member sees: leave one of them out."
            )
        if self.oob_score and not self.bootstrap:
            raise ValueError(
                "Out of bag estimation only available if bootstrap=True. With cv every row is predicted by members "
                "that haven't seen it."
            )
        self.estimator_ = self._template()
        X = adopted(self.estimator_, X)
        place = Placement.of(self.estimator_, X)
        X, y = place.validate(self, X, y, reset=True)
        y = column_of(place, y)
        weights = place.weights(sample_weight, X)
        with place.backend.active():
            self._learn(place, y)
        self._n_samples: int = X.shape[0]
        jobs = self._jobs(X, y, weights)
        fit_all(jobs, n_jobs=self.n_jobs, stack_size=self.stack_size)
        self._keep(jobs)
        if self.oob_score or self.cv is not None:
            held = [job.tag[1] for job in jobs if job.done]
            mean, score = self._held_out(place, X, to_numpy(y), held)
            if self.oob_score:
                setattr(self, self._oob_name, mean)
                self.oob_score_ = score
            else:
                self.oof_prediction_, self.oof_score_ = mean, score
        return self

    def _template(self) -> Any:
        """Return what members are copies of.

        Raises
        ------
        TypeError
            For what can't be a member.
        """
        if self.estimator is None:
            return self._member()
        if not isinstance(self.estimator, self._member):
            raise TypeError(
                f"estimator has to be a gpunet.{self._member.__name__}, but is {self.estimator!r}. Put the ensemble "
                f"into a pipeline, not a pipeline into it; for other estimators use "
                f"sklearn.ensemble.{self._their_bagging}."
            )
        return self.estimator

    def _jobs(self, X: Any, y: Any, weights: Any) -> list[Job]:
        """Return one for each member, those of a fold side by side."""
        folds: list[tuple[Any, Any]] = [(None, None)]
        if self.cv is not None:
            labels, everything = to_numpy(y), np.arange(self._n_samples)
            splitter = check_cv(self.cv, labels, classifier=is_classifier(self))
            # as indices, since an iterable may have masks
            folds = [(everything[a], everything[b]) for a, b in splitter.split(X, labels)]
        # A seed for each member, which draws its random_state and anew its rows: scikit-learn's bagging does so.
        draw = check_random_state(self.random_state).randint
        jobs = []
        for fold in folds:
            for seed in draw(MAX_INT, size=self.n_estimators):
                rows, held = self._bootstrap(seed) if self.bootstrap else fold
                member = clone(self.estimator_)
                member.set_params(random_state=np.random.RandomState(seed).randint(MAX_INT))
                jobs.append(Job(member, X, y, weights, rows, tag=(seed, held)))
        return jobs

    def _bootstrap(self, seed: int) -> tuple[HostArray, HostArray]:
        """Return the rows that scikit-learn's bagging draws from a seed after its features, and the other rows."""
        rng, d, n = np.random.RandomState(seed), self.n_features_in_, self._n_samples
        sample_without_replacement(d, d, random_state=rng)
        rows = rng.randint(0, n, n)
        return rows, np.setdiff1d(np.arange(n), rows)

    def _keep(self, jobs: Sequence[Job]) -> None:
        """Keep the fitted members; raise what one has raised."""
        failed = [(m, job) for m, job in enumerate(jobs) if job.error is not None]
        for m, job in failed:
            assert job.error is not None
            job.error.add_note(
                f"Raised by member {m} (random_state={job.estimator.random_state}) of {type(self).__name__}; "
                f"{len(failed)} of its {len(jobs)} members failed."
            )
            raise job.error
        done = [job for job in jobs if job.done]
        if not done:
            raise KeyboardInterrupt
        if len(done) < len(jobs):
            warn(
                f"Training was interrupted: the ensemble has the {len(done)} of its {len(jobs)} members that had been "
                "trained.",
                TrainingInterruptedWarning,
            )
        self.estimators_ = [job.estimator for job in done]
        self._seeds = [job.tag[0] for job in done]

    def _held_out(
        self, place: Placement, X: Any, y: HostArray, held: Sequence[HostArray]
    ) -> tuple[Any, float]:
        """Return the mean prediction of each row by the members that hold it out, and the score of these.

        Parameters
        ----------
        place : Placement
        X : array or sparse matrix of shape (n, d)
        y : NumPy array or sparse matrix of n rows
        held : sequence of array of int
            The rows that each member holds out.
        """
        backend, sums = _averaging(place), None
        counts = np.zeros(self._n_samples)
        # the members of a fold hold out the very same rows
        for _, fold in itertools.groupby(
            zip(self.estimators_, held, strict=True), lambda pair: id(pair[1])
        ):
            members, (rows, *_) = zip(*fold, strict=True)
            if rows.size == 0:
                continue
            with backend.active():
                parts = self._predictions(backend, members, _rows(place, X, rows))
            for part in backend.to_host(parts):
                if sums is None:
                    sums = np.zeros((self._n_samples, *part.shape[1:]), part.dtype)
                sums[rows] += part
                counts[rows] += 1.0
        if sums is None:
            raise ValueError(
                f"No member holds any of the {self._n_samples} rows out: give more of them, or another cv."
            )
        known = counts > 0.0
        if not known.all():
            warn(
                f"{np.sum(~known)} of {self._n_samples} rows are held out by no member, so their prediction is NaN: "
                "train more members, or give a cv whose test rows are all rows.",
            )
            counts[~known] = np.nan
        mean = sums / counts.astype(sums.dtype).reshape(-1, *[1] * (sums.ndim - 1))
        score = self._score_of(y[known], mean[known])
        return mean if place.host else place.backend.asarray(mean), score

    @property
    def estimators_samples_(self) -> list[HostArray]:
        """The rows of each member, with ``bootstrap``."""
        if not self.bootstrap:
            raise AttributeError("There are estimators_samples_ with bootstrap=True only.")
        return [self._bootstrap(seed)[0] for seed in self._seeds]

    @property
    def loss_curves_(self) -> list[list[float]]:
        """The members' losses of each epoch; not for solver 'lbfgs'."""
        return [member.loss_curve_ for member in self.estimators_]

    # ---------------------------------------------------------------------------- predicting

    def _ready(self, X: Any, method: str) -> tuple[Backend, Any]:
        """Return what members' outputs are averaged with, and X, checked."""
        check_is_fitted(self)
        X = adopted(self, X)
        place = Placement.like_fit(self, X, method)
        if place.host:
            dtype = (np.float64, np.float32)
            X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=dtype, reset=False)
        else:
            X = place._validate_native(self, X, reset=False)
        return _averaging(place), X

    # ------------------------------------------------------------------------ scikit-learn's

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether there are members; a fit that failed has learned the classes only."""
        return hasattr(self, "estimators_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags

    # copies stay where the fit was, pickles have NumPy arrays only: as the members
    __copy__, __deepcopy__ = BasePerceptron.__copy__, BasePerceptron.__deepcopy__

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with NumPy arrays only."""
        return {name: to_numpy(value) for name, value in super().__getstate__().items()}


def _averaging(place: Placement) -> Backend:
    """Return the backend of the members' outputs: those for host data are NumPy arrays, wherever they are computed."""
    return get_backend("numpy") if place.host else place.backend


def _rows(place: Placement, X: Any, rows: HostArray) -> Any:
    if place.host:
        return _safe_indexing(X, rows)
    with place.backend.active():
        return place.backend.xp.take(X, place.backend.asarray(rows), axis=0)
