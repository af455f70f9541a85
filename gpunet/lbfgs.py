"""L-BFGS: SciPy's, on the flat parameter vector, all examples at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpunet.backend import Backend, dtype_name
from gpunet.memory import (
    PARTS,
    cost_and_gradient_in_parts,
    explained,
    step_too_large,
    with_less,
)
from gpunet.network import Architecture, cost_and_gradient
from gpunet.optimizers import LBFGS
from gpunet.runs import Callback, EarlyStopping, Evaluate, Interruption, Result, Watch
from gpunet.sparse import SparseColumns
from gpunet.training import Data, TrainingState
from gpunet.typing import Array, HostArray

_REMEDY = " L-BFGS takes all examples at once: another optimizer takes them in minibatches."


def cost_function(
    architecture: Architecture,
    data: Data,
    backend: Backend,
    like: Array,
    stop: Callable[[], bool] = lambda: False,
) -> Callable[[HostArray], tuple[float, HostArray]]:
    """Return J and its gradient as a function of θ on the host, in double precision.

    Parameters
    ----------
    architecture : Architecture
    data : Data
        On the backend's device.
    backend : Backend
    like : array of shape (P,)
        θ is converted to its dtype.
    stop : callable
        Asked before each evaluation; True raises StopIteration.
    """
    x, y, weights, l2 = data
    name = dtype_name(like)
    if isinstance(x, SparseColumns):
        x = x[..., :]  # all examples at once: where the backend makes a part dense, a dense copy
    n = y.shape[-1]
    # 1/m is in δ, and taken out again: L-BFGS has no steps to leave out
    scale = float(2 ** n.bit_length()) if backend.scales_losses(name) else None
    divided = False

    def whole(theta: Array) -> tuple[Array, Array]:
        return cost_and_gradient(
            architecture, theta, x, y, backend.primitives, l2=l2, weights=weights, scale=scale
        )

    def in_parts(theta: Array) -> tuple[Array, Array]:
        nonlocal divided
        divided = True
        return cost_and_gradient_in_parts(
            architecture,
            theta,
            n,
            lambda start, stop: (x[..., start:stop], y[..., start:stop]),
            backend.primitives,
            l2=l2,
            weights=weights,
            scale=scale,
        )

    def cost_at(theta: HostArray) -> tuple[float, HostArray]:
        if stop():
            raise StopIteration
        xp = backend.xp
        here = backend.asarray(theta, name)
        width = int(name.removeprefix("float")) // 8
        with explained(
            backend,
            lambda: (
                step_too_large(architecture, backend, n=n, m=n, n_slots=0, width=width) + _REMEDY
            ),
        ):
            if divided:
                J, gradient = in_parts(here)
            else:
                J, gradient = with_less(
                    backend,
                    lambda: whole(here),
                    lambda: in_parts(here),
                    lambda: (
                        f"L-BFGS takes all {n:,} examples at once, which didn't fit the memory of {backend.spec}: the "
                        f"gradient is added up from {PARTS} parts, which gives the same and takes longer."
                    ),
                )
        told = backend.to_host(xp.concat([gradient, xp.reshape(J, (1,))])).astype("float64")
        return float(told[-1]), told[:-1]

    return cost_at


def minimize(
    architecture: Architecture,
    state: TrainingState,
    data: Data,
    *,
    backend: Backend,
    optimizer: LBFGS,
    n_epochs: int,
    rows: Array | None = None,
    evaluate: Evaluate | None = None,
    stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Minimise J over all examples at once with SciPy's L-BFGS-B; an epoch is one of its iterations.

    Cost and gradient are computed on the device, the search direction on the host in double precision. Parameters
    and result as for `gpunet.training.train`.
    """
    from scipy.optimize import minimize as scipy_minimize  # slow to import

    xp = backend.xp
    x, y, weights, l2 = data
    dtype = dtype_name(state.theta)
    if rows is not None:
        gather = backend.primitives.gather
        x, y = gather(x, rows), gather(y, rows)
        weights = None if weights is None else gather(weights, rows)
    result = Result(xp.asarray(state.theta, copy=True), epoch=state.epoch)
    watch = Watch(backend, evaluate, stopping, callbacks, result)

    with Interruption() as interruption:
        cost_at = cost_function(
            architecture,
            (x, y, weights, l2),
            backend,
            state.theta,
            lambda: interruption.requested,
        )

        def after_iteration(intermediate_result: Any) -> None:
            state.epoch += 1
            state.theta = backend.asarray(intermediate_result.x, dtype)
            J = backend.asarray(intermediate_result.fun, dtype)
            if not watch.after_epoch(state.epoch, state.theta, J, None):
                raise StopIteration

        start = backend.to_host(state.theta).astype("float64")
        if not math.isfinite(cost_at(start)[0]):
            result.reason, result.epoch = "diverged", state.epoch + 1
            return result
        try:
            found = scipy_minimize(
                cost_at,
                start,
                method="L-BFGS-B",
                jac=True,
                callback=after_iteration,
                options={
                    "maxiter": n_epochs,
                    "maxfun": 100 * n_epochs,
                    "maxcor": optimizer.memory,
                    "gtol": optimizer.tolerance,
                    "ftol": 64 * 2.2e-16,
                },
            )
        except StopIteration:
            result.reason, result.epoch = "interrupted", state.epoch + 1
        else:
            if result.reason == "epochs" and found.success:
                result.reason = "converged"
    return result
