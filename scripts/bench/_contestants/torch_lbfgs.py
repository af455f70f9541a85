"""L-BFGS with torch's cost and gradient: SciPy's, which takes the steps that all others take, and torch's own."""

import scipy.optimize
import threadpoolctl
import torch
from torch import nn

from _contestants.workloads import ALPHA


def use_one_thread():
    """Keep torch and SciPy to one thread each, which is far the fastest.

    Threads of torch's OpenMP and of SciPy's OpenBLAS spin while they wait, and take the processors from each other: an
    iteration on W4 takes 20 to 100 times as long with two threads each.
    """
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1, user_api="blas")


def minimize(contestant, iterations):
    """Let SciPy's L-BFGS-B do for a model what scikit-learn's does."""
    parameters = list(contestant.model.parameters())
    dtype = contestant.X.dtype

    def cost_at(theta):
        nn.utils.vector_to_parameters(torch.from_numpy(theta).to(dtype), parameters)
        contestant.model.zero_grad()
        cost = regularised(contestant)
        cost.backward()
        gradient = nn.utils.parameters_to_vector([p.grad for p in parameters])
        return float(cost.detach()), gradient.double().numpy()

    start = nn.utils.parameters_to_vector(parameters).detach().double().numpy()
    found = scipy.optimize.minimize(
        cost_at, start, method="L-BFGS-B", jac=True,
        options={"maxiter": iterations, "maxfun": 15_000, "gtol": 0.0},
    )  # fmt: skip
    if found.nit != iterations:
        raise RuntimeError(f"ended after {found.nit} of {iterations} iterations")
    with torch.no_grad():
        nn.utils.vector_to_parameters(torch.from_numpy(found.x).to(dtype), parameters)


def minimize_with_torch(contestant, iterations):
    """Let `torch.optim.LBFGS` do it, which remembers as many steps, and has another line search."""
    parameters = list(contestant.model.parameters())
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=iterations, max_eval=15_000, tolerance_grad=0.0,
        tolerance_change=0.0, history_size=10, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def cost_and_gradient():
        optimizer.zero_grad()
        cost = regularised(contestant)
        cost.backward()
        return cost

    optimizer.step(cost_and_gradient)
    taken = optimizer.state[parameters[0]]["n_iter"]
    if taken != iterations:
        raise RuntimeError(f"ended after {taken} of {iterations} iterations")


def regularised(contestant):
    """Return the mean cross-entropy of all examples with scikit-learn's L2 term."""
    squares = sum((layer.weight * layer.weight).sum() for layer in contestant.model[::2])
    n = len(contestant.y)
    return contestant.cost(contestant.X, contestant.y) + 0.5 * ALPHA / n * squares
