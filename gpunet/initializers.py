"""Initial weights: zeros, uniform, normal, Xavier and He.

Random numbers are drawn on the host, so the same seed gives the same weights on every backend. They
are drawn as scikit-learn draws them: layer by layer, the weights in the order (inputs, units), then
the biases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from gpunet.typing import HostArray


@dataclass(frozen=True)
class Initializer:
    """The base class: draws Θ and the bias of one layer.

    Called as ``initializer(random, inputs, units, rows)`` with a `numpy.random.RandomState`, the number of inputs
    (fan-in), of units (fan-out), and of rows of Θ (units × pieces for maxout). Returns Θ of shape (rows, inputs) and
    the bias of shape (rows,), NumPy arrays in float64.
    """

    name: ClassVar[str]

    def __call__(
        self, random: Any, inputs: int, units: int, rows: int
    ) -> tuple[HostArray, HostArray]:
        raise NotImplementedError


class Zeros(Initializer):
    """Θ = 0. All units of a layer then stay identical, up to rounding: the lecture's symmetry problem."""

    name = "zeros"

    def __call__(
        self, random: Any, inputs: int, units: int, rows: int
    ) -> tuple[HostArray, HostArray]:
        return random.uniform(0.0, 0.0, (inputs, rows)).T, random.uniform(0.0, 0.0, rows)


@dataclass(frozen=True)
class Uniform(Initializer):
    """Θ, its bias column too, uniform in [−ε, ε]; ε = 0.12 breaks the symmetry of small networks."""

    name = "uniform"

    epsilon: float = 0.12

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon < math.inf:
            raise ValueError(f"uniform initialization needs a finite ε > 0, not {self.epsilon}.")

    def __call__(
        self, random: Any, inputs: int, units: int, rows: int
    ) -> tuple[HostArray, HostArray]:
        theta = random.uniform(-self.epsilon, self.epsilon, (inputs, rows)).T
        return theta, random.uniform(-self.epsilon, self.epsilon, rows)


@dataclass(frozen=True)
class Normal(Initializer):
    """Θ, its bias column too, normal with mean 0; the notes' standard normal for deviation 1."""

    name = "normal"

    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.deviation < math.inf:
            raise ValueError(
                f"normal initialization needs a finite deviation > 0, not {self.deviation}."
            )

    def __call__(
        self, random: Any, inputs: int, units: int, rows: int
    ) -> tuple[HostArray, HostArray]:
        theta = random.normal(0.0, self.deviation, (inputs, rows)).T
        return theta, random.normal(0.0, self.deviation, rows)


class _Scaled(Initializer):
    """Θ with a variance that the layer's size gives, and bias 0."""

    def variance(self, inputs: int, units: int) -> float:
        raise NotImplementedError

    def __call__(
        self, random: Any, inputs: int, units: int, rows: int
    ) -> tuple[HostArray, HostArray]:
        deviation = math.sqrt(self.variance(inputs, units))
        return random.normal(0.0, deviation, (inputs, rows)).T, random.uniform(0.0, 0.0, rows)


class XavierNormal(_Scaled):
    """Normal with variance 2 / (s_l + s_{l+1}); bias 0 (Glorot & Bengio, 2010)."""

    name = "xavier_normal"

    def variance(self, inputs: int, units: int) -> float:
        return 2.0 / (inputs + units)


class XavierUniform(Initializer):
    """Uniform in ±√(6 / (s_l + s_{l+1})), which has the same variance; bias 0."""

    name = "xavier"

    def __call__(
        self, random: Any, inputs: int, units: int, rows: int
    ) -> tuple[HostArray, HostArray]:
        bound = math.sqrt(6.0 / (inputs + units))
        return random.uniform(-bound, bound, (inputs, rows)).T, random.uniform(0.0, 0.0, rows)


class He(_Scaled):
    """Normal with variance 2 / s_l, for ReLU and its kin; bias 0 (He et al., 2015)."""

    name = "he"

    def variance(self, inputs: int, units: int) -> float:
        return 2.0 / inputs


KNOWN: dict[str, type[Initializer]] = {
    kind.name: kind for kind in (Zeros, Uniform, Normal, XavierUniform, XavierNormal, He)
}
_ALIASES = {"xavier_uniform": "xavier", "glorot": "xavier", "zero": "zeros"}


def get(spec: str | Initializer) -> Initializer:
    """Return the initializer that a name or an object stands for.

    Raises
    ------
    ValueError
        For an unknown name; the known ones are listed.

    Examples
    --------
    >>> get("xavier_uniform").name
    'xavier'
    """
    if isinstance(spec, Initializer):
        return spec
    name = _ALIASES.get(spec, spec) if isinstance(spec, str) else None
    if name not in KNOWN:
        raise ValueError(f"Unknown initializer {spec!r}; known are {', '.join(KNOWN)}.")
    return KNOWN[name]()
