"""A thousand fits on the device: what they leave behind, in CuPy's pool and on the device.

Half of them on the chip, half as CUDA graphs.
"""

import gc
import os
import tracemalloc
import warnings

import numpy as np

FITS, WARM = 1000, 50
KEPT = 2**20
"""Bytes that may be kept: a thousand networks of these have over 20 MB of parameters."""


def used(*, dry):
    """Return the bytes that are in use now, and those that the device has no more; of NumPy's in a dry run."""
    gc.collect()
    if dry:
        return tracemalloc.get_traced_memory()[0], 0
    import cupy

    free, total = cupy.cuda.runtime.memGetInfo()
    return cupy.get_default_memory_pool().used_bytes(), total - free


def fit(number, *, dry):
    """Fit a small network, of one of ten shapes, and ask it; ten on the chip, ten as graphs, and so on."""
    from gpunet import MLPClassifier

    os.environ["GPUNET_ON_CHIP"] = str((number // 10 + 1) % 2)  # of this process
    random = np.random.RandomState(number)
    X, y = random.normal(size=(64, 100)), np.arange(64) % 3
    network = MLPClassifier(
        (50 + number % 10,), max_iter=2, batch_size=24, backend="numpy" if dry else "cupy"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there could be more epochs
        network.fit(X, y).predict(X)


def leaks(*, dry):
    """Print what a thousand fits leave behind; return whether that is too much."""
    fits, warm = (20, 20) if dry else (FITS, WARM)
    if dry:
        tracemalloc.start()
    for number in range(warm):
        fit(number, dry=dry)
    before, device_before = used(dry=dry)
    for number in range(fits):
        fit(number, dry=dry)
    after, device_after = used(dry=dry)
    print(
        f"{fits} fits, half of them as graphs, have left {after - before:,} bytes in use and "
        f"{device_after - device_before:,} more of the device's memory taken (by the pool, which keeps what it has had)"
    )
    # the pool may round, and cuBLAS or a graph take some once; a graph kept for each fit would be gigabytes
    return after - before > KEPT or device_after - device_before > 64 * KEPT
