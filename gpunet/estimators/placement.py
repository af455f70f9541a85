"""Where an estimator's data is: on the host, or in an array library on a device ("everything follows X")."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from gpunet.memory import data_too_large, explained
from gpunet.sparse import is_sparse
from gpunet.streaming import HostColumns
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
    sparse : bool
        Whether X is sparse; set by `columns`.
    """

    backend: Backend
    host: bool
    dtype: str = "float64"
    sparse: bool = False

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
            if y.ndim > 2:
                raise ValueError(
                    f"Found array with dim {y.ndim}, while dim <= 2 is required of y: its shape is {tuple(y.shape)}."
                )
            self._finite(y, "y")
        return X, y

    def validate_again(self, estimator: Any, X: Any) -> Any:
        """Return the X of a fitted estimator's method, checked against that of `fit`."""
        fitted = estimator.coefs_[0].dtype
        if self.host:
            plain = _plain(estimator, X)
            if plain is None:
                X = validate_data(estimator, X, accept_sparse=["csr", "csc"], reset=False)
                if X.dtype.kind not in "biuf":
                    raise TypeError(
                        f"X is of numbers, but its dtype is {X.dtype}: convert it first, with numpy.asarray(X, "
                        "dtype=float) for example."
                    )
            else:
                X = plain
            narrow = np.result_type(X.dtype, fitted) == _FLOAT32
        else:
            X = self._validate_native(estimator, X, reset=False)
            narrow = dtype_name(X) == "float32" and X.dtype == fitted
        self.dtype = estimator.dtype or ("float32" if narrow else "float64")
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
        X = adopted(estimator, X)
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
        context = f"required by {type(estimator).__name__}."
        with self.backend.active():
            _check_feature_names(estimator, X, reset=reset)
            self._real(X)
            if X.ndim < 2:
                given = "scalar array" if X.ndim == 0 else "1D array"
                raise ValueError(
                    f"Expected 2D array, got {given} instead, of the shape {tuple(X.shape)}. Reshape your data to "
                    "(n, 1) if it has a single feature, or to (1, n) if it contains a single sample."
                )
            if X.ndim > 2:
                raise ValueError(f"Found array with dim {X.ndim}, while dim <= 2 is {context}")
            name = estimator.dtype
            if name is None:
                name = dtype_name(X)
                name = name if name in ("float32", "float64") else "float64"
            X = self.backend.asarray(X, name)
            self._finite(X, "X")
            for axis, what in enumerate(("sample", "feature")):
                if X.shape[axis] == 0:
                    raise ValueError(
                        f"Found array with 0 {what}(s) (shape={tuple(X.shape)}) while a minimum of 1 is {context}"
                    )
            _check_n_features(estimator, X, reset=reset)
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
            shared = self.backend.adopt(owner.asarray(values), owner)
            values = shared if backend_of([shared]) is self.backend else owner.to_host(values)
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

    def _real(self, array: Array) -> None:
        """Refuse complex numbers on a device."""
        if self.backend.xp.isdtype(array.dtype, "complex floating"):
            raise ValueError(
                f"Complex data not supported: its dtype is {array.dtype}. Give real numbers, such as its real part or "
                "its absolute value."
            )

    def _finite(self, array: Array, name: str) -> None:
        """Refuse complex numbers, NaN and infinity on a device."""
        with self.backend.active():
            xp, to_host = self.backend.xp, self.backend.to_host
            self._real(array)
            if not xp.isdtype(array.dtype, "real floating") or bool(
                to_host(xp.all(xp.isfinite(array)))
            ):
                return
            if bool(to_host(xp.any(xp.isnan(array)))):
                raise ValueError(f"Input {name} contains NaN.")
            raise ValueError(
                f"Input {name} contains infinity or a value too large for {array.dtype}."
            )

    def columns(self, rows: Any) -> Array:
        """Return X (n, d) as columns (d, n): on the device, or on the host where it is sparse or there is no room."""
        if is_sparse(rows):
            self.sparse = True
            return self.backend.sparse_columns(rows, self.dtype)
        if self._stays(rows):
            return HostColumns(rows, self.backend, self.dtype)
        return self._sent(rows, "X")

    def examples(self, rows: Any) -> Array:
        """Return X (n, d) to train on as columns (d, n): an example's numbers side by side, to be gathered."""
        if self.host and not is_sparse(rows) and not self._stays(rows):
            rows = np.ascontiguousarray(rows)
        return self.columns(rows)

    def _stays(self, rows: Any) -> bool:
        """Return whether X stays on the host, for want of room on the device."""
        return self.host and not self.backend.holds(self._bytes(rows))

    def _bytes(self, rows: Any) -> int:
        """Return how large rows are on the device."""
        width = int(self.dtype.removeprefix("float")) // 8
        return width * math.prod(map(int, rows.shape))

    def targets(self, rows: Any) -> Array:
        """Return targets (n, K) as columns (K, n) on the device."""
        return self._sent(np.ascontiguousarray(rows) if self.host else rows, "y")

    def _sent(self, rows: Any, name: str) -> Array:
        """Return rows as columns on the device."""
        return self.backend.xp.matrix_transpose(self._there(rows, name))

    def _there(self, values: Any, name: str) -> Array:
        """Return an array on the device, or say what doesn't fit its memory."""
        may_stay = self.host and name == "X"
        with explained(
            self.backend,
            lambda: data_too_large(self.backend, name, values.shape, self.dtype, may_stay=may_stay),
        ):
            return self.backend.asarray(values, self.dtype)

    def vector(self, values: Any) -> Array | None:
        """Return sample weights on the device."""
        return None if values is None else self._there(values, "sample_weight")

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

    def rows(self, parts: Sequence[Array]) -> Any:
        """Return a result that comes as columns (units, m) or (m,), in parts of the examples, as rows (n, units)."""
        if not self.host or len(parts) == 1:
            whole = parts[0] if len(parts) == 1 else self.backend.xp.concat(parts, axis=-1)
            return self.leave(whole.T if whole.ndim == 2 else whole)
        found = [self.backend.to_host(part).T for part in parts]
        n = sum(len(part) for part in found)
        # joined and transposed in one pass
        return np.concatenate(found, out=np.empty((n, *found[0].shape[1:]), found[0].dtype))


_FLOAT32 = np.dtype("float32")


def _plain(estimator: Any, X: Any) -> HostArray | None:
    """Return X as the finite matrix of numbers that it plainly is, as wide as what `fit` saw; else None.

    `validate_data` finds the same in longer than it takes to predict one example. What it would refuse or warn of is
    left to it.
    """
    array = _as_array(X)
    if array is None or array.ndim != 2 or array.dtype.kind not in "biuf":
        return None
    if array.shape[1] != estimator.n_features_in_ or array.shape[0] == 0:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if not math.isfinite(array.sum()):
            return None
    if "feature_names_in_" in estimator.__dict__ or hasattr(X, "columns"):
        _check_feature_names(estimator, X, reset=False)
    return array


def _as_array(X: Any) -> HostArray | None:
    """Return an array, a list or a pandas frame of NumPy's own dtypes as an array; None for anything else."""
    kind = type(X)
    if kind is np.ndarray:
        return X
    if kind is list:
        try:
            return np.asarray(X)
        except ValueError:  # rows of several lengths
            return None
    if kind.__module__.partition(".")[0] == "pandas" and hasattr(X, "columns"):
        # sparse and nullable columns have dtypes of pandas' own
        return np.asarray(X) if all(isinstance(dtype, np.dtype) for dtype in X.dtypes) else None
    return None


def adopted(estimator: Any, X: Any) -> Any:
    """Return X as an array of the library that the estimator asks for by name, where both share its memory.

    A torch or JAX array on the GPU of ``backend="cupy"``, or on the processor of ``backend="numpy"``, is computed on
    there without a copy. Without a name everything follows X.
    """
    owner = None if estimator.backend is None else backend_of([X])
    if owner is None:
        return X
    chosen = get_backend(estimator.backend, estimator.device)
    return X if chosen.spec == owner.spec else chosen.adopt(owner.asarray(X), owner)


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
