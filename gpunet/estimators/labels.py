"""Class labels of any kind to a network's targets, and its outputs back to labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import type_of_target, unique_labels

from gpunet.backend import dtype_name
from gpunet.estimators.placement import Placement, to_numpy
from gpunet.sparse import is_sparse
from gpunet.typing import Array, Namespace


def classes_of(place: Placement, y: Any) -> tuple[Any, str]:
    """Return the sorted classes in y, and the task: binary, multiclass or multilabel.

    Raises
    ------
    ValueError, TypeError
        For targets that are no classes.
    """
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biu":
        classes, kind = (
            np.unique(y),
            "multiclass",
        )  # plainly; scikit-learn finds so in 20 times as long
    elif isinstance(y, np.ndarray) or is_sparse(y) or not hasattr(y, "dtype"):
        kind = type_of_target(y, input_name="y")
        _refuse(kind, y)
        classes = unique_labels(y, ys_types={kind})
    else:
        classes, kind = _device_classes(place, y)
    if kind == "multilabel-indicator":
        return classes, "multilabel"
    return classes, "binary" if classes.shape[0] <= 2 else "multiclass"


_CONTINUOUS = (
    "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete classes on a "
    "regression target with continuous values: use MLPRegressor for these, or make classes of them first, with "
    "numpy.digitize for example."
)


def _refuse(kind: str, y: Any) -> None:
    """Refuse targets of a kind (`sklearn.utils.multiclass.type_of_target`) that are no classes."""
    if kind.startswith("continuous"):
        raise ValueError(_CONTINUOUS)
    if kind == "multiclass-multioutput":
        raise ValueError(
            f"Multioutput target data is not supported with label binarization: y has {y.shape[1]} columns of several "
            "classes each. Fit one classifier for each column (sklearn.multioutput.MultiOutputClassifier)."
        )
    if kind == "unknown":
        types = sorted({type(label).__name__ for label in np.ravel(y)})
        if len(types) > 1 or "NoneType" in types:
            raise TypeError(
                f"Unknown label type: y has labels of the types {', '.join(types)}, which can't be sorted together: "
                "make all of them strings, or all of them numbers."
            )
        raise ValueError(
            f"Unknown label type: y is an array of objects of the type {', '.join(types)}: make it one of numbers or "
            "strings, with y.astype(int) or y.astype(str) for example."
        )


def _device_classes(place: Placement, y: Array) -> tuple[Array, str]:
    """Return the classes of an array on a device, and scikit-learn's name of its kind."""
    xp = place.backend.xp
    if xp.isdtype(y.dtype, "real floating") and not bool(
        place.backend.to_host(xp.all(y == xp.floor(y)))
    ):
        raise ValueError(_CONTINUOUS)
    if y.ndim == 2:
        if not xp.isdtype(y.dtype, "bool") and not bool(
            place.backend.to_host(xp.all((y == 0) | (y == 1)))
        ):
            _refuse("multiclass-multioutput", y)
        return xp.arange(y.shape[1], device=y.device), "multilabel-indicator"
    return xp.unique_values(y), "multiclass"


def encode(place: Placement, y: Any, classes: Any, task: str) -> Any:
    """Return targets (n, K) of 0 and 1: one column for two classes, else one for each.

    Exclusive classes are label indicators too, with one label for each example.
    """
    if task == "multilabel" and y.ndim == 2:
        y = y.toarray() if is_sparse(y) else y
        return y if dtype_name(y) == "bool" else y != 0
    if isinstance(y, np.ndarray):  # labels of any kind, strings too
        one_hot: Any = y[:, None] == np.asarray(classes)[None, :]
    else:
        one_hot = y[:, None] == classes[None, :]
    if task in ("multiclass", "multilabel"):
        return one_hot
    return one_hot[:, 1:] if classes.shape[0] == 2 else one_hot[:, :1] & False


def decode(place: Placement, chosen: Array, classes: Any, task: str) -> Any:
    """Return the labels, where the classes are, that decisions (`gpunet.scores.decide`) stand for."""
    xp = place.backend.xp
    if task == "multilabel":
        return place.leave(xp.astype(chosen.T, xp.int64))
    if task != "multiclass":
        chosen = xp.astype(chosen[0, :] & (classes.shape[0] == 2), xp.int64)
    if isinstance(classes, np.ndarray):
        return classes[place.backend.to_host(chosen)]
    return xp.take(classes, chosen, axis=0)


def class_weights(
    place: Placement, y: Array, weights: Array | None, class_weight: Any, classes: Any
) -> Array:
    """Return the weight (K,) of each class, on the device.

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
    xp = place.backend.xp
    if class_weight == "balanced":
        one_hot = _one_hot(xp, y, classes)
        counts = xp.sum(one_hot if weights is None else one_hot * weights, axis=1)
        present = counts > 0.0  # a class whose examples all weigh nothing has no weight to balance
        n_present = xp.sum(xp.astype(present, counts.dtype))
        return xp.sum(counts) / (n_present * xp.where(present, counts, xp.ones_like(counts)))
    known = to_numpy(classes)
    try:
        return place.vector(compute_class_weight(class_weight, classes=known, y=known))
    except ValueError as error:
        unknown = [label for label in class_weight if label not in known.tolist()]
        raise ValueError(
            f"class_weight: {error}. It has {unknown} instead. Its keys are labels as they are in y; a class that it "
            "leaves out counts 1."
        ) from None


def weigh(place: Placement, y: Array, weights: Array | None, each: Array) -> Array:
    """Return each example's weight (n,) times that of its class, ``each`` (K,), on the device."""
    xp, K = place.backend.xp, each.shape[0]
    one_hot = _one_hot(xp, y, each)
    by_class = xp.reshape(xp.matmul(xp.reshape(each, (1, K)), one_hot), (y.shape[-1],))
    return by_class if weights is None else by_class * weights


def _one_hot(xp: Namespace, y: Array, classes: Array) -> Array:
    """Return targets as one row for each class: two classes come as one row."""
    K = classes.shape[0]
    return xp.concat([1.0 - y, y], axis=0)[:K, :] if K <= 2 else y
