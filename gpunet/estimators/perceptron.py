"""What `gpunet.MLPClassifier` and `gpunet.MLPRegressor` share: scikit-learn's conventions around gpunet's training.

The training loop, its stopping rules and the order in which random numbers are drawn are those of
`sklearn.neural_network`, so that the same data, dtype and ``random_state`` give the same model.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gpunet.activations import get as activation_of
from gpunet.backend import dtype_name
from gpunet.estimators import parameters
from gpunet.estimators.features import HiddenFeatures
from gpunet.estimators.monitor import Monitor
from gpunet.estimators.placement import Placement, adopted, to_numpy
from gpunet.estimators.stochastic import StochasticFit
from gpunet.estimators.validation import Evaluation, Validation
from gpunet.lbfgs import cost_function
from gpunet.losses import Loss
from gpunet.memory import explained, predicted, step_too_large
from gpunet.network import Architecture
from gpunet.primitives import Primitives
from gpunet.step import Data
from gpunet.streaming import HostColumns, copied_rows
from gpunet.typing import Array, HostArray, Namespace

Read = Callable[[Namespace, Array, Array], Array]


class Reading(NamedTuple):
    """What a method makes of the forward pass.

    Attributes
    ----------
    read : callable
        ``read(xp, z, a)`` returns what is wanted of a layer's z and a (units, n), with the examples as the last axis.
    finish : callable, optional
        ``finish(place, found)`` returns that as the method does; None returns it as rows where X is.
    """

    read: Read
    finish: Callable[[Placement, Array], Any] | None = None

    def returned(self, place: Placement, parts: Sequence[Array]) -> Any:
        """Return what the method returns, from what was read of the examples, a part after the other."""
        if self.finish is None:
            return place.rows(parts)
        return self.finish(
            place, parts[0] if len(parts) == 1 else place.backend.xp.concat(parts, axis=-1)
        )


@functools.cache
def _parameters_of(kind: Any) -> tuple[str, ...]:
    return tuple(BaseEstimator._get_param_names.__func__(kind))


class BasePerceptron(CallbackSupportMixin, HiddenFeatures, BaseEstimator):  # type: ignore[misc]
    """The base class of both estimators; `gpunet.estimators.parameters` lists the parameters."""

    _parameter_constraints: ClassVar[dict[str, Any]] = parameters.CONSTRAINTS

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """Return the parameters' names; scikit-learn reads the signature anew for every clone."""
        kind: Any = cls
        return [*_parameters_of(kind)]

    def _keep(self, given: dict[str, Any]) -> None:
        """Set the parameters, given as the ``locals()`` of ``__init__``."""
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    # ------------------------------------------------------- what the two estimators differ in

    def _encode(self, place: Placement, y: Any, *, incremental: bool) -> Any:
        """Return targets (n, K) where the data is, having learned what they mean."""
        raise NotImplementedError

    def _encode_more(self, place: Placement, y: Any, name: str) -> Any:
        """Return the targets (n, K) of validation data, which have to mean the same."""
        raise NotImplementedError

    def _targets(self, place: Placement, y: Any) -> Any:
        """Return targets (n, K) by what `_encode` has learned; labels it hasn't seen are none of the classes."""
        raise NotImplementedError

    def _weigh(
        self, place: Placement, y: Array, weights: Array | None, *, incremental: bool
    ) -> Array | None:
        """Return the weights (n,) of examples with targets y (K, n), on the device."""
        return weights

    def _weigh_more(self, place: Placement, y: Array) -> Array | None:
        """Return the weights (n,) of validation examples with targets y (K, n), on the device."""
        return None

    def _loss_and_output(self) -> tuple[Loss, str]:
        """Return the loss and scikit-learn's name of the output activation."""
        raise NotImplementedError

    def _task(self) -> str:
        """Return one of `gpunet.scores.TASKS`."""
        raise NotImplementedError

    def _scored_rows(self) -> slice:
        """Return the outputs that the validation score is about."""
        return slice(None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags

    # ------------------------------------------------------------------------------- fitting

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        X_val: Any = None,
        y_val: Any = None,
        *,
        incremental: bool,
    ) -> Any:
        """Fit, or move on by one epoch."""
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        own = X_val is not None or y_val is not None
        place, data, theta = self._prepare(
            X, y, sample_weight, first=first, incremental=incremental, own_validation=own
        )
        given = (X, y, sample_weight)
        with place.backend.active(), self._named_where_too_large(place, data[0]):
            validation = None
            if own:
                validation = Validation.of(self, place, X_val, y_val, self.n_outputs_)
            monitor = Monitor(
                self, given, lambda theta: self._fitted(place, theta), tasks=not incremental
            )
            if self.solver == "lbfgs":
                theta = self._fit_lbfgs(place, theta, data, monitor)
            else:
                if incremental and parameters.schedule_of(self.learning_rate) is not None:
                    raise ValueError(
                        f"learning_rate={self.learning_rate!r} plans max_iter epochs, and partial_fit has no plan: use "
                        "'constant', or for solver 'sgd' 'invscaling' or 'adaptive'."
                    )
                if self.early_stopping and incremental:
                    raise ValueError("partial_fit does not support early_stopping=True")
                rows = None
                if self.early_stopping and validation is None:
                    rows, validation = Validation.split(self, place, data, given)
                fit = StochasticFit(
                    self, place, data, rows=rows, validation=validation, monitor=monitor
                )
                theta = fit.run(theta, incremental=incremental)
            self._end(place, theta)
            monitor.close()
        return self

    def _prepare(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        first: bool,
        incremental: bool = False,
        own_validation: bool = False,
    ) -> tuple[Placement, Data, Array]:
        """Return where to train, the data on the device, and the θ to start from."""
        hidden = self._hidden(validation=own_validation)
        X = adopted(self, X)
        place = Placement.of(self, X)
        X, y = place.validate(self, X, y, reset=first)
        weights = place.weights(sample_weight, X)
        with place.backend.active():
            y = self._encode(place, y, incremental=incremental)
            x, y, weights = place.examples(X), place.targets(y), place.vector(weights)
            weights = self._weigh(place, y, weights, incremental=incremental)
            with self._named_where_too_large(place, x):
                theta = self._begin(place, [X.shape[1], *hidden, y.shape[0]], first=first)
        return place, (x, y, weights, self._l2()), theta

    def _named_where_too_large(self, place: Placement, x: Any) -> AbstractContextManager[None]:
        """Return a context in which an error about memory tells the sizes of the network, trained on x (d, n)."""
        n = x.shape[-1]

        def words() -> str:
            whole = self.solver == "lbfgs"
            m = n if whole else min(n, 200 if self.batch_size == "auto" else self.batch_size)
            return step_too_large(
                self._described,
                place.backend,
                n=n,
                m=m,
                n_slots=0 if whole else parameters.optimizer_of(self).n_slots,
                width=int(place.dtype.removeprefix("float")) // 8,
                on_host=isinstance(x, HostColumns),
            )

        return explained(place.backend, words)

    def _hidden(self, *, validation: bool) -> list[int]:
        """Return the hidden layers' sizes, all parameters having been checked."""
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
        if np.any(np.array(hidden) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        parameters.check(self, hidden, validation=validation)
        return [operator.index(units) for units in hidden]

    def _begin(self, place: Placement, sizes: Sequence[int], *, first: bool) -> Array:
        """Return the θ to start from: drawn for a ``first`` fit, else that of ``coefs_``."""
        self._random_state = check_random_state(self.random_state)
        self._described = self._describe(sizes)
        if first:
            self._draw(place)
            self._start_anew()
        else:
            self._check_shapes(self._described)
        if not hasattr(self, "history_"):
            self.history_: list[dict[str, float]] = []
        self._place_spec = None if place.host else place.backend.spec
        return self._described.unroll(place.backend.xp, self._thetas(place))

    def _l2(self) -> float | None:
        """Return λ; adamw has its own decay instead."""
        return None if self.solver == "adamw" else float(self.alpha)

    def _draw(self, place: Placement) -> None:
        """Draw the initial parameters, in scikit-learn's order."""
        architecture = self._described
        self.coefs_, self.intercepts_ = [], []
        initializer = parameters.initializer_of(self.init)
        bounding = parameters.bounding(self.activation, len(architecture.layers) - 1)
        for layer, activation in zip(architecture.layers, bounding, strict=True):
            if initializer is not None:
                Theta, intercepts = initializer(
                    self._random_state, layer.inputs, layer.units, layer.rows
                )
                coefs = Theta.T
            else:
                factor = 2.0 if activation.name == "sigmoid" else 6.0
                bound = math.sqrt(factor / (layer.inputs + layer.units))
                coefs = self._random_state.uniform(-bound, bound, (layer.inputs, layer.rows))
                intercepts = self._random_state.uniform(-bound, bound, layer.rows)
            self.coefs_.append(place.parameters(coefs))
            self.intercepts_.append(place.parameters(intercepts))

    def _start_anew(self) -> None:
        """Set what a first fit sets, the parameters left out."""
        architecture = self._described
        self.n_iter_, self.t_ = 0, 0
        self.n_outputs_, self.n_layers_ = architecture.sizes[-1], len(architecture.sizes)
        self.out_activation_ = self._loss_and_output()[1]
        self.history_ = []
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.validation_scores_: Any = [] if self.early_stopping else None
            self.best_validation_score_: Any = -np.inf if self.early_stopping else None
            self.best_loss_: Any = None if self.early_stopping else np.inf

    def _check_shapes(self, architecture: Architecture) -> None:
        """Refuse to go on with parameters of another network than the one that is asked for now."""
        asked = [(layer.inputs, layer.rows) for layer in architecture.layers]
        fitted = [tuple(coefs.shape) for coefs in self.coefs_]
        if asked != fitted:
            raise ValueError(
                f"warm_start and partial_fit go on with the fitted coefs_ of the shapes {fitted}, but the parameters "
                f"now ask for {asked}: set hidden_layer_sizes and activation back, or fit anew with warm_start=False."
            )

    def _describe(self, sizes: Sequence[int]) -> Architecture:
        hidden = parameters.activations_of(self.activation, len(sizes) - 2)
        loss, output = self._loss_and_output()
        return Architecture(tuple(sizes), (*hidden, activation_of(output)), loss)

    def _architecture(self) -> Architecture:
        """Return the fitted network's description."""
        if "_described" not in self.__dict__:
            hidden = parameters.activations_of(self.activation, len(self.coefs_) - 1)
            pieces = [*(activation.pieces for activation in hidden), 1]
            units = (c.shape[1] // k for c, k in zip(self.coefs_, pieces, strict=True))
            self._described = self._describe([self.coefs_[0].shape[0], *units])
        return self._described

    def _thetas(self, place: Placement) -> list[tuple[Array, Array]]:
        """Return each layer's Θ and bias on the device; views of ``coefs_`` where they are there already."""
        asarray = place.backend.asarray
        return [
            (asarray(coefs, place.dtype).T, asarray(intercepts, place.dtype))
            for coefs, intercepts in zip(self.coefs_, self.intercepts_, strict=True)
        ]

    def _fitted(self, place: Placement, theta: Array) -> dict[str, Any]:
        """Return ``coefs_`` and ``intercepts_`` for θ."""
        xp = place.backend.xp
        layers = self._architecture().split(xp, theta)
        return {
            "coefs_": [self._coefs(place, Theta) for Theta, _ in layers],
            "intercepts_": [place.leave(bias) for _, bias in layers],
        }

    @staticmethod
    def _coefs(place: Placement, Theta: Array) -> Any:
        """Return Θᵀ in the order that the next product wants: SciPy's sparse ones another than BLAS."""
        return place.leave(Theta.T) if place.sparse else place.leave(Theta).T

    def _set_coefs(self, place: Placement, theta: Array) -> None:
        """Set ``coefs_`` and ``intercepts_`` from θ."""
        self.__dict__.update(self._fitted(place, theta))

    def _end(self, place: Placement, theta: Array) -> None:
        """Set what a finished fit has; refuse a θ that is no longer finite."""
        self._set_coefs(place, theta)
        finite = place.backend.xp.all(place.backend.xp.isfinite(theta))
        if not bool(place.backend.to_host(finite)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need "
                "to be preprocessed."
            )

    def _fit_lbfgs(self, place: Placement, theta: Array, data: Data, monitor: Monitor) -> Array:
        """Minimise over all examples with SciPy's L-BFGS-B."""
        import scipy.optimize  # slow to import
        from sklearn.utils.optimize import _check_optimize_result

        backend, dtype, stopped = place.backend, dtype_name(theta), False
        evaluate = Evaluation(self, place, self._architecture(), data)
        cost = cost_function(self._architecture(), data, backend, theta)

        def cost_within_iteration(x: HostArray) -> Any:
            monitor.begin()  # the first of an iteration's evaluations begins it
            return cost(x)

        def after_iteration(intermediate_result: Any) -> None:
            nonlocal stopped
            record = {"loss": float(intermediate_result.fun)}
            now = backend.asarray(intermediate_result.x, dtype)
            if self.track_scores:
                (more,) = evaluate([backend.asarray(intermediate_result.fun, dtype)], now)
                record = {**more, **record}
            if monitor.end(record, now):
                stopped = True
                raise StopIteration

        found = scipy.optimize.minimize(
            cost_within_iteration,
            backend.to_host(theta).astype(np.float64),
            method="L-BFGS-B",
            jac=True,
            callback=after_iteration,
            options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
        )
        self.n_iter_ = (
            found.nit if stopped else _check_optimize_result("lbfgs", found, self.max_iter)
        )
        self.loss_ = float(found.fun)
        return backend.asarray(found.x, dtype)

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic."
            )
        return True

    # ---------------------------------------------------------------------------- predicting

    def _reading(self, method: str) -> Reading:
        """Return what a method of the fitted estimator makes of the output layer."""
        raise NotImplementedError

    def _outputs(self, X: Any, method: str, *, depth: int | None = None) -> Any:
        """Return what a method makes of the output layer, or a⁽ˡ⁾ after ``depth`` matrices Θ."""
        if "coefs_" not in self.__dict__:
            check_is_fitted(self)
        X = adopted(self, X)
        place = Placement.like_fit(self, X, method)
        X = place.validate_again(self, X)
        reading = self._reading(method) if depth is None else Reading(lambda xp, z, a: a)
        with place.backend.active():
            architecture, thetas, x = (
                self._architecture(),
                self._thetas(place)[:depth],
                place.columns(X),
            )

            def ask(at_once: int) -> Any:
                primitives = place.backend.primitives
                parts = forward(architecture, thetas, x, primitives, reading.read, at_once=at_once)
                return reading.returned(place, parts)

            return predicted(place.backend, architecture, x.shape[-1], ask)

    def learning_rate_range(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        low: float = 1e-6,
        high: float = 1.0,
        steps: int = 100,
    ) -> Any:
        """Return how the loss goes while the learning rate grows: see `gpunet.estimators.rate_range`."""
        from gpunet.estimators.rate_range import learning_rate_range  # only for those who ask

        return learning_rate_range(self, X, y, sample_weight, low=low, high=high, steps=steps)

    # ------------------------------------------------------------------------ scikit-learn's

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with the same model: see `gpunet.estimators.interop.to_sklearn`."""
        from gpunet.estimators.interop import to_sklearn  # only for those who convert

        return to_sklearn(self)

    @classmethod
    def from_sklearn(cls, estimator: Any, **parameters: Any) -> Any:
        """Return this estimator with scikit-learn's model: see `gpunet.estimators.interop.from_sklearn`."""
        from gpunet.estimators.interop import from_sklearn

        return from_sklearn(cls, estimator, **parameters)

    def __copy__(self) -> Any:
        """Return a shallow copy, which stays where the fit was; a pickle's state would not."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a deep copy, which stays where the fit was too."""
        new = type(self).__new__(type(self))
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with NumPy arrays only: fit on a GPU, load anywhere."""
        state: dict[str, Any] = super().__getstate__()
        state = {name: to_numpy(value) for name, value in state.items()}
        state["_place_spec"] = None
        return state


def forward(
    architecture: Architecture,
    thetas: Sequence[tuple[Array, Array]],
    x: Array,
    primitives: Primitives,
    read: Read,
    *,
    at_once: int | None = None,
) -> list[Array]:
    """Return ``read(xp, z, a)`` after the given matrices Θ, a part of the examples after the other.

    No more than ``at_once`` numbers of a layer are held.

    `gpunet.network.hypothesis` does the same for the flat θ of training, which a prediction needn't unroll.
    """
    xp, n = primitives.xp, x.shape[-1]
    widest = max(copied_rows(x), *(layer.rows for layer in architecture.layers))
    n_parts = math.ceil(n * widest / (at_once or primitives.at_once))
    chunk = math.ceil(n / n_parts)  # parts of one size: none is too large for the caches
    parts = []
    for start in range(0, n, chunk):
        a = x[..., start : min(start + chunk, n)]
        for (Theta, bias), layer in zip(thetas, architecture.layers, strict=False):
            z, a = primitives.activate(xp.matmul(Theta, a), bias, layer.activation)
        parts.append(read(xp, z, a))
    return parts
