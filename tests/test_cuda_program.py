"""The CUDA program compiles for every generation of GPU that is looked at, with the compiler that CuPy uses.

NVRTC needs neither a GPU nor a driver. It comes with ``pip install nvidia-cuda-nvrtc``, and with CuPy's ``ctk`` extra.
"""

import ctypes
import importlib.util
import re
from pathlib import Path

import pytest
from gpunet.backends.cupy.kernels import FILES, OPTIONS, SOURCE, THREADS, names

CUPYS = ("-ftz=true", "--device-as-default-execution-space")
"""Options that CuPy 14 adds: cupy/cuda/compiler.py."""


class NVRTC:
    """Compiles CUDA to machine code, which takes NVIDIA's own assembler, too."""

    def __init__(self, library):
        self._library = ctypes.CDLL(library)

    def compile(self, source, options, expressions):
        """Return machine code, what the compiler said, and the expressions' names in the machine code."""
        rtc, program = self._library, ctypes.c_void_p()
        self._check(
            rtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"", 0, None, None)
        )
        for name in expressions:
            self._check(rtc.nvrtcAddNameExpression(program, name.encode()))
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = rtc.nvrtcCompileProgram(program, len(options), given)
        said = self._text(program, "ProgramLog").decode().strip("\0\n")
        code, lowered = b"", []
        if not failed:
            code = self._text(program, "CUBIN")
            for name in expressions:
                found = ctypes.c_char_p()
                self._check(rtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(found)))
                lowered.append(found.value)
        self._check(rtc.nvrtcDestroyProgram(ctypes.byref(program)))
        return code, said, lowered

    def _text(self, program, what):
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, text))
        return text.raw

    @staticmethod
    def _check(code):
        assert code == 0, f"NVRTC says {code}"


@pytest.fixture(scope="module")
def nvrtc():
    """Return NVRTC from its wheel."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations]
    found = [path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.*")]
    if not found:
        pytest.skip("NVRTC isn't installed (pip install nvidia-cuda-nvrtc)")
    return NVRTC(str(max(found)))


@pytest.mark.parametrize("generation", ["sm_80", "sm_90", "sm_100"])
def test_every_kernel_compiles_without_a_warning(nvrtc, generation):
    options = (*OPTIONS, *CUPYS, f"--gpu-architecture={generation}")
    code, said, lowered = nvrtc.compile(SOURCE, options, names())
    assert said == ""
    assert code[:4] == b"\x7fELF"
    assert len(set(lowered)) == len(names())
    assert all(name in code for name in lowered)


def test_what_does_not_compile_is_told(nvrtc):
    code, said, _ = nvrtc.compile(SOURCE + "int wrong = right;", OPTIONS, [])
    assert code == b""
    assert 'identifier "right" is undefined' in said


def test_both_sides_mean_the_same_number_of_threads():
    assert re.search(r"const int THREADS = (\d+);", SOURCE)[1] == str(THREADS)


def test_the_program_is_installed_with_the_package():
    """Its files are data of the package, which an installation from a wheel has only if pyproject.toml names them."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    setup = project["tool"]["setuptools"]
    assert "gpunet.backends.cupy" in setup["packages"]
    patterns = setup["package-data"]["gpunet.backends.cupy"]
    assert all(any(Path(name).match(pattern) for pattern in patterns) for name in FILES)
