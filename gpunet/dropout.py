"""Dropout: which units a training step leaves out, from a counter instead of a generator.

A unit's fate is a hash of (seed, step, layer, position). So the same seed drops the same units on every backend,
nothing is drawn on the host or moved, no generator's state lives on the device, and a resumed run goes on exactly.
"""

from __future__ import annotations

from array_api_compat import device

from gpunet.typing import Array, Namespace

_BITS = 0xFFFFFFFF


def key_of(seed: int, step: int) -> int:
    """Return the key of a training step, computed on the host: a number below 2³²."""
    return (seed * 0x9E3779B1 + step * 0x85EBCA77) & _BITS


def keep(xp: Namespace, like: Array, key: Array, layer: int, rate: Array | float) -> Array:
    """Return what to multiply a layer's activations with: 0 for a dropped unit, else 1 / (1 − rate).

    Inverted dropout (Srivastava et al., 2014): expectations stay what they are without it, so that nothing needs
    doing when predicting.

    Parameters
    ----------
    xp : namespace
    like : array of shape (..., units, m)
        The activations; the result has their shape and dtype.
    key : int64 array of shape (...)
        `key_of` of the step, one for each network.
    layer : int
        Layers of one step drop different units.
    rate : float, or float64 array of shape (...)
        The share of units that is dropped, in [0, 1).
    """
    units, m = like.shape[-2:]
    position = xp.reshape(xp.arange(units * m, dtype=xp.int64, device=device(like)), (units, m))
    mixed = _hash(key[..., None, None] + layer * 0x27D4EB2F)
    threshold, scale = _factors(xp, like, rate)
    kept = _hash(position ^ mixed) >= threshold
    return xp.astype(kept, like.dtype) * scale


def _factors(xp: Namespace, like: Array, rate: Array | float) -> tuple[Array | int, Array | float]:
    """Return the smallest hash that is kept, and 1 / (1 − rate)."""
    if isinstance(rate, float):
        return int(rate * 2**32), 1.0 / (1.0 - rate)
    rate = rate[..., None, None]
    return xp.astype(rate * 2.0**32, xp.int64), xp.astype(1.0 / (1.0 - rate), like.dtype)


def _hash(x: Array) -> Array:
    """Return 32 well-mixed bits of each number (C. Wellons' lowbias32), held in int64."""
    x = x & _BITS
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _BITS
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _BITS
    return x ^ (x >> 16)
