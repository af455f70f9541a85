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
    shim = Path(__file__).with_suffix(".hpp").read_text(encoding="utf-8")
    kernels = "\n".join(f"KERNEL({number}, {name})" for number, name in enumerate(names()))
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(f"{shim}\n{SOURCE}\n{kernels}\n", encoding="utf-8")
    assert "--fmad=false" in OPTIONS  # which is the third of these
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared"]
    done = subprocess.run(
        [COMPILER, *options, "-o", library, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]
    return library


class OnProcessor:
    """Launches kernels on the processor, and checks what a GPU wouldn't tell."""

    def __init__(self, library):
        self._library = ctypes.CDLL(library)
        self._numbers = {name: number for number, name in enumerate(names())}

    def __call__(self, name, grid, block, arguments):
        number = self._numbers[name]
        signature = getattr(self._library, f"signature_{number}")
        signature.restype = ctypes.c_char_p
        expected = signature().decode().split()
        assert [described(a, e) for a, e in zip(arguments, expected, strict=True)] == expected
        assert 0 < grid[0] < 2**31
        assert 0 < grid[1] < 2**16
        assert block[0] * block[1] == 256
        launch = getattr(self._library, f"launch_{number}")
        launch.restype = ctypes.c_bool
        results = []
        for backwards in (False, True):
            values = [Guarded(a) if isinstance(a, np.ndarray) else a for a in arguments]
            pointers = [v.pointer if isinstance(v, Guarded) else np.array(v) for v in values]
            given = (ctypes.c_void_p * len(pointers))(*(p.ctypes.data for p in pointers))
            sizes = (ctypes.c_uint * 4)(*grid, *block)
            assert launch(sizes, given, backwards), f"not all threads of {name} meet"
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
