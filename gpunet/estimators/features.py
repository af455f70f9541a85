"""What a fitted network shows of itself: its hidden features, its layers."""

from __future__ import annotations

import html
import inspect
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from gpunet.description import table_of
from gpunet.estimators.placement import to_numpy
from gpunet.network import Architecture


class HiddenFeatures(TransformerMixin):  # type: ignore[misc]  # scikit-learn has no types
    """Makes a fitted network a transformer, whose features are a hidden layer's activations, and describes it."""

    coefs_: list[Any]

    def _architecture(self) -> Architecture:
        raise NotImplementedError

    def _outputs(self, X: Any, method: str, *, depth: int | None = None) -> Any:
        raise NotImplementedError

    def transform(self, X: Any, layer: int | None = None) -> Any:
        """Return what a hidden layer makes of each example: its activations a⁽ˡ⁾.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        layer : int, optional
            Which hidden layer, 1 for the first; None is the last.

        Returns
        -------
        array of shape (n_samples, units)
            Or a data frame, as `set_output` and `sklearn.set_config` say, with the names that `get_feature_names_out`
            returns for the layer.
        """
        layer = self._hidden_layer(layer)
        found = self._outputs(X, "transform", depth=layer)
        container = _get_output_config("transform", self)["dense"]
        if container == "default":
            return found
        names = self.get_feature_names_out(layer=layer)
        return ADAPTERS_MANAGER.adapters[container].create_container(
            to_numpy(found), X, columns=names
        )

    def get_feature_names_out(self, input_features: Any = None, *, layer: int | None = None) -> Any:
        """Return the names of what `transform` returns: the class and a number.

        Parameters
        ----------
        input_features : array-like of str, optional
            Checked against the names seen in `fit`.
        layer : int, optional
            Which hidden layer, 1 for the first; None is the last.

        Returns
        -------
        NumPy array of str objects
        """
        layer = self._hidden_layer(layer)
        _check_feature_names_in(self, input_features, generate_names=False)
        units, prefix = self._architecture().sizes[layer], type(self).__name__.lower()
        return np.asarray([f"{prefix}{unit}" for unit in range(units)], dtype=object)

    @property
    def _n_hidden(self) -> int:
        return len(self.coefs_) - 1

    def _hidden_layer(self, layer: int | None) -> int:
        """Return the number of a hidden layer, checked."""
        check_is_fitted(self)
        last = self._n_hidden
        if last == 0:
            raise ValueError(
                "transform returns a hidden layer's activations, but hidden_layer_sizes=() has no hidden layer: use "
                "decision_function or predict."
            )
        if layer is None:
            return last
        if isinstance(layer, bool) or not isinstance(layer, Integral) or not 1 <= layer <= last:
            raise ValueError(
                f"layer is the number of a hidden layer, from 1 to {last}, but is {layer!r}."
            )
        return int(layer)

    def summary(self) -> str:
        """Return a table of the fitted network's layers: units, activation, Θ, parameters."""
        check_is_fitted(self)
        rows = table_of(self._architecture())
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        total = self._architecture().n_parameters
        return "\n".join([*lines, f"{total:,} parameters, loss {self._architecture().loss.name!r}"])

    def _html_repr(self) -> str:
        """Return scikit-learn's diagram, for notebooks, with a fitted network's layers at its end."""
        diagram: str = super()._html_repr()
        if "coefs_" not in self.__dict__:
            return diagram
        first, *rows = table_of(self._architecture())
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in first)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        end = diagram.rfind("</div></div><script")  # of the container, which notebooks show
        return f"{diagram[:end]}{table}{diagram[end:]}" if end >= 0 else diagram + table


# scikit-learn's wrapper would name all columns as it does the last layer's.
HiddenFeatures.transform = inspect.unwrap(HiddenFeatures.transform)  # type: ignore[method-assign]
