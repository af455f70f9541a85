"""Examples on the host beside examples on the device: the same numbers, and what a step takes.

Estimators as people use them, on data of several chunks and of a size that is brought to the device in chunks as well.
"""

import contextlib
import dataclasses
import os
import warnings

import numpy as np
from _contestants.workloads import ALPHA, SEED, examples

from _gpu.graphs import AGREE, apart
from _gpu.workloads import workload_of

EXAMPLES = {"W2": 200_000, "W3": 131_072}
"""600 and 512 MiB; a chunk is 64."""
EPOCHS = 4
ON_HOST, ON_DEVICE = "0", "1"


@contextlib.contextmanager
def counted(where, *, dry):
    """Let examples lie there; yield a list that has an entry for each chunk that comes."""
    from gpunet import streaming

    before, epoch, size = os.environ.get(streaming.VARIABLE), streaming.Chunks.epoch, streaming.CHUNK  # fmt: skip
    chunks = []

    def told(self, *arguments):
        for chunk in epoch(self, *arguments):
            chunks.append(len(chunks))
            yield chunk

    os.environ[streaming.VARIABLE], streaming.Chunks.epoch = where, told
    streaming.CHUNK = 2**14 if dry else size
    try:
        yield chunks
    finally:
        streaming.Chunks.epoch, streaming.CHUNK = epoch, size
        os.environ.pop(streaming.VARIABLE)
        if before is not None:
            os.environ[streaming.VARIABLE] = before


def fitted(workload, where, *, dry):
    """Fit; return θ, predictions, a step's microseconds after the first epoch, and how many chunks an epoch had."""
    from gpunet import MLPClassifier

    X, y = examples(workload)
    network = MLPClassifier(
        workload.hidden, batch_size=workload.batch, max_iter=EPOCHS, alpha=ALPHA, random_state=SEED,
        learning_rate_init=workload.rate, backend="numpy" if dry else "cupy",
    )  # fmt: skip
    with counted(where, dry=dry) as chunks, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there could be more epochs
        predicted = network.fit(X, y).predict_proba(X)
    first, *_, last = (record["seconds"] for record in network.history_)
    theta = np.concatenate([each.ravel() for each in (*network.coefs_, *network.intercepts_)])
    microseconds = (last - first) / (EPOCHS - 1) / workload.steps * 1e6
    return theta, predicted, microseconds, len(chunks) // EPOCHS


def compare(names, *, dry):
    """Print a line for each workload; return whether the examples came in chunks and made no difference.

    Where two fits on the device are the same bit for bit, this one has to be.
    """
    agree = True
    for name in names:
        workload, _ = workload_of(name, dry=dry)
        if not dry:
            workload = dataclasses.replace(workload, n=EXAMPLES[name])
        first, _, _, _ = fitted(workload, ON_DEVICE, dry=dry)
        theta, predicted, there, none = fitted(workload, ON_DEVICE, dry=dry)
        again = apart(theta, first)
        found, told, here, chunks = fitted(workload, ON_HOST, dry=dry)
        far, far_told = apart(found, theta), apart(told, predicted)
        allowed = AGREE if dry or again else 0.0
        agree = agree and far <= allowed and far_told <= AGREE and chunks > 1 and none == 0
        print(
            f"{name}: {here:.1f} microseconds a step with examples on the host, {chunks} chunks an epoch, on the "
            f"device {there:.1f}; parameters lie {far:.1e} apart (two fits on the device: {again:.1e}), predictions "
            f"{far_told:.1e}",
            flush=True,
        )
    return agree
