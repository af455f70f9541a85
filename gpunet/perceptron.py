"""What `gpunet.MLPClassifier` and `gpunet.MLPRegressor` share: scikit-learn's conventions around gpunet's training.

The training loop, its stopping rules and the order in which random numbers are drawn are those of
`sklearn.neural_network`, so that the same data, dtype and ``random_state`` give the same model.
"""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from gpunet.activations import get as activation_of
from gpunet.backend import Backend, dtype_name
from gpunet.lbfgs import cost_function
from gpunet.losses import Loss
from gpunet.network import Architecture, hypothesis
from gpunet.optimizers import Adam, Momentum, Nesterov, Optimizer
from gpunet.placement import Placement, to_numpy
from gpunet.runs import Interruption
from gpunet.scores import score
from gpunet.training import Data, Epochs, TrainingState
from gpunet.typing import Array

SOLVERS = ("lbfgs", "sgd", "adam")


class BasePerceptron(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The base class of both estimators; their docstrings list the parameters."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
        "solver": [StrOptions(set(SOLVERS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "backend": [None, str, Backend],
        "device": [None, str],
        "dtype": [None, StrOptions({"float32", "float64"})],
    }

    def __init__(self, **parameters: Any) -> None:
        for name, value in parameters.items():
            setattr(self, name, value)

    # ------------------------------------------------------- what the two estimators differ in

    def _encode(self, place: Placement, y: Any, *, incremental: bool) -> Array:
        """Return targets (n, K) where the data is, having learned what they mean."""
        raise NotImplementedError

    def _loss_and_output(self) -> tuple[Loss, str]:
        """Return the loss and scikit-learn's name of the output activation."""
        raise NotImplementedError

    def _task(self) -> str:
        """Return one of `gpunet.scores.TASKS`."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags

    # ------------------------------------------------------------------------------- fitting

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Any:
        """Fit, or move on by one epoch."""
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
        if np.any(np.array(hidden) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)

        place = Placement.of(self, X)
        X, y = place.validate(self, X, y, reset=first)
        weights = place.weights(sample_weight, X)
        with place.backend.active():
            y = self._encode(place, y, incremental=incremental)
            x, y, weights = place.columns(X), place.columns(y), place.vector(weights)
            self._random_state = check_random_state(self.random_state)
            if first:
                self._initialize([X.shape[1], *hidden, y.shape[0]], place)
            self._place_spec = None if place.host else place.backend.spec
            data = (x, y, weights, float(self.alpha))
            theta = self._architecture().unroll(place.backend.xp, self._thetas(place))
            if self.solver == "lbfgs":
                theta = self._fit_lbfgs(place.backend, theta, data)
            else:
                theta = self._fit_stochastic(place.backend, theta, data, incremental=incremental)
            self._set_coefs(place, theta)
            finite = place.backend.xp.all(place.backend.xp.isfinite(theta))
            if not bool(place.backend.to_host(finite)):
                raise ValueError(
                    "Solver produced non-finite parameter weights. The input data may contain large values and need "
                    "to be preprocessed."
                )
        return self

    def _initialize(self, sizes: list[int], place: Placement) -> None:
        """Draw the initial parameters in scikit-learn's order and set what a first fit sets."""
        self.n_iter_, self.t_ = 0, 0
        self.n_outputs_, self.n_layers_ = sizes[-1], len(sizes)
        self.out_activation_ = self._loss_and_output()[1]
        self.coefs_, self.intercepts_ = [], []
        factor = 2.0 if self.activation == "logistic" else 6.0
        for inputs, units in pairwise(sizes):
            bound = math.sqrt(factor / (inputs + units))
            coefs = self._random_state.uniform(-bound, bound, (inputs, units))
            intercepts = self._random_state.uniform(-bound, bound, units)
            self.coefs_.append(place.parameters(coefs))
            self.intercepts_.append(place.parameters(intercepts))
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.validation_scores_: Any = [] if self.early_stopping else None
            self.best_validation_score_: Any = -np.inf if self.early_stopping else None
            self.best_loss_: Any = None if self.early_stopping else np.inf

    def _architecture(self) -> Architecture:
        """Return the network's description."""
        sizes = (self.coefs_[0].shape[0], *(coefs.shape[1] for coefs in self.coefs_))
        hidden = activation_of(self.activation)
        loss, output = self._loss_and_output()
        return Architecture(sizes, (*[hidden] * (len(sizes) - 2), activation_of(output)), loss)

    def _thetas(self, place: Placement) -> list[tuple[Array, Array]]:
        """Return each layer's Θ and bias on the device; views of ``coefs_`` where they are there already."""
        xp, asarray = place.backend.xp, place.backend.asarray
        return [
            (xp.matrix_transpose(asarray(coefs, place.dtype)), asarray(intercepts, place.dtype))
            for coefs, intercepts in zip(self.coefs_, self.intercepts_, strict=True)
        ]

    def _set_coefs(self, place: Placement, theta: Array) -> None:
        """Set ``coefs_`` and ``intercepts_`` from θ."""
        xp = place.backend.xp
        layers = self._architecture().split(xp, theta)
        self.coefs_ = [place.leave(xp.matrix_transpose(Theta)) for Theta, _ in layers]
        self.intercepts_ = [place.leave(bias) for _, bias in layers]

    def _fit_lbfgs(self, backend: Backend, theta: Array, data: Data) -> Array:
        """Minimise over all examples with SciPy's L-BFGS-B."""
        import scipy.optimize  # noqa: PLC0415  # slow to import
        from sklearn.utils.optimize import _check_optimize_result  # noqa: PLC0415

        found = scipy.optimize.minimize(
            cost_function(self._architecture(), data, backend, theta),
            backend.to_host(theta).astype(np.float64),
            method="L-BFGS-B",
            jac=True,
            options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
        )
        self.n_iter_ = _check_optimize_result("lbfgs", found, self.max_iter)
        self.loss_ = float(found.fun)
        return backend.asarray(found.x, dtype_name(theta))

    def _optimizer_of(self) -> Optimizer:
        """Return the update rule that the parameters describe."""
        if self.solver == "adam":
            return Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)
        rule = Nesterov if self.nesterovs_momentum else Momentum
        return rule(self.learning_rate_init, self.momentum)

    def _fit_stochastic(
        self, backend: Backend, theta: Array, data: Data, *, incremental: bool
    ) -> Array:
        """Train by minibatches until scikit-learn's rules say stop; return θ."""
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        optimizer, xp = self._optimizer_of(), backend.xp
        state = TrainingState(theta, self._random_state)
        slots, step = getattr(self, "_optimizer_state", (None, 0))
        if incremental and slots is not None:
            state.slots = tuple(backend.asarray(slot, dtype_name(theta)) for slot in slots)
            state.step = step
        else:
            self._learning_rate = float(self.learning_rate_init)
        rows, held = self._split(backend, data) if self.early_stopping else (None, None)
        n = data[0].shape[-1] if rows is None else rows.shape[-1]
        epochs = Epochs(
            self._architecture(),
            data,
            backend=backend,
            optimizer=optimizer,
            batch_size=self._batch_size(n),
            rows=rows,
            shuffle=self.shuffle,
        )
        # What is kept where no epoch improves: at first the initial parameters; in scikit-learn a warm start trains
        # on the very arrays that hold the best ones, and so keeps the last.
        best = xp.asarray(theta, copy=True) if self.t_ == 0 else None
        self.n_iter_ = 0
        with Interruption() as interruption:
            for _ in range(self.max_iter):
                cost = epochs.run(
                    state, lambda _: self._learning_rate, lambda: interruption.requested
                )
                if interruption.requested:
                    warnings.warn("Training interrupted by user.", stacklevel=5)
                    break
                self._record(backend, cost, state.theta, held)
                self.t_ += n
                if (
                    self.early_stopping
                    and self.validation_scores_[-1] > self.best_validation_score_
                ):
                    self.best_validation_score_ = self.validation_scores_[-1]
                    best = xp.asarray(state.theta, copy=True)
                if self.solver == "sgd" and self.learning_rate == "invscaling":
                    self._learning_rate = self.learning_rate_init / (self.t_ + 1) ** self.power_t
                if self._no_improvement_count > self.n_iter_no_change:
                    if self._is_stopping():
                        break
                    self._no_improvement_count = 0
                if incremental:
                    break
                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization "
                        "hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=5,
                    )
        self._optimizer_state = (state.slots, state.step)
        return state.theta if best is None or not self.early_stopping else best

    def _batch_size(self, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=6,
            )
        return int(min(self.batch_size, n))

    def _split(self, backend: Backend, data: Data) -> tuple[Array, Any]:
        """Return the rows to train on, and x, y, weights to validate on, split as scikit-learn splits."""
        x, y, weights, _ = data
        n = x.shape[-1]
        stratify = None
        if self._task() == "binary":  # scikit-learn stratifies when there is one output
            stratify = backend.to_host(y[0, :])
        train_rows, held_rows = train_test_split(
            np.arange(n),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=stratify,
        )
        if held_rows.size < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        held, gather = backend.asarray(held_rows), backend.primitives.gather
        w_held = None if weights is None else gather(weights, held)
        return backend.asarray(train_rows), (gather(x, held), gather(y, held), w_held)

    def _record(self, backend: Backend, cost: Array, theta: Array, held: Any) -> None:
        """Note an epoch's loss and score, read from the device at once, and whether it improved."""
        xp = backend.xp
        told = [cost]
        if held is not None:
            x, y, weights = held
            _, h = hypothesis(self._architecture(), theta, x, backend.primitives)
            told.append(score(xp, self._task(), h, y, weights))
        self.loss_, *scores = backend.to_host(xp.stack(told)).tolist()
        self.n_iter_ += 1
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")  # noqa: T201
        if held is not None:
            last = scores[0] if math.isfinite(scores[0]) else math.nan
            self.validation_scores_.append(last)
            if self.verbose:
                print(f"Validation score: {last:f}")  # noqa: T201
            worse = last < self.best_validation_score_ + self.tol
        else:
            worse = self.loss_ > self.best_loss_ - self.tol
            self.best_loss_ = min(self.best_loss_, self.loss_)
        self._no_improvement_count = self._no_improvement_count + 1 if worse else 0

    def _is_stopping(self) -> bool:
        """Return whether no improvement ends the run, or lowers the learning rate instead."""
        what = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
            "consecutive epochs."
        )
        stopping, then = True, "Stopping."
        if self.solver == "sgd" and self.learning_rate == "adaptive":
            if self._learning_rate <= 1e-6:
                then = "Learning rate too small. Stopping."
            else:
                self._learning_rate /= 5.0
                stopping, then = False, f"Setting learning rate to {self._learning_rate:f}"
        if self.verbose:
            print(f"{message} {then}")  # noqa: T201
        return stopping

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic."
            )
        return True

    # ---------------------------------------------------------------------------- predicting

    def _outputs(self, X: Any, method: str) -> tuple[Placement, Array, Array]:
        """Return where the data is, and z⁽ᴸ⁾ and h of every example as rows (n, K) there."""
        check_is_fitted(self)
        place = Placement.like_fit(self, X, method)
        X = place.validate_again(self, X)
        backend = place.backend
        with backend.active():
            architecture = self._architecture()
            theta = architecture.unroll(backend.xp, self._thetas(place))
            z, h = hypothesis(architecture, theta, place.columns(X), backend.primitives)
            return place, backend.xp.matrix_transpose(z), backend.xp.matrix_transpose(h)

    # ------------------------------------------------------------------------ scikit-learn's

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with the same model: see `gpunet.interop.to_sklearn`."""
        from gpunet.interop import to_sklearn  # noqa: PLC0415  # only for those who convert

        return to_sklearn(self)

    @classmethod
    def from_sklearn(cls, estimator: Any, **parameters: Any) -> Any:
        """Return this estimator with scikit-learn's model: see `gpunet.interop.from_sklearn`."""
        from gpunet.interop import from_sklearn  # noqa: PLC0415

        return from_sklearn(cls, estimator, **parameters)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with NumPy arrays only: fit on a GPU, load anywhere."""
        state: dict[str, Any] = super().__getstate__()
        state = {name: to_numpy(value) for name, value in state.items()}
        state["_place_spec"] = None
        return state
