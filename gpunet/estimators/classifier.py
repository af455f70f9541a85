"""`MLPClassifier`: scikit-learn's neural network for classes, on any array backend."""

from __future__ import annotations

from typing import Any, ClassVar

from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target

from gpunet.backend import Backend, backend_of
from gpunet.estimators import labels
from gpunet.estimators.parameters import CONSTRAINTS, DOCUMENTATION
from gpunet.estimators.perceptron import BasePerceptron, Read, Reading
from gpunet.estimators.placement import Placement, column_of, to_numpy
from gpunet.losses import ClippedCrossEntropy, ClippedSoftmaxCrossEntropy, CrossEntropy, Loss
from gpunet.scores import decide
from gpunet.typing import Array, Namespace


class MLPClassifier(ClassifierMixin, BasePerceptron):  # type: ignore[misc]
    """Multi-layer perceptron classifier: scikit-learn's, on any array backend.

    The parameters, attributes and methods of `sklearn.neural_network.MLPClassifier`, and with the same data, dtype and
    ``random_state`` the same model. The parameters from ``backend`` on are gpunet's own.

    Parameters
    ----------
    {parameters}
    class_weight : 'balanced', dict or None, default=None
        What each class counts, beside the sample weights, in the loss and in the scores and losses that are kept, those
        of validation data too, X_val as much as a split's. A scorer (``scoring``) isn't told of it. 'balanced' is
        n / (K · n_k) for class k of y. Not for multi-label data.
    loss : {{'log_loss', 'cross_entropy'}}, default='log_loss'
        For more than two classes: the cross-entropy of a softmax, or the notes' one-vs-all, the sum over K logistic
        outputs, whose probabilities `predict_proba` divides by their sum. Otherwise they are the same.

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
        Accuracy, or ``scoring``, on the validation data after each epoch, with early stopping.
    best_validation_score_ : float
        The highest of them.
    history_ : list of dict
        A record of each epoch: epoch, loss, learning_rate, seconds since the fit began (of short epochs that were run
        together, when the last of them ended); validation_score if there are validation data; with ``track_scores``
        score and validation_loss.
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
        class_weight: Any = None,
        loss: str = "log_loss",
    ) -> None:
        self._keep(locals())

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **CONSTRAINTS,
        "class_weight": [None, StrOptions({"balanced"}), dict],
        "loss": [StrOptions({"log_loss", "cross_entropy"})],
    }
    _task_is_numeric = False

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> MLPClassifier:
        """Fit to data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), or label indicators of shape (n_samples, n_labels)
        sample_weight : array-like of shape (n_samples,), optional
        X_val, y_val : like X and y, optional
            Validation data of your own, where X is. With early stopping they take the place of the share set aside;
            without it their score is in ``history_`` only.

        Returns
        -------
        MLPClassifier
            Itself.
        """
        return self._fit(X, y, sample_weight, X_val, y_val, incremental=False)  # type: ignore[no-any-return]

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
        if _check_partial_fit_first_call(self, classes) and backend_of([y]) is None:
            type_of_target(y)  # has scikit-learn's words for what is no y at all
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> Any:
        """Return the class of each example, or label indicators for multi-label data."""
        return self._outputs(X, "predict")

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, shape (n_samples, n_classes)."""
        return self._outputs(X, "predict_proba")

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`."""
        return self._outputs(X, "predict_log_proba")

    def decision_function(self, X: Any) -> Any:
        """Return the logits z⁽ᴸ⁾: (n_samples,) for two classes, else (n_samples, n_outputs)."""
        return self._outputs(X, "decision_function")

    def _reading(self, method: str) -> Reading:
        if method == "predict":
            task = self._label_task
            return Reading(
                lambda xp, z, a: decide(xp, task, a),
                lambda place, chosen: labels.decode(place, chosen, self.classes_, task),
            )
        reads: dict[str, Read] = {
            "predict_proba": self._probabilities,
            "predict_log_proba": lambda xp, z, a: xp.log(self._probabilities(xp, z, a)),
            "decision_function": lambda xp, z, a: z[0, :] if self.n_outputs_ == 1 else z,
        }
        return Reading(reads[method])

    def _probabilities(self, xp: Namespace, z: Array, a: Array) -> Array:
        """Return the probabilities (K, n) that outputs a stand for."""
        if self.n_outputs_ == 1:
            return xp.concat([1.0 - a, a], axis=0)
        if self._label_task != "multiclass" or self.out_activation_ != "logistic":
            return a
        total = xp.sum(a, axis=0, keepdims=True)
        some = total > 0.0  # else all have rounded to 0, and none is likelier
        a = xp.where(some, a, xp.ones_like(a))
        return a / xp.where(some, total, xp.full_like(total, float(a.shape[0])))

    def _task(self) -> str:
        return self._label_task

    def _loss_and_output(self) -> tuple[Loss, str]:
        if self.loss == "cross_entropy":
            return CrossEntropy(), "logistic"
        if self._label_task == "multiclass":
            return ClippedSoftmaxCrossEntropy(), "softmax"
        return ClippedCrossEntropy(), "logistic"

    def _encode(self, place: Placement, y: Any, *, incremental: bool) -> Any:
        y = column_of(place, y)
        classes, task = labels.classes_of(place, y)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self.classes_, self._label_task = classes, task
        elif not hasattr(self, "_label_task"):  # the first partial_fit was told the classes
            self._label_task = task if task == "multilabel" else _task_of(self.classes_)
        if task == "multilabel" != self._label_task:
            raise ValueError(
                f"The object was not fitted with multilabel input: y has {y.shape[1]} columns of label indicators, but "
                f"the y before had the exclusive classes {self.classes_}. Go on with such classes, or fit anew, with "
                "warm_start=False."
            )
        known, given = _sets(self.classes_, classes)
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

    def _encode_more(self, place: Placement, y: Any, name: str) -> Any:
        y = column_of(place, y)
        classes, task = labels.classes_of(place, y)
        known, given = _sets(self.classes_, classes)
        if not given <= known or (task == "multilabel") != (self._label_task == "multilabel"):
            raise ValueError(
                f"{name} has classes {classes} ({task}), but y has {self.classes_} ({self._label_task}): give the same "
                "kind of labels, and no others."
            )
        return self._targets(place, y)

    def _targets(self, place: Placement, y: Any) -> Any:
        return labels.encode(place, column_of(place, y), self.classes_, self._label_task)

    def _weigh(
        self, place: Placement, y: Array, weights: Array | None, *, incremental: bool
    ) -> Array | None:
        if self.class_weight is None:
            return weights
        if self._label_task == "multilabel":
            raise ValueError(
                "class_weight is for exclusive classes, but y is multi-label: leave it out, or give sample_weight."
            )
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' doesn't go with partial_fit, which sees a part of the data: give a dict such "
                "as sklearn.utils.class_weight.compute_class_weight finds for all of it."
            )
        self._class_weights = labels.class_weights(
            place, y, weights, self.class_weight, self.classes_
        )
        return labels.weigh(place, y, weights, self._class_weights)

    def _weigh_more(self, place: Placement, y: Array) -> Array | None:
        if self.class_weight is None:
            return None
        return labels.weigh(place, y, None, self._class_weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


MLPClassifier.__doc__ = (MLPClassifier.__doc__ or "").format(parameters=DOCUMENTATION)


def _sets(*several: Any) -> list[set[Any]]:
    """Return class labels, wherever they are, as sets."""
    return [set(to_numpy(classes).tolist()) for classes in several]


def _task_of(classes: Any) -> str:
    return "binary" if classes.shape[0] <= 2 else "multiclass"
