"""The estimators' parameters: what they may be, what they mean, and the parts of a network that they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
)

from gpunet import activations, initializers, optimizers, schedules
from gpunet.activations import Activation, Custom
from gpunet.backend import Backend
from gpunet.initializers import Initializer
from gpunet.optimizers import Optimizer
from gpunet.schedules import Schedule

SOLVERS = ("lbfgs", "sgd", "adam", "adamw", "nadam", "rmsprop", "gradient_descent")
HIDDEN_ACTIVATIONS = (
    "identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "maxout", "gelu", "silu"
)  # fmt: skip
SCHEDULES = ("cosine", "one_cycle", "steps", "warm_up")
_SCHEDULES = {name: schedules.get(name) for name in SCHEDULES}

CONSTRAINTS: dict[str, Any] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": "no_validation",
    "solver": [StrOptions(set(SOLVERS))],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"constant", "invscaling", "adaptive", *SCHEDULES}), Schedule],
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
    "init": "no_validation",
    "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
    "clip_norm": [None, Interval(Real, 0, None, closed="neither")],
    "scoring": [None, StrOptions(set(get_scorer_names())), callable],
    "track_scores": ["boolean"],
    "callbacks": [list, tuple],
}

DOCUMENTATION = """hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer, s_2 to s_{L-1}.
    activation : str, Activation, pair of callables, or a list of them, default='relu'
        Of the hidden layers: 'identity', 'logistic', 'tanh', 'relu', 'leaky_relu' ('leaky_relu:0.2'), 'elu', 'maxout'
        ('maxout:3'), 'gelu', 'silu', or a `gpunet.activations.Activation`. A pair (g, g') is one of your own, called as
        ``g(xp, z)`` and ``g_prime(xp, z, a)``. A list has one entry for each hidden layer. With maxout of k pieces,
        ``coefs_[l]`` has k columns for each unit.
    solver : {'lbfgs', 'sgd', 'adam', 'adamw', 'nadam', 'rmsprop', 'gradient_descent'}, default='adam'
        The optimizer.
    alpha : float, default=1e-4
        λ of the L2 regularization, divided by the number of examples in a batch. For 'adamw' the decoupled decay
        instead.
    batch_size : int or 'auto', default='auto'
        Examples a step; 'auto' is min(200, n_samples). L-BFGS takes all of them.
    learning_rate : str or Schedule, default='constant'
        'constant', 'invscaling' and 'adaptive' are scikit-learn's: the latter two act on 'sgd' and 'gradient_descent'
        only. 'cosine', 'one_cycle', 'steps', 'warm_up' or a `gpunet.schedules.Schedule` act on every solver but
        'lbfgs', planned over ``max_iter`` epochs.
    learning_rate_init : float, default=1e-3
        The learning rate of every solver but 'lbfgs'.
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
        Whether to stop by the score on validation data: those given to `fit`, or a share of the examples set aside.
    validation_fraction : float, default=0.1
        That share.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of 'adam', 'adamw' and 'nadam'.
    epsilon : float, default=1e-8
        ε of those and of 'rmsprop'.
    n_iter_no_change : int, default=10
        Epochs without improvement before training stops.
    max_fun : int, default=15000
        Evaluations that L-BFGS may take.
    backend : str or Backend, default=None
        Where host data is computed, see `gpunet.get_backend`. Arrays on a device are computed there; those of another
        library in this backend's very memory without a copy.
    device : str, default=None
        The backend's device.
    dtype : {'float32', 'float64'}, default=None
        What to compute in; None follows X.
    init : 'auto', str or Initializer, default='auto'
        How the parameters start: as scikit-learn draws them, or a name or object of `gpunet.initializers`.
    dropout : float or list of float, default=0.0
        The share of hidden units that a training step leaves out, in [0, 1): one for all hidden layers, or one for
        each.
    clip_norm : float, default=None
        The length that a step's gradient may have.
    scoring : str or callable, default=None
        scikit-learn's name of a scorer, or a function of an estimator, X and y, for the validation data; None is
        accuracy or R². It is called as scikit-learn would: with the sample_weight of a split's examples if `fit` was
        given one, else without.
    track_scores : bool, default=False
        Whether ``history_`` has the score on the training data and the loss on the validation data, too.
    callbacks : list or tuple of callable, default=()
        Each is called with an epoch's record, the last of ``history_``; one that returns True ends training. For
        scikit-learn's own callbacks see ``set_callbacks``."""


def activation_of(spec: Any) -> Activation:
    """Return the activation that one entry of the parameter stands for."""
    if _is_pair(spec):
        return Custom(*spec)
    return activations.get(spec)


def activations_of(spec: Any, n_hidden: int) -> tuple[Activation, ...]:
    """Return the activation of each hidden layer.

    Raises
    ------
    TypeError, ValueError
        For what is no activation, and a list with another number of entries than hidden layers.
    """
    if isinstance(spec, list | tuple) and not _is_pair(spec):
        if len(spec) != n_hidden:
            raise ValueError(
                f"activation gives {len(spec)} entries, but hidden_layer_sizes has {n_hidden} hidden layers"
                f"{_named(n_hidden)}: give one for all, or one for each."
            )
        return tuple(activation_of(entry) for entry in spec)
    return (activation_of(spec),) * n_hidden


def bounding(spec: Any, n_hidden: int) -> tuple[Activation, ...]:
    """Return the activation by which scikit-learn's rule bounds each layer's initial weights.

    Each hidden layer's own; the output layer follows the last of them.
    """
    hidden = activations_of(spec, n_hidden)
    if hidden:
        return (*hidden, hidden[-1])
    return (activations.get("relu") if isinstance(spec, list | tuple) else activation_of(spec),)


def _is_pair(spec: Any) -> bool:
    """Return whether this is (g, g'), two functions."""
    return (
        isinstance(spec, list | tuple)
        and len(spec) == 2
        and all(callable(part) and not isinstance(part, type) for part in spec)
    )


def _named(n_hidden: int) -> str:
    """Return the lecture's numbers of the hidden layers, for messages."""
    return f" (layers 2 to {n_hidden + 1})" if n_hidden > 1 else ""


def initializer_of(spec: Any) -> Initializer | None:
    """Return the initializer, None for scikit-learn's draws."""
    if isinstance(spec, str) and spec == "auto":
        return None
    try:
        return initializers.get(spec)
    except ValueError as error:
        raise ValueError(f"init: {error} And 'auto', scikit-learn's own draws.") from None


def _numbers(name: str, spec: Any, expected: str) -> tuple[float, ...]:
    """Return a number, or several, as floats.

    Raises
    ------
    ValueError
        Naming the parameter, for what is no number.
    """
    try:
        return tuple(float(number) for number in spec) if np.ndim(spec) else (float(spec),)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {expected}, or a list of such, but is {spec!r}.") from None


def quantiles_of(spec: Any) -> tuple[float, ...]:
    """Return the levels in the order of the outputs.

    Raises
    ------
    ValueError
        For no levels, or one outside (0, 1).
    """
    levels = _numbers("quantiles", spec, "a level between 0 and 1")
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise ValueError(
            f"quantiles are levels between 0 and 1, such as [0.1, 0.5, 0.9], not {spec!r}."
        )
    return levels


def dropout_of(spec: Any, n_hidden: int) -> tuple[float, ...]:
    """Return the share that each hidden layer drops, () where none does.

    Raises
    ------
    ValueError
        For shares outside [0, 1), or another number of them than hidden layers.
    """
    shares = _numbers("dropout", spec, "the share of units left out, in [0, 1)")
    shares = shares if np.ndim(spec) else shares * n_hidden
    if len(shares) != n_hidden:
        raise ValueError(
            f"dropout gives {len(shares)} shares, but hidden_layer_sizes has {n_hidden} hidden layers"
            f"{_named(n_hidden)}: give one for all, or one for each."
        )
    if not all(0.0 <= share < 1.0 for share in shares):
        raise ValueError(f"dropout is the share of units left out, in [0, 1), but is {spec}.")
    return shares if any(shares) else ()


def optimizer_of(estimator: Any) -> Optimizer:
    """Return the update rule that an estimator's parameters describe."""
    rate, solver = float(estimator.learning_rate_init), estimator.solver
    if solver == "sgd":
        rule = optimizers.Nesterov if estimator.nesterovs_momentum else optimizers.Momentum
        return rule(rate, estimator.momentum)
    if solver == "gradient_descent":
        return optimizers.GradientDescent(rate)
    if solver == "rmsprop":
        return optimizers.RMSProp(rate, epsilon=estimator.epsilon)
    adam = (rate, estimator.beta_1, estimator.beta_2, estimator.epsilon)
    if solver == "adamw":
        return optimizers.AdamW(*adam, decay=float(estimator.alpha))
    return (optimizers.NAdam if solver == "nadam" else optimizers.Adam)(*adam)


def schedule_of(spec: str | Schedule) -> Schedule | None:
    """Return the schedule, None for scikit-learn's own three."""
    if isinstance(spec, Schedule):
        return spec
    return _SCHEDULES.get(spec)


def check(estimator: Any, hidden: Sequence[Any], *, validation: bool) -> None:
    """Refuse parameters that don't fit each other.

    Raises
    ------
    ValueError, TypeError
        Naming the parameter, what it is and what to do.
    """
    for callback in estimator.callbacks:
        if not callable(callback):
            raise TypeError(
                f"callbacks are functions of an epoch's record, but one is {callback!r}. Those of scikit-learn go to "
                "set_callbacks."
            )
    for units in hidden:
        if isinstance(units, bool) or not isinstance(units, Integral):
            raise TypeError(
                f"hidden_layer_sizes are whole numbers of units, such as (100, 50), but one is {units!r}."
            )
    _check_activation(estimator, len(hidden))
    _check_class_weight(getattr(estimator, "class_weight", None))
    _check_quantiles(estimator)
    initializer_of(estimator.init)
    drops = dropout_of(estimator.dropout, len(hidden))
    if estimator.solver == "lbfgs":
        unfit = {
            f"dropout={estimator.dropout}": bool(drops),
            f"clip_norm={estimator.clip_norm}": estimator.clip_norm is not None,
            f"learning_rate={estimator.learning_rate!r}": schedule_of(estimator.learning_rate)
            is not None,
            "X_val": validation,
        }
        found = [name for name, given in unfit.items() if given]
        if found:
            others = ", ".join(repr(solver) for solver in SOLVERS[1:])
            raise ValueError(
                "solver='lbfgs' takes all examples at once and finds its own step length, and has no use for "
                f"{' and '.join(found)}: leave that out, or use one of {others}."
            )


def _check_activation(estimator: Any, n_hidden: int) -> None:
    """Refuse what is no activation, as scikit-learn refuses a parameter."""
    spec = estimator.activation
    parameter = f"The 'activation' parameter of {type(estimator).__name__}"
    for entry in spec if isinstance(spec, list | tuple) and not _is_pair(spec) else [spec]:
        if not _is_activation(entry):
            names = ", ".join(map(repr, HIDDEN_ACTIVATIONS))
            raise InvalidParameterError(
                f"{parameter} must be one of {names} (with a setting: 'leaky_relu:0.2', 'elu:0.5', 'maxout:3'), a "
                "gpunet.activations.Activation, a pair of functions (g, g_prime), or a list with one of these for each "
                f"hidden layer. Got {entry!r} instead."
            )
    try:
        bounding(spec, n_hidden)
    except ValueError as error:  # a setting, or how many there are
        raise InvalidParameterError(f"{parameter}: {error}") from None


def _is_activation(entry: Any) -> bool:
    """Return whether this is an activation, or the name of one with any setting."""
    try:
        activation_of(entry.partition(":")[0] if isinstance(entry, str) else entry)
    except (TypeError, ValueError):
        return False
    return True


def _check_class_weight(class_weight: Any) -> None:
    """Refuse weights that are no finite numbers from 0 on."""
    for label, weight in class_weight.items() if isinstance(class_weight, dict) else ():
        if not isinstance(weight, Real) or not 0.0 <= float(weight) < math.inf:
            raise ValueError(
                f"class_weight gives class {label!r} the weight {weight!r}, but weights are finite numbers from 0 on."
            )


def _check_quantiles(estimator: Any) -> None:
    """Refuse quantiles that are none, and scikit-learn's scorers of several: they compare one number with y."""
    spec: Any = getattr(estimator, "quantiles", 0.5)
    quantiles_of(spec)
    scoring = estimator.scoring
    its_own = isinstance(scoring, str) or type(scoring).__module__.startswith("sklearn.")
    if its_own and np.ndim(spec) and estimator.loss == "quantile":
        raise ValueError(
            f"scoring={scoring!r} compares one prediction with y, but quantiles={spec!r} makes predict return "
            f"{len(spec)}: leave scoring out, which scores the level nearest the median by R², or give a function of "
            "an estimator, X and y."
        )
