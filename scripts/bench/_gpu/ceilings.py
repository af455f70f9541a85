"""What this device can do at most, as gpunet can ask it: operations, bytes, and what it costs to start a kernel."""

import os
import statistics
import time

import numpy as np

from _gpu.ours import backend_on, finish

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
VARIABLE = "GPUNET_PRODUCTS"
SIDE, NUMBERS, LAUNCHES, NODES = 8_192, 2**28, 2_000, 1_000
TINY = 128, 2**16, 20, 10
SOURCE = 'extern "C" __global__ void one_more(float* number) { number[0] += 1.0f; }'
CALLS = 3


def seconds_of(call, wait, trials=5):
    """Return the seconds of a call, the median of some trials after one that warms up."""
    call()
    wait()
    found = []
    for _ in range(trials):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        wait()
        found.append((time.perf_counter() - start) / CALLS)
    return statistics.median(found)


def ceilings(*, dry):
    """Return operations a second by precision, bytes a second, and microseconds to start a kernel in each way."""
    backend = backend_on("cpu" if dry else "cuda")
    side, numbers, launches, nodes = TINY if dry else (SIDE, NUMBERS, LAUNCHES, NODES)

    def wait():
        finish(backend)

    with backend.active():
        started = started_on(backend, launches, nodes, wait)
        return {
            "operations": operations(backend, side, wait),
            "bytes": bandwidth(backend, numbers, wait),
            **started,
        }


def operations(backend, side, wait):
    """Return the operations a second of a large product, by how it rounds."""
    random, before, found = np.random.default_rng(0), os.environ.get(VARIABLE), {}
    # not zeros, which cost a device less power
    left, right, out = (
        backend.asarray(random.random((side, side), np.float32) - np.float32(0.5)) for _ in range(3)
    )
    try:
        for name in PRECISIONS:
            os.environ[VARIABLE] = name
            seconds = seconds_of(lambda: backend.xp.matmul(left, right, out=out), wait)
            found[name] = 2 * side**3 / seconds
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
    return found


def bandwidth(backend, numbers, wait):
    """Return the bytes a second of a large copy, those read and those written."""
    source = backend.asarray(np.ones(numbers, np.float32))
    target = backend.asarray(np.zeros(numbers, np.float32))

    def copy():
        target[...] = source

    return 2 * 4 * numbers / seconds_of(copy, wait)


def started_on(backend, launches, nodes, wait):
    """Return the microseconds of a kernel started from Python, of a graph, and of a kernel more in a graph."""
    number = backend.asarray(np.zeros(1, np.float32))
    if backend.name == "cupy":
        import cupy

        kernel = cupy.RawKernel(SOURCE, "one_more")

        def one():
            kernel((1,), (1,), (number,))

        one()  # compiled before it is captured
        stream = cupy.cuda.Stream(non_blocking=True)

        def graph(count):
            with stream:
                stream.begin_capture()
                for _ in range(count):
                    one()
                return stream.end_capture().launch
    else:

        def one():
            np.add(number, 1, out=number)

        def graph(count):
            return lambda: [one() for _ in range(count)]

    def repeated(call, count):
        return lambda: [call() for _ in range(count)]

    wait()
    short, long = graph(1), graph(nodes)
    graphs = seconds_of(repeated(short, launches), wait) / launches
    return {
        "launch": seconds_of(repeated(one, launches), wait) / launches * 1e6,
        "graph": graphs * 1e6,
        "node": (seconds_of(long, wait) - graphs) / (nodes - 1) * 1e6,
    }
