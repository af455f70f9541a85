"""Stacks of networks in JAX: `vmap` over networks, `lax.scan` over an epoch's minibatches, compiled by `jit`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from _search.peers import BETA_1, BETA_2, EPSILON, LOSS_RANGE, Stack, Train


def _taken(columns, rows):
    """Return some rows, their indices taken at their word."""
    return columns.at[rows].get(mode="promise_in_bounds")


def peer(X: np.ndarray, y: np.ndarray) -> Train:
    """Return what trains stacks on these data."""
    X, y = jnp.asarray(X), jnp.asarray(y)
    return lambda stack: _train(stack, X, y)


def _train(stack: Stack, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    n_networks, epochs, n = stack.rows.shape
    n_full = n // stack.batch * stack.batch
    theta = jax.tree.map(lambda W: jnp.repeat(W[None], n_networks, axis=0), stack.weights)
    state = theta, jax.tree.map(jnp.zeros_like, theta), jax.tree.map(jnp.zeros_like, theta)
    corrections, settings = stack.corrections.astype(np.float32), (stack.alphas, stack.rates)
    losses = []
    for epoch in range(epochs):
        rows = stack.rows[:, epoch]
        full = rows[:, :n_full].reshape(n_networks, -1, stack.batch).swapaxes(0, 1)
        minibatches = full, rows[:, n_full:]
        state, loss = _epoch(state, (X, y), minibatches, corrections[epoch], settings)
        losses.append(loss)
    scores = _scores(state[0], X, y, stack.test) if stack.test.size else losses[0]
    return np.stack(losses, axis=1), np.asarray(scores, dtype=np.float64)


@functools.partial(jax.jit, donate_argnums=0)
def _epoch(state: Any, data: Any, rows: Any, corrections: Any, settings: Any) -> tuple[Any, Any]:
    """Return the state after an epoch of full minibatches (steps, S, batch) and a rest (S, fewer), and the loss."""
    (X, y), (full, rest), (alphas, rates) = data, rows, settings
    gradient = jax.vmap(jax.grad(_cost, has_aux=True))

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        rows, correction = batch
        theta, m, v = state
        g, loss = gradient(theta, _taken(X, rows), _taken(y, rows), alphas)
        m = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, m, g)
        v = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, v, g)

        def update(W: Any, m: Any, v: Any) -> Any:
            rate = correction * rates.reshape(-1, *[1] * (W.ndim - 1))
            return W - rate * m / (jnp.sqrt(v) + EPSILON)

        return (jax.tree.map(update, theta, m, v), m, v), loss * rows.shape[1]

    steps = len(full)
    state, losses = jax.lax.scan(step, state, (full, corrections[:steps]), unroll=2)
    total = losses.sum(axis=0)
    if rest.shape[1]:
        state, loss = step(state, (rest, corrections[-1]))
        total += loss
    return state, total / (steps * full.shape[2] + rest.shape[1])


def _outputs(theta: Any, X: Any) -> Any:
    *hidden, (W_last, b_last) = theta
    for W, b in hidden:
        X = jax.nn.relu(X @ W + b)
    return X @ W_last + b_last


def _cost(theta: Any, X: Any, y: Any, alpha: Any) -> tuple[Any, Any]:
    """Return a network's cost, and as scikit-learn reports it."""
    log_p = jax.nn.log_softmax(_outputs(theta, X))
    losses = -jnp.take_along_axis(log_p, y[:, None], axis=1)
    penalty = alpha * sum((W * W).sum() for W, _ in theta) / (2 * len(X))
    return losses.mean() + penalty, jnp.clip(losses, *LOSS_RANGE).mean() + penalty


@jax.jit
def _scores(theta: Any, X: Any, y: Any, test: Any) -> Any:
    """Return each network's share of right predictions."""
    right = jax.vmap(_outputs)(theta, X[test]).argmax(axis=2) == y[test]
    return right.mean(axis=1)
