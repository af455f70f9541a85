"""PyTorch, on the CPU, CUDA, or any other of its devices.

Requires: torch (a CPU build will do). Its tape is never used; the formulas of a step are in `torch_primitives`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from gpunet.backend import (
    Backend,
    BackendUnavailableError,
    Device,
    Epoch,
    Step,
    get_backend,
    processor,
)


class TorchBackend(Backend):
    """PyTorch without autograd; the default device is CUDA where torch finds one, else the CPU."""

    name = "torch"
    library = "torch"
    install = "pip install torch"
    types = ("torch",)

    def __init__(self, device: str | None = None) -> None:
        import array_api_compat.torch as xp
        import torch

        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            if self.device.type == "cuda" and self.device.index is None:
                self.device = torch.device("cuda", torch.cuda.current_device())
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            known = ", ".join(known.name for known in self.devices())
            raise BackendUnavailableError(
                f"torch has no usable device {device!r} here ({reason}); its devices are {known}."
            ) from None
        self.xp = xp
        self._torch = torch
        from .torch_primitives import TorchPrimitives  # imports torch

        self.primitives = TorchPrimitives()

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        """Return a tensor on this device; memory is shared with NumPy on the CPU where it can be."""
        torch = self._torch
        wanted = None if dtype is None else getattr(torch, dtype)
        if not isinstance(values, torch.Tensor):
            import numpy as np

            values = np.asarray(values)
            if not values.flags.writeable or any(stride < 0 for stride in values.strides):
                values = values.copy()  # torch has no read-only tensors and no negative strides
            values = torch.from_numpy(values)
        return values.detach().to(device=self.device, dtype=wanted)

    @property
    def memory(self) -> tuple[int, int] | None:
        """The host's or a CUDA device's."""
        if self.device.type == "cuda":
            return 2, self.device.index
        return (1, 0) if self.device.type == "cpu" else None

    def to_host(self, array: Any) -> Any:
        """Return a NumPy array."""
        return array.detach().cpu().numpy()

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return ``torch.no_grad()``."""
        return self._torch.no_grad()  # type: ignore[no-any-return]

    def compile(self, step: Step) -> Epoch:
        """Return a loop whose steps share memory and views.

        Not `torch.compile`: on a processor its peer in scripts/bench/train is slower than the eager one on small
        networks, and compiling a step takes seconds of a first fit. On CUDA its
        mode "reduce-overhead" should pay for small networks, but nothing has been measured there yet.
        """
        from .torch_primitives import StepPrimitives

        primitives = StepPrimitives()

        def epoch(carry: Any, batches: Any, data: Any, stop: Callable[[], bool]) -> Any:
            for batch in zip(*(part.unbind(0) for part in batches), strict=True):
                if stop():
                    break
                carry = step(primitives, carry, batch, data)
            return carry

        return epoch

    def is_memory_error(self, error: Exception) -> bool:
        """Return whether memory was short; the processor's allocator has no type for it."""
        return (
            super().is_memory_error(error)
            or isinstance(error, self._torch.OutOfMemoryError)
            or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
        )

    @classmethod
    def devices(cls) -> list[Device]:
        """Return the CPU and every CUDA device."""
        import torch

        found = [processor()]
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found.append(Device(f"cuda:{index}", properties.name, properties.total_memory))
        return found

    @classmethod
    def of(cls, array: Any) -> Backend | None:
        """Return the backend of a tensor's device."""
        import torch

        if not isinstance(array, torch.Tensor):
            return None
        return get_backend("torch", str(array.device))
