"""The search A of scripts/bench/search on a GPU: gpunet's GridSearchCV, and the stacks that others write by hand.

Each returns a function that searches, and what that finds: training losses (candidates, folds, epochs).
"""

import warnings


def gpunet(workload, device):
    """Search with gpunet's GridSearchCV, scores and tables included."""
    import numpy as np

    from gpunet import GridSearchCV, MLPClassifier

    network = MLPClassifier(**workload.network, backend="cupy" if device == "cuda" else "numpy")
    X, y = workload.data()

    def search():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there could be more epochs
            done = GridSearchCV(network, workload.grid, cv=workload.folds, refit=False).fit(X, y)
        curves = np.empty((len(workload.candidates), workload.folds, workload.epochs))
        for curve in done.learning_curves_:
            curves[curve["candidate"], curve["split"]] = curve["loss_curve"]
        return curves

    return search


def torch(workload, device):
    """Search with one stack by `vmap`."""
    from _search import peers, torch_peer

    from _gpu.torch_peer import prepare

    prepare(device)

    def stacks(X, y):
        return torch_peer.peer(X, y, device)

    return lambda: (
        peers.search(
            workload,
            stacks,
            size=workload.networks,
            threads=1,
        ).curves
    )


def jax(workload, device):
    """Search with one stack by `vmap` and `scan`."""
    from _search import jax_peer, peers

    from _gpu.jax_peer import prepare

    prepare(device)
    return lambda: peers.search(workload, jax_peer.peer, size=workload.networks, threads=1).curves
