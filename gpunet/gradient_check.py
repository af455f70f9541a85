"""Backpropagation against numerical differentiation.

All perturbed networks are computed at once, as one stack: θ ± ε e_i is an axis like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpunet.backend import Backend
from gpunet.network import Architecture, cost, cost_and_gradient
from gpunet.typing import Array


@dataclass(frozen=True)
class LayerCheck:
    r"""What a gradient check found for one Θ⁽ˡ⁾.

    Attributes
    ----------
    layer : int
        l, from 1.
    difference : float
        The largest relative difference, \|D − N\| / max(\|D\|, \|N\|, scale), where D is backpropagation's, N the
        numerical derivative and scale the larger of a thousandth of the network's largest derivative and
        1e-4 J: below that, a difference is rounding. NaN where nothing could be compared.
    row, column : int
        Where in Θ⁽ˡ⁾ (the bias in column 0) it is.
    backpropagation, numerical : float
        D and N there.
    compared : int
        How many parameters were compared.
    kinks : int
        How many weren't because the cost has a kink (ReLU, maxout, ...) within ε of them: there the numerical
        derivative is no derivative, as shown by its changing with ε.
    """

    layer: int
    difference: float
    row: int
    column: int
    backpropagation: float
    numerical: float
    compared: int
    kinks: int

    def __str__(self) -> str:
        kinks = f", {self.kinks} at kinks left out" if self.kinks else ""
        return (
            f"Theta{self.layer}: largest relative difference {self.difference:.1e} at row {self.row}, column "
            f"{self.column} ({self.compared} compared{kinks})"
        )


def check_gradient(
    architecture: Architecture,
    theta: Array,
    x: Array,
    y: Array,
    backend: Backend,
    *,
    l2: float | None = None,
    weights: Array | None = None,
    parameters: Sequence[int] | None = None,
    epsilon: float = 2e-4,
    at_once: int = 2**22,
) -> list[LayerCheck]:
    """Compare backpropagation with central differences, extrapolated from ε, ε/2 and ε/4.

    Parameters
    ----------
    architecture : Architecture
    theta : float64 array of shape (P,)
    x : float64 array of shape (s_1, m)
    y : float64 array of shape (K, m)
    backend : Backend
    l2, weights
        As for `gpunet.network.cost`.
    parameters : sequence of int, optional
        Positions in θ to check; None checks all.
    epsilon : float
        ε, the half width of the difference.
    at_once : int
        How many numbers of a layer may be held at once; more parameters are checked in turns.

    Returns
    -------
    list of LayerCheck
        One for each Θ⁽ˡ⁾.
    """
    xp, primitives = backend.xp, backend.primitives
    J, exact = cost_and_gradient(architecture, theta, x, y, primitives, l2=l2, weights=weights)
    chosen = list(range(architecture.n_parameters) if parameters is None else parameters)
    widest = max(layer.rows for layer in architecture.layers) * x.shape[-1]
    chunk = max(1, at_once // (6 * max(widest, architecture.n_parameters)))
    J0 = float(backend.to_host(J))
    numerical: dict[int, tuple[float, float]] = {}
    for start in range(0, len(chosen), chunk):
        part = chosen[start : start + chunk]
        positions = backend.asarray(part, "int64")
        unit = positions[:, None] == backend.asarray(list(range(theta.shape[0])), "int64")
        unit = xp.astype(unit, theta.dtype)  # (parameters, P): e_i
        halves = [epsilon, epsilon / 2, epsilon / 4]
        steps = [side * half for half in halves for side in (1, -1)]
        stack = theta + xp.stack([step * unit for step in steps])
        costs = cost(architecture, stack, x, y, primitives, l2=l2, weights=weights)
        costs = backend.to_host(costs).tolist()  # (6, parameters)
        for i, *around in zip(part, *costs, strict=True):
            numerical[i] = _differentiate(J0, around, halves)
    exact = backend.to_host(exact).tolist()
    largest = max([abs(D) for D in exact] + [abs(N) for N, _ in numerical.values()])
    scale = max(1e-3 * largest, 1e-4 * J0, 1e-300)
    return _compare(architecture, exact, numerical, scale)


def _differentiate(J: float, around: list[float], halves: list[float]) -> tuple[float, float]:
    """Return the derivative, extrapolated from three central differences, and how far the cost is from smooth.

    Two measures of the latter, both of which cancel up to ε⁴ for a smooth cost: how the central differences change
    with ε (a kink beside the point) and how those of the two sides differ (a kink at the point, which central ones
    miss). A slope's jump leaves at least one of them of its own size.
    """
    sides = list(zip(around[::2], around[1::2], halves, strict=True))
    wide, middle, narrow = [(plus - minus) / (2 * h) for plus, minus, h in sides]
    gap, half_gap, quarter_gap = [(plus - 2 * J + minus) / h for plus, minus, h in sides]
    beside = abs((wide - middle) - 4 * (middle - narrow))
    at = abs(8 * (2 * quarter_gap - half_gap) - (2 * half_gap - gap))
    return (64 * narrow - 20 * middle + wide) / 45, max(beside, at)


def _compare(
    architecture: Architecture,
    exact: list[float],
    numerical: dict[int, tuple[float, float]],
    scale: float,
) -> list[LayerCheck]:
    """Turn derivatives by position in θ into a `LayerCheck` for each layer."""
    checks = []
    at, bias_at = 0, architecture.n_weights
    for l, layer in enumerate(architecture.layers, start=1):
        size = layer.rows * layer.inputs
        places = {at + i: (i // layer.inputs, 1 + i % layer.inputs) for i in range(size)}
        places |= {bias_at + row: (row, 0) for row in range(layer.rows)}
        at, bias_at = at + size, bias_at + layer.rows
        found = LayerCheck(l, float("nan"), 0, 0, float("nan"), float("nan"), 0, 0)
        compared = kinks = 0
        for i, (row, column) in places.items():
            if i not in numerical:
                continue
            N, bend = numerical[i]
            if bend > 1e-4 * scale:
                kinks += 1
                continue
            compared += 1
            difference = abs(exact[i] - N) / max(abs(exact[i]), abs(N), scale)
            if not difference <= found.difference:
                found = LayerCheck(l, difference, row, column, exact[i], N, 0, 0)
        checks.append(LayerCheck(**{**found.__dict__, "compared": compared, "kinks": kinks}))
    return checks
