"""The threads that matrix products take: NumPy's BLAS and SciPy's.

Requires: threadpoolctl.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from threadpoolctl import ThreadpoolController


def count() -> int:
    """Return how many threads a matrix product takes now."""
    return max((library.num_threads for library in _found().lib_controllers), default=1)


def one() -> contextlib.AbstractContextManager[Any]:
    """Keep matrix products to one thread for a while."""
    limits: contextlib.AbstractContextManager[Any] = _found().limit(limits=1)
    return limits


@functools.cache
def _found() -> Any:
    """Return what knows of BLAS's threads: to find it takes as long as a small fit."""
    return ThreadpoolController().select(user_api="blas")
