"""`MLPRegressor`: scikit-learn's neural network for numbers, on any array backend."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if

from gpunet import losses
from gpunet.backend import Backend
from gpunet.estimators.parameters import CONSTRAINTS, DOCUMENTATION, quantiles_of
from gpunet.estimators.perceptron import BasePerceptron, Reading
from gpunet.estimators.placement import Placement, column_of
from gpunet.losses import AveragedSquaredError, Loss, Quantile
from gpunet.sparse import is_sparse
from gpunet.typing import Array


class MLPRegressor(RegressorMixin, BasePerceptron):  # type: ignore[misc]
    """Multi-layer perceptron regressor: scikit-learn's, on any array backend.

    The parameters, attributes and methods of `sklearn.neural_network.MLPRegressor`, and with the same data, dtype and
    ``random_state`` the same model. The parameters from ``backend`` on are gpunet's own.

    Parameters
    ----------
    loss : {{'squared_error', 'poisson', 'absolute_error', 'huber', 'quantile'}}, default='squared_error'
        Half the squared error; half the Poisson deviance with an exponential output (for y ≥ 0); the absolute error,
        which finds the median; Huber's, squared near and absolute far; the pinball loss, which finds quantiles.
    {parameters}
    huber_threshold : float, default=1.0
        The error from which on Huber's loss is absolute.
    quantiles : float or list of float, default=0.5
        What loss 'quantile' finds, in (0, 1). With a list, `predict` returns one more axis, and the scores are about
        the level nearest the median.

    Attributes
    ----------
    coefs_, intercepts_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, n_iter_, t_
        As for `MLPClassifier`; the validation score is R², or ``scoring``.
    history_ : list of dict
        As for `MLPClassifier`.
    n_layers_, n_outputs_, n_features_in_ : int
    out_activation_ : str

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from gpunet import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    >>> MLPRegressor(random_state=1, max_iter=2000, tol=0.1).fit(X, y).score(X, y) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **CONSTRAINTS,
        "loss": [StrOptions({"squared_error", "poisson", "absolute_error", "huber", "quantile"})],
        "huber_threshold": [Interval(Real, 0, None, closed="neither")],
        "quantiles": [Interval(Real, 0, 1, closed="neither"), "array-like"],
    }
    _task_is_numeric = True

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        backend: str | Backend | None = None,
        device: str | None = None,
        dtype: str | None = None,
        init: Any = "auto",
        dropout: Any = 0.0,
        clip_norm: float | None = None,
        scoring: Any = None,
        track_scores: bool = False,
        callbacks: Any = (),
        huber_threshold: float = 1.0,
        quantiles: Any = 0.5,
    ) -> None:
        self._keep(locals())

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> MLPRegressor:
        """Fit to data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional
        X_val, y_val : like X and y, optional
            Validation data of your own, where X is. With early stopping they take the place of the share set aside;
            without it their score is in ``history_`` only.

        Returns
        -------
        MLPRegressor
            Itself.
        """
        return self._fit(X, y, sample_weight, X_val, y_val, incremental=False)  # type: ignore[no-any-return]

    @available_if(lambda self: self._check_solver())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Move on by one epoch over the given data. Parameters as for `fit`."""
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> Any:
        """Return the predicted values, (n_samples,) for one target, else (n_samples, n_targets).

        With a list of Q quantiles (n_samples, Q), or (n_samples, n_targets, Q).
        """
        return self._outputs(X, "predict")

    def _reading(self, method: str) -> Reading:
        if method != "predict":
            raise KeyError(method)
        if self._fitted_levels is not None:
            return Reading(lambda xp, z, a: a, self._by_level)
        return Reading(lambda xp, z, a: a[0, :] if self.n_outputs_ == 1 else a)

    def _by_level(self, place: Placement, h: Array) -> Any:
        """Return outputs (Q targets, n) as (n, Q), or (n, targets, Q) for several targets."""
        xp, Q, n = place.backend.xp, len(self._fitted_levels or ()), h.shape[-1]
        h = xp.permute_dims(xp.reshape(h, (Q, self.n_outputs_ // Q, n)), (2, 1, 0))
        return place.leave(h[:, 0, :] if self.n_outputs_ == Q else h)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² of `predict`; with a list of quantiles, that of the level nearest the median."""
        predicted = self.predict(X)
        if self._fitted_levels is not None:
            predicted = predicted[..., self._median()]
        return r2_score(y, predicted, sample_weight=sample_weight)  # type: ignore[no-any-return]

    _fitted_levels: tuple[float, ...] | None = None

    def _levels(self) -> tuple[float, ...] | None:
        """Return the quantiles where there is a list of them, in the order of the outputs; else None."""
        if self.loss != "quantile" or np.ndim(self.quantiles) == 0:
            return None
        return quantiles_of(self.quantiles)

    def _median(self) -> int:
        """Return which quantile is nearest the median."""
        levels = self._fitted_levels or (0.5,)
        return min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))

    def _scored_rows(self) -> slice:
        levels = self._fitted_levels
        if levels is None:
            return slice(None)
        targets = self.n_outputs_ // len(levels)
        return slice(self._median() * targets, (self._median() + 1) * targets)

    def _task(self) -> str:
        return "regression"

    def _loss_and_output(self) -> tuple[Loss, str]:
        if self.loss == "poisson":
            return losses.Poisson(), "exp"
        if self.loss == "quantile":
            return Quantile(quantiles_of(self.quantiles)), "identity"
        if self.loss == "huber":
            return losses.Huber(float(self.huber_threshold)), "identity"
        if self.loss == "absolute_error":
            return losses.AbsoluteError(), "identity"
        return AveragedSquaredError(), "identity"

    def _encode(self, place: Placement, y: Any, *, incremental: bool) -> Any:
        self._fitted_levels = self._levels()
        return self._targets(place, y)

    def _encode_more(self, place: Placement, y: Any, name: str) -> Any:
        return self._targets(place, y, name)

    def _targets(self, place: Placement, y: Any, name: str = "y") -> Any:
        """Return targets (n, K), with a list of quantiles as often as there are levels."""
        y = column_of(place, y)
        y = y.toarray() if is_sparse(y) else y
        y = y[:, None] if y.ndim == 1 else y
        if isinstance(y, np.ndarray) and y.dtype.kind not in "biuf":
            raise TypeError(
                f"{name} of a regression is of numbers, but its dtype is {y.dtype}: convert it first, with "
                "numpy.asarray(y, dtype=float) for example."
            )
        levels = self._levels()
        if levels is None:
            return y
        xp = np if place.host else place.backend.xp
        # the loss wants each level's targets after the last's
        return xp.concat([y] * len(levels), axis=1)


MLPRegressor.__doc__ = (MLPRegressor.__doc__ or "").format(parameters=DOCUMENTATION)
