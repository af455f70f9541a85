"""The threads that matrix products take: NumPy's BLAS and SciPy's.

Requires: threadpoolctl.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0
_outside = 1
_limit: Any = None


def count() -> int:
    """Return how many threads a matrix product takes, where `one` keeps them to none fewer."""
    with _lock:
        return _outside if _inside else _now()


@contextlib.contextmanager
def one() -> Iterator[None]:
    """Keep matrix products to one thread for a while: the first to come sets it, the last to leave undoes it."""
    global _inside, _outside, _limit  # noqa: PLW0603  # what is limited is the process's, too
    with _lock:
        if not _inside:
            _outside, _limit = _now(), _found().limit(limits=1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limit.restore_original_limits()


def one_in_this_thread() -> None:
    """Keep a new thread's products to one thread, inside of `one`: some libraries ask each thread for itself."""
    for library in _found().lib_controllers:
        library.set_num_threads(1)


def _now() -> int:
    return max((library.num_threads for library in _found().lib_controllers), default=1)


@functools.cache
def _found() -> Any:
    """Return what knows of BLAS's threads: to find it takes as long as a small fit."""
    return ThreadpoolController().select(user_api="blas")
