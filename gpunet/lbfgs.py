"""L-BFGS: SciPy's, on the flat parameter vector, all examples at once.

SciPy asks for the cost and its gradient. They are computed by a step, as an optimizer's are, so that a backend's
``compile`` makes them fast in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from array_api_compat import device

from gpunet.backend import Backend, dtype_name
from gpunet.memory import PARTS, explained, step_too_large, with_less
from gpunet.network import Architecture, cost_and_gradient, cost_and_gradient_in_parts
from gpunet.optimizers import LBFGS, Slots
from gpunet.primitives import Primitives
from gpunet.runs import Callback, EarlyStopping, Evaluate, Interruption, Result, Watch
from gpunet.sparse import SparseColumns
from gpunet.step import Data
from gpunet.streaming import HostColumns
from gpunet.training import TrainingState
from gpunet.typing import Array, HostArray

_REMEDY = " L-BFGS takes all examples at once: another optimizer takes them in minibatches."
_REMEDY_IN_PARTS = (
    " L-BFGS has taken them in parts of so many: another optimizer takes minibatches."
)


@dataclass(frozen=True)
class CostStep:
    """A step that stays where it is: its result is the gradient, in the place of an optimizer's memory, and the cost.

    Called as `gpunet.step.TrainingStep` is, with carry = (θ, (∂J/∂θ,), J) and `Data`; it takes all examples.
    """

    architecture: Architecture
    scale: float | None = None
    parts: int = 1

    def __call__(
        self,
        primitives: Primitives,
        carry: tuple[Array, Slots, Array],
        batch: tuple[Array, ...],
        data: Data,
    ) -> tuple[Array, Slots, Array]:
        theta, _, _ = carry
        x, y, weights, l2 = data
        if weights is not None:
            weights = primitives.whole(weights)
        if self.parts > 1:
            J, gradient = cost_and_gradient_in_parts(
                self.architecture,
                theta,
                x.shape[-1],
                lambda of, start, stop: (
                    of.whole(x[..., start:stop]),
                    of.whole(y[..., start:stop]),
                ),
                primitives,
                parts=self.parts,
                l2=l2,
                weights=weights,
                scale=self.scale,
            )
            return theta, (gradient,), J
        J, gradient = cost_and_gradient(
            self.architecture,
            theta,
            primitives.whole(x),
            primitives.whole(y),
            primitives,
            l2=l2,
            weights=weights,
            scale=self.scale,
        )
        return theta, (gradient,), J


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
    x, *rest = data
    xp, name, n = backend.xp, dtype_name(like), x.shape[-1]
    # 1/m is in δ, and taken out again: L-BFGS has no steps to leave out
    scale = float(2 ** n.bit_length()) if backend.scales_losses(name) else None
    step = CostStep(architecture, scale)
    if isinstance(x, SparseColumns):  # what decides on the host can't be compiled
        run = Backend.compile(backend, step)
        x = x[..., :]  # all examples at once: where the backend makes a part dense, a dense copy
    elif isinstance(x, HostColumns):  # a part after the other
        step = replace(step, parts=max(2, x.parts))
        run = Backend.compile(backend, step)
    else:
        run = backend.compile(step)
    data = (x, *rest)
    batches = (xp.arange(x.shape[-1], dtype=xp.int64, device=device(like))[None, :],)
    slots, J = (xp.zeros_like(like),), backend.asarray(0.0, name)
    width = int(name.removeprefix("float")) // 8

    def too_large() -> str:
        on_host = step.parts > 1
        m = math.ceil(n / (PARTS * step.parts)) if on_host else n
        words = step_too_large(
            architecture, backend, n=n, m=m, n_slots=0, width=width, on_host=on_host
        )
        return words + (_REMEDY_IN_PARTS if on_host else _REMEDY)

    def divided() -> str:
        taken = "at once, which" if step.parts == 1 else f"in {step.parts:,} parts, one of which"
        return (
            f"L-BFGS takes all {n:,} examples {taken} didn't fit the memory of {backend.spec}: the gradient is added "
            f"up from {PARTS * step.parts:,} parts, which gives the same and takes longer."
        )

    def in_parts(theta: Array) -> Any:
        nonlocal run
        run = Backend.compile(backend, replace(step, parts=PARTS * step.parts))
        return run((theta, (xp.zeros_like(theta),), 0.0), batches, data, lambda: False)

    def cost_at(theta: HostArray) -> tuple[float, HostArray]:
        nonlocal slots, J
        if stop():
            raise StopIteration
        here = backend.asarray(theta, name)
        with explained(backend, too_large):
            _, slots, J = with_less(
                backend,
                lambda: run((here, slots, J), batches, data, lambda: False),
                lambda: in_parts(backend.asarray(theta, name)),
                divided,
            )
        (gradient,) = slots
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
        x = x.chosen(rows) if isinstance(x, HostColumns) else gather(x, rows)
        y = gather(y, rows)
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
