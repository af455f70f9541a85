"""From a candidate's parameters to a network and the transformers before it, or why scikit-learn has to fit it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils._metadata_requests import _routing_enabled

from gpunet.estimators import MLPClassifier, MLPRegressor
from gpunet.estimators.perceptron import BasePerceptron

Params = Mapping[str, Any]


class Blank:
    """An estimator to copy with other parameters: what `clone` and ``set_params`` do, in microseconds.

    Parameters
    ----------
    estimator : estimator
        Unfitted, and the caller's no more.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        params = estimator.get_params(deep=False)
        self._known = params.keys() if type(estimator) in (MLPClassifier, MLPRegressor) else set()
        self._mutable = {name: value for name, value in params.items() if not _is_constant(value)}

    def with_parameters(self, params: Params) -> Any:
        """Return an unfitted copy with these parameters."""
        if not self._known >= params.keys():  # a subclass, or scikit-learn's error
            return clone(self._estimator).set_params(**clone(dict(params), safe=False))
        new = copy.copy(self._estimator)
        for name, value in {**self._mutable, **params}.items():
            setattr(new, name, value if _is_constant(value) else clone(value, safe=False))
        return new


def _is_constant(value: Any) -> bool:
    """Return whether nobody can change a value, so that copies may share it."""
    if type(value) is tuple:
        return all(map(_is_constant, value))
    return value is None or type(value) in (int, float, str, bool) or isinstance(value, np.number)


@dataclass(eq=False)
class Recipe:
    """How candidates become networks that differ in the network's parameters only.

    Attributes
    ----------
    network : Blank
    pipeline : Pipeline, optional
        Whose last step the network is; unfitted.
    """

    network: Blank
    pipeline: Any = None

    @property
    def transformers(self) -> list[tuple[str, Any]]:
        """The pipeline's steps before the network, without those that do nothing."""
        steps = [] if self.pipeline is None else self.pipeline.steps[:-1]
        return [(name, step) for name, step in steps if step is not None and step != "passthrough"]


class Recipes:
    """The recipes of a search's candidates.

    Parameters
    ----------
    base : estimator
        The search's, cloned.
    reason : str, optional
        Why no candidate can be trained with others.
    fit_params : dict
        What is given to every `fit` beside X and y.
    """

    def __init__(self, base: Any, reason: str | None, fit_params: Params) -> None:
        self._base, self._reason = base, reason
        self._made: dict[Any, Recipe | str] = {}
        self._last = None
        if type(base) is Pipeline and base.steps:
            self._last = base.steps[-1][0] + "__"
            if fit_params:
                self._reason = self._reason or "parameters of fit for a pipeline's steps"
            elif _routing_enabled():
                self._reason = self._reason or "metadata routing through a pipeline"
        elif isinstance(base, BasePerceptron):
            self._last = ""  # every parameter is the network's
            if fit_params.keys() - {"sample_weight"}:
                self._reason = self._reason or "parameters of fit beside sample_weight"
        else:
            self._reason = self._reason or f"{type(base).__name__} isn't gpunet's"

    def of(self, params: Params) -> tuple[Recipe, Params] | str:
        """Return how to make a candidate and the parameters of its network, or why it is fitted singly."""
        if self._reason is not None or self._last is None:
            return str(self._reason)
        n = len(self._last)
        if n == 0:
            head: Params = {}
            tail = params
        else:
            head = {k: value for k, value in params.items() if not k.startswith(self._last)}
            tail = {k[n:]: value for k, value in params.items() if k.startswith(self._last)}
        key = tuple((name, _identity(head[name])) for name in sorted(head))
        if key not in self._made:
            self._made[key] = self._make(head)
        recipe = self._made[key]
        return recipe if isinstance(recipe, str) else (recipe, tail)

    def _make(self, head: Params) -> Recipe | str:
        if self._last == "":
            return Recipe(Blank(self._base)) if not is_watched(self._base) else "callbacks"
        pipeline = clone(self._base).set_params(**clone(dict(head), safe=False))
        reason = _undivided(pipeline) or ("steps are searched" if "steps" in head else None)
        return reason or Recipe(Blank(pipeline.steps[-1][1]), pipeline)


def _undivided(pipeline: Any) -> str | None:
    """Return why a pipeline has to be fitted as a whole, None if it needn't be."""
    if pipeline.memory is not None:
        return "a pipeline with memory"
    if pipeline.verbose or pipeline.transform_input is not None:
        return "a pipeline with verbose or transform_input"
    last = pipeline.steps[-1][1]
    if not isinstance(last, BasePerceptron):
        return f"{type(last).__name__} isn't gpunet's"
    if any(map(is_watched, [pipeline, *(step for _, step in pipeline.steps)])):
        return "callbacks"
    try:
        pipeline._validate_steps()
    except (TypeError, ValueError):
        return "a pipeline that can't be fitted"  # scikit-learn says why
    return None


def is_watched(estimator: Any) -> bool:
    """Return whether somebody wants to be told of an estimator's fit (`set_callbacks`)."""
    return bool(getattr(estimator, "_skl_callbacks", ()))


def _identity(value: Any) -> Any:
    """Return a key that equal settings share; candidates of a grid share what isn't a constant."""
    return (type(value), value) if _is_constant(value) else id(value)
