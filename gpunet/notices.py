"""Warnings that point at the user's own line, however many calls of libraries lie between."""

from __future__ import annotations

import inspect
import warnings

_LIBRARIES = {"gpunet", "sklearn", "joblib", "scipy"}


def warn(text: str, category: type[Warning] = UserWarning, times: int = 1) -> None:
    """Warn of something at the nearest line outside of gpunet and of what it is called through, so many times.

    What `warnings.warn` does with ``skip_file_prefixes`` in Python 3.12 and later.
    """
    frame, level = inspect.currentframe(), 1  # this one's
    while frame is not None and _package(frame.f_globals) in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    for _ in range(times):
        warnings.warn(text, category, stacklevel=level)


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__")).partition(".")[0]
