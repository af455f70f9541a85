"""Enough of CuPy for a processor: arrays whose every operation is a launch, streams that capture, cuBLAS.

A launch runs at once, or, while its stream captures, is only noted: what it would write is NaN until the graph is
launched, which runs it on the same memory. As with CuPy, a capture refuses numbers from and for the host, and
`cupy.matmul`.
"""

import contextlib
import ctypes
import weakref
from types import SimpleNamespace

import array_api_compat.numpy as numpy_xp
import numpy as np

HOST = (np.ndarray, np.generic)


class DeviceArray(np.ndarray):
    """An array of which the host sees no number."""

    cuda = None  # where it lives

    def refuse(self, *_):
        raise AssertionError("a number was read back to the host")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = item = tolist = refuse

    @property
    def data(self):
        return SimpleNamespace(ptr=self.__array_interface__["data"][0])

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **keywords):
        if ufunc is np.matmul and out is None:
            return self.cuda.matmul(*inputs)
        function = getattr(ufunc, method)
        return self.cuda.operation(function, inputs, keywords, None if out is None else out[0])

    def __array_function__(self, function, types, inputs, keywords):
        return self.cuda.operation(function, inputs, keywords)

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        if not any(part is Ellipsis for part in key):
            key = (*key, ...)  # a number is an array, too
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        target = plain(self[key])
        self.cuda.launch("copy", lambda: np.copyto(target, plain(value)), [])

    def fill(self, value):
        self[...] = value

    def set(self, values, stream):
        """Copy from pinned memory: at some time, no later than somebody waits for it."""
        assert any(np.shares_memory(values, pinned) for pinned in self.cuda.pinned)
        assert (self.shape, self.dtype) == (values.shape, values.dtype)
        assert self.flags.c_contiguous
        self.cuda.log.append("send")
        stream.issued.append(lambda: np.copyto(plain(self), values))

    def astype(self, dtype, copy=True):
        return self.cuda.operation(lambda a: a.astype(dtype), (self,), {})


def plain(tree):
    """Return NumPy's own arrays in place of those on the device."""
    if isinstance(tree, DeviceArray):
        return tree.view(np.ndarray)
    if isinstance(tree, tuple | list):
        return type(tree)(plain(part) for part in tree)
    return tree


def vague(view):
    """Return a view that says of an axis of one number how far its neighbours lie apart: anything, as CuPy's may."""
    strides = [
        step if n > 1 else 5 * view.itemsize
        for n, step in zip(view.shape, view.strides, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(view, strides=strides)


class Stream:
    """Launches in order; or, between `begin_capture` and `end_capture`, notes."""

    def __init__(self, cuda, non_blocking=False):
        self._cuda, self.ptr = cuda, len(cuda.streams)
        self.noted = None
        self.issued, self.done = [], 0  # copies from the host
        cuda.streams.append(self)

    def __enter__(self):
        self._cuda.current.append(self)
        return self

    def __exit__(self, *_):
        self._cuda.current.pop()

    def record(self):
        return Event(self, self._cuda)

    def wait_event(self, event):
        self._cuda.waits.append((self, event.of))
        self._cuda.log.append(f"{self.ptr} waits for {event.of.ptr}")
        event.finish()

    def synchronize(self):
        self._cuda.log.append(f"the host waits for all of {self.ptr}")
        self.record().finish()

    def begin_capture(self):
        assert self.ptr != 0, "cannot capture on the default stream"
        assert self.noted is None
        self.noted = []
        self._cuda.captures += 1

    def end_capture(self):
        noted, self.noted = self.noted, None
        broken, self._cuda.broken = self._cuda.broken, False
        if broken:
            self._cuda.captured = (set(), [])
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return self._cuda.graph(noted)


class Event:
    """How far a stream had come."""

    def __init__(self, stream, cuda):
        self.of, self._issued, self._cuda = stream, len(stream.issued), cuda

    def synchronize(self):
        self._cuda.log.append(f"the host waits for {self.of.ptr}")
        self.finish()

    def finish(self):
        while self.of.done < self._issued:
            self.of.issued[self.of.done]()
            self.of.issued[self.of.done] = None
            self.of.done += 1


class Graph:
    """What was noted, to be run again."""

    def __init__(self, cuda, noted):
        self._cuda, self.noted, self.launched = cuda, noted, 0
        self._pools, self._memory = cuda.captured
        cuda.captured = (set(), [])

    def launch(self):
        assert all(pool() is not None for pool in self._pools), "the graph's memory is gone"
        assert self._cuda.current[-1].noted is None
        self._cuda.log.append("graph")
        self.launched += 1
        for _, run in self.noted:
            run()


class CuPyOnCPU:
    """The module `cupy`, as far as gpunet uses it.

    Attributes
    ----------
    log : list of str
        Launches, in order; a graph's is one.
    """

    ndarray = DeviceArray

    def __init__(self):
        self.log, self.waits, self.streams, self.graphs = [], [], [], []
        self.broken, self.captured, self.captures = False, (set(), []), 0
        self.current = [Stream(self)]
        self.pool, self.pinned = Pool(), []
        self.allocators = [self.pool.malloc]
        self.ndarray = type("DeviceArray", (DeviceArray,), {"cuda": self})
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: Stream(self, non_blocking), Memory=Memory, MemoryPool=OwnPool,
            get_current_stream=lambda: self.current[-1], using_allocator=self.using_allocator,
            set_allocator=not_ours, alloc_pinned_memory=self.alloc_pinned_memory,
        )  # fmt: skip

    def __getattr__(self, name):
        return getattr(np, name)

    def asarray(self, values, dtype=None):
        """Return an array on the device; from the host, which is no way under capture."""
        if not isinstance(values, DeviceArray):
            self.refuse_capture("a copy from the host")
        made = np.array(plain(values), dtype=dtype)
        self.allocators[-1].__self__.hold(made)
        return made.view(self.ndarray)

    def get_default_memory_pool(self):
        return self.pool

    def alloc_pinned_memory(self, size):
        memory = bytearray(size)
        self.pinned.append(np.frombuffer(memory, np.int8))
        return memory

    def asnumpy(self, array):
        self.refuse_capture("a copy to the host")
        return np.array(plain(array))

    def refuse_capture(self, what):
        if self.current[-1].noted is not None:
            self.broken = True
            raise RuntimeError(f"{what} isn't allowed while the stream is capturing")

    @contextlib.contextmanager
    def using_allocator(self, allocator):
        self.allocators.append(allocator)
        try:
            yield
        finally:
            self.allocators.pop()

    def empty(self, shape, dtype=None):
        """Return memory full of NaN, or of numbers that are no index."""
        memory = np.empty(shape, dtype)
        self.allocators[-1](memory.nbytes)
        self.allocators[-1].__self__.hold(memory)
        made = memory.view(self.ndarray)
        ruin(plain(made))
        if self.current[-1].noted is not None:
            assert len(self.allocators) > 1, "a graph's memory goes to whoever asks next"
            owner = self.allocators[-1].__self__
            pools, memory = self.captured
            pools.add(weakref.ref(owner))
            memory.append(made)
        return made

    def ascontiguousarray(self, array):
        return self.operation(np.ascontiguousarray, (array,), {})

    def matmul(self, left, right):
        self.refuse_capture("cuBLAS")
        return self.operation(np.matmul, (left, right), {})

    def operation(self, function, inputs, keywords, out=None):
        """Return a view at once; anything else is launched, into memory of its own or ``out``."""
        given = plain(inputs)
        if out is not None:
            target = plain(out)
            self.launch(function.__name__, lambda: function(*given, out=target, **keywords), [])
            return out
        with np.errstate(all="ignore"):
            gathers = function in {np.take, np.take_along_axis}
            result = function(*(in_range(given) if gathers else given), **keywords)
        if isinstance(result, np.ndarray) and any(
            np.may_share_memory(result, a) for a in leaves(given) if isinstance(a, np.ndarray)
        ):
            return vague(result).view(self.ndarray)
        if not isinstance(result, HOST):
            return result
        made = self.empty(np.shape(result), result.dtype)
        target = plain(made)
        name = getattr(function, "__name__", "operation")
        self.launch(name, lambda: np.copyto(target, function(*given, **keywords)), [target])
        return made

    def launch(self, name, run, written):
        """Run or note a launch."""
        noted = self.current[-1].noted
        if noted is None:
            self.log.append(name)
            with np.errstate(all="ignore"):
                run()
        else:
            noted.append((name, run))
            for array in written:
                ruin(array)

    def graph(self, noted):
        self.graphs.append(Graph(self, noted))
        return self.graphs[-1]


class Memory:
    """Bytes on the device."""

    def __init__(self, size):
        self.ptr = size  # enough for a name


def not_ours(*_):
    raise AssertionError("memory that other libraries use, too, isn't gpunet's to manage")


class Pool:
    """A memory pool."""

    free_all_blocks = set_limit = not_ours

    def __init__(self):
        self.used = 0

    def used_bytes(self):
        return self.used

    def malloc(self, size):
        """Allow it; where the memory is, NumPy says."""

    def hold(self, memory):
        """Count an array for as long as it or a view of it lives."""
        self.used += memory.nbytes
        weakref.finalize(memory, self._release, memory.nbytes)

    def _release(self, size):
        self.used -= size


class OwnPool(Pool):
    """A pool that gpunet has made."""

    def __init__(self, allocator):
        super().__init__()
        self.limit, self.allocator = None, allocator

    def set_limit(self, size):
        """Note it."""
        self.limit = size


class Namespace:
    """array-api-compat's namespace of it."""

    def __init__(self, cupy):
        self._cupy = cupy

    def empty(self, shape, dtype=None):
        return self._cupy.empty(shape, dtype)

    def empty_like(self, array):
        return self._cupy.empty(array.shape, array.dtype)

    def asarray(self, array, copy=None):
        return self._cupy.operation(np.copy, (array,), {}) if copy else array

    def zeros(self, shape, dtype=None):
        made = self._cupy.empty(shape, dtype)
        made.fill(0)
        return made

    def arange(self, *given, dtype=None, device=None):
        numbers = np.arange(*given, dtype=dtype)
        made = self._cupy.empty(numbers.shape, numbers.dtype)
        target = plain(made)
        self._cupy.launch("arange", lambda: np.copyto(target, numbers), [target])
        return made

    def __getattr__(self, name):
        return getattr(numpy_xp, name)


class CuBLAS:
    """`nvmath.bindings.cublas` over the processor's memory, counting along columns as cuBLAS does.

    Attributes
    ----------
    calls : list
        The products' sizes: (rows, columns, inner, networks) as cuBLAS sees them, and how they are computed.
    """

    ComputeType = SimpleNamespace(
        COMPUTE_32F=68,
        COMPUTE_32F_FAST_16F=74,
        COMPUTE_32F_FAST_TF32=77,
        COMPUTE_32F_FAST_16BF=75,
        COMPUTE_64F=70,
    )
    GemmAlgo = SimpleNamespace(DFALT=-1)

    def __init__(self, cupy):
        self._cupy, self.calls, self.handles, self.destroyed = cupy, [], {}, []

    def create(self):
        handle = len(self.handles) + 1
        self.handles[handle] = {"stream": 0, "workspace": None}
        return handle

    def destroy(self, handle):
        self.destroyed.append(handle)

    def set_stream(self, handle, stream):
        self.handles[handle].update(stream=stream, workspace=None)

    def set_workspace(self, handle, pointer, size):
        self.handles[handle]["workspace"] = (pointer, size)

    def gemm_ex(self, *given):
        handle, ta, tb, m, n, k, alpha, a, a_kind, lda, b, b_kind, ldb, beta, *rest = given
        c, c_kind, ldc, compute, algo = rest
        arguments = (handle, ta, tb, m, n, k, alpha, a, a_kind, lda, 0, b, b_kind, ldb, 0, beta)
        self.gemm_strided_batched_ex(*arguments, c, c_kind, ldc, 0, 1, compute, algo)

    def gemm_strided_batched_ex(self, *given):
        handle, ta, tb, m, n, k, alpha, a, a_kind, lda, a_step, *rest = given
        b, b_kind, ldb, b_step, beta, c, c_kind, ldc, c_step, networks, compute, algo = rest
        state = self.handles[handle]
        assert state["stream"] == self._cupy.current[-1].ptr
        assert state["workspace"] is not None, "cuBLAS would allocate"
        assert all(isinstance(number, int) for number in given)
        assert a_kind == b_kind == c_kind == (1 if compute == 70 else 0)
        assert algo == -1
        dtype = np.dtype("fd"[a_kind])
        assert number_at(alpha, dtype) == 1.0
        assert number_at(beta, dtype) == 0.0
        A = by_columns(a, dtype, (m, k) if ta == 0 else (k, m), (lda, a_step), networks)
        B = by_columns(b, dtype, (k, n) if tb == 0 else (n, k), (ldb, b_step), networks)
        C = by_columns(c, dtype, (m, n), (ldc, c_step), networks)
        A, B = (A if ta == 0 else A.swapaxes(-1, -2)), (B if tb == 0 else B.swapaxes(-1, -2))
        self.calls.append((m, n, k, networks, compute))
        rounded = in_half if compute == self.ComputeType.COMPUTE_32F_FAST_16F else np.asarray
        self._cupy.launch("gemm", lambda: np.copyto(C, np.matmul(rounded(A), rounded(B))), [C])


def in_half(array):
    """Return numbers as float16 has them: none is over 65,504, none between 0 and 2⁻²⁴."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(array.dtype)


def number_at(address, dtype):
    return np.frombuffer(ctypes.string_at(address, dtype.itemsize), dtype)[0]


def by_columns(address, dtype, shape, steps, networks):
    """Return the matrices at an address, from columns to columns and from matrix to matrix so many numbers."""
    (rows, columns), (apart, step) = shape, steps
    assert apart >= max(1, rows), "cuBLAS refuses this leading dimension"
    last = (networks - 1) * step + (columns - 1) * apart + rows
    memory = (ctypes.c_char * (last * dtype.itemsize)).from_address(address)
    size = dtype.itemsize
    return np.ndarray(
        (networks, rows, columns), dtype, memory, strides=(step * size, size, apart * size)
    )


def ruin(array):
    """Overwrite memory with what nothing may depend on."""
    kind = array.dtype.kind
    array[...] = np.nan if kind == "f" else np.iinfo(array.dtype).min // 3 if kind in "iu" else True


def in_range(arguments):
    """Return the first argument, and zeros in place of indices, which may be ruined."""
    return arguments[0], *(
        np.zeros_like(a) if isinstance(a, np.ndarray) else a for a in arguments[1:]
    )


def leaves(tree):
    return (
        [leaf for part in tree for leaf in leaves(part)]
        if isinstance(tree, tuple | list)
        else [tree]
    )
