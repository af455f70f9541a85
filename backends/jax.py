"""JAX, on any of its devices; a whole epoch is one compiled program.

Requires: jax >= 0.9. Double precision is switched on only while gpunet computes: what a float64 network returns is
float64, and JAX itself goes on with it in float32 unless its own ``jax_enable_x64`` is set.

JAX compiles every function that runs outside of a step, too, once for each shape, and keeps some thousands of these
programs: 100 fits of different shapes were seen to hold 3.8 GB, 600 of one shape nothing. ``jax.clear_caches()``
frees them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from gpunet.backend import Backend, BackendUnavailableError, Device, Epoch, Step, get_backend


class JAXBackend(Backend):
    """JAX; arrays are immutable, which the mathematics' consume-and-return style allows."""

    name = "jax"
    library = "jax"
    install = "pip install jax"
    types = ("jax", "jaxlib")
    compiles_shapes = True

    def __init__(self, device: str | None = None) -> None:
        import jax
        import jax.numpy as xp

        self._jax = jax
        self.xp = xp
        platform, _, index = (device or "").partition(":")
        try:
            known = jax.devices(platform) if platform else jax.devices()
            self._device = known[int(index or 0)]
        except (RuntimeError, ValueError, IndexError) as error:
            names = ", ".join(known.name for known in self.devices())
            reason = str(error).partition("\n")[0]
            raise BackendUnavailableError(
                f"jax has no usable device {device!r} here ({reason}); its devices are {names}."
            ) from None
        self.device = f"{self._device.platform}:{self._device.id}"
        self._compiled: dict[Step, Epoch] = {}

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        """Return an array on this device."""
        jax = self._jax
        with self.active():
            if not isinstance(values, jax.Array):
                import numpy as np

                values = np.asarray(values)
            return jax.device_put(values if dtype is None else values.astype(dtype), self._device)

    @property
    def memory(self) -> tuple[int, int] | None:
        """The host's or a CUDA device's."""
        if self._device.platform in {"cuda", "gpu"}:
            return 2, self._device.id
        return (1, 0) if self._device.platform == "cpu" and self._device.id == 0 else None

    def to_host(self, array: Any) -> Any:
        """Return a NumPy array."""
        import numpy as np

        return np.asarray(array)

    @contextlib.contextmanager
    def active(self) -> Any:
        """Allow float64 and put what is created on this device, for as long as gpunet computes."""
        with self._jax.enable_x64(True), self._jax.default_device(self._device):
            yield

    def compile(self, step: Step) -> Epoch:
        """Return ``jit`` of a ``lax.scan`` over the batches; compiled once for equal steps and shapes."""
        if step in self._compiled:
            return self._compiled[step]
        jax, primitives = self._jax, self.primitives

        @jax.jit  # type: ignore[untyped-decorator]
        def run(carry: Any, batches: Any, data: Any) -> Any:
            def body(carry: Any, batch: Any) -> tuple[Any, None]:
                return step(primitives, carry, batch, data), None

            return jax.lax.scan(body, carry, batches)[0]

        def epoch(carry: Any, batches: Any, data: Any, stop: Callable[[], bool]) -> Any:
            return carry if stop() else run(carry, batches, data)

        if len(self._compiled) >= 64:  # a long search over architectures shouldn't keep them all
            del self._compiled[next(iter(self._compiled))]
        self._compiled[step] = epoch
        return epoch

    def is_memory_error(self, error: Exception) -> bool:
        """Return whether memory was short; XLA has one type for all that goes wrong."""
        return super().is_memory_error(error) or (
            isinstance(error, self._jax.errors.JaxRuntimeError)
            and "RESOURCE_EXHAUSTED" in str(error)
        )

    @classmethod
    def devices(cls) -> list[Device]:
        """Return every device of every platform JAX finds."""
        import jax

        return [
            Device(
                f"{device.platform}:{device.id}",
                device.device_kind,
                (device.memory_stats() or {}).get("bytes_limit"),
            )
            for device in jax.devices()
        ]

    @classmethod
    def of(cls, array: Any) -> Backend | None:
        """Return the backend of an array's device."""
        import jax

        if not isinstance(array, jax.Array):
            return None
        (device, *others) = array.devices()
        if others:
            raise ValueError(
                f"An array spread over {len(others) + 1} JAX devices was given; gpunet takes one."
            )
        return get_backend("jax", f"{device.platform}:{device.id}")
