"""Where an estimator's data is: on the host, or in an array library on a device ("everything follows X")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from gpunet.backend import Backend, backend_of, dtype_name, get_backend
from gpunet.sparse import SparseColumns, is_sparse
from gpunet.typing import Array, HostArray


@dataclass
class Placement:
    """A backend, and whether the data it computes on comes from the host and returns there.

    Parameters
    ----------
    backend : Backend
    host : bool
        Whether X is host data (NumPy, pandas, sparse, lists): results are NumPy then.
    dtype : str
        What is computed in; `validate` sets it from X unless the estimator's ``dtype`` does.
    """

    backend: Backend
    host: bool
    dtype: str = "float64"

    @classmethod
    def of(cls, estimator: Any, X: Any) -> Placement:
        """Return the placement for a fit on X: where X lives, or what the estimator or the user chose."""
        owner = backend_of([X])
        if owner is None:
            return cls(get_backend(estimator.backend, estimator.device), True)
        if estimator.backend is not None or estimator.device is not None:
            chosen = get_backend(estimator.backend or owner.name, estimator.device)
            if chosen.spec != owner.spec:
                raise ValueError(
                    f"X is on {owner.spec}, but the estimator asks for {chosen.spec}: move X there, or leave backend "
                    "and device out, since everything follows X."
                )
        return cls(owner, False)

    @classmethod
    def like_fit(cls, estimator: Any, X: Any, method: str) -> Placement:
        """Return the placement for a fitted estimator's method on X.

        Raises
        ------
        ValueError
            If X is in another library or on another device than the data of `fit`.
        """
        owner = backend_of([X])
        given = None if owner is None else owner.spec
        if given != estimator._place_spec:
            name = f"{type(estimator).__name__}.{method}()"
            fitted, here = estimator._place_spec or "NumPy", given or "NumPy"
            raise ValueError(
                f"Inputs passed to {name} must use the same namespace and the same device as those passed to fit(). "
                f"fit() was on {fitted}, but X is on {here}: move X there. A pickled and reloaded estimator takes "
                "NumPy data."
            )
        if owner is not None:
            return cls(owner, False)
        return cls(get_backend(estimator.backend, estimator.device), True)

    def validate(self, estimator: Any, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Return X (n, d) and y, checked as scikit-learn checks them and moved to where X is."""
        y = self._follow(y)
        if self.host:
            X, y = validate_data(
                estimator,
                X,
                y,
                accept_sparse=["csr", "csc"],
                multi_output=True,
                y_numeric=estimator._task_is_numeric,
                dtype=(np.float64, np.float32) if estimator.dtype is None else estimator.dtype,
                reset=reset,
            )
            self.dtype = estimator.dtype or X.dtype.name
            return X, y
        X = self._validate_native(estimator, X, reset=reset)
        self.dtype = dtype_name(X)
        check_consistent_length(X, y)
        if hasattr(y, "ndim") and not isinstance(y, np.ndarray):
            self._finite(y, "y")
        return X, y

    def validate_again(self, estimator: Any, X: Any) -> Any:
        """Return the X of a fitted estimator's method, checked against that of `fit`."""
        if self.host and _is_as_fitted(estimator, X):
            self.dtype = X.dtype.name
            return X
        fitted = dtype_name(estimator.coefs_[0])
        if self.host:
            X = validate_data(
                estimator,
                X,
                accept_sparse=["csr", "csc"],
                dtype=(np.float64, np.float32),
                reset=False,
            )
        else:
            X = self._validate_native(estimator, X, reset=False)
        given = dtype_name(X)
        self.dtype = estimator.dtype or max(fitted, given)  # "float64" > "float32"
        return X

    def validate_more(
        self, estimator: Any, X: Any, y: Any, X_name: str, y_name: str
    ) -> tuple[Any, Any]:
        """Return more X and y, checked against the X and y that `validate` has checked.

        Raises
        ------
        ValueError
            With the name of the one that doesn't fit.
        """
        owner = backend_of([X])
        here = None if self.host else self.backend.spec
        there = None if owner is None else owner.spec
        if here != there:
            raise ValueError(
                f"{X_name} is on {there or 'the host'}, but X is on {here or 'the host'}: move one to the other first."
            )
        try:
            if self.host:
                X = validate_data(
                    estimator, X, accept_sparse=["csr", "csc"], dtype=self.dtype, reset=False
                )
            else:
                X = self._validate_native(estimator, X, reset=False)
        except ValueError as error:
            raise ValueError(f"{X_name}: {error}") from None
        y = self._follow(y)
        try:
            if self.host:
                y = _check_y(y, multi_output=True, y_numeric=estimator._task_is_numeric)
            check_consistent_length(X, y)
        except ValueError as error:
            raise ValueError(f"{y_name}: {error}") from None
        return X, y

    def _validate_native(self, estimator: Any, X: Array, *, reset: bool) -> Array:
        """Do what `validate_data` does, for an array on a device."""
        xp = self.backend.xp
        with self.backend.active():
            if X.ndim != 2:
                raise ValueError(f"Expected 2D array, got {X.ndim}D array instead.")
            if X.shape[0] == 0:
                raise ValueError(
                    f"Found array with 0 sample(s) (shape={tuple(X.shape)}) while a minimum of 1 is required."
                )
            _check_feature_names(estimator, X, reset=reset)
            _check_n_features(estimator, X, reset=reset)
            name = estimator.dtype
            if name is None:
                name = dtype_name(X)
                name = name if name in ("float32", "float64") else "float64"
            X = self.backend.asarray(X, name)
            if not bool(self.backend.to_host(xp.all(xp.isfinite(X)))):
                raise ValueError("Input X contains NaN or infinity.")
        return X

    def _follow(self, values: Any) -> Any:
        """Return y or weights where X is."""
        owner = backend_of([values])
        if self.host:
            return values if owner is None else owner.to_host(values)
        if owner is None:
            values = np.asarray(values)
            return self.backend.asarray(values) if values.dtype.kind in "biuf" else values
        if owner.spec != self.backend.spec:
            values = owner.to_host(values)
        return self.backend.asarray(values)

    def weights(self, sample_weight: Any, X: Any) -> Any:
        """Return checked sample weights (n,) on the host or the device, or None."""
        if sample_weight is None:
            return None
        sample_weight = self._follow(sample_weight)
        if self.host:
            return _check_sample_weight(sample_weight, X, dtype=self.dtype)
        if sample_weight.ndim != 1:
            raise ValueError("Sample weights must be 1D array or scalar")  # scikit-learn's words
        check_consistent_length(X, sample_weight)
        weights = self.backend.asarray(sample_weight, self.dtype)
        self._finite(weights, "sample_weight")
        return weights

    def _finite(self, array: Array, name: str) -> None:
        """Refuse NaN and infinity on a device."""
        with self.backend.active():
            xp = self.backend.xp
            if xp.isdtype(array.dtype, "real floating") and not bool(
                self.backend.to_host(xp.all(xp.isfinite(array)))
            ):
                raise ValueError(f"Input {name} contains NaN or infinity.")

    def columns(self, rows: Any) -> Array:
        """Return rows (n, d) as columns (d, n) on the device; a sparse X stays sparse."""
        if is_sparse(rows):
            return SparseColumns(rows, self.backend, self.dtype)
        return self.backend.xp.matrix_transpose(self.backend.asarray(rows, self.dtype))

    def vector(self, values: Any) -> Array | None:
        """Return a vector on the device."""
        return None if values is None else self.backend.asarray(values, self.dtype)

    def parameters(self, drawn: HostArray) -> Any:
        """Return parameters drawn on the host as fitted attributes hold them."""
        if self.host:
            return drawn.astype(self.dtype, copy=False)
        return self.backend.asarray(drawn, self.dtype)

    def leave(self, array: Array) -> Any:
        """Return a result: NumPy for host data, else as it is; a copy of its own."""
        if not self.host:
            return self.backend.xp.asarray(array, copy=True)
        return np.array(self.backend.to_host(array), order="C")


def _is_as_fitted(estimator: Any, X: Any) -> bool:
    """Return whether X is plainly what `fit` saw, a finite array of its dtype and width.

    Then `validate_data` has nothing to do, and it takes longer than to predict one example.
    """
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype != estimator.coefs_[0].dtype:
        return False
    if X.shape[1] != estimator.n_features_in_ or X.shape[0] == 0 or not X.flags.c_contiguous:
        return False
    if "feature_names_in_" in estimator.__dict__ or estimator.dtype not in (None, X.dtype.name):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(X.sum()))


def column_of(place: Placement, y: Any) -> Any:
    """Return y (n, 1) as (n,), with scikit-learn's warning; anything else as it is."""
    if y.ndim != 2 or y.shape[1] != 1:
        return y
    if place.host:
        return column_or_1d(y, warn=True)
    return y[:, 0]


def to_numpy(value: Any) -> Any:
    """Return a value with the device's arrays in it, in lists and tuples too, as NumPy arrays."""
    if isinstance(value, list | tuple):
        return type(value)(to_numpy(item) for item in value)
    owner = backend_of([value])
    return value if owner is None else owner.to_host(value)
