"""To scikit-learn's own estimators and back, without losing a digit, the optimizer's memory included."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.preprocessing import LabelBinarizer

from gpunet.activations import Activation, Identity, ReLU, Sigmoid, Tanh
from gpunet.estimators.parameters import bounding, dropout_of
from gpunet.estimators.placement import to_numpy
from gpunet.typing import HostArray

# What a fit leaves behind, besides parameters, classes and the optimizer.
_FITTED = (
    "loss_", "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_", "t_", "n_iter_",
    "n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "feature_names_in_",
    "_no_improvement_count", "_random_state",
)  # fmt: skip


def to_sklearn(estimator: Any) -> Any:
    """Return scikit-learn's estimator with the same parameters and the same fitted model.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted or not.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor
        A copy; its `partial_fit` goes on where this one's would.

    Raises
    ------
    ValueError
        For what scikit-learn can't express; the parameters are named.

    Examples
    --------
    >>> import gpunet
    >>> ours = gpunet.MLPClassifier(solver="lbfgs", random_state=0, backend="numpy")
    >>> theirs = ours.fit([[0.0], [1.0]], ["a", "b"]).to_sklearn()
    >>> theirs.predict([[0.9]]).tolist()
    ['b']
    """
    kind = TheirClassifier if hasattr(estimator, "predict_proba") else TheirRegressor
    theirs = kind()
    known = set(theirs.get_params())
    parameters = _expressible(estimator, kind.__name__)
    theirs.set_params(**{k: v for k, v in parameters.items() if k in known})
    theirs._validate_params()
    if not hasattr(estimator, "coefs_"):
        return theirs
    state = copy.deepcopy(estimator.__getstate__())  # NumPy arrays, wherever the fit was
    for name in _FITTED:
        if name in state:
            setattr(theirs, name, state[name])
    theirs.coefs_, theirs.intercepts_ = state["coefs_"], state["intercepts_"]
    theirs._best_coefs = [coefs.copy() for coefs in theirs.coefs_]
    theirs._best_intercepts = [intercepts.copy() for intercepts in theirs.intercepts_]
    if kind is TheirClassifier:
        theirs.classes_ = state["classes_"]
        theirs._label_binarizer = _binarizer(theirs.classes_, state["_label_task"])
    if "_optimizer_state" in state:
        slots, step = state["_optimizer_state"]
        theirs._optimizer = _their_optimizer(theirs, slots, step, state["_learning_rate"])
    return theirs


# What scikit-learn can say of its own parameters, and the values of ours that say what it does anyway.
_THEIR_VALUES = {
    "solver": ("lbfgs", "sgd", "adam"),
    "learning_rate": ("constant", "invscaling", "adaptive"),
    "loss": ("squared_error", "poisson", "log_loss"),
    "init": ("auto",),
    "dropout": (0.0,),
    "clip_norm": (None,),
    "scoring": (None,),
    "class_weight": (None,),
}
_THEIR_ACTIVATIONS: dict[type[Activation], str] = {
    Identity: "identity",
    Sigmoid: "logistic",
    Tanh: "tanh",
    ReLU: "relu",
}


def _expressible(estimator: Any, theirs: str) -> dict[str, Any]:
    """Return the parameters with scikit-learn's names of activations, or refuse."""
    given: dict[str, Any] = estimator.get_params()
    parameters = dict(given)
    hidden = parameters["hidden_layer_sizes"]
    n_hidden = len(hidden) if hasattr(hidden, "__len__") else 1
    kinds = {type(activation) for activation in bounding(parameters["activation"], n_hidden)}
    if len(kinds) == 1 and kinds <= set(_THEIR_ACTIVATIONS):
        parameters["activation"] = _THEIR_ACTIVATIONS[kinds.pop()]
        refused = {}
    else:
        refused = {"activation": parameters["activation"]}
    drops = dropout_of(parameters["dropout"], n_hidden)
    parameters["dropout"] = drops or 0.0
    for name, values in _THEIR_VALUES.items():
        if name in parameters and parameters[name] not in values:
            refused[name] = given[name]
    if refused:
        named = ", ".join(f"{name}={value!r}" for name, value in refused.items())
        raise ValueError(
            f"scikit-learn's {theirs} can't express {named}. Where one only says how to train, and only the trained "
            "model matters, set it back on a copy.copy of the estimator first."
        )
    return parameters


def _binarizer(classes: HostArray, task: str) -> LabelBinarizer:
    if task == "multilabel":
        return LabelBinarizer().fit(np.eye(max(len(classes), 2), dtype=int)[:, : len(classes)])
    return LabelBinarizer().fit(classes)


def _their_optimizer(theirs: Any, slots: Any, step: int, learning_rate: float) -> Any:
    """Return scikit-learn's optimizer with this memory."""
    params = theirs.coefs_ + theirs.intercepts_
    split = [_split(slot, theirs) for slot in slots or ()]
    if theirs.solver == "adam":
        optimizer: Any = AdamOptimizer(
            params, theirs.learning_rate_init, theirs.beta_1, theirs.beta_2, theirs.epsilon
        )
        optimizer.t = step
        if split:
            optimizer.ms, optimizer.vs = split
        return optimizer
    optimizer = SGDOptimizer(
        params,
        theirs.learning_rate_init,
        theirs.learning_rate,
        theirs.momentum,
        theirs.nesterovs_momentum,
        theirs.power_t,
    )
    optimizer.learning_rate = learning_rate
    if split:
        (optimizer.velocities,) = split
    return optimizer


def _split(theta: HostArray, theirs: Any) -> list[HostArray]:
    """Return the parts of a flat vector (P,) in the shapes of coefs_ and intercepts_."""
    parts, at = [], 0
    for coefs in theirs.coefs_:
        inputs, units = coefs.shape
        parts.append(theta[at : at + coefs.size].reshape(units, inputs).T.copy())
        at += coefs.size
    for intercepts in theirs.intercepts_:
        parts.append(theta[at : at + intercepts.size].copy())
        at += intercepts.size
    return parts


def from_sklearn(cls: type, theirs: Any, **parameters: Any) -> Any:
    """Return our estimator with scikit-learn's parameters and fitted model.

    Parameters
    ----------
    cls : type
        `gpunet.MLPClassifier` or `gpunet.MLPRegressor`.
    theirs : sklearn.neural_network.MLPClassifier or MLPRegressor
        Fitted or not.
    **parameters
        Those that scikit-learn doesn't have, such as ``backend``.

    Raises
    ------
    TypeError
        For the other kind of estimator.
    """
    kind = TheirClassifier if hasattr(cls, "predict_proba") else TheirRegressor
    if not isinstance(theirs, kind):
        raise TypeError(
            f"{cls.__name__}.from_sklearn takes a sklearn.neural_network.{kind.__name__}, not a "
            f"{type(theirs).__name__}."
        )
    ours = cls(**theirs.get_params(), **parameters)
    if not hasattr(theirs, "coefs_"):
        return ours
    state = copy.deepcopy(theirs.__dict__)
    for name in (*_FITTED, "coefs_", "intercepts_", "classes_"):
        if name in state:
            setattr(ours, name, state[name])
    ours._place_spec, ours.history_ = None, []
    if kind is TheirClassifier:
        multilabel = theirs._label_binarizer.y_type_.startswith("multilabel")
        several = "multiclass" if len(theirs.classes_) > 2 else "binary"
        ours._label_task = "multilabel" if multilabel else several
    optimizer = state.get("_optimizer")
    if isinstance(optimizer, AdamOptimizer):
        ours._optimizer_state = ((_flat(optimizer.ms), _flat(optimizer.vs)), optimizer.t)
        ours._learning_rate = float(theirs.learning_rate_init)
    elif isinstance(optimizer, SGDOptimizer):
        ours._optimizer_state = ((_flat(optimizer.velocities),), 0)
        ours._learning_rate = optimizer.learning_rate
    return ours


def _flat(parts: list[HostArray]) -> HostArray:
    """Return parts shaped like coefs_ and intercepts_ as one flat vector (P,)."""
    return np.concatenate([to_numpy(part).T.ravel() for part in parts])
