"""Estimators of one shape trained as a stack, epoch by epoch, each by scikit-learn's rules."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpunet.estimators.monitor import Monitor
from gpunet.estimators.prepared import Prepared
from gpunet.estimators.stochastic import Rules
from gpunet.network import hypothesis
from gpunet.notices import warn
from gpunet.scores import score
from gpunet.stacks import Stack
from gpunet.typing import Array


class StackedFit:
    """The fit of estimators of one `Prepared.shape`.

    Parameters
    ----------
    prepared : sequence of Prepared
    """

    def __init__(self, prepared: Sequence[Prepared]) -> None:
        first = prepared[0]
        self._prepared, self._place, self._backend = prepared, first.place, first.place.backend
        self._architecture = first.estimator._described
        self._alive: list[int | None] = list(range(len(prepared)))
        with self._backend.active():
            self._stack = Stack(
                self._architecture,
                first.x,
                first.y,
                [each.member() for each in prepared],
                backend=self._backend,
                batch_size=first.batch_size,
                shuffle=first.estimator.shuffle,
            )
            self._held = None if first.held is None else self._held_out()
        self._rules = [
            Rules(
                each.estimator,
                Monitor(each.estimator, (None, None, None), dict, tasks=False),
                n=each.rows.size,
                steps=self._stack.steps,
                held=each.held is not None,
                incremental=False,
            )
            for each in prepared
        ]

    def _held_out(self) -> tuple[Array, Array, Array | None]:
        """Return the validation data: (units, n) where all members share it, else (members, units, n)."""
        backend, prepared = self._backend, self._prepared
        first = prepared[0]
        shared = all(each.held is first.held for each in prepared)
        if shared:
            held = backend.asarray(first.held)
        else:
            held = backend.xp.stack([backend.asarray(each.held) for each in prepared])
        gather, weights = backend.primitives.gather, None
        if first.weights is not None:
            w = first.weights
            if any(each.weights is not w for each in prepared):
                w = backend.xp.stack([each.weights for each in prepared])
            weights = backend.primitives.gather_weights(w, held)
        return gather(first.x, held), gather(first.y, held), weights

    def run(
        self, stop: Callable[[], bool], after_epoch: Callable[[Sequence[int]], None] | None = None
    ) -> list[Exception | None]:
        """Train all; return why each one failed, if it did.

        Parameters
        ----------
        stop : callable
            Asked before each step whether to give up; then the estimators are left unfinished.
        after_epoch : callable, optional
            Called with the indices of the members that went through the epoch.
        """
        errors: list[Exception | None] = [None] * len(self._prepared)
        xp, stack = self._backend.xp, self._stack
        with self._backend.active():
            best = xp.asarray(stack.theta, copy=True) if self._held is not None else None
            while any(k is not None for k in self._alive) and not stop():
                alive = [k for k in self._alive if k is not None]
                for k, member in zip(self._alive, stack.members, strict=True):
                    if k is not None:
                        member.learning_rate = self._rules[k].learning_rate
                step = stack.step
                costs = stack.run_ahead(min(self._rules[k].ahead for k in alive), stop)
                if stop():
                    break
                for records in self._records(costs):
                    step += stack.steps
                    going = [
                        k is not None and self._rules[k].after_epoch(record, None, step)
                        for k, record in zip(self._alive, records, strict=True)
                    ]
                if best is not None:
                    best = self._best(best)
                if not all(going):
                    self._finish(going, stack.theta if best is None else best, errors)
                    best = self._part(best)
                if after_epoch is not None:
                    for _ in costs:
                        after_epoch(alive)
        return errors

    def _records(self, costs: Sequence[Array]) -> list[list[dict[str, float]]]:
        """Return what is known of each epoch, all read from the device at once; scores only of the last one."""
        backend, xp = self._backend, self._backend.xp
        if self._held is None:
            losses = backend.to_host(xp.stack(costs)).tolist()
            return [[{"loss": loss} for loss in epoch] for epoch in losses]
        x, y, weights = self._held
        theta, estimator = self._stack.theta, self._prepared[0].estimator
        _, h = hypothesis(self._architecture, theta, x, backend.primitives)
        rows = estimator._scored_rows()
        h, y = h[..., rows, :], y[..., rows, :]
        classes = getattr(estimator, "classes_", None)
        if classes is not None and classes.shape[0] == 1:
            h = xp.zeros_like(h)  # where there is one class, it is predicted whatever h says
        scores = score(xp, estimator._task(), h, y, weights)
        losses, scores = backend.to_host(xp.stack([costs[-1], scores])).tolist()
        return [
            [
                {"loss": loss, "validation_score": right}
                for loss, right in zip(losses, scores, strict=True)
            ]
        ]

    def _best(self, best: Array) -> Array:
        """Return the parameters with the best validation scores so far, (members, P)."""
        improved = [k is not None and self._rules[k].improved for k in self._alive]
        if not any(improved):
            return best
        xp = self._backend.xp
        mask = self._backend.asarray(np.asarray(improved))
        return xp.where(mask[:, None], self._stack.theta, best)

    def _finish(self, going: Sequence[bool], final: Array, errors: list[Exception | None]) -> None:
        """Finish the estimators that don't go on."""
        stack, xp = self._stack, self._backend.xp
        for i, (k, goes) in enumerate(zip(self._alive, going, strict=True)):
            if goes or k is None:
                continue
            self._alive[i] = None
            stack.leave_generator(i)
            estimator = self._prepared[k].estimator
            slots = tuple(xp.asarray(slot[i, :], copy=True) for slot in stack.slots)
            estimator._optimizer_state = (slots, stack.step)
            try:
                estimator._end(self._place, final[i, :])
            except ValueError as error:
                errors[k] = error

    def _part(self, best: Array | None) -> Array | None:
        """Let the finished members leave the stack; return the others' best parameters.

        Where every new shape is compiled anew, not before half of them are finished.
        """
        staying = [i for i, k in enumerate(self._alive) if k is not None]
        patience = 0.5 if self._backend.compiles_shapes else 1.0
        if (
            not staying
            or len(staying) == len(self._alive)
            or len(staying) > patience * len(self._alive)
        ):
            return best
        self._alive = [self._alive[i] for i in staying]
        self._stack.keep(staying)
        if self._held is None or best is None:
            return best
        xp, chosen = self._backend.xp, self._backend.asarray(np.asarray(staying))
        x, y, weights = self._held
        if x.ndim > 2:
            x, y = xp.take(x, chosen, axis=0), xp.take(y, chosen, axis=0)
        if weights is not None and weights.ndim > 1:
            weights = xp.take(weights, chosen, axis=0)
        self._held = x, y, weights
        return xp.take(best, chosen, axis=0)

    def warn(self) -> None:
        """Say what the fits have to say, as each would alone."""
        texts = collections.Counter(rules.warning for rules in self._rules)
        for text, times in texts.items():
            if text is not None:
                warn(text, ConvergenceWarning, times)
