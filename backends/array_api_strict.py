"""array-api-strict: the standard and nothing else, for tests. Its second device stands for a GPU.

Requires: array-api-strict.
"""

from __future__ import annotations

from typing import Any

from gpunet.backend import Backend, BackendUnavailableError, Device, get_backend


class ArrayAPIStrictBackend(Backend):
    """array-api-strict, which refuses what the standard doesn't promise, mixing of devices among it."""

    name = "array_api_strict"
    library = "array_api_strict"
    install = "pip install array-api-strict"
    types = ("array_api_strict",)

    def __init__(self, device: str | None = None) -> None:
        import array_api_strict as xp

        known = [known.name for known in self.devices()]
        if device is not None and device not in known:
            raise BackendUnavailableError(
                f"array_api_strict has no device {device!r}; its devices are {', '.join(known)}."
            )
        self.xp = xp
        self._device = xp.Device(device or "CPU_DEVICE")
        self.device = device or "CPU_DEVICE"

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        """Return an array on this device."""
        wanted = None if dtype is None else getattr(self.xp, dtype)
        if not isinstance(values, self.xp._array_object.Array):
            import numpy as np

            values = np.asarray(values)
        return self.xp.asarray(values, dtype=wanted, device=self._device)

    def to_host(self, array: Any) -> Any:
        """Return a NumPy array."""
        import numpy as np

        return np.asarray(array.to_device(self.xp.Device("CPU_DEVICE")))

    @classmethod
    def devices(cls) -> list[Device]:
        """Return its three pretended devices."""
        names = ("CPU_DEVICE", "device1", "device2")
        return [Device(name, "pretended, in host memory") for name in names]

    @classmethod
    def of(cls, array: Any) -> Backend | None:
        """Return the backend of an array's device."""
        import array_api_strict as xp

        if not isinstance(array, xp._array_object.Array):
            return None
        return get_backend("array_api_strict", str(array.device).split("'")[1])
