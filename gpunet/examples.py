"""The border: examples come in as rows of anything, and are columns on a device inside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Backend, backend_of
from gpunet.memory import data_too_large, explained
from gpunet.network import Architecture
from gpunet.streaming import HostColumns
from gpunet.typing import Array, HostArray


@dataclass(frozen=True)
class Border:
    """Checks what a user gives against a network, moves it to the network's device, and back.

    Parameters
    ----------
    architecture : Architecture
    task : str
        One of `gpunet.scores.TASKS`.
    backend : Backend
    dtype : str
        The dtype of the network's parameters: what is given is converted to it.
    """

    architecture: Architecture
    task: str
    backend: Backend
    dtype: str

    def is_host(self, *arrays: Any) -> bool:
        """Return whether the arrays are host data; refuse those of another library or device."""
        owner = backend_of(array for array in arrays if array is not None)
        if owner is None:
            return True
        if owner.spec != self.backend.spec:
            raise ValueError(
                f"The network lives on {self.backend.spec}, but the data on {owner.spec}. Move the data there or to "
                f"NumPy, or make the network with backend={owner.spec!r}."
            )
        return False

    def columns(self, X: Any, name: str = "X", *, in_parts: bool = False) -> Any:
        """Return X (m, s_1) as columns (s_1, m) on the device.

        With ``in_parts``, for what takes a part of them at a time, they stay on the host where the device has no room:
        see `gpunet.streaming.HostColumns`.

        Raises
        ------
        ValueError
            If X isn't 2-D, is empty, has another number of columns, NaN, infinity or things that aren't numbers.
        OutOfMemoryError
            If the device's memory has no room for it.
        """
        host, inputs = self.is_host(X), self.architecture.sizes[0]
        x = self._checked(X, name, ndim=2) if host else self._move(X, name, ndim=2)
        if x.shape[1] != inputs:
            raise ValueError(
                f"{name} has {x.shape[1]} columns, but the input layer has s_1 = {inputs} units: {name} is (m, s_1), "
                f"one example in each row."
            )
        if host and in_parts and not self.backend.holds(x.nbytes):
            return HostColumns(x, self.backend, self.dtype)
        if host:  # each example's numbers side by side, to be gathered quickly
            x = x if x.flags.c_contiguous else x.copy(order="C")
            with self._room_for(name, x.shape, may_stay=in_parts):
                x = self.backend.asarray(x)
        return self.backend.xp.matrix_transpose(x)

    def targets(self, Y: Any, m: int, name: str = "Y") -> Array:
        """Return Y (m, K), or (m,) for one output or class numbers, as columns (K, m).

        Raises
        ------
        ValueError
            If it doesn't fit m examples and K outputs, or the loss: NaN, class numbers or values out of range.
        """
        xp, K = self.backend.xp, self.architecture.sizes[-1]
        loss = self.architecture.loss
        y = self._move(Y, name, ndim=None)
        if y.ndim == 1 and K > 1 and self.task == "multiclass":
            with self._room_for(name, (y.shape[0], K)):
                y = self._one_hot(y, K, name)
        elif y.ndim == 1:
            y = y[:, None]
        if y.ndim != 2 or y.shape[1] != K:
            raise ValueError(
                f"{name} has the shape {tuple(y.shape)}, but the output layer has s_L = K = {K} units: {name} is (m, K)"
                + (", or (m,) with class numbers 0 to K - 1." if self.task == "multiclass" else ".")
            )
        if y.shape[0] != m:
            raise ValueError(f"{name} has {y.shape[0]} rows, but X has m = {m} examples.")
        low, high = loss.domain
        if not self._all((y >= low) & (y <= high)):
            raise ValueError(
                f"Loss {loss.name!r} needs targets between {low:g} and {high:g}, but {name} holds others. For a "
                "regression of any numbers use loss='squared_error'."
            )
        return xp.matrix_transpose(y)

    def exclusive(self, y: Array, name: str = "Y") -> None:
        """Refuse targets (K, m) to train on that are of one class only, or not one class an example.

        Raises
        ------
        ValueError
        """
        xp = self.backend.xp
        if self.task == "regression":
            return
        if self.task == "multiclass" and not self._all(xp.abs(xp.sum(y, axis=0) - 1.0) < 1e-3):
            raise ValueError(
                f"The rows of {name} don't sum to 1, so they don't name one class each. If an example may have several "
                "labels, give the network task='multilabel' and loss='cross_entropy'."
            )
        if self.task != "multilabel" and self._all(y == y[:, :1]):
            raise ValueError(
                f"All {y.shape[1]} examples are of a single class: there is nothing to tell apart. Training needs "
                "examples of two classes at least."
            )

    def sample_weight(self, weights: Any, m: int) -> Array | None:
        """Return sample weights (m,) on the device.

        Raises
        ------
        ValueError
            If they are of another number, negative, or all 0.
        """
        if weights is None:
            return None
        w = self._move(weights, "sample_weight", ndim=None)
        if tuple(w.shape) != (m,):
            raise ValueError(
                f"sample_weight has the shape {tuple(w.shape)}, but there are m = {m} examples: one each."
            )
        if not self._all(w >= 0.0) or self._all(w == 0.0):
            raise ValueError("sample_weight needs weights >= 0 that aren't all 0.")
        return w

    def leave(self, array: Array, host: bool) -> Any:
        """Return a result where the data came from: NumPy for host data, else as it is."""
        return self.backend.to_host(array) if host else array

    def _move(self, values: Any, name: str, ndim: int | None) -> Array:
        """Return finite numbers of this dtype on the device."""
        if self.is_host(values):
            values = self._checked(values, name, ndim)
            with self._room_for(name, values.shape):
                return self.backend.asarray(values)
        with self._room_for(name, values.shape):
            array = self.backend.asarray(values, self.dtype)
        if ndim is not None and array.ndim != ndim:
            raise ValueError(f"{name} has the shape {tuple(array.shape)}, but should be {ndim}-D.")
        if array.ndim == 0:
            raise ValueError(f"{name} is a single number (shape ()), not an array of examples.")
        if array.shape[0] == 0:
            raise ValueError(f"{name} has no rows: at least one example is needed.")
        if not self._all(self.backend.xp.isfinite(array)):
            raise ValueError(f"Input {name} contains NaN or infinity.")
        return array

    def _room_for(
        self, name: str, shape: Sequence[int], *, may_stay: bool = False
    ) -> AbstractContextManager[None]:
        """Return a context in which an error about memory says what didn't fit: `gpunet.memory.data_too_large`."""
        return explained(
            self.backend,
            lambda: data_too_large(self.backend, name, shape, self.dtype, may_stay=may_stay),
        )

    def _checked(self, values: Any, name: str, ndim: int | None) -> HostArray:
        """Return finite numbers of this dtype on the host."""
        from sklearn.utils import check_array  # slow to import

        return check_array(
            values, dtype=self.dtype, ensure_2d=ndim == 2, allow_nd=ndim is None, input_name=name
        )

    def _one_hot(self, y: Array, K: int, name: str) -> Array:
        xp = self.backend.xp
        if not self._all((y >= 0.0) & (y < K) & (y == xp.floor(y))):
            raise ValueError(
                f"{name} of shape (m,) should hold class numbers, whole and from 0 to K - 1 = {K - 1}, but it "
                "holds others."
            )
        numbers = self.backend.asarray(list(range(K)), self.dtype)
        return xp.astype(y[:, None] == numbers, y.dtype)

    def _all(self, condition: Array) -> bool:
        return bool(self.backend.to_host(self.backend.xp.all(condition)))


def matrices(thetas: Sequence[Any], backend: Backend, dtype: str | None) -> tuple[list[Array], str]:
    """Return the notes' weight matrices, checked, and the dtype a network of them has.

    Parameters
    ----------
    thetas : sequence of array of shape (rows, columns)
        Host data, or arrays of this backend, which stay where they are.
    backend : Backend
    dtype : str, optional
        None takes float32 if all of them are, else float64.

    Raises
    ------
    ValueError
        If there are none, or one isn't a matrix of finite numbers.
    """
    if len(thetas) == 0:
        raise ValueError("thetas is empty: a network has at least Θ⁽¹⁾.")
    checked = []
    for l, Theta in enumerate(thetas, start=1):
        if backend_of([Theta]) is None:
            from sklearn.utils import check_array  # slow to import

            checked.append(check_array(Theta, dtype="numeric", input_name=f"Theta{l}"))
            continue
        Theta = backend.asarray(Theta)  # noqa: PLW2901
        if Theta.ndim != 2:
            raise ValueError(f"Theta{l} has the shape {tuple(Theta.shape)}, but is a matrix.")
        if not bool(backend.to_host(backend.xp.all(backend.xp.isfinite(Theta)))):
            raise ValueError(f"Input Theta{l} contains NaN or infinity.")
        checked.append(Theta)
    if dtype is None:
        single = all(str(Theta.dtype).endswith("float32") for Theta in checked)
        dtype = "float32" if single else "float64"
    return checked, dtype
