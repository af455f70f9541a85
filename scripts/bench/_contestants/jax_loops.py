"""JAX as its users train it: `jit` of a whole epoch of steps, or of a single one; memory donated."""

import functools
import math

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from _contestants import Contestant
from _contestants.workloads import ALPHA, BETA_1, BETA_2, EPSILON, initial, orders

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "logistic": jax.nn.sigmoid}


def one_minus_power(beta, t):
    """Return 1 − βᵗ without cancellation."""
    return -jnp.expm1(t * math.log(beta))


class Loop(Contestant):
    """What both loops share. The state is (parameters, first and second moments, the step's number)."""

    def __init__(self, workload, X, y):
        jax.config.update("jax_enable_x64", workload.dtype == "float64")
        super().__init__(workload, X, y)
        self.X, self.y = jnp.asarray(X), jnp.asarray(y, dtype=jnp.int32)
        self.start = initial(workload)
        self.orders = [order.astype(np.int32) for order in orders(workload)]
        self.compiled_cost = jax.jit(jax.value_and_grad(self.regularised))
        self.compiled_labels = jax.jit(self.labels)

    def outputs(self, parameters, x):
        """Return z of the output layer."""
        g = ACTIVATIONS[self.workload.activation]
        for W, b in parameters[:-1]:
            x = g(x @ W + b)
        W, b = parameters[-1]
        return x @ W + b

    def cost(self, parameters, x, y):
        """Return the mean cross-entropy."""
        z = self.outputs(parameters, x)
        if self.workload.outputs == 1:
            return jnp.mean(jnp.logaddexp(0, jnp.where(y == 1, -z[:, 0], z[:, 0])))
        chosen = jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(z, axis=1) - chosen)

    def regularised(self, parameters, x, y):
        """Return it with scikit-learn's L2 term."""
        squares = sum(jnp.sum(W * W) for W, _ in parameters)
        return self.cost(parameters, x, y) + 0.5 * ALPHA / x.shape[0] * squares

    def step(self, state, rows, X, y):
        """Take one step on the given rows, None for all; return the state and the rows' summed cost."""
        parameters, first, second, t = state
        if rows is not None:
            X = X.at[rows].get(mode="promise_in_bounds")
            y = y.at[rows].get(mode="promise_in_bounds")
        m = X.shape[0]
        cost, gradient = jax.value_and_grad(self.cost)(parameters, X, y)
        gradient = [
            (g + ALPHA / m * W, h) for (g, h), (W, _) in zip(gradient, parameters, strict=True)
        ]
        t, rate = t + 1, self.workload.rate
        if self.workload.solver == "gradient_descent":
            parameters = jax.tree.map(lambda p, g: p - rate * g, parameters, gradient)
        else:
            rate = rate * jnp.sqrt(one_minus_power(BETA_2, t)) / one_minus_power(BETA_1, t)
            first = jax.tree.map(lambda v, g: BETA_1 * v + (1 - BETA_1) * g, first, gradient)
            second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, second, gradient)
            parameters = jax.tree.map(
                lambda p, u, v: p - rate * u / (jnp.sqrt(v) + EPSILON), parameters, first, second
            )
        return (parameters, first, second, t), cost * m

    def begin(self):
        """Return the state before the first step."""
        parameters = [tuple(map(jnp.array, layer)) for layer in self.start]
        moments = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]
        if self.workload.solver == "gradient_descent":
            moments = [(), ()]
        return parameters, *moments, jnp.zeros((), self.X.dtype)

    def fit(self, epochs):
        if self.workload.solver == "lbfgs":
            self.fit_lbfgs(epochs)
        else:
            state, self.losses = self.train(self.begin(), epochs)
            self.learned = state[0]
            jax.block_until_ready(self.learned)

    def fit_lbfgs(self, iterations):
        """Let SciPy's L-BFGS-B do what scikit-learn's does, with JAX's cost and gradient."""
        import scipy.optimize

        start, unravel = jax.flatten_util.ravel_pytree(self.start)

        def cost_at(theta):
            cost, gradient = self.compiled_flat(jnp.asarray(theta, self.X.dtype), self.X, self.y)
            return float(cost), np.asarray(gradient, dtype=np.float64)

        found = scipy.optimize.minimize(
            cost_at, np.asarray(start, dtype=np.float64), method="L-BFGS-B", jac=True,
            options={"maxiter": iterations, "maxfun": 15_000, "gtol": 0.0},
        )  # fmt: skip
        if found.nit != iterations:
            raise RuntimeError(f"ended after {found.nit} of {iterations} iterations")
        self.learned = unravel(jnp.asarray(found.x, self.X.dtype))

    @functools.cached_property
    def compiled_flat(self):
        """`regularised` and its gradient as a function of the flat parameters."""
        unravel = jax.flatten_util.ravel_pytree(self.start)[1]
        return jax.jit(
            jax.value_and_grad(lambda theta, X, y: self.regularised(unravel(theta), X, y))
        )

    def parameters(self):
        return [tuple(map(np.asarray, layer)) for layer in self.learned]

    def labels(self, parameters, x):
        """Return the predicted classes."""
        z = self.outputs(parameters, x)
        return z[:, 0] > 0 if self.workload.outputs == 1 else jnp.argmax(z, axis=1)

    def predict(self, X):
        return np.asarray(self.compiled_labels(self.learned, X))


class Scan(Loop):
    """`jit` of a `lax.scan` over the steps of an epoch; over all steps where each takes all examples."""

    def __init__(self, workload, X, y):
        super().__init__(workload, X, y)
        self.compiled = jax.jit(self.epoch, donate_argnums=0)
        self.compiled_all = jax.jit(self.descent, donate_argnums=0, static_argnums=1)

    def epoch(self, state, order, X, y):
        """Take an epoch's steps; the last one may have fewer examples."""
        m = self.workload.batch
        full = order.shape[0] // m
        batches = order[: full * m].reshape(full, m)
        # two steps a turn: XLA copies the state from one turn to the next
        state, costs = jax.lax.scan(
            lambda s, rows: self.step(s, rows, X, y), state, batches, unroll=2
        )
        total = jnp.sum(costs)
        if full * m < order.shape[0]:
            state, cost = self.step(state, order[full * m :], X, y)
            total += cost
        return state, total

    def descent(self, state, steps, X, y):
        """Take steps on all examples."""
        return jax.lax.scan(lambda s, _: self.step(s, None, X, y), state, length=steps, unroll=2)

    def train(self, state, epochs):
        """Return the state after some epochs, and the mean cost in each."""
        n = self.workload.n
        if self.workload.steps == 1:
            state, costs = self.compiled_all(state, epochs, self.X, self.y)
            return state, np.asarray(costs) / n
        losses = []
        for epoch in range(epochs):
            order = self.orders[epoch % len(self.orders)]
            state, total = self.compiled(state, order, self.X, self.y)
            losses.append(float(total) / n)
        return state, losses


class Step(Loop):
    """`jit` of a step, and a loop in Python."""

    def __init__(self, workload, X, y):
        super().__init__(workload, X, y)
        self.compiled = jax.jit(self.step, donate_argnums=0)

    def train(self, state, epochs):
        """Return the state after some epochs, and the mean cost in each."""
        losses = []
        for epoch in range(epochs):
            order, costs = self.orders[epoch % len(self.orders)], []
            for batch in self.workload.batches:
                rows = None if self.workload.steps == 1 else order[batch]
                state, cost = self.compiled(state, rows, self.X, self.y)
                costs.append(cost)
            losses.append(sum(jax.device_get(costs)) / self.workload.n)
        return state, losses
