"""Many small fits leave nothing behind: no array, no graph, no byte of the memory pool."""

import gc
import importlib.util
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpunet import MLPClassifier, Network

FITS = 60
WIDEST = 60
KEPT = 200_000
"""Bytes that may be kept after all: a tenth of what a network's parameters would be in so many fits."""


def module_beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def held(backend):
    """Return the bytes in the library's arrays."""
    gc.collect()
    if backend.name == "jax":
        return sum(array.nbytes for array in sys.modules["jax"].live_arrays())
    if backend.name == "torch":
        torch = sys.modules["torch"]
        return sum(o.nbytes for o in gc.get_objects() if type(o) is torch.Tensor)
    if backend.name == "cupy":
        return sys.modules["cupy"].get_default_memory_pool().used_bytes()
    return tracemalloc.get_traced_memory()[0]


def fit(backend, number, units):
    """Fit two small networks and ask them."""
    random = np.random.RandomState(number)
    X, y = random.normal(size=(24, 60)), np.arange(24) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MLPClassifier((units,), max_iter=2, batch_size=10, backend=backend).fit(X, y).predict(X)
    network = Network([60, units, 3], output="softmax", backend=backend, seed=number)
    network.fit(X, y, epochs=2, batch_size=12).predict(X)


def on_chip_or_graphs(number, monkeypatch):
    """Let CuPy train half of the networks as CUDA graphs: as small as these, all would be on the chip."""
    monkeypatch.setenv("GPUNET_ON_CHIP", str(number % 2))


@pytest.mark.parametrize("numba", ["1", "0"])
def test_fits_leave_no_arrays(backend, numba, monkeypatch):
    if numba == "1" and backend.name != "numpy":
        pytest.skip("numba is NumPy's")
    monkeypatch.setenv("GPUNET_NUMBA", numba)
    # a compiler keeps a program for each shape
    shapes = [WIDEST] if backend.compiles_shapes else range(WIDEST // 2, WIDEST)
    traced = backend.name in {"numpy", "array_api_strict"}
    if traced:
        tracemalloc.start()
    try:
        for number in range(4):
            on_chip_or_graphs(number, monkeypatch)
            fit(backend, number, WIDEST)
        before = held(backend)
        for number in range(FITS // 2):
            on_chip_or_graphs(number, monkeypatch)
            fit(backend, number, shapes[number % len(shapes)])
        grown = held(backend) - before
    finally:
        tracemalloc.stop()
    assert grown < KEPT, f"{FITS} networks have left {grown:,} bytes"


def test_a_leak_would_be_seen(backend, monkeypatch):
    """What the test above looks at: networks that are kept."""
    if backend.name in {"numpy", "array_api_strict"}:
        tracemalloc.start()
    try:
        before = held(backend)
        kept = [Network([60, 60, 3], output="softmax", backend=backend) for _ in range(FITS)]
        assert held(backend) - before > KEPT
        assert len(kept) == FITS
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["adam", "dropout", "sample weights", "clipped"])
def test_graphs_give_their_memory_back_at_once(name):
    """The pool's used bytes return to what they were, without the collector; nothing else is done to the pool."""
    graphs = module_beside("test_cuda_graphs")
    backend, used = graphs.StandIn(), set()
    pool = backend.cupy.get_default_memory_pool()
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            graphs.RUNS[name].trained(backend, times=2)
            backend.cupy.graphs.clear()  # what the stand-in itself keeps
            backend.cupy.streams[1:] = []
            used.add(pool.used_bytes())
    finally:
        gc.enable()
    assert used == {0}
    assert not list(backend.graphs.recordings)


@pytest.mark.parametrize("call", ["free_all_blocks", "set_limit"])
def test_to_manage_the_pool_is_an_error_there(call):
    graphs = module_beside("test_cuda_graphs")
    pool = graphs.StandIn().cupy.get_default_memory_pool()
    with pytest.raises(AssertionError, match="isn't gpunet's to manage"):
        getattr(pool, call)()
