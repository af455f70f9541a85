"""What the mathematics takes: any array of any library, and that library's functions."""

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of the Array API standard, on whatever device it lives."""

Namespace: TypeAlias = Any
"""A namespace of the Array API standard (``xp``): NumPy's, CuPy's, torch's, ..."""

HostArray: TypeAlias = Any
"""A NumPy array."""
