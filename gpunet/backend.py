"""Backends: what gpunet asks of an array library, and how one is chosen.

Adding a backend
----------------
Subclass `Backend` for your library, name it in your ``pyproject.toml``, and install the package:

.. code-block:: toml

    [project.entry-points."gpunet.backends"]
    mylib = "mypackage.gpunet_backend:MyBackend"

No change in gpunet is needed. The class says what it needs (`library`, `install`, `types`), imports the library only in
``__init__``, sets ``xp`` and ``device``, and converts to and from NumPy. That is all it takes to be right. To be fast
it may override a few things, each tested against its default on the same numbers: the namespace ``xp`` may bring
better functions, ``primitives`` better formulas (`gpunet.primitives`), `compile` may turn an epoch of training steps
into something that replays, and `epochs` several of them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

from gpunet.primitives import Primitives
from gpunet.sparse import SparseColumns
from gpunet.streaming import Feed, resident
from gpunet.typing import Array, HostArray, Namespace

Step = Callable[[Primitives, Any, Any, Any], Any]
"""``step(primitives, carry, batch, data) -> carry``: one training step, a pure function."""

Epoch = Callable[[Any, tuple[Array, ...], Any, Callable[[], bool]], Any]
"""``epoch(carry, batches, data, stop) -> carry``: as many steps as ``batches`` has rows, fewer if ``stop()``."""

GROUP = "gpunet.backends"
VARIABLE = "GPUNET_BACKEND"
ALIASES = {"pytorch": "torch", "np": "numpy", "cp": "cupy", "strict": "array_api_strict"}


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and can't run here; the message says why and what to install."""


@dataclass(frozen=True)
class Device:
    """A device of a backend: its name for ``backend:device``, what it is, and its memory in bytes."""

    name: str
    description: str
    memory: int | None = None


@dataclass(frozen=True)
class Stacking:
    """How networks are best trained together.

    Attributes
    ----------
    bytes : int
        What a stack may touch in a training step.
    side_by_side : int
        How many stacks are trained at once, in threads; 0 where threads gain nothing.
    whole_epochs : bool
        Whether a stack's epoch runs without Python, whose lock threads would take turns at.
    """

    bytes: int
    side_by_side: int = 0
    whole_epochs: bool = False


def processor() -> Device:
    """Return the device that every machine has."""
    memory = None
    if hasattr(os, "sysconf"):  # not on Windows
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("cpu", f"{os.cpu_count()} processor cores", memory)


class Backend:
    """One array library on one device.

    Parameters
    ----------
    device : str, optional
        A device's name as the library knows it; None takes its default.

    Raises
    ------
    BackendUnavailableError
        If the library isn't installed or the device isn't there.

    Attributes
    ----------
    name : str
        What users call it: ``backend="name"``.
    library : str
        The package to import.
    install : str
        The command that installs it.
    types : tuple of str
        Top-level packages in which the library's array type may be defined.
    compiles_shapes : bool
        Whether `compile` takes long for every new shape.
    automatic : bool
        Whether ``auto`` may choose it, which it does when `probe` finds nothing missing.
    xp : namespace
        The functions of the Array API standard.
    device : object
        The device, as the library knows it.
    primitives : Primitives
        The formulas of `gpunet.primitives`, or faster ones.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    install: ClassVar[str]
    types: ClassVar[tuple[str, ...]]
    automatic: ClassVar[bool] = False
    compiles_shapes: ClassVar[bool] = False

    xp: Namespace
    device: Any

    def __init__(self, device: str | None = None) -> None:
        raise NotImplementedError

    @cached_property
    def primitives(self) -> Primitives:
        """The reference primitives over this backend's namespace."""
        return Primitives(self.xp)

    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        """Return an array on this backend's device, from a NumPy array or one of its own."""
        raise NotImplementedError

    @property
    def memory(self) -> tuple[int, int] | None:
        """The memory that arrays live in, as DLPack numbers it: (kind of device, which). None is no such memory."""
        return None

    def adopt(self, array: Any, owner: Backend) -> Array:
        """Return an array of another library that lies in this very memory as this library's, without a copy.

        An array in another memory, and one that its library won't share, is returned as it is.
        """
        here = self.memory
        if (
            here is None
            or owner.memory != here
            or tuple(map(int, array.__dlpack_device__())) != here
        ):
            return array
        try:
            return self.xp.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError):  # read-only, a tape, a dtype
            return array

    def to_host(self, array: Array) -> HostArray:
        """Return a NumPy array; waits for the device."""
        raise NotImplementedError

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which the library computes on this device (and without a tape)."""
        return contextlib.nullcontext()

    def sparse_columns(self, rows: Any, dtype: str) -> SparseColumns:
        """Return SciPy's sparse rows (n, d) as columns (d, n); the default makes each part of them dense."""
        return SparseColumns(rows, self, dtype)

    def holds(self, size: int) -> bool:
        """Return whether examples of so many bytes are to lie on the device.

        Others stay on the host (`gpunet.streaming`): where ``GPUNET_RESIDENT`` is 0, and where a backend finds no room.
        """
        return resident() is not False

    def feed(self, arrays: Sequence[HostArray], most: int) -> Feed:
        """Return what brings rows of host arrays to the device, ``most`` of them at once; the default waits for it."""
        return Feed(arrays, self)

    def compile(self, step: Step) -> Epoch:
        """Turn a training step into an epoch of them; the default calls it once for each batch."""
        primitives = self.primitives

        def epoch(
            carry: Any, batches: tuple[Array, ...], data: Any, stop: Callable[[], bool]
        ) -> Any:
            for row in range(batches[0].shape[0]):
                if stop():
                    break
                carry = step(primitives, carry, tuple(part[row, ...] for part in batches), data)
            return carry

        return epoch

    def epochs(
        self,
        epoch: Epoch,
        carry: Any,
        parts: Sequence[tuple[Array, ...]],
        data: Any,
        stop: Callable[[], bool],
    ) -> tuple[Any, list[Array]]:
        """Run some epochs one after the other, between which nobody looks at anything.

        Parameters
        ----------
        epoch : Epoch
            What `compile` has returned.
        carry : tuple
            A step's, with Σ cost · examples at 0.
        parts : sequence of tuple of array
            The epochs' full batches and, where there is one, the partial last one: each array has the axes (epochs,
            steps, ...).
        data : tuple
        stop : callable
            Asked before each step, or less often, whether to end here.

        Returns
        -------
        carry : tuple
        totals : list of array
            Each epoch's Σ cost · examples; of those only that weren't cut short.
        """
        theta, slots, nothing, *more = carry
        totals: list[Array] = []
        cut = False

        def asked() -> bool:
            nonlocal cut
            cut = cut or stop()
            return cut

        for number in range(parts[0][0].shape[0]):
            carry = (theta, slots, self.xp.zeros_like(nothing), *more)
            for part in parts:
                carry = epoch(carry, tuple(array[number, ...] for array in part), data, asked)
            theta, slots, total, *more = carry
            if cut:
                break
            totals.append(total)
        return carry, totals

    def step_seconds(self, shape: tuple[int, ...], m: int) -> float:
        """Return about how long a training step of m examples takes with θ of this shape (..., P)."""
        networks, operations = math.prod(shape[:-1]), 6 * math.prod(shape) * m
        return (1e6 + 2.5e4 * networks + operations) / 2e10

    def is_memory_error(self, error: Exception) -> bool:
        """Return whether an error says that the device's memory is short."""
        return isinstance(error, MemoryError)

    def scales_losses(self, dtype: str) -> bool:
        """Return whether products of this dtype round to float16, for which `gpunet.loss_scaling` is there."""
        return False

    def stacking(self) -> Stacking:
        """Return how many networks are best trained as one: on a processor what its caches hold a few times over."""
        return Stacking(2**25)

    def one_thread(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context, for the whole process, in which stacks side by side have a thread each and no more."""
        return contextlib.nullcontext()

    @classmethod
    def probe(cls) -> str | None:
        """Return why this backend can't run here, or None. Cheap where the library is missing."""
        if not _installed(cls.library):
            return f"{cls.library} isn't installed"
        return None

    @classmethod
    def version(cls) -> str | None:
        """Return the library's version without importing it."""
        try:
            return importlib.metadata.version(cls.library.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            return None

    @classmethod
    def devices(cls) -> list[Device]:
        """Return the devices it can compute on; imports the library."""
        return [processor()]

    @classmethod
    def require(cls) -> None:
        """Raise `BackendUnavailableError` with the remedy where `probe` finds something missing."""
        problem = cls.probe()
        if problem is not None:
            raise BackendUnavailableError(
                f"Backend {cls.name!r} can't run here: {problem}. To install it: {cls.install}"
            )

    @classmethod
    def of(cls, array: Array) -> Backend | None:
        """Return the backend for the device on which an array of this library lives.

        None if it isn't such an array.
        """
        raise NotImplementedError

    @property
    def spec(self) -> str:
        """``name:device``, which chooses this backend and device again."""
        return f"{self.name}:{self.device}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as what chooses it again."""
        return get_backend, (self.spec,)

    def __repr__(self) -> str:
        return f"<backend {self.spec}>"


@cache
def _installed(library: str) -> bool:
    """Return whether a package is there; asked at every prediction, where looking takes as long as predicting."""
    return importlib.util.find_spec(library) is not None


@cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the known backends by name, none of them loaded."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


@cache
def _load(name: str) -> type[Backend]:
    """Return a known backend's class; its array library isn't imported yet."""
    known = _entry_points()
    if name not in known:
        states = [f"{other} ({_load(other).probe() or 'usable'})" for other in known]
        if not states:
            raise BackendUnavailableError(
                "No backend is registered: gpunet runs from an installed package (pip install -e . in a clone)."
            )
        raise ValueError(f"Unknown backend {name!r}; known are {', '.join(states)}.")
    cls: type[Backend] = known[name].load()
    return cls


@cache
def _create(name: str, device: str | None) -> Backend:
    cls = _load(name)
    cls.require()
    return cls(device)


_chosen: str | Backend | None = None
_chosen_here: ContextVar[str | Backend | None] = ContextVar("gpunet_backend", default=None)


def set_backend(backend: str | Backend | None) -> None:
    """Choose the backend for host data from here on, in the whole process.

    Parameters
    ----------
    backend : str, Backend or None
        A name, optionally with a device (``"torch:cpu"``, ``"cupy:1"``); None returns the choice to
        ``GPUNET_BACKEND``.

    Raises
    ------
    ValueError, BackendUnavailableError
        At once, as for `get_backend`.

    Examples
    --------
    >>> import gpunet
    >>> gpunet.set_backend("numpy")
    >>> gpunet.get_backend()
    <backend numpy:cpu>
    >>> gpunet.set_backend(None)
    """
    global _chosen  # noqa: PLW0603  # one choice for the process is what is offered
    _chosen = None if backend is None else get_backend(backend)


@contextlib.contextmanager
def use_backend(backend: str | Backend) -> Iterator[Backend]:
    """Choose the backend for host data within a ``with`` block, in this thread or task only.

    Examples
    --------
    >>> import gpunet
    >>> with gpunet.use_backend("numpy") as backend:
    ...     print(backend, gpunet.get_backend() is backend)
    <backend numpy:cpu> True
    """
    resolved = get_backend(backend)
    token = _chosen_here.set(resolved)
    try:
        yield resolved
    finally:
        _chosen_here.reset(token)


def get_backend(backend: str | Backend | None = None, device: str | None = None) -> Backend:
    """Return the backend that host data is computed with.

    The first of these that is given decides: the argument, `use_backend`, `set_backend`, the environment
    variable ``GPUNET_BACKEND`` (read now, not at import), and ``auto``: a CUDA device that a real probe found
    usable, else NumPy.

    Parameters
    ----------
    backend : str, Backend or None
        A name or alias, optionally with a device: ``"numpy"``, ``"torch:cpu"``, ``"cupy:1"``, ``"auto"``.
    device : str, optional
        The device, if it isn't in the name.

    Raises
    ------
    ValueError
        For an unknown name (the known ones are listed with their state), or a device given twice.
    BackendUnavailableError
        For a known one that can't run here, with what is missing and how to install it. There is
        no silent fallback.

    Examples
    --------
    >>> get_backend("numpy").xp.sum is not None
    True
    """
    choice = backend or _chosen_here.get() or _chosen or os.environ.get(VARIABLE) or "auto"
    if isinstance(choice, Backend):
        if device is not None and device != str(choice.device):
            return get_backend(choice.name, device)
        return choice
    if not isinstance(choice, str):
        raise TypeError(f"backend is a name such as 'numpy' or 'torch:cpu', not {choice!r}.")
    name, colon, named = choice.strip().partition(":")
    if colon and device is not None and device != named:
        raise ValueError(f"Two devices were asked for: backend={choice!r} and device={device!r}.")
    name = ALIASES.get(name.lower(), name.lower())
    if name == "auto":
        return _automatic(device)
    return _create(name, device or named or None)


def _automatic(device: str | None) -> Backend:
    for name in _entry_points():
        cls = _load(name)
        if cls.automatic and cls.probe() is None:
            return _create(name, device)
    return _create("numpy", device)


def backend_of(arrays: Iterable[Any]) -> Backend | None:
    """Return the backend of arrays that already live in a library and on a device.

    None for host data (NumPy, pandas, lists, ...), which `get_backend` decides.

    Raises
    ------
    ValueError
        For arrays of different libraries or devices.
    """
    found: Backend | None = None
    for array in arrays:
        root = type(array).__module__.partition(".")[0]
        if root in {"builtins", "numpy", "pandas", "polars", "scipy"}:
            continue
        for name in _entry_points():
            cls = _load(name)
            owner = cls.of(array) if root in cls.types else None
            if owner is None:
                continue
            if found is not None and owner.spec != found.spec:
                raise ValueError(
                    f"Arrays of two places were given, {found.spec} and {owner.spec}: move one to the "
                    "other first."
                )
            found = owner
    return found


def dtype_name(array: Array) -> str:
    """Return the name of an array's dtype, ``"float32"`` say, without a look at its values."""
    kind: Any = type(array.dtype)
    return _name_of(kind, array.dtype)


@cache
def _name_of(kind: Any, dtype: Any) -> str:
    """Return a dtype's name; NumPy takes 10 µs to find it, twice an epoch.

    With its type, so that no library's is compared with another's.
    """
    return str(dtype).rpartition(".")[2]  # torch calls it torch.float32


def backends_info() -> list[dict[str, Any]]:
    """Return each known backend with its state: what ``gpunet backends`` shows.

    Returns
    -------
    list of dict
        ``name``, ``version`` (None if it isn't installed), ``devices`` (a list of `Device`), ``problem``
        (None, or why it can't run here) and ``install`` (the command that installs it).

    Examples
    --------
    >>> {info["name"]: info["problem"] for info in backends_info()}["numpy"] is None
    True
    """
    infos = []
    for name in sorted(_entry_points()):
        info: dict[str, Any] = {"name": name, "version": None, "devices": [], "install": ""}
        try:
            cls = _load(name)
            info.update(version=cls.version(), install=cls.install, problem=cls.probe())
            if info["problem"] is None:
                info["devices"] = cls.devices()
        except Exception as error:  # a broken backend is a state to show, not an end
            info["problem"] = f"{type(error).__name__}: {error}"
        infos.append(info)
    return infos
