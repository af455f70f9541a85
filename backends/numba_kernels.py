"""The formulas of a training step as compiled functions over plain memory, one network at a time.

Each takes pointers to its arrays and whole numbers, sizes above all. It is compiled for single or double precision when
a program first needs it (`gpunet.backends.numba_program`), and kept on disk. Real numbers come as arrays, too: in the
precision of the others, so that no loop works in another one.

Requires: numba.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types


def gather_rows(p: Any, n: Any) -> None:
    """Take some rows (m, units) of an array (examples, units)."""
    m, units, size = n[0], n[1], n[3]
    rows, taken = carray(p[0], (n[2], units)), carray(p[2], (m, units))
    examples = carray(p[1], m * 8 // size).view(np.int64)
    for j in range(m):
        row, into = rows[examples[j]], taken[j]
        for i in range(units):
            into[i] = row[i]


def gather_columns(p: Any, n: Any) -> None:
    """Take some rows of an array (examples, units) as columns (units, m)."""
    m, units, size = n[0], n[1], n[3]
    rows, taken = carray(p[0], (n[2], units)), carray(p[2], (units, m))
    examples = carray(p[1], m * 8 // size).view(np.int64)
    for start in range(0, m, 16):  # a cache line of each column at a time
        stop = min(start + 16, m)
        for i in range(units):
            for j in range(start, stop):
                taken[i, j] = rows[examples[j], i]


def transpose(p: Any, n: Any) -> None:
    """Copy rows (m, units) into columns (units, m)."""
    m, units = n[0], n[1]
    rows, columns = carray(p[0], (m, units)), carray(p[1], (units, m))
    for start in range(0, m, 16):  # a cache line of each column at a time
        for i in range(units):
            for j in range(start, min(start + 16, m)):
                columns[i, j] = rows[j, i]


def drop(p: Any, n: Any) -> None:
    """Put a · factor into ``into``: the factor is 0 or ``scale``, by the hash of `gpunet.dropout.keep`."""
    a, into, factor, scale = carray(p[0], n[0]), carray(p[1], n[0]), carray(p[2], n[0]), p[3][0]
    words = 8 // n[2]
    threshold, key = carray(p[4], words).view(np.int64)[0], carray(p[5], words).view(np.int64)[0]
    mixed, zero = _hash(key + n[1]), a.dtype.type(0)
    for i in range(a.size):
        factor[i] = scale if _hash(i ^ mixed) >= threshold else zero
        into[i] = a[i] * factor[i]


@njit
def _hash(x: int) -> int:
    """Return 32 well-mixed bits (C. Wellons' lowbias32)."""
    x &= 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def where(p: Any, n: Any) -> None:
    """Put one where the mask is true, else the other; each an array, or a number for all."""
    mask, out = carray(p[0], n[0]).view(np.uint8), carray(p[3], n[0])
    for i in range(out.size):
        out[i] = p[1][i * n[1]] if mask[i] != 0 else p[2][i * n[2]]


def shift(p: Any, n: Any) -> None:
    """Let z := z + b, for z (rows, m) and b (rows,)."""
    z, b = carray(p[0], (n[0], n[1])), carray(p[1], n[0])
    for i in range(z.shape[0]):
        row, by = z[i], b[i]
        for j in range(row.size):
            row[j] += by


def shift_relu(p: Any, n: Any) -> None:
    """Let z := max(z + b, 0); NaN stays NaN."""
    z, b = carray(p[0], (n[0], n[1])), carray(p[1], n[0])
    zero = z.dtype.type(0)  # in the others' precision, as all numbers here
    for i in range(z.shape[0]):
        row, by = z[i], b[i]
        for j in range(row.size):
            value = row[j] + by
            row[j] = zero if value <= zero else value


def minus_size(p: Any, n: Any) -> None:
    """Put −|z| into ``into``."""
    z, into = carray(p[0], n[0]), carray(p[1], n[0])
    for i in range(z.size):
        into[i] = -abs(z[i])


def logistic(p: Any, n: Any) -> None:
    """Put 1 / (1 + e⁻ᶻ) into a, with no overflow: e holds e^−|z|."""
    z, e, a = carray(p[0], n[0]), carray(p[1], n[0]), carray(p[2], n[0])
    zero, one = z.dtype.type(0), z.dtype.type(1)
    for i in range(z.size):
        a[i] = (e[i] if z[i] < zero else one) / (one + e[i])


def relu_back(p: Any, n: Any) -> None:
    """Let δ := 0 where a is 0."""
    delta, a = carray(p[0], n[0]), carray(p[1], n[0])
    zero = delta.dtype.type(0)
    for i in range(delta.size):
        d = delta[i]
        delta[i] = zero if a[i] <= zero else d


def tanh_back(p: Any, n: Any) -> None:
    """Let δ := δ (1 − a²)."""
    delta, a = carray(p[0], n[0]), carray(p[1], n[0])
    one = delta.dtype.type(1)
    for i in range(delta.size):
        delta[i] *= one - a[i] * a[i]


def sigmoid_back(p: Any, n: Any) -> None:
    """Let δ := δ a (1 − a)."""
    delta, a = carray(p[0], n[0]), carray(p[1], n[0])
    one = delta.dtype.type(1)
    for i in range(delta.size):
        delta[i] *= a[i] * (one - a[i])


def shift_to_largest(p: Any, n: Any) -> None:
    """Let z := z + b − max over the units, for z (classes, m); ``largest`` (m,) is for the maxima."""
    classes, m = n[0], n[1]
    z, b, largest = carray(p[0], (classes, m)), carray(p[1], classes), carray(p[2], m)
    for j in range(m):
        largest[j] = z[0, j] + b[0]
    for i in range(classes):
        row, by = z[i], b[i]
        for j in range(m):
            row[j] += by
            largest[j] = max(largest[j], row[j])
    for i in range(classes):
        row = z[i]
        for j in range(m):
            row[j] -= largest[j]


def softmax_output(p: Any, n: Any) -> None:
    """Put the mean cost of softmax outputs into ``cost``, and δ into ``e``, which holds eᶻ.

    z, e, y (classes, m); ``sums`` (3, m) is for what is added up. The cost is the cross-entropy, or scikit-learn's of
    clipped outputs.
    """
    classes, m, clip = n[0], n[1], n[2]
    z, e, y = (
        carray(p[0], (classes, m)),
        carray(p[1], (classes, m)),
        carray(p[2], (classes, m)),
    )
    sums, share, low = carray(p[3], (3, m)), p[4][0], p[4][1]
    zero, one = z.dtype.type(0), z.dtype.type(1)
    high, total, of_targets, log_total = one - low, sums[0], sums[1], sums[2]
    total[:] = zero
    of_targets[:] = zero
    for i in range(classes):
        for j in range(m):
            total[j] += e[i, j]
            of_targets[j] += y[i, j]
    if clip == 0:
        for j in range(m):
            log_total[j] = math.log(total[j])
    for j in range(m):
        total[j] = one / total[j]
    cost = 0.0
    for i in range(classes):
        for j in range(m):
            target = y[i, j]
            if target != zero:
                if clip == 0:
                    cost -= target * (z[i, j] - log_total[j])
                else:
                    cost -= target * math.log(max(low, min(high, e[i, j] * total[j])))
        for j in range(m):
            e[i, j] = (e[i, j] * total[j] * of_targets[j] - y[i, j]) * share
    p[5][0] = share * cost


def logistic_output(p: Any, n: Any) -> None:
    """Put the mean cross-entropy of logistic outputs into ``cost``, and δ into a.

    From z, e^−|z|, a and y, as many each; of clipped outputs as in scikit-learn, if asked for.
    """
    count, clip = n[0], n[1]
    z, e, a, y = (
        carray(p[0], count),
        carray(p[1], count),
        carray(p[2], count),
        carray(p[3], count),
    )
    share, low, zero, one = p[4][0], p[4][1], z.dtype.type(0), z.dtype.type(1)
    cost = 0.0
    for i in range(count):
        if clip == 0:
            cost += (max(z[i], zero) - y[i] * z[i]) + math.log1p(e[i])
        else:
            near = max(low, min(one - low, a[i]))
            if y[i] != zero:  # a logarithm takes as long as all else
                cost -= y[i] * math.log(near)
            if y[i] != one:
                cost -= (one - y[i]) * math.log(one - near)
        a[i] = (a[i] - y[i]) * share
    p[5][0] = share * cost


def squared_output(p: Any, n: Any) -> None:
    """Put ½ (z − y)² into ``cost``, added up by its share, and δ into z."""
    z, y, share = carray(p[0], n[0]), carray(p[1], n[0]), p[2][0]
    cost = 0.0
    for i in range(z.size):
        error = z[i] - y[i]
        cost += error * error
        z[i] = error * share
    p[3][0] = 0.5 * p[2][1] * cost


def row_sums(p: Any, n: Any) -> None:
    """Put Σ_i δ_i of δ (rows, m) into ``out`` (rows,)."""
    delta, out = carray(p[0], (n[0], n[1])), carray(p[1], n[0])
    for i in range(delta.shape[0]):
        row, total = delta[i], delta.dtype.type(0)
        for j in range(row.size):
            total += row[j]
        out[i] = total


def half_square(p: Any, n: Any) -> None:
    """Put ½ Σ Θ² into ``out``."""
    weights = carray(p[0], n[0])
    total = weights.dtype.type(0)
    for i in range(weights.size):
        total += weights[i] * weights[i]
    p[1][0] = total / 2


def decay(p: Any, n: Any) -> None:
    """Let gradient := gradient + factor · weights."""
    gradient, weights, factor = carray(p[0], n[0]), carray(p[1], n[0]), p[2][0]
    for i in range(gradient.size):
        gradient[i] += factor * weights[i]


def gradient_descent(p: Any, n: Any) -> None:
    """Step on θ, from the gradient and α."""
    theta, gradient, rate = carray(p[0], n[0]), carray(p[1], n[0]), p[2][0]
    for i in range(theta.size):
        theta[i] -= rate * gradient[i]


def momentum(p: Any, n: Any) -> None:
    """Step on θ and its velocity, from the gradient, α and μ."""
    theta, gradient, velocity = carray(p[0], n[0]), carray(p[1], n[0]), carray(p[2], n[0])
    rate, mu = p[3][0], p[4][0]
    for i in range(theta.size):
        velocity[i] = mu * velocity[i] - rate * gradient[i]
        theta[i] += velocity[i]


def nesterov(p: Any, n: Any) -> None:
    """Step on θ and its velocity, from the gradient, α and μ."""
    theta, gradient, velocity = carray(p[0], n[0]), carray(p[1], n[0]), carray(p[2], n[0])
    rate, mu = p[3][0], p[4][0]
    for i in range(theta.size):
        step = rate * gradient[i]
        velocity[i] = mu * velocity[i] - step
        theta[i] += mu * velocity[i] - step


def adam(p: Any, n: Any) -> None:
    """Step on θ and its moments, from the gradient, α_t, (β₁, 1 − β₁, β₂, 1 − β₂, ε) and λ's factor for the weights."""
    size, n_weights = n[0], n[1]
    theta, gradient, m, v = (
        carray(p[0], size),
        carray(p[1], size),
        carray(p[2], size),
        carray(p[3], size),
    )
    rate, numbers, factor = p[4][0], p[5], p[6][0]
    beta_1, rest_1, beta_2, rest_2, epsilon = (
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
    )
    for start, stop in ((0, n_weights), (n_weights, size)):
        t, d, first, second = theta[start:stop], gradient[start:stop], m[start:stop], v[start:stop]
        for i in range(t.size):
            g = d[i] + factor * t[i]
            mean = beta_1 * first[i] + rest_1 * g
            square = beta_2 * second[i] + rest_2 * (g * g)
            first[i] = mean
            second[i] = square
            t[i] -= rate * (mean / (np.sqrt(square) + epsilon))
        factor = theta.dtype.type(0)


_SUMS = frozenset({"row_sums", "half_square"})
"""Whose terms may be added in any order, as NumPy and BLAS do."""


@functools.cache
def compiled(name: str, dtype: str) -> Any:
    """Return a formula's compiled function, whose ``address`` is to be called."""
    numbers = types.CPointer(getattr(types, dtype))
    signature = types.void(types.CPointer(numbers), types.CPointer(types.int64))
    fast = {"reassoc"} if name in _SUMS else False
    make = cfunc(signature, cache=True, error_model="numpy", fastmath=fast)
    return make(globals()[name])
