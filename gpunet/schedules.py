"""Learning-rate schedules: pure functions of the step's number, computed on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
        return _cosine(1.0, self.floor, min((step - 1) / max(total - 1, 1), 1.0))


@dataclass(frozen=True)
class Steps(Schedule):
    """Times ``by`` after every ``share`` of the planned steps: 1, 0.1, 0.01 for thirds, say."""

    name = "steps"

    by: float = 0.1
    share: float = 1 / 3

    def factor(self, step: int, total: int) -> float:
        return float(self.by ** int((step - 1) / max(total * self.share, 1.0)))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from ``start`` to 1 over the first ``rise`` of the steps, down to ``end``, in half cosines (Smith, 2018)."""

    name = "one_cycle"

    rise: float = 0.3
    start: float = 0.04
    end: float = 0.0

    def factor(self, step: int, total: int) -> float:
        done = min((step - 1) / max(total - 1, 1), 1.0)
        if done < self.rise:
            return _cosine(self.start, 1.0, done / self.rise)
        return _cosine(1.0, self.end, (done - self.rise) / max(1.0 - self.rise, 1e-12))


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Up from 0 to 1 in a line over the first ``share`` of the steps, then as another schedule."""

    name = "warm_up"

    share: float = 0.05
    then: Schedule = field(default_factory=Constant)

    def factor(self, step: int, total: int) -> float:
        rising = max(int(self.share * total), 1)
        return min(step / rising, 1.0) * self.then.factor(step, total)


def _cosine(first: float, last: float, done: float) -> float:
    """Return the way from first to last at ``done`` in [0, 1], in half a cosine."""
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * done))


KNOWN: dict[str, type[Schedule]] = {
    kind.name: kind for kind in (Constant, InverseScaling, Cosine, Steps, OneCycle, WarmUp)
}


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
    if not isinstance(spec, str) or spec not in KNOWN:
        raise ValueError(f"Unknown schedule {spec!r}; known are {', '.join(KNOWN)}.")
    return KNOWN[spec]()
