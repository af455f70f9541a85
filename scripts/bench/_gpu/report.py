"""What came of the race: tables for people, and where it was run."""

import importlib.metadata
import math
import platform
import subprocess

PACKAGES = (
    "cupy-cuda13x", "cupy-cuda12x", "cupy", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvmath-python", "numpy", "torch",
    "jax", "jaxlib", "gpunet",
)  # fmt: skip


def versions():
    """Return the installed ones of the packages that matter."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment(*, dry=False):
    """Return where this runs: device, driver, versions."""
    about = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions(),
    }
    if dry:
        return about
    import cupy

    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    about |= {
        "device": properties["name"].decode(),
        "compute_capability": device.compute_capability,
        "memory": properties["totalGlobalMem"],
        "multiprocessors": properties["multiProcessorCount"],
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cuda_driver": runtime.driverGetVersion(),
        "cublas": cupy.cuda.cublas.getVersion(device.cublas_handle),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
    }
    query = (
        "name,driver_version,pstate,clocks.sm,clocks.mem,power.limit,memory.used,mig.mode.current"
    )
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        about["nvidia_smi"] = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        about["nvidia_smi"] = f"{type(error).__name__}: {error}"
    return about


def rows_of(results):
    """Return the table's cells: a step's microseconds, the ratio to gpunet, and the share of float32's operations."""
    rows = [["", *next(iter(results.values()))]]
    for name, each in results.items():
        ours = each.get("gpunet", {}).get("microseconds")
        row = [name]
        for found in each.values():
            if "problem" in found:
                row.append("–")
            elif ours is None:
                row.append(f"{found['microseconds']:.1f}")
            else:
                row.append(f"{found['microseconds']:.1f} ({found['microseconds'] / ours:.2f})")
        rows.append(row)
    return rows


def table(results):
    """Return a table to print."""
    rows = rows_of(results)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(
        [
            "Microseconds a step (in brackets the ratio to gpunet); all networks of a stack together",
            *lines,
            *problems(results),
        ]
    )


def problems(results):
    """Return a line for each contestant that has no number."""
    return [
        f"{name}, {contestant}: {found['problem']}"
        for name, each in results.items()
        for contestant, found in each.items()
        if "problem" in found
    ]


def markdown(about, results, difference):
    """Return the report to keep."""
    header, *rows = rows_of(results)
    lines = [
        f"# Training on {about['device']}",
        "",
        "Written by `scripts/bench/gpu`: median microseconds a step, in brackets the ratio to gpunet; all networks of",
        "a stack together. float32 without TF32, shuffled minibatches, Adam, L2; W1 to W3 are described in",
        "`scripts/bench/_contestants/workloads.py`.",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {line}" for line in problems(results)),
        f"- Losses after three epochs lie {difference:.1e} apart (relative).",
        "",
        "```",
        *(f"{key}: {value}" for key, value in about.items()),
        "```",
    ]
    return "\n".join(lines) + "\n"


def worst_difference(results):
    """Return the largest relative difference of losses to the first contestant's; infinite where one is no number."""
    worst = 0.0
    for each in results.values():
        losses = [found["loss"] for found in each.values() if "loss" in found]
        if not all(map(math.isfinite, losses)):
            return math.inf
        worst = max([worst, *(abs(other - losses[0]) / losses[0] for other in losses[1:])])
    return worst
