"""Where it was measured: what a reader needs to know to believe the numbers, or to doubt them."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import numpy  # noqa: F401 - whose threads are asked for
from threadpoolctl import threadpool_info

from _race.worker import CLEARED

LIBRARIES = ("numpy", "scipy", "scikit-learn", "numba", "torch", "jax", "skorch", "thinc")


def environment():
    """Return what is known before anything is measured, by name."""
    return {
        "processor": f"{_processor()}, {cores()} cores used",
        "memory": f"{megabytes() / 1e3:.0f} GB",
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "NumPy's products": in_words(threadpool_info()),
        "gpunet": _gpunet(),
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
        "unset": ", ".join(CLEARED),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def threads(results):
    """Return the pools of threads in each contestant's process, from what was measured of them."""
    pools = {}
    for result in results:
        pools = result["libraries"] | pools
    return {f"threads of {name}": in_words(each) for name, each in pools.items()}


def cores():
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def megabytes():
    """Return how much memory the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6


def _processor():
    """Return the processor's name and, on Linux, what tells its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    name = facts.get("model name", platform.machine())
    if "cpu family" not in facts:
        return name
    wide = "AVX-512" if "avx512f" in facts.get("flags", "").split() else "no AVX-512"
    return f"{name} (family {facts['cpu family']}, model {facts['model']}, {wide})"


def _versions():
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"{name} {importlib.metadata.version(name)}"


def _gpunet():
    """Return gpunet's version and commit."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "no commit known"
    return f"{importlib.metadata.version('gpunet')}, {commit}"


def in_words(pools):
    """Return pools of threads as a reader wants them."""
    return "; ".join(
        f"{pool['internal_api']} {pool['version'] or ''} {pool['architecture'] or ''}".strip()
        + f" × {pool['num_threads']}"
        for pool in pools
    )
