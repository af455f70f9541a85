"""NumPy on the CPU: always there.

Requires: numpy.
"""

from __future__ import annotations

import contextlib
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from gpunet.backend import Backend, BackendUnavailableError


class NumPyBackend(Backend):
    """NumPy; every array is host memory."""

    name = "numpy"
    library = "numpy"
    install = "pip install numpy"
    types = ("numpy",)

    def __init__(self, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise BackendUnavailableError(f"numpy computes on 'cpu' only, not on {device!r}.")
        self.xp = xp
        self.device = "cpu"
        self.primitives.at_once = (
            2**18
        )  # stays in the cache: measured 1.4 to 2 times faster than 2**22

    def asarray(self, values: Any, dtype: str | None = None) -> np.ndarray[Any, Any]:
        """Return values as an array; no copy where none is needed."""
        return np.asarray(values, dtype=dtype)

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """Return the array itself."""
        return np.asarray(array)

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Let infinity and NaN come silently, as on a GPU: a run that diverges is told of once, by gpunet."""
        return np.errstate(over="ignore", invalid="ignore", divide="ignore")

    @classmethod
    def of(cls, array: Any) -> Backend | None:
        """Return None: NumPy arrays are host data, and the user's choice decides for them."""
        return None
