"""`MLPClassifier` and `MLPRegressor`: scikit-learn's neural networks, on any array backend."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import column_or_1d

from gpunet import labels, losses
from gpunet.backend import Backend
from gpunet.losses import Loss, SquaredError
from gpunet.perceptron import BasePerceptron
from gpunet.placement import Placement, to_numpy
from gpunet.typing import Array, Namespace

_PARAMETERS = """hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer, s_2 to s_{L-1}.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        Of the hidden layers.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        The optimizer.
    alpha : float, default=1e-4
        λ of the L2 regularization, divided by the number of examples in a batch.
    batch_size : int or 'auto', default='auto'
        Examples a step; 'auto' is min(200, n_samples). L-BFGS takes all of them.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule of solver 'sgd'.
    learning_rate_init : float, default=1e-3
        Learning rate of 'sgd' and 'adam'.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Epochs, or iterations of L-BFGS.
    shuffle : bool, default=True
        Whether each epoch sees the examples in a new order.
    random_state : int, RandomState or None, default=None
        For initial weights, the validation split and shuffles; the same number gives scikit-learn's very model.
    tol : float, default=1e-4
        An epoch has to improve by this to count.
    verbose : bool, default=False
        Print each epoch's loss.
    warm_start : bool, default=False
        Whether `fit` goes on from the last fit's parameters.
    momentum : float, default=0.9
        Of solver 'sgd'.
    nesterovs_momentum : bool, default=True
        Of solver 'sgd'.
    early_stopping : bool, default=False
        Whether to set a share of the data aside and stop by the score on it.
    validation_fraction : float, default=0.1
        That share.
    beta_1, beta_2 : float, default=0.9, 0.999
        Adam's decay rates.
    epsilon : float, default=1e-8
        Adam's ε.
    n_iter_no_change : int, default=10
        Epochs without improvement before training stops.
    max_fun : int, default=15000
        Evaluations that L-BFGS may take.
    backend : str or Backend, default=None
        Where host data is computed, see `gpunet.get_backend`. Arrays on a device are computed there.
    device : str, default=None
        The backend's device.
    dtype : {'float32', 'float64'}, default=None
        What to compute in; None follows X."""


class _MeanOverOutputs(  # noqa: N818  # not an exception
    SquaredError
):
    """scikit-learn's report of a squared error: the mean over the outputs, beside the gradient of their sum."""

    def cost_from_a(self, xp: Namespace, a: Array, y: Array) -> Array:
        return super().cost_from_a(xp, a, y) / a.shape[-2]


class MLPClassifier(ClassifierMixin, BasePerceptron):  # type: ignore[misc]
    """Multi-layer perceptron classifier: scikit-learn's, on any array backend.

    The same parameters, attributes and methods as `sklearn.neural_network.MLPClassifier`, and with the same data, dtype
    and ``random_state`` the same model.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        The labels.
    coefs_ : list of array of shape (s_l, s_{{l+1}})
        Θ⁽ˡ⁾ᵀ without the bias, layer by layer.
    intercepts_ : list of array of shape (s_{{l+1}},)
        The biases.
    loss_, best_loss_ : float
        The last epoch's loss, and the smallest.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_ : list of float
        Accuracy on the validation data after each epoch, with early stopping.
    best_validation_score_ : float
        The highest of them.
    n_iter_, t_ : int
        Epochs run; examples seen.
    n_layers_, n_outputs_, n_features_in_ : int
    out_activation_ : str

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from gpunet import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> MLPClassifier(solver="lbfgs", random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
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
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            backend=backend,
            device=device,
            dtype=dtype,
        )

    _task_is_numeric = False

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Fit to data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), or label indicators of shape (n_samples, n_labels)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        MLPClassifier
            Itself.
        """
        return self._fit(X, y, sample_weight, incremental=False)  # type: ignore[no-any-return]

    @available_if(lambda self: self._check_solver())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """Move on by one epoch over the given data.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array-like of shape (n_classes,), optional
            All classes there will be; needed by the first call.

        Returns
        -------
        MLPClassifier
            Itself.
        """
        _check_partial_fit_first_call(self, classes)
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> Any:
        """Return the class of each example, or label indicators for multi-label data."""
        place, _, h = self._outputs(X, "predict")
        with place.backend.active():
            return labels.decode(place, h, self.classes_, self._label_task)

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, shape (n_samples, n_classes)."""
        place, p = self._probabilities(X, "predict_proba")
        with place.backend.active():
            return place.leave(p)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`."""
        place, p = self._probabilities(X, "predict_log_proba")
        with place.backend.active(), np.errstate(divide="ignore"):
            return place.leave(place.backend.xp.log(p))

    def _probabilities(self, X: Any, method: str) -> tuple[Placement, Array]:
        place, _, h = self._outputs(X, method)
        if self.n_outputs_ == 1:
            with place.backend.active():
                h = place.backend.xp.concat([1.0 - h, h], axis=1)
        return place, h

    def decision_function(self, X: Any) -> Any:
        """Return the logits z⁽ᴸ⁾: (n_samples,) for two classes, else (n_samples, n_outputs)."""
        place, z, _ = self._outputs(X, "decision_function")
        with place.backend.active():
            return place.leave(z[:, 0] if self.n_outputs_ == 1 else z)

    def _task(self) -> str:
        return self._label_task

    def _loss_and_output(self) -> tuple[Loss, str]:
        if self._label_task == "multiclass":
            return losses.SoftmaxCrossEntropy(), "softmax"
        return losses.CrossEntropy(), "logistic"

    def _encode(self, place: Placement, y: Any, *, incremental: bool) -> Any:
        y = column_of(place, y)
        classes, task = labels.classes_of(place, y)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self.classes_, self._label_task = classes, task
        elif not hasattr(self, "_label_task"):  # the first partial_fit was told the classes
            self._label_task = task if task == "multilabel" else _task_of(self.classes_)
        known, given = (set(to_numpy(c).tolist()) for c in (self.classes_, classes))
        if self.warm_start and given != known:
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously "
                f"got {self.classes_}, `y` has {classes}"
            )
        if not given <= known:
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return labels.encode(place, y, self.classes_, self._label_task)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BasePerceptron):  # type: ignore[misc]
    """Multi-layer perceptron regressor: scikit-learn's, on any array backend.

    The same parameters, attributes and methods as `sklearn.neural_network.MLPRegressor`, and with the same data, dtype
    and ``random_state`` the same model.

    Parameters
    ----------
    loss : {{'squared_error', 'poisson'}}, default='squared_error'
        Half the squared error, or half the Poisson deviance with an exponential output (for y ≥ 0).
    {parameters}

    Attributes
    ----------
    coefs_, intercepts_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, n_iter_, t_
        As for `MLPClassifier`; the validation score is R².
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BasePerceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }
    _task_is_numeric = True

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
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
    ) -> None:
        self.loss = loss
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            backend=backend,
            device=device,
            dtype=dtype,
        )

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Fit to data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        MLPRegressor
            Itself.
        """
        return self._fit(X, y, sample_weight, incremental=False)  # type: ignore[no-any-return]

    @available_if(lambda self: self._check_solver())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Move on by one epoch over the given data. Parameters as for `fit`."""
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> Any:
        """Return the predicted values, (n_samples,) for one output, else (n_samples, n_outputs)."""
        place, _, h = self._outputs(X, "predict")
        with place.backend.active():
            return place.leave(h[:, 0] if self.n_outputs_ == 1 else h)

    def _task(self) -> str:
        return "regression"

    def _loss_and_output(self) -> tuple[Loss, str]:
        if self.loss == "poisson":
            return losses.Poisson(), "exp"
        return _MeanOverOutputs(), "identity"

    def _encode(self, place: Placement, y: Any, *, incremental: bool) -> Any:
        y = column_of(place, y)
        return y[:, None] if y.ndim == 1 else y


def column_of(place: Placement, y: Any) -> Any:
    """Return y (n, 1) as (n,), with scikit-learn's warning; anything else as it is."""
    if y.ndim != 2 or y.shape[1] != 1:
        return y
    if place.host:
        return column_or_1d(y, warn=True)
    return y[:, 0]


def _task_of(classes: Any) -> str:
    return "binary" if classes.shape[0] <= 2 else "multiclass"


for _estimator in (MLPClassifier, MLPRegressor):
    _estimator.__doc__ = (_estimator.__doc__ or "").format(parameters=_PARAMETERS)
