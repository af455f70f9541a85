"""Learning-rate schedules: pure functions of the step's number, computed on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Schedule:
    """The base class: what the learning rate is multiplied with at each step."""

    name: ClassVar[str]

    def factor(self, step: int, total: int) -> float:
        """Return the factor of step number ``step`` = 1, 2, ... of ``total`` planned ones."""
        raise NotImplementedError


class Constant(Schedule):
    """1 throughout."""

    name = "constant"

    def factor(self, step: int, total: int) -> float:
        return 1.0


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """1 / step^power."""

    name = "inverse_scaling"

    power: float = 0.5

    def factor(self, step: int, total: int) -> float:
        return float(step**-self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to ``floor`` at the last step (Loshchilov & Hutter, 2017)."""

    name = "cosine"

    floor: float = 0.0

    def factor(self, step: int, total: int) -> float:
        done = min(step - 1, total) / max(total - 1, 1)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


KNOWN: dict[str, type[Schedule]] = {kind.name: kind for kind in (Constant, InverseScaling, Cosine)}


def get(spec: str | Schedule) -> Schedule:
    """Return the schedule that a name or an object stands for.

    Raises
    ------
    ValueError
        For an unknown name; the known ones are listed.

    Examples
    --------
    >>> [round(get("cosine").factor(step, 5), 3) for step in (1, 3, 5)]
    [1.0, 0.5, 0.0]
    """
    if isinstance(spec, Schedule):
        return spec
    if spec not in KNOWN:
        raise ValueError(f"Unknown schedule {spec!r}; known are {', '.join(KNOWN)}.")
    return KNOWN[spec]()
