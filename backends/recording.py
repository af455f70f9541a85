"""What recorders share: primitives that note a training step down instead of taking it.

A step of `gpunet.step` calls its primitives and nothing else. Called once with a recorder in their place and values
of known shapes in place of arrays, it tells all that there is to do; the backend then does it in a way of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any


class UnrecordableError(Exception):
    """A step does what a program can't hold."""


class HostNumber:
    """A number of the host that may be another one when a recorded step is taken again: λ.

    Divided by numbers it is one, too, computed in double precision as in the step itself: λ/m is rounded once. For
    everything else there is what stands for it in the recording.

    Parameters
    ----------
    value : float
    place : callable
        ``place(number)`` returns what stands for it; asked once, when it is first needed.

    Attributes
    ----------
    value : float
        The number now.
    """

    def __init__(self, value: float, place: Callable[[HostNumber], Any]) -> None:
        self.value, self._place = value, place
        self._quotients: dict[float, HostNumber] = {}

    @cached_property
    def here(self) -> Any:
        """What stands for it."""
        return self._place(self)

    def become(self, value: float) -> None:
        """Take another value, and so does all that has been computed from it."""
        self.value = value
        for divisor, quotient in self._quotients.items():
            quotient.become(value / divisor)

    def placed(self) -> Iterator[HostNumber]:
        """Yield what something stands for: this number, and those computed from it."""
        if "here" in self.__dict__:
            yield self
        for quotient in self._quotients.values():
            yield from quotient.placed()

    def __truediv__(self, other: Any) -> Any:
        if not isinstance(other, float | int):
            return self.here / other
        if other not in self._quotients:
            self._quotients[other] = HostNumber(self.value / other, self._place)
        return self._quotients[other]

    def __mul__(self, other: Any) -> Any:
        return self.here * other

    def __getitem__(self, key: Any) -> Any:
        return self.here[key]
