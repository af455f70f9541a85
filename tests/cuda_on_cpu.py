"""Runs CUDA kernels on the processor: the program compiled as C++, with cuda_on_cpu.hpp in place of CUDA."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from gpunet.backends.cupy.kernels import OPTIONS, SOURCE, names

COMPILER = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), None)
GUARD = 4096  # bytes


def compiled(folder):
    """Compile all kernels into a library in a folder; return its path."""
    return built(folder, SOURCE, names())


def built(folder, source, kernels, after="", optimize="-O1"):
    """Compile some kernels of a program, followed by more text, into a library in a folder; return its path."""
    shim = Path(__file__).with_suffix(".hpp").read_text(encoding="utf-8")
    listed = "\n".join(f"KERNEL({number}, {name})" for number, name in enumerate(kernels))
    file, library = folder / "kernels.cpp", folder / "kernels.so"
    file.write_text(f"{shim}\n{source}\n{listed}\n{after}\n", encoding="utf-8")
    assert "--fmad=false" in OPTIONS  # which is the third of these
    options = ["-std=c++17", optimize, "-ffp-contract=off", "-fPIC", "-shared"]
    done = subprocess.run(
        [COMPILER, *options, "-o", library, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]
    return library


class OnProcessor:
    """Launches kernels on the processor, and checks what a GPU wouldn't tell."""

    def __init__(self, library, kernels=None):
        self._library = ctypes.CDLL(library)
        self._numbers = {name: number for number, name in enumerate(kernels or names())}

    def __call__(self, name, grid, block, arguments):
        assert block[0] * block[1] == 256
        self.launch(name, grid, block, arguments)

    def launch(self, name, grid, block, arguments, shared=0):
        """Launch a kernel, both ways, with some bytes of shared memory."""
        number = self._numbers[name]
        signature = getattr(self._library, f"signature_{number}")
        signature.restype = ctypes.c_char_p
        expected = signature().decode().split()
        assert [described(a, e) for a, e in zip(arguments, expected, strict=True)] == expected
        assert 0 < grid[0] < 2**31
        assert 0 < grid[1] < 2**16
        assert block[0] * block[1] <= 1024
        launch = getattr(self._library, f"launch_{number}")
        launch.restype = ctypes.c_char_p
        results = []
        for backwards in (False, True):
            values = [Guarded(a) if isinstance(a, np.ndarray) else a for a in arguments]
            pointers = [v.pointer if isinstance(v, Guarded) else np.array(v) for v in values]
            given = (ctypes.c_void_p * len(pointers))(*(p.ctypes.data for p in pointers))
            sizes = (ctypes.c_uint * 5)(*grid, *block, shared)
            wrong = launch(sizes, given, backwards)
            assert wrong is None, f"{name}: {wrong.decode()}"
            guarded = [v for v in values if isinstance(v, Guarded)]
            assert all(v.intact() for v in guarded), f"{name} writes outside of an array"
            results.append([v.content() for v in guarded])
        assert results[0] == results[1], f"{name} depends on the order of its threads"
        for v in guarded:
            v.bring_back()


def described(argument, expected):
    """Return what an argument is, as cuda_on_cpu.hpp says it; a null pointer is any."""
    if isinstance(argument, np.ndarray):
        return f"*{argument.dtype.str[1:]}"
    if argument.dtype == np.uintp and expected.startswith("*"):
        return expected
    return argument.dtype.str[1:]


class Guarded:
    """A copy of an array's memory between guards, which are NaN to who reads them."""

    def __init__(self, array):
        low, high = np.lib.array_utils.byte_bounds(array)
        self._low, self._before = low, ctypes.string_at(low, high - low)
        self._memory = np.full(len(self._before) + 2 * GUARD, 0xFF, np.uint8)
        self._memory[GUARD:-GUARD] = np.frombuffer(self._before, np.uint8)
        start = self._memory.ctypes.data + GUARD + array.ctypes.data - low
        self.pointer = np.array(start, dtype=np.uintp)

    def content(self):
        return self._memory[GUARD:-GUARD].tobytes()

    def intact(self):
        return bool((self._memory[:GUARD] == 0xFF).all() and (self._memory[-GUARD:] == 0xFF).all())

    def bring_back(self):
        after = self.content()
        if after != self._before:
            ctypes.memmove(self._low, after, len(after))
