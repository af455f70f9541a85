"""Loss scaling: δ kept within float16's range while matrix products round their operands to it.

float16 has nothing between 0 and 6 · 10⁻⁸, and δ is divided by the number of examples. So every δ of a step is
multiplied by a power of 2 and the gradient divided by it again, which rounds nothing (Micikevicius et al., 2018, "Mixed
precision training", section 3.2). How large it can be is found by trying: a step whose gradient isn't finite changes
nothing but halves the factor, and many good ones in a row double it. All of it is decided on the device, for each
network of a stack by itself.
"""

from __future__ import annotations

from gpunet.typing import Array, Namespace

Scale = tuple[Array, Array]
"""The factor and how many steps it has been good for, (..., 1) each."""

FIRST = 2.0**16
SMALLEST, LARGEST = 2.0**-24, 2.0**24
PATIENCE = 2000.0
"""How many good steps double the factor: PyTorch's numbers, and NVIDIA's."""


def start(xp: Namespace, theta: Array) -> Scale:
    """Return the scale before the first step of networks θ (..., P)."""
    zero = xp.zeros_like(theta[..., :1])
    return zero + FIRST, zero


def finite(xp: Namespace, gradient: Array) -> Array:
    """Return whether each network's gradient (..., P) is finite, (..., 1)."""
    return xp.all(xp.isfinite(gradient), axis=-1, keepdims=True)


def after(xp: Namespace, scale: Scale, good: Array) -> Scale:
    """Return the scale after a step that was ``good``, (..., 1), or wasn't; consumes it.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> scale = xp.asarray([[8.0], [8.0]]), xp.asarray([[1999.0], [5.0]])
    >>> factor, steps = after(xp, scale, xp.asarray([[True], [False]]))
    >>> factor[:, 0], steps[:, 0]
    (Array([16.,  4.], dtype=array_api_strict.float64), Array([0., 0.], dtype=array_api_strict.float64))
    """
    factor, steps = scale
    steps = steps + 1.0
    lasted = steps >= PATIENCE
    factor = xp.where(good, xp.where(lasted, factor * 2.0, factor), factor * 0.5)
    counts = xp.logical_and(good, xp.logical_not(lasted))
    factor = xp.minimum(xp.maximum(factor, SMALLEST), LARGEST)
    return factor, xp.where(counts, steps, xp.zeros_like(steps))
