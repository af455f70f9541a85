"""JAX, on any of its devices; a whole epoch is one compiled program.

Requires: jax >= 0.9. Double precision is switched on only while gpunet computes: what a float64 network returns is
float64, and JAX itself goes on with it in float32 unless its own ``jax_enable_x64`` is set.

JAX compiles every function that runs outside of a step, too, once for each shape, and keeps some thousands of these
programs: a hundred fits of different shapes may hold gigabytes, any number of one shape nothing more.
``jax.clear_caches()`` frees them.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable
from typing import Any

from gpunet import optimizers
from gpunet.backend import Backend, BackendUnavailableError, Device, Epoch, Step, get_backend
from gpunet.step import TrainingStep


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
        from .jax_primitives import JAXPrimitives  # imports jax

        self.primitives = JAXPrimitives()
        self._compiled: dict[Step, Any] = {}

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
        if step not in self._compiled:
            if len(self._compiled) >= 64:  # a long search shouldn't keep them all
                del self._compiled[next(iter(self._compiled))]
            self._compiled[step] = self._scan(step)
        run = self._compiled[step]
        columns: tuple[Any, ...] = ()
        rows: tuple[Any, ...] = ()

        def epoch(carry: Any, batches: Any, data: Any, stop: Callable[[], bool]) -> Any:
            nonlocal columns, rows
            if stop():
                return carry
            if not isinstance(step, TrainingStep):
                return run(carry, batches, (), data)
            if not columns or any(map(operator.is_not, columns, data)):
                # JAX has no views: what minibatches are taken from is made once, and not every epoch
                columns, rows = data[:2], tuple(map(self.xp.matrix_transpose, data[:2]))
            return run(carry, batches, rows, data[2:])

        return epoch

    def _scan(self, step: Step) -> Any:
        """Return an epoch as a function of (carry, batches, the rows of x and y, the rest of the data)."""
        from .jax_primitives import JAXPieces, Pieces

        jax, xp, primitives = self._jax, self.xp, self.primitives
        architecture = None
        # a gradient is clipped by the length of all of it; gpunet's own rules go element by element
        rules = optimizers.KNOWN.values()
        if isinstance(step, TrainingStep) and step.clip is None and type(step.optimizer) in rules:
            architecture = step.architecture

        def scan(primitives: Any, carry: Any, batches: Any, rows: Any, others: Any) -> Any:
            def body(carry: Any, batch: Any) -> tuple[Any, None]:
                # transposed in here, and so never: outside, XLA copies all of x on its way into the loop
                data = (*map(xp.matrix_transpose, rows), *others) if rows else others
                return step(primitives, carry, batch, data), None

            # two steps a turn: XLA copies parameters from one turn to the next
            return jax.lax.scan(body, carry, batches, unroll=2)[0]

        def run(carry: Any, batches: Any, rows: Any, others: Any) -> Any:
            if architecture is None:
                return scan(primitives, carry, batches, rows, others)
            theta, slots, total = carry
            vectors = [Pieces.of(architecture, vector) for vector in (theta, *slots)]
            carry = (vectors[0], tuple(vectors[1:]), total)
            theta, slots, total = scan(JAXPieces(), carry, batches, rows, others)
            return theta.joined(), tuple(slot.joined() for slot in slots), total

        # a training step consumes its carry
        return jax.jit(run, donate_argnums=0 if isinstance(step, TrainingStep) else ())

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
