"""Class labels of any kind to a network's targets, and its outputs back to labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from gpunet.estimators.placement import Placement, to_numpy
from gpunet.sparse import is_sparse
from gpunet.typing import Array


def classes_of(place: Placement, y: Any) -> tuple[Any, str]:
    """Return the sorted classes in y, and the task: binary, multiclass or multilabel.

    Raises
    ------
    ValueError
        For targets that are no classes.
    """
    if isinstance(y, np.ndarray) or is_sparse(y) or not hasattr(y, "dtype"):
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise ValueError("Multioutput target data is not supported with label binarization")
        classes = unique_labels(y)
    else:
        classes, kind = _device_classes(place, y)
    if kind == "multilabel-indicator":
        return classes, "multilabel"
    return classes, "binary" if classes.shape[0] <= 2 else "multiclass"


def _device_classes(place: Placement, y: Array) -> tuple[Array, str]:
    """Return the classes of an array on a device, and scikit-learn's name of its kind."""
    xp = place.backend.xp
    if xp.isdtype(y.dtype, "real floating") and not bool(
        place.backend.to_host(xp.all(y == xp.floor(y)))
    ):
        raise ValueError(
            "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete classes "
            "on a regression target with continuous values."
        )
    if y.ndim == 2:
        return xp.arange(y.shape[1], device=y.device), "multilabel-indicator"
    return xp.unique_values(y), "multiclass"


def encode(place: Placement, y: Any, classes: Any, task: str) -> Any:
    """Return targets (n, K) of 0 and 1: one column for two classes, else one for each."""
    if task == "multilabel":
        return y.toarray() if hasattr(y, "toarray") else y
    if isinstance(y, np.ndarray):  # labels of any kind, strings too
        one_hot: Any = y[:, None] == np.asarray(classes)[None, :]
    else:
        one_hot = y[:, None] == classes[None, :]
    if task == "multiclass":
        return one_hot
    return one_hot[:, 1:] if classes.shape[0] == 2 else one_hot[:, :1] & False


def decode(place: Placement, h: Array, classes: Any, task: str) -> Any:
    """Return the labels that outputs h (n, K) stand for, where the classes are."""
    xp = place.backend.xp
    if task == "multilabel":
        return place.leave(xp.astype(h > 0.5, xp.int64))
    if task == "multiclass":
        chosen = xp.argmax(h, axis=1)
    else:
        chosen = xp.astype((h[:, 0] > 0.5) & (classes.shape[0] == 2), xp.int64)
    if isinstance(classes, np.ndarray):
        return classes[place.backend.to_host(chosen)]
    return xp.take(classes, chosen, axis=0)


def weigh(
    place: Placement, y: Array, weights: Array | None, class_weight: Any, classes: Any
) -> Array:
    """Return each example's weight (n,) times that of its class, on the device.

    Parameters
    ----------
    place : Placement
    y : array of shape (1, n) for two classes, else (K, n)
        Targets of 0 and 1.
    weights : array of shape (n,), optional
    class_weight : 'balanced' or dict
        Balanced, every class has the same sum of weights.
    classes : array of shape (K,)

    Raises
    ------
    ValueError
        For a dict that doesn't have the classes.
    """
    xp, n = place.backend.xp, y.shape[-1]
    K = classes.shape[0]
    one_hot = xp.concat([1.0 - y, y], axis=0)[:K, :] if K <= 2 else y
    if class_weight == "balanced":
        counts = xp.sum(one_hot if weights is None else one_hot * weights, axis=1)
        present = counts > 0.0  # a class whose examples all weigh nothing has no weight to balance
        n_present = xp.sum(xp.astype(present, counts.dtype))
        each = xp.sum(counts) / (n_present * xp.where(present, counts, xp.ones_like(counts)))
    else:
        known = to_numpy(classes)
        each = place.vector(compute_class_weight(class_weight, classes=known, y=known))
    by_class = xp.reshape(xp.matmul(xp.reshape(each, (1, K)), one_hot), (n,))
    return by_class if weights is None else by_class * weights
