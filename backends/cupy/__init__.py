"""CuPy on a CUDA device.

Requires: an NVIDIA driver, and cupy-cuda12x or cupy-cuda13x with its ``ctk`` extra (cuBLAS and NVRTC). With
nvmath-python a step is a CUDA graph. docs/gpu.md says what runs in kernels of gpunet's own and how they are proven.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gpunet.backend import (
    Backend,
    BackendUnavailableError,
    Device,
    Epoch,
    Stacking,
    Step,
    get_backend,
)
from gpunet.streaming import CHUNK, Feed, resident
from gpunet.typing import HostArray

from .feeding import LARGE, SHARE, PinnedFeed, brought, room
from .products import precision

_MEMORY_CODES = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "ALLOC_FAILED")


class CuPyBackend(Backend):
    """CuPy; data stays on its device until a result is asked for on the host."""

    name = "cupy"
    library = "cupy"
    install = (
        "pip install -e '.[cuda13]' in gpunet's folder (or '.[cuda12]' for a CUDA 12 driver): the extras name CuPy and "
        "NVIDIA's bindings in versions that fit each other"
    )
    types = ("cupy",)
    automatic = True

    def __init__(self, device: str | None = None) -> None:
        import array_api_compat.cupy as xp
        import cupy

        from .graphs import Graphs
        from .kernels import Kernels
        from .layers import LayerPrimitives
        from .on_chip import on_device
        from .products import Capturable, Products

        count = cupy.cuda.runtime.getDeviceCount()
        index = cupy.cuda.runtime.getDevice() if device is None else device.removeprefix("cuda:")
        if not str(index).isdigit() or int(index) >= count:
            known = ", ".join(str(i) for i in range(count))
            raise BackendUnavailableError(
                f"cupy has no device {device!r} here; its devices are {known}."
            )
        self._cupy = cupy
        self._device = cupy.cuda.Device(int(index))
        self.device = int(index)
        problem = None
        try:
            cublas = importlib.import_module("nvmath.bindings.cublas")
            cublas.get_cudart_version()  # which looks for the library, as the import doesn't
        except (ImportError, OSError, RuntimeError) as error:
            self.xp, problem = xp, error
        else:
            self.xp = Capturable(xp, cupy, Products(cupy, cublas))
        self._rounds = problem is None
        self.primitives = LayerPrimitives(self.xp, Kernels(cupy))
        self.graphs = Graphs(cupy, problem)
        self.on_chip = on_device(cupy, self._device)

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        """Return an array on this device."""
        with self._device:
            if isinstance(values, np.ndarray) and values.nbytes > LARGE:
                values = values.astype(dtype or values.dtype, copy=False)
                return brought(self._cupy, values, self)
            return self._cupy.asarray(values, dtype=dtype)

    @property
    def memory(self) -> tuple[int, int]:
        """The device's."""
        return 2, int(self.device)

    def to_host(self, array: Any) -> Any:
        """Return a NumPy array; waits for the device."""
        return self._cupy.asnumpy(array)

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Make this the current device."""
        return self._device  # type: ignore[no-any-return]

    def compile(self, step: Step) -> Epoch:
        """Return an epoch in one launch for networks that fit the chip, else one whose steps are CUDA graphs.

        ``GPUNET_ON_CHIP=0`` and ``GPUNET_GRAPHS=0`` switch these off.
        """
        plain = super().compile(step)
        return self.on_chip.compile(step, lambda: self.graphs.compile(step, self.primitives, plain))

    def holds(self, size: int) -> bool:
        """Return whether there is room for examples of so many bytes, unless ``GPUNET_RESIDENT`` says so."""
        if resident() is not None:
            return super().holds(size)
        # to ask takes longer than a small prediction, and a chunk needs as much twice
        return size <= CHUNK or size <= SHARE * room(self._cupy, self._device)

    def feed(self, arrays: Sequence[HostArray], most: int) -> Feed:
        """Return what copies the next chunk while the last one is computed on."""
        return PinnedFeed(self._cupy, arrays, most, self)

    def stacking(self) -> Stacking:
        """Return stacks that fill the device: an eighth of its memory leaves room for the data."""
        return Stacking(int(self._device.mem_info[1]) // 8)

    def step_seconds(self, shape: tuple[int, ...], m: int) -> float:
        """Return about how long a training step takes: a small one as long as its graph takes to run."""
        return 1.5e-5 + 6 * math.prod(shape) * m / 3e13

    def scales_losses(self, dtype: str) -> bool:
        """Return whether float32 is multiplied as ``GPUNET_PRODUCTS=float16`` has it."""
        return dtype == "float32" and self._rounds and precision() == "float16"

    def is_memory_error(self, error: Exception) -> bool:
        """Return whether memory was short: CuPy's pool has a MemoryError for it, CUDA and cuBLAS have codes."""
        return super().is_memory_error(error) or any(code in str(error) for code in _MEMORY_CODES)

    @classmethod
    def probe(cls) -> str | None:
        """Return why CuPy can't compute here: package, driver, device, then one real kernel."""
        return super().probe() or _probe()

    @classmethod
    def version(cls) -> str | None:
        """Return the version of whichever of CuPy's packages is installed."""
        for package in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return importlib.metadata.version(package)
        return None

    @classmethod
    def devices(cls) -> list[Device]:
        """Return every CUDA device."""
        from cupy.cuda import runtime

        found = []
        for index in range(runtime.getDeviceCount()):
            properties = runtime.getDeviceProperties(index)
            memory = int(properties["totalGlobalMem"])
            found.append(Device(str(index), properties["name"].decode(), memory))
        return found

    @classmethod
    def of(cls, array: Any) -> Backend | None:
        """Return the backend of an array's device."""
        import cupy

        if not isinstance(array, cupy.ndarray):
            return None
        return get_backend("cupy", str(array.device.id))


@cache
def _probe() -> str | None:
    """Try what an import can't tell: CuPy imports without a driver and without cuBLAS."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 was not found)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "the NVIDIA driver doesn't start (cuInit failed)"
    if count.value == 0:
        return "the NVIDIA driver finds no CUDA device"
    try:
        import cupy
        from cupy.cuda import cublas  # noqa: F401  # an attribute that loads it, and no module

        ones = cupy.ones((2, 2), dtype=cupy.float32)
        if float((ones @ ones + 1).sum()) != 12.0:
            return "a test kernel gave a wrong number"
    except (ImportError, OSError, RuntimeError) as error:
        return f"a test kernel failed ({type(error).__name__}: {error})".partition("\n")[0]
    return None
