"""Fitted estimators asked about the same examples: small networks of one architecture answer as a stack.

To ask a small network takes longer than its matrix products do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from gpunet.activations import Custom
from gpunet.estimators import MLPClassifier, MLPRegressor
from gpunet.estimators.perceptron import forward
from gpunet.estimators.placement import Placement, adopted
from gpunet.network import Architecture
from gpunet.sparse import is_sparse
from gpunet.typing import Array


def answers(estimators: Sequence[Any], method: str, X: Any) -> list[Any]:
    """Return what a method of each estimator says of the same X.

    Parameters
    ----------
    estimators : sequence of MLPClassifier or MLPRegressor
        Fitted.
    method : {'predict', 'predict_proba', 'predict_log_proba', 'decision_function'}
    X : array-like or sparse matrix of shape (n_samples, n_features)

    Returns
    -------
    list
        The same as ``[getattr(estimator, method)(X) for estimator in estimators]``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from gpunet import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> networks = [MLPClassifier((5,), solver="lbfgs", tol=0.1, random_state=k).fit(X, y) for k in (0, 1)]
    >>> [classes.shape for classes in answers(networks, "predict", X)]
    [(150,), (150,)]
    """
    groups: dict[Any, list[int]] = {}
    for k, estimator in enumerate(estimators):
        groups.setdefault(_kind(estimator), []).append(k)
    found: list[Any] = [None] * len(estimators)
    for members in groups.values():
        alike = [estimators[k] for k in members]
        for k, answer in zip(members, _of_alike(alike, method, X), strict=True):
            found[k] = answer
    return found


def _kind(estimator: Any) -> Any:
    """Return what estimators have in common that can answer as a stack."""
    if type(estimator) not in (MLPClassifier, MLPRegressor):
        return id(estimator)  # a subclass's methods may be its own
    architecture = estimator._architecture()
    if not all(map(_is_ours, architecture.activations)):
        return id(estimator)  # functions of a user's own may not know of stacks
    names = estimator.__dict__.get("feature_names_in_")
    return (type(estimator), architecture, estimator.coefs_[0].dtype, estimator.backend, estimator.device,
            estimator.dtype, estimator._place_spec, None if names is None else tuple(names))  # fmt: skip


def _is_ours(activation: Any) -> bool:
    return type(activation).__module__ == Custom.__module__ and not isinstance(activation, Custom)


def _of_alike(estimators: Sequence[Any], method: str, X: Any) -> list[Any]:
    """Return the answers of estimators of one `_kind`."""
    first = estimators[0]
    if len(estimators) == 1:
        return [getattr(first, method)(X)]
    X = adopted(first, X)
    place = Placement.like_fit(first, X, method)
    checked = place.validate_again(first, X)
    size = 1
    if not is_sparse(checked) and not place.backend.compiles_shapes:
        size = _stack_size(first._architecture(), checked.shape[0], len(estimators), place)
    if size == 1:
        return [getattr(estimator, method)(X) for estimator in estimators]
    with place.backend.active():
        x = place.columns(checked)
        stacks = [estimators[at : at + size] for at in range(0, len(estimators), size)]
        return [answer for stack in stacks for answer in _of_stack(stack, method, place, x)]


def _of_stack(stack: Sequence[Any], method: str, place: Placement, x: Array) -> Iterator[Any]:
    """Yield the answers to examples x (s_1, n)."""
    xp, primitives = place.backend.xp, place.backend.primitives
    thetas = []
    for layer in zip(*(estimator._thetas(place) for estimator in stack), strict=True):
        Theta, bias = zip(*layer, strict=True)
        thetas.append((xp.stack(Theta), xp.stack(bias)))
    [(z, a)] = forward(stack[0]._architecture(), thetas, x, primitives, lambda xp, z, a: (z, a))
    for k, estimator in enumerate(stack):
        reading = estimator._reading(method)
        yield reading.returned(place, [reading.read(xp, z[k, ...], a[k, ...])])


_AT_ONCE = 2**18
"""How many numbers of a layer a stack may hold: torch was measured no faster with more, and with 2²² twice as slow."""


def _stack_size(architecture: Architecture, n: int, networks: int, place: Placement) -> int:
    """Return how many networks answer at once: 1 where one alone fills the caches."""
    widest = max(architecture.sizes[0], *(layer.rows for layer in architecture.layers))
    at_once = min(_AT_ONCE, place.backend.primitives.at_once)
    fitting = max(1, at_once // (n * widest))
    return math.ceil(networks / math.ceil(networks / fitting))
