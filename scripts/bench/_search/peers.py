"""The search as written by hand for torch and JAX: stacks of networks, with scikit-learn's weights and minibatches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from _search.workloads import Workload

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, as scikit-learn has them
SMALLEST = float(np.finfo(np.float32).eps)  # scikit-learn reports the loss of clipped probabilities
LOSS_RANGE = -np.log1p(-SMALLEST), -np.log(SMALLEST)


class Outcome(NamedTuple):
    """What a search finds.

    Attributes
    ----------
    scores : array
        Each candidate's mean test score, (candidates,).
    curves : array or None
        The training loss of each epoch, (candidates, folds, epochs), where a search tells.
    """

    scores: np.ndarray
    curves: np.ndarray | None = None


@dataclass(frozen=True)
class Stack:
    """S networks that are trained as one program.

    Attributes
    ----------
    weights : list of (W, b)
        The first weights of each layer: (inputs, units) and (units,), for all networks.
    rows : array
        The rows of the data in the order that each network sees them: (S, epochs, n).
    test : array
        The rows it is tested on: (S, m).
    alphas, rates : array
        (S,)
    batch : int
    corrections : array
        What Adam multiplies the rate with at each step: (epochs, steps).
    """

    weights: list[tuple[np.ndarray, np.ndarray]]
    rows: np.ndarray
    test: np.ndarray
    alphas: np.ndarray
    rates: np.ndarray
    batch: int
    corrections: np.ndarray


Train = Callable[[Stack], tuple[Any, Any]]
"""From a stack to the training losses (S, epochs) and the accuracies on the test rows (S,)."""


def search(workload: Workload, peer: Callable[..., Train], *, size: int, threads: int) -> Outcome:
    """Search as `GridSearchCV` does, with stacks of so many networks on so many threads."""
    X, y = workload.data()
    train = peer(X, y)
    networks = list(itertools.product(range(workload.folds), range(len(workload.candidates))))
    stacks = _stacks(workload, workload.splits(X, y), networks, size)
    if threads == 1:
        results = list(map(train, stacks))
    else:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(train, stacks))
    losses, scores = (np.concatenate(parts) for parts in zip(*results, strict=True))
    scores = scores.reshape(workload.folds, -1).mean(axis=0)
    curves = losses.reshape(workload.folds, -1, workload.epochs).swapaxes(0, 1)
    if workload.refit:
        every = np.arange(workload.n)
        train(_stack(workload, [(every, every[:0])], [workload.candidates[scores.argmax()]]))
    return Outcome(scores, curves)


def _stacks(
    workload: Workload, splits: Any, networks: list[tuple[int, int]], size: int
) -> Iterator[Stack]:
    """Yield stacks of networks, which are pairs of a fold and a candidate."""
    for start in range(0, len(networks), size):
        part = networks[start : start + size]
        candidates = [workload.candidates[candidate] for _, candidate in part]
        yield _stack(workload, [splits[fold] for fold, _ in part], candidates)


def _stack(workload: Workload, splits: Any, candidates: Any) -> Stack:
    """Return the stack of candidates, each on its split."""
    n = len(splits[0][0])
    weights, orders = _drawn(workload, n)
    alphas, rates = np.asarray(candidates, dtype=np.float32).T
    t = np.arange(1.0, workload.epochs * -(-n // workload.batch) + 1)
    corrections = np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
    return Stack(
        weights,
        np.stack([train[orders] for train, _ in splits]),
        np.stack([test for _, test in splits]),
        alphas,
        rates,
        workload.batch,
        corrections.reshape(workload.epochs, -1),
    )


def _drawn(workload: Workload, n: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Return the first weights, and each epoch's order of n rows (epochs, n), as ``random_state=0`` gives them."""
    random = np.random.RandomState(0)
    weights = []
    for shape in itertools.pairwise((workload.d, *workload.hidden, workload.classes)):
        bound = np.sqrt(6 / sum(shape))
        W, b = (random.uniform(-bound, bound, each) for each in (shape, shape[1:]))
        weights.append((W.astype(np.float32), b.astype(np.float32)))
    order, orders = np.arange(n), []
    for _ in range(workload.epochs):
        order = order[random.permutation(n)]
        orders.append(order)
    return weights, np.stack(orders)
